"""Matrix product with its work shared out by steps, not by tiles: stream-K, the two-tile hybrid.

    out = a · b

**The problem.** A matrix product is computed tile by tile, and every multiprocessor takes one tile
after another. With 132 multiprocessors, 132 tiles take one round and 133 take two: in the second
one, 131 multiprocessors wait. Smaller tiles would come out more evenly, but they read a and b more
often and keep the tensor cores less busy.

**The idea.** The loop over k inside a tile has many short steps. Lay the steps of all tiles behind
one another in one long line and cut the line into equal parts, one for each multiprocessor: all of
them finish together, whatever the number of tiles. A part begins and ends in the middle of a tile,
so a tile may be the sum of several programs' pieces.

**The hybrid.** Pieces cost: their sums are written, read and added up, and programs that start at
different steps share less in L2. So only as many tiles are cut as evenness needs: those that do not
fill a round, and one round more, so that every program has between one tile and two to share. All
others are computed whole, in full rounds. `kernl.ops.stream_k_schedule` is that plan in a few lines
of Python, and `pieces` lists what each program computes.

    6 tiles, 4 programs          by tiles: 2 rounds        two-tile hybrid, 1.5 tiles each
      program 0                  000000 444444             000000 111
      program 1                  111111 555555             111 222222
      program 2                  222222                    333333 444
      program 3                  333333                    444 555555

**The fix-up.** Nobody waits inside the first launch. A program stores the tiles it computed whole,
and leaves pieces, in float32, in one of two slots of its own: one for the end of a tile that
another program began, one for the beginning of a tile that another ends. A second launch adds up
the pieces of each cut tile, always in the order of k: the same input gives the same bits.

**When it pays.** An even share saves what idle multiprocessors would have waited, at most the time
of one tile, and costs the fix-up. Both grow with the tile's area, which cancels out: it pays where
k is long and the last round is nearly empty. Elsewhere tiles are not shared, and the same kernel
walks whole tiles alone (`kernl.ops.stream_k_schedule.pays`).

Sources: Osama, Merrill, Cecka, Garland and Owens, "Stream-K: Work-centric Parallel Decomposition
for Dense Matrix-Matrix Multiplication on the GPU", 2023, https://arxiv.org/abs/2301.03598.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from kernl import checks, launch
from kernl.launch import Launch, Plan, cdiv
from kernl.op import Case, Dims, Op
from kernl.ops.stream_k_matmul_kernels import stream_k_fix_up_kernel, stream_k_kernel
from kernl.ops.stream_k_schedule import Schedule, by_tiles, pays, schedule
from kernl.ops.tile import (
    FLOAT_TILES,
    HALF_TILES,
    MOST_UNALIGNED_ELEMENTS,
    UNALIGNED_TILES,
    Tile,
    accumulators_limit,
    choose_tile,
    multiprocessors,
    rows_aligned,
    shared_memory_limit,
)
from kernl.shapes import ModelShape, Workload
from kernl.tables import Key, Tunable
from kernl.tuning import choose

_GROUP_M = 8


def stream_k_matmul_reference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """What a PyTorch user would write."""
    return torch.matmul(a, b)


class StreamKConfig(NamedTuple):
    """`programs` compute tiles of (block_m, block_n), block_k of k at a time.

    With `sharing` they share the steps of tiles that do not fill a round.
    """

    programs: int
    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int
    sharing: bool = True


def _of_tile(tile: Tile, capability: int) -> StreamKConfig:
    return StreamKConfig(multiprocessors(capability), *tile)


def _tiles(m: int, n: int, config: StreamKConfig) -> int:
    return cdiv(m, config.block_m) * cdiv(n, config.block_n)


def _default(capability: int, key: Key) -> StreamKConfig:
    m, n, k, bits = (int(key[name]) for name in ("m", "n", "k", "bits"))
    dtype = torch.float32 if bits == 32 else torch.float16
    tile = choose_tile(m, n, dtype, capability, bool(key["aligned"]))
    config = _of_tile(tile, capability)
    return config._replace(sharing=pays(_tiles(m, n, config), k, config.programs))


def _fits(capability: int, key: Key, config: StreamKConfig) -> bool:
    stage = (config.block_m + config.block_n) * config.block_k * int(key["bits"]) // 8
    threads = 32 * config.num_warps
    sums = config.block_m * config.block_n // threads
    elements = (config.block_m + config.block_n) * config.block_k // threads
    return (
        stage * config.num_stages <= shared_memory_limit(capability)
        and sums <= accumulators_limit(capability)
        and (bool(key["aligned"]) or elements <= MOST_UNALIGNED_ELEMENTS)
    )


def _candidates(capability: int, key: Key) -> Iterator[StreamKConfig]:
    halves = HALF_TILES if key["aligned"] else UNALIGNED_TILES
    for tile in FLOAT_TILES if key["bits"] == 32 else halves:
        for sharing in (True, False):
            yield _of_tile(tile, capability)._replace(sharing=sharing)


STREAM_K_TUNABLE: Tunable[StreamKConfig] = Tunable(
    name="stream_k_matmul",
    exact=("bits", "aligned"),
    sizes=("m", "n", "k"),
    config=StreamKConfig,
    default=_default,
    candidates=_candidates,
    fits=_fits,
)


def stream_k_matmul_plan(capability: int, a: torch.Tensor, b: torch.Tensor) -> Plan:
    """The output, contiguous, and one launch, or two where tiles are shared."""
    (m, k), n = a.shape, b.shape[1]
    out = torch.empty((m, n), dtype=a.dtype, device=a.device)
    if out.numel() == 0:
        return Plan((out,), ())
    config = choose(
        STREAM_K_TUNABLE,
        capability,
        a.device,
        bits=8 * a.itemsize,
        aligned=int(rows_aligned(a, b)),
        m=m,
        n=n,
        k=k,
    )
    plan = plan_of(m, n, k, config)
    blocks = {"BLOCK_M": config.block_m, "BLOCK_N": config.block_n, "BLOCK_K": config.block_k}
    # Every slot that the second launch reads is written by the first one.
    partial = out
    if plan.shared:
        slots = (plan.programs, 2, config.block_m, config.block_n)
        partial = out.new_empty(slots, dtype=torch.float32)
    sizes = {"m": m, "n": n, "k": k}
    product = Launch(
        kernel=stream_k_kernel,
        grid=(plan.programs,),
        args={
            "a_ptr": a,
            "b_ptr": b,
            "out_ptr": out,
            "partial_ptr": partial,
            **sizes,
            "tiles": plan.tiles,
            "shared": plan.shared,
            "stride_a_m": a.stride(0),
            "stride_a_k": a.stride(1),
            "stride_b_k": b.stride(0),
            "stride_b_n": b.stride(1),
        },
        constants={**blocks, "GROUP_M": _GROUP_M, "EVEN_K": k % config.block_k == 0},
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    if not plan.shared:
        return Plan((out,), (product,))
    fix_up = Launch(
        kernel=stream_k_fix_up_kernel,
        grid=(plan.shared,),
        args={
            "partial_ptr": partial,
            "out_ptr": out,
            **sizes,
            "programs": plan.programs,
            "shared": plan.shared,
        },
        constants={**blocks, "GROUP_M": _GROUP_M},
        num_warps=8,
    )
    return Plan((out,), (product, fix_up))


def plan_of(m: int, n: int, k: int, config: StreamKConfig) -> Schedule:
    """Who computes what for these sizes."""
    plan = schedule if config.sharing else by_tiles
    return plan(_tiles(m, n, config), cdiv(k, config.block_k), config.programs)


@torch.library.custom_op("kernl::stream_k_matmul", mutates_args=())
def _stream_k_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return stream_k_matmul_plan(launch.capability(a.device), a, b).run()[0]


@_stream_k_matmul.register_fake
def _stream_k_matmul_fake(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.empty((a.shape[0], b.shape[1]), dtype=a.dtype, device=a.device)


def check_stream_k_matmul(a: torch.Tensor, b: torch.Tensor) -> None:
    """Raise a `kernl.errors.KernlError` where `stream_k_matmul` does not take these arguments."""
    op = "stream_k_matmul"
    checks.tensors(op, stream_k_kernel, a=a, b=b)
    checks.ndim(op, "a", a, 2, "(m, k)")
    checks.ndim(op, "b", b, 2, "(k, n)")
    checks.positive(op, "the last dimension of a", a.shape[1])
    checks.shape(op, "b", b, (a.shape[1], b.shape[1]), "(k, n), k being the last dimension of a")


def stream_k_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """`a @ b`, accumulated in float32, the work shared out evenly among multiprocessors.

    Args:
        a: (m, k), any strides, fp16, bf16 or fp32. Where m or n is 0 the result is empty.
        b: (k, n), any strides.

    Returns:
        (m, n), contiguous, in the dtype of `a`. The same input gives the same bits.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError: from `kernl.errors`.
    """
    check_stream_k_matmul(a, b)
    return _stream_k_matmul(a, b)


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    if workload.tokens >= 128:
        yield {"m": workload.tokens, "n": model.hidden, "k": model.hidden}
        yield {"m": workload.tokens, "n": model.hidden, "k": model.intermediate}


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(seed)

    def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
        values = torch.randn(shape, generator=generator, device=device)
        return (scale * values).to(case.torch_dtype)

    m, n, k = case["m"], case["n"], case["k"]
    # As a linear layer keeps its weight: (n, k), seen transposed.
    return {"a": random(m, k), "b": random(n, k, scale=k**-0.5).t()}


def _bytes(case: Case) -> int:
    m, n, k = case["m"], case["n"], case["k"]
    return (m * k + n * k + m * n) * int(case.itemsize)


STREAM_K_MATMUL = Op(
    name="stream_k_matmul",
    kernel=stream_k_matmul,
    reference=stream_k_matmul_reference,
    plan=stream_k_matmul_plan,
    check=check_stream_k_matmul,
    dims=_dims,
    inputs=_inputs,
    edges=tuple(
        {"m": m, "n": n, "k": k}
        for m, n, k in (
            (1, 1, 1),
            (3, 17, 129),
            (37, 65, 100),
            (130, 131, 257),
            (200, 48, 1100),
            (1, 700, 2048),
        )
    ),
    bytes=_bytes,
    flops=lambda case: 2 * case["m"] * case["n"] * case["k"],
    tolerance={"fp32": 3e-6, "fp16": 5e-4, "bf16": 4e-3},
)
