"""What `layer_norm` and `rms_norm` share: outputs, arguments, reading and writing a part."""

from typing import Any

import torch
import triton
import triton.language as tl

from kernl.ops.activation import clamped
from kernl.ops.rows import as_rows


def empty_outputs(x: torch.Tensor, residual: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    """`out` and, with a residual, `summed`: contiguous, of the shape and dtype of `x`."""
    count = 1 if residual is None else 2
    return tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(count))


def norm_args(
    x: torch.Tensor,
    residual: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    outputs: tuple[torch.Tensor, ...],
    eps: float,
) -> dict[str, Any]:
    """The arguments by name of every kernel of both, for rows x (rows, cols).

    Absent tensors are stood in for by x: their pointers are never read.
    """
    flat_residual = x if residual is None else as_rows(residual)
    return {
        "x_ptr": x,
        "residual_ptr": flat_residual,
        "weight_ptr": weight,
        "bias_ptr": x if bias is None else bias,
        "out_ptr": outputs[0],
        "summed_ptr": outputs[-1],
        "cols": x.shape[1],
        "stride_x_row": x.stride(0),
        "stride_x_col": x.stride(1),
        "stride_residual_row": flat_residual.stride(0),
        "stride_residual_col": flat_residual.stride(1),
        "stride_weight": weight.stride(0),
        "stride_bias": 1 if bias is None else bias.stride(0),
        "eps": float(eps),
    }


@triton.jit
def load_sum(
    x_ptr,
    residual_ptr,
    offs,
    mask,
    stride_x_col,
    stride_residual_col,
    HAS_RESIDUAL: tl.constexpr,
    LIMIT: tl.constexpr = None,
):
    """Part of a row of x, or of x + residual, in float32, within ±LIMIT; 0 where not `mask`."""
    x = tl.load(x_ptr + offs * stride_x_col, mask=mask, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        residual_ptrs = residual_ptr + offs * stride_residual_col
        x += tl.load(residual_ptrs, mask=mask, other=0.0).to(tl.float32)
    if LIMIT is not None:
        x = clamped(x, LIMIT)
    return x


@triton.jit
def store_scaled(
    normed,
    weight_ptr,
    bias_ptr,
    out_ptr,
    offs,
    mask,
    stride_weight,
    stride_bias,
    HAS_BIAS: tl.constexpr,
    offset=None,
):
    """Part of a row of out = normed · (offset + weight) + bias, where `mask`."""
    weight = tl.load(weight_ptr + offs * stride_weight, mask=mask).to(tl.float32)
    if offset is not None:
        weight += offset
    out = normed * weight
    if HAS_BIAS:
        out += tl.load(bias_ptr + offs * stride_bias, mask=mask).to(tl.float32)
    tl.store(out_ptr + offs, out.to(out_ptr.dtype.element_ty), mask=mask)
