"""Clamp what overflowed: T5 does it behind each of its sublayers in half precision.

    out = clamp(x, -c, c)        c = overflow_limit where any element of x is infinite, else limit

With T5 `limit` is the largest number of the dtype and `overflow_limit` 1000 less: activations stay
as they are until one overflows, and then all are pulled away from the edge. NaN stays NaN.

Which of the two holds is known when all of x was read. So the first launch clamps to `limit`, which
is right as long as nothing overflows, and each program notes whether its block had an infinity. In
the second every program reads these notes, and where there is one clamps its share of the output
again. It is bound by memory: x is read once, the output written once, or twice after an overflow.

Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer", 2019, https://arxiv.org/abs/1910.10683, whose activations outgrow half precision.
"""

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl

from kernl import checks, launch
from kernl.errors import OptionError
from kernl.launch import Launch, Plan, cdiv, next_power_of_2
from kernl.op import Case, Dims, Op, Spelling
from kernl.ops.activation import clamped
from kernl.ops.dependent import wait_for_inputs
from kernl.ops.rows import as_rows
from kernl.ops.tile import FULL_GRID
from kernl.shapes import ModelShape, Workload

BLOCK_COLS = 256
"""A row's part that 32 threads load at once, 16 bytes each; it divides the width of most models."""
BLOCK_ELEMENTS = 2048
BLOCK_NOTES = 1024


def clamp_overflow_reference(x: torch.Tensor, limit: float, overflow_limit: float) -> torch.Tensor:
    """What a PyTorch user would write."""
    bound = torch.where(torch.isinf(x).any(), overflow_limit, limit)
    return torch.clamp(x, min=-bound, max=bound)


@triton.jit
def _place(block, rows, cols, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr):
    """Rows and columns of a block of (rows, cols), and which of them there are."""
    blocks_a_row = tl.cdiv(cols, BLOCK_COLS)
    row_offs = (block // blocks_a_row).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    col_offs = (block % blocks_a_row) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    row_offs, col_offs = row_offs[:, None], col_offs[None, :]
    return row_offs, col_offs, (row_offs < rows) & (col_offs < cols)


@triton.jit
def _clamp_kernel(
    x_ptr,
    out_ptr,
    overflowed_ptr,
    rows,
    cols,
    stride_x_row,
    stride_x_col,
    limit,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    PDL: tl.constexpr = False,
):
    """A block of x and out, each (rows, cols), and one note, overflowed (blocks,)."""
    wait_for_inputs(PDL)
    block = tl.program_id(0)
    row_offs, col_offs, mask = _place(block, rows, cols, BLOCK_ROWS, BLOCK_COLS)
    x_ptrs = x_ptr + row_offs * stride_x_row + col_offs * stride_x_col
    x = tl.load(x_ptrs, mask=mask, other=0.0).to(tl.float32)
    out = clamped(x, limit).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + row_offs * cols + col_offs, out, mask=mask)
    infinite = tl.abs(x) == float("inf")
    tl.store(overflowed_ptr + block, tl.max(infinite.to(tl.int32)).to(tl.int8))


@triton.jit
def _clamp_again_kernel(
    out_ptr,
    overflowed_ptr,
    rows,
    cols,
    blocks,
    limit,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    BLOCK_NOTES: tl.constexpr,
    PDL: tl.constexpr = False,
):
    """Each program reads all notes, overflowed (blocks,), and clamps its share of out in place."""
    wait_for_inputs(PDL)
    notes = tl.zeros((BLOCK_NOTES,), tl.int32)
    for first in range(0, blocks, BLOCK_NOTES):
        note_offs = first + tl.arange(0, BLOCK_NOTES)
        notes |= tl.load(overflowed_ptr + note_offs, mask=note_offs < blocks, other=0).to(tl.int32)
    if tl.max(notes) > 0:
        for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
            row_offs, col_offs, mask = _place(block, rows, cols, BLOCK_ROWS, BLOCK_COLS)
            out_ptrs = out_ptr + row_offs * cols + col_offs
            out = tl.load(out_ptrs, mask=mask, other=0.0).to(tl.float32)
            tl.store(out_ptrs, clamped(out, limit).to(out_ptr.dtype.element_ty), mask=mask)


def clamp_overflow_plan(
    capability: int, x: torch.Tensor, limit: float, overflow_limit: float
) -> Plan:
    """The output, contiguous, and its two launches."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    flat = as_rows(x)
    rows, cols = flat.shape
    if rows == 0:
        return Plan((out,), ())
    block_cols = min(BLOCK_COLS, next_power_of_2(cols))
    block_rows = min(BLOCK_ELEMENTS // block_cols, next_power_of_2(rows))
    blocks = cdiv(rows, block_rows) * cdiv(cols, block_cols)
    overflowed = torch.empty((blocks,), dtype=torch.int8, device=x.device)
    args = {"out_ptr": out, "overflowed_ptr": overflowed, "rows": rows, "cols": cols}
    constants = {"BLOCK_ROWS": block_rows, "BLOCK_COLS": block_cols}
    once = Launch(
        kernel=_clamp_kernel,
        grid=(blocks,),
        args={
            **args,
            "x_ptr": flat,
            "stride_x_row": flat.stride(0),
            "stride_x_col": flat.stride(1),
            "limit": float(limit),
        },
        constants=constants,
        num_warps=4,
    )
    again = Launch(
        kernel=_clamp_again_kernel,
        grid=(min(blocks, 2 * FULL_GRID),),
        args={**args, "blocks": blocks, "limit": float(overflow_limit)},
        constants={**constants, "BLOCK_NOTES": BLOCK_NOTES},
        num_warps=4,
    )
    return Plan((out,), (once, again))


@torch.library.custom_op("kernl::clamp_overflow", mutates_args=())
def _clamp_overflow(x: torch.Tensor, limit: float, overflow_limit: float) -> torch.Tensor:
    return clamp_overflow_plan(launch.capability(x.device), x, limit, overflow_limit).run()[0]


@_clamp_overflow.register_fake
def _clamp_overflow_fake(x: torch.Tensor, limit: float, overflow_limit: float) -> torch.Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def check_clamp_overflow(x: torch.Tensor, limit: float, overflow_limit: float) -> None:
    """Raise a `kernl.errors.KernlError` where `clamp_overflow` does not take these arguments."""
    op = "clamp_overflow"
    checks.tensors(op, _clamp_kernel, x=x)
    checks.at_least(op, "x", x, 1)
    checks.number(op, "limit", limit)
    checks.number(op, "overflow_limit", overflow_limit)
    largest = torch.finfo(x.dtype).max
    if not overflow_limit <= limit <= largest:
        raise OptionError(
            seen=f"{op}: limit={limit}, overflow_limit={overflow_limit}",
            allowed=f"overflow_limit ≤ limit ≤ {largest}, the largest of {x.dtype}",
            action="check which is which, or use torch.clamp",
        )


def clamp_overflow(x: torch.Tensor, limit: float, overflow_limit: float) -> torch.Tensor:
    """`x` clamped to ±limit, or to ±overflow_limit where any element of it is infinite.

    Args:
        x: (…, cols), any strides, fp16, bf16 or fp32. An empty one gives an empty result.
        limit: 0 or more, at most the largest number of the dtype, which leaves finite ones alone.
        overflow_limit: 0 or more, at most `limit`.

    Returns:
        (…, cols), contiguous, in the dtype of `x`, to which limits are rounded; NaN stays NaN.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_clamp_overflow(x, limit, overflow_limit)
    return _clamp_overflow(x, float(limit), float(overflow_limit))


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    # T5 alone: an encoder, or what it is joined to, with RMS norms.
    if model.norm == "rms" and not model.causal:
        for overflow in (False, True):
            yield {"rows": workload.tokens, "cols": model.hidden, "overflow": overflow}


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(seed)
    dtype = case.torch_dtype
    limit = torch.finfo(dtype).max
    # The whole range, a few in a thousand at its ends.
    values = torch.randn(case["rows"], case["cols"], generator=generator, device=device)
    x = (values * (limit / 3)).clamp(-limit, limit).to(dtype)
    if case["overflow"]:
        x[-1, -1] = float("-inf")
    # As the dtype rounds it, so that nothing is left to round.
    overflow_limit = torch.tensor(limit - 1000, dtype=dtype, device="cpu").item()
    return {"x": x, "limit": limit, "overflow_limit": overflow_limit}


def _spelled(x: torch.Tensor, limit: float, overflow_limit: float) -> torch.Tensor:
    """As T5 and its kin have it."""
    bound = torch.where(torch.isinf(x).any(), overflow_limit, limit)
    return torch.clamp(x, min=-bound, max=bound)


CLAMP_OVERFLOW = Op(
    name="clamp_overflow",
    kernel=clamp_overflow,
    reference=clamp_overflow_reference,
    plan=clamp_overflow_plan,
    check=check_clamp_overflow,
    dims=_dims,
    inputs=_inputs,
    edges=tuple(
        {"rows": rows, "cols": cols, "overflow": overflow}
        for rows, cols, overflow in (
            (1, 1, False),
            (1, 17, True),
            (3, 1021, True),
            (257, 33, False),
            (2, 4097, True),
            (129, 300, True),
        )
    ),
    # What T5's larger sizes have: base 768, large 1024.
    sweep=tuple(
        {"rows": rows, "cols": cols, "overflow": False}
        for rows in (128, 512, 4096, 16384)
        for cols in (768, 1024)
    ),
    bytes=lambda case: 2 * case["rows"] * case["cols"] * int(case.itemsize),
    # Two comparisons to clamp, one to find an infinity.
    flops=lambda case: 3 * case["rows"] * case["cols"],
    tolerance={"fp32": 0.0, "fp16": 0.0, "bf16": 0.0},
    spellings=(
        Spelling(
            _spelled,
            clamp_overflow,
            {"x": (2, 3, 8)},
            {"limit": 1.7310585, "overflow_limit": 0.7310585},
        ),
    ),
)
