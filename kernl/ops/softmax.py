"""Softmax over one dimension.

    softmax(x)_j = exp(x_j - max_k x_k) / Σ_k exp(x_k - max_k x_k)

A row that fits one program's registers is read once and written once. A wider row is read twice:
the first walk keeps, for every lane, a running maximum and the sum of exponentials relative to it,
rescaled whenever the maximum rises; the second walk writes.

Source: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018,
https://arxiv.org/abs/1805.02867.
"""

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl

from kernl import checks, launch
from kernl.launch import Launch, Plan, cdiv
from kernl.op import Case, Dims, Op
from kernl.ops.rows import MAX_TILE_COLS, as_rows, row_tile
from kernl.shapes import ModelShape, Workload


def softmax_reference(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """What a PyTorch user would write."""
    return torch.softmax(x, dim)


@triton.jit
def _softmax_tile_kernel(
    x_ptr,
    out_ptr,
    rows,
    cols,
    stride_x_row,
    stride_x_col,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    """(BLOCK_ROWS, BLOCK_COLS) covers BLOCK_ROWS whole rows."""
    row_offs = (tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)).to(tl.int64)
    col_offs = tl.arange(0, BLOCK_COLS)
    mask = (row_offs[:, None] < rows) & (col_offs[None, :] < cols)

    x_ptrs = x_ptr + row_offs[:, None] * stride_x_row + col_offs[None, :] * stride_x_col
    x = tl.load(x_ptrs, mask=mask, other=float("-inf")).to(tl.float32)

    numerator = tl.exp(x - tl.max(x, axis=1)[:, None])
    out = numerator / tl.sum(numerator, axis=1)[:, None]
    out_ptrs = out_ptr + row_offs[:, None] * cols + col_offs[None, :]
    tl.store(out_ptrs, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _softmax_loop_kernel(
    x_ptr,
    out_ptr,
    cols,
    stride_x_row,
    stride_x_col,
    BLOCK_COLS: tl.constexpr,
):
    """One program walks one row in blocks of BLOCK_COLS."""
    row = tl.program_id(0).to(tl.int64)
    x_row_ptr = x_ptr + row * stride_x_row
    out_row_ptr = out_ptr + row * cols
    block_offs = tl.arange(0, BLOCK_COLS)

    lane_max = tl.full((BLOCK_COLS,), float("-inf"), tl.float32)
    lane_sum = tl.zeros((BLOCK_COLS,), tl.float32)
    for start in range(0, cols, BLOCK_COLS):
        col_offs = start + block_offs
        x = tl.load(x_row_ptr + col_offs * stride_x_col, mask=col_offs < cols, other=float("-inf"))
        x = x.to(tl.float32)
        new_max = tl.maximum(lane_max, x)
        # A lane that has seen only -inf has no maximum yet; -inf - -inf would be NaN.
        shift = tl.where(new_max == float("-inf"), 0.0, new_max)
        lane_sum = lane_sum * tl.exp(lane_max - shift) + tl.exp(x - shift)
        lane_max = new_max

    row_max = tl.max(lane_max, axis=0)
    row_sum = tl.sum(lane_sum * tl.exp(lane_max - row_max), axis=0)

    for start in range(0, cols, BLOCK_COLS):
        col_offs = start + block_offs
        mask = col_offs < cols
        x = tl.load(x_row_ptr + col_offs * stride_x_col, mask=mask, other=float("-inf"))
        out = tl.exp(x.to(tl.float32) - row_max) / row_sum
        tl.store(out_row_ptr + col_offs, out.to(out_ptr.dtype.element_ty), mask=mask)


def softmax_plan(capability: int, x: torch.Tensor, dim: int = -1) -> Plan:
    """The output, contiguous in the order of `x.movedim(dim, -1)`, and its one launch."""
    moved = x.movedim(dim, -1)
    flat = as_rows(moved)
    rows, cols = flat.shape
    out = torch.empty(moved.shape, dtype=x.dtype, device=x.device)
    if rows == 0:
        return Plan((out,), ())

    tile = row_tile(rows, cols)
    args = {
        "x_ptr": flat,
        "out_ptr": out,
        "cols": cols,
        "stride_x_row": flat.stride(0),
        "stride_x_col": flat.stride(1),
    }
    if cols > MAX_TILE_COLS:
        looped = Launch(
            _softmax_loop_kernel, (rows,), args, {"BLOCK_COLS": tile.block_cols}, tile.num_warps
        )
        return Plan((out,), (looped,))
    tiled = Launch(
        kernel=_softmax_tile_kernel,
        grid=(cdiv(rows, tile.block_rows),),
        args={**args, "rows": rows},
        constants={"BLOCK_ROWS": tile.block_rows, "BLOCK_COLS": tile.block_cols},
        num_warps=tile.num_warps,
    )
    return Plan((out,), (tiled,))


@torch.library.custom_op("kernl::softmax", mutates_args=())
def _softmax(x: torch.Tensor, dim: int) -> torch.Tensor:
    return softmax_plan(launch.capability(x.device), x, dim).run()[0]


@_softmax.register_fake
def _softmax_fake(x: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.empty(x.movedim(dim, -1).shape, dtype=x.dtype, device=x.device)


def check_softmax(x: torch.Tensor, dim: int = -1) -> None:
    """Raise a `kernl.errors.KernlError` where `softmax` does not take these arguments."""
    checks.tensors("softmax", _softmax_tile_kernel, x=x)
    checks.at_least("softmax", "x", x, 1)
    checks.index("softmax", "dim", dim, -x.dim(), x.dim() - 1)
    checks.positive("softmax", f"dimension {dim} of x", x.shape[dim])


def softmax(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """Softmax of `x` over dimension `dim`, accumulated in float32.

    Args:
        x: any shape and strides, fp16, bf16 or fp32. A batch of size 0 gives an empty result.
        dim: the dimension that sums to one.

    Returns:
        A tensor of the shape and dtype of `x`. As in PyTorch, a row of only -inf gives NaN.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_softmax(x, dim)
    return _softmax(x, dim).movedim(-1, dim)


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    yield {"rows": workload.batch * model.heads * workload.seq, "cols": workload.seq}
    yield {"rows": workload.batch, "cols": model.vocabulary}


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(seed)
    x = torch.randn(case["rows"], case["cols"], generator=generator, device=device)
    return {"x": (4 * x).to(case.torch_dtype)}


def _spelled_functional(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.softmax(x, dim=-1)


def _spelled_upcast(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.softmax(x, dim=-1, dtype=torch.float32).to(x.dtype)


SOFTMAX = Op(
    name="softmax",
    kernel=softmax,
    reference=softmax_reference,
    plan=softmax_plan,
    check=check_softmax,
    dims=_dims,
    inputs=_inputs,
    edges=(
        {"rows": 1, "cols": 1},
        {"rows": 3, "cols": 7},
        {"rows": 5, "cols": 1021},
        {"rows": 129, "cols": 33},
        {"rows": 2, "cols": 4097},
        {"rows": 2, "cols": 16384},
        {"rows": 2, "cols": 16385},
        {"rows": 1, "cols": 20011},
        {"rows": 257, "cols": 1},
    ),
    bytes=lambda case: 2 * case["rows"] * case["cols"] * case.itemsize,
    # Subtract, exponential, add, divide, and one comparison for the maximum.
    flops=lambda case: 5 * case["rows"] * case["cols"],
    tolerance={"fp32": 1e-6, "fp16": 5e-4, "bf16": 4e-3},
    spellings=(_spelled_functional, _spelled_upcast),
)
