"""The path `split` of a linear layer with a norm behind it: what adds a product up norms too.

    summed = sum of partial + bias + residual          clamped to ±limit where there is one
    out    = norm(summed) · (offset + norm_weight) + norm_bias

Several programs share the inner dimension of each product and leave their float32 sums behind.
Whoever adds these up holds whole rows, so the norm costs no pass of its own. It norms the float32
sum; where a later layer adds to the sum, that is stored too.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from kernl.launch import Launch, Plan, cdiv, next_power_of_2
from kernl.ops.activation import clamped
from kernl.ops.dependent import prefetch_rows, wait_for_inputs
from kernl.ops.epilogue import Epilogue
from kernl.ops.linear import empty_output, split_products
from kernl.ops.linear_config import LinearConfig
from kernl.ops.product import Product
from kernl.ops.rows import as_rows

_BLOCK_ELEMENTS = 2048


class Norm(NamedTuple):
    """weight (n,), bias (n,) or None; a layer norm, or an RMS norm, which takes no mean away.

    limit: what the sum is clamped to before it is normed, ±limit, or None; for layer norms alone.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    eps: float
    offset: float = 0.0
    rms: bool = False
    limit: float | None = None

    def args(self, stand_in: torch.Tensor) -> dict[str, Any]:
        """Run-time arguments of the kernel. What is absent is stood in for, and never read."""
        return {
            "norm_weight_ptr": self.weight,
            "norm_bias_ptr": stand_in if self.bias is None else self.bias,
            "stride_norm_weight": self.weight.stride(0),
            "stride_norm_bias": 1 if self.bias is None else self.bias.stride(0),
            "eps": float(self.eps),
            "offset": float(self.offset),
        }


@triton.jit
def finish_norm_kernel(
    partial_ptr,
    bias_ptr,
    residual_ptr,
    norm_weight_ptr,
    norm_bias_ptr,
    out_ptr,
    summed_ptr,
    m,
    n,
    stride_bias,
    stride_residual_m,
    stride_residual_n,
    stride_norm_weight,
    stride_norm_bias,
    eps,
    offset,
    HAS_BIAS: tl.constexpr,
    HAS_NORM_BIAS: tl.constexpr,
    RMS: tl.constexpr,
    KEEP_SUM: tl.constexpr,
    SPLIT_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    LIMIT: tl.constexpr = None,
    PDL: tl.constexpr = False,
):
    """The shapes: partial (SPLIT_K, m, n), the others (m, n). BLOCK_N covers n."""
    if stride_norm_weight == 1 and tl.program_id(0) == 0:
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
    if LIMIT is not None:
        summed = clamped(summed, LIMIT)

    norm_weight = tl.load(norm_weight_ptr + columns * stride_norm_weight, mask=n_mask, other=0.0)
    norm_weight = norm_weight.to(tl.float32)
    # Columns beyond n are 0 here: they add nothing to a sum.
    if RMS:
        norm_weight += offset
        deviation = summed
    else:
        mean = tl.sum(summed, axis=1)[:, None] / n
        deviation = tl.where(n_mask[None, :], summed - mean, 0.0)
    variance = tl.sum(deviation * deviation, axis=1)[:, None] / n
    out = deviation * (1.0 / tl.sqrt(variance + eps)) * norm_weight[None, :]
    if HAS_NORM_BIAS:
        norm_bias = tl.load(norm_bias_ptr + columns * stride_norm_bias, mask=n_mask, other=0.0)
        out += norm_bias.to(tl.float32)[None, :]
    tl.store(out_ptr + offs, out.to(out_ptr.dtype.element_ty), mask=mask)
    if KEEP_SUM:
        tl.store(summed_ptr + offs, summed.to(summed_ptr.dtype.element_ty), mask=mask)


def split_norm_plan(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm: Norm,
    config: LinearConfig,
    keep_sum: bool,
) -> Plan:
    """The normed tensor and, where it is kept, the sum, both contiguous, and the two launches."""
    count = 2 if keep_sum else 1
    outputs = tuple(empty_output(x, weight) for _ in range(count))
    flat, flat_residual = as_rows(x), as_rows(residual)
    flat_out = outputs[0].view(flat_residual.shape)
    product = Product(flat, weight, flat_out, Epilogue(None, "none", None))
    partial, products = split_products(product, config)
    finished = _finish_norm_launch(flat_out, outputs[1:], partial, bias, flat_residual, norm)
    return Plan(outputs, (products, finished))


def _finish_norm_launch(
    out: torch.Tensor,
    kept: tuple[torch.Tensor, ...],
    partial: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm: Norm,
) -> Launch:
    """out (m, n) and the sum, where it is kept, from partial (splits, m, n) and residual (m, n)."""
    m, n = residual.shape
    block_n = next_power_of_2(n)
    block_m = min(max(1, _BLOCK_ELEMENTS // (2 * block_n)), next_power_of_2(m))
    return Launch(
        kernel=finish_norm_kernel,
        grid=(cdiv(m, block_m),),
        args={
            "partial_ptr": partial,
            # Absent tensors are stood in for: their pointers are never read or written.
            "bias_ptr": residual if bias is None else bias,
            "residual_ptr": residual,
            "out_ptr": out,
            "summed_ptr": kept[0] if kept else out,
            "m": m,
            "n": n,
            "stride_bias": 1 if bias is None else bias.stride(0),
            "stride_residual_m": residual.stride(0),
            "stride_residual_n": residual.stride(1),
            **norm.args(residual),
        },
        constants={
            "HAS_BIAS": bias is not None,
            "HAS_NORM_BIAS": norm.bias is not None,
            "RMS": norm.rms,
            "KEEP_SUM": bool(kept),
            "SPLIT_K": partial.shape[0],
            "BLOCK_M": block_m,
            "BLOCK_N": block_n,
            **({} if norm.limit is None else {"LIMIT": norm.limit}),
        },
        num_warps=min(max(block_m * block_n // 256, 1), 16),
    )
