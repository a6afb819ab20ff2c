"""How `linear` computes a product of a given size: on which path, with which blocks.

| path | what runs | for |
| --- | --- | --- |
| `tile` | one program computes one tile of the output, on the tensor cores | most shapes |
| `split` | several programs share a tile's inner dimension, another pass adds up | few tiles |
| `gemv` | multiply and add without tensor cores, 16 rows of x at most | one or a few tokens |
| `tma` | as `tile`, blocks moved by Hopper's copy engine, next tile begun early | many rows |
| `wave` | as `tma`, a tile for each program, one and a half blocks wide | what runs all at once |
| `library` | cuBLAS, then a pass for what it leaves over | where that is faster |

A choice is a plain function of the sizes, the element's bits and the GPU, read from the table
`kernl/tuned/linear.csv` where the GPU's architecture has rows in it: nothing is searched for when
a user calls.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from kernl.launch import cdiv, next_power_of_2
from kernl.ops.tile import (
    DEEP_TILES,
    FLOAT_TILES,
    FULL_GRID,
    HALF_TILES,
    MOST_UNALIGNED_ELEMENTS,
    UNALIGNED_TILES,
    Tile,
    accumulators_limit,
    choose_tile,
    shared_memory_limit,
)
from kernl.tables import Key, Tunable

GEMV_MOST_ROWS = 16
"""From 16 rows on nothing of a tensor core's tile is wasted."""
_GEMV_RULE_ROWS = 4
"""Where no table speaks. Each row is another multiplication for every element of the weight."""
_GEMV_BLOCKS = ((2, 512, 4), (4, 512, 4), (8, 512, 4), (2, 1024, 4), (1, 512, 4), (2, 256, 4))
"""Columns of the output, elements of k at a time, warps."""

_MORE_TILES = (
    Tile(128, 256, 64, 8, 4),
    Tile(128, 128, 64, 4, 4),
    Tile(128, 64, 64, 4, 4),
    Tile(64, 256, 64, 4, 4),
    Tile(64, 64, 128, 4, 4),
    Tile(32, 64, 128, 4, 4),
    Tile(16, 64, 128, 4, 4),
    Tile(16, 32, 256, 4, 3),
    Tile(16, 16, 256, 4, 4),
    *DEEP_TILES,
)

BY_TMA = ("tma", "wave")
"""The paths on which Hopper's copy engine moves the blocks."""

# With 128 of k at a time a program waits for its blocks half as often.
_TMA_TILES = (
    Tile(128, 256, 64, 8, 4),
    Tile(128, 256, 64, 8, 3),
    Tile(256, 128, 64, 8, 3),
    Tile(128, 256, 128, 8, 2),
    Tile(128, 128, 128, 8, 3),
    Tile(128, 128, 64, 8, 4),
    Tile(128, 128, 64, 4, 4),
)
_TMA_FEWEST_TILES = 132
"""With fewer no program has a second tile to begin early."""

_WAVE_TILES = (
    Tile(128, 96, 64, 4, 4),
    Tile(128, 96, 64, 8, 4),
    Tile(128, 192, 64, 4, 3),
    Tile(64, 96, 64, 4, 4),
    Tile(64, 96, 64, 4, 8),
    Tile(64, 192, 64, 4, 4),
    Tile(128, 96, 128, 4, 2),
    Tile(64, 96, 128, 4, 4),
    # One program on each multiprocessor, which waits for memory alone.
    Tile(128, 96, 64, 4, 7),
    Tile(128, 96, 64, 8, 7),
    Tile(64, 192, 64, 4, 6),
    # Few rows: with tiles of 64 columns two fifths of the multiprocessors have none.
    Tile(64, 48, 128, 4, 6),
)
_WAVE_MOST_TILES = 2 * 132
"""Two programs on each multiprocessor."""


class LinearConfig(NamedTuple):
    """A path, a block of (block_m, block_n) outputs, block_k of k at a time.

    `split_k` programs share the inner dimension of one block on the path `split`.
    """

    path: str
    block_m: int
    block_n: int
    block_k: int
    split_k: int
    num_warps: int
    num_stages: int


LIBRARY = LinearConfig("library", 16, 64, 16, 1, 4, 1)
"""The block is that of the pass after the product."""


def _of_tile(tile: Tile) -> LinearConfig:
    return LinearConfig(
        "tile", tile.block_m, tile.block_n, tile.block_k, 1, tile.num_warps, tile.num_stages
    )


def _default(capability: int, key: Key) -> LinearConfig:
    """Where no table speaks: the tile that fills the GPU, shared out where there are too few."""
    m, n, k = (int(key[name]) for name in ("m", "n", "k"))
    if m <= _GEMV_RULE_ROWS:
        return LinearConfig("gemv", 1, 4, 512, 1, 4, 1)
    large = _of_tile(_TMA_TILES[0])._replace(path="tma")
    tiles = cdiv(m, large.block_m) * cdiv(n, large.block_n)
    if tiles > _TMA_FEWEST_TILES and _fits(capability, key, large):
        return large
    dtype = torch.float32 if key["bits"] == 32 else torch.float16
    config = _of_tile(choose_tile(m, n, dtype, capability, bool(key["aligned"])))
    programs = cdiv(m, config.block_m) * cdiv(n, config.block_n)
    split = min(8, FULL_GRID // (2 * programs), k // (4 * config.block_k))
    return config._replace(path="split", split_k=split) if split > 1 else config


def _fits(capability: int, key: Key, config: LinearConfig) -> bool:
    m, bits = int(key["m"]), int(key["bits"])
    if config.path == "gemv":
        # A program keeps a sum for each row and each element of the weight's block.
        sums = next_power_of_2(m) * config.block_n * config.block_k // (32 * config.num_warps)
        return m <= GEMV_MOST_ROWS and sums <= accumulators_limit(capability)
    if config.path == "library":
        return True
    stage = (config.block_m + config.block_n) * config.block_k * bits // 8
    if config.path in BY_TMA:
        held = config.num_stages * stage
        if config.path == "tma":
            # Half a tile of results, or a quarter each of residual and results.
            held += config.block_m * config.block_n // 2 * bits // 8
        return bool(
            capability >= 90
            and bits == 16
            and key["aligned"]
            and held <= shared_memory_limit(capability)
        )
    elements = (config.block_m + config.block_n) * config.block_k // (32 * config.num_warps)
    return bool(
        (key["aligned"] or elements <= MOST_UNALIGNED_ELEMENTS)
        and config.block_m <= max(16, next_power_of_2(m))
        and config.num_stages * stage <= shared_memory_limit(capability)
        and config.block_m * config.block_n // (32 * config.num_warps)
        <= accumulators_limit(capability)
    )


def _candidates(capability: int, key: Key) -> Iterator[LinearConfig]:
    """What the tuner times for one class: every path that can run it."""
    m, n, k, bits = (int(key[name]) for name in ("m", "n", "k", "bits"))
    yield LIBRARY
    if m <= GEMV_MOST_ROWS:
        for block_n, block_k, num_warps in _GEMV_BLOCKS:
            yield LinearConfig("gemv", 1, block_n, block_k, 1, num_warps, 1)
    halves = (*HALF_TILES, *_MORE_TILES) if key["aligned"] else UNALIGNED_TILES
    tiles = FLOAT_TILES if bits == 32 else halves
    for tile in tiles:
        config = _of_tile(tile)
        if not _fits(capability, key, config) or tile.block_m < min(64, max(16, m)):
            continue
        programs = cdiv(m, tile.block_m) * cdiv(n, tile.block_n)
        if programs <= 2048 or tile.block_m * tile.block_n >= 64 * 128:
            yield config
        for split in (2, 4, 8):
            if programs * split <= 512 and split * 4 * tile.block_k <= k:
                yield config._replace(path="split", split_k=split)
    for tile in _TMA_TILES:
        config = _of_tile(tile)._replace(path="tma")
        enough = cdiv(m, tile.block_m) * cdiv(n, tile.block_n) > _TMA_FEWEST_TILES
        if enough and _fits(capability, key, config):
            yield config
    for tile in _WAVE_TILES:
        config = _of_tile(tile)._replace(path="wave")
        if _at_once(key, config) and m >= tile.block_m and _fits(capability, key, config):
            yield config


def _at_once(key: Key, config: LinearConfig) -> bool:
    tiles = cdiv(int(key["m"]), config.block_m) * cdiv(int(key["n"]), config.block_n)
    return tiles <= _WAVE_MOST_TILES


def _extends(capability: int, key: Key, config: LinearConfig) -> bool:
    """One wave where it was timed may be one and a bit for other sizes."""
    return config.path != "wave" or _at_once(key, config)


LINEAR_TUNABLE: Tunable[LinearConfig] = Tunable(
    name="linear",
    exact=("bits", "aligned", "extra_pass"),
    sizes=("m", "n", "k"),
    config=LinearConfig,
    default=_default,
    candidates=_candidates,
    fits=_fits,
    extends=_extends,
)
"""`aligned`: rows start at multiples of 16 bytes. `extra_pass`: cuBLAS leaves something over."""
