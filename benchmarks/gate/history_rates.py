"""How often the history is wrong, by recorded noise: `python -m benchmarks.gate.history_rates`.

Draws series of commits from what one commit's processes took beside each other
(`benchmarks/recorded_noise`): a commit's level is kernl over eager in one process of one case. Into
them it plants nothing, one commit that is 10 % off, a step, or ten steps of 1 %, and asks
`benchmarks.gate.moves`, and each of its two detectors by itself. Where Apache Otava is installed,
which asks for an older NumPy than this project, it is asked as well.

A line says in what part of the series something is found: where nothing moved, anything; else what
is slower. "named" is, of what is found, the part in which the commit of a step is named alone, or
no commit before or behind a creep is named, but for its neighbour or half the way to a next step.
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import noise
from benchmarks.compare import MIN_EFFECT
from benchmarks.gate import moves
from benchmarks.gate.history import MIN_COMMITS
from benchmarks.gate.moves import LEAST, Array, Seen
from benchmarks.known_noise import RECORDED
from benchmarks.measure.selection import whole_number

LENGTHS = (MIN_COMMITS, 20, 40, 74)
CREEP = 10
_MAX_P = 0.001


class Found(NamedTuple):
    """First and last commit that moved a series, and by what logarithm."""

    first: int
    last: int
    size: float


Detector = Callable[[Array], Sequence[Found]]


@dataclass(frozen=True)
class Planted:
    """What happens in a series.

    Attributes:
        steps: so many, of one size each.
        size: of a step, as a fraction.
        apart: commits from one step to the next.
        outlier: whether it is one commit alone, and the next is as before.
    """

    steps: int = 0
    size: float = 0.0
    apart: int = 1
    outlier: bool = False

    def __str__(self) -> str:
        if not self.steps:
            return "nothing moved"
        each = f"{100 * self.size:g} %"
        if self.outlier:
            return f"one commit {each} off"
        if self.steps == 1:
            return f"a step of {each}"
        how = f", every {self.apart}" if self.apart > 1 else " in a row"
        return f"{self.steps} steps of {each}{how}"

    @property
    def length(self) -> int:
        """Commits from the first step to the last."""
        return self.apart * max(0, self.steps - 1) + 1

    def fits(self, commits: int) -> bool:
        """Whether a level lies before and behind it."""
        return commits >= self.length + 2 * LEAST + 1

    def into(self, series: Array, chance: np.random.Generator) -> tuple[Array, int]:
        """The series with it, from some commit on: which one that is comes with it."""
        first = int(chance.integers(LEAST + 1, len(series) - LEAST - self.length + 1))
        at = np.arange(len(series))[:, None] - (first + self.apart * np.arange(self.steps))
        came = (at == 0) if self.outlier else (at >= 0)
        return series + came.sum(axis=1) * np.log1p(self.size), first

    def expected(self, found: Sequence[Found], first: int) -> bool:
        """Whether what is found names what it should, and nothing else."""
        if self.steps == 1:
            return [one[:2] for one in found] == [(first, first)]
        last, off = first + self.length - 1, max(1, self.apart // 2)
        return all(first - off <= one.first and one.last <= last + off for one in found)


PLANTED = (
    Planted(),
    Planted(1, 0.1, outlier=True),
    Planted(1, 0.03),
    Planted(1, 0.05),
    Planted(CREEP, 0.01),
    Planted(CREEP, 0.01, apart=6),
)


def levels(records: Iterable[noise.Record]) -> list[Array]:
    """Of each case, kernl over eager in each process, as logarithms around their median."""
    found = []
    for sessions in noise.same_on_both_sides(records).values():
        if all(noise.was_timed(record, noise.CONTROL) for record in sessions):
            of_case = []
            for record in sessions:
                ours = noise.block_logs(record, noise.GATED)
                eager = noise.block_logs(record, noise.CONTROL)
                of_case += [np.median(ours[side]) - np.median(eager[side]) for side in ours]
            found.append(np.array(of_case) - np.median(of_case))
    return found


def both(values: Array) -> list[Found]:
    """What `benchmarks.gate.history` asks."""
    return [Found(move.first, move.last, move.new - move.old) for move in moves.find_moves(values)]


def by_pelt(values: Array) -> list[Found]:
    """The cuts alone, where the levels beside them differ by 2 %."""
    seen = Seen.of(values)
    places = moves.cuts(seen)
    edges = [0, *places, len(values)]
    medians = [np.median(seen.calm[a:b]) for a, b in pairwise(edges)]
    steps = zip(places, np.diff(medians), strict=True)
    return [Found(at, at, float(step)) for at, step in steps if abs(step) > np.log1p(MIN_EFFECT)]


def by_score(values: Array) -> list[Found]:
    """The modified z-score alone, of every place."""
    seen = Seen.of(values)
    found = {}
    for at in range(LEAST, len(values) - LEAST + 1):
        move = moves.compared(seen, at, at)
        if move is not None:
            # Neighbouring places see the same.
            found[move.first, move.last] = move.new - move.old
    return [Found(*ends, size) for ends, size in sorted(found.items())]


def by_otava(values: Array) -> list[Found]:
    """Otava's change points, where the levels beside them differ by 2 %."""
    from otava.analysis import compute_change_points

    factors = np.exp(values - np.median(values)).tolist()
    points, _ = compute_change_points(factors, max_pvalue=_MAX_P, min_magnitude=MIN_EFFECT)
    steps = [(point.index, np.log(point.stats.mean_2 / point.stats.mean_1)) for point in points]
    return [Found(int(at), int(at), float(step)) for at, step in steps]


def detectors() -> Mapping[str, Detector]:
    """All that are installed."""
    known = {"both": both, "PELT": by_pelt, "z-score": by_score}
    if importlib.util.find_spec("otava"):
        known["Otava"] = by_otava
    return known


def rates(
    pool: Sequence[Array], planted: Planted, commits: int, count: int, detector: Detector, seed: int
) -> tuple[float, float]:
    """In what part of so many series something is found, and in what part of these it is named."""
    chance = np.random.default_rng([seed, commits])
    alarms, named = 0, 0
    for _ in range(count):
        of_case = pool[int(chance.integers(len(pool)))]
        series, first = planted.into(chance.choice(of_case, commits), chance)
        found = detector(series)
        wanted = planted.steps and not planted.outlier
        if any(one.size > 0 for one in found) if wanted else found:
            alarms += 1
            named += planted.expected([one for one in found if one.size > 0], first)
    return alarms / count, named / alarms if alarms else float("nan")


def lines(pool: Sequence[Array], count: int, seed: int = 0) -> Iterator[str]:
    """The table, line by line."""
    asked = detectors()
    yield f"{count} series of each kind, of {len(pool)} cases' noise; % found (% of these named)"
    yield f"{'':40}" + "".join(f"{name:>15}" for name in asked)
    for planted in PLANTED:
        for commits in filter(planted.fits, LENGTHS):
            cells = []
            for detector in asked.values():
                found, named = rates(pool, planted, commits, count, detector, seed)
                told = f" ({100 * named:.0f})" if planted.steps and not planted.outlier else ""
                cells.append(
                    f"{100 * found:.2f}{told}" if found < 0.1 else f"{100 * found:.1f}{told}"
                )
            yield f"{planted!s:28} {commits:3} commits" + "".join(f"{cell:>15}" for cell in cells)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; exit code 2 and a message where there is none."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gate.history_rates", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", nargs="*", type=Path, default=sorted(RECORDED.glob("*.gz")))
    parser.add_argument("--series", type=whole_number(1), default=500)
    options = parser.parse_args(arguments)
    try:
        pool = levels(record for path in options.files for record in noise.read(path))
    except (noise.NoiseError, KeyError, TypeError, ValueError) as error:
        print(f"history_rates: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if not pool:
        print("history_rates: no case was timed beside itself", file=sys.stderr)
        return 2
    noise.print_lines(lines(pool, options.series))
    return 0


if __name__ == "__main__":
    sys.exit(main())
