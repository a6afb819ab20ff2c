"""A block of keys of `attention`: how it is read, its scores, and all that changes them.

s = scale · q · kᵀ, then cap · tanh(s / cap), then + the biases, -inf where a query sees no key
"""

import triton
import triton.language as tl


@triton.jit
def _relative_bucket(
    distance, BIDIRECTIONAL: tl.constexpr, EXACT: tl.constexpr, FIRST: tl.constexpr
):
    """T5's bucket of key position minus query position.

    Distances below EXACT have buckets of their own; FIRST holds the first distance of each wider
    one. In both directions the later half of the buckets is for keys behind the query.
    """
    if BIDIRECTIONAL:
        bucket = tl.where(distance > 0, EXACT + len(FIRST), 0)
        size = tl.abs(distance)
    else:
        bucket = tl.zeros_like(distance)
        size = tl.maximum(-distance, 0)
    wide = tl.full(distance.shape, EXACT - 1, tl.int32)
    for place in tl.static_range(len(FIRST)):
        wide += tl.where(size >= FIRST[place], 1, 0)
    return bucket + tl.where(size < EXACT, size, wide)


@triton.jit
def _both_runs(first_a, end_a, count_a, first_b, end_b, count_b):
    return tl.minimum(first_a, first_b), tl.maximum(end_a, end_b), count_a + count_b


@triton.jit
def run_of_keys(mask_ptrs, stride_mask_k, last_key, BLOCK: tl.constexpr):
    """The first key that a boolean mask shows, the end of the last one, and whether it has holes.

    No key at all is the run from last_key to 0.
    """
    first, end, count = last_key, 0, 0
    for start in range(0, last_key, BLOCK):
        offs = start + tl.arange(0, BLOCK)
        inside = offs < last_key
        mask = tl.load(mask_ptrs + offs.to(tl.int64) * stride_mask_k, mask=inside, other=0)
        shown = mask != 0
        # All three at once: what costs is that the warps meet.
        runs = (tl.where(shown, offs, last_key), tl.where(shown, offs + 1, 0), shown.to(tl.int32))
        block_first, block_end, block_count = tl.reduce(runs, 0, _both_runs)
        first, end = tl.minimum(first, block_first), tl.maximum(end, block_end)
        count += block_count
    return first, end, count < end - first


@triton.jit
def block_ptrs(k_ptrs, v_ptrs, n_offs, stride_k_s, stride_v_s):
    """Where a block of keys (head_dim, keys) and of values (keys, head_dim) lies."""
    columns = n_offs.to(tl.int64)
    return k_ptrs + columns[None, :] * stride_k_s, v_ptrs + columns[:, None] * stride_v_s


@triton.jit
def load_block(k_ptrs, v_ptrs, d_mask, n_mask, EVEN_DIM: tl.constexpr, EDGE: tl.constexpr):
    """A block of keys and one of values; 0 beyond head_dim and, at an EDGE, beyond the keys."""
    if EDGE:
        k = tl.load(k_ptrs, mask=d_mask[:, None] & n_mask[None, :], other=0.0)
        v = tl.load(v_ptrs, mask=n_mask[:, None] & d_mask[None, :], other=0.0)
    elif EVEN_DIM:
        k, v = tl.load(k_ptrs), tl.load(v_ptrs)
    else:
        k = tl.load(k_ptrs, mask=d_mask[:, None], other=0.0)
        v = tl.load(v_ptrs, mask=d_mask[None, :], other=0.0)
    return k, v


@triton.jit
def block_scores(
    q,
    k,
    m_offs,
    n_offs,
    q_len,
    window,
    last_key,
    offset,
    scale,
    softcap,
    mask_ptrs,
    stride_mask_q,
    stride_mask_k,
    slope,
    bias_ptr,
    stride_bias_bucket,
    MASK: tl.constexpr,
    MASK_OF_QUERY: tl.constexpr,
    CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    ALIBI: tl.constexpr,
    RELATIVE: tl.constexpr,
    EXACT: tl.constexpr,
    FIRST: tl.constexpr,
    EDGE: tl.constexpr,
):
    """Scores of a block (queries, keys); -inf where a query sees no key.

    Where nothing is added to them or caps them, they come without `scale`: it is part of the
    exponent then. MASK of "keys" counts at an EDGE alone.
    """
    s = tl.dot(q, k, input_precision="ieee")
    if SOFTCAP or ALIBI or RELATIVE != "none" or MASK == "additive" or MASK == "boolean":
        s *= scale
    place = (m_offs + offset)[:, None]
    if SOFTCAP:
        s = softcap * (2.0 * tl.sigmoid(2.0 * s / softcap) - 1.0)
    if ALIBI:
        s -= slope * tl.abs(place - n_offs[None, :]).to(tl.float32)
    if RELATIVE != "none":
        bucket = _relative_bucket(n_offs[None, :] - place, RELATIVE == "both", EXACT, FIRST)
        s += tl.load(bias_ptr + bucket * stride_bias_bucket).to(tl.float32)
    if MASK == "additive" or MASK == "boolean":
        keys = n_offs.to(tl.int64)[None, :] * stride_mask_k
        inside = (n_offs < last_key)[None, :]
        if MASK_OF_QUERY:
            keys += m_offs.to(tl.int64)[:, None] * stride_mask_q
            inside = inside & (m_offs < q_len)[:, None]
        mask = tl.load(mask_ptrs + keys, mask=inside, other=0)
        if MASK == "boolean":
            s = tl.where(mask != 0, s, float("-inf"))
        else:
            s += mask.to(tl.float32)
    if EDGE:
        seen = n_offs < last_key
        if MASK == "keys":
            keys = n_offs.to(tl.int64) * stride_mask_k
            seen = seen & (tl.load(mask_ptrs + keys, mask=seen, other=0) != 0)
        seen = seen[None, :]
        if CAUSAL:
            seen = seen & (n_offs[None, :] <= place)
        if WINDOW:
            seen = seen & (n_offs[None, :] > place - window)
            seen = seen & (n_offs[None, :] < place + window)
        s = tl.where(seen, s, float("-inf"))
    return s
