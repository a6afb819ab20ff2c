"""Root mean square normalisation over the last dimension, with an optional residual added first.

    summed = x + residual                      (x itself where there is no residual)
    out    = summed / sqrt(mean(summed²) + eps) · (offset + weight) + bias

The mean is that of one row. `offset` is 0 in Llama and T5 and 1 in Gemma, whose weights are kept
as their distance from one. A sum of squares cannot cancel, so a row too wide for registers is
read twice and needs nothing cleverer.

Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019,
https://arxiv.org/abs/1910.07467.
"""

from collections.abc import Iterator
from typing import Any, overload

import torch
import triton
import triton.language as tl

from kernl import checks, launch
from kernl.launch import Launch, Plan
from kernl.op import Case, Dims, Op
from kernl.ops.dependent import prefetch_rows, wait_for_inputs
from kernl.ops.norm_rows import empty_outputs, load_sum, norm_args, store_scaled
from kernl.ops.norm_spellings import rms_norm_spellings
from kernl.ops.odd_rows import cut_row, row_begin, row_edges, vector_of_rows
from kernl.ops.rows import SWEEP, as_rows, row_tile, row_tunable
from kernl.shapes import ModelShape, Workload

# Wider rows, with a residual and a weight beside them, would not fit the registers.
RMS_NORM_TUNABLE = row_tunable("rms_norm", widest=16384)
"""`variant` is 1 with a residual."""


def rms_norm_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-6,
    offset: float = 0.0,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """What a PyTorch user would write."""
    summed = x if residual is None else x + residual
    wide = summed.to(torch.promote_types(x.dtype, torch.float32))
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    out = normed * (offset + weight)
    out = (out if bias is None else out + bias).to(x.dtype)
    return out if residual is None else (out, summed)


def rms_norm_library(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-6,
    offset: float = 0.0,
) -> torch.Tensor:
    """PyTorch's own function, for what it computes."""
    if bias is not None or residual is not None or offset != 0.0:
        raise NotImplementedError("torch.nn.functional.rms_norm has no residual, bias or offset")
    return torch.nn.functional.rms_norm(x, x.shape[-1:], weight, eps)


@triton.jit
def _rms_norm_tile_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    summed_ptr,
    rows,
    cols,
    stride_x_row,
    stride_x_col,
    stride_residual_row,
    stride_residual_col,
    stride_weight,
    stride_bias,
    eps,
    offset,
    HAS_RESIDUAL: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    PDL: tl.constexpr = False,
):
    """(BLOCK_ROWS, BLOCK_COLS) covers BLOCK_ROWS whole rows."""
    if stride_weight == 1 and tl.program_id(0) == 0:
        prefetch_rows(weight_ptr + tl.zeros((1,), tl.int32), 0, cols, PDL)
    wait_for_inputs(PDL)
    row_offs = (tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)).to(tl.int64)[:, None]
    col_offs = tl.arange(0, BLOCK_COLS)
    col_mask = col_offs < cols
    mask = (row_offs < rows) & col_mask[None, :]
    out_offs = row_offs * cols + col_offs[None, :]

    x_ptrs = x_ptr + row_offs * stride_x_row + col_offs[None, :] * stride_x_col
    x = tl.load(x_ptrs, mask=mask, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        residual_offs = row_offs * stride_residual_row + col_offs[None, :] * stride_residual_col
        x += tl.load(residual_ptr + residual_offs, mask=mask, other=0.0).to(tl.float32)
        tl.store(summed_ptr + out_offs, x.to(summed_ptr.dtype.element_ty), mask=mask)
    # Asked for before the sum, so that they arrive while it is being made.
    weight = tl.load(weight_ptr + col_offs * stride_weight, mask=col_mask).to(tl.float32) + offset
    if HAS_BIAS:
        bias = tl.load(bias_ptr + col_offs * stride_bias, mask=col_mask).to(tl.float32)

    mean_square = tl.sum(x * x, axis=1)[:, None] / cols
    out = x * (1.0 / tl.sqrt(mean_square + eps)) * weight[None, :]
    if HAS_BIAS:
        out += bias[None, :]
    tl.store(out_ptr + out_offs, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _rms_norm_loop_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    summed_ptr,
    cols,
    stride_x_row,
    stride_x_col,
    stride_residual_row,
    stride_residual_col,
    stride_weight,
    stride_bias,
    eps,
    offset,
    HAS_RESIDUAL: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """One program walks one row in blocks of BLOCK_COLS; VECTOR: see `kernl.ops.odd_rows`."""
    row = tl.program_id(0).to(tl.int64)
    head, inner = cut_row(row, stride_x_row, cols, VECTOR)
    x_ptr += row_begin(row, stride_x_row, VECTOR)
    residual_ptr += row_begin(row, stride_residual_row, VECTOR)
    out_ptr += row_begin(row, cols, VECTOR)
    summed_ptr += row_begin(row, cols, VECTOR)
    weight_ptr += head * stride_weight
    bias_ptr += head * stride_bias
    block_offs = tl.arange(0, BLOCK_COLS)

    lane_squares = tl.zeros((BLOCK_COLS,), tl.float32)
    for start in range(0, inner, BLOCK_COLS):
        offs = start + block_offs
        mask = offs < inner
        x = load_sum(
            x_ptr, residual_ptr, offs, mask, stride_x_col, stride_residual_col, HAS_RESIDUAL
        )
        if HAS_RESIDUAL:
            tl.store(summed_ptr + offs, x.to(summed_ptr.dtype.element_ty), mask=mask)
        lane_squares += x * x
    squares = tl.sum(lane_squares, axis=0)
    if VECTOR > 1:
        edge_offs, edge_mask = row_edges(head, inner, cols, VECTOR)
        edge = load_sum(x_ptr, residual_ptr, edge_offs, edge_mask, 1, 1, HAS_RESIDUAL)
        if HAS_RESIDUAL:
            tl.store(summed_ptr + edge_offs, edge.to(summed_ptr.dtype.element_ty), mask=edge_mask)
        squares += tl.sum(edge * edge, axis=0)
    inverse = 1.0 / tl.sqrt(squares / cols + eps)

    # fmt: off
    for start in range(0, inner, BLOCK_COLS):
        offs = start + block_offs
        mask = offs < inner
        x = load_sum(
            x_ptr, residual_ptr, offs, mask, stride_x_col, stride_residual_col, HAS_RESIDUAL
        )
        store_scaled(
            x * inverse, weight_ptr, bias_ptr, out_ptr, offs, mask, stride_weight,
            stride_bias, HAS_BIAS, offset,
        )
    if VECTOR > 1:
        store_scaled(
            edge * inverse, weight_ptr, bias_ptr, out_ptr, edge_offs, edge_mask, stride_weight,
            stride_bias, HAS_BIAS, offset,
        )
    # fmt: on


def rms_norm_plan(
    capability: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-6,
    offset: float = 0.0,
) -> Plan:
    """`out` and, with a residual, `summed`, both contiguous, and the one launch that fills them."""
    outputs = empty_outputs(x, residual)
    flat = as_rows(x)
    if flat.shape[0] == 0:
        return Plan(outputs, ())

    args = norm_args(flat, residual, weight, bias, outputs, eps) | {"offset": float(offset)}
    tile = row_tile(RMS_NORM_TUNABLE, capability, flat, variant=int(residual is not None))
    constants = {
        "HAS_RESIDUAL": residual is not None,
        "HAS_BIAS": bias is not None,
        "BLOCK_COLS": tile.block_cols,
    }
    if tile.path == "loop":
        constants["VECTOR"] = vector_of_rows(flat, args["residual_ptr"])
        looped = Launch(_rms_norm_loop_kernel, (tile.programs,), args, constants, tile.num_warps)
        return Plan(outputs, (looped,))
    tiled = Launch(
        kernel=_rms_norm_tile_kernel,
        grid=(tile.programs,),
        args={**args, "rows": flat.shape[0]},
        constants={**constants, "BLOCK_ROWS": tile.block_rows},
        num_warps=tile.num_warps,
    )
    return Plan(outputs, (tiled,))


@torch.library.custom_op("kernl::rms_norm", mutates_args=())
def _rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    eps: float,
    offset: float,
) -> list[torch.Tensor]:
    plan = rms_norm_plan(launch.capability(x.device), x, weight, bias, residual, eps, offset)
    return list(plan.run())


@_rms_norm.register_fake
def _rms_norm_fake(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    eps: float,
    offset: float,
) -> list[torch.Tensor]:
    return list(empty_outputs(x, residual))


def check_rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-6,
    offset: float = 0.0,
) -> None:
    """Raise a `kernl.errors.KernlError` where `rms_norm` does not take these arguments."""
    checks.tensors("rms_norm", _rms_norm_tile_kernel, x=x, weight=weight)
    checks.tensors("rms_norm", _rms_norm_tile_kernel, x=x, bias=bias, residual=residual)
    checks.at_least("rms_norm", "x", x, 1)
    checks.positive("rms_norm", "the last dimension of x", x.shape[-1])
    checks.shape("rms_norm", "weight", weight, (x.shape[-1],), "the last dimension of x")
    if bias is not None:
        checks.shape("rms_norm", "bias", bias, (x.shape[-1],), "the last dimension of x")
    if residual is not None:
        checks.shape("rms_norm", "residual", residual, tuple(x.shape), "the shape of x")
    checks.number("rms_norm", "eps", eps)
    checks.number("rms_norm", "offset", offset)


@overload
def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: None = None,
    eps: float = 1e-6,
    offset: float = 0.0,
) -> torch.Tensor: ...


@overload
def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    residual: torch.Tensor,
    eps: float = 1e-6,
    offset: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]: ...


def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-6,
    offset: float = 0.0,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """RMS norm of `x`, or of `x + residual`, over the last dimension, computed in float32.

    Args:
        x: (…, cols), any strides, fp16, bf16 or fp32. A batch of size 0 gives an empty result.
        weight: (cols,), any stride.
        bias: (cols,) or None.
        residual: of the shape of `x`, any strides, or None.
        eps: added to the mean of squares, 0 or more.
        offset: added to the weight, 0 or more: 1 for Gemma.

    Returns:
        The normed tensor, contiguous, in the dtype of `x`; with a residual the pair of it and of
        `x + residual`.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_rms_norm(x, weight, bias, residual, eps, offset)
    outputs = _rms_norm(x, weight, bias, residual, eps, offset)
    return outputs[0] if residual is None else (outputs[0], outputs[1])


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    if model.norm == "rms":
        for residual in (False, True):
            yield {
                "rows": workload.tokens,
                "cols": model.hidden,
                "bias": False,
                "residual": residual,
            }


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    rows, cols, dtype = case["rows"], case["cols"], case.torch_dtype
    return {
        # Rows of unlike size: each needs its own mean.
        "x": (random(rows, cols) * (1 + random(rows, 1).abs())).to(dtype),
        "weight": random(cols).to(dtype),
        "bias": random(cols).to(dtype) if case["bias"] else None,
        "residual": random(rows, cols).to(dtype) if case["residual"] else None,
    }


def _bytes(case: Case) -> int:
    rows, cols = case["rows"], case["cols"]
    tensors = 4 if case["residual"] else 2
    vectors = 2 if case["bias"] else 1
    return (tensors * rows + vectors) * cols * int(case.itemsize)


RMS_NORM = Op(
    name="rms_norm",
    kernel=rms_norm,
    reference=rms_norm_reference,
    plan=rms_norm_plan,
    check=check_rms_norm,
    dims=_dims,
    inputs=_inputs,
    edges=tuple(
        {"rows": rows, "cols": cols, "bias": bias, "residual": residual}
        for rows, cols, bias, residual in (
            (1, 1, False, False),
            (3, 7, True, True),
            (5, 1021, False, False),
            (129, 33, False, True),
            (2, 16385, False, True),
            (1, 33000, True, True),
            (1, 131072, False, False),
            (257, 2, True, False),
        )
    ),
    sweep=tuple(
        {"rows": rows, "cols": cols, "bias": False, "residual": False} for rows, cols in SWEEP
    ),
    bytes=_bytes,
    # Square, add, multiply twice, and the addition of the residual or the bias.
    flops=lambda case: 4 * case["rows"] * case["cols"],
    tolerance={"fp32": 1e-6, "fp16": 5e-4, "bf16": 4e-3},
    spellings=rms_norm_spellings(rms_norm),
    library=rms_norm_library,
)
