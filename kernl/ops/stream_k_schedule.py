"""Who computes what in a stream-K matrix product: plain arithmetic, the same as in the kernel.

A tile of the output needs `steps` steps along k. `tiles` tiles on `programs` multiprocessors
seldom come out even: 133 tiles on 132 multiprocessors take as long as 264. The two-tile hybrid
gives the tiles that do not fill a round, and one full round more, to all programs in equal shares
of steps, and the rest to one program each:

    shared     = tiles mod programs, and programs more where there are as many left; 0 where even
    the rest   = a multiple of programs: every program computes as many, whole

A program's share of the steps is thus between one tile and two (or less than one, where there are
fewer tiles than programs), and it has at most two pieces that are not whole tiles: the end of a
tile that another program began, and the beginning of a tile that another one ends.
"""

from typing import NamedTuple


class Schedule(NamedTuple):
    """The first `shared` tiles go to all programs in shares of steps, the others one by one."""

    tiles: int
    shared: int
    steps: int
    programs: int


class Piece(NamedTuple):
    """Steps [first, last) of one tile, computed by one program."""

    program: int
    tile: int
    first: int
    last: int


FIX_UP_COLUMNS = 1400
"""The fix-up of a tile takes as long as so many columns of k.

Two pieces of float32 are written and read, 16 bytes for each of the tile's elements, at 32 GB/s for
one of an H200's 132 multiprocessors; in that time it multiplies and adds at 5.5 TFLOP/s, two
operations for an element and a column.
"""


def pays(tiles: int, k: int, programs: int) -> bool:
    """Whether what idle programs would have waited is more than the fix-up costs."""
    left = tiles % programs
    return left > 0 and (programs - left) * k > FIX_UP_COLUMNS * programs


def by_tiles(tiles: int, steps: int, programs: int) -> Schedule:
    """Nothing is shared: every tile is computed whole."""
    return Schedule(tiles, 0, steps, min(programs, tiles))


def schedule(tiles: int, steps: int, programs: int) -> Schedule:
    """The two-tile hybrid for `tiles` tiles of `steps` steps each."""
    left = tiles % programs
    shared = left + programs if left and tiles > programs else left
    return Schedule(tiles, shared, steps, min(programs, max(1, tiles * steps)))


def share(plan: Schedule, program: int) -> tuple[int, int]:
    """The steps [first, last) of this program, counted through all shared tiles in turn.

    The first programs have one step more where the steps do not come out even.
    """
    each, over = divmod(plan.shared * plan.steps, plan.programs)
    first = program * each + min(program, over)
    return first, first + each + (program < over)


def pieces(plan: Schedule) -> list[Piece]:
    """Everything that is computed, as the kernel walks it: shared tiles first, then whole ones."""
    found = []
    for program in range(plan.programs):
        step, last = share(plan, program)
        while step < last:
            tile = step // plan.steps
            end = min(last, (tile + 1) * plan.steps)
            found.append(Piece(program, tile, step - tile * plan.steps, end - tile * plan.steps))
            step = end
        for tile in range(plan.shared + program, plan.tiles, plan.programs):
            found.append(Piece(program, tile, 0, plan.steps))
    return found
