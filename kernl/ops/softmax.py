"""Softmax over one dimension, of scores that may be scaled, masked and causal.

    s_j   = scale · x_j + mask_j               (-inf where a mask says no)
    out_j = exp(s_j - max s) / Σ_k exp(s_k - max s)

The maximum is taken first, so that no exponential overflows. A row that fits one program's
registers is read once. A wider one is read twice: the first walk keeps, for every lane, a running
maximum and the sum rescaled to it; the second walk writes. Where such rows are few, several
programs share each (`kernl.ops.softmax_split`).

Source: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018,
https://arxiv.org/abs/1805.02867.
"""

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl

from kernl import checks, launch
from kernl.errors import OptionError
from kernl.launch import Launch, Plan
from kernl.op import Case, Dims, Op, Spelling
from kernl.ops.odd_rows import cut_row, row_begin, row_edges, vector_of_rows
from kernl.ops.rows import SWEEP, as_rows, row_tile, row_tunable
from kernl.ops.softmax_scores import block_of_scores
from kernl.ops.softmax_split import split_launches
from kernl.shapes import ModelShape, Workload

MOST_MASKED_DIMS = 4
SOFTMAX_TUNABLE = row_tunable("softmax", split=True)
"""`variant` is 1 with a mask, 2 where causal, 3 with both."""


def softmax_reference(
    x: torch.Tensor,
    dim: int = -1,
    scale: float = 1.0,
    mask: torch.Tensor | None = None,
    causal: bool = False,
) -> torch.Tensor:
    """What a PyTorch user would write."""
    scores = x if scale == 1.0 else x * scale
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, float("-inf"))
    elif mask is not None:
        scores = scores + mask
    if causal:
        queries, keys = x.shape[-2:]
        seen = torch.ones(queries, keys, dtype=torch.bool, device=x.device)
        scores = scores.masked_fill(~seen.tril(keys - queries), float("-inf"))
    out = torch.softmax(scores, dim)
    if mask is None and not causal:
        return out
    return out.masked_fill((scores == float("-inf")).all(dim, keepdim=True), 0.0)


@triton.jit
def _softmax_tile_kernel(
    x_ptr,
    mask_ptr,
    out_ptr,
    rows,
    cols,
    heads,
    queries,
    stride_x_row,
    stride_x_col,
    stride_mask_batch,
    stride_mask_head,
    stride_mask_query,
    stride_mask_col,
    scale,
    MASK: tl.constexpr,
    CAUSAL: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    """(BLOCK_ROWS, BLOCK_COLS) covers BLOCK_ROWS whole rows."""
    row_offs = (tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)).to(tl.int64)
    col_offs = tl.arange(0, BLOCK_COLS)
    inside = (row_offs < rows)[:, None] & (col_offs < cols)[None, :]
    x_offs = row_offs[:, None] * stride_x_row + col_offs[None, :] * stride_x_col
    # fmt: off
    x = block_of_scores(
        x_ptr + x_offs, mask_ptr, row_offs, col_offs, inside, cols, heads, queries,
        stride_mask_batch, stride_mask_head, stride_mask_query, stride_mask_col, scale, MASK,
        CAUSAL,
    )
    # fmt: on
    row_max = tl.max(x, axis=1)
    if MASK != "none" or CAUSAL:
        # A row that sees nothing gives zeros; -inf - -inf would be NaN.
        row_max = tl.where(row_max == float("-inf"), 0.0, row_max)
    numerator = tl.exp(x - row_max[:, None])
    row_sum = tl.sum(numerator, axis=1)
    if MASK != "none" or CAUSAL:
        row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)
    out = numerator * (1.0 / row_sum)[:, None]
    out_ptrs = out_ptr + row_offs[:, None] * cols + col_offs[None, :]
    tl.store(out_ptrs, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _softmax_loop_kernel(
    x_ptr,
    mask_ptr,
    out_ptr,
    cols,
    heads,
    queries,
    stride_x_row,
    stride_x_col,
    stride_mask_batch,
    stride_mask_head,
    stride_mask_query,
    stride_mask_col,
    scale,
    MASK: tl.constexpr,
    CAUSAL: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """One program walks one row in blocks of BLOCK_COLS; VECTOR: see `kernl.ops.odd_rows`."""
    row_offs = (tl.program_id(0) + tl.arange(0, 1)).to(tl.int64)
    head, inner = cut_row(tl.program_id(0).to(tl.int64), stride_x_row, cols, VECTOR)
    x_row_offs = row_begin(row_offs, stride_x_row, VECTOR)[:, None]
    out_ptrs = out_ptr + row_begin(row_offs, cols, VECTOR)[:, None]
    block_offs = tl.arange(0, BLOCK_COLS)

    lane_max = tl.full((1, BLOCK_COLS), float("-inf"), tl.float32)
    lane_sum = tl.zeros((1, BLOCK_COLS), tl.float32)
    for start in range(0, inner, BLOCK_COLS):
        offs = start + block_offs
        # fmt: off
        x = block_of_scores(
            x_ptr + (x_row_offs + offs[None, :] * stride_x_col), mask_ptr, row_offs, head + offs,
            (offs < inner)[None, :], cols, heads, queries, stride_mask_batch, stride_mask_head,
            stride_mask_query, stride_mask_col, scale, MASK, CAUSAL,
        )
        # fmt: on
        new_max = tl.maximum(lane_max, x)
        # A lane that has seen only -inf has no maximum yet; -inf - -inf would be NaN.
        shift = tl.where(new_max == float("-inf"), 0.0, new_max)
        lane_sum = lane_sum * tl.exp(lane_max - shift) + tl.exp(x - shift)
        lane_max = new_max

    row_max = tl.max(lane_max, axis=1)
    if VECTOR > 1:
        edge_offs, edge_mask = row_edges(head, inner, cols, VECTOR)
        # fmt: off
        edge = block_of_scores(
            x_ptr + (x_row_offs + edge_offs[None, :]), mask_ptr, row_offs, head + edge_offs,
            edge_mask[None, :], cols, heads, queries, stride_mask_batch, stride_mask_head,
            stride_mask_query, stride_mask_col, scale, MASK, CAUSAL,
        )
        # fmt: on
        row_max = tl.maximum(row_max, tl.max(edge, axis=1))
    if MASK != "none" or CAUSAL:
        row_max = tl.where(row_max == float("-inf"), 0.0, row_max)
    row_sum = tl.sum(lane_sum * tl.exp(lane_max - row_max[:, None]), axis=1)
    if VECTOR > 1:
        row_sum += tl.sum(tl.exp(edge - row_max[:, None]), axis=1)
    if MASK != "none" or CAUSAL:
        row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)
    inverse_sum = (1.0 / row_sum)[:, None]

    for start in range(0, inner, BLOCK_COLS):
        offs = start + block_offs
        inside = (offs < inner)[None, :]
        # fmt: off
        x = block_of_scores(
            x_ptr + (x_row_offs + offs[None, :] * stride_x_col), mask_ptr, row_offs, head + offs,
            inside, cols, heads, queries, stride_mask_batch, stride_mask_head, stride_mask_query,
            stride_mask_col, scale, MASK, CAUSAL,
        )
        # fmt: on
        out = tl.exp(x - row_max[:, None]) * inverse_sum
        tl.store(out_ptrs + offs[None, :], out.to(out_ptr.dtype.element_ty), mask=inside)
    if VECTOR > 1:
        out = tl.exp(edge - row_max[:, None]) * inverse_sum
        edge_ptrs = out_ptrs + edge_offs[None, :]
        tl.store(edge_ptrs, out.to(out_ptr.dtype.element_ty), mask=edge_mask[None, :])


def softmax_plan(
    capability: int,
    x: torch.Tensor,
    dim: int = -1,
    scale: float = 1.0,
    mask: torch.Tensor | None = None,
    causal: bool = False,
) -> Plan:
    """The output, contiguous in the order of `x.movedim(dim, -1)`, and its launches."""
    moved = x.movedim(dim, -1)
    flat = as_rows(moved)
    out = torch.empty(moved.shape, dtype=x.dtype, device=x.device)
    if flat.shape[0] == 0:
        return Plan((out,), ())

    args = {
        "x_ptr": flat,
        "out_ptr": out,
        "cols": flat.shape[1],
        "stride_x_row": flat.stride(0),
        "stride_x_col": flat.stride(1),
        "scale": float(scale),
        **_mask_args(moved, mask),
    }
    kind = "none" if mask is None else "boolean" if mask.dtype == torch.bool else "additive"
    variant = (mask is not None) + 2 * causal
    tile = row_tile(SOFTMAX_TUNABLE, capability, flat, variant)
    constants: dict[str, Any] = {"MASK": kind, "CAUSAL": causal, "BLOCK_COLS": tile.block_cols}
    if tile.path == "split":
        return Plan((out,), split_launches(args, constants, tile, flat.shape))
    if tile.path == "loop":
        constants["VECTOR"] = vector_of_rows(flat)
        looped = Launch(_softmax_loop_kernel, (tile.programs,), args, constants, tile.num_warps)
        return Plan((out,), (looped,))
    args["rows"], constants["BLOCK_ROWS"] = flat.shape[0], tile.block_rows
    tiled = Launch(_softmax_tile_kernel, (tile.programs,), args, constants, tile.num_warps)
    return Plan((out,), (tiled,))


def _mask_args(x: torch.Tensor, mask: torch.Tensor | None) -> dict[str, Any]:
    """Sizes and strides of x (batch, heads, queries, cols) and of a mask broadcast to it."""
    lead = x.shape[:-1]
    heads = lead[-2] if len(lead) > 1 else 1
    queries = lead[-1] if lead else 1
    strides: tuple[int, ...] = (0, 0, 0, 0)
    if mask is not None:
        expanded = mask.expand(x.shape).stride()
        strides = (0,) * (MOST_MASKED_DIMS - len(expanded)) + expanded
    names = ("batch", "head", "query", "col")
    named = {f"stride_mask_{name}": stride for name, stride in zip(names, strides, strict=True)}
    return {"mask_ptr": x if mask is None else mask, "heads": heads, "queries": queries, **named}


@torch.library.custom_op("kernl::softmax", mutates_args=())
def _softmax(
    x: torch.Tensor, dim: int, scale: float, mask: torch.Tensor | None, causal: bool
) -> torch.Tensor:
    return softmax_plan(launch.capability(x.device), x, dim, scale, mask, causal).run()[0]


@_softmax.register_fake
def _softmax_fake(
    x: torch.Tensor, dim: int, scale: float, mask: torch.Tensor | None, causal: bool
) -> torch.Tensor:
    return torch.empty(x.movedim(dim, -1).shape, dtype=x.dtype, device=x.device)


def check_softmax(
    x: torch.Tensor,
    dim: int = -1,
    scale: float = 1.0,
    mask: torch.Tensor | None = None,
    causal: bool = False,
) -> None:
    """Raise a `kernl.errors.KernlError` where `softmax` does not take these arguments."""
    checks.tensors("softmax", _softmax_tile_kernel, x=x)
    checks.at_least("softmax", "x", x, 1)
    checks.index("softmax", "dim", dim, -x.dim(), x.dim() - 1)
    checks.positive("softmax", f"dimension {dim} of x", x.shape[dim])
    checks.number("softmax", "scale", scale)
    if mask is None and not causal:
        return
    if dim not in (-1, x.dim() - 1):
        raise OptionError(
            seen=f"softmax: dim={dim} with a mask or causal",
            allowed="the last dimension",
            action="move the dimension to the end",
        )
    if mask is not None:
        checks.typed("softmax", "mask", mask, x, (torch.bool, x.dtype, torch.float32))
        checks.at_most("softmax", "x, with a mask,", x, MOST_MASKED_DIMS)
        checks.broadcastable("softmax", "mask", mask, tuple(x.shape), "the shape of x")
    if causal:
        checks.at_least("softmax", "x, where causal,", x, 2)


def softmax(
    x: torch.Tensor,
    dim: int = -1,
    scale: float = 1.0,
    mask: torch.Tensor | None = None,
    causal: bool = False,
) -> torch.Tensor:
    """Softmax of `scale * x + mask` over dimension `dim`, accumulated in float32.

    Args:
        x: any shape and strides, fp16, bf16 or fp32. A batch of size 0 gives an empty result.
        dim: the dimension that sums to one; the last one with a mask or causal.
        scale: multiplies x, 0 or more.
        mask: broadcasts to the shape of x, of at most four dimensions, any strides; either bool,
            True where a score counts, or in the dtype of x or float32, added to the scores.
        causal: x is (…, queries, keys), and the last query sees all keys, the one before it all
            but the last, and so on.

    Returns:
        A tensor of the shape and dtype of `x`. A row that masks leave nothing of is all zeros.
        Without mask and causal, a row of only -inf gives NaN, as in PyTorch.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_softmax(x, dim, scale, mask, causal)
    return _softmax(x, dim, float(scale), mask, causal).movedim(-1, dim)


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    rows, seq = workload.batch * model.heads * workload.seq, workload.seq
    yield {"rows": rows, "cols": seq, "mask": "none", "causal": False}
    yield {"rows": workload.batch, "cols": model.vocabulary, "mask": "none", "causal": False}
    if workload.batch <= 8:
        mask = "none" if model.causal else "additive"
        yield {"rows": rows, "cols": seq, "mask": mask, "causal": model.causal}


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    rows, cols, causal = case["rows"], case["cols"], case["causal"]
    # Where causal: as many queries as keys, if the rows are whole squares of them.
    queries = cols if rows % cols == 0 else rows
    shape = (rows // queries, queries, cols) if causal else (rows, cols)
    x, mask, scale = (4 * random(*shape)).to(case.torch_dtype), None, 1.0
    if case["mask"] != "none":
        # An additive mask is one row for all, as padding is.
        additive = (4 * random(1, cols)).to(case.torch_dtype)
        mask = additive if case["mask"] == "additive" else random(*shape) > 0
        scale = 0.5
    return {"x": x, "scale": scale, "mask": mask, "causal": causal}


def _bytes(case: Case) -> int:
    rows, cols = case["rows"], case["cols"]
    mask = {"none": 0, "additive": cols * int(case.itemsize), "boolean": rows * cols}
    return 2 * rows * cols * int(case.itemsize) + mask[case["mask"]]


def _spelled_functional(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.softmax(x, dim=-1)


def _spelled_upcast(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.softmax(x, dim=-1, dtype=torch.float32).to(x.dtype)


SOFTMAX = Op(
    name="softmax",
    kernel=softmax,
    reference=softmax_reference,
    plan=softmax_plan,
    check=check_softmax,
    dims=_dims,
    inputs=_inputs,
    edges=tuple(
        {"rows": rows, "cols": cols, "mask": mask, "causal": causal}
        for rows, cols, mask, causal in (
            (1, 1, "none", False),
            (3, 7, "none", False),
            (5, 1021, "none", False),
            (129, 33, "none", False),
            (2, 4097, "none", False),
            (2, 16384, "none", False),
            (2, 16385, "none", False),
            (129, 32769, "none", False),
            (1, 33000, "none", False),
            (257, 1, "none", False),
            (37, 37, "additive", True),
            (7, 130, "boolean", False),
            (5, 67, "boolean", True),
            (2, 33000, "boolean", True),
        )
    ),
    sweep=tuple(
        {"rows": rows, "cols": cols, "mask": "none", "causal": False} for rows, cols in SWEEP
    ),
    bytes=_bytes,
    # Subtract, exponential, add, divide, and one comparison for the maximum.
    flops=lambda case: 5 * case["rows"] * case["cols"],
    tolerance={"fp32": 1e-6, "fp16": 5e-4, "bf16": 4e-3},
    spellings=(
        Spelling(_spelled_upcast, softmax, {"x": (2, 3, 8)}),
        Spelling(_spelled_functional, softmax, {"x": (2, 3, 8)}),
    ),
)
