"""The two kernels of `decode_attention` and what launches them; the formulas stand there.

The first kernel takes one split of the keys of one key head, the second merges the splits. Scores
are to the base 2: log2 e is multiplied into their scale.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from kernl.launch import Launch, cdiv, next_power_of_2
from kernl.ops.activation import tanh
from kernl.ops.decode_attention_config import DecodeConfig, block_rows

_LOG2_E = 1.4426950408889634


@triton.jit
def _decode_scores(q, k, BLOCK_M: tl.constexpr):
    """Products of queries (BLOCK_M, dims) and keys (BLOCK_N, dims), in float32."""
    if BLOCK_M == 1:
        return tl.sum(q * k, axis=1)[None, :]
    return tl.dot(q, tl.trans(k), input_precision="ieee")


@triton.jit
def _decode_add(acc, weights, v, BLOCK_M: tl.constexpr):
    """Add weights (BLOCK_M, BLOCK_N) times values (BLOCK_N, dims) to acc, in float32."""
    if BLOCK_M == 1:
        return acc + tl.sum(tl.trans(weights) * v, axis=0)[None, :]
    return tl.dot(weights.to(v.dtype), v, acc, input_precision="ieee")


@triton.jit(do_not_specialize=["capacity", "window"])
def decode_split_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    length_ptr,
    out_ptr,
    partial_ptr,
    lse_ptr,
    q_len,
    group,
    kv_heads,
    capacity,
    window,
    scale,
    softcap,
    stride_q_batch,
    stride_q_head,
    stride_q_row,
    stride_q_dim,
    stride_k_batch,
    stride_k_head,
    stride_k_key,
    stride_k_dim,
    stride_v_batch,
    stride_v_head,
    stride_v_key,
    stride_v_dim,
    stride_length,
    HAS_LENGTH: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    ONE_SPLIT: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """One split of the keys of one key head; row m is query m % q_len of head m // q_len of its
    group. Grid: (batch · kv_heads, splits, blocks of rows).
    """
    pair, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    batch, kv_head = (pair // kv_heads).to(tl.int64), (pair % kv_heads).to(tl.int64)
    m_offs = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    n_offs = tl.arange(0, BLOCK_N)
    dim_offs = tl.arange(0, BLOCK_DIM).to(tl.int64)[None, :]
    m_mask, dim_mask = m_offs < group * q_len, dim_offs < HEAD_DIM
    q_row = m_offs % q_len
    head = kv_head * group + m_offs // q_len

    q_offs = head[:, None] * stride_q_head + q_row.to(tl.int64)[:, None] * stride_q_row
    q_ptrs = q_ptr + batch * stride_q_batch + q_offs + dim_offs * stride_q_dim
    q = tl.load(q_ptrs, mask=m_mask[:, None] & dim_mask, other=0.0)
    k_ptrs = k_ptr + batch * stride_k_batch + kv_head * stride_k_head + dim_offs * stride_k_dim
    v_ptrs = v_ptr + batch * stride_v_batch + kv_head * stride_v_head + dim_offs * stride_v_dim

    length = capacity
    if HAS_LENGTH:
        length = tl.load(length_ptr + batch * stride_length)
        length = tl.minimum(tl.maximum(length, 0), capacity).to(tl.int32)
    position = length - q_len + q_row
    first = 0
    if HAS_WINDOW:
        first = tl.maximum(length - q_len - window + 1, 0)
    share = tl.cdiv(length - first, splits)
    begin = first + split * share
    end = tl.minimum(begin + share, length)

    row_max = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    row_sum = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_DIM), tl.float32)
    for start in range(begin, end, BLOCK_N):
        key = start + n_offs
        key_offs = key.to(tl.int64)[:, None]
        kv_mask = (key < end)[:, None]
        if HEAD_DIM != BLOCK_DIM:
            kv_mask = kv_mask & dim_mask
        k = tl.load(k_ptrs + key_offs * stride_k_key, mask=kv_mask, other=0.0)
        v = tl.load(v_ptrs + key_offs * stride_v_key, mask=kv_mask, other=0.0)

        scores = _decode_scores(q, k, BLOCK_M) * scale
        if HAS_SOFTCAP:
            scores = softcap * tanh(scores)
        visible = (key < end)[None, :] & (key[None, :] <= position[:, None])
        if HAS_WINDOW:
            visible = visible & (key[None, :] > position[:, None] - window)
        scores = tl.where(visible, scores, float("-inf"))

        new_max = tl.maximum(row_max, tl.max(scores, axis=1))
        # A row that has seen no key has no maximum yet; -inf - -inf would be NaN.
        shift = tl.where(new_max == float("-inf"), 0.0, new_max)
        weights = tl.exp2(scores - shift[:, None])
        fading = tl.exp2(row_max - shift)
        row_sum = row_sum * fading + tl.sum(weights, axis=1)
        acc = _decode_add(acc * fading[:, None], weights, v, BLOCK_M)
        row_max = new_max

    # A row that sees no key sums to 0.
    divisor = tl.where(row_sum == 0.0, 1.0, row_sum)
    out = acc / divisor[:, None]
    if ONE_SPLIT:
        # out is (batch, q_len, heads, HEAD_DIM)
        row = (batch * q_len + q_row) * (kv_heads * group) + head
        out_ptrs = out_ptr + row[:, None] * HEAD_DIM + dim_offs
        tl.store(out_ptrs, out.to(out_ptr.dtype.element_ty), mask=m_mask[:, None] & dim_mask)
    else:
        # partial is (batch · heads · q_len, splits, HEAD_DIM)
        row = (pair.to(tl.int64) * (group * q_len) + m_offs) * splits + split
        tl.store(lse_ptr + row, row_max + tl.log2(divisor), mask=m_mask)
        # A split with no keys says so by its lse, and the merge leaves its output out.
        written = (m_mask & (row_sum != 0.0))[:, None] & dim_mask
        tl.store(partial_ptr + row[:, None] * HEAD_DIM + dim_offs, out, mask=written)


@triton.jit
def _decode_merge_kernel(
    partial_ptr,
    lse_ptr,
    out_ptr,
    q_len,
    heads,
    splits,
    HEAD_DIM: tl.constexpr,
    BLOCK_SPLITS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """BLOCK_DIM columns of one row, over all splits. Grid: (batch · heads · q_len, columns)."""
    row = tl.program_id(0)
    split = tl.arange(0, BLOCK_SPLITS)
    dim_offs = tl.program_id(1) * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
    split_mask, dim_mask = split < splits, dim_offs < HEAD_DIM

    split_rows = row.to(tl.int64) * splits + split
    partial_ptrs = partial_ptr + split_rows[:, None] * HEAD_DIM + dim_offs[None, :]
    lse = tl.load(lse_ptr + split_rows, mask=split_mask, other=float("-inf"))
    partial = tl.load(partial_ptrs, mask=split_mask[:, None] & dim_mask[None, :], other=0.0)

    whole = tl.max(lse, axis=0)
    weight = tl.exp2(lse - tl.where(whole == float("-inf"), 0.0, whole))
    total = tl.sum(weight, axis=0)
    # Nothing was written where a split has no keys: what lies there may be NaN.
    partial = tl.where((lse == float("-inf"))[:, None], 0.0, partial)
    out = tl.sum(weight[:, None] * partial, axis=0) / tl.where(total == 0.0, 1.0, total)

    batch, head, q_row = row // (heads * q_len), row // q_len % heads, row % q_len
    out_row = ((batch * q_len + q_row) * heads + head).to(tl.int64)
    out_ptrs = out_ptr + out_row * HEAD_DIM + dim_offs
    tl.store(out_ptrs, out.to(out_ptr.dtype.element_ty), mask=dim_mask)


def scoring(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    scale: float | None,
    window: int | None,
    softcap: float | None,
) -> dict[str, float]:
    """What the kernel makes scores of products with; the cap multiplies what tanh leaves."""
    capacity = k_cache.shape[2]
    scale = q.shape[3] ** -0.5 if scale is None else scale
    return {
        "scale": float(scale * _LOG2_E if softcap is None else scale / softcap),
        "softcap": 0.0 if softcap is None else float(softcap * _LOG2_E),
        "window": capacity if window is None else min(window, capacity),
    }


def _strides(tensor: torch.Tensor, name: str, row: str) -> dict[str, int]:
    dims = (f"stride_{name}_{dim}" for dim in ("batch", "head", row, "dim"))
    return dict(zip(dims, tensor.stride(), strict=True))


def split_launch(
    config: DecodeConfig,
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    cache_length: torch.Tensor | None,
    outputs: dict[str, torch.Tensor],
    scores: dict[str, float],
) -> Launch:
    """The grid follows from shapes alone, never from a length."""
    batch, heads, q_len, head_dim = q.shape
    kv_heads, capacity = k_cache.shape[1:3]
    rows = heads // kv_heads * q_len
    block_m = block_rows(rows, 8 * q.itemsize)
    # An absent length is stood in for by q: its pointer is never read.
    length = q if cache_length is None else cache_length
    args: dict[str, Any] = {
        "q_ptr": q,
        "k_ptr": k_cache,
        "v_ptr": v_cache,
        "length_ptr": length,
        "q_len": q_len,
        "group": heads // kv_heads,
        "kv_heads": kv_heads,
        "capacity": capacity,
        **_strides(q, "q", "row"),
        **_strides(k_cache, "k", "key"),
        **_strides(v_cache, "v", "key"),
        "stride_length": 0 if length.numel() == 1 else length.stride(0),
        **outputs,
        **scores,
    }
    constants = {
        "HAS_LENGTH": cache_length is not None,
        "HAS_WINDOW": scores["window"] < capacity,
        "HAS_SOFTCAP": scores["softcap"] > 0,
        "ONE_SPLIT": config.splits == 1,
        "HEAD_DIM": head_dim,
        "BLOCK_M": block_m,
        "BLOCK_N": config.block_n,
        "BLOCK_DIM": max(16, next_power_of_2(head_dim)),
    }
    grid = (batch * kv_heads, config.splits, cdiv(rows, block_m))
    return Launch(decode_split_kernel, grid, args, constants, config.num_warps, config.num_stages)


def merge_launch(config: DecodeConfig, q: torch.Tensor, outputs: dict[str, torch.Tensor]) -> Launch:
    """As many columns a program as keep its tile at 2048 elements, 16 at the least."""
    batch, heads, q_len, head_dim = q.shape
    block_splits = next_power_of_2(config.splits)
    block_dim = min(next_power_of_2(head_dim), max(16, 2048 // block_splits))
    return Launch(
        kernel=_decode_merge_kernel,
        grid=(batch * heads * q_len, cdiv(head_dim, block_dim)),
        args={**outputs, "q_len": q_len, "heads": heads, "splits": config.splits},
        constants={"HEAD_DIM": head_dim, "BLOCK_SPLITS": block_splits, "BLOCK_DIM": block_dim},
        num_warps=max(1, min(4, block_splits * block_dim // 512)),
    )
