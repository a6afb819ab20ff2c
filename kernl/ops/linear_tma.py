"""`linear` on Hopper and newer: the tensor memory accelerator (TMA) moves whole blocks.

A descriptor names a matrix and a block of it. One instruction then copies a block to shared memory
or back, computes all addresses and cuts what lies outside: no thread spends registers on pointers,
and no load or store needs a mask.

As many programs as there are multiprocessors walk over the tiles. While one tile's results are
stored, the first blocks of the next are on their way, which pays where the epilogue is long: bias,
activation and residual of many rows. Results are stored by parts of a tile, so that what a part
needs of shared memory leaves room for one more stage of operands.

Source: NVIDIA, "CUDA C++ Programming Guide", section "Tensor Memory Access".
"""

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from kernl.launch import Launch, cdiv
from kernl.ops.activation import activate, clamped
from kernl.ops.grouped import grouped_tile
from kernl.ops.linear_config import LinearConfig
from kernl.ops.product import Product
from kernl.ops.tile import VECTOR_BYTES


@triton.jit
def finish_block(
    acc,
    m_first,
    n_first,
    n,
    bias_ptr,
    residual_desc,
    out_desc,
    stride_bias,
    ACTIVATION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    LIMIT: tl.constexpr,
):
    """What follows the product, and the store, of a float32 block like those of the descriptors."""
    if HAS_BIAS:
        n_offs = n_first + tl.arange(0, acc.shape[1])
        bias = tl.load(bias_ptr + n_offs.to(tl.int64) * stride_bias, mask=n_offs < n, other=0.0)
        acc += bias.to(tl.float32)[None, :]
    acc = activate(acc, ACTIVATION)
    if HAS_RESIDUAL:
        acc += residual_desc.load([m_first, n_first]).to(tl.float32)
    if LIMIT is not None:
        acc = clamped(acc, LIMIT)
    out_desc.store([m_first, n_first], acc.to(out_desc.dtype))


@triton.jit
def halves(acc):
    """The left and the right half of a block, which are in registers already."""
    rows: tl.constexpr = acc.shape[0]
    half: tl.constexpr = acc.shape[1] // 2
    return tl.split(tl.permute(tl.reshape(acc, (rows, 2, half)), (0, 2, 1)))


@triton.jit
def _finish_halves(
    acc,
    m_first,
    n_first,
    n,
    bias_ptr,
    residual_desc,
    out_desc,
    stride_bias,
    ACTIVATION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    LIMIT: tl.constexpr,
):
    left, right = halves(acc)
    # fmt: off
    finish_block(
        left, m_first, n_first, n, bias_ptr, residual_desc, out_desc, stride_bias,
        ACTIVATION, HAS_BIAS, HAS_RESIDUAL, LIMIT,
    )
    finish_block(
        right, m_first, n_first + left.shape[1], n, bias_ptr, residual_desc, out_desc, stride_bias,
        ACTIVATION, HAS_BIAS, HAS_RESIDUAL, LIMIT,
    )
    # fmt: on


@triton.jit
def _linear_tma_kernel(
    x_desc,
    weight_desc,
    bias_ptr,
    residual_desc,
    out_desc,
    m,
    n,
    k,
    stride_bias,
    ACTIVATION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    LIMIT: tl.constexpr = None,
):
    """x (m, k), weight (n, k), residual and out (m, n): blocks beyond their ends read as zeros."""
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0), flatten=True):
        tile_m, tile_n = grouped_tile(tile, tiles_m, tiles_n, GROUP_M)
        m_first, n_first = tile_m * BLOCK_M, tile_n * BLOCK_N
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for start in range(0, k, BLOCK_K):
            x, weight = x_desc.load([m_first, start]), weight_desc.load([n_first, start])
            acc = tl.dot(x, weight.T, acc)
        # fmt: off
        if HAS_RESIDUAL:
            left, right = halves(acc)
            _finish_halves(
                left, m_first, n_first, n, bias_ptr, residual_desc, out_desc, stride_bias,
                ACTIVATION, HAS_BIAS, HAS_RESIDUAL, LIMIT,
            )
            _finish_halves(
                right, m_first, n_first + BLOCK_N // 2, n, bias_ptr, residual_desc, out_desc,
                stride_bias, ACTIVATION, HAS_BIAS, HAS_RESIDUAL, LIMIT,
            )
        else:
            _finish_halves(
                acc, m_first, n_first, n, bias_ptr, residual_desc, out_desc, stride_bias,
                ACTIVATION, HAS_BIAS, HAS_RESIDUAL, LIMIT,
            )
        # fmt: on


def describable(product: Product) -> bool:
    """Whether the TMA can reach all of it."""
    residual = product.epilogue.residual
    return reachable(
        product.x, product.weight, product.out, *([] if residual is None else [residual])
    )


def reachable(*matrices: torch.Tensor) -> bool:
    """Whether the TMA moves blocks of them: rows side by side that start at multiples of 16 bytes.

    16-bit elements alone: products of float32 are computed without tensor cores.
    """
    return all(
        matrix.itemsize == 2
        and matrix.stride(1) == 1
        and matrix.stride(0) * matrix.itemsize % VECTOR_BYTES == 0
        and matrix.data_ptr() % VECTOR_BYTES == 0
        for matrix in matrices
    )


def described(matrix: torch.Tensor, rows: int, columns: int) -> TensorDescriptor:
    """A matrix, and blocks of it that the TMA moves."""
    return TensorDescriptor.from_tensor(matrix, [rows, columns])


def tma_steps(product: Product, config: LinearConfig, programs: int) -> tuple[Launch, ...]:
    """The one launch of this path, of `programs` at most; `describable` said that it can run."""
    m, n, k = product.sizes
    epilogue = product.epilogue
    residual = product.out if epilogue.residual is None else epilogue.residual
    cols = config.block_n // (2 if epilogue.residual is None else 4)
    tiles = cdiv(m, config.block_m) * cdiv(n, config.block_n)

    return (
        Launch(
            kernel=_linear_tma_kernel,
            grid=(min(tiles, programs),),
            args={
                "x_desc": described(product.x, config.block_m, config.block_k),
                "weight_desc": described(product.weight, config.block_n, config.block_k),
                "bias_ptr": product.x if epilogue.bias is None else epilogue.bias,
                "residual_desc": described(residual, config.block_m, cols),
                "out_desc": described(product.out, config.block_m, cols),
                "m": m,
                "n": n,
                "k": k,
                "stride_bias": 1 if epilogue.bias is None else epilogue.bias.stride(0),
            },
            constants={
                **epilogue.constants,
                "BLOCK_M": config.block_m,
                "BLOCK_N": config.block_n,
                "BLOCK_K": config.block_k,
                "GROUP_M": 8,
            },
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        ),
    )
