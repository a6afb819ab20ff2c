"""`linear_glu` on Hopper and newer: gate and up as one product, blocks moved by the TMA.

Both weights lie in one tensor, gate above up, which the copy engine sees as (2, n, k). A block of
(2, BLOCK_N, BLOCK_K) of it, BLOCK_N rows of either, is one operand of 2 · BLOCK_N columns: the
tensor cores read each block of x from shared memory once for both, where two products read it
twice, and what reads and writes shared memory is what such a tile waits for. In the result gate's
column and up's lie in the registers of one thread, so that they are multiplied where they are.

A tile may be one and a half blocks wide, as in `kernl.ops.linear_wave`: 5,632 columns are 88 tiles
of 64, or 118 of 48 for 132 multiprocessors.

Source: NVIDIA, "CUDA C++ Programming Guide", section "Tensor Memory Access"; "Parallel Thread
Execution ISA", section "Asynchronous warpgroup level matrix instructions".
"""

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from kernl.launch import Launch, cdiv
from kernl.ops.activation import activate
from kernl.ops.dependent import prefetch_rows, wait_for_inputs
from kernl.ops.grouped import grouped_tile
from kernl.ops.linear_glu_config import GluConfig
from kernl.ops.linear_tma import described, halves
from kernl.ops.product import Product


@triton.jit
def finish_gated(
    gate,
    up,
    m_offs,
    n_offs,
    m,
    n,
    bias_ptr,
    out_ptr,
    stride_bias,
    ACTIVATION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """What follows both products of a tile, float32, and the store: out (m, n), bias (2n,)."""
    n_mask = n_offs < n
    if HAS_BIAS:
        bias_ptrs = bias_ptr + n_offs.to(tl.int64) * stride_bias
        gate += tl.load(bias_ptrs, mask=n_mask, other=0.0).to(tl.float32)[None, :]
        bias_ptrs += tl.cast(n, tl.int64) * stride_bias
        up += tl.load(bias_ptrs, mask=n_mask, other=0.0).to(tl.float32)[None, :]
    out = activate(gate, ACTIVATION) * up
    out_ptrs = out_ptr + m_offs.to(tl.int64)[:, None] * n + n_offs[None, :]
    out_mask = (m_offs < m)[:, None] & n_mask[None, :]
    tl.store(out_ptrs, out.to(out_ptr.dtype.element_ty), mask=out_mask)


@triton.jit
def _linear_glu_tma_kernel(
    x_desc,
    weight_desc,
    narrow_weight_desc,
    weight_ptr,
    bias_ptr,
    out_ptr,
    m,
    n,
    k,
    stride_weight_n,
    stride_bias,
    ACTIVATION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    NARROW_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    PDL: tl.constexpr = False,
):
    """x (m, k), weight (2, n, k), out (m, n): what lies beyond their ends reads as zeros.

    A tile is BLOCK_M rows of BLOCK_N + NARROW_N columns; NARROW_N is 0 or a half of BLOCK_N.
    """
    WIDTH: tl.constexpr = BLOCK_N + NARROW_N
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, WIDTH)
    tile_m, tile_n = grouped_tile(tl.program_id(0), tiles_m, tiles_n, GROUP_M)
    m_first, n_first = tile_m * BLOCK_M, tile_n * WIDTH
    n_narrow = n_first + BLOCK_N
    n_offs = n_first + tl.arange(0, BLOCK_N)
    if tile_m == 0:  # the other programs read what this one asks for
        rows = tl.where(n_offs < n, n_offs, 0).to(tl.int64) * stride_weight_n
        prefetch_rows(weight_ptr + rows, 0, k, PDL)
        prefetch_rows(weight_ptr + tl.cast(n, tl.int64) * stride_weight_n + rows, 0, k, PDL)
    wait_for_inputs(PDL)

    both = tl.zeros((BLOCK_M, 2 * BLOCK_N), tl.float32)
    if NARROW_N:
        narrow_both = tl.zeros((BLOCK_M, 2 * NARROW_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        x = x_desc.load([m_first, start])
        weight = weight_desc.load([0, n_first, start]).reshape(2 * BLOCK_N, BLOCK_K)
        both = tl.dot(x, weight.T, both)
        if NARROW_N:
            weight = narrow_weight_desc.load([0, n_narrow, start]).reshape(2 * NARROW_N, BLOCK_K)
            narrow_both = tl.dot(x, weight.T, narrow_both)

    m_offs = m_first + tl.arange(0, BLOCK_M)
    gate, up = halves(both)
    # fmt: off
    finish_gated(
        gate, up, m_offs, n_offs, m, n, bias_ptr, out_ptr, stride_bias, ACTIVATION, HAS_BIAS,
    )
    if NARROW_N:
        gate, up = halves(narrow_both)
        n_offs = n_narrow + tl.arange(0, NARROW_N)
        finish_gated(
            gate, up, m_offs, n_offs, m, n, bias_ptr, out_ptr, stride_bias, ACTIVATION, HAS_BIAS,
        )
    # fmt: on


def glu_tma_step(product: Product, config: GluConfig) -> Launch:
    """The launch of this path; `kernl.ops.linear_tma.reachable` said so of x and weight."""
    x, weight, bias = product.x, product.weight, product.epilogue.bias
    m, n, k = x.shape[0], weight.shape[0] // 2, x.shape[1]
    wide, narrow = config.widths
    return Launch(
        kernel=_linear_glu_tma_kernel,
        grid=(cdiv(m, config.block_m) * cdiv(n, config.block_n),),
        args={
            "x_desc": described(x, config.block_m, config.block_k),
            "weight_desc": _pairs_of_rows(weight, wide, config.block_k),
            "narrow_weight_desc": _pairs_of_rows(weight, narrow or wide, config.block_k),
            "weight_ptr": weight,
            "bias_ptr": x if bias is None else bias,
            "out_ptr": product.out,
            "m": m,
            "n": n,
            "k": k,
            "stride_weight_n": weight.stride(0),
            "stride_bias": 1 if bias is None else bias.stride(0),
        },
        constants={
            "ACTIVATION": product.epilogue.activation,
            "HAS_BIAS": bias is not None,
            "BLOCK_M": config.block_m,
            "BLOCK_N": wide,
            "NARROW_N": narrow,
            "BLOCK_K": config.block_k,
            "GROUP_M": 8,
        },
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )


def _pairs_of_rows(weight: torch.Tensor, rows: int, columns: int) -> TensorDescriptor:
    """The weight (2n, k) as (2, n, k), and blocks of it: so many rows of gate and of up."""
    both = weight.view(2, weight.shape[0] // 2, weight.shape[1])
    return TensorDescriptor.from_tensor(both, [2, rows, columns])
