"""What the row-wise operators share: a two-dimensional view, and how programs cover its rows.

| path | what one program does | for |
| --- | --- | --- |
| `tile` | holds whole rows in registers, several where they are narrow | up to `widest` columns |
| `loop` | walks one row in blocks, twice | wider rows |
| `split` | takes one block of a row, in two launches (softmax alone) | few of them |

Which, how many rows a program takes and how many warps it has come from the operator's table in
`kernl/tuned`, or from `default` below where a GPU has none. On the path `loop` rows that start
anywhere, as those of an odd width do, are cut first: `kernl.ops.odd_rows`.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch

from kernl.launch import cdiv, next_power_of_2
from kernl.ops.tile import FULL_GRID
from kernl.tables import Key, Tunable
from kernl.tuning import choose

# 32 warps, the most that a program has, hold 32 fp32 values a thread of a row this wide.
MAX_TILE_COLS = 32768
MAX_VALUES_PER_THREAD = 32

# A program of the second launch on the path `split` reads what so many blocks left.
MOST_BLOCKS = 1024

_INT32_MAX = 2**31 - 1
_WARP = 32


WIDTHS = (1024, 4096, 8192, 16384, 16400, 32768, 32800, 65536, 131071, 131072)
SWEEP = tuple((2**24 // cols, cols) for cols in WIDTHS)
"""Rows and columns of 16 million elements, on both sides of each change of path."""


class RowConfig(NamedTuple):
    """The path, rows of one program, columns of a block on the paths `loop` and `split`, warps."""

    path: str
    block_rows: int
    loop_cols: int
    num_warps: int


SHARED = RowConfig("split", 1, 4096, 8)
"""The rule for few wide rows, where the operator has that path."""


class RowTile(NamedTuple):
    """What a launch needs: the grid, the block of (block_rows, block_cols), and warps."""

    path: str
    programs: int
    block_rows: int
    block_cols: int
    num_warps: int


def row_tile(
    tunable: Tunable[RowConfig], capability: int, x: torch.Tensor, variant: int = 0
) -> RowTile:
    """How programs cover the rows of `x` (rows, cols).

    `variant` tells apart what costs differently: a residual, a mask.
    """
    rows, cols = x.shape
    bits = 8 * x.itemsize
    config = choose(tunable, capability, x.device, bits=bits, variant=variant, rows=rows, cols=cols)
    if config.path != "tile":
        block_cols = min(config.loop_cols, next_power_of_2(cols))
        return RowTile(config.path, rows, 1, block_cols, config.num_warps)
    block_rows = min(config.block_rows, next_power_of_2(rows))
    block_cols = next_power_of_2(cols)
    return RowTile("tile", cdiv(rows, block_rows), block_rows, block_cols, config.num_warps)


def default(capability: int, key: Key, widest: int, split: bool) -> RowConfig:
    """8 elements a thread, several rows where they are narrow."""
    rows, cols = int(key["rows"]), int(key["cols"])
    if cols > widest:
        if rows <= FULL_GRID and fits(capability, key, SHARED, widest, split):
            return SHARED
        return RowConfig("loop", 1, 8192, 16)
    block_cols = next_power_of_2(cols)
    block_rows = min(max(1, 1024 // block_cols), next_power_of_2(rows))
    num_warps = min(max(block_rows * block_cols // 256, 1), 16 if block_cols <= 16384 else 32)
    return RowConfig("tile", block_rows, 8192, num_warps)


def candidates(capability: int, key: Key) -> Iterator[RowConfig]:
    """Every path, with 2 to 32 values a thread."""
    rows, cols = int(key["rows"]), int(key["cols"])
    block_cols = next_power_of_2(cols)
    if cols > 8192 and rows <= 2 * FULL_GRID:
        for loop_cols in (2048, 4096, 8192):
            for num_warps in (4, 8):
                yield RowConfig("split", 1, loop_cols, num_warps)
    if cols > 4096:
        for loop_cols in (4096, 8192, 16384):
            for num_warps in (8, 16, 32):
                yield RowConfig("loop", 1, loop_cols, num_warps)
    for block_rows in (1, 2, 4, 8, 16, 32):
        if block_rows > next_power_of_2(rows) or block_rows * block_cols > 32768:
            continue
        for num_warps in (1, 2, 4, 8, 16, 32):
            values = block_rows * block_cols / (_WARP * num_warps)
            if 2 <= values <= MAX_VALUES_PER_THREAD or (num_warps == 1 and values < 2):
                yield RowConfig("tile", block_rows, 8192, num_warps)


def fits(capability: int, key: Key, config: RowConfig, widest: int, split: bool) -> bool:
    """Whether a program's rows fit its registers, and there is such a path."""
    cols = int(key["cols"])
    block_cols = next_power_of_2(cols)
    if config.path == "split" and (not split or cdiv(cols, config.loop_cols) > MOST_BLOCKS):
        return False
    if config.path != "tile":
        return config.loop_cols // (_WARP * config.num_warps) <= MAX_VALUES_PER_THREAD
    values = config.block_rows * block_cols // (_WARP * config.num_warps)
    return block_cols <= widest and values <= MAX_VALUES_PER_THREAD


def extends(capability: int, key: Key, config: RowConfig, widest: int, split: bool) -> bool:
    """Whether a loop that was the fastest for other rows may be taken for these.

    A loop gains by the programs beside it on a multiprocessor: rows that do not fill the GPU are
    better held whole, or shared.
    """
    if config.path != "loop":
        return True
    rows = int(key["rows"])
    if next_power_of_2(int(key["cols"])) <= widest:
        return rows > 4 * FULL_GRID
    return 4 * rows > 3 * FULL_GRID or not fits(capability, key, SHARED, widest, split)


def row_tunable(name: str, widest: int = MAX_TILE_COLS, split: bool = False) -> Tunable[RowConfig]:
    """What a row-wise operator lets be tuned; rows above `widest` columns are never held whole.

    `split`: it has a path on which several programs share a row.
    """
    return Tunable(
        name=name,
        exact=("bits", "variant"),
        sizes=("rows", "cols"),
        config=RowConfig,
        default=partial(default, widest=widest, split=split),
        candidates=candidates,
        fits=partial(fits, widest=widest, split=split),
        extends=partial(extends, widest=widest, split=split),
    )


def as_rows(x: torch.Tensor) -> torch.Tensor:
    """`x` (…, cols) as (rows, cols): a view where strides allow it, else a contiguous copy.

    A copy is also made where a column's offset inside its row would not fit 32 bits.
    """
    cols = x.shape[-1]
    flat = x.reshape(-1, cols) if x.numel() else x.new_empty((0, cols))
    return flat if (cols - 1) * flat.stride(1) <= _INT32_MAX else flat.contiguous()
