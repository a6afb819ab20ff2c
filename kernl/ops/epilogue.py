"""What follows a matrix product before it is stored: bias, activation, residual, limit.

out = clamp(activation(products + bias) + residual, -limit, limit)
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from kernl.launch import Launch, cdiv
from kernl.ops.activation import activate, clamped
from kernl.ops.dependent import wait_for_inputs


class Epilogue(NamedTuple):
    """bias (n,), an activation's name, residual (m, n), a limit; None where there is none."""

    bias: torch.Tensor | None
    activation: str
    residual: torch.Tensor | None
    limit: float | None = None

    def args(self, stand_in: torch.Tensor) -> dict[str, Any]:
        """Run-time arguments of `finish`. What is absent is stood in for, and never read."""
        residual = self.residual
        return {
            "bias_ptr": stand_in if self.bias is None else self.bias,
            "residual_ptr": stand_in if residual is None else residual,
            "stride_bias": 1 if self.bias is None else self.bias.stride(0),
            "stride_residual_m": 1 if residual is None else residual.stride(0),
            "stride_residual_n": 1 if residual is None else residual.stride(1),
        }

    @property
    def constants(self) -> dict[str, Any]:
        """Compile-time arguments of `finish`."""
        return {
            "ACTIVATION": self.activation,
            "HAS_BIAS": self.bias is not None,
            "HAS_RESIDUAL": self.residual is not None,
            **({} if self.limit is None else {"LIMIT": self.limit}),
        }

    @property
    def added_by_library(self) -> torch.Tensor | None:
        """What cuBLAS adds to the product by itself: the bias, else a residual alone."""
        if self.bias is not None:
            return self.bias
        return self.residual if self.activation == "none" else None

    @property
    def left_by_library(self) -> "Epilogue | None":
        """What another pass must do after cuBLAS; None where nothing is left."""
        residual = None if self.residual is self.added_by_library else self.residual
        if self.activation == "none" and residual is None and self.limit is None:
            return None
        return Epilogue(None, self.activation, residual, self.limit)


@triton.jit
def finish(
    acc,
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
    ACTIVATION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    LIMIT: tl.constexpr = None,
):
    """Bias, activation, residual and limit on a float32 block of products, and the store."""
    n_mask = n_offs < n
    out_mask = (m_offs < m)[:, None] & n_mask[None, :]
    rows = m_offs.to(tl.int64)[:, None]
    if HAS_BIAS:
        bias = tl.load(bias_ptr + n_offs.to(tl.int64) * stride_bias, mask=n_mask, other=0.0)
        acc += bias.to(tl.float32)[None, :]
    acc = activate(acc, ACTIVATION)
    if HAS_RESIDUAL:
        residual_offs = rows * stride_residual_m + n_offs[None, :] * stride_residual_n
        acc += tl.load(residual_ptr + residual_offs, mask=out_mask, other=0.0).to(tl.float32)
    if LIMIT is not None:
        acc = clamped(acc, LIMIT)
    out_ptrs = out_ptr + rows * n + n_offs[None, :]
    tl.store(out_ptrs, acc.to(out_ptr.dtype.element_ty), mask=out_mask)


@triton.jit
def _finish_kernel(
    partial_ptr,
    bias_ptr,
    residual_ptr,
    out_ptr,
    m,
    n,
    stride_bias,
    stride_residual_m,
    stride_residual_n,
    ACTIVATION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    SPLIT_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    LIMIT: tl.constexpr = None,
    PDL: tl.constexpr = False,
):
    """Add up what SPLIT_K programs left in partial (SPLIT_K, m, n), always in the same order."""
    wait_for_inputs(PDL)
    m_offs = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n_offs = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = (m_offs < m)[:, None] & (n_offs < n)[None, :]
    offs = m_offs.to(tl.int64)[:, None] * n + n_offs[None, :]
    size = tl.cast(m, tl.int64) * n
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for split in tl.static_range(SPLIT_K):
        acc += tl.load(partial_ptr + split * size + offs, mask=mask, other=0.0).to(tl.float32)
    finish(
        acc,
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


def finish_launch(out: torch.Tensor, partial: torch.Tensor, epilogue: Epilogue) -> Launch:
    """A pass of its own: out (m, n) from the sum of partial (splits, m, n), which may be out."""
    m, n = out.shape
    block_m, block_n = (1, 512) if m < 16 else (8, 128)
    return Launch(
        kernel=_finish_kernel,
        grid=(cdiv(m, block_m), cdiv(n, block_n)),
        args={
            "partial_ptr": partial,
            **epilogue.args(out),
            "out_ptr": out,
            "m": m,
            "n": n,
        },
        constants={
            **epilogue.constants,
            "SPLIT_K": partial.numel() // out.numel(),
            "BLOCK_M": block_m,
            "BLOCK_N": block_n,
        },
        num_warps=4,
    )
