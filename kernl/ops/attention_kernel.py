"""The kernel of `attention` and `attention_varlen`: one program walks the keys of a query block.

Online softmax: the largest score so far is kept for each query, and what was summed before is
rescaled when a larger one comes. Blocks of keys that every query of the block sees whole are
walked without a mask; only those at the edges (the diagonal, the window's ends, the last keys)
pay for one.

A boolean mask that is the same for every query, padding, is read once before the walk. Where the
keys that it shows are one run, it becomes the run's ends: keys outside are not read, and those
inside need no mask. Where it has holes, every block of the run asks the mask.

The exponential is exp2. Where nothing changes the scores, `scale` has log2(e) in it and is taken in
with the exponent: one fused multiply-add for each score. Where something does, log2(e) multiplies
their distance to the largest one. Multiplied into them before, a row of the lowest finite number,
as models write masks, would be -inf, or by fused multiply-add differ from itself.
"""

import triton
import triton.language as tl

from kernl.ops.attention_scores import block_ptrs, block_scores, load_block, run_of_keys
from kernl.ops.dependent import wait_for_inputs

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def attention_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    mask_ptr,
    key_lengths_ptr,
    cu_seqlens_ptr,
    slopes_ptr,
    bias_ptr,
    heads,
    group,
    q_len,
    k_len,
    head_dim,
    window,
    scale,
    softcap,
    stride_q_b,
    stride_q_h,
    stride_q_s,
    stride_q_d,
    stride_k_b,
    stride_k_h,
    stride_k_s,
    stride_k_d,
    stride_v_b,
    stride_v_h,
    stride_v_s,
    stride_v_d,
    stride_out_b,
    stride_out_h,
    stride_out_s,
    stride_mask_b,
    stride_mask_h,
    stride_mask_q,
    stride_mask_k,
    stride_lengths,
    stride_slopes,
    stride_bias_bucket,
    stride_bias_head,
    MASK: tl.constexpr,
    MASK_OF_QUERY: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
    VARLEN: tl.constexpr,
    CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    ALIBI: tl.constexpr,
    RELATIVE: tl.constexpr,
    EXACT: tl.constexpr,
    FIRST: tl.constexpr,
    FIND_RUN: tl.constexpr,
    WHOLE: tl.constexpr,
    COUNT_ON: tl.constexpr,
    EVEN_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PDL: tl.constexpr = False,
):
    """q (batch, heads, q_len, head_dim), k and v (batch, heads // group, k_len, head_dim).

    VARLEN: batch is a sequence of the packed tokens, from cu_seqlens[batch] on.
    MASK: "none", "additive", "boolean", or "keys", a boolean one that is the same for every query.
    FIND_RUN: how many keys of such a mask are read at once before the walk; 0 leaves that.
    WHOLE: every query sees all keys, and BLOCK_N divides them: there are no edges.
    COUNT_ON: addresses are counted on from block to block, and not made anew for each.
    """
    wait_for_inputs(PDL)
    blocks = tl.cdiv(q_len, BLOCK_M)
    program = tl.program_id(0)
    # The last queries see the most keys where causal: they begin first.
    m_first = (blocks - 1 - program % blocks) * BLOCK_M
    batch = (program // blocks // heads).to(tl.int64)
    head = (program // blocks % heads).to(tl.int64)

    if VARLEN:
        start = tl.load(cu_seqlens_ptr + batch).to(tl.int64)
        q_len = (tl.load(cu_seqlens_ptr + batch + 1) - start).to(tl.int32)
        k_len = q_len
        if m_first >= q_len:
            return
        q_ptr += start * stride_q_s
        k_ptr += start * stride_k_s
        v_ptr += start * stride_v_s
        out_ptr += start * stride_out_s
    else:
        q_ptr += batch * stride_q_b
        k_ptr += batch * stride_k_b
        v_ptr += batch * stride_v_b
        out_ptr += batch * stride_out_b
    last_key = k_len
    if HAS_LENGTHS:
        last_key = tl.load(key_lengths_ptr + batch * stride_lengths).to(tl.int32)
        last_key = tl.minimum(tl.maximum(last_key, 0), k_len)
    offset = k_len - q_len

    m_offs = m_first + tl.arange(0, BLOCK_M)
    n_block = tl.arange(0, BLOCK_N)
    d_offs = tl.arange(0, BLOCK_D)
    d_mask = d_offs < head_dim
    rows = m_offs.to(tl.int64)[:, None]
    q_ptrs = q_ptr + head * stride_q_h + rows * stride_q_s + d_offs[None, :] * stride_q_d
    q = tl.load(q_ptrs, mask=(m_offs < q_len)[:, None] & d_mask[None, :], other=0.0)
    k_ptrs = k_ptr + (head // group) * stride_k_h + d_offs[:, None] * stride_k_d
    v_ptrs = v_ptr + (head // group) * stride_v_h + d_offs[None, :] * stride_v_d
    mask_ptrs = mask_ptr + batch * stride_mask_b + head * stride_mask_h
    slope = 0.0
    if ALIBI:
        slope = tl.load(slopes_ptr + head * stride_slopes).to(tl.float32)
    bias_ptr += head * stride_bias_head

    # Keys [low, high) are seen by some query of the block, keys [whole, edge) by all of them.
    low, whole, high, edge = 0, 0, last_key, last_key
    if CAUSAL:
        high = tl.minimum(high, m_first + BLOCK_M + offset)
        edge = tl.minimum(edge, m_first + offset + 1)
    if WINDOW:
        low = tl.maximum(m_first + offset - window + 1, 0) // BLOCK_N * BLOCK_N
        whole = tl.cdiv(tl.maximum(m_first + BLOCK_M + offset - window, 0), BLOCK_N) * BLOCK_N
        if not CAUSAL:
            high = tl.minimum(high, m_first + BLOCK_M - 1 + offset + window)
            edge = tl.minimum(edge, m_first + offset + window)
    if FIND_RUN > 0:
        first, end, holes = run_of_keys(mask_ptrs, stride_mask_k, last_key, FIND_RUN)
        low = tl.maximum(low, first // BLOCK_N * BLOCK_N)
        whole = tl.maximum(whole, tl.cdiv(first, BLOCK_N) * BLOCK_N)
        high = tl.minimum(high, end)
        edge = tl.where(holes, 0, tl.minimum(edge, end))
    elif MASK == "keys":
        edge = 0
    edge = tl.maximum(edge, 0) // BLOCK_N * BLOCK_N
    edge = tl.maximum(edge, low)
    whole = tl.minimum(whole, edge)

    added: tl.constexpr = MASK == "additive" or MASK == "boolean"
    changed: tl.constexpr = SOFTCAP or ALIBI or RELATIVE != "none" or added
    # What is left at the ends of a run is a block each: no load ahead would pay.
    ends: tl.constexpr = 1 if FIND_RUN > 0 and COUNT_ON else None
    has_start: tl.constexpr = WINDOW or FIND_RUN > 0
    has_middle: tl.constexpr = MASK != "keys" or FIND_RUN > 0
    largest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    # Three walks: the window's first end, the middle without a mask, the last end.
    bounds = (low, whole, edge, high)
    for walk in tl.static_range(3):
        first_n, last_n = bounds[walk], bounds[walk + 1]
        if (walk == 0 and has_start) or (walk == 1 and has_middle) or (walk == 2 and not WHOLE):
            at = block_ptrs(k_ptrs, v_ptrs, first_n + n_block, stride_k_s, stride_v_s)
            k_block_ptrs, v_block_ptrs = at
            for n_first in tl.range(
                first_n, last_n, BLOCK_N, num_stages=None if walk == 1 else ends
            ):
                n_offs = n_first + n_block
                if not COUNT_ON:
                    at = block_ptrs(k_ptrs, v_ptrs, n_offs, stride_k_s, stride_v_s)
                    k_block_ptrs, v_block_ptrs = at
                k, v = load_block(
                    k_block_ptrs, v_block_ptrs, d_mask, n_offs < last_key, EVEN_DIM, walk != 1
                )
                if COUNT_ON:
                    k_block_ptrs += BLOCK_N * stride_k_s
                    v_block_ptrs += BLOCK_N * stride_v_s
                # fmt: off
                s = block_scores(
                    q, k, m_offs, n_offs, q_len, window, last_key, offset, scale, softcap,
                    mask_ptrs, stride_mask_q, stride_mask_k, slope, bias_ptr, stride_bias_bucket,
                    MASK, MASK_OF_QUERY, CAUSAL, WINDOW, SOFTCAP, ALIBI, RELATIVE, EXACT, FIRST,
                    walk != 1,
                )
                # fmt: on
                new_largest = tl.maximum(largest, tl.max(s, axis=1))
                shift = new_largest
                if walk != 1 or added:
                    # A query that has seen nothing yet: -inf - -inf would be NaN.
                    shift = tl.where(new_largest == float("-inf"), 0.0, new_largest)
                if changed:
                    p = tl.exp2((s - shift[:, None]) * LOG2_E)
                    rescale = tl.exp2((largest - shift) * LOG2_E)
                else:
                    p = tl.exp2(s * scale - (shift * scale)[:, None])
                    rescale = tl.exp2((largest - shift) * scale)
                total = total * rescale + tl.sum(p, axis=1)
                acc = tl.dot(p.to(v.dtype), v, acc * rescale[:, None], input_precision="ieee")
                largest = new_largest

    # A query that sees no key gives zeros.
    acc = acc * (1.0 / tl.where(total == 0.0, 1.0, total))[:, None]
    out_ptrs = out_ptr + head * stride_out_h + rows * stride_out_s + d_offs[None, :]
    out_mask = (m_offs < q_len)[:, None] & d_mask[None, :]
    tl.store(out_ptrs, acc.to(out_ptr.dtype.element_ty), mask=out_mask)
