"""`linear` on Hopper where one wave of programs is enough: tiles one and a half blocks wide.

A GPU runs so many programs at once; where the tiles are a few more, the last ones run alone while
the rest of the GPU waits. 1,024 × 3,072 outputs are 192 tiles of 128 × 128 for 132
multiprocessors, but 256 tiles of 128 × 96, two on each, all at once. Blocks of Triton are powers of
two wide, so a tile of 96 columns is a block of 64 and one of 32 beside it, which share what is read
of x. While one program of a multiprocessor stores its results, the other one multiplies.

With few rows it is the other way round: tiles of 64 columns leave multiprocessors without work, and
those of 48 give more of them a smaller share. 128 × 2,560 outputs are 80 tiles of 64 × 64, or 108
of 64 × 48, each of which reads an eighth less.

Blocks are moved by the TMA, as `kernl.ops.linear_tma` says.

Source: NVIDIA, "Matrix Multiplication Background User's Guide", section "Wave Quantization".
"""

import triton
import triton.language as tl

from kernl.launch import Launch, cdiv
from kernl.ops.dependent import prefetch_rows, wait_for_inputs
from kernl.ops.grouped import grouped_tile
from kernl.ops.linear_config import LinearConfig
from kernl.ops.linear_tma import described, finish_block
from kernl.ops.product import Product


@triton.jit
def _prefetch_weight(
    weight_ptr, first, ROWS: tl.constexpr, n, k, stride_weight_n, PDL: tl.constexpr
):
    offs = first + tl.arange(0, ROWS)
    rows = tl.where(offs < n, offs, 0).to(tl.int64) * stride_weight_n
    prefetch_rows(weight_ptr + rows, 0, k, PDL)


@triton.jit
def _linear_wave_kernel(
    x_desc,
    weight_desc,
    narrow_weight_desc,
    weight_ptr,
    bias_ptr,
    residual_desc,
    narrow_residual_desc,
    out_desc,
    narrow_out_desc,
    m,
    n,
    k,
    stride_weight_n,
    stride_bias,
    ACTIVATION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    LIMIT: tl.constexpr = None,
    PDL: tl.constexpr = False,
):
    """x (m, k), weight (n, k), residual and out (m, n): blocks beyond their ends read as zeros.

    A tile is BLOCK_M rows of BLOCK_N columns and of half as many, which the narrow ones describe.
    """
    NARROW: tl.constexpr = BLOCK_N // 2
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N + NARROW)
    tile_m, tile_n = grouped_tile(tl.program_id(0), tiles_m, tiles_n, GROUP_M)
    m_first, n_first = tile_m * BLOCK_M, tile_n * (BLOCK_N + NARROW)
    n_narrow = n_first + BLOCK_N
    if tile_m == 0:  # the other programs read what this one asks for
        _prefetch_weight(weight_ptr, n_first, BLOCK_N, n, k, stride_weight_n, PDL)
        _prefetch_weight(weight_ptr, n_narrow, NARROW, n, k, stride_weight_n, PDL)
    wait_for_inputs(PDL)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    narrow_acc = tl.zeros((BLOCK_M, NARROW), tl.float32)
    for start in range(0, k, BLOCK_K):
        x = x_desc.load([m_first, start])
        acc = tl.dot(x, weight_desc.load([n_first, start]).T, acc)
        narrow_acc = tl.dot(x, narrow_weight_desc.load([n_narrow, start]).T, narrow_acc)
    # fmt: off
    finish_block(
        acc, m_first, n_first, n, bias_ptr, residual_desc, out_desc, stride_bias,
        ACTIVATION, HAS_BIAS, HAS_RESIDUAL, LIMIT,
    )
    finish_block(
        narrow_acc, m_first, n_narrow, n, bias_ptr, narrow_residual_desc, narrow_out_desc,
        stride_bias, ACTIVATION, HAS_BIAS, HAS_RESIDUAL, LIMIT,
    )
    # fmt: on


def wave_steps(product: Product, config: LinearConfig) -> tuple[Launch, ...]:
    """The one launch of this path; `kernl.ops.linear_tma.describable` said that it can run."""
    m, n, k = product.sizes
    epilogue, rows = product.epilogue, config.block_m
    residual = product.out if epilogue.residual is None else epilogue.residual
    narrow = config.block_n // 3
    block_n = 2 * narrow
    return (
        Launch(
            kernel=_linear_wave_kernel,
            grid=(cdiv(m, rows) * cdiv(n, config.block_n),),
            args={
                "x_desc": described(product.x, rows, config.block_k),
                "weight_desc": described(product.weight, block_n, config.block_k),
                "narrow_weight_desc": described(product.weight, narrow, config.block_k),
                "weight_ptr": product.weight,
                "bias_ptr": product.x if epilogue.bias is None else epilogue.bias,
                "residual_desc": described(residual, rows, block_n),
                "narrow_residual_desc": described(residual, rows, narrow),
                "out_desc": described(product.out, rows, block_n),
                "narrow_out_desc": described(product.out, rows, narrow),
                "m": m,
                "n": n,
                "k": k,
                "stride_weight_n": product.weight.stride(0),
                "stride_bias": 1 if epilogue.bias is None else epilogue.bias.stride(0),
            },
            constants={
                **epilogue.constants,
                "BLOCK_M": rows,
                "BLOCK_N": block_n,
                "BLOCK_K": config.block_k,
                "GROUP_M": 8,
            },
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        ),
    )
