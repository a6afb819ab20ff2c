"""Attention without its matrix of scores: softmax(q · kᵀ) · v, block by block.

    s_ij  = scale · q_i · k_j, then cap · tanh(s_ij / cap), then + the biases, -inf where not seen
    out_i = Σ_j softmax_j(s_ij) · v_j

Biases are an additive mask, ALiBi's slopes, or T5's bucketed relative positions, computed in the
kernel and never stored. What a query sees is bounded by causality, a sliding window, the lengths
of the sequences, or a boolean mask. A query that sees no key gives zeros.

Sources: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018,
https://arxiv.org/abs/1805.02867; Dao, "FlashAttention-2", 2023, https://arxiv.org/abs/2307.08691;
Press, Smith and Lewis, "Train Short, Test Long", 2022, https://arxiv.org/abs/2108.12409 (ALiBi);
Raffel et al., "Exploring the Limits of Transfer Learning", 2020,
https://arxiv.org/abs/1910.10683 (relative positions).
"""

from typing import Any

import torch

from kernl import launch
from kernl.launch import Launch, Plan, cdiv, next_power_of_2
from kernl.ops.attention_check import check_attention
from kernl.ops.attention_config import ATTENTION_TUNABLE, CHANGED, KEYS, AttentionConfig
from kernl.ops.attention_kernel import LOG2_E, attention_kernel
from kernl.ops.relative_bias import first_distances, relative_bias_reference
from kernl.tables import Tunable
from kernl.tuning import choose

SMALLEST_SCALE = 1e-30
"""Any score times this is 0 beside the others."""

_MOST_OF_A_RUN = 1024
"""So many keys of a mask are looked at together."""
_FEWEST_BLOCKS = 2
"""With so few blocks of keys, asking the mask in each costs less than reading it before."""
_UNTIMED = 100
"""GPUs from here on were never timed, and spill registers where edges are left out."""


def seen_reference(
    q_len: int, k_len: int, causal: bool, window: int | None, device: torch.device
) -> torch.Tensor:
    """(q_len, k_len): which keys a query sees, by causality and window."""
    place = torch.arange(q_len, device=device)[:, None] + (k_len - q_len)
    keys = torch.arange(k_len, device=device)[None]
    seen = torch.ones(q_len, k_len, dtype=torch.bool, device=device)
    if causal:
        seen = seen & (keys <= place)
    if window is not None:
        seen = seen & ((keys - place).abs() < window)
    return seen


def attention_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    key_lengths: torch.Tensor | None = None,
    window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
    relative_bias: torch.Tensor | None = None,
    bidirectional: bool = True,
    max_distance: int = 128,
) -> torch.Tensor:
    """What a PyTorch user would write."""
    q_len, k_len = q.shape[2], k.shape[2]
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v)) if group > 1 else (k, v)
    scores = torch.matmul(q, k.mT) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    distance = torch.arange(k_len, device=q.device)[None]
    distance = distance - torch.arange(q_len, device=q.device)[:, None] - (k_len - q_len)
    if alibi_slopes is not None:
        scores = scores - alibi_slopes.to(scores.dtype)[:, None, None] * distance.abs()
    if relative_bias is not None:
        scores = scores + relative_bias_reference(
            relative_bias, distance, bidirectional, max_distance
        ).to(scores.dtype)
    if mask is not None and mask.dtype != torch.bool:
        scores = scores + mask
    seen = seen_reference(q_len, k_len, causal, window, q.device)
    if mask is not None and mask.dtype == torch.bool:
        seen = seen & mask
    if key_lengths is not None:
        inside = torch.arange(k_len, device=q.device) < key_lengths[:, None, None, None]
        seen = seen & inside
    scores = scores.masked_fill(~seen, float("-inf"))
    weights = torch.softmax(scores, dim=-1, dtype=torch.promote_types(q.dtype, torch.float32))
    weights = weights.masked_fill((scores == float("-inf")).all(-1, keepdim=True), 0.0)
    return torch.matmul(weights.to(q.dtype), v)


def empty_output(q: torch.Tensor) -> torch.Tensor:
    """Room for the output (batch, heads, q_len, head_dim), the heads of a token side by side."""
    batch, heads, q_len, head_dim = q.shape
    room = torch.empty((batch, q_len, heads, head_dim), dtype=q.dtype, device=q.device)
    return room.transpose(1, 2)


def attention_launch(
    config: AttentionConfig,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    sequences: int,
    longest: int,
    options: dict[str, Any],
) -> Launch:
    """The one launch, for (batch, heads, length, head_dim) or packed operands seen as such."""
    heads, head_dim = q.shape[1], q.shape[3]
    scale = head_dim**-0.5 if options["scale"] is None else options["scale"]
    if not options["changed"]:  # part of the exponent; 0 would make NaN of the -inf of hidden keys
        scale = max(scale * LOG2_E.value, SMALLEST_SCALE)
    block_d = max(16, next_power_of_2(head_dim))
    mask, bias = options["mask"], options["relative_bias"]
    mask_strides = (0, 0, 0, 0)
    if mask is not None:
        mask_strides = mask.expand(q.shape[0], heads, q.shape[2], k.shape[2]).stride()
    operands = {"q": q, "k": k, "v": v}
    per_head = {"slopes": options["alibi_slopes"], "lengths": options["key_lengths"]}
    exact, first = options["buckets"]
    kind, most_asked = _mask_kind(mask), _FEWEST_BLOCKS * config.block_n
    run = min(_MOST_OF_A_RUN, next_power_of_2(k.shape[2]))
    hidden = options["causal"] or options["window"] is not None or kind == "keys"
    ragged = per_head["lengths"] is not None or "cu_seqlens" in options
    return Launch(
        kernel=attention_kernel,
        grid=(cdiv(longest, config.block_m) * sequences * heads,),
        args={
            **{f"{name}_ptr": tensor for name, tensor in operands.items()},
            **{
                f"stride_{name}_{axis}": stride
                for name, tensor in operands.items()
                for axis, stride in zip("bhsd", tensor.stride(), strict=True)
            },
            # Absent tensors are stood in for by q: their pointers are never read.
            "out_ptr": out,
            "mask_ptr": q if mask is None else mask,
            "key_lengths_ptr": q if per_head["lengths"] is None else per_head["lengths"],
            "cu_seqlens_ptr": options.get("cu_seqlens", q),
            "slopes_ptr": q if per_head["slopes"] is None else per_head["slopes"],
            "bias_ptr": q if bias is None else bias,
            "heads": heads,
            "group": heads // k.shape[1],
            "q_len": longest,
            "k_len": k.shape[2],
            "head_dim": head_dim,
            "window": options["window"] or 0,
            "scale": float(scale),
            "softcap": float(options["softcap"] or 0.0),
            **{
                f"stride_out_{axis}": stride
                for axis, stride in zip("bhs", out.stride(), strict=False)
            },
            **{
                f"stride_mask_{axis}": stride
                for axis, stride in zip("bhqk", mask_strides, strict=True)
            },
            **{
                f"stride_{name}": 0 if tensor is None else tensor.stride(0)
                for name, tensor in per_head.items()
            },
            "stride_bias_bucket": 0 if bias is None else bias.stride(0),
            "stride_bias_head": 0 if bias is None else bias.stride(1),
        },
        constants={
            "MASK": kind,
            "MASK_OF_QUERY": mask_strides[2] != 0,
            "FIND_RUN": run if kind == "keys" and k.shape[2] > most_asked else 0,
            "WHOLE": options["capability"] < _UNTIMED
            and not (hidden or ragged or k.shape[2] % config.block_n),
            "COUNT_ON": _counts_on(options["capability"], k, v),
            "HAS_LENGTHS": per_head["lengths"] is not None,
            "VARLEN": "cu_seqlens" in options,
            "CAUSAL": options["causal"],
            "WINDOW": options["window"] is not None,
            "SOFTCAP": options["softcap"] is not None,
            "ALIBI": per_head["slopes"] is not None,
            "RELATIVE": "none" if bias is None else "both" if options["bidirectional"] else "past",
            "EXACT": exact,
            "FIRST": first,
            "EVEN_DIM": _is_a_block(head_dim),
            "BLOCK_M": config.block_m,
            "BLOCK_N": config.block_n,
            "BLOCK_D": block_d,
        },
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )


def _counts_on(capability: int, *keys_and_values: torch.Tensor) -> bool:
    """Whether an address counted on costs fewer registers and less time than one made anew.

    So it was timed on Hopper where a thread reads whole vectors; where it reads element by element,
    each has an address of its own.
    """
    return capability // 10 == 9 and all(
        x.itemsize == 2 and x.stride(3) == 1 and x.stride(2) % 16 == 0 and _is_a_block(x.shape[3])
        for x in keys_and_values
    )


def _is_a_block(head_dim: int) -> bool:
    return head_dim == max(16, next_power_of_2(head_dim))


def _mask_kind(mask: torch.Tensor | None) -> str:
    """`keys`: a boolean one that hides the same keys from every query."""
    if mask is None:
        return "none"
    if mask.dtype != torch.bool:
        return "additive"
    of_query = mask.dim() >= 2 and mask.shape[-2] > 1 and mask.stride(-2) != 0
    return "boolean" if of_query else "keys"


def choose_config(
    tunable: Tunable[AttentionConfig],
    capability: int,
    q: torch.Tensor,
    k_len: int,
    sequences: int,
    longest: int,
    causal: bool,
    extra: int,
) -> AttentionConfig:
    """The blocks for this call; `extra` is `CHANGED`, `KEYS` or 0."""
    return choose(
        tunable,
        capability,
        q.device,
        bits=8 * q.itemsize,
        causal=int(causal),
        extra=extra,
        programs=sequences * q.shape[1],
        queries=longest,
        keys=k_len,
        dim=q.shape[3],
    )


def attention_plan(
    capability: int,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    key_lengths: torch.Tensor | None = None,
    window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
    relative_bias: torch.Tensor | None = None,
    bidirectional: bool = True,
    max_distance: int = 128,
) -> Plan:
    """The output and its one launch."""
    out = empty_output(q)
    if out.numel() == 0:
        return Plan((out,), ())
    kind = _mask_kind(mask)
    changed = any(option is not None for option in (softcap, alibi_slopes, relative_bias))
    changed = changed or kind in ("additive", "boolean")
    extra = KEYS if kind == "keys" else 0
    if changed or window is not None:
        extra = CHANGED
    buckets: tuple[int, tuple[int, ...]] = (0, ())
    if relative_bias is not None:
        buckets = first_distances(relative_bias.shape[0], bidirectional, max_distance)
    config = choose_config(
        ATTENTION_TUNABLE,
        capability,
        q,
        k.shape[2],
        q.shape[0],
        q.shape[2],
        causal,
        extra,
    )
    options = {
        "mask": mask,
        "causal": causal,
        "scale": scale,
        "key_lengths": key_lengths,
        "window": window,
        "softcap": softcap,
        "alibi_slopes": alibi_slopes,
        "relative_bias": relative_bias,
        "bidirectional": bidirectional,
        "buckets": buckets,
        "capability": capability,
        "changed": changed,
    }
    return Plan((out,), (attention_launch(config, q, k, v, out, q.shape[0], q.shape[2], options),))


@torch.library.custom_op("kernl::attention", mutates_args=())
def _attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    scale: float | None,
    key_lengths: torch.Tensor | None,
    window: int | None,
    softcap: float | None,
    alibi_slopes: torch.Tensor | None,
    relative_bias: torch.Tensor | None,
    bidirectional: bool,
    max_distance: int,
) -> torch.Tensor:
    masks = (mask, causal, scale, key_lengths, window, softcap)
    biases = (alibi_slopes, relative_bias, bidirectional, max_distance)
    return attention_plan(launch.capability(q.device), q, k, v, *masks, *biases).run()[0]


@_attention.register_fake
def _attention_fake(q: torch.Tensor, *_: object) -> torch.Tensor:
    return empty_output(q)


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    key_lengths: torch.Tensor | None = None,
    window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
    relative_bias: torch.Tensor | None = None,
    bidirectional: bool = True,
    max_distance: int = 128,
) -> torch.Tensor:
    """softmax(q · kᵀ) · v, computed in float32. The last query stands at the last key.

    Args:
        q: (batch, heads, q_len, head_dim), any strides, fp16, bf16 or fp32; head_dim up to 256.
        k: (batch, kv_heads, k_len, head_dim), any strides; kv_heads divides heads, and heads in a
            row share a key head.
        v: like `k`.
        mask: broadcasts to (batch, heads, q_len, k_len), any strides; either bool, True where a
            query sees a key, or in the dtype of `q` or float32, added to the scores.
        causal: query i sees key j where j ≤ i + k_len - q_len, so queries may be the last of a
            longer sequence.
        scale: multiplies q · kᵀ, 0 or more; 1 / √head_dim where None.
        key_lengths: (batch,), int32 or int64: only so many first keys of each sequence are seen.
        window: a query sees keys at distances below it: the last `window` keys with its own where
            causal, else as many on both sides.
        softcap: scores become softcap · tanh(score / softcap), before any bias; above 0.
        alibi_slopes: (heads,): slope · |distance| is taken from each score.
        relative_bias: (buckets, heads), T5's learned biases of bucketed distances; in the dtype of
            `q` or float32.
        bidirectional: whether T5's buckets tell keys behind from keys before (encoders).
        max_distance: T5's distance from which all share the last bucket.

    Returns:
        (batch, heads, q_len, head_dim) in the dtype of `q`, the heads of a token side by side in
        memory: `out.transpose(1, 2).reshape(batch, q_len, -1)` is a view. A query that sees no
        key gives zeros.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    masks = (mask, causal, scale, key_lengths, window, softcap)
    biases = (alibi_slopes, relative_bias, bidirectional, max_distance)
    check_attention(q, k, v, *masks, *biases)
    return _attention(q, k, v, *masks, *biases)
