"""`python -m benchmarks.gate BASE HEAD`: is HEAD worse than BASE, by their stored results?

Exit codes: 0 pass; 1 at least one regression that was not acknowledged; 2 could not decide. See
`benchmarks.gate.findings` for what is a regression and `benchmarks.compare` for the statistics.
"""

import argparse
import datetime
import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import store
from benchmarks.gate import acknowledged
from benchmarks.gate.findings import COMPARED, TIMED, Row, control_drift, find
from benchmarks.gate.report import Report, show, to_json, to_markdown

RESULTS = Path(__file__).parents[1] / "results"
SUITES = ("codegen", "kernels", "models")
MAX_CONTROL_DRIFT = 0.02
MIN_CONTROL_CASES = 10
MAX_PROBLEMS = 5
_HASH = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_SHORT_HASH = re.compile(r"[0-9a-f]{4,64}")
PROCESS_NOISE = (
    "base and head were timed in separate processes: noise from process to process is not sampled "
    "and may look like a change"
)
NO_LATENCY = "no GPU samples were compared: latency was not measured"


class GateError(Exception):
    """The comparison cannot begin; the message says what was seen and what to do."""


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
    """
    suites = SUITES if suite == "all" else (suite,)
    if base == head:
        blocker = "base and head are the same commit: give two different ones"
        return Report(base, head, suites, (), (), [blocker])
    chosen = select(rows, base, head, suites, machine)
    fingerprints = {str(run["run"]): run for run in _records(runs)}
    findings = find(chosen.base, chosen.head, fingerprints)
    drifts = control_drift(findings, chosen.base, chosen.head)
    findings, words = acknowledged.acknowledge(findings, entries, commits, today)
    compared = {f.key.suite for f in findings if f.outcome in COMPARED}
    timed = any(f.key.suite in TIMED and f.outcome in COMPARED | {"unstable"} for f in findings)
    notes = [*chosen.notes, *words, PROCESS_NOISE if timed else NO_LATENCY]
    blockers = list(chosen.blockers)
    if not compared and not blockers:
        blockers.append("nothing was compared: no measurement has a number on both sides")
    blockers += [
        f"eager of {suite}, whose code did not change, moved by {100 * (drift - 1):+.1f} % (median "
        f"of {cases} cases): the machine changed, measure both commits again"
        for suite, (drift, cases) in drifts.items()
        if cases >= MIN_CONTROL_CASES and abs(drift - 1) > MAX_CONTROL_DRIFT
    ]
    machines = tuple(sorted(chosen.machines))
    return Report(base, head, suites, machines, findings, blockers, notes)


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


def resolve(revision: str, known: Iterable[str]) -> str:
    """Full hash of a revision, from git or, where git does not know it, from the results' commits.

    Raises:
        GateError: it names no commit, or several.
    """
    found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}")
    if found is not None and _HASH.fullmatch(found.strip()):
        return found.strip()
    prefix = revision.lower()
    matches = sorted(
        {commit for commit in known if commit.startswith(prefix)}
        if _SHORT_HASH.fullmatch(prefix)
        else ()
    )
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise GateError(f"{revision!r} begins {len(matches)} commits: give more digits")
    raise GateError(
        f"{revision!r} is no commit that git or the results know: give a branch, a tag or a hash"
    )


def gated_commits(base: str, head: str) -> list[str]:
    """`head` and, where git knows both, all commits of base..head."""
    found = _git("rev-list", "--end-of-options", f"{base}..{head}")
    return [head, *(found or "").split()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    # The problems it warns about are part of the report.
    logging.getLogger(store.__name__).addHandler(logging.NullHandler())
    try:
        report = _report(options)
    except GateError as error:
        report = Report(options.base, options.head, (), (), (), (str(error),))
    except acknowledged.AcknowledgedError as error:
        report = Report(options.base, options.head, (), (), (), error.problems)
    report = _write(
        report, options.json, lambda: json.dumps(to_json(report), indent=1, allow_nan=False) + "\n"
    )
    report = _write(report, options.markdown, lambda: to_markdown(report))
    show(report, sys.stdout)
    return report.exit_code


def _report(options: argparse.Namespace) -> Report:
    if not options.results.is_dir():
        raise GateError(f"{options.results} is no directory: run the benchmarks or give --results")
    entries: list[acknowledged.Acknowledged] = []
    if options.acknowledged is not None or acknowledged.PATH.exists():
        entries = acknowledged.load(options.acknowledged or acknowledged.PATH)
    stored = store.load(options.results)
    known = set(stored.rows["commit"])
    base, head = resolve(options.base, known), resolve(options.head, known)
    report = judge(
        stored.rows,
        stored.runs,
        base,
        head,
        today=datetime.datetime.now(datetime.UTC).date(),
        suite=options.suite,
        machine=options.machine,
        entries=entries,
        commits=gated_commits(base, head),
    )
    problems = [f"{problem.path}: {problem.reason}" for problem in stored.problems]
    if len(problems) > MAX_PROBLEMS:
        problems[MAX_PROBLEMS:] = [f"{len(problems) - MAX_PROBLEMS} more problems in the results"]
    return replace(report, notes=[*report.notes, *problems])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gate",
        description="Compare the stored results of two commits.",
        epilog="Exit codes: 0 pass; 1 regression that was not acknowledged; 2 could not decide.",
        allow_abbrev=False,
    )
    parser.add_argument("base", metavar="BASE", help="the older commit: any git revision")
    parser.add_argument("head", metavar="HEAD", help="the commit to judge")
    parser.add_argument("--results", type=Path, default=RESULTS, help="asv's results directory")
    parser.add_argument("--suite", choices=(*SUITES, "all"), default="all")
    parser.add_argument("--machine", default="", help="only this machine (default: all shared)")
    parser.add_argument("--acknowledged", type=Path, help=f"default: {acknowledged.PATH.name}")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--markdown", type=Path, help="write a summary for a pull request")
    return parser


def _git(*arguments: str) -> str | None:
    """What git prints; None where there is no git, no repository, or git refuses."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except (OSError, ValueError):
        return None
    return done.stdout if done.returncode == 0 else None


def _write(report: Report, path: Path | None, text: Callable[[], str]) -> Report:
    """Write a file; where that fails the report says so and is no pass."""
    if path is None:
        return report
    try:
        path.write_text(text(), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        blocker = f"{path} cannot be written ({error.strerror}): give another path"
        return replace(report, blockers=[*report.blockers, blocker])
    return report


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _known_commits(rows: pd.DataFrame) -> str:
    newest = rows.sort_values("committed_at", ascending=False)["commit"].drop_duplicates()
    shown = [commit[:12] for commit in newest[:5]]
    return ", ".join(shown) + (f" and {len(newest) - 5} more" if len(newest) > 5 else "") or "none"


def _names(machines: Iterable[str]) -> str:
    return ", ".join(sorted(machines))
