"""What operators with a norm behind a linear layer may choose, beside paths of their own.

`kernl/ops/linear_norm.py` says what runs on the paths `two`, `late`, `split` and `split_tma`.
"""

from collections.abc import Iterator

from kernl.launch import cdiv, next_power_of_2
from kernl.ops.linear_config import LinearConfig
from kernl.ops.tile import DEEP_TILES, HALF_TILES, Tile, accumulators_limit, shared_memory_limit
from kernl.tables import Key

TWO = LinearConfig("two", 16, 16, 16, 1, 4, 1)
"""The linear layer and the norm choose their own blocks; those here are not read."""
LATE = TWO._replace(path="late")

SPLITS = ("split", "split_tma")
"""Paths on which programs share a product's inner dimension."""

MOST_COLS = 8192
"""Whoever adds up holds whole rows in registers."""
_MOST_ROWS = 2048
_MOST_PROGRAMS = 512
_TILES = (*HALF_TILES, *DEEP_TILES, Tile(16, 16, 256, 4, 4), Tile(16, 32, 256, 4, 3))
_TMA_TILES = (
    Tile(128, 128, 64, 8, 4),
    Tile(128, 128, 64, 4, 4),
    Tile(128, 128, 64, 8, 6),
    Tile(128, 64, 64, 4, 6),
    Tile(128, 64, 64, 8, 8),
    Tile(128, 64, 128, 4, 4),
    Tile(64, 128, 64, 4, 6),
    Tile(64, 64, 64, 4, 8),
    Tile(64, 64, 128, 4, 5),
    Tile(64, 32, 128, 4, 8),
)
_SPLITS = (1, 2, 3, 4, 6, 8)


def split_configs(key: Key) -> Iterator[LinearConfig]:
    """What the tuner times on the paths `split` and `split_tma`."""
    m, n, k = (int(key[name]) for name in ("m", "n", "k"))
    for path, tiles in zip(SPLITS, (_TILES, _TMA_TILES), strict=True):
        for tile in tiles:
            for split in _SPLITS:
                programs = split * cdiv(m, tile.block_m) * cdiv(n, tile.block_n)
                if programs <= _MOST_PROGRAMS and (split == 1 or split * 2 * tile.block_k <= k):
                    blocks = (tile.block_m, tile.block_n, tile.block_k)
                    yield LinearConfig(path, *blocks, split, tile.num_warps, tile.num_stages)


def split_fits(capability: int, key: Key, config: LinearConfig) -> bool:
    """Whether such blocks can run there: shared memory, registers, rows and columns."""
    m, n = int(key["m"]), int(key["n"])
    stage = 2 * (config.block_m + config.block_n) * config.block_k
    sums = config.block_m * config.block_n // (32 * config.num_warps)
    return (
        key["bits"] == 16
        and (config.path == "split" or capability >= 90)
        and m <= _MOST_ROWS
        and n <= MOST_COLS
        and config.block_m <= max(16, next_power_of_2(m))
        and sums <= accumulators_limit(capability)
        and config.num_stages * stage <= shared_memory_limit(capability)
    )
