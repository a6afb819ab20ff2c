"""Layer normalisation over the last dimension, with an optional residual added first.

    summed = x + residual                      (x itself where there is no residual)
    out    = (summed - mean) / sqrt(var + eps) · weight + bias

mean and var are those of one row of `summed`; var is the biased one (divided by cols).

A row that fits one program's registers is read once; its variance is taken around its mean, so
nothing cancels. A wider row is read twice: the first walk keeps Welford's running mean and sum of
squared deviations for every lane and merges the lanes at its end; the second walk writes.

Sources: Ba, Kiros and Hinton, "Layer Normalization", 2016, https://arxiv.org/abs/1607.06450;
Welford, "Note on a method for calculating corrected sums of squares and products", 1962.
"""

from collections.abc import Iterator
from typing import Any, overload

import torch
import triton
import triton.language as tl

from kernl import checks, launch
from kernl.launch import Launch, Plan
from kernl.op import Case, Dims, Op
from kernl.ops.activation import clamped
from kernl.ops.dependent import prefetch_rows, wait_for_inputs
from kernl.ops.norm_rows import empty_outputs, load_sum, norm_args, store_scaled
from kernl.ops.norm_spellings import layer_norm_spellings
from kernl.ops.odd_rows import cut_row, row_begin, row_edges, vector_of_rows
from kernl.ops.rows import SWEEP, as_rows, row_tile, row_tunable
from kernl.shapes import ModelShape, Workload

# Wider rows, with a residual and a weight beside them, would not fit the registers.
LAYER_NORM_TUNABLE = row_tunable("layer_norm", widest=16384)
"""`variant` is 1 with a residual."""


def layer_norm_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """What a PyTorch user would write."""
    summed = x if residual is None else x + residual
    out = torch.nn.functional.layer_norm(summed, x.shape[-1:], weight, bias, eps)
    return out if residual is None else (out, summed)


@triton.jit
def _layer_norm_tile_kernel(
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
    HAS_RESIDUAL: tl.constexpr,
    KEEP_SUM: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    LIMIT: tl.constexpr = None,
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
    if LIMIT is not None:
        x = clamped(x, LIMIT)
    if KEEP_SUM:
        tl.store(summed_ptr + out_offs, x.to(summed_ptr.dtype.element_ty), mask=mask)

    # Asked for before the sums, so that they arrive while those are being made.
    weight = tl.load(weight_ptr + col_offs * stride_weight, mask=col_mask).to(tl.float32)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + col_offs * stride_bias, mask=col_mask).to(tl.float32)

    mean = tl.sum(x, axis=1)[:, None] / cols
    deviation = tl.where(col_mask[None, :], x - mean, 0.0)
    variance = tl.sum(deviation * deviation, axis=1)[:, None] / cols

    out = deviation * (1.0 / tl.sqrt(variance + eps)) * weight[None, :]
    if HAS_BIAS:
        out += bias[None, :]
    tl.store(out_ptr + out_offs, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _layer_norm_loop_kernel(
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
    HAS_RESIDUAL: tl.constexpr,
    KEEP_SUM: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    VECTOR: tl.constexpr,
    LIMIT: tl.constexpr = None,
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

    lane_mean = tl.zeros((BLOCK_COLS,), tl.float32)
    lane_m2 = tl.zeros((BLOCK_COLS,), tl.float32)
    for start in range(0, inner, BLOCK_COLS):
        offs = start + block_offs
        mask = offs < inner
        x = load_sum(
            x_ptr, residual_ptr, offs, mask, stride_x_col, stride_residual_col, HAS_RESIDUAL, LIMIT
        )
        if KEEP_SUM:
            tl.store(summed_ptr + offs, x.to(summed_ptr.dtype.element_ty), mask=mask)
        # Welford's update, in the lanes that have an element in this block.
        delta = tl.where(mask, x - lane_mean, 0.0)
        lane_mean += delta * (1.0 / (start // BLOCK_COLS + 1))
        lane_m2 += delta * tl.where(mask, x - lane_mean, 0.0)

    lane_count = inner // BLOCK_COLS + tl.where(block_offs < inner % BLOCK_COLS, 1.0, 0.0)
    total = tl.sum(lane_mean * lane_count, axis=0)
    if VECTOR > 1:
        edge_offs, edge_mask = row_edges(head, inner, cols, VECTOR)
        edge = load_sum(x_ptr, residual_ptr, edge_offs, edge_mask, 1, 1, HAS_RESIDUAL, LIMIT)
        if KEEP_SUM:
            tl.store(summed_ptr + edge_offs, edge.to(summed_ptr.dtype.element_ty), mask=edge_mask)
        total += tl.sum(edge, axis=0)
    mean = total / cols
    between = (lane_mean - mean) * (lane_mean - mean) * lane_count
    m2 = tl.sum(lane_m2 + between, axis=0)
    if VECTOR > 1:
        m2 += tl.sum(tl.where(edge_mask, (edge - mean) * (edge - mean), 0.0), axis=0)
    inverse_std = 1.0 / tl.sqrt(m2 / cols + eps)

    # fmt: off
    for start in range(0, inner, BLOCK_COLS):
        offs = start + block_offs
        mask = offs < inner
        x = load_sum(
            x_ptr, residual_ptr, offs, mask, stride_x_col, stride_residual_col, HAS_RESIDUAL, LIMIT
        )
        store_scaled(
            (x - mean) * inverse_std, weight_ptr, bias_ptr, out_ptr, offs, mask, stride_weight,
            stride_bias, HAS_BIAS,
        )
    if VECTOR > 1:
        store_scaled(
            (edge - mean) * inverse_std, weight_ptr, bias_ptr, out_ptr, edge_offs, edge_mask,
            stride_weight, stride_bias, HAS_BIAS,
        )
    # fmt: on


def layer_norm_plan(
    capability: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-5,
    keep_sum: bool = True,
    limit: float | None = None,
) -> Plan:
    """`out` and, with a residual, `summed`, both contiguous, and the one launch that fills them.

    Without `keep_sum` there is no `summed`. `limit`: what it is clamped to before it is normed.
    """
    outputs = empty_outputs(x, residual if keep_sum else None)
    flat = as_rows(x)
    rows = flat.shape[0]
    if rows == 0:
        return Plan(outputs, ())

    args = norm_args(flat, residual, weight, bias, outputs, eps)
    tile = row_tile(LAYER_NORM_TUNABLE, capability, flat, variant=int(residual is not None))
    constants = {
        "HAS_RESIDUAL": residual is not None,
        "KEEP_SUM": residual is not None and keep_sum,
        "HAS_BIAS": bias is not None,
        "BLOCK_COLS": tile.block_cols,
        **({} if limit is None else {"LIMIT": limit}),
    }
    if tile.path == "loop":
        constants["VECTOR"] = vector_of_rows(flat, args["residual_ptr"])
        looped = Launch(_layer_norm_loop_kernel, (rows,), args, constants, tile.num_warps)
        return Plan(outputs, (looped,))
    tiled = Launch(
        kernel=_layer_norm_tile_kernel,
        grid=(tile.programs,),
        args={**args, "rows": rows},
        constants={**constants, "BLOCK_ROWS": tile.block_rows},
        num_warps=tile.num_warps,
    )
    return Plan(outputs, (tiled,))


@torch.library.custom_op("kernl::layer_norm", mutates_args=())
def _layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    eps: float,
) -> list[torch.Tensor]:
    plan = layer_norm_plan(launch.capability(x.device), x, weight, bias, residual, eps)
    return list(plan.run())


@_layer_norm.register_fake
def _layer_norm_fake(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    eps: float,
) -> list[torch.Tensor]:
    return list(empty_outputs(x, residual))


def check_layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> None:
    """Raise a `kernl.errors.KernlError` where `layer_norm` does not take these arguments."""
    kernel = _layer_norm_tile_kernel
    checks.tensors("layer_norm", kernel, x=x, weight=weight)
    checks.tensors("layer_norm", kernel, x=x, bias=bias, residual=residual)
    checks.at_least("layer_norm", "x", x, 1)
    checks.positive("layer_norm", "the last dimension of x", x.shape[-1])
    checks.shape("layer_norm", "weight", weight, (x.shape[-1],), "the last dimension of x")
    if bias is not None:
        checks.shape("layer_norm", "bias", bias, (x.shape[-1],), "the last dimension of x")
    if residual is not None:
        checks.shape("layer_norm", "residual", residual, tuple(x.shape), "the shape of x")
    checks.number("layer_norm", "eps", eps)


@overload
def layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: None = None,
    eps: float = 1e-5,
) -> torch.Tensor: ...


@overload
def layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    residual: torch.Tensor,
    eps: float = 1e-5,
) -> tuple[torch.Tensor, torch.Tensor]: ...


def layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Layer normalisation of `x`, or of `x + residual`, over the last dimension.

    Args:
        x: (…, cols), any strides, fp16, bf16 or fp32. A batch of size 0 gives an empty result.
        weight: (cols,), the scale.
        bias: (cols,), the shift, or None.
        residual: the shape of `x`, added to it first, or None.
        eps: added to the variance, 0 or more.

    Returns:
        `out`, contiguous, of the shape and dtype of `x`; with a residual `(out, summed)`, where
        `summed` is `x + residual`, as pre-norm layers need it. Sums are taken in float32, and
        `out` is computed from the sum before it is rounded to the dtype of `x`.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_layer_norm(x, weight, bias, residual, eps)
    outputs = _layer_norm(x, weight, bias, residual, float(eps))
    return outputs[0] if residual is None else (outputs[0], outputs[1])


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    if model.norm != "layer":
        return
    for residual in (False, True):
        yield {"rows": workload.tokens, "cols": model.hidden, "bias": True, "residual": residual}


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    rows, cols, dtype = case["rows"], case["cols"], case.torch_dtype
    # A mean far from zero in every row: a variance taken as E[x²] - E[x]² would lose its digits.
    x = random(rows, cols) + 4 * random(rows, 1)
    return {
        "x": x.to(dtype),
        "weight": random(cols).to(dtype),
        "bias": random(cols).to(dtype) if case["bias"] else None,
        "residual": random(rows, cols).to(dtype) if case["residual"] else None,
    }


def _bytes(case: Case) -> int:
    tensors = 4 if case["residual"] else 2
    vectors = 2 if case["bias"] else 1
    return (tensors * case["rows"] + vectors) * case["cols"] * int(case.itemsize)


LAYER_NORM = Op(
    name="layer_norm",
    kernel=layer_norm,
    reference=layer_norm_reference,
    plan=layer_norm_plan,
    check=check_layer_norm,
    dims=_dims,
    inputs=_inputs,
    edges=tuple(
        {"rows": rows, "cols": cols, "bias": bias, "residual": residual}
        for rows, cols, bias, residual in (
            (1, 1, True, False),
            (3, 7, True, True),
            (5, 1021, False, False),
            (129, 33, False, True),
            (2, 4097, True, True),
            (2, 16384, True, False),
            (2, 16385, True, True),
            (1, 33000, True, True),
            (1, 20011, False, False),
            (257, 2, True, False),
        )
    ),
    sweep=tuple(
        {"rows": rows, "cols": cols, "bias": True, "residual": False} for rows, cols in SWEEP
    ),
    bytes=_bytes,
    # Two sums, a subtraction, a square, a product, a scale and a shift for each element.
    flops=lambda case: (8 if case["residual"] else 7) * case["rows"] * case["cols"],
    tolerance={"fp32": 2e-6, "fp16": 5e-4, "bf16": 4e-3},
    spellings=layer_norm_spellings(layer_norm),
)
