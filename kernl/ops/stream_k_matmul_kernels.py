"""The two launches of `stream_k_matmul`: the product, and the sums of tiles that were shared."""

import triton
import triton.language as tl

from kernl.ops.grouped import grouped_tile


@triton.jit
def _share(program, programs, total):
    """The steps [first, last) of one program; the first programs have one more."""
    each, over = total // programs, total % programs
    first = program * each + tl.minimum(program, over)
    return first, first + each + (program < over).to(tl.int32)


@triton.jit
def _piece(
    a_ptr,
    b_ptr,
    tile_m,
    tile_n,
    m,
    n,
    k,
    first,
    last,
    stride_a_m,
    stride_a_k,
    stride_b_k,
    stride_b_n,
    EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Steps [first, last) of one tile, summed in float32."""
    m_offs = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n_offs = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    k_offs = first * BLOCK_K + tl.arange(0, BLOCK_K)
    # Past the end the first row is read again: only k needs a mask, and no such sum is stored.
    rows = tl.where(m_offs < m, m_offs, 0).to(tl.int64)[:, None]
    columns = tl.where(n_offs < n, n_offs, 0).to(tl.int64)[None, :]
    a_ptrs = a_ptr + rows * stride_a_m + k_offs.to(tl.int64)[None, :] * stride_a_k
    b_ptrs = b_ptr + columns * stride_b_n + k_offs.to(tl.int64)[:, None] * stride_b_k
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(first, last):
        if EVEN_K:
            a, b = tl.load(a_ptrs), tl.load(b_ptrs)
        else:
            mask = step * BLOCK_K + tl.arange(0, BLOCK_K) < k
            a = tl.load(a_ptrs, mask=mask[None, :], other=0.0)
            b = tl.load(b_ptrs, mask=mask[:, None], other=0.0)
        acc = tl.dot(a, b, acc, input_precision="ieee")
        a_ptrs += BLOCK_K * stride_a_k
        b_ptrs += BLOCK_K * stride_b_k
    return acc


@triton.jit
def _store(out_ptr, acc, tile_m, tile_n, m, n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """One tile of out (m, n), contiguous."""
    m_offs = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n_offs = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = (m_offs < m)[:, None] & (n_offs < n)[None, :]
    out_ptrs = out_ptr + m_offs.to(tl.int64)[:, None] * n + n_offs[None, :]
    tl.store(out_ptrs, acc.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _partial_offsets(program, slot, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Where a program leaves a piece: slot 0 if it does not begin its tile, else slot 1."""
    block = (program * 2 + slot).to(tl.int64) * BLOCK_M * BLOCK_N
    return block + tl.arange(0, BLOCK_M)[:, None] * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]


@triton.jit
def stream_k_kernel(
    a_ptr,
    b_ptr,
    out_ptr,
    partial_ptr,
    m,
    n,
    k,
    tiles,
    shared,
    stride_a_m,
    stride_a_k,
    stride_b_k,
    stride_b_n,
    EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """One program a multiprocessor: its share of the shared tiles' steps, then its whole tiles.

    The shapes: a (m, k), b (k, n), out (m, n), partial (programs, 2, BLOCK_M, BLOCK_N).
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    steps = tl.cdiv(k, BLOCK_K)

    step, last = _share(program, programs, shared * steps)
    tile = step // steps
    while step < last:
        begin = tile * steps
        end = tl.minimum(last, begin + steps)
        tile_m, tile_n = grouped_tile(tile, tiles_m, tiles_n, GROUP_M)
        # fmt: off
        acc = _piece(
            a_ptr, b_ptr, tile_m, tile_n, m, n, k, step - begin, end - begin,
            stride_a_m, stride_a_k, stride_b_k, stride_b_n, EVEN_K, BLOCK_M, BLOCK_N, BLOCK_K,
        )
        # fmt: on
        if end - step == steps:
            _store(out_ptr, acc, tile_m, tile_n, m, n, BLOCK_M, BLOCK_N)
        else:
            slot = (step == begin).to(tl.int32)
            tl.store(partial_ptr + _partial_offsets(program, slot, BLOCK_M, BLOCK_N), acc)
        step = end
        tile += 1

    for whole in range(shared + program, tiles, programs):
        tile_m, tile_n = grouped_tile(whole, tiles_m, tiles_n, GROUP_M)
        # fmt: off
        acc = _piece(
            a_ptr, b_ptr, tile_m, tile_n, m, n, k, 0, steps,
            stride_a_m, stride_a_k, stride_b_k, stride_b_n, EVEN_K, BLOCK_M, BLOCK_N, BLOCK_K,
        )
        # fmt: on
        _store(out_ptr, acc, tile_m, tile_n, m, n, BLOCK_M, BLOCK_N)


@triton.jit
def stream_k_fix_up_kernel(
    partial_ptr,
    out_ptr,
    m,
    n,
    k,
    programs,
    shared,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """Sum the pieces of one shared tile, in the order of k, unless one program had it whole."""
    tile = tl.program_id(0)
    steps = tl.cdiv(k, BLOCK_K)
    total = shared * steps
    each, over = total // programs, total % programs
    # The program that has the first step of this tile: the first `over` have one step more.
    begin = tile * steps
    in_longer = over * (each + 1)
    program = begin // (each + 1)
    if begin >= in_longer:
        program = over + (begin - in_longer) // each
    step, last = _share(program, programs, total)
    if (step <= begin) & (last >= begin + steps):
        return

    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    while step < begin + steps:
        slot = (step <= begin).to(tl.int32)
        acc += tl.load(partial_ptr + _partial_offsets(program, slot, BLOCK_M, BLOCK_N))
        program += 1
        step, last = _share(program, programs, total)
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    tile_m, tile_n = grouped_tile(tile, tiles_m, tiles_n, GROUP_M)
    _store(out_ptr, acc, tile_m, tile_n, m, n, BLOCK_M, BLOCK_N)
