"""Where figures of compiled code changed: they are exact, so any change is a step.

A figure is held against the one of the commit that compiled it before, where the version of the
case, Triton and ptxas are the same. The gate says which way a metric is worse.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.asv_file import OK
from benchmarks.gate.findings import HIGHER_IS_BETTER
from dashboards import text
from dashboards.data.cube import Cube, beneath_of
from dashboards.data.source import Source
from dashboards.tabular.commit_links import NO_LINKS, CommitLinks, between_cell, commit_cell
from dashboards.tabular.tables import Cell, Table, word

MOST = 150
"""Steps that the table of a machine lists, the newest."""
SUITE = "codegen"
_UNITS = {"registers": "per thread", "occupancy": "", "instructions": "", "memory_instructions": ""}
"""Those that a title or a figure says already, or in part."""


@dataclass(frozen=True)
class Step:
    """What a commit did to one figure of an operator, in the cases where it is worse, or better.

    Attributes:
        commit: its hash.
        op: the operator.
        metric: the figure.
        worse: whether it is worse.
        cases: how many cases changed so.
        compared: how many were compiled alike before.
        variants: the architectures on which any changed so.
        case, variant: where it changed most, by its share of what it was.
        before: the commit that compiled that one before.
        old, new: the figure there.
    """

    commit: str
    op: str
    metric: str
    worse: bool
    cases: int
    compared: int
    variants: tuple[str, ...]
    case: str
    variant: str
    before: str
    old: float
    new: float


@dataclass(frozen=True)
class StepsView:
    """The steps of a machine.

    Attributes:
        machine: its name.
        commits: how many commits were compiled there.
        worse, better: how many steps are so.
        changed: how many commits have any.
        table: the newest steps, those to worse first in each commit.
    """

    machine: str
    commits: int
    worse: int
    better: int
    changed: int
    table: Table


def views(
    source: Source, hrefs: Mapping[str, str], links: CommitLinks = NO_LINKS
) -> list[StepsView]:
    """A view of each machine with compiled code."""
    found = []
    for machine in source.machine_names(SUITE):
        cube = source.cubes[SUITE, machine]
        every = steps(cube, source.runs)
        worse = sum(one.worse for one in every)
        found.append(
            StepsView(
                machine=machine,
                commits=len(cube.measured),
                worse=worse,
                better=len(every) - worse,
                changed=len({one.commit for one in every}),
                table=_table(every, source, machine, hrefs, links),
            )
        )
    return found


def steps(cube: Cube, runs: pd.DataFrame) -> list[Step]:
    """All steps of a machine: the newest commit first, in each those to worse first."""
    each = list(_by_commit(cube, runs))
    metrics = {metric: place for place, metric in enumerate(text.METRIC_TITLES)}
    for mine in each:
        mine.sort(key=lambda one: (not one.worse, one.op, metrics.get(one.metric, len(metrics))))
    return [one for mine in reversed(each) for one in mine]


def _by_commit(cube: Cube, runs: pd.DataFrame) -> Iterator[list[Step]]:
    """The steps of each commit, oldest first; one array at a time of what was compiled last."""
    beneath = beneath_of(cube, runs)
    shape = cube.value.shape[1:]
    last, origin = np.full(shape, np.nan), np.zeros(shape, np.int32)
    known = np.full(shape, -1, np.int64)
    kinds = int(beneath.max(initial=0)) + 1
    for place in range(len(cube.commits)):
        value = cube.value[place]
        good = (cube.status[place] == OK) & ~np.isnan(value)
        kind = cube.version[place].astype(np.int64) * kinds + beneath[cube.run[place]]
        alike = good & (kind == known)
        differs = alike & (value != last)
        if differs.any():
            yield _of_commit(cube, place, alike, differs, last, origin)
        for array, new in ((last, value), (origin, place), (known, kind)):
            np.copyto(array, new, where=good)


def _of_commit(
    cube: Cube,
    place: int,
    alike: NDArray[np.bool_],
    differs: NDArray[np.bool_],
    last: NDArray[np.float64],
    origin: NDArray[np.int32],
) -> list[Step]:
    points, value = cube.points, cube.value[place]
    starts = [cases.start for cases in points.slices.values()]
    lower = np.array([-1.0 if name in HIGHER_IS_BETTER else 1.0 for name in points.metrics])
    with np.errstate(invalid="ignore"):
        share = lower * (value - last) / np.where(last == 0, 1.0, np.abs(last))
    compared = _cases(alike, starts)
    found = []
    for worse in (True, False):
        mine = differs & ((share > 0) == worse)
        counts = _cases(mine, starts)
        for op, metric in np.argwhere(counts).tolist():
            name = points.names[op]
            part = points.slices[name]
            changed = mine[part, :, metric]
            sizes = np.where(changed, np.abs(share[part, :, metric]), -1.0)
            case, variant = np.unravel_index(int(sizes.argmax()), sizes.shape)
            at = part.start + int(case), int(variant), metric
            found.append(
                Step(
                    commit=cube.commits[place],
                    op=name,
                    metric=points.metrics[metric],
                    worse=worse,
                    cases=int(counts[op, metric]),
                    compared=int(compared[op, metric]),
                    variants=_named(points.variants, changed.any(axis=0)),
                    case=points.cases[at[0]][1],
                    variant=points.variants[at[1]],
                    before=cube.commits[int(origin[at])],
                    old=float(last[at]),
                    new=float(value[at]),
                )
            )
    return found


def _cases(marked: NDArray[np.bool_], starts: Sequence[int]) -> NDArray[Any]:
    """How many cases of each operator are marked in each metric, on whatever architecture."""
    return np.asarray(np.add.reduceat(marked.any(axis=1), starts, axis=0, dtype=np.int64))


def _named(names: Sequence[str], which: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(names[place] for place in np.flatnonzero(which).tolist())


def _table(
    every: Sequence[Step],
    source: Source,
    machine: str,
    hrefs: Mapping[str, str],
    links: CommitLinks,
) -> Table:
    known = {commit.id: commit for commit in source.commits}

    @cache
    def section(op: str) -> str:
        """The address of the machine's compiled code on the page of an operator."""
        names = [
            one for one in source.machine_names(SUITE) if source.measured_commits(SUITE, one, op)
        ]
        return f"{hrefs[op]}#codegen-{names.index(machine) + 1}"

    body = []
    for one in every[:MOST]:
        case = f"{hrefs[one.op]}#{text.query({'compiled': one.case})}"
        cells = [
            commit_cell(known[one.commit], links, 24),
            word(one.op, 60, href=section(one.op)),
            word("worse" if one.worse else "better", tone="worse" if one.worse else "better"),
            word(said(one)),
            Cell(f"{one.cases:,} of {one.compared:,}", float(one.cases)),
            word(", ".join(one.variants)),
            word(one.case, 80, href=case, note=text.short(one.variant, 24)),
        ]
        if links.compares:
            cells.append(between_cell(one.before, one.commit, links))
        body.append(tuple(cells))
    headings = ("Commit", "Operator", "Is", "What changed, most", "Cases", "On")
    ends = ("Most in", *(["Commits between"] if links.compares else []))
    return Table((*headings, *ends), tuple(body), len(every))


def said(one: Step) -> str:
    """What changed, in words: `Spills 0 → 64 instructions`."""
    title = text.METRIC_TITLES.get(one.metric, text.short(one.metric, 40))
    old, new = text.count(one.old, one.metric), text.count(one.new, one.metric)
    unit = _UNITS.get(one.metric, text.unit(one.metric))
    return f"{title} {old} → {new} {unit}".rstrip()
