"""The page of what moved over the commits, its feed, and the marks of it on the figures.

What moved, and what it means, is said by the gate's own code (`benchmarks.gate.history`).
"""

import datetime
import math
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.gate import acknowledged
from benchmarks.gate import history as gate
from benchmarks.gate.findings import CONTROL, GATED, TIMED, Finding, Key
from benchmarks.gate.report import percent
from dashboards import text
from dashboards.data.cube import Cube, alike_of
from dashboards.data.history import Commit
from dashboards.data.source import Source
from dashboards.plots.figures import Marks
from dashboards.suites import SUITES
from dashboards.tabular.commit_links import NO_LINKS, CommitLinks, between_cell, commit_cell
from dashboards.tabular.tables import Cell, Table, case_href, duration_cell, word

STATES = {
    "regressed": ("open", "worse"),
    "acknowledged": ("acknowledged", ""),
    "improved": ("faster", "better"),
    "pass": ("no regression", ""),
}
"""Outcome → what the page calls it, and its tone."""
NAMESPACE = uuid.UUID("5b0f2c1e-6b0c-5f55-9d0d-2f4f1b1d9c11")


@dataclass(frozen=True)
class Moves:
    """What moved, over all commits.

    Attributes:
        findings: of the gate, worst first; those of series without a move left out.
        series: how many cases had enough commits to be judged.
        all_series: how many there were.
    """

    findings: tuple[Finding, ...] = ()
    series: int = 0
    all_series: int = 0

    def of(self, machine: str, op: str = "") -> tuple[Finding, ...]:
        """Those of a machine, or of an operator or model there."""
        mine = (one for one in self.findings if one.key.machine == machine)
        return tuple(one for one in mine if op in ("", one.key.op))

    @property
    def open(self) -> tuple[Finding, ...]:
        """Regressions that no review accepted."""
        return tuple(one for one in self.findings if one.outcome == "regressed")


@dataclass(frozen=True)
class MovesView:
    """What moved on one machine.

    Attributes:
        machine: its name.
        open, accepted, faster: how many moves are of that kind.
        moves: a row for each, worst first.
        commits: a row for each commit that moved something, the newest first.
    """

    machine: str
    open: int
    accepted: int
    faster: int
    moves: Table
    commits: Table


@dataclass(frozen=True)
class Entry:
    """An entry of the feed."""

    id: str
    title: str
    updated: str
    said: str
    href: str


def find(source: Source) -> Moves:
    """All that moved. What a review accepted counts up to its day, as of the newest commit."""
    order = [commit.id for commit in source.commits]
    every = [
        one
        for (suite, _), cube in source.cubes.items()
        if suite in TIMED
        for one in series(cube, source.runs)
    ]
    every.sort(key=lambda one: one.key)
    long = [one for one in every if len(one.commits) >= gate.MIN_COMMITS]
    found = gate.moved(long, set(order))
    dates = [commit.committed for commit in source.commits if commit.committed]
    today = datetime.date.fromisoformat(max(dates)) if dates else datetime.date.min
    found, _ = acknowledged.acknowledge(found, source.accepted, order, today)
    return Moves(tuple(one for one in found if one.commits), len(long), len(every))


def series(cube: Cube, runs: pd.DataFrame) -> Iterator[gate.Series]:
    """What `benchmarks.gate.history.series_of` makes of a suite's rows on one machine."""
    kernl, eager = cube.times(GATED), cube.times(CONTROL)
    if np.isnan(kernl).all() or np.isnan(eager).all():
        return
    good, alike = _judged(cube), alike_of(cube, runs)
    with np.errstate(invalid="ignore", divide="ignore"):
        times = np.log(kernl)
        ratios = times - np.log(eager)
    # What belongs to a case lies together here. Many cases have the same commits in each series.
    good, alike, ratios, times = (
        np.ascontiguousarray(array.T) for array in (good, alike, ratios, times)
    )
    commits = np.array(cube.commits, dtype=object)
    known: dict[bytes, list[tuple[NDArray[np.intp], list[str]]]] = {}
    for case, (op, name) in enumerate(cube.points.cases):
        key = Key(cube.machine, cube.points.suite, op, "time", name, GATED)
        pattern = good[case].tobytes() + alike[case].tobytes()
        if pattern not in known:
            at = np.flatnonzero(good[case])
            kinds = alike[case, at]
            each = (at[kinds == kind] for kind in np.unique(kinds))
            known[pattern] = [(own, commits[own].tolist()) for own in each]
        for own, of_series in known[pattern]:
            yield gate.Series(key, of_series, ratios[case, own], times[case, own])


def _judged(cube: Cube) -> NDArray[np.bool_]:
    """Commit × case: where there are times of kernl and eager from one run."""
    same = [cube.of(GATED, name) == cube.of(CONTROL, name) for name in ("run", "version")]
    known = [~np.isnan(cube.times(name)) for name in (GATED, CONTROL)]
    return np.asarray(known[0] & known[1] & same[0] & same[1])


def views(
    source: Source, moves: Moves, hrefs: Mapping[str, str], links: CommitLinks = NO_LINKS
) -> list[MovesView]:
    """A view of each machine on which something moved."""
    found = []
    for machine in sorted({one.key.machine for one in moves.findings}):
        mine = moves.of(machine)
        outcomes = [one.outcome for one in mine]
        found.append(
            MovesView(
                machine=machine,
                open=outcomes.count("regressed"),
                accepted=outcomes.count("acknowledged"),
                faster=outcomes.count("improved"),
                moves=_moves(mine, source, hrefs, links),
                commits=_by_commit(mine, source.commits, links),
            )
        )
    return found


def _moves(
    findings: Sequence[Finding], source: Source, hrefs: Mapping[str, str], links: CommitLinks
) -> Table:
    known = {commit.id: commit for commit in source.commits}
    rows = []
    befores = last_before(source, findings) if links.compares else [""] * len(findings)
    for one, before in zip(findings, befores, strict=True):
        state, tone = STATES[one.outcome]
        unit = SUITES[one.key.suite].unit
        cells = [
            word(state, tone=tone),
            Cell(percent(one.ratio), text.number(one.ratio, 6), tone),
            word(one.key.op, 60, href=hrefs[one.key.op]),
            commit_cell(known.get(one.commits[0], Commit(one.commits[0], "")), links),
            word(one.key.case, 80, href=case_href(hrefs, one.key.op, one.key.case)),
            duration_cell(one.base, unit=unit),
            duration_cell(one.head, unit=unit),
            word(unit),
            word(one.reason, 400),
        ]
        if links.compares:
            cells.append(between_cell(before, one.commits[0], links) if before else word(""))
        rows.append(tuple(cells))
    headings = ("State", "Change", "Measured", "By, or up to, commit", "Case")
    ends = ("Before", "After", "Unit", "What was seen")
    return Table((*headings, *ends, *(["Commits between"] if links.compares else [])), tuple(rows))


def last_before(source: Source, findings: Sequence[Finding]) -> list[str]:
    """The commit that measured each case last before it moved; empty where none did.

    What was measured with other libraries, or of another version of the case, does not count.
    """
    known = {
        place: (_judged(source.cubes[place]), alike_of(source.cubes[place], source.runs))
        for place in {(one.key.suite, one.key.machine) for one in findings}
    }
    found = []
    for one in findings:
        place = one.key.suite, one.key.machine
        commits, (judged, alike) = source.cubes[place].commits, known[place]
        case = source.points[one.key.suite].at[one.key.op, one.key.case]
        movers = set(one.commits)
        at = np.flatnonzero(judged[:, case])
        first = next((number for number in at.tolist() if commits[number] in movers), 0)
        before = at[(at < first) & (alike[at, case] == alike[first, case])]
        found.append(commits[before[-1]] if before.size else "")
    return found


def _by_commit(findings: Iterable[Finding], commits: Sequence[Commit], links: CommitLinks) -> Table:
    """The commits that moved something, the newest first."""
    by_commit: dict[str, list[Finding]] = defaultdict(list)
    for one in findings:
        by_commit[one.commits[0]].append(one)
    rows = []
    for commit in reversed(commits):
        mine = by_commit.get(commit.id)
        if not mine:
            continue
        slower = [one for one in mine if one.outcome in ("regressed", "acknowledged")]
        faster = [one for one in mine if one.outcome == "improved"]
        worst = max((one.ratio for one in slower), default=math.nan)
        best = min((one.ratio for one in faster), default=math.nan)
        rows.append(
            (
                word(commit.label, 120, href=links.of(commit.id)),
                Cell(str(len(slower)), float(len(slower)), "worse" if slower else ""),
                Cell(percent(worst), text.number(worst, 6)),
                Cell(str(len(faster)), float(len(faster)), "better" if faster else ""),
                Cell(percent(best), text.number(best, 6)),
            )
        )
    headings = ("Commit", "Cases slower", "most by", "Cases faster", "most by")
    return Table(headings, tuple(rows))


def marks(findings: Iterable[Finding], commits: Iterable[Commit]) -> Marks:
    """Where the figures of an operator or model show a mark.

    That is the first of `commits`, those that were measured, among all that can have moved a case.
    """
    known = {commit.id for commit in commits}
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for one in findings:
        first = next((commit for commit in one.commits if commit in known), "")
        if first:
            said = f"{percent(one.ratio)}, {STATES[one.outcome][0]}: {one.reason}"
            found[one.key.case][first] = said
    return found


def entries(moves: Moves, commits: Sequence[Commit], hrefs: Mapping[str, str]) -> list[Entry]:
    """Regressions as entries of the feed, those of the newest commit first."""
    place = {commit.id: number for number, commit in enumerate(commits)}
    slower = [one for one in moves.findings if one.outcome in ("regressed", "acknowledged")]
    slower.sort(key=lambda one: (-place.get(one.commits[0], -1), one.key))
    return [
        Entry(
            id=_urn("\0".join((*one.key, one.commits[0]))),
            title=f"{one.key.op} {one.key.case}: {percent(one.ratio)}",
            updated=_moment(commits[place[one.commits[0]]] if one.commits[0] in place else None),
            said=f"{STATES[one.outcome][0]} on {one.key.machine}: {one.reason}",
            href=case_href(hrefs, one.key.op, one.key.case),
        )
        for one in slower
    ]


def feed_values(commits: Sequence[Commit]) -> dict[str, str]:
    """What the feed says of itself."""
    return {"id": _urn("regressions"), "updated": _moment(commits[-1] if commits else None)}


def _urn(name: str) -> str:
    return uuid.uuid5(NAMESPACE, name.encode("utf-8", "replace").decode()).urn


def _moment(commit: Commit | None) -> str:
    """A commit's day as the feed's format asks for; the first day of Unix where it is unknown."""
    day = commit.committed if commit is not None and commit.committed else "1970-01-01"
    return f"{day}T00:00:00Z"
