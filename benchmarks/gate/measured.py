"""The gate by measuring: which cases, how often, and what of the time goes where.

1. The cases of the operators that the change can have touched (`benchmarks.touched`), in three
   sessions, of new processes each; one in twenty also base beside base.
2. Where a change of 3 % could still be missed, three more sessions, and three more.
3. Who is suspected of being slower, three sessions by processes that measured nothing before, and
   of the controls, base beside base, those that differed: these come first.

With a budget the first part may take half of it, the second goes on until three quarters are
spent, and the least certain cases come first. Whatever it does not reach is not decided.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import cases as frozen_cases
from benchmarks import known_noise
from benchmarks.gate.beside import Case, Gathered, Verdicts, judge
from benchmarks.gate.findings import Finding
from benchmarks.gate.report import Report, share
from benchmarks.measure.measuring import SUITE
from benchmarks.measure.paired import TwoCommits, asked_for, spread
from benchmarks.measure.pairs import Asked, Plan, Write
from benchmarks.sessions import MIN_SESSIONS
from benchmarks.touched import Tree, touched, touched_models

ROOT = Path(__file__).resolve().parents[2]
MORE = 2
"""So many times three more sessions for what is uncertain."""
FIRST, SECOND = 0.5, 0.75
"""The parts of a budget that may be spent before the second and the third part begin."""
_PAIRS = 8


@dataclass(frozen=True)
class Wanted:
    """What is to be compared.

    Attributes:
        suites: `kernels`, `models`.
        every: also what the change cannot have touched.
        bench: a regular expression of benchmarks, as asv's.
        match: one of case names.
        limit: so many cases, spread evenly.
        budget_s: seconds.
        sessions: in the first part.
    """

    suites: Sequence[str] = (SUITE,)
    every: bool = False
    bench: str = ""
    match: str = ""
    limit: int | None = None
    budget_s: float = math.inf
    sessions: int = MIN_SESSIONS


def measure(
    bench: TwoCommits,
    wanted: Wanted,
    write: Write,
    known: known_noise.KnownNoise,
    machine: str,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Report:
    """Measure and judge; every record is also given to `write`.

    Raises what `benchmarks.measure.pairs.measure_pairs` raises.
    """
    begun = clock()
    asked, untouched = chosen(bench, wanted)
    gathered = Gathered()
    stage = ""

    def collect(record: Mapping[str, Any]) -> None:
        told = {**record, "stage": stage}
        gathered.add(told)
        write(told)

    def collect_control(record: Mapping[str, Any]) -> None:
        # Of the comparison that it is a control of.
        named = {"head": bench.head} if record["kind"] == "run" else {}
        collect({**record, **named, "control": True})

    def take(
        some: Sequence[Asked],
        sessions: int,
        spent: float,
        control: float,
        *,
        beside_itself: bool = False,
    ) -> None:
        until = begun + spent * wanted.budget_s
        if some and clock() < until:
            plan = Plan(sessions, pairs=_PAIRS, control=control, until=until)
            if beside_itself:
                with TwoCommits.of(bench.base, bench.base, bench.device) as same:
                    same.measure(some, plan, collect_control)
            else:
                bench.measure(some, plan, collect)

    by_case = {Case(one.op, one.case.name, one.suite): one for one in asked}
    stage = "first"
    take(asked, wanted.sessions, FIRST, Plan().control)
    stage = "more"
    for _ in range(MORE):
        uncertain = judge(gathered, known, machine).uncertain
        take([by_case[case] for case in uncertain], MIN_SESSIONS, SECOND, 0.0)
    stage = "again"
    doubted = judge(gathered, known, machine)
    if doubted.alarms:
        alarming = [by_case[case] for case in doubted.alarms]
        take(alarming, MIN_SESSIONS, 1.0, 0.0, beside_itself=True)
    take([by_case[case] for case in doubted.suspects], MIN_SESSIONS, 1.0, 0.0)
    found = judge(gathered, known, machine)
    missed = [case for case in by_case if case not in gathered.cases]
    spent = f"measured for {clock() - begun:.0f} s"
    return report(bench.base, bench.head, found, known, machine, missed, untouched, [spent])


def chosen(bench: TwoCommits, wanted: Wanted) -> tuple[list[Asked], list[Case]]:
    """Cases to measure, and operators and models that the change cannot have touched."""
    asked = [
        one for suite in wanted.suites for one in asked_for(wanted.bench, wanted.match, None, suite)
    ]
    if wanted.every:
        return spread(asked, wanted.limit), []
    trees = Tree.of(ROOT, bench.base), Tree.of(ROOT, bench.head)
    frozen = frozen_cases.load()
    models = {name: frozen.operators(name) for name in frozen.models}
    reached = touched(*trees, frozen.ops) | touched_models(*trees, models, frozen.ops)
    left = [one for one in asked if one.op in reached]
    measured = {one.op for one in left}
    others = {Case(one.op, "all cases", one.suite): None for one in asked if one.op not in measured}
    return spread(left, wanted.limit), list(others)


def replay(
    records: Iterable[Mapping[str, Any]], known: known_noise.KnownNoise, machine: str
) -> Report:
    """Judge records that were written before.

    Raises ValueError or KeyError where they are not those of one comparison.
    """
    gathered = Gathered()
    for record in records:
        gathered.add(record)
    if len(gathered.commits) != 1:
        raise ValueError(f"records of {len(gathered.commits)} pairs of commits, 1 is needed")
    ((base, head),) = gathered.commits
    return report(base, head, judge(gathered, known, machine), known, machine)


def report(
    base: str,
    head: str,
    found: Verdicts,
    known: known_noise.KnownNoise,
    machine: str,
    missed: Sequence[Case] = (),
    untouched: Sequence[Case] = (),
    notes: Sequence[str] = (),
) -> Report:
    """What is said of the verdicts."""
    nan = math.nan
    same = "every file that it depends on says the same in both commits"
    late = "the budget ended before it was measured"
    findings = [
        *found.findings,
        *(Finding(case.key(machine), "undecided", nan, nan, late) for case in missed),
        *(Finding(case.key(machine), "pass", nan, nan, same) for case in untouched),
    ]
    said = [power_line(found), *filter(None, [known.note]), *found.notes, *notes]
    suites = tuple(sorted({one.key.suite for one in findings}))
    return Report(base, head, suites, (machine,), findings, found.blockers, said)


def power_line(found: Verdicts) -> str:
    """What the run would have seen, in words."""
    if any(math.isnan(seen) for seen in found.power.values()):
        return "power: nothing was timed often enough to tell"
    parts = [f"{share(seen)} if by {100 * by:g} %" for by, seen in sorted(found.power.items())]
    return f"power: a slowdown of one case would have been seen in {', '.join(parts)}"
