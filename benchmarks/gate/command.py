"""`python -m benchmarks.gate BASE HEAD`: is HEAD worse than BASE?

By their stored results (`benchmarks.gate.stored`); with `--history` by what moved between them in
all that is stored (`benchmarks.gate.history`); with `--measure` by timing both beside each other on
this machine's GPU (`benchmarks.gate.measured`); with `--pairs FILE` alone by what an earlier
`--measure` wrote there.

Exit codes: 0 pass; 1 at least one regression that was not acknowledged; 2 could not decide.
"""

import argparse
import datetime
import io
import json
import logging
import math
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from benchmarks import known_noise, store
from benchmarks.gate import acknowledged, floors, history, measured, stored
from benchmarks.gate.bisect import NothingToFind, bisect
from benchmarks.gate.findings import Finding, worst_first
from benchmarks.gate.junit import to_junit
from benchmarks.gate.report import Report, clean, percent, show, to_json, to_markdown
from benchmarks.gate.reviewed import ReviewedError
from benchmarks.gate.revisions import GateError, gated_commits, resolve, title
from benchmarks.measure import device
from benchmarks.measure.ahead import UnknownCommit
from benchmarks.measure.paired import TwoCommits, written_to
from benchmarks.measure.pairs import NoWorker
from benchmarks.measure.process import WorkerRefusal
from benchmarks.measure.selection import regular_expression, whole_number
from benchmarks.noise import NoiseError, read
from benchmarks.sessions import MIN_SESSIONS

RESULTS = Path(__file__).parents[1] / "results"
MAX_PROBLEMS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    ways = [f"--{way}" for way in ("history", "measure", "bisect") if getattr(options, way)]
    if options.history and (ways[1:] or options.pairs):
        parser.error(f"--history goes without {(*ways, '--pairs')[1]}: give one of them")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    # The problems it warns about are part of the report.
    logging.getLogger(store.__name__).addHandler(logging.NullHandler())
    if options.bisect:
        return _bisect(options)
    try:
        report = _report(options)
    except GateError as error:
        report = Report(options.base, options.head, (), (), (), (str(error),))
    except ReviewedError as error:
        report = Report(options.base, options.head, (), (), (), error.problems)
    report = _write(
        report, options.json, lambda: json.dumps(to_json(report), indent=1, allow_nan=False) + "\n"
    )
    report = _write(report, options.markdown, lambda: to_markdown(report))
    report = _write(report, options.junit, lambda: to_junit(report))
    show(report, sys.stdout)
    return report.exit_code


def _report(options: argparse.Namespace) -> Report:
    entries: list[acknowledged.Acknowledged] = []
    if options.acknowledged is not None or acknowledged.PATH.exists():
        entries = acknowledged.load(options.acknowledged or acknowledged.PATH)
    today = datetime.datetime.now(datetime.UTC).date()
    if options.history or not (options.measure or options.pairs):
        return _by_results(options, entries, today)
    report = _measured(options) if options.measure else _replayed(options)
    commits = gated_commits(report.base, report.head)
    findings, words = acknowledged.acknowledge(report.findings, entries, commits, today)
    return replace(report, findings=findings, notes=[*report.notes, *words])


def _by_results(
    options: argparse.Namespace,
    entries: Sequence[acknowledged.Acknowledged],
    today: datetime.date,
) -> Report:
    if not options.results.is_dir():
        raise GateError(f"{options.results} is no directory: run the benchmarks or give --results")
    results = store.load(options.results)
    known = set(results.rows["commit"])
    base, head = resolve(options.base, known), resolve(options.head, known)
    if options.history:
        judge = partial(history.judge, bench=options.bench)
    else:
        judge = partial(stored.judge, commits=gated_commits(base, head))
    try:
        report = judge(
            results.rows,
            results.runs,
            base,
            head,
            today=today,
            suite=options.suite or "all",
            machine=options.machine,
            entries=entries,
        )
    except NoiseError as error:
        raise GateError(f"what is recorded of the noise cannot be read: {error}") from error
    if not options.history:
        findings, notes = _promises(options, results.rows, head)
        findings = sorted([*report.findings, *findings], key=worst_first)
        report = replace(report, findings=findings, notes=[*report.notes, *notes])
    problems = [f"{problem.path}: {problem.reason}" for problem in results.problems]
    if len(problems) > MAX_PROBLEMS:
        problems[MAX_PROBLEMS:] = [f"{len(problems) - MAX_PROBLEMS} more problems in the results"]
    return replace(report, notes=[*report.notes, *problems])


def _promises(
    options: argparse.Namespace, rows: pd.DataFrame, head: str
) -> tuple[list[Finding], list[str]]:
    """What is to be said of the speeds that are promised."""
    promised = [
        one for one in floors.load(options.floors) if options.suite in (None, "all", one.suite)
    ]
    found = floors.check(rows, head, promised, options.machine)
    silent = floors.unmeasured(rows, head, promised, options.machine)
    if promised and not found:
        silent = [f"none of {len(promised)} promised speeds was measured of head"]
    return found, silent


def _measured(options: argparse.Namespace) -> Report:
    if device.gpu() is None and options.device == "cuda":
        raise GateError(
            "--measure needs an NVIDIA GPU, and none answers here: leave it out to compare stored "
            "results, or give --pairs FILE to judge what was measured elsewhere"
        )
    suites = {"all": ("kernels", "models"), None: ("kernels",)}.get(options.suite, (options.suite,))
    if suites == ("codegen",):
        raise GateError("--measure times: compile-only metrics are compared without it")
    wanted = measured.Wanted(
        suites=suites,
        every=options.every,
        bench=options.bench,
        match=options.match,
        limit=options.limit,
        budget_s=options.budget,
        sessions=options.sessions,
    )
    machine = device.machine_name()
    try:
        bench = TwoCommits.of(options.base, options.head, options.device)
        if bench.base == bench.head and not options.every:
            raise GateError(
                "base and head are the same commit: give two different ones, or --every to see "
                "what the gate says where nothing changed"
            )
        known = known_noise.load(machine)
        with bench, written_to(options.pairs) if options.pairs else nullcontext(_forget) as write:
            return measured.measure(bench, wanted, write, known, machine)
    except (UnknownCommit, WorkerRefusal, NoWorker, NoiseError, ValueError, OSError) as error:
        raise GateError(str(error)) from error


def _replayed(options: argparse.Namespace) -> Report:
    try:
        records = list(read(options.pairs))
        gpus = {str(one["fingerprint"]["gpu"]) for one in records if one.get("kind") == "run"}
        machine = device.slug(gpus.pop()) if len(gpus) == 1 else "machine"
        report = measured.replay(records, known_noise.load(machine), machine)
    except NoiseError as error:
        raise GateError(str(error)) from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise GateError(
            f"{options.pairs} does not hold what `--measure --pairs` writes "
            f"({type(error).__name__}: {error}): give such a file"
        ) from error
    for name, seen in ((options.base, report.base), (options.head, report.head)):
        if resolve(name, [seen]) != seen:
            raise GateError(f"{options.pairs} was measured of {seen[:12]}, not of {name}")
    return report


def _bisect(options: argparse.Namespace) -> int:
    """Print the commits that made a case slower; exit code 0 if found, else 2 and the reason."""
    try:
        if device.gpu() is None and options.device == "cuda":
            raise GateError("--bisect needs an NVIDIA GPU, and none answers here")
        known = known_noise.load(device.machine_name())
        say = partial(print, flush=True)
        found = bisect(options.bisect, options.base, options.head, known, options.device, say)
    except (GateError, NothingToFind, UnknownCommit, WorkerRefusal, NoWorker, NoiseError) as error:
        print(f"gate: {clean(str(error))}", file=sys.stderr)
        return 2
    subject = f"{clean(options.bisect)}: {percent(1 + found.effect)}"
    if len(found.commits) > 1:
        subject += f"; one of {len(found.commits)} commits, the others could not be timed"
    print(subject)
    for commit in found.commits:
        print(clean(title(commit)))
    return 0


def _forget(record: object) -> None:
    """Records that nobody asked for."""


def _seconds(text: str) -> float:
    """A budget such as 90s, 10m or 1h. Raises argparse.ArgumentTypeError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if found is None or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give one such as 90s, 10m or 1h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gate",
        description="Compare two commits by their stored results, or by measuring them.",
        epilog="Exit codes: 0 pass; 1 regression that was not acknowledged; 2 could not decide.",
        allow_abbrev=False,
    )
    parser.add_argument("base", metavar="BASE", help="the older commit: any git revision")
    parser.add_argument("head", metavar="HEAD", help="the commit to judge")
    parser.add_argument("--results", type=Path, default=RESULTS, help="asv's results directory")
    parser.add_argument(
        "--suite", choices=(*stored.SUITES, "all"), help="default: all; with --measure kernels"
    )
    parser.add_argument("--machine", default="", help="only this machine (default: all shared)")
    parser.add_argument(
        "--history", action="store_true", help="what moved between them, by all stored commits"
    )
    parser.add_argument("--acknowledged", type=Path, help=f"default: {acknowledged.PATH.name}")
    parser.add_argument(
        "--floors", type=Path, default=floors.PATH, help=f"promised speeds: {floors.PATH.name}"
    )
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--markdown", type=Path, help="write a summary for a pull request")
    parser.add_argument("--junit", type=Path, help="write a JUnit file")
    parser.add_argument("--pairs", type=Path, help="what --measure writes; alone: judge it")
    timing = parser.add_argument_group("timing both beside each other")
    timing.add_argument("--measure", action="store_true", help="on this machine's NVIDIA GPU")
    timing.add_argument("--every", action="store_true", help="also what HEAD cannot have changed")
    timing.add_argument("--bench", type=regular_expression, default="", metavar="REGEX")
    timing.add_argument("--match", type=regular_expression, default="", metavar="REGEX")
    timing.add_argument("--limit", type=whole_number(1), help="so many cases, spread evenly")
    timing.add_argument("--budget", type=_seconds, default=math.inf, help="such as 10m")
    timing.add_argument("--sessions", type=whole_number(MIN_SESSIONS), default=MIN_SESSIONS)
    timing.add_argument(
        "--bisect", metavar="CASE", help='"OP CASE": which commit made it slower, by measuring'
    )
    timing.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run")
    return parser


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
