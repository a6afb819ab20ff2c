"""Two commits by their stored results → a report.

See `benchmarks.gate.findings` for what is a regression, `benchmarks.compare` for the statistics,
and `benchmarks.gate.reached` for what counts of times that come from different processes.
"""

import datetime
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import known_noise
from benchmarks.gate import acknowledged
from benchmarks.gate.findings import (
    COMPARED,
    TIMED,
    Finding,
    Key,
    Row,
    control_drift,
    find,
    others_moved,
    worst_first,
)
from benchmarks.gate.reached import by_what_was_reached, codes_of, reached_by
from benchmarks.gate.report import Report

ROOT = Path(__file__).resolve().parents[2]
SUITES = ("codegen", "kernels", "models")
MAX_CONTROL_DRIFT = 0.02
MIN_CONTROL_CASES = 10
PROCESS_NOISE = (
    "base and head were timed in separate processes: noise from process to process is not sampled "
    "and may look like a change"
)
NO_LATENCY = "no GPU samples were compared: latency was not measured"


@dataclass(frozen=True)
class Selection:
    """Rows of both sides that lie on the same machine and suite."""

    base: list[Row] = field(default_factory=list)
    head: list[Row] = field(default_factory=list)
    machines: set[str] = field(default_factory=set)
    blockers: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def judge(
    rows: pd.DataFrame,
    runs: pd.DataFrame,
    base: str,
    head: str,
    *,
    today: datetime.date,
    suite: str = "all",
    machine: str = "",
    entries: Sequence[acknowledged.Acknowledged] = (),
    commits: Iterable[str] = (),
    repository: Path = ROOT,
) -> Report:
    """Compare two commits.

    Args:
        rows: `benchmarks.store.Store.rows`.
        runs: `benchmarks.store.Store.runs`.
        base: full hash of the older commit.
        head: full hash of the newer one.
        today: the date in UTC, for entries that expire.
        suite: one of `SUITES` or "all".
        machine: compare on this machine alone; "" for all that both sides share.
        entries: accepted regressions.
        commits: full hashes whose entries count, `head` among them.
        repository: where the commits' files are.
    """
    suites = SUITES if suite == "all" else (suite,)
    if base == head:
        blocker = "base and head are the same commit: give two different ones"
        return Report(base, head, suites, (), (), [blocker])
    chosen = select(rows, base, head, suites, machine)
    fingerprints = {str(run["run"]): run for run in _records(runs)}
    findings = find(chosen.base, chosen.head, fingerprints)
    reached = reached_by(codes_of(repository), base, head)
    others = others_moved(chosen.base, chosen.head)
    findings, moved = by_what_was_reached(findings, reached, others, _known_noise())
    decisive = [one for one in findings if reached(one.key.suite, one.key.op)]
    drifts = {
        suite: (drift, cases)
        for suite, (drift, cases) in control_drift(decisive, chosen.base, chosen.head).items()
        if cases >= MIN_CONTROL_CASES and abs(drift - 1) > MAX_CONTROL_DRIFT
    }
    findings = _without_times_of(drifts.keys(), findings)
    findings, words = acknowledged.acknowledge(findings, entries, commits, today)
    compared = {f.key.suite for f in findings if f.outcome in COMPARED}
    timed = any(f.key.suite in TIMED and f.outcome in COMPARED | {"unstable"} for f in findings)
    notes = [*chosen.notes, *words, *moved, PROCESS_NOISE if timed else NO_LATENCY]
    blockers = list(chosen.blockers)
    if not compared and not blockers:
        blockers.append("nothing was compared: no measurement has a number on both sides")
    blockers += [
        f"eager of {suite}, whose code did not change, moved by {100 * (drift - 1):+.1f} % (median "
        f"of {cases} cases): the machine changed, measure both commits again"
        for suite, (drift, cases) in drifts.items()
    ]
    machines = tuple(sorted(chosen.machines))
    return Report(base, head, suites, machines, findings, blockers, notes)


def _known_noise() -> Callable[[Key], float]:
    """The variance of an operator's log-ratio in two processes, as recorded; 0 of models."""
    known = lru_cache(maxsize=None)(known_noise.load)
    return lambda key: (
        known(key.machine).of(key.op, key.case).raw if key.suite == "kernels" else 0.0
    )


def _without_times_of(suites: Collection[str], findings: Iterable[Finding]) -> list[Finding]:
    """Where the machine changed, a slower time is no regression, worst first."""
    why = "slower, but so was what did not change: the machine changed"
    judged = [
        replace(one, outcome="undecided", reason=why)
        if one.key.suite in suites and one.outcome == "regressed"
        else one
        for one in findings
    ]
    return sorted(judged, key=worst_first)


def select(
    rows: pd.DataFrame, base: str, head: str, suites: Sequence[str], machine: str
) -> Selection:
    """The rows that can be set against each other, and in words what cannot."""
    chosen = Selection()
    sides = {base: "base", head: "head"}
    for commit, side in sides.items():
        if not (rows["commit"] == commit).any():
            chosen.blockers.append(
                f"no results for {side} {commit[:12]}; there are results for "
                f"{_known_commits(rows)}: run the benchmarks on it first"
            )
    if machine:
        if not (rows["machine"] == machine).any():
            known = ", ".join(sorted(set(rows["machine"]))) or "none"
            chosen.blockers.append(f"no results on machine {machine}; machines known: {known}")
        rows = rows[rows["machine"] == machine]
    if chosen.blockers:
        return chosen
    absent: dict[str, list[str]] = {}
    for suite in suites:
        why = _select_suite(chosen, rows[rows["suite"] == suite], base, head, suite)
        if why:
            absent.setdefault(why, []).append(suite)
    chosen.notes.extend(f"{', '.join(names)}: {why}" for why, names in absent.items())
    if not chosen.machines:
        # Where nothing can be compared the remarks are the reason.
        chosen.blockers.extend(chosen.notes)
        chosen.notes.clear()
    return chosen


def _select_suite(chosen: Selection, rows: pd.DataFrame, base: str, head: str, suite: str) -> str:
    """Add the rows of one suite; returns why there are none on either side, or nothing."""
    measured = rows[rows["status"] != "skipped"]
    old, new = (set(rows.loc[rows["commit"] == commit, "machine"]) for commit in (base, head))
    live_old, live_new = (
        set(measured.loc[measured["commit"] == commit, "machine"]) for commit in (base, head)
    )
    shared = old & new
    for commit, side in ((base, chosen.base), (head, chosen.head)):
        of_side = rows[(rows["commit"] == commit) & rows["machine"].isin(shared)]
        side.extend(_records(of_side))
    chosen.machines.update(shared & (live_old | live_new))
    if live_old and live_new and not live_old & live_new:
        chosen.blockers.append(
            f"{suite}: different machines, base on {_names(live_old)}, head on {_names(live_new)}"
        )
    elif suite == "codegen" and live_old and not live_new:
        # It can be measured on any machine: where it is absent it was left out.
        chosen.blockers.append(f"{suite}: no results for head, base has them")
    elif not live_old and not live_new:
        seen = "only skipped cases" if old or new else "no results"
        return f"{seen} on either side"
    else:
        for name, others in (("base", live_old - new), ("head", live_new - old)):
            if others:
                chosen.notes.append(f"{suite}: {_names(others)} has results for {name} only")
    return ""


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _known_commits(rows: pd.DataFrame) -> str:
    newest = rows.sort_values("committed_at", ascending=False)["commit"].drop_duplicates()
    shown = [commit[:12] for commit in newest[:5]]
    return ", ".join(shown) + (f" and {len(newest) - 5} more" if len(newest) > 5 else "") or "none"


def _names(machines: Iterable[str]) -> str:
    return ", ".join(sorted(machines))
