"""The order in which programs take the tiles of a matrix product.

Programs that run together should read the same blocks of both operands while they are in L2. So
tiles are numbered in groups of GROUP_M rows of tiles, down each column of a group.

Source: the grouped ordering of Triton's matrix multiplication tutorial,
https://triton-lang.org/main/getting-started/tutorials/03-matrix-multiplication.html.
"""

import triton
import triton.language as tl


@triton.jit
def grouped_tile(program, tiles_m, tiles_n, GROUP_M: tl.constexpr):
    """Which tile (row, column) this program takes, in groups of GROUP_M rows of tiles."""
    group_size = GROUP_M * tiles_n
    first_m = (program // group_size) * GROUP_M
    rows_in_group = tl.minimum(tiles_m - first_m, GROUP_M)
    tile_m = first_m + (program % group_size) % rows_in_group
    tile_n = (program % group_size) // rows_in_group
    return tile_m, tile_n
