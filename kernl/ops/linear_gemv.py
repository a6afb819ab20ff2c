"""`linear` for a few rows of x: multiply and add without tensor cores.

One token against a weight is bound by reading the weight. Tensor cores want 16 rows at least; for
fewer, plain arithmetic may keep up with the memory and wastes nothing. Up to how many rows it does
is for `make tune` to say.
"""

import triton
import triton.language as tl

from kernl.launch import Launch, cdiv, next_power_of_2
from kernl.ops.dependent import prefetch_rows, wait_for_inputs
from kernl.ops.epilogue import finish
from kernl.ops.linear_config import LinearConfig
from kernl.ops.product import Product


@triton.jit
def _linear_gemv_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    residual_ptr,
    out_ptr,
    m,
    n,
    k,
    stride_x_m,
    stride_x_k,
    stride_weight_n,
    stride_weight_k,
    stride_bias,
    stride_residual_m,
    stride_residual_n,
    ACTIVATION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    STRIDE_UNIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    LIMIT: tl.constexpr = None,
    PDL: tl.constexpr = False,
):
    """BLOCK_M covers m. Each thread multiplies and adds; the sums meet once, at the end."""
    m_offs = tl.arange(0, BLOCK_M)
    n_offs = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    k_offs = tl.arange(0, BLOCK_K)
    x_rows = tl.where(m_offs < m, m_offs, 0).to(tl.int64)[:, None] * stride_x_m * STRIDE_UNIT
    weight_rows = tl.where(n_offs < n, n_offs, 0).to(tl.int64) * stride_weight_n * STRIDE_UNIT
    if stride_weight_k == 1:
        prefetch_rows(weight_ptr + weight_rows, 0, k, PDL)
    wait_for_inputs(PDL)
    weight_rows = weight_rows[:, None]

    acc = tl.zeros((BLOCK_M, BLOCK_N, BLOCK_K), tl.float32)
    for start in range(0, k, BLOCK_K):
        columns = (start + k_offs).to(tl.int64)[None, :]
        mask = columns < k
        x = tl.load(x_ptr + x_rows + columns * stride_x_k, mask=mask, other=0.0)
        weight = tl.load(weight_ptr + weight_rows + columns * stride_weight_k, mask=mask, other=0.0)
        acc += x.to(tl.float32)[:, None, :] * weight.to(tl.float32)[None, :, :]
    finish(
        tl.sum(acc, axis=2),
        m_offs,
        n_offs,
        m,
        n,
        bias_ptr,
        residual_ptr,
        out_ptr,
        stride_bias,
        stride_residual_m,
        stride_residual_n,
        ACTIVATION,
        HAS_BIAS,
        HAS_RESIDUAL,
        LIMIT,
    )


def gemv_steps(product: Product, config: LinearConfig) -> tuple[Launch, ...]:
    """The one launch of this path."""
    m, n, k = product.sizes
    return (
        Launch(
            kernel=_linear_gemv_kernel,
            grid=(cdiv(n, config.block_n),),
            args={
                **product.operands,
                **product.epilogue.args(product.x),
                "out_ptr": product.out,
                "m": m,
                "n": n,
                "k": k,
            },
            constants={
                **product.epilogue.constants,
                "STRIDE_UNIT": product.stride_unit,
                "BLOCK_M": next_power_of_2(m),
                "BLOCK_N": config.block_n,
                "BLOCK_K": config.block_k,
            },
            num_warps=config.num_warps,
        ),
    )
