"""The largest logit of each row and its column, where several programs share a row.

A float's bits, with those of negative numbers turned round, are an integer that orders as the
float does. Packed above the column, it makes the largest logit, and of equal ones the first, one
64-bit maximum: the order in which programs come does not matter.
"""

import triton
import triton.language as tl

# An integer below every packed choice.
_NOTHING = tl.constexpr(-(2**63))


@triton.jit
def float_keys(x, KEY_BITS: tl.constexpr):
    """Integers of KEY_BITS bits that order as the floats do; both zeros are 0, NaN is on top."""
    if KEY_BITS == 32:
        bits = x.to(tl.int32, bitcast=True)
    else:
        bits = x.to(tl.int16, bitcast=True).to(tl.int32)
    all_but_sign: tl.constexpr = (1 << (KEY_BITS - 1)) - 1
    keys = tl.where(bits < 0, bits ^ all_but_sign, bits)
    keys = tl.where(x == 0.0, 0, keys)
    return tl.where(x != x, all_but_sign, keys)


@triton.jit
def row_best(best_ptr, row, chunks, logits_dtype, KEY_BITS: tl.constexpr, CHUNKS: tl.constexpr):
    """The largest logit of a row, as float32, and its column, from what its chunks left."""
    chunk_offs = tl.arange(0, CHUNKS)
    best_ptrs = best_ptr + row * chunks + chunk_offs
    best = tl.max(tl.load(best_ptrs, mask=chunk_offs < chunks, other=_NOTHING), axis=0)
    keys = (best >> 32).to(tl.int32)
    bits = tl.where(keys < 0, keys ^ ((1 << (KEY_BITS - 1)) - 1), keys)
    if KEY_BITS == 32:
        largest = bits.to(tl.float32, bitcast=True)
    else:
        largest = bits.to(tl.int16).to(logits_dtype, bitcast=True).to(tl.float32)
    return largest, 0x7FFFFFFF - (best & 0x7FFFFFFF)


@triton.jit
def best_kernel(
    logits_ptr,
    best_ptr,
    cols,
    chunk_cols,
    stride_logits_row,
    stride_logits_col,
    KEY_BITS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    """The best of one chunk: its key above, what is left of 2^31 - 1 after its column below."""
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    first = chunk * chunk_cols
    lane_best = tl.full((BLOCK_COLS,), _NOTHING, tl.int64)
    for start in range(first, tl.minimum(first + chunk_cols, cols), BLOCK_COLS):
        col_offs = start + tl.arange(0, BLOCK_COLS)
        x_ptrs = logits_ptr + row * stride_logits_row + col_offs * stride_logits_col
        # Beyond the row lies -inf, in columns that lose against those of the row.
        x = tl.load(x_ptrs, mask=col_offs < cols, other=float("-inf"))
        packed = (float_keys(x, KEY_BITS).to(tl.int64) << 32) + (0x7FFFFFFF - col_offs)
        lane_best = tl.maximum(lane_best, packed)
    tl.store(best_ptr + row * tl.num_programs(1) + chunk, tl.max(lane_best, axis=0))


@triton.jit(do_not_specialize=["chunks"])
def greedy_kernel(
    best_ptr, token_ptr, chunks, logits_ptr, KEY_BITS: tl.constexpr, CHUNKS: tl.constexpr
):
    """The column of the best of all chunks of one row."""
    row = tl.program_id(0).to(tl.int64)
    _, column = row_best(best_ptr, row, chunks, logits_ptr.dtype.element_ty, KEY_BITS, CHUNKS)
    tl.store(token_ptr + row, column)
