"""The kernels of `fp8_linear`: rows of x in 8-bit floats, and the product."""

import triton
import triton.language as tl

from kernl.ops.epilogue import finish
from kernl.ops.grouped import grouped_tile

LARGEST = tl.constexpr(448.0)
"""The largest number of e4m3."""
SMALLEST_SCALE = tl.constexpr(1e-30)
"""A row of zeros is divided by it."""


@triton.jit
def quantize_kernel(
    x_ptr,
    out_ptr,
    scale_ptr,
    cols,
    stride_x_row,
    stride_x_col,
    BLOCK_COLS: tl.constexpr,
):
    """One row of x (rows, cols) as e4m3, and its scale; walked twice, then from cache."""
    row = tl.program_id(0).to(tl.int64)
    x_row_ptr = x_ptr + row * stride_x_row
    lane_max = tl.zeros((BLOCK_COLS,), tl.float32)
    for start in range(0, cols, BLOCK_COLS):
        col_offs = start + tl.arange(0, BLOCK_COLS)
        x = tl.load(x_row_ptr + col_offs * stride_x_col, mask=col_offs < cols, other=0.0)
        lane_max = tl.maximum(lane_max, tl.abs(x.to(tl.float32)))
    scale = tl.maximum(tl.div_rn(tl.max(lane_max, axis=0), LARGEST), SMALLEST_SCALE)
    tl.store(scale_ptr + row, scale)
    for start in range(0, cols, BLOCK_COLS):
        col_offs = start + tl.arange(0, BLOCK_COLS)
        mask = col_offs < cols
        x = tl.load(x_row_ptr + col_offs * stride_x_col, mask=mask, other=0.0).to(tl.float32)
        x = tl.div_rn(x, tl.broadcast_to(scale, (BLOCK_COLS,)))
        # The largest may end up a little above 448. e4m3 has no infinity: it becomes NaN.
        held = tl.minimum(tl.maximum(x, -LARGEST), LARGEST)
        x = tl.where(tl.abs(x) < float("inf"), held, float("nan"))
        tl.store(out_ptr + row * cols + col_offs, x.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def fp8_linear_kernel(
    x_ptr,
    weight_ptr,
    x_scale_ptr,
    weight_scale_ptr,
    bias_ptr,
    residual_ptr,
    out_ptr,
    m,
    n,
    k,
    stride_weight_n,
    stride_weight_k,
    stride_weight_scale,
    stride_bias,
    stride_residual_m,
    stride_residual_n,
    ACTIVATION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """x (m, k) contiguous, weight (n, k), x_scale (m,), weight_scale (n,), out (m, n)."""
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    tile_m, tile_n = grouped_tile(tl.program_id(0), tiles_m, tiles_n, GROUP_M)
    m_offs = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n_offs = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    k_offs = tl.arange(0, BLOCK_K)
    # Past the end the first row is read again: only k needs a mask, and no such sum is stored.
    rows = tl.where(m_offs < m, m_offs, 0)
    columns = tl.where(n_offs < n, n_offs, 0)
    x_ptrs = x_ptr + rows.to(tl.int64)[:, None] * k + k_offs[None, :]
    weight_ptrs = weight_ptr + columns.to(tl.int64)[None, :] * stride_weight_n
    weight_ptrs += k_offs.to(tl.int64)[:, None] * stride_weight_k

    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        if EVEN_K:
            x, weight = tl.load(x_ptrs), tl.load(weight_ptrs)
        else:
            mask = start + k_offs < k
            x = tl.load(x_ptrs, mask=mask[None, :], other=0.0)
            weight = tl.load(weight_ptrs, mask=mask[:, None], other=0.0)
        acc += tl.dot(x, weight)
        x_ptrs += BLOCK_K
        weight_ptrs += BLOCK_K * stride_weight_k

    x_scale = tl.load(x_scale_ptr + rows)
    weight_scale = tl.load(weight_scale_ptr + columns.to(tl.int64) * stride_weight_scale)
    acc *= x_scale[:, None] * weight_scale.to(tl.float32)[None, :]
    # fmt: off
    finish(
        acc, m_offs, n_offs, m, n, bias_ptr, residual_ptr, out_ptr,
        stride_bias, stride_residual_m, stride_residual_n, ACTIVATION, HAS_BIAS, HAS_RESIDUAL,
    )
    # fmt: on
