"""Attention of the newest tokens over a key-value cache, the keys shared out over the GPU.

    s_j = scale · q · k_j                 (softcap · tanh(s_j / softcap) where there is a cap)
    out = Σ_j exp(s_j) v_j / Σ_j exp(s_j)    over the keys j that the query sees

The queries are the last `q_len` valid positions of the cache: query i sees the keys up to its own
position, and with a window the last `window` of them. All query rows that read the same key head
stand in one tile, so that each key and value is read once.

Each split of the keys gives its own output and log-sum-exp, here to the base 2; the merge weighs
the outputs with what each log-sum-exp has of the whole:

    lse_s = log2 Σ_{j in s} 2^(s_j · log2 e)        out = Σ_s 2^lse_s out_s / Σ_s 2^lse_s

The length may be a tensor on the device. Then the grid is that of any length, and every program
reads the length and takes its even share of the valid keys: a CUDA graph holds for every length.

Source: Dao, Haziza, Massa and Sizov, "Flash-Decoding for long-context inference", 2023,
https://crfm.stanford.edu/2023/10/12/flashdecoding.html.
"""

from collections.abc import Iterator
from typing import Any

import torch

from kernl import checks, launch
from kernl.errors import OptionError, ShapeError
from kernl.launch import Plan
from kernl.op import Case, Dims, Op
from kernl.ops.decode_attention_config import choose_config
from kernl.ops.decode_attention_kernels import (
    decode_split_kernel,
    merge_launch,
    scoring,
    split_launch,
)
from kernl.shapes import MISTRAL_7B, ModelShape, Workload

MOST_QUERIES = 16
MOST_HEAD_DIM = 256

# Positions are counted in 32 bits, with room for the block behind the last one.
MOST_KEYS = 2**30


def decode_attention_reference(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    cache_length: torch.Tensor | None = None,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """What a PyTorch user would write."""
    group = q.shape[1] // k_cache.shape[1]
    keys = k_cache.repeat_interleave(group, dim=1)
    values = v_cache.repeat_interleave(group, dim=1)
    scores = q @ keys.transpose(2, 3) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    visible = _visible(q, k_cache, cache_length, window)
    if visible is not None:
        scores = scores.masked_fill(~visible, float("-inf"))
    weights = torch.softmax(scores, -1, dtype=torch.promote_types(q.dtype, torch.float32))
    if visible is not None:
        # A row that sees no key has only NaN, and all of it is hidden.
        weights = weights.masked_fill(~visible, 0.0)
    return weights.to(q.dtype) @ values


def _visible(
    q: torch.Tensor, k_cache: torch.Tensor, cache_length: torch.Tensor | None, window: int | None
) -> torch.Tensor | None:
    """Which keys each query sees: (batch or 1, 1, q_len, capacity); None where that is all."""
    q_len, capacity = q.shape[2], k_cache.shape[2]
    if q_len == 1 and cache_length is None and window is None:
        return None
    keys = torch.arange(capacity, device=q.device)
    queries = torch.arange(q_len, device=q.device)[:, None] - q_len
    if cache_length is None:
        positions = (queries + capacity)[None, None]
    else:
        positions = queries + cache_length.clamp(0, capacity).reshape(-1, 1, 1, 1)
    visible = keys <= positions
    return visible if window is None else visible & (keys > positions - window)


def decode_attention_library(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    cache_length: torch.Tensor | None = None,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """PyTorch's fused attention; a mask where not every query sees the whole cache."""
    if softcap is not None:
        raise NotImplementedError("scaled_dot_product_attention has no softcap")
    mask = _visible(q, k_cache, cache_length, window)
    grouped = q.shape[1] != k_cache.shape[1]
    return torch.nn.functional.scaled_dot_product_attention(
        q, k_cache, v_cache, attn_mask=mask, scale=scale, enable_gqa=grouped
    )


def decode_attention_plan(
    capability: int,
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    cache_length: torch.Tensor | None = None,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
) -> Plan:
    """The output and what fills it: one launch with one split, with several the merge as well."""
    out = _empty_output(q)
    if out.numel() == 0:
        return Plan((out,), ())
    config = choose_config(capability, q, k_cache)
    # One split writes to out: it then stands in for the partial results, which nothing touches.
    partial = lse = out
    if config.splits > 1:
        lse = q.new_empty((*q.shape[:3], config.splits), dtype=torch.float32)
        partial = q.new_empty((*lse.shape, q.shape[3]), dtype=torch.float32)

    outputs = {"out_ptr": out, "partial_ptr": partial, "lse_ptr": lse}
    scores = scoring(q, k_cache, scale, window, softcap)
    split = split_launch(config, q, k_cache, v_cache, cache_length, outputs, scores)
    merge = (merge_launch(config, q, outputs),) if config.splits > 1 else ()
    return Plan((out,), (split, *merge))


def _empty_output(q: torch.Tensor) -> torch.Tensor:
    """(batch, heads, q_len, head_dim) that lies token by token, as the next projection reads it."""
    return q.new_empty((q.shape[0], q.shape[2], q.shape[1], q.shape[3])).transpose(1, 2)


@torch.library.custom_op("kernl::decode_attention", mutates_args=())
def _decode_attention(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    cache_length: torch.Tensor | None,
    scale: float | None,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    capability = launch.capability(q.device)
    plan = decode_attention_plan(
        capability, q, k_cache, v_cache, cache_length, scale, window, softcap
    )
    return plan.run()[0]


@_decode_attention.register_fake
def _decode_attention_fake(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    cache_length: torch.Tensor | None,
    scale: float | None,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    return _empty_output(q)


def check_decode_attention(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    cache_length: torch.Tensor | None = None,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
) -> None:
    """Raise a `kernl.errors.KernlError` where `decode_attention` does not take these arguments."""
    op = "decode_attention"
    checks.tensors(op, decode_split_kernel, q=q, k_cache=k_cache, v_cache=v_cache)
    for name, value in (("q", q), ("k_cache", k_cache)):
        if value.dim() != 4:
            raise ShapeError(
                seen=f"{op}: {name} has shape {tuple(value.shape)}",
                allowed="four dimensions: (batch, heads, q_len or capacity, head_dim)",
                action=f"reshape {name}, for example {name}.unflatten(-1, (heads, head_dim))",
            )
    batch, heads, q_len, head_dim = q.shape
    kv_heads, capacity = k_cache.shape[1:3]
    for name, size, most in (
        ("q_len", q_len, MOST_QUERIES),
        ("head_dim", head_dim, MOST_HEAD_DIM),
        ("capacity", capacity, MOST_KEYS),
        ("kv_heads", kv_heads, max(heads, 1)),
    ):
        if not 1 <= size <= most:
            raise ShapeError(
                seen=f"{op}: {name} = {size}",
                allowed=f"1 to {most}",
                action="use scaled_dot_product_attention for such a call",
            )
    if heads % kv_heads or heads == 0:
        raise ShapeError(
            seen=f"{op}: {heads} heads of q, {kv_heads} of k_cache",
            allowed="as many heads of q for each head of k_cache, 1 or more",
            action="check which dimension holds the heads",
        )
    cache_shape = (batch, kv_heads, capacity, head_dim)
    checks.shape(op, "k_cache", k_cache, cache_shape, "batch and head_dim being those of q")
    checks.shape(op, "v_cache", v_cache, cache_shape, "the shape of k_cache")
    _check_options(q, cache_length, scale, window, softcap)


def _check_options(
    q: torch.Tensor,
    cache_length: torch.Tensor | None,
    scale: float | None,
    window: int | None,
    softcap: float | None,
) -> None:
    op = "decode_attention"
    if cache_length is not None:
        checks.indices(op, "cache_length", cache_length, q)
        if tuple(cache_length.shape) not in ((), (1,), (q.shape[0],)):
            raise ShapeError(
                seen=f"{op}: cache_length has shape {tuple(cache_length.shape)}",
                allowed=f"(), (1,) or ({q.shape[0]},), a length for each sequence",
                action="pass one length, or one for each sequence of the batch",
            )
    if scale is not None:
        checks.number(op, "scale", scale)
    if window is not None:
        checks.index(op, "window", window, 1, 2**63 - 1)
    if softcap is not None:
        checks.number(op, "softcap", softcap)
        if softcap == 0:
            raise OptionError(
                seen=f"{op}: softcap=0",
                allowed="a number above 0, or None",
                action="pass None for scores without a cap",
            )


def decode_attention(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    cache_length: torch.Tensor | None = None,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """Causal attention of the newest tokens over a key-value cache that holds them already.

    Args:
        q: (batch, heads, q_len, head_dim), the last `q_len` valid positions, 1 to 16 of them;
            fp16, bf16 or fp32, any strides. A batch of size 0 gives an empty result.
        k_cache: (batch, kv_heads, capacity, head_dim), any strides; `kv_heads` divides `heads`,
            `head_dim` is 256 at the most.
        v_cache: the shape of `k_cache`, any strides.
        cache_length: how many positions are valid, those of `q` included: int32 or int64 on the
            device of `q`, of shape (), (1,) or (batch,). What lies behind them is never used. It
            is read by the kernel alone, and counts as 0 below 0 and as `capacity` above that.
            None: all are valid.
        scale: what the scores are multiplied with, 0 or more; None for head_dim ** -0.5.
        window: how many keys a query sees, its own position included; None for all before it.
        softcap: scores become softcap · tanh(scores / softcap); None for no cap.

    Returns:
        (batch, heads, q_len, head_dim) in the dtype of `q`, accumulated in float32: the transpose
        of a contiguous (batch, q_len, heads, head_dim). A query that sees no key gives zeros.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_decode_attention(q, k_cache, v_cache, cache_length, scale, window, softcap)
    return _decode_attention(q, k_cache, v_cache, cache_length, scale, window, softcap)


_DIMS = ("batch", "heads", "kv_heads", "q_len", "keys", "head_dim", "static")


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    if not model.causal:
        return

    def one(batch: int, keys: int, static: bool) -> Dims:
        values = (batch, model.heads, model.kv_heads, 1, keys, model.head_dim, static)
        return dict(zip(_DIMS, values, strict=True))

    yield one(workload.batch, workload.seq, static=False)
    yield one(workload.batch, workload.seq, static=True)
    if workload.batch <= 8:
        yield one(workload.batch, 8 * workload.seq, static=True)
    if model is MISTRAL_7B and workload.seq == 512 and workload.batch <= 8:
        for keys in (2048, 4096, 16384):
            yield one(workload.batch, keys, static=False)
            yield one(workload.batch, keys, static=True)
        yield one(16, 4096, static=False)


def _lengths(case: Case) -> list[int]:
    """Valid keys of each sequence: 1/2 to 3/4 of a static cache, each another part of it."""
    batch, keys = case["batch"], case["keys"]
    if not case["static"]:
        return [keys] * batch
    parts = (keys * (4 * batch + 2 * index + 1) // (8 * batch) for index in range(batch))
    return [min(keys, max(case["q_len"], part)) for part in parts]


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(seed)

    def random(heads: int, length: int) -> torch.Tensor:
        shape = (case["batch"], heads, length, case["head_dim"])
        return torch.randn(shape, generator=generator, device=device)

    cache = [random(case["kv_heads"], case["keys"]).to(case.torch_dtype) for _ in "kv"]
    lengths = torch.tensor(_lengths(case), dtype=torch.int32, device=device)
    return {
        # Wider than the keys, so that the weights are far from even.
        "q": (2 * random(case["heads"], case["q_len"])).to(case.torch_dtype),
        "k_cache": cache[0],
        "v_cache": cache[1],
        "cache_length": lengths if case["static"] else None,
    }


def _bytes(case: Case) -> int:
    rows = 2 * case["batch"] * case["heads"] * case["q_len"]
    keys = 2 * case["kv_heads"] * sum(_lengths(case))
    lengths = 4 * case["batch"] if case["static"] else 0
    return (rows + keys) * int(case["head_dim"]) * case.itemsize + lengths


DECODE_ATTENTION = Op(
    name="decode_attention",
    kernel=decode_attention,
    reference=decode_attention_reference,
    plan=decode_attention_plan,
    check=check_decode_attention,
    dims=_dims,
    inputs=_inputs,
    edges=tuple(
        dict(zip(_DIMS, values, strict=True))
        for values in (
            (1, 1, 1, 1, 1, 32, False),
            (2, 4, 2, 1, 33, 40, True),
            (1, 8, 2, 1, 130, 64, True),
            (2, 3, 1, 5, 257, 80, True),
            (1, 7, 7, 1, 257, 128, False),
            (1, 4, 4, 16, 130, 96, True),
            (3, 16, 1, 2, 61, 32, True),
            (1, 71, 1, 1, 300, 64, True),
            (1, 2, 1, 1, 521, 256, False),
        )
    ),
    bytes=_bytes,
    # A product with each key and one with each value.
    flops=lambda case: 4 * case["heads"] * case["q_len"] * case["head_dim"] * sum(_lengths(case)),
    # float32: 400 draws of 521 keys 256 wide are up to 3.0e-6 off on an H100, in the median 1.1e-6.
    tolerance={"fp32": 4e-6, "fp16": 6e-4, "bf16": 5e-3},
    library=decode_attention_library,
    moves_part_of_its_inputs=True,
)
