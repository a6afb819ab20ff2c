"""`softmax` of few wide rows, as the logits of a vocabulary: several programs share a row.

The first launch leaves, for each block of a row, its maximum and its sum of exponentials relative
to that. The second one merges what all blocks of its row left, and writes its own block:

    max s = max_b max_b            Σ = Σ_b sum_b · exp(max_b - max s)

Source: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018,
https://arxiv.org/abs/1805.02867, section 3.1.
"""

from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl

from kernl.launch import Launch, cdiv, next_power_of_2
from kernl.ops.rows import RowTile
from kernl.ops.softmax_scores import block_of_scores


@triton.jit
def _softmax_partial_kernel(
    x_ptr,
    mask_ptr,
    partial_ptr,
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
):
    """Program (row, block): partial (rows, blocks, 2) gets the block's maximum and its sum."""
    row_offs = (tl.program_id(0) + tl.arange(0, 1)).to(tl.int64)
    block = tl.program_id(1)
    col_offs = block * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    x_offs = row_offs[:, None] * stride_x_row + col_offs[None, :] * stride_x_col
    # fmt: off
    x = block_of_scores(
        x_ptr + x_offs, mask_ptr, row_offs, col_offs, (col_offs < cols)[None, :], cols, heads,
        queries, stride_mask_batch, stride_mask_head, stride_mask_query, stride_mask_col, scale,
        MASK, CAUSAL,
    )
    # fmt: on
    block_max = tl.max(x, axis=1)
    # A block that sees nothing sums to 0; -inf - -inf would be NaN.
    shift = tl.where(block_max == float("-inf"), 0.0, block_max)
    block_sum = tl.sum(tl.exp(x - shift[:, None]), axis=1)
    partial_ptrs = partial_ptr + (row_offs * tl.num_programs(1) + block) * 2
    tl.store(partial_ptrs, block_max)
    tl.store(partial_ptrs + 1, block_sum)


@triton.jit
def _softmax_spread_kernel(
    x_ptr,
    mask_ptr,
    partial_ptr,
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
    BLOCKS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    """Program (row, block): one block of out (rows, cols), by what all blocks of the row left."""
    row_offs = (tl.program_id(0) + tl.arange(0, 1)).to(tl.int64)
    block, blocks = tl.program_id(1), tl.num_programs(1)
    block_offs = tl.arange(0, BLOCKS)[None, :]
    partial_ptrs = partial_ptr + (row_offs[:, None] * blocks + block_offs) * 2
    block_max = tl.load(partial_ptrs, mask=block_offs < blocks, other=float("-inf"))
    block_sum = tl.load(partial_ptrs + 1, mask=block_offs < blocks, other=0.0)
    row_max = tl.max(block_max, axis=1)
    if MASK != "none" or CAUSAL:
        # A row that sees nothing gives zeros.
        row_max = tl.where(row_max == float("-inf"), 0.0, row_max)
    row_sum = tl.sum(block_sum * tl.exp(block_max - row_max[:, None]), axis=1)
    if MASK != "none" or CAUSAL:
        row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)

    col_offs = block * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    inside = (col_offs < cols)[None, :]
    x_offs = row_offs[:, None] * stride_x_row + col_offs[None, :] * stride_x_col
    # fmt: off
    x = block_of_scores(
        x_ptr + x_offs, mask_ptr, row_offs, col_offs, inside, cols, heads, queries,
        stride_mask_batch, stride_mask_head, stride_mask_query, stride_mask_col, scale, MASK,
        CAUSAL,
    )
    # fmt: on
    out = tl.exp(x - row_max[:, None]) * (1.0 / row_sum)[:, None]
    out_ptrs = out_ptr + row_offs[:, None] * cols + col_offs[None, :]
    tl.store(out_ptrs, out.to(out_ptr.dtype.element_ty), mask=inside)


def split_launches(
    args: Mapping[str, Any], constants: Mapping[str, Any], tile: RowTile, shape: tuple[int, ...]
) -> tuple[Launch, ...]:
    """Both launches for x of `shape` (rows, cols); `args` are those of the other paths."""
    rows, cols = shape
    blocks = cdiv(cols, tile.block_cols)
    out = args["out_ptr"]
    partial = out.new_empty((rows, blocks, 2), dtype=torch.float32)
    shared = {**args, "partial_ptr": partial}
    read = {name: value for name, value in shared.items() if name != "out_ptr"}
    return (
        Launch(_softmax_partial_kernel, (rows, blocks), read, constants, tile.num_warps),
        Launch(
            _softmax_spread_kernel,
            (rows, blocks),
            shared,
            {**constants, "BLOCKS": next_power_of_2(blocks)},
            tile.num_warps,
        ),
    )
