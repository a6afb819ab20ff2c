"""What the row-wise operators share: a two-dimensional view, and the tile that covers its rows."""

from typing import NamedTuple

import torch

from kernl.launch import next_power_of_2

# A row up to this wide stays in one program's registers: 16 warps hold 32 fp32 values a thread.
MAX_TILE_COLS = 16384
# Wider rows are walked in blocks of this many columns.
LOOP_BLOCK_COLS = 4096

_INT32_MAX = 2**31 - 1


class RowTile(NamedTuple):
    """Rows and columns that one program covers, and its warps."""

    block_rows: int
    block_cols: int
    num_warps: int


def row_tile(rows: int, cols: int) -> RowTile:
    """One program takes whole rows, several where they are narrow; 8 elements a thread.

    Rows wider than `MAX_TILE_COLS` get a block of `LOOP_BLOCK_COLS`, walked in a loop.
    """
    if cols > MAX_TILE_COLS:
        return RowTile(1, LOOP_BLOCK_COLS, 16)
    block_cols = next_power_of_2(cols)
    block_rows = min(max(1, 1024 // block_cols), next_power_of_2(rows))
    num_warps = min(max(block_rows * block_cols // 256, 1), 16)
    return RowTile(block_rows, block_cols, num_warps)


def as_rows(x: torch.Tensor) -> torch.Tensor:
    """`x` (…, cols) as (rows, cols): a view where strides allow it, else a contiguous copy.

    A copy is also made where a column's offset inside its row would not fit 32 bits.
    """
    cols = x.shape[-1]
    flat = x.reshape(-1, cols) if x.numel() else x.new_empty((0, cols))
    return flat if (cols - 1) * flat.stride(1) <= _INT32_MAX else flat.contiguous()
