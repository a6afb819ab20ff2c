"""The launches between the largest logit of a row and its token; `argmax_sample` says what for.

Programs of a row share nothing while they run. Each leaves its sums, (rows, chunks, digits), and
the next launch adds them up in every program that needs them.
"""

import triton
import triton.language as tl

from kernl.ops.argmax_sample_largest import float_keys, row_best


@triton.jit
def _weights(x, keys, floor, largest, scale):
    """2^40 · exp((x - largest) / temperature) as an integer; 0 below the key `floor`."""
    weight = tl.exp2((x.to(tl.float32) - largest) * scale) * 1099511627776.0
    # NaN, of a row whose largest logit is not finite, weighs nothing.
    return tl.where((keys >= floor) & (weight > 0.0), weight, 0.0).to(tl.int64)


@triton.jit
def _settled(
    sums_ptr,
    state_ptr,
    row,
    chunk,
    chunks,
    top_k,
    top_p,
    shift,
    COUNTED: tl.constexpr,
    OPENED: tl.constexpr,
    DIGITS: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Where the search stands now that the launch before has left its sums.

    Returns floor and low, the keys where the search before and this one have arrived, the target,
    and of every chunk the sum at the digit that was found.
    """
    state_ptrs = state_ptr + (row * chunks + chunk) * 3
    chunk_offs, digit_offs = tl.arange(0, CHUNKS), tl.arange(0, DIGITS)
    sums_ptrs = sums_ptr + (row * chunks + chunk_offs[:, None]) * DIGITS + digit_offs[None, :]
    sums = tl.load(sums_ptrs, mask=chunk_offs[:, None] < chunks, other=0)
    above = tl.sum(sums, axis=0)
    if OPENED and COUNTED:
        target = tl.full((), top_k, tl.int64)
    elif OPENED:
        goal = tl.ceil(top_p * tl.max(above, axis=0).to(tl.float64))
        target = tl.maximum(goal.to(tl.int64), 1)
    else:
        target = tl.load(state_ptrs + 2)
    digit = tl.maximum(tl.sum((above >= target).to(tl.int64), axis=0) - 1, 0)
    low = tl.load(state_ptrs + 1) + (digit << shift)
    at_digit = tl.sum(tl.where(digit_offs[None, :] == digit, sums, 0), axis=1)
    return tl.load(state_ptrs), low, target, at_digit


# One binary for every digit of a threshold and every number of chunks and of tokens.
_VARYING = ["chunks", "top_k", "shift", "old_shift"]


@triton.jit(do_not_specialize=_VARYING)
def narrow_kernel(
    logits_ptr,
    best_ptr,
    sums_ptr,
    state_ptr,
    new_sums_ptr,
    new_state_ptr,
    cols,
    chunks,
    chunk_cols,
    stride_logits_row,
    stride_logits_col,
    scale,
    top_k,
    top_p,
    shift,
    old_shift,
    COUNTS: tl.constexpr,
    OPENS: tl.constexpr,
    DIGITS: tl.constexpr,
    FIRST: tl.constexpr,
    OLD_COUNTED: tl.constexpr,
    OLD_OPENED: tl.constexpr,
    OLD_DIGITS: tl.constexpr,
    KEY_BITS: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    """One chunk's sums at or above each value of the next digit; OLD_ is the launch before."""
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    lowest = tl.full((), -(2 ** (KEY_BITS - 1)), tl.int64)
    floor, low, target = lowest, lowest, lowest
    if not FIRST:
        floor, low, target, _ = _settled(
            sums_ptr,
            state_ptr,
            row,
            chunk,
            chunks,
            top_k,
            top_p,
            old_shift,
            OLD_COUNTED,
            OLD_OPENED,
            OLD_DIGITS,
            CHUNKS,
        )
        if OPENS:
            floor, low = low, lowest
    if not COUNTS:
        largest, _ = row_best(best_ptr, row, chunks, logits_ptr.dtype.element_ty, KEY_BITS, CHUNKS)

    digit_offs = tl.arange(0, DIGITS)
    thresholds = (low + (digit_offs.to(tl.int64) << shift)).to(tl.int32)
    above = tl.zeros((DIGITS,), tl.int64)
    first = chunk * chunk_cols
    for start in range(first, tl.minimum(first + chunk_cols, cols), BLOCK_COLS):
        col_offs = start + tl.arange(0, BLOCK_COLS)
        x_ptrs = logits_ptr + row * stride_logits_row + col_offs * stride_logits_col
        x = tl.load(x_ptrs, mask=col_offs < cols, other=float("-inf"))
        keys = float_keys(x, KEY_BITS)
        if COUNTS:
            weight = (col_offs < cols).to(tl.int64)
        else:
            weight = _weights(x, keys, floor, largest, scale)
        reaching = tl.where(keys[:, None] >= thresholds[None, :], weight[:, None], 0)
        above += tl.sum(reaching, axis=0)

    # Every program keeps a copy of the state of its own, so that none waits for another.
    chunk_id = row * chunks + chunk
    tl.store(new_sums_ptr + chunk_id * DIGITS + digit_offs, above)
    tl.store(new_state_ptr + chunk_id * 3, floor)
    tl.store(new_state_ptr + chunk_id * 3 + 1, low)
    tl.store(new_state_ptr + chunk_id * 3 + 2, target)


@triton.jit(do_not_specialize=_VARYING)
def pick_kernel(
    logits_ptr,
    best_ptr,
    sums_ptr,
    state_ptr,
    uniform_ptr,
    token_ptr,
    cols,
    chunks,
    chunk_cols,
    stride_logits_row,
    stride_logits_col,
    stride_uniform,
    scale,
    top_k,
    top_p,
    old_shift,
    OLD_COUNTED: tl.constexpr,
    OLD_OPENED: tl.constexpr,
    OLD_DIGITS: tl.constexpr,
    KEY_BITS: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    """The token of one row: first its chunk, by what the chunks weigh, then its column."""
    row = tl.program_id(0).to(tl.int64)
    floor, low, _, mass = _settled(
        sums_ptr,
        state_ptr,
        row,
        0,
        chunks,
        top_k,
        top_p,
        old_shift,
        OLD_COUNTED,
        OLD_OPENED,
        OLD_DIGITS,
        CHUNKS,
    )
    floor = tl.maximum(floor, low)
    largest, best = row_best(best_ptr, row, chunks, logits_ptr.dtype.element_ty, KEY_BITS, CHUNKS)

    total = tl.sum(mass, axis=0)
    uniform = tl.load(uniform_ptr + row * stride_uniform).to(tl.float64)
    goal = (tl.where(uniform > 0.0, uniform, 0.0) * total.to(tl.float64)).to(tl.int64)
    goal = tl.minimum(goal, total - 1)
    chunk = tl.sum((tl.cumsum(mass, axis=0) <= goal).to(tl.int32), axis=0)
    before = tl.sum(tl.where(tl.arange(0, CHUNKS) < chunk, mass, 0), axis=0)

    first = chunk * chunk_cols
    token = first
    for start in range(first, tl.minimum(first + chunk_cols, cols), BLOCK_COLS):
        col_offs = start + tl.arange(0, BLOCK_COLS)
        x_ptrs = logits_ptr + row * stride_logits_row + col_offs * stride_logits_col
        x = tl.load(x_ptrs, mask=col_offs < cols, other=float("-inf"))
        weight = _weights(x, float_keys(x, KEY_BITS), floor, largest, scale)
        token += tl.sum((before + tl.cumsum(weight, axis=0) <= goal).to(tl.int32), axis=0)
        before += tl.sum(weight, axis=0)
    finite = tl.abs(largest) < float("inf")
    tl.store(token_ptr + row, tl.where(finite, token.to(tl.int64), best))
