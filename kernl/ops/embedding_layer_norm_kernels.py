"""The kernel of `embedding_layer_norm`: one program gathers, adds and norms one or a few tokens.

Where positions count the tokens that are no padding, it looks at all ids of the token's sequence up
to its own: from L2, and while the rows of words are on their way.
"""

import triton
import triton.language as tl

from kernl.ops.dependent import wait_for_inputs


@triton.jit
def _gathered(table_ptr, ids, count, stride_row, stride_col, col_offs, mask):
    """Rows of a table in float32; a row of NaN where the id lies outside of 0 to count - 1."""
    known = (ids >= 0) & (ids < count)
    rows = tl.where(known, ids, 0)[:, None] * stride_row
    values = tl.load(table_ptr + rows + col_offs[None, :] * stride_col, mask=mask, other=0.0)
    return tl.where(known[:, None], values.to(tl.float32), float("nan"))


@triton.jit
def _counted(
    input_ids_ptr, ids, batch, place, seq, padding, stride_b, stride_s, BLOCK_SEQ: tl.constexpr
):
    """Positions that count the tokens of a sequence that are no padding; `padding` for padding."""
    count = tl.zeros_like(ids)
    row_ptrs = input_ids_ptr + batch[:, None] * stride_b
    for start in range(0, seq, BLOCK_SEQ):
        offs = (start + tl.arange(0, BLOCK_SEQ)).to(tl.int64)[None, :]
        before = (offs <= place[:, None]) & (offs < seq)
        others = tl.load(row_ptrs + offs * stride_s, mask=before, other=0).to(tl.int64)
        count += tl.sum((before & (others != padding)).to(tl.int64), axis=1)
    return padding + tl.where(ids == padding, 0, count)


@triton.jit
def embedding_layer_norm_kernel(
    word_ptr,
    position_ptr,
    token_type_ptr,
    weight_ptr,
    bias_ptr,
    input_ids_ptr,
    position_ids_ptr,
    token_type_ids_ptr,
    out_ptr,
    tokens,
    seq,
    hidden,
    vocabulary,
    positions,
    types,
    position_offset,
    stride_word_row,
    stride_word_col,
    stride_position_row,
    stride_position_col,
    stride_token_type_row,
    stride_token_type_col,
    stride_weight,
    stride_bias,
    stride_input_ids_b,
    stride_input_ids_s,
    stride_position_ids_b,
    stride_position_ids_s,
    stride_token_type_ids_b,
    stride_token_type_ids_s,
    eps,
    HAS_POSITION_IDS: tl.constexpr,
    HAS_TYPES: tl.constexpr,
    HAS_TYPE_IDS: tl.constexpr,
    BLOCK_SEQ: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    PDL: tl.constexpr = False,
):
    """(BLOCK_TOKENS, BLOCK_HIDDEN) covers BLOCK_TOKENS whole rows of the output.

    BLOCK_SEQ: as many ids are counted at once, position_offset being the padding's; 0 counts none.
    """
    wait_for_inputs(PDL)
    token_offs = (tl.program_id(0) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)).to(tl.int64)
    col_offs = tl.arange(0, BLOCK_HIDDEN)
    inside, col_mask = token_offs < tokens, col_offs < hidden
    mask = inside[:, None] & col_mask[None, :]
    batch, place = token_offs // seq, token_offs % seq

    id_offs = batch * stride_input_ids_b + place * stride_input_ids_s
    ids = tl.load(input_ids_ptr + id_offs, mask=inside, other=0).to(tl.int64)
    x = _gathered(word_ptr, ids, vocabulary, stride_word_row, stride_word_col, col_offs, mask)
    if BLOCK_SEQ > 0:
        # fmt: off
        ids = _counted(
            input_ids_ptr, ids, batch, place, seq, position_offset, stride_input_ids_b,
            stride_input_ids_s, BLOCK_SEQ,
        )
        # fmt: on
    else:
        ids = place + position_offset
    if HAS_POSITION_IDS:
        id_offs = batch * stride_position_ids_b + place * stride_position_ids_s
        ids = tl.load(position_ids_ptr + id_offs, mask=inside, other=0).to(tl.int64)
    x += _gathered(
        position_ptr, ids, positions, stride_position_row, stride_position_col, col_offs, mask
    )
    if HAS_TYPES:
        ids = tl.zeros((BLOCK_TOKENS,), tl.int64)
        if HAS_TYPE_IDS:
            id_offs = batch * stride_token_type_ids_b + place * stride_token_type_ids_s
            ids = tl.load(token_type_ids_ptr + id_offs, mask=inside, other=0).to(tl.int64)
        x += _gathered(
            token_type_ptr, ids, types, stride_token_type_row, stride_token_type_col, col_offs, mask
        )

    weight = tl.load(weight_ptr + col_offs * stride_weight, mask=col_mask).to(tl.float32)
    bias = tl.load(bias_ptr + col_offs * stride_bias, mask=col_mask).to(tl.float32)
    mean = tl.sum(tl.where(mask, x, 0.0), axis=1)[:, None] / hidden
    deviation = tl.where(mask, x - mean, 0.0)
    variance = tl.sum(deviation * deviation, axis=1)[:, None] / hidden
    out = deviation * (1.0 / tl.sqrt(variance + eps)) * weight[None, :] + bias[None, :]
    out_ptrs = out_ptr + token_offs[:, None] * hidden + col_offs[None, :]
    tl.store(out_ptrs, out.to(out_ptr.dtype.element_ty), mask=mask)
