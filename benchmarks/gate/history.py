"""Stored results of many commits → a report: what moved after `base`, up to `head`.

A slow creep, such as ten commits of 1 % each, passes between any two neighbours. Here each case's
whole history up to head is looked at: the logarithm of kernl's time over eager's in the same stored
run, which the machine's drift leaves alone, over the commits in the order of git. A machine, a
case, a benchmark version and a set of library versions make a series (`benchmarks.gate.moves`).

No regression, but said: what came back since; where eager's time moved and not kernl's; where no
file that the operator or model depends on changed (`benchmarks.touched`), so that the measurement
did. What the newest two commits did is for the gate between two commits: a level needs three.
"""

import datetime
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.compare import MIN_EFFECT
from benchmarks.gate import acknowledged
from benchmarks.gate.findings import (
    CONTROL,
    GATED,
    SAME,
    TIMED,
    Finding,
    Key,
    Outcome,
    worst_first,
)
from benchmarks.gate.moves import LEAST, Array, Move, can_move, find_moves, largest_steps
from benchmarks.gate.reached import Codes, codes_of, reached_by
from benchmarks.gate.report import Report, percent
from benchmarks.gate.revisions import ancestry, gated_commits
from benchmarks.measure.selection import matching

ROOT = Path(__file__).resolve().parents[2]
MIN_COMMITS = 8
"""Shorter series are not judged."""
MAX_STEPS = 3
_AT_ONCE = 2**17
"""Values of the series that are looked at together: more take memory and no less time."""
_CASE = ["machine", "suite", "op", "case"]


@dataclass(frozen=True)
class Series:
    """One case over its commits, oldest first.

    Attributes:
        key: what was measured.
        commits: full hashes.
        ratios: logarithms of kernl's time over eager's.
        times: logarithms of kernl's time in seconds.
    """

    key: Key
    commits: Sequence[str]
    ratios: Array
    times: Array


def judge(
    rows: pd.DataFrame,
    runs: pd.DataFrame,
    base: str,
    head: str,
    *,
    today: datetime.date,
    suite: str = "all",
    machine: str = "",
    bench: str = "",
    entries: Sequence[acknowledged.Acknowledged] = (),
    repository: Path = ROOT,
) -> Report:
    """Look for moves in stored results.

    Args:
        rows: `benchmarks.store.Store.rows`.
        runs: `benchmarks.store.Store.runs`.
        base: full hash of the older commit: what moved by later ones is judged.
        head: full hash of the newer one: later ones do not count.
        today: the date in UTC, for entries that expire.
        suite: one of `benchmarks.gate.stored.SUITES` or "all"; only times are judged.
        machine: this machine alone; "" for all.
        bench: a regular expression of benchmarks, as asv's.
        entries: accepted regressions.
        repository: where the commits' files are.
    """
    suites = tuple(sorted(TIMED)) if suite == "all" else (suite,)
    if not TIMED.issuperset(suites):
        blocker = f"{suite} is compared exactly, so nothing creeps: compare two commits"
        return Report(base, head, suites, (), (), [blocker])
    if machine and not (rows["machine"] == machine).any():
        known = ", ".join(sorted(set(rows["machine"]))) or "none"
        blocker = f"no results on machine {machine}; machines known: {known}"
        return Report(base, head, suites, (), (), [blocker])
    rows = rows[rows["suite"].isin(suites)]
    rows = rows[rows["machine"] == machine] if machine else rows
    order = in_order(rows, head)
    every = [
        one for one in series_of(rows, runs, order) if matching([one.key.op], bench, one.key.suite)
    ]
    newer = after(base, head, order)
    long = [one for one in every if len(one.commits) >= MIN_COMMITS]
    judged = [one for one in long if not newer.isdisjoint(one.commits)]
    findings, words = acknowledged.acknowledge(
        moved(judged, newer, repository), entries, newer, today
    )
    notes = [
        f"{len(judged)} of {len(every)} series were judged; {len(every) - len(long)} have fewer "
        f"than {MIN_COMMITS} commits up to {head[:12]}, {len(long) - len(judged)} none after "
        f"{base[:12]}",
        f"the newest {LEAST - 1} commits of each series cannot tell a level: compare two commits",
        *words,
    ]
    blockers = []
    if not judged:
        longest = max((len(one.commits) for one in every), default=0)
        blockers.append(
            f"no case has times of kernl and eager for {MIN_COMMITS} commits and one after "
            f"{base[:12]}; the longest of {len(every)} series has {longest}: measure more commits "
            "(`make history`), or give an older base"
        )
    machines = tuple(sorted({one.key.machine for one in judged}))
    return Report(base, head, suites, machines, findings, blockers, notes)


def moved(
    series: Iterable[Series], newer: Collection[str], repository: Path = ROOT
) -> list[Finding]:
    """A finding for each move by a commit of `newer`, or a pass where there is none, worst first.

    `repository` is where the commits' files are.
    """
    codes = codes_of(repository)
    every = list(series)
    each = zip(every, _moves([one.ratios for one in every]), strict=True)
    found = chain.from_iterable(_findings(one, moves, newer, codes) for one, moves in each)
    return sorted(found, key=worst_first)


def in_order(rows: pd.DataFrame, head: str) -> list[str]:
    """The measured commits up to head, oldest first: by git, or by date where git knows no head."""
    measured = set(rows["commit"])
    line = ancestry(head)
    if line:
        return [commit for commit in line if commit in measured]
    dates = rows.groupby("commit")["committed_at"].min()
    last = dates.get(head, dates.max() if len(dates) else None)
    return sorted(
        (one for one in measured if dates[one] <= last), key=lambda one: (dates[one], one)
    )


def after(base: str, head: str, order: Sequence[str]) -> set[str]:
    """The commits of base..head: by git, or by `order` where git does not know them."""
    if set(ancestry(base)) & set(ancestry(head)):
        return set(gated_commits(base, head))
    return set(order[order.index(base) + 1 :]) if base in order else set()


def series_of(rows: pd.DataFrame, runs: pd.DataFrame, order: Sequence[str]) -> list[Series]:
    """One series for each case, benchmark version and set of library versions.

    Args:
        rows: `benchmarks.store.Store.rows`.
        runs: `benchmarks.store.Store.runs`.
        order: the commits, oldest first; others are left out.
    """
    timed = rows[(rows["metric"] == "time") & rows["suite"].isin(TIMED) & (rows["status"] == "ok")]
    timed = timed[(timed["value"] > 0) & np.isfinite(timed["value"]) & timed["commit"].isin(order)]
    keys = [*_CASE, "commit", "version", "run"]
    ours, eagers = (timed[timed["variant"] == name][[*keys, "value"]] for name in (GATED, CONTROL))
    both = ours.merge(eagers, on=keys, suffixes=("", "_eager"))
    both = both.drop_duplicates([*_CASE, "commit"], keep="last")
    fields = sorted({field for suite in TIMED for field in SAME[suite]})
    known = runs.drop_duplicates("run").set_index("run").reindex(columns=fields).to_dict("index")
    both["same"] = [
        str([known.get(run, {}).get(field) for field in SAME[suite]])
        for run, suite in zip(both["run"], both["suite"], strict=True)
    ]
    both["at"] = both["commit"].map({commit: at for at, commit in enumerate(order)})
    found = []
    for key, of_case in both.sort_values("at").groupby([*_CASE, "version", "same"]):
        times = np.log(of_case["value"].to_numpy(float))
        ratios = times - np.log(of_case["value_eager"].to_numpy(float))
        machine, suite, op, case = map(str, key[: len(_CASE)])
        named = Key(machine, suite, op, "time", case, GATED)
        found.append(Series(named, list(of_case["commit"]), ratios, times))
    return found


def _moves(series: Sequence[Array]) -> list[list[Move]]:
    """`find_moves` of each; most have none, which is seen for those of one length together."""
    found: list[list[Move]] = [[] for _ in series]
    by_length = defaultdict(list)
    for at, values in enumerate(series):
        by_length[len(values)].append(at)
    for length, places in by_length.items():
        rows = max(1, _AT_ONCE // max(1, length))
        for begin in range(0, len(places), rows):
            some = places[begin : begin + rows]
            for at in compress(some, can_move(np.stack([series[at] for at in some]))):
                found[at] = find_moves(series[at])
    return found


def _findings(
    series: Series, found: Sequence[Move], newer: Collection[str], codes: Codes
) -> Iterator[Finding]:
    """One for each move of a series by a newer commit; where there is none, a pass."""
    of_newer = [move for move in found if series.commits[move.last] in newer]
    now = found[-1].new if found else 0.0
    for move in of_newer:
        yield _finding(series, move, now, codes)
    if not of_newer:
        level = _seconds(series.times[-LEAST:])
        yield Finding(series.key, "pass", level, level, "no move", 1.0, 1.0, 1.0, True)


def _finding(series: Series, move: Move, now: float, codes: Codes) -> Finding:
    old, last = series.commits[move.first - 1], series.commits[move.last]
    commits = dict.fromkeys(gated_commits(old, last))  # git names the last one too
    ratio = math.exp(move.new - move.old)
    base, head = _seconds(series.times[move.before]), _seconds(series.times[move.after])
    outcome, why = _meaning(series.key, move, now, math.log(head / base), old, last, codes)
    reason = "; ".join(filter(None, [_where(series, move), why]))
    return Finding(
        series.key, outcome, base, head, reason, ratio, ratio, ratio, True, tuple(commits)
    )


def _meaning(
    key: Key, move: Move, now: float, own: float, old: str, last: str, codes: Codes
) -> tuple[Outcome, str]:
    """The outcome of a move and, where it is a pass, why.

    Args:
        key: what was measured.
        move: what moved.
        now: the level after the last move of the series.
        own: the logarithm of the factor by which kernl's own time changed.
        old: the last commit before the move.
        last: the last one that made it.
        codes: what a commit's operators and models depend on.
    """
    whole = move.new - move.old
    if own * math.copysign(1, whole) < abs(whole) / 2:
        return "pass", f"eager's time moved, kernl's own by {percent(math.exp(own))}"
    if not reached_by(codes, old, last)(key.suite, key.op):
        return "pass", "no file that it depends on changed: the measurement did"
    if whole < 0:
        return "improved", ""
    if now <= move.old + math.log1p(MIN_EFFECT):
        return "pass", "back since"
    return "regressed", ""


def _where(series: Series, move: Move) -> str:
    """Which commits moved it, in words."""
    old, first, last = (series.commits[at][:12] for at in (move.first - 1, move.first, move.last))
    if move.first == move.last:
        return f"by {last}, measured after {old}"
    count = move.last - move.first + 1
    steps = ", ".join(
        f"{series.commits[at][:12]} {percent(math.exp(step))}"
        for at, step in largest_steps(series.ratios, move, MAX_STEPS)
    )
    return f"by {count} measured commits from {first} to {last}, the largest steps {steps}"


def _seconds(logs: Array) -> float:
    return math.exp(float(np.median(logs)))
