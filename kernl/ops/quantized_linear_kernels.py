"""The kernels of `quantized_linear`: tiles on the tensor cores, a few rows without, dequantizing.

In each of them integers become floats in registers and the scale comes after: on the sum of a
group's products where tensor cores add, on each integer where they do not.
"""

import triton
import triton.language as tl

from kernl.ops.epilogue import finish
from kernl.ops.grouped import grouped_tile


@triton.jit
def quantized_tile_kernel(
    x_ptr,
    weight_ptr,
    scale_ptr,
    bias_ptr,
    residual_ptr,
    out_ptr,
    m,
    n,
    k,
    steps_per_split,
    stride_x_m,
    stride_x_k,
    stride_weight_n,
    stride_weight_k,
    stride_scale_n,
    stride_scale_k,
    stride_bias,
    stride_residual_m,
    stride_residual_n,
    ACTIVATION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    BITS: tl.constexpr,
    STEPS_PER_GROUP: tl.constexpr,
    EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """x (m, k), weight (n, k) or (n, k / 2), scale (n, groups), out (splits, m, n).

    A group is STEPS_PER_GROUP steps, or a whole row where that is 0. With 4 bits it is one step,
    whose BLOCK_K bytes a row hold 2 · BLOCK_K integers.
    """
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    tile_m, tile_n = grouped_tile(tl.program_id(0), tiles_m, tiles_n, GROUP_M)
    m_offs = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n_offs = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    k_offs = tl.arange(0, BLOCK_K)
    integers_a_step: tl.constexpr = BLOCK_K if BITS == 8 else 2 * BLOCK_K
    split = tl.program_id(1)
    first = split * steps_per_split
    last = tl.minimum(first + steps_per_split, tl.cdiv(k, integers_a_step))
    # Past the end the first row is read again: no such sum is stored.
    rows = tl.where(m_offs < m, m_offs, 0).to(tl.int64)[:, None]
    columns = tl.where(n_offs < n, n_offs, 0).to(tl.int64)
    x_ptrs = x_ptr + rows * stride_x_m + k_offs.to(tl.int64)[None, :] * stride_x_k
    x_ptrs += first.to(tl.int64) * integers_a_step * stride_x_k
    weight_ptrs = weight_ptr + columns[None, :] * stride_weight_n
    weight_ptrs += (first * BLOCK_K + k_offs).to(tl.int64)[:, None] * stride_weight_k
    scale_ptrs = scale_ptr + columns * stride_scale_n

    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(first, last):
        if EVEN_K:
            x, weight = tl.load(x_ptrs), tl.load(weight_ptrs)
        else:
            mask = step * BLOCK_K + k_offs < k
            x = tl.load(x_ptrs, mask=mask[None, :], other=0.0)
            weight = tl.load(weight_ptrs, mask=mask[:, None], other=0)
        if BITS == 8:
            products = tl.dot(x, weight.to(x.dtype), input_precision="ieee")
        else:
            low, high = (weight & 15).to(tl.int8) - 8, (weight >> 4).to(tl.int8) - 8
            x_high = tl.load(x_ptrs + BLOCK_K * stride_x_k)
            products = tl.dot(x, low.to(x.dtype), input_precision="ieee")
            products = tl.dot(x_high, high.to(x.dtype), products, input_precision="ieee")
        if STEPS_PER_GROUP == 0:
            acc += products
        else:
            group = tl.cast(step // STEPS_PER_GROUP, tl.int64)
            scale = tl.load(scale_ptrs + group * stride_scale_k)
            acc += products * scale.to(tl.float32)[None, :]
        x_ptrs += integers_a_step * stride_x_k
        weight_ptrs += BLOCK_K * stride_weight_k
    if STEPS_PER_GROUP == 0:
        acc *= tl.load(scale_ptrs).to(tl.float32)[None, :]
    # fmt: off
    finish(
        acc, m_offs, n_offs, m, n, bias_ptr, residual_ptr, out_ptr + split.to(tl.int64) * m * n,
        stride_bias, stride_residual_m, stride_residual_n, ACTIVATION, HAS_BIAS, HAS_RESIDUAL,
    )
    # fmt: on


@triton.jit
def quantized_gemv_kernel(
    x_ptr,
    weight_ptr,
    scale_ptr,
    bias_ptr,
    residual_ptr,
    out_ptr,
    m,
    n,
    k,
    group_size,
    stride_x_m,
    stride_x_k,
    stride_weight_n,
    stride_weight_k,
    stride_scale_n,
    stride_scale_k,
    stride_bias,
    stride_residual_m,
    stride_residual_n,
    ACTIVATION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """BLOCK_M covers m; BLOCK_K bytes of each of BLOCK_N rows of weight at a time."""
    m_offs = tl.arange(0, BLOCK_M)
    n_offs = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows = tl.where(m_offs < m, m_offs, 0).to(tl.int64)[:, None] * stride_x_m
    columns = tl.where(n_offs < n, n_offs, 0).to(tl.int64)[:, None]
    bytes_a_row = k if BITS == 8 else k // 2
    bytes_a_group = group_size if BITS == 8 else group_size // 2

    acc = tl.zeros((BLOCK_M, BLOCK_N, BLOCK_K), tl.float32)
    for start in range(0, bytes_a_row, BLOCK_K):
        place = start + tl.arange(0, BLOCK_K)
        mask = (place < bytes_a_row)[None, :]
        group = place // bytes_a_group
        weight_offs = columns * stride_weight_n + place.to(tl.int64)[None, :] * stride_weight_k
        weight = tl.load(weight_ptr + weight_offs, mask=mask, other=0)
        scale_offs = columns * stride_scale_n + group.to(tl.int64)[None, :] * stride_scale_k
        scale = tl.load(scale_ptr + scale_offs, mask=mask, other=0.0).to(tl.float32)
        # With 4 bits each group has half as many bytes as columns of x.
        x_place = place if BITS == 8 else place + group * bytes_a_group
        x_ptrs = x_ptr + rows + x_place.to(tl.int64)[None, :] * stride_x_k
        x = tl.load(x_ptrs, mask=mask, other=0.0).to(tl.float32)
        if BITS == 8:
            acc += x[:, None, :] * (weight.to(tl.float32) * scale)[None, :, :]
        else:
            x_high_ptrs = x_ptrs + bytes_a_group * stride_x_k
            x_high = tl.load(x_high_ptrs, mask=mask, other=0.0).to(tl.float32)
            low, high = (weight & 15).to(tl.int8) - 8, (weight >> 4).to(tl.int8) - 8
            acc += x[:, None, :] * (low.to(tl.float32) * scale)[None, :, :]
            acc += x_high[:, None, :] * (high.to(tl.float32) * scale)[None, :, :]
    # fmt: off
    finish(
        tl.sum(acc, axis=2), m_offs, n_offs, m, n, bias_ptr, residual_ptr, out_ptr,
        stride_bias, stride_residual_m, stride_residual_n, ACTIVATION, HAS_BIAS, HAS_RESIDUAL,
    )
    # fmt: on


@triton.jit
def dequantize_kernel(
    weight_ptr,
    scale_ptr,
    out_ptr,
    k,
    group_size,
    stride_weight_n,
    stride_weight_k,
    stride_scale_n,
    stride_scale_k,
    BITS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """BLOCK_K bytes of one row of weight as floats, out (n, k) contiguous."""
    row = tl.program_id(0).to(tl.int64)
    bytes_a_row = k if BITS == 8 else k // 2
    bytes_a_group = group_size if BITS == 8 else group_size // 2
    place = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    mask = place < bytes_a_row
    group = place // bytes_a_group
    weight_ptrs = weight_ptr + row * stride_weight_n + place.to(tl.int64) * stride_weight_k
    scale_ptrs = scale_ptr + row * stride_scale_n + group.to(tl.int64) * stride_scale_k
    weight = tl.load(weight_ptrs, mask=mask, other=0)
    scale = tl.load(scale_ptrs, mask=mask, other=0.0).to(tl.float32)
    dtype = out_ptr.dtype.element_ty
    if BITS == 8:
        out_ptrs = out_ptr + row * k + place
        tl.store(out_ptrs, (weight.to(tl.float32) * scale).to(dtype), mask=mask)
    else:
        out_ptrs = out_ptr + row * k + place + group * bytes_a_group
        low, high = (weight & 15).to(tl.int8) - 8, (weight >> 4).to(tl.int8) - 8
        tl.store(out_ptrs, (low.to(tl.float32) * scale).to(dtype), mask=mask)
        tl.store(out_ptrs + bytes_a_group, (high.to(tl.float32) * scale).to(dtype), mask=mask)
