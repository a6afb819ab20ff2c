"""Rows that are few and wide, as the logits of a vocabulary: several programs share one row.

Each program takes one chunk of its row and leaves what it found; a later launch reads what all
chunks of a row left. With as many rows as programs are wanted, a chunk is a whole row.
"""

from typing import NamedTuple

from kernl.launch import cdiv, next_power_of_2

# Two programs for every multiprocessor of an H100 (132).
ENOUGH_PROGRAMS = 264


class Chunks(NamedTuple):
    """`programs` share a row, each with `cols` of its columns, the last perhaps with fewer."""

    programs: int
    cols: int


def cut(cols: int, programs: int, block_cols: int) -> Chunks:
    """A row of `cols` for about `programs` programs, in chunks of whole blocks."""
    chunk_cols = cdiv(cdiv(cols, programs), block_cols) * block_cols
    return Chunks(cdiv(cols, chunk_cols), chunk_cols)


def programs_a_row(rows: int, cols: int, block_cols: int, most: int) -> int:
    """As few as fill the GPU, a power of two, each with one block of columns at the least."""
    filling = next_power_of_2(max(1, ENOUGH_PROGRAMS // rows) // 2 + 1)
    return max(1, min(filling, next_power_of_2(cdiv(cols, block_cols)), most))
