"""Many matrix products at once.

    out[i] = scale · a[i] · b[i]

Leading dimensions broadcast as in `torch.matmul`, by a stride of 0: nothing is repeated in memory.
Each program computes one (BLOCK_M, BLOCK_N) tile of one product in float32. float32 inputs are
multiplied in float32 (no tf32).
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from kernl import checks, launch
from kernl.errors import ShapeError
from kernl.launch import Launch, LibraryCall, Plan, cdiv, next_power_of_2
from kernl.op import Case, Dims, Op, Spelling
from kernl.ops.grouped import grouped_tile
from kernl.ops.tile import (
    FLOAT_TILES,
    HALF_TILES,
    MOST_UNALIGNED_ELEMENTS,
    UNALIGNED_TILES,
    choose_tile,
    rows_aligned,
    shared_memory_limit,
)
from kernl.shapes import ModelShape, Workload
from kernl.tables import Key, Tunable
from kernl.tuning import choose


class BatchedConfig(NamedTuple):
    """A block of (block_m, block_n), block_k of k at a time; or the library's product."""

    library: bool
    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int


def _default(capability: int, key: Key) -> BatchedConfig:
    dtype = torch.float32 if key["bits"] == 32 else torch.float16
    m, n = int(key["m"]), int(key["n"])
    tile = choose_tile(m * int(key["batch"]), n, dtype, capability, bool(key["aligned"]))
    block_k = min(tile.block_k, max(16, next_power_of_2(int(key["k"]))))
    block_m = min(tile.block_m, max(16, next_power_of_2(m)))
    return BatchedConfig(False, block_m, tile.block_n, block_k, tile.num_warps, tile.num_stages)


def _candidates(capability: int, key: Key) -> Iterator[BatchedConfig]:
    yield BatchedConfig(True, 16, 16, 16, 4, 1)
    deepest = max(16, next_power_of_2(int(key["k"])))
    tallest = max(16, next_power_of_2(int(key["m"])))
    widest = max(16, next_power_of_2(int(key["n"])))
    halves = HALF_TILES if key["aligned"] else UNALIGNED_TILES
    for tile in FLOAT_TILES if key["bits"] == 32 else halves:
        if tile.block_m <= tallest and tile.block_n <= 2 * widest:
            block_k = min(tile.block_k, deepest)
            yield BatchedConfig(
                False, tile.block_m, tile.block_n, block_k, tile.num_warps, tile.num_stages
            )


def _fits(capability: int, key: Key, config: BatchedConfig) -> bool:
    stage = (config.block_m + config.block_n) * config.block_k * int(key["bits"]) // 8
    elements = (config.block_m + config.block_n) * config.block_k // (32 * config.num_warps)
    addressed = bool(key["aligned"]) or elements <= MOST_UNALIGNED_ELEMENTS
    fitting = config.num_stages * stage <= shared_memory_limit(capability)
    return config.library or (fitting and addressed)


BATCHED_MATMUL_TUNABLE: Tunable[BatchedConfig] = Tunable(
    name="batched_matmul",
    exact=("bits", "aligned", "scaled"),
    sizes=("batch", "m", "n", "k"),
    config=BatchedConfig,
    default=_default,
    candidates=_candidates,
    fits=_fits,
)


def batched_matmul_reference(a: torch.Tensor, b: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """What a PyTorch user would write."""
    out = torch.matmul(a, b)
    return out if scale == 1.0 else out * scale


@triton.jit
def _batched_matmul_kernel(
    a_ptr,
    b_ptr,
    out_ptr,
    m,
    n,
    k,
    inner,
    stride_a_outer,
    stride_a_inner,
    stride_a_m,
    stride_a_k,
    stride_b_outer,
    stride_b_inner,
    stride_b_k,
    stride_b_n,
    scale,
    EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """The shapes: a (outer, inner, m, k), b (outer, inner, k, n), out (outer · inner, m, n)."""
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    program = tl.program_id(0)
    product = (program // (tiles_m * tiles_n)).to(tl.int64)
    tile_m, tile_n = grouped_tile(program % (tiles_m * tiles_n), tiles_m, tiles_n, GROUP_M)
    m_offs = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n_offs = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    k_offs = tl.arange(0, BLOCK_K).to(tl.int64)

    # Past the end the first row or column is read again; no such sum is stored.
    a_rows = tl.where(m_offs < m, m_offs, 0).to(tl.int64)[:, None] * stride_a_m
    b_columns = tl.where(n_offs < n, n_offs, 0).to(tl.int64)[None, :] * stride_b_n
    a_first = (product // inner) * stride_a_outer + (product % inner) * stride_a_inner
    b_first = (product // inner) * stride_b_outer + (product % inner) * stride_b_inner
    a_ptrs = a_ptr + a_first + a_rows + k_offs[None, :] * stride_a_k
    b_ptrs = b_ptr + b_first + b_columns + k_offs[:, None] * stride_b_k

    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for _ in range(k // BLOCK_K):
        acc = tl.dot(tl.load(a_ptrs), tl.load(b_ptrs), acc, input_precision="ieee")
        a_ptrs += BLOCK_K * stride_a_k
        b_ptrs += BLOCK_K * stride_b_k
    if not EVEN_K:
        k_mask = k_offs < k % BLOCK_K
        a = tl.load(a_ptrs, mask=k_mask[None, :], other=0.0)
        b = tl.load(b_ptrs, mask=k_mask[:, None], other=0.0)
        acc = tl.dot(a, b, acc, input_precision="ieee")

    out_rows = (product * m + m_offs)[:, None] * n
    mask = (m_offs < m)[:, None] & (n_offs < n)[None, :]
    out = (acc * scale).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + out_rows + n_offs[None, :], out, mask=mask)


class Batches(NamedTuple):
    """Both operands' leading dimensions as two: sizes, and strides of a and of b."""

    outer: int
    inner: int
    stride_a: tuple[int, int]
    stride_b: tuple[int, int]


def batches(a: torch.Tensor, b: torch.Tensor) -> Batches | None:
    """The leading dimensions, equal in a and b, merged into two; None where strides forbid it."""
    merged: list[tuple[int, int, int]] = []
    for size, step_a, step_b in zip(a.shape[:-2], a.stride()[:-2], b.stride()[:-2], strict=True):
        if size == 1:
            continue
        if merged and merged[-1][1:] == (size * step_a, size * step_b):
            merged[-1] = (merged[-1][0] * size, step_a, step_b)
        else:
            merged.append((size, step_a, step_b))
    if len(merged) > 2:
        return None
    (outer, *outer_steps), (inner, *inner_steps) = [(1, 0, 0), (1, 0, 0), *merged][-2:]
    return Batches(outer, inner, (outer_steps[0], inner_steps[0]), (outer_steps[1], inner_steps[1]))


def batched_matmul_plan(
    capability: int, a: torch.Tensor, b: torch.Tensor, scale: float = 1.0
) -> Plan:
    """The output, contiguous, and its one launch or the library's product."""
    lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    (m, k), n = a.shape[-2:], b.shape[-1]
    out = torch.empty((*lead, m, n), dtype=a.dtype, device=a.device)
    if out.numel() == 0:
        return Plan((out,), ())
    a, b = a.expand(*lead, m, k), b.expand(*lead, k, n)
    found = batches(a, b)
    if found is None:
        a, b = a.contiguous(), b.contiguous()
        found = batches(a, b)
        assert found is not None, "contiguous operands have one leading dimension"
    count = math.prod(lead)
    config = choose(
        BATCHED_MATMUL_TUNABLE,
        capability,
        a.device,
        bits=8 * a.itemsize,
        aligned=int(rows_aligned(a, b)),
        scaled=int(scale != 1.0),
        batch=count,
        m=m,
        n=n,
        k=k,
    )
    if config.library and scale == 1.0:
        return Plan((out,), (LibraryCall(torch.matmul, (a, b), {"out": out}),))
    return Plan((out,), (_products(a, b, out, found, float(scale), config),))


def _products(
    a: torch.Tensor,
    b: torch.Tensor,
    out: torch.Tensor,
    found: Batches,
    scale: float,
    config: BatchedConfig,
) -> Launch:
    (m, k), n = a.shape[-2:], b.shape[-1]
    return Launch(
        kernel=_batched_matmul_kernel,
        grid=(found.outer * found.inner * cdiv(m, config.block_m) * cdiv(n, config.block_n),),
        args={
            "a_ptr": a,
            "b_ptr": b,
            "out_ptr": out,
            "m": m,
            "n": n,
            "k": k,
            "inner": found.inner,
            "stride_a_outer": found.stride_a[0],
            "stride_a_inner": found.stride_a[1],
            "stride_a_m": a.stride(-2),
            "stride_a_k": a.stride(-1),
            "stride_b_outer": found.stride_b[0],
            "stride_b_inner": found.stride_b[1],
            "stride_b_k": b.stride(-2),
            "stride_b_n": b.stride(-1),
            "scale": scale,
        },
        constants={
            "EVEN_K": k % config.block_k == 0,
            "BLOCK_M": config.block_m,
            "BLOCK_N": config.block_n,
            "BLOCK_K": config.block_k,
            "GROUP_M": 8,
        },
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )


def _empty_output(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return torch.empty((*lead, a.shape[-2], b.shape[-1]), dtype=a.dtype, device=a.device)


@torch.library.custom_op("kernl::batched_matmul", mutates_args=())
def _batched_matmul(a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    return batched_matmul_plan(launch.capability(a.device), a, b, scale).run()[0]


@_batched_matmul.register_fake
def _batched_matmul_fake(a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    return _empty_output(a, b)


def check_batched_matmul(a: torch.Tensor, b: torch.Tensor, scale: float = 1.0) -> None:
    """Raise a `kernl.errors.KernlError` where `batched_matmul` does not take these arguments."""
    checks.tensors("batched_matmul", _batched_matmul_kernel, a=a, b=b)
    checks.at_least("batched_matmul", "a", a, 2)
    checks.at_least("batched_matmul", "b", b, 2)
    checks.positive("batched_matmul", "the last dimension of a", a.shape[-1])
    checks.number("batched_matmul", "scale", scale)
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            seen=f"batched_matmul: a has shape {tuple(a.shape)}, b has {tuple(b.shape)}",
            allowed="(…, m, k) and (…, k, n) with one k",
            action="transpose one of them, or check which tensor was passed",
        )
    try:
        torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except RuntimeError as error:
        raise ShapeError(
            seen=f"batched_matmul: a has shape {tuple(a.shape)}, b has {tuple(b.shape)}",
            allowed="leading dimensions that broadcast",
            action="reshape one of them",
        ) from error


def batched_matmul(a: torch.Tensor, b: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """`scale * (a @ b)` over leading dimensions that broadcast, accumulated in float32.

    Args:
        a: (…, m, k), any strides, fp16, bf16 or fp32. A batch of size 0 gives an empty result.
        b: (…, k, n), any strides: a transposed or an expanded operand is read as it lies. An
            operand is copied only where its leading dimensions do not merge into two.
        scale: multiplies the products, 0 or more.

    Returns:
        (…, m, n), contiguous, in the dtype of `a`.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_batched_matmul(a, b, scale)
    return _batched_matmul(a, b, float(scale))


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    if workload.tokens > 4096:
        return
    batch, seq, head_dim = workload.batch * model.heads, workload.seq, model.head_dim
    own: Dims = {"broadcast": False}
    yield {"batch": batch, "m": seq, "n": seq, "k": head_dim, "transposed": True, **own}
    yield {"batch": batch, "m": seq, "n": head_dim, "k": seq, "transposed": False, **own}


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(seed)

    def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
        values = torch.randn(shape, generator=generator, device=device)
        return (scale * values).to(case.torch_dtype)

    batch, m, n, k = (case[name] for name in ("batch", "m", "n", "k"))
    lead = () if case["broadcast"] else (batch,)
    b = random(*lead, n, k, scale=k**-0.5).mT if case["transposed"] else random(*lead, k, n)
    return {"a": random(batch, m, k), "b": b, "scale": 1.0}


def _bytes(case: Case) -> int:
    batch, m, n, k = (case[name] for name in ("batch", "m", "n", "k"))
    second = n * k * (1 if case["broadcast"] else batch)
    return int((batch * (m * k + m * n) + second) * case.itemsize)


def _spelled_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.matmul(a, b)


def _spelled_bmm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.bmm(a, b)


BATCHED_MATMUL = Op(
    name="batched_matmul",
    kernel=batched_matmul,
    reference=batched_matmul_reference,
    plan=batched_matmul_plan,
    check=check_batched_matmul,
    dims=_dims,
    inputs=_inputs,
    edges=tuple(
        {"batch": batch, "m": m, "n": n, "k": k, "transposed": transposed, "broadcast": broadcast}
        for batch, m, n, k, transposed, broadcast in (
            (1, 1, 1, 1, False, False),
            (3, 5, 7, 17, True, False),
            (2, 33, 65, 33, False, True),
            (5, 17, 31, 100, True, True),
            (2, 129, 40, 257, False, False),
            (7, 64, 64, 64, True, False),
        )
    ),
    bytes=_bytes,
    flops=lambda case: 2 * case["batch"] * case["m"] * case["n"] * case["k"],
    tolerance={"fp32": 3e-6, "fp16": 5e-4, "bf16": 4e-3},
    spellings=(
        Spelling(_spelled_matmul, batched_matmul, {"a": (2, 4, 3, 8), "b": (2, 4, 8, 5)}),
        Spelling(_spelled_bmm, batched_matmul, {"a": (2, 3, 8), "b": (2, 8, 5)}),
    ),
)
