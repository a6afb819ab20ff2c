"""What each of the newest commits did to each operator, as a table whose cells are coloured.

A cell is the geometric mean of the ratios of a case's time at a commit to its time at an earlier
one, of an operator both over eager's time in the same run. A model's eager time is the host's as
much as the device's, and not divided out. The earlier commit is the latest that measured a case
of the operator alike (the same version and libraries), and the mean is over the cases that both
commits measured alike, so no other set of cases moves it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dashboards import text
from dashboards.data.history import Commit
from dashboards.data.source import Source
from dashboards.data.summary import OURS
from dashboards.suites import MODELS, SUITES, Suite
from dashboards.tabular.changed import Times

MOST = 12
"""Commits that a table shows."""
LEVELS = (0.02, 0.05, 0.1)
"""From each of these changes on, a cell has a stronger colour."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """Commits of a machine against those before them: commit × operator or model.

    Attributes:
        heads: places of the commits.
        bases: places of the earlier ones; meaningless where there are no cases.
        cases: how many both measured alike.
        over_eager: the mean logarithm of the ratios, eager's divided out; NaN without cases.
        time: the same of kernl's time alone.
    """

    heads: Sequence[int]
    bases: NDArray[np.intp]
    cases: NDArray[np.int64]
    over_eager: Floats
    time: Floats


@dataclass(frozen=True)
class Change:
    """A cell: what a commit did to an operator or model, by so many cases.

    `shown` is the change that it has the colour of, `beside` the other one in words: over eager's
    time, or of kernl's own. `colour` is a class of the style sheet, `href` where Compare shows both
    commits.
    """

    shown: str
    beside: str
    colour: str
    cases: int
    base: Commit
    href: str


@dataclass(frozen=True)
class PairedView:
    """The table of a machine and suite.

    Attributes:
        machine: its name.
        suite: of the times.
        id: of its heading.
        commits: the columns, oldest first.
        lines: name, address and cells of each operator or model; None where nothing is paired.
        others: those that no two commits measured alike, and that therefore have no line.
    """

    machine: str
    suite: Suite
    id: str
    commits: tuple[Commit, ...]
    lines: tuple[tuple[str, str, tuple[Change | None, ...]], ...]
    others: tuple[str, ...]


def views(source: Source, hrefs: Mapping[str, str]) -> list[PairedView]:
    """A table for each machine and suite with times of kernl's own."""
    every = (
        _view(source, machine, suite, hrefs)
        for suite in SUITES.values()
        for machine in source.machine_names(suite.name)
    )
    return [view for view in every if view is not None]


def heading(suite: str, machine: str) -> str:
    """The id of a table's heading."""
    return f"by-commit-{suite}-{text.slugs([machine])[machine]}"


def pairs(taken: Times, starts: Sequence[int], most: int = MOST) -> Pairs:
    """The newest commits against those before them.

    `starts` are the places of the first case of each operator or model, whose cases follow each
    other.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        times = np.log(taken.kernl)
        ratios = times - np.log(taken.eager)
    known, count = np.isfinite(ratios), len(taken.cases)
    number = np.repeat(np.arange(len(starts)), np.diff([*starts, count]))
    heads = range(max(0, len(times) - most), len(times))
    found: list[tuple[NDArray[np.intp], NDArray[np.int64], Floats, Floats]] = []
    for head in heads:
        alike = known[:head] & known[head] & (taken.alike[:head] == taken.alike[head])
        some = np.logical_or.reduceat(alike, starts, axis=1)
        # A row in front stands for no commit at all.
        before = np.concatenate([np.ones((1, len(starts)), bool), some])
        bases = head - 1 - before[::-1].argmax(axis=0)
        at = bases[number], np.arange(count)
        pair = alike[at] & (at[0] >= 0) if head else np.zeros(count, bool)
        cases = np.add.reduceat(pair, starts, dtype=np.int64)
        means = [
            _means(np.where(pair, of[head] - of[at], 0.0), starts, cases) for of in (ratios, times)
        ]
        found.append((bases, cases, means[0], means[1]))
    stacked = [np.stack(of) for of in zip(*found, strict=True)]
    return Pairs(heads, stacked[0], stacked[1], stacked[2], stacked[3])


def _means(values: Floats, starts: Sequence[int], cases: NDArray[np.int64]) -> Floats:
    """The mean of each operator's values, of which others than the `cases` are 0."""
    sums = np.add.reduceat(values, starts)
    return np.divide(sums, cases, out=np.full(len(sums), np.nan), where=cases > 0)


def said(ratio: float) -> str:
    """A ratio of times as a signed change with one digit behind the point."""
    return f"{_change(ratio):+.1%}".replace("%", " %").replace("-", "−").replace("+0.0", "0.0")


def colour(ratio: float) -> str:
    """The class of a cell: `slower-3` to `slower-1`, `same`, `faster-1` to `faster-3`."""
    change = _change(ratio)
    strength = sum(abs(change) >= level for level in LEVELS)
    if not strength:
        return "same"
    return f"{'slower' if change > 0 else 'faster'}-{strength}"


def _change(ratio: float) -> float:
    """As it is shown, and therefore coloured."""
    return round(ratio - 1, 3) or 0.0


def _view(
    source: Source, machine: str, suite: Suite, hrefs: Mapping[str, str]
) -> PairedView | None:
    cube = source.cubes[suite.name, machine]
    taken = Times.of(cube, source.runs)
    if not taken.commits:
        return None
    slices = cube.points.slices
    found = pairs(taken, [cases.start for cases in slices.values()])
    known = {commit.id: commit for commit in source.commits}
    commits = [known[commit] for commit in taken.commits]

    def change(row: int, column: int, name: str) -> Change | None:
        cases = int(found.cases[row, column])
        if not cases:
            return None
        base, head = commits[found.bases[row, column]], commits[found.heads[row]]
        over, own = (math.exp(of[row, column]) for of in (found.over_eager, found.time))
        ratio, beside = over, f"kernl's own time {said(own)}"
        if suite is MODELS:
            ratio, beside = own, f"over eager's time {said(over)}"
        href = compare_href(machine, suite, base, head, name)
        return Change(said(ratio), beside, colour(ratio), cases, base, href)

    lines, others = [], []
    for column, name in enumerate(slices):
        cells = tuple(change(row, column, name) for row in range(len(found.heads)))
        if any(cells):
            lines.append((name, hrefs[name], cells))
        else:
            others.append(name)
    shown = tuple(commits[head] for head in found.heads)
    place = heading(suite.name, machine)
    return PairedView(machine, suite, place, shown, tuple(lines), tuple(others))


def compare_href(machine: str, suite: Suite, base: Commit, head: Commit, name: str) -> str:
    """Where the page Compare shows kernl at two commits on a machine, of one operator or model."""
    folder = text.slugs([machine])[machine]
    sides = {
        side: f"{folder}/{commit.id[:12]}/{OURS}"
        for side, commit in (("base", base), ("head", head))
    }
    return f"compare.html#{text.query({**sides, 'show': suite.name, 'words': name})}"
