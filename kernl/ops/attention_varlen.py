"""Self-attention over sequences packed one behind another, without padding.

Tokens of all sequences lie in one tensor; `cu_seqlens` says where each begins. A token sees the
tokens of its own sequence alone. The kernel and the formula are those of `kernl.ops.attention`.
"""

import random
from collections.abc import Iterator
from functools import cache
from inspect import signature
from typing import Any

import torch

from kernl import checks, launch
from kernl.errors import ShapeError
from kernl.launch import Plan
from kernl.op import Case, Dims, Op
from kernl.ops.attention import attention_launch, attention_reference, choose_config
from kernl.ops.attention_check import check_operands, check_scores
from kernl.ops.attention_config import CHANGED, VARLEN_TUNABLE
from kernl.shapes import ModelShape, Workload


def attention_varlen_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
) -> torch.Tensor:
    """What a PyTorch user would write: pad each sequence to the longest, and drop the padding."""
    if q.shape[0] == 0:
        return torch.empty_like(q)
    token = torch.arange(q.shape[0], device=q.device)
    # Not in cu_seqlens[1:]: what PyTorch 2.11 compiles of that gives indices one too large.
    sequence = torch.searchsorted(cu_seqlens, token, right=True) - 1
    place = token - cu_seqlens[sequence]
    rows = cu_seqlens[:-1, None] + torch.arange(max_seqlen, device=q.device)
    rows = rows.clamp_max(q.shape[0] - 1)
    lengths = cu_seqlens.diff()
    q, k, v = (x[rows].transpose(1, 2) for x in (q, k, v))
    options = (causal, scale, lengths, window, softcap, alibi_slopes)
    out = attention_reference(q, k, v, None, *options)
    return out[sequence, :, place]


def attention_varlen_library(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    causal: bool = False,
    **options: Any,
) -> torch.Tensor:
    """PyTorch's varlen_attn, FlashAttention inside, for what it computes."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError as error:
        raise NotImplementedError("this PyTorch has no torch.nn.attention.varlen") from error
    if q.dtype == torch.float32:
        raise NotImplementedError("varlen_attn takes 16-bit elements")
    asked_for = [name for name, value in options.items() if value is not None]
    if asked_for:
        raise NotImplementedError(f"varlen_attn is not asked for {', '.join(asked_for)}")
    keywords: dict[str, Any] = {"window_size": (-1, 0)} if causal else {}
    # Until 2.12 it is not asked whether heads are grouped: FlashAttention sees it by itself.
    if q.shape[1] != k.shape[1] and "enable_gqa" in signature(varlen_attn).parameters:
        keywords["enable_gqa"] = True
    starts = cu_seqlens.to(torch.int32)
    out = varlen_attn(q, k, v, starts, starts, max_seqlen, max_seqlen, **keywords)
    assert isinstance(out, torch.Tensor)
    return out


def attention_varlen_plan(
    capability: int,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
) -> Plan:
    """The output, contiguous, and its one launch: a block of queries of the longest sequence."""
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    sequences = cu_seqlens.shape[0] - 1
    if out.numel() == 0 or sequences == 0:
        return Plan((out,), ())
    q, k, v, room = (x.transpose(0, 1)[None] for x in (q, k, v, out))
    changed = softcap is not None or alibi_slopes is not None
    config = choose_config(
        VARLEN_TUNABLE,
        capability,
        q,
        max_seqlen,
        sequences,
        max_seqlen,
        causal,
        CHANGED if changed or window is not None else 0,
    )
    options = {
        "mask": None,
        "causal": causal,
        "scale": scale,
        "key_lengths": None,
        "window": window,
        "softcap": softcap,
        "alibi_slopes": alibi_slopes,
        "relative_bias": None,
        "bidirectional": True,
        "buckets": (0, ()),
        "changed": changed,
        "cu_seqlens": cu_seqlens,
        "capability": capability,
    }
    return Plan((out,), (attention_launch(config, q, k, v, room, sequences, max_seqlen, options),))


@torch.library.custom_op("kernl::attention_varlen", mutates_args=())
def _attention_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    causal: bool,
    scale: float | None,
    window: int | None,
    softcap: float | None,
    alibi_slopes: torch.Tensor | None,
) -> torch.Tensor:
    options = (causal, scale, window, softcap, alibi_slopes)
    capability = launch.capability(q.device)
    return attention_varlen_plan(capability, q, k, v, cu_seqlens, max_seqlen, *options).run()[0]


@_attention_varlen.register_fake
def _attention_varlen_fake(q: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.empty(q.shape, dtype=q.dtype, device=q.device)


def check_attention_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
) -> None:
    """Raise a `kernl.errors.KernlError` where `attention_varlen` does not take these arguments."""
    op = "attention_varlen"
    check_operands(op, q, k, v, 3)
    check_scores(op, q, q.shape[1], causal, scale, window, softcap, alibi_slopes)
    checks.indices(op, "cu_seqlens", cu_seqlens, q)
    checks.ndim(op, "cu_seqlens", cu_seqlens, 1, "(sequences + 1,)")
    if cu_seqlens.shape[0] < 1 or cu_seqlens.stride(0) != 1:
        raise ShapeError(
            seen=f"{op}: cu_seqlens has {cu_seqlens.shape[0]} values, stride {cu_seqlens.stride()}",
            allowed="one value more than there are sequences, side by side in memory",
            action="begin it with 0, end it with the number of tokens, call .contiguous()",
        )
    checks.index(op, "max_seqlen", max_seqlen, 0 if q.shape[0] == 0 else 1, 2**31 - 1)


def attention_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
) -> torch.Tensor:
    """softmax(q · kᵀ) · v inside each of the packed sequences, computed in float32.

    Args:
        q: (tokens, heads, head_dim), any strides, fp16, bf16 or fp32; head_dim up to 256.
        k: (tokens, kv_heads, head_dim), any strides; kv_heads divides heads.
        v: like `k`.
        cu_seqlens: (sequences + 1,), int32 or int64, on the device: where each sequence begins,
            from 0 to the number of tokens, never falling. Sequences of length 0 are allowed.
        max_seqlen: at least the length of the longest; tokens beyond it are not computed. It sets
            the grid, so it is a Python number.
        causal: a token sees itself and those before it.
        scale: as `kernl.ops.attention` takes it, as are the rest.
        window: in tokens.
        softcap: above 0.
        alibi_slopes: (heads,).

    Returns:
        (tokens, heads, head_dim), contiguous, in the dtype of `q`.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    options = (causal, scale, window, softcap, alibi_slopes)
    check_attention_varlen(q, k, v, cu_seqlens, max_seqlen, *options)
    return _attention_varlen(q, k, v, cu_seqlens, max_seqlen, *options)


@cache
def _lengths(batch: int, seq: int) -> tuple[int, ...]:
    """Lengths of a ragged batch, from a quarter of seq to all of it, the same for one (batch, seq).

    The longest is seq itself.
    """
    chance = random.Random(1000 * batch + seq)
    drawn = [chance.randint(max(1, seq // 4), seq) for _ in range(batch - 1)]
    return (*drawn, seq)


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    if workload.batch > 1:
        yield {
            "batch": workload.batch,
            "seq": workload.seq,
            "heads": model.heads,
            "kvheads": model.kv_heads,
            "dim": model.head_dim,
            "causal": model.causal,
        }


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(seed)
    lengths = _lengths(case["batch"], case["seq"])
    starts = [sum(lengths[:place]) for place in range(len(lengths) + 1)]

    def random_tokens(count: int) -> torch.Tensor:
        values = torch.randn(sum(lengths), count, case["dim"], generator=generator, device=device)
        return values.to(case.torch_dtype)

    return {
        "q": random_tokens(case["heads"]),
        "k": random_tokens(case["kvheads"]),
        "v": random_tokens(case["kvheads"]),
        "cu_seqlens": torch.tensor(starts, dtype=torch.int32, device=device),
        "max_seqlen": int(case["seq"]),
        "causal": case["causal"],
    }


def _bytes(case: Case) -> int:
    tokens = sum(_lengths(case["batch"], case["seq"]))
    rows = 2 * tokens * (case["heads"] + case["kvheads"])
    return int(rows * case["dim"] * case.itemsize + 4 * (case["batch"] + 1))


def _flops(case: Case) -> int:
    lengths = _lengths(case["batch"], case["seq"])
    pairs = sum(n * (n + 1) // 2 if case["causal"] else n * n for n in lengths)
    return 4 * int(case["heads"]) * pairs * int(case["dim"])


ATTENTION_VARLEN = Op(
    name="attention_varlen",
    kernel=attention_varlen,
    reference=attention_varlen_reference,
    plan=attention_varlen_plan,
    check=check_attention_varlen,
    dims=_dims,
    inputs=_inputs,
    edges=tuple(
        {"batch": batch, "seq": seq, "heads": h, "kvheads": kv, "dim": dim, "causal": causal}
        for batch, seq, h, kv, dim, causal in (
            (1, 1, 1, 1, 32, False),
            (5, 37, 2, 1, 40, False),
            (3, 67, 4, 2, 64, True),
            (7, 17, 3, 3, 80, True),
            (2, 131, 2, 2, 128, False),
        )
    ),
    bytes=_bytes,
    flops=_flops,
    tolerance={"fp32": 3e-6, "fp16": 1e-3, "bf16": 6e-3},
    library=attention_varlen_library,
)
