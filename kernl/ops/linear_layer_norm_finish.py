"""The second kernel of `linear_layer_norm` on the path `split`: it adds up, and norms.

    out = norm(sum of partial + bias + residual) · norm_weight + norm_bias

Several programs share the inner dimension of each product and leave their float32 sums behind.
Whoever adds these up holds whole rows, so the norm costs no pass of its own.
"""

import torch
import triton
import triton.language as tl

from kernl.launch import Launch, cdiv, next_power_of_2
from kernl.ops.dependent import prefetch_rows, wait_for_inputs

_BLOCK_ELEMENTS = 2048


@triton.jit
def _finish_norm_kernel(
    partial_ptr,
    bias_ptr,
    residual_ptr,
    norm_weight_ptr,
    norm_bias_ptr,
    out_ptr,
    m,
    n,
    stride_bias,
    stride_residual_m,
    stride_residual_n,
    stride_norm_weight,
    stride_norm_bias,
    eps,
    HAS_BIAS: tl.constexpr,
    HAS_NORM_BIAS: tl.constexpr,
    SPLIT_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PDL: tl.constexpr = False,
):
    """The shapes: partial (SPLIT_K, m, n), residual and out (m, n). BLOCK_N covers n."""
    if stride_norm_weight == 1:
        prefetch_rows(norm_weight_ptr + tl.zeros((1,), tl.int32), 0, n, PDL)
    wait_for_inputs(PDL)
    m_offs = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)[:, None]
    n_offs = tl.arange(0, BLOCK_N)
    n_mask = n_offs < n
    mask = (m_offs < m) & n_mask[None, :]
    columns = n_offs.to(tl.int64)
    offs = m_offs * n + columns[None, :]

    residual_offs = m_offs * stride_residual_m + columns[None, :] * stride_residual_n
    summed = tl.load(residual_ptr + residual_offs, mask=mask, other=0.0).to(tl.float32)
    size = tl.cast(m, tl.int64) * n
    for split in tl.static_range(SPLIT_K):
        summed += tl.load(partial_ptr + split * size + offs, mask=mask, other=0.0)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + columns * stride_bias, mask=n_mask, other=0.0)
        summed += bias.to(tl.float32)[None, :]

    norm_weight = tl.load(norm_weight_ptr + columns * stride_norm_weight, mask=n_mask, other=0.0)
    # Columns beyond n are 0 here: they add nothing to the sum.
    mean = tl.sum(summed, axis=1)[:, None] / n
    deviation = tl.where(n_mask[None, :], summed - mean, 0.0)
    variance = tl.sum(deviation * deviation, axis=1)[:, None] / n
    out = deviation / tl.sqrt(variance + eps) * norm_weight.to(tl.float32)[None, :]
    if HAS_NORM_BIAS:
        norm_bias = tl.load(norm_bias_ptr + columns * stride_norm_bias, mask=n_mask, other=0.0)
        out += norm_bias.to(tl.float32)[None, :]
    tl.store(out_ptr + offs, out.to(out_ptr.dtype.element_ty), mask=mask)


def finish_norm_launch(
    out: torch.Tensor,
    partial: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor | None,
    eps: float,
) -> Launch:
    """out (m, n), contiguous, from partial (splits, m, n) in float32 and residual (m, n)."""
    m, n = residual.shape
    block_n = next_power_of_2(n)
    block_m = min(max(1, _BLOCK_ELEMENTS // (2 * block_n)), next_power_of_2(m))
    return Launch(
        kernel=_finish_norm_kernel,
        grid=(cdiv(m, block_m),),
        args={
            "partial_ptr": partial,
            # Absent tensors are stood in for: their pointers are never read.
            "bias_ptr": residual if bias is None else bias,
            "residual_ptr": residual,
            "norm_weight_ptr": norm_weight,
            "norm_bias_ptr": residual if norm_bias is None else norm_bias,
            "out_ptr": out,
            "m": m,
            "n": n,
            "stride_bias": 1 if bias is None else bias.stride(0),
            "stride_residual_m": residual.stride(0),
            "stride_residual_n": residual.stride(1),
            "stride_norm_weight": norm_weight.stride(0),
            "stride_norm_bias": 1 if norm_bias is None else norm_bias.stride(0),
            "eps": float(eps),
        },
        constants={
            "HAS_BIAS": bias is not None,
            "HAS_NORM_BIAS": norm_bias is not None,
            "SPLIT_K": partial.shape[0],
            "BLOCK_M": block_m,
            "BLOCK_N": block_n,
        },
        num_warps=min(max(block_m * block_n // 256, 1), 16),
    )
