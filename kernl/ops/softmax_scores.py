"""The scores that `softmax` normalises: scaled, masked and causal."""

import triton
import triton.language as tl


@triton.jit
def block_of_scores(
    x_ptrs,
    mask_ptr,
    row_offs,
    col_offs,
    inside,
    cols,
    heads,
    queries,
    stride_mask_batch,
    stride_mask_head,
    stride_mask_query,
    stride_mask_col,
    scale,
    MASK: tl.constexpr,
    CAUSAL: tl.constexpr,
):
    """A block of scores (rows, cols) in float32, -inf outside of the row and where masked."""
    x = tl.load(x_ptrs, mask=inside, other=float("-inf")).to(tl.float32) * scale
    # A row of x (batch, head, query, :) by its number.
    query = row_offs % queries
    if MASK != "none":
        head, batch = (row_offs // queries) % heads, row_offs // queries // heads
        mask_rows = batch * stride_mask_batch + head * stride_mask_head + query * stride_mask_query
        mask_ptrs = mask_ptr + mask_rows[:, None] + col_offs[None, :] * stride_mask_col
        mask = tl.load(mask_ptrs, mask=inside, other=0)
        if MASK == "boolean":
            x = tl.where(mask != 0, x, float("-inf"))
        else:
            x = tl.where(inside, x + mask.to(tl.float32), float("-inf"))
    if CAUSAL:
        last = query + cols - queries
        x = tl.where(col_offs[None, :] <= last[:, None], x, float("-inf"))
    return x
