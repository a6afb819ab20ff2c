"""How `decode_attention` shares out a cache: block of keys, splits, warps, stages.

One program takes the rows of one key head (its query heads times the queries) and one split of the
keys. With few key heads in flight, splits are what fills the GPU. Each split costs a partial result
that is written and read once more, so there are no more of them than the GPU has room for.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from kernl import tuning
from kernl.launch import cdiv, next_power_of_2
from kernl.ops.tile import shared_memory_limit
from kernl.tables import Key, Tunable

# Two programs on each multiprocessor of an H100 (132): one computes while the other waits.
FULL_GRID = 264
# The merge holds one column of all splits in the registers of one program.
MOST_SPLITS = 256
# Rows of one program, by bits; a group of more query rows is taken in several blocks. Without
# tensor cores each row costs a thread its own multiplications and registers.
MOST_ROWS = {16: 64, 32: 16}


class DecodeConfig(NamedTuple):
    """Keys of one step, programs that share the keys of one head, warps, pipeline depth."""

    block_n: int
    splits: int
    num_warps: int
    num_stages: int


def block_rows(rows: int, bits: int) -> int:
    """Rows of a program's tile: `tl.dot` takes 16 or more.

    A single row of float32 is multiplied without `tl.dot`: 15 rows of padding would cost as much
    as 15 rows, as there are no tensor cores for float32.
    """
    if rows == 1 and bits == 32:
        return 1
    return min(MOST_ROWS[bits], max(16, next_power_of_2(rows)))


def choose_config(capability: int, q: torch.Tensor, k_cache: torch.Tensor) -> DecodeConfig:
    """The configuration of one call, by shapes alone: it holds for every length of the cache.

    The capacity counts by the power of two above it, so that a cache that grows with each token
    asks for few classes.
    """
    batch, heads, q_len, head_dim = q.shape
    _, kv_heads, capacity, _ = k_cache.shape
    rows = heads // kv_heads * q_len
    bits = 8 * q.itemsize
    block_m = block_rows(rows, bits)
    return tuning.choose(
        DECODE_TUNABLE,
        capability,
        q.device,
        bits=bits,
        head_block=max(16, next_power_of_2(head_dim)),
        group_block=block_m,
        programs=batch * kv_heads * cdiv(rows, block_m),
        capacity=next_power_of_2(capacity),
    )


def _stage_bytes(key: Key, block_n: int) -> int:
    """Shared memory of one block of keys and one of values."""
    return 2 * block_n * int(key["head_block"]) * int(key["bits"]) // 8


def _splits(key: Key, block_n: int, grid: int) -> int:
    """Splits that make `grid` programs, with a block of keys or more in each."""
    blocks = cdiv(int(key["capacity"]), block_n)
    return max(1, min(grid // int(key["programs"]), blocks, MOST_SPLITS))


def _default(capability: int, key: Key) -> DecodeConfig:
    """Where no table speaks: the widest block that half of shared memory holds twice, or 16."""
    room = shared_memory_limit(capability) // 2
    block_n = 32 if key["bits"] == 32 else 64
    while block_n > 16 and 2 * _stage_bytes(key, block_n) > room:
        block_n //= 2
    # A loop without tl.dot has no pipeline.
    num_stages = 1 if key["group_block"] == 1 else min(3, room // _stage_bytes(key, block_n))
    num_warps = 4 if _in_registers(capability, key, block_n, 4) else 8
    return DecodeConfig(block_n, _splits(key, block_n, FULL_GRID), num_warps, num_stages)


def _in_registers(capability: int, key: Key, block_n: int, num_warps: int) -> bool:
    """Whether it compiles to no spills, as seen with Triton 3.7.1 for each kind of tile."""
    rows, dims, threads = int(key["group_block"]), int(key["head_block"]), 32 * num_warps
    if rows == 1:
        return block_n * dims <= 64 * threads
    if key["bits"] == 32:
        return num_warps == 8 and block_n <= 32 and block_n * dims <= 32 * 128
    # On the tensor cores of Hopper and of data-centre Blackwell operands stay in shared memory.
    most = 96 if 90 <= capability < 120 else 72
    return rows * (dims + block_n) <= most * threads


def _fits(capability: int, key: Key, config: DecodeConfig) -> bool:
    return (
        config.splits <= MOST_SPLITS
        and config.num_stages * _stage_bytes(key, config.block_n) <= shared_memory_limit(capability)
        and _in_registers(capability, key, config.block_n, config.num_warps)
    )


def _candidate_tiles(capability: int, key: Key) -> tuple[tuple[int, int, int], ...]:
    """Keys of one step, warps, stages."""
    if key["group_block"] == 1:
        return (16, 2, 1), (16, 4, 1), (32, 4, 1), (64, 4, 1), (64, 8, 1)
    if key["bits"] == 32:
        return (16, 8, 2), (16, 8, 3), (32, 8, 2), (32, 8, 3)
    warps = 4 if _in_registers(capability, key, 64, 4) else 8
    narrowest = 16 if key["head_block"] == 256 else 32
    return (narrowest, warps, 3), (64, warps, 2), (64, warps, 3), (128, warps, 2), (128, 8, 3)


def _candidates(capability: int, key: Key) -> Iterator[DecodeConfig]:
    """What the tuner times for one class: few and many splits of each tile that fits."""
    for block_n, num_warps, num_stages in _candidate_tiles(capability, key):
        grids = (0, FULL_GRID // 2, FULL_GRID, 2 * FULL_GRID)
        for splits in sorted({_splits(key, block_n, grid) for grid in grids}):
            config = DecodeConfig(block_n, splits, num_warps, num_stages)
            if _fits(capability, key, config):
                yield config


DECODE_TUNABLE: Tunable[DecodeConfig] = Tunable(
    name="decode_attention",
    exact=("bits", "head_block", "group_block"),
    sizes=("programs", "capacity"),
    config=DecodeConfig,
    default=_default,
    candidates=_candidates,
    fits=_fits,
)
