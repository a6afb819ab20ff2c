"""A product shared out along its inner dimension on Hopper and newer: blocks moved by the TMA.

Each program adds up its share of k for one tile, and stores it in float32 beside those of the
others; what adds the shares up comes behind (`kernl.ops.linear_layer_norm_finish`). With few rows
what limits such a product is what its programs read from L2 together. Tiles of all rows read each
weight once, and only the copy engine keeps so large a tile's blocks coming with few registers.

Source: NVIDIA, "CUDA C++ Programming Guide", section "Tensor Memory Access".
"""

import torch
import triton
import triton.language as tl

from kernl.launch import Launch, cdiv
from kernl.ops.dependent import prefetch_rows, wait_for_inputs
from kernl.ops.grouped import grouped_tile
from kernl.ops.linear_config import LinearConfig
from kernl.ops.linear_tma import described
from kernl.ops.product import Product


@triton.jit
def _linear_split_tma_kernel(
    x_desc,
    weight_desc,
    weight_ptr,
    partial_ptr,
    m,
    n,
    k,
    k_per_split,
    stride_weight_n,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    PDL: tl.constexpr = False,
):
    """x (m, k), weight (n, k), partial (splits, m, n): what lies beyond their ends reads as zeros.

    k_per_split is a multiple of BLOCK_K.
    """
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    tile_m, tile_n = grouped_tile(tl.program_id(0), tiles_m, tiles_n, GROUP_M)
    m_first, n_first = tile_m * BLOCK_M, tile_n * BLOCK_N
    n_offs = n_first + tl.arange(0, BLOCK_N)
    split = tl.program_id(1)
    k_first = split * k_per_split
    k_last = tl.minimum(k_first + k_per_split, k)
    if tile_m == 0:  # the other programs read what this one asks for
        rows = tl.where(n_offs < n, n_offs, 0).to(tl.int64) * stride_weight_n
        prefetch_rows(weight_ptr + rows, k_first, k_last, PDL)
    wait_for_inputs(PDL)

    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(k_first, k_last, BLOCK_K):
        x, weight = x_desc.load([m_first, start]), weight_desc.load([n_first, start])
        acc = tl.dot(x, weight.T, acc)

    m_offs = m_first + tl.arange(0, BLOCK_M)
    partial_ptr += split.to(tl.int64) * m * n
    partial_ptrs = partial_ptr + m_offs.to(tl.int64)[:, None] * n + n_offs[None, :]
    tl.store(partial_ptrs, acc, mask=(m_offs < m)[:, None] & (n_offs < n)[None, :])


def split_tma_launch(product: Product, config: LinearConfig, partial: torch.Tensor) -> Launch:
    """Fills partial (splits, m, n); `kernl.ops.linear_tma.reachable` said so of x and weight."""
    m, n, k = product.sizes
    splits = partial.shape[0]
    return Launch(
        kernel=_linear_split_tma_kernel,
        grid=(cdiv(m, config.block_m) * cdiv(n, config.block_n), splits),
        args={
            "x_desc": described(product.x, config.block_m, config.block_k),
            "weight_desc": described(product.weight, config.block_n, config.block_k),
            "weight_ptr": product.weight,
            "partial_ptr": partial,
            "m": m,
            "n": n,
            "k": k,
            "k_per_split": cdiv(cdiv(k, config.block_k), splits) * config.block_k,
            "stride_weight_n": product.weight.stride(0),
        },
        constants={
            "BLOCK_M": config.block_m,
            "BLOCK_N": config.block_n,
            "BLOCK_K": config.block_k,
            "GROUP_M": 8,
        },
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
