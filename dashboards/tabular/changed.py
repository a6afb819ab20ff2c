"""What kernl's times did since the last commit and since the last release, and how old they are.

Like is held against like: a case's time at a machine's newest measured commit against its time at
an earlier one, where the case's version and the libraries are the same. Ratios are of times, newest
over earlier: below 1 is faster. One ratio of two measurements is no verdict, and none is given.
"""

import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.asv_file import FAILED
from benchmarks.gate.report import percent
from dashboards import text
from dashboards.data import summary
from dashboards.data.cube import Cube, alike_of
from dashboards.data.frames import records, rows_of
from dashboards.data.history import Commit
from dashboards.data.source import Source
from dashboards.suites import SUITES, Suite
from dashboards.tabular.commit_links import NO_LINKS, CommitLinks, commit_cell
from dashboards.tabular.tables import Cell, Table, case_href, duration_cell, word

MOST = 10
"""Cases that a table lists in each direction."""
STALE_DAYS, STALE_COMMITS = 7, 50
"""From either on, a machine's numbers are said to be old."""
Since = Literal["commit", "release", "first"]
_CASE = ["op", "case"]
_SUITES = {
    "kernels": "times of operators",
    "models": "times of whole models",
    "codegen": "figures of compiled code",
}
"""Suite → what its numbers are called."""


@dataclass(frozen=True)
class Count:
    """How many cases became slower and faster, neither of which a tie is."""

    slower: int
    faster: int


@dataclass(frozen=True)
class Change:
    """What changed on a machine since a commit, or since a release.

    Attributes:
        since: the commit before, the last release, or the first measurement of each case.
        release: the release's name; empty where `since` is no release.
        newest: the newest measured commit.
        base: the latest of the commits that hold an earlier time, the first of them where `since`
            is `first`; None where nothing earlier was measured.
        bases: how many commits hold an earlier time.
        compared: cases with a time on both sides.
        measured: cases with a time at the newest commit.
        unlike: cases that were measured earlier too, but with other libraries, or another version.
        broken: cases that failed at the newest commit and have an earlier time.
        time, over_eager: geometric means of the ratios of kernl's time, and of it over eager's.
        counted, counted_over_eager: cases that changed by more than a tie, by either ratio.
        table: the largest changes of kernl's time, the worst first.
        repeats: whether the same times are compared as since the commit before.
    """

    since: Since
    release: str
    newest: Commit
    base: Commit | None
    bases: int
    compared: int
    measured: int
    unlike: int
    broken: int
    time: float
    over_eager: float
    counted: Count
    counted_over_eager: Count
    table: Table
    repeats: bool = False

    @property
    def time_words(self) -> str:
        """The change of kernl's time in per cent."""
        return step(self.time)

    @property
    def over_eager_words(self) -> str:
        """The change of kernl's time over eager's in per cent."""
        return step(self.over_eager)


@dataclass(frozen=True)
class Fresh:
    """How old each machine's numbers are.

    Attributes:
        table: a row for each suite of each machine.
        stale: suite and machine → what makes its numbers old; those that are not are left out.
        names: suite → what its numbers are called.
        days, commits: from either on, numbers are old.
    """

    table: Table
    stale: Mapping[tuple[str, str], str]
    names: Mapping[str, str]
    days: int = STALE_DAYS
    commits: int = STALE_COMMITS


def step(ratio: float) -> str:
    """A ratio of times as a signed change with two digits at most behind the point."""
    return percent(round(ratio, 4)).replace("-", "−")


def changes(
    source: Source,
    machine: str,
    hrefs: Mapping[str, str],
    suite: Suite,
    links: CommitLinks = NO_LINKS,
) -> tuple[Change, ...]:
    """Since the last commit, and since the last release or the first measurement of each case.

    Empty where the machine has no time of kernl's own.
    """
    cube = source.cube(suite.name, machine)
    taken = Times.of(cube, source.runs) if cube is not None else None
    if taken is None or not taken.commits:
        return ()
    known = {commit.id: commit for commit in source.commits}
    ids = taken.commits
    newest = known[ids[-1]]
    release = source.branch.last_release(newest.id)

    def change(since: Since, earlier: Collection[str]) -> tuple[Change, pd.DataFrame]:
        places = [place for place, one in enumerate(ids) if one in earlier]
        both = compared(taken, places, since == "first")
        before = set(both["commit_before"])
        bases = [known[one] for one in ids if one in before]
        had = (~np.isnan(taken.kernl[places])).any(axis=0)
        now = ~np.isnan(taken.kernl[-1])
        found = Change(
            since=since,
            release=release.name if release is not None and since == "release" else "",
            newest=newest,
            base=(bases[0] if since == "first" else bases[-1]) if bases else None,
            bases=len(bases),
            compared=len(both),
            measured=int(now.sum()),
            unlike=int((now & had).sum()) - len(both),
            broken=int((taken.failed & had).sum()),
            time=summary.geometric_mean(both["ratio"]),
            over_eager=summary.geometric_mean(both["over_eager"]),
            counted=_count(both["ratio"]),
            counted_over_eager=_count(both["over_eager"]),
            table=_table(both, source, hrefs, suite, links),
        )
        return found, both

    earlier = set(ids[:-1])
    last, both = change("commit", earlier)
    if release is not None:
        other, others = change("release", earlier & source.branch.behind(release.commit))
    else:
        other, others = change("first", earlier)
    pair = [*_CASE, "commit_before"]
    repeats = len(both) > 0 and both[pair].equals(others[pair])
    return (last, replace(other, repeats=repeats))


@dataclass(frozen=True)
class Times:
    """kernl's times on a machine: commit × case, of the commits that have any.

    Attributes:
        cases: (operator or model, case).
        commits: hashes, oldest first.
        kernl: seconds; NaN where there is none.
        eager: of the same run and version; NaN where there is none.
        alike: equal where the case's version, the libraries and the machine beneath are the same.
        failed: the cases that failed at the newest commit.
    """

    cases: Sequence[tuple[str, str]]
    commits: Sequence[str]
    kernl: NDArray[np.float64]
    eager: NDArray[np.float64]
    alike: NDArray[np.int64]
    failed: NDArray[np.bool_]

    @classmethod
    def of(cls, cube: Cube, runs: pd.DataFrame) -> "Times":
        """Those of a suite's cube."""
        kernl, eager = cube.times(summary.OURS), cube.times(summary.BASELINE)
        some = np.flatnonzero((~np.isnan(kernl)).any(axis=1))
        if not some.size:
            none = np.empty((0, len(cube.points.cases)))
            failed = np.zeros(none.shape[1], bool)
            return cls(cube.points.cases, (), none, none, none.astype(np.int64), failed)
        of_kernl, of_eager = ([cube.of(name, what)[some] for what in ("run", "version")]
                              if name in cube.points.variants else None
                              for name in (summary.OURS, summary.BASELINE))  # fmt: skip
        assert of_kernl is not None
        run, version = of_kernl
        eager = eager[some]
        if of_eager is not None:
            same = (of_eager[0] == run) & (of_eager[1] == version)
            eager = np.where(same, eager, np.nan)
        alike = alike_of(cube, runs)[some]
        failed = cube.of(summary.OURS, "status")[some[-1]] == FAILED
        commits = [cube.commits[place] for place in some.tolist()]
        return cls(cube.points.cases, commits, kernl[some], eager, alike, failed)


def compared(taken: Times, earlier: Sequence[int], first: bool = False) -> pd.DataFrame:
    """The times at the newest commit beside the latest of each case before, or the first.

    Args:
        taken: all times; the newest commit is the last.
        earlier: places of the commits that count, oldest first.
        first: whether a case's first time is wanted, not its latest.

    Returns a row for each case with both, the worst first: `op`, `case`, `kernl`, `eager`, the
    earlier ones with `_before`, `commit_before`, `ratio` of kernl's times and `over_eager` with
    eager's divided out.
    """
    at = np.asarray(earlier, np.intp)
    fits = ~np.isnan(taken.kernl[at]) & (taken.alike[at] == taken.alike[-1])
    fits &= ~np.isnan(taken.kernl[-1])
    cases = np.flatnonzero(fits.any(axis=0))
    wanted = fits[:, cases] if first else fits[::-1, cases]
    ordered = at if first else at[::-1]
    before = ordered[wanted.argmax(axis=0)] if len(cases) else np.empty(0, np.intp)
    both = pd.DataFrame(
        {
            "op": [taken.cases[case][0] for case in cases.tolist()],
            "case": [taken.cases[case][1] for case in cases.tolist()],
            "kernl": taken.kernl[-1, cases],
            "eager": taken.eager[-1, cases],
            "kernl_before": taken.kernl[before, cases],
            "eager_before": taken.eager[before, cases],
            "commit_before": [taken.commits[place] for place in before.tolist()],
        }
    )
    both["ratio"] = both["kernl"] / both["kernl_before"]
    both["over_eager"] = both["ratio"] * both["eager_before"] / both["eager"]
    order = {"ratio": False, "op": True, "case": True}
    both = both.sort_values(list(order), ascending=list(order.values()), kind="stable")
    return both.reset_index(drop=True)


def _count(ratios: pd.Series) -> Count:
    """By the rule of wins and ties: the earlier time over the newest."""
    outcomes = [summary.outcome(1 / ratio) for ratio in ratios if ratio > 0]
    return Count(outcomes.count("loss"), outcomes.count("win"))


def _table(
    both: pd.DataFrame,
    source: Source,
    hrefs: Mapping[str, str],
    suite: Suite,
    links: CommitLinks,
) -> Table:
    """The cases that became slower by most, then those that became faster by most."""
    known = {commit.id: commit for commit in source.commits}
    outcomes = both["ratio"].map(lambda ratio: summary.outcome(1 / ratio))
    shown = pd.concat([both[outcomes == "loss"].head(MOST), both[outcomes == "win"].tail(MOST)])
    body = []
    for row in records(shown):
        op, case, before = str(row["op"]), str(row["case"]), known[str(row["commit_before"])]
        body.append(
            (
                word(op, 60, href=hrefs[op], note="opt-in" if op in source.opt_in else ""),
                word(case, 80, href=case_href(hrefs, op, case)),
                _step_cell(row["ratio"]),
                _step_cell(row["over_eager"]),
                duration_cell(row["kernl_before"], unit=suite.unit),
                duration_cell(row["kernl"], unit=suite.unit),
                commit_cell(before, links),
            )
        )
    headings = (suite.subject.capitalize(), "Case", "kernl's time", "over eager's")
    ends = (f"Before, {suite.unit}", f"Now, {suite.unit}", "Before is of commit")
    return Table((*headings, *ends), tuple(body))


def _step_cell(ratio: float) -> Cell:
    tone = {"win": "better", "loss": "worse"}.get(summary.outcome(1 / ratio), "")
    return Cell(step(ratio), text.number(ratio, 6), tone)


def freshness(source: Source, links: CommitLinks = NO_LINKS) -> Fresh:
    """How old each machine's numbers are, by the newest commit of the site, not by the clock."""
    known = [day for commit in source.commits if (day := _day(commit)) is not None]
    measured = [(machine, suite) for suite in _SUITES for machine in source.machine_names(suite)]
    body, stale = [], {}
    for machine, suite in sorted(measured):
        newest = source.measured_commits(suite, machine)[-1]
        newer, day = source.branch.newer(newest.id), _day(newest)
        days = (max(known) - day).days if day is not None else None
        rows = source.rows(machine, newest.id, suite)
        body.append(
            (
                word(machine, 60),
                word(_SUITES[suite]),
                commit_cell(newest, links),
                word(newest.authored or newest.committed),
                _count_cell(newer),
                _count_cell(days),
                _count_cell(_measured(rows, suite)),
            )
        )
        if words := _old(newer, days):
            stale[suite, machine] = words
    headings = ("Machine", "Numbers", "Newest measured commit", "Its date", "Commits newer")
    return Fresh(Table((*headings, "Days behind", "Cases"), tuple(body)), stale, _SUITES)


def _cases(rows: pd.DataFrame) -> set[tuple[str, str]]:
    return set(rows_of(rows, "op", "case"))


def _measured(rows: pd.DataFrame, suite: str) -> int:
    """How many cases of one commit have a figure, of kernl's own where others are timed too."""
    done = rows[rows["status"] == "ok"]
    if suite in SUITES:
        done = done[(done["variant"] == summary.OURS) & (done["metric"] == "time")]
    return len(_cases(done))


def _old(newer: int | None, days: int | None) -> str:
    """What makes numbers old, in words; empty where they are not."""
    said = []
    if newer is not None and newer >= STALE_COMMITS:
        said.append(f"{newer:,} commits")
    if days is not None and days >= STALE_DAYS:
        said.append(f"{days:,} days")
    return f"are {' and '.join(said)} behind" if said else ""


def _count_cell(value: int | None) -> Cell:
    return Cell("", None) if value is None else Cell(f"{value:,}", float(value))


def _day(commit: Commit) -> datetime.date | None:
    return datetime.date.fromisoformat(commit.committed) if commit.committed else None
