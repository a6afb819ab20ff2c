"""Which tile of the output one program of a matrix product computes, and how.

A choice is a plain function of the sizes, the dtype and the GPU: nothing is tuned at run time.
"""

from typing import NamedTuple

import torch

from kernl.launch import cdiv, next_power_of_2


class Tile(NamedTuple):
    """A block of (block_m, block_n) of the output, computed block_k of k at a time."""

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int

    @property
    def accumulators(self) -> int:
        """Float32 sums that each thread holds."""
        return self.block_m * self.block_n // (32 * self.num_warps)

    @property
    def elements(self) -> int:
        """Elements that each thread reads in one step; unaligned ones need an address each."""
        return (self.block_m + self.block_n) * self.block_k // (32 * self.num_warps)


# Largest first. Small tiles with a deep block_k are for outputs that fill few multiprocessors.
HALF_TILES = (
    Tile(128, 256, 64, 8, 3),
    Tile(128, 128, 64, 8, 3),
    Tile(64, 128, 64, 4, 4),
    Tile(64, 64, 64, 4, 4),
    Tile(64, 32, 128, 4, 4),
    Tile(32, 32, 128, 4, 4),
    Tile(16, 32, 128, 4, 4),
)
# As much of shared memory as there is: what comes from memory, and is used once, is waited for
# longest, and so few programs have nobody to take turns with.
DEEP_TILES = (
    Tile(128, 64, 64, 8, 8),
    Tile(128, 64, 64, 4, 8),
    Tile(64, 64, 128, 4, 6),
    Tile(64, 64, 64, 4, 7),
    Tile(128, 32, 128, 4, 5),
    Tile(64, 32, 128, 4, 8),
)
# Rows that start anywhere are read element by element: few of them, or the addresses spill.
UNALIGNED_TILES = (Tile(64, 64, 32, 4, 3), Tile(32, 32, 64, 4, 3), Tile(16, 32, 64, 4, 3))
MOST_UNALIGNED_ELEMENTS = 48
FLOAT_TILES = (Tile(64, 64, 16, 4, 3), Tile(32, 32, 32, 4, 3), Tile(16, 32, 32, 2, 3))

VECTOR_BYTES = 16
"""One thread loads at most this much at once, from an address that is a multiple of it."""

# Programs that keep every multiprocessor of an A100 (108) or an H100 (132) at work.
FULL_GRID = 128


def shared_memory_limit(capability: int) -> int:
    """Bytes of shared memory one program may use, by compute capability.

    Source: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
    """
    if capability in (86, 89, 120, 121):
        return 99 * 1024
    return 163 * 1024 if capability < 90 else 227 * 1024


# A100, RTX 3090, RTX 4090, H100 or H200, B200.
_MULTIPROCESSORS = {80: 108, 86: 82, 89: 128, 90: 132, 100: 148}
_MOST_MULTIPROCESSORS = 148


def multiprocessors(capability: int) -> int:
    """How many multiprocessors the largest GPU of this compute capability has, as sold."""
    return _MULTIPROCESSORS.get(capability, _MOST_MULTIPROCESSORS)


def accumulators_limit(capability: int) -> int:
    """Float32 sums one thread may hold: 128 compile to spills before Hopper, 64 do not.

    On Blackwell they do where a residual is added to them.
    """
    return 128 if 90 <= capability < 100 else 64


def rows_aligned(*matrices: torch.Tensor) -> bool:
    """Whether rows, or columns of a transposed matrix, start at multiples of 16 bytes."""
    return all(
        stride == 1 or stride * matrix.itemsize % VECTOR_BYTES == 0
        for matrix in matrices
        for stride in matrix.stride()
    )


def choose_tile(m: int, n: int, dtype: torch.dtype, capability: int, aligned: bool = True) -> Tile:
    """The largest tile whose grid fills the GPU, with as many stages as shared memory holds.

    Where none fills it, the smallest that still has 64 rows (or all of m): a shorter tile would
    read the weight more often.
    """
    tiles = HALF_TILES if aligned else UNALIGNED_TILES
    if dtype == torch.float32:
        tiles = FLOAT_TILES
    tallest = max(16, next_power_of_2(m))
    usable = [
        tile
        for tile in tiles
        if min(64, tallest) <= tile.block_m <= tallest
        and tile.accumulators <= accumulators_limit(capability)
    ]
    filling = [t for t in usable if cdiv(m, t.block_m) * cdiv(n, t.block_n) >= FULL_GRID]
    tile = filling[0] if filling else usable[-1]
    stage_bytes = (tile.block_m + tile.block_n) * tile.block_k * dtype.itemsize
    stages = shared_memory_limit(capability) // stage_bytes
    return tile._replace(num_stages=max(1, min(tile.num_stages, stages)))
