"""How `conv1d` reads its operands, and which tile of the output one of its programs computes.

Operands that lie as k counts are read in vectors, several blocks ahead; others element by element,
each block when it is needed: of those a program may have few, or their addresses spill, and deep
blocks keep more of them on their way. A choice is read from `kernl/tuned/conv1d.csv` where the
GPU's architecture has rows in it. Where none speaks it is the largest tile whose grid fills the
GPU.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from kernl.launch import cdiv, next_power_of_2
from kernl.ops.tile import (
    FLOAT_TILES,
    FULL_GRID,
    MOST_UNALIGNED_ELEMENTS,
    VECTOR_BYTES,
    Tile,
    accumulators_limit,
    shared_memory_limit,
)
from kernl.tables import Key, Tunable

_KNOWN_DIVISOR = 16
"""Triton sees of a stride whether it is a multiple of so many elements."""

# Largest first.
_HALF_TILES = (
    Tile(128, 128, 64, 8, 3),
    Tile(128, 64, 64, 8, 4),
    Tile(128, 64, 64, 4, 4),
    Tile(128, 64, 32, 4, 4),
    Tile(64, 128, 64, 8, 4),
    Tile(64, 128, 64, 4, 4),
    Tile(64, 128, 32, 4, 4),
    Tile(64, 64, 64, 4, 4),
    Tile(64, 64, 32, 4, 4),
    Tile(64, 64, 128, 8, 3),
    Tile(64, 64, 128, 4, 3),
    Tile(64, 32, 128, 4, 4),
    Tile(32, 128, 128, 8, 3),
    Tile(32, 64, 256, 8, 2),
    Tile(32, 64, 128, 4, 4),
    Tile(32, 64, 64, 4, 4),
    Tile(32, 32, 128, 4, 4),
    Tile(32, 32, 64, 4, 4),
    Tile(16, 32, 128, 4, 4),
    Tile(16, 32, 64, 4, 4),
)


class Layout(NamedTuple):
    """How k counts taps and channels, and how the operands lie.

    Attributes:
        taps_inner: k counts the taps of a channel before it goes on to the next channel.
        weight_in_order: the weight's rows lie in memory as k counts.
        x_vectors: neighbours in k lie side by side in x, 16 bytes of them at multiples of 16.
        weight_vectors: the same of the weight.
    """

    taps_inner: bool
    weight_in_order: bool
    x_vectors: bool
    weight_vectors: bool

    @classmethod
    def of(cls, x: torch.Tensor, weight: torch.Tensor) -> "Layout":
        """That of x (batch, channels, length) and weight (n, channels, taps)."""
        _, channels, taps = weight.shape
        channels_in_rows = x.stride(1) == 1
        taps_inner = not channels_in_rows and weight[0].is_contiguous()
        in_order = taps_inner or weight[0].t().is_contiguous()
        whole = channels * x.itemsize % VECTOR_BYTES == 0
        if in_order:
            weight_vectors = taps * channels * x.itemsize % VECTOR_BYTES == 0
        else:
            weight_vectors = whole and weight.stride(1) == 1 and _known(weight.stride(2))
        return cls(
            taps_inner=taps_inner,
            weight_in_order=in_order,
            x_vectors=whole and channels_in_rows and _known(x.stride(0), x.stride(2)),
            weight_vectors=weight_vectors and _known(weight.stride(0)),
        )


def positions(length: int, kernel_size: int, stride: int, padding: int) -> int:
    """How many positions the output has; less than 1 where there is none."""
    return (length + 2 * padding - kernel_size) // stride + 1


def _known(*strides: int) -> bool:
    return all(stride % _KNOWN_DIVISOR == 0 for stride in strides)


def _tiles(key: Key) -> Iterator[Tile]:
    """What may be chosen, with no more of k at a time than there is."""
    k = int(key["k"])
    for tile in FLOAT_TILES if key["bits"] == 32 else _HALF_TILES:
        yield tile._replace(block_k=min(tile.block_k, max(16, next_power_of_2(k))))


def _default(capability: int, key: Key) -> Tile:
    """Where no table speaks: the largest tile that fills the GPU.

    Where none does, the smallest that still has 64 positions, or all of them: a shorter one would
    read the weight more often.
    """
    tall = [tile for tile in _candidates(capability, key) if tile.block_m >= _shortest(key)]
    filling = [tile for tile in tall if _programs(key, tile) >= FULL_GRID]
    return filling[0] if filling else tall[-1]


def _shortest(key: Key) -> int:
    return min(64, max(16, next_power_of_2(int(key["m"]))))


def _programs(key: Key, tile: Tile) -> int:
    batch, m, n = (int(key[name]) for name in ("batch", "m", "n"))
    return batch * cdiv(m, tile.block_m) * cdiv(n, tile.block_n)


def _candidates(capability: int, key: Key) -> Iterator[Tile]:
    """Each tile that can run."""
    yield from dict.fromkeys(tile for tile in _tiles(key) if _fits(capability, key, tile))


def _fits(capability: int, key: Key, tile: Tile) -> bool:
    m, itemsize = int(key["m"]), int(key["bits"]) // 8
    stage = (tile.block_m + tile.block_n) * tile.block_k * itemsize
    one_by_one = (0 if key["x_vectors"] else tile.block_m) + (
        0 if key["weight_vectors"] else tile.block_n
    )
    one_by_one = one_by_one * tile.block_k // (32 * tile.num_warps)
    return bool(
        one_by_one <= MOST_UNALIGNED_ELEMENTS
        and tile.block_m <= max(16, next_power_of_2(m))
        and tile.num_stages * stage <= shared_memory_limit(capability)
        and tile.accumulators <= accumulators_limit(capability)
    )


CONV1D_TUNABLE: Tunable[Tile] = Tunable(
    name="conv1d",
    exact=("bits", "x_vectors", "weight_vectors"),
    sizes=("batch", "m", "n", "k"),
    config=Tile,
    default=_default,
    candidates=_candidates,
    fits=_fits,
)
"""`m` counts positions of the output, `k` taps · channels."""
