"""`floors.toml`: promised speeds, each reviewed; a stored result below its promise is red.

A speedup is another implementation's time divided by kernl's, of one case on one machine. A case
that kernl leaves to eager for a reason has eager's time, as in the published tables. kernl and its
parts, such as `kernl_graphs_only`, are nobody's opponents.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.cases import was_left_out
from benchmarks.gate import reviewed
from benchmarks.gate.findings import CONTROL, GATED, TIMED, Finding, Key, Outcome, Row, worst_first

_LIST = "floor"
PATH = Path(__file__).parents[1] / "floors.toml"
NEEDED = ("suite", "op", "case", "over", "at_least", "reason")
KEYS = (*NEEDED, "machine")
METRIC = "speedup"
BEST = "best"
_PART = f"{GATED}_"
_MAX_SPEEDUP = 1e9
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Floor:
    """One promise.

    Attributes:
        line: line of the file where the entry begins (1 is the first; 0 unknown).
        suite: "kernels" or "models".
        op: name of the operator or model, exact.
        case: pattern of case names, as the shell writes them (`batch1_*.fp16`).
        over: "best" for the fastest opponent of each case, or the exact name of one.
        at_least: the smallest speedup that keeps the promise; below 1 it is a known loss.
        reason: why it is promised.
        machine: pattern of machine names.
    """

    line: int
    suite: str
    op: str
    case: str
    over: str
    at_least: float
    reason: str
    machine: str = "*"

    def matches(self, machine: str, suite: str, op: str, case: str) -> bool:
        """Whether this promise is about that case."""
        return (
            (self.suite, self.op) == (suite, op)
            and fnmatchcase(case, self.case)
            and fnmatchcase(machine, self.machine)
        )

    @property
    def subject(self) -> tuple[str, ...]:
        """What is promised, without how much and why."""
        return self.suite, self.op, self.case, self.over, self.machine

    @property
    def where(self) -> str:
        """The place in the file, in words."""
        return f"line {self.line}" if self.line else "an unknown line"

    def __str__(self) -> str:
        return f"{self.suite} {self.op} {self.case} over {self.over} on {self.machine}"


@dataclass
class _Case:
    """One case on one machine, with all rows of each implementation."""

    machine: str
    suite: str
    op: str
    name: str
    rows: dict[str, list[Row]] = field(default_factory=dict)

    @property
    def is_measured(self) -> bool:
        """Whether kernl was asked for this case, whatever came of it."""
        return any(not _left_out(row) for row in self.rows.get(GATED, ()))


def is_opponent(variant: str) -> bool:
    """Whether an implementation is an alternative to kernl: not kernl itself, and no part of it."""
    return variant != GATED and not variant.startswith(_PART)


def load(path: Path) -> list[Floor]:
    """Read the file. Raises `benchmarks.gate.reviewed.ReviewedError` where it cannot be used."""
    first: dict[tuple[str, ...], str] = {}

    def wrong(entry: reviewed.Entry) -> list[str]:
        words = _wrong(entry.table)
        if not words:
            earlier = first.setdefault(_floor(entry).subject, entry.where)
            if earlier != entry.where:
                return [f"the same cases and opponent as in {earlier}: keep one of them"]
        return words

    return [_floor(entry) for entry in reviewed.read(path, _LIST, KEYS, wrong)]


def check(
    rows: pd.DataFrame, commit: str, floors: Sequence[Floor], machine: str = ""
) -> list[Finding]:
    """One finding for each promise and each measured case that it is about, worst first.

    "regressed" where the speedup is below the promise, "pass" where it holds, "undecided" where
    there is none. `base` is what was promised, `head` what was measured.

    Args:
        rows: `benchmarks.store.Store.rows`.
        commit: full hash of the commit that is judged.
        floors: of `load`.
        machine: judge this machine alone; "" for all.
    """
    cases = _cases(rows, commit, floors, machine)
    found = [
        _finding(floor, case)
        for floor in floors
        for case in _matched(floor, cases)
        if case.is_measured
    ]
    return sorted(found, key=worst_first)


def unmeasured(
    rows: pd.DataFrame, commit: str, floors: Sequence[Floor], machine: str = ""
) -> list[str]:
    """A sentence for each promise that `check` says nothing of, or not of all of its cases."""
    cases = _cases(rows, commit, floors, machine)
    words = []
    for floor in floors:
        asked = [case.is_measured for case in _matched(floor, cases)]
        start = f"floor of {floor.where}"
        if not any(asked):
            words.append(f"{start} matches nothing that was measured: {floor}")
        elif not all(asked):
            absent = f"{asked.count(False)} of its {len(asked)} cases"
            words.append(f"{start} was not checked on {absent}, not measured here: {floor}")
    return words


def _matched(floor: Floor, cases: Iterable[_Case]) -> list[_Case]:
    return [one for one in cases if floor.matches(one.machine, one.suite, one.op, one.name)]


def _cases(rows: pd.DataFrame, commit: str, floors: Iterable[Floor], machine: str) -> list[_Case]:
    """The timed cases of a commit, of operators and models that have a promise."""
    wanted = (rows["commit"] == commit) & (rows["metric"] == "time")
    wanted &= rows["op"].isin({floor.op for floor in floors})
    if machine:
        wanted &= rows["machine"] == machine
    found: dict[tuple[str, ...], _Case] = {}
    for row in rows[wanted].to_dict("records"):
        names = str(row["machine"]), str(row["suite"]), str(row["op"]), str(row["case"])
        case = found.setdefault(names, _Case(*names))
        case.rows.setdefault(str(row["variant"]), []).append(row)
    return list(found.values())


def _finding(floor: Floor, case: _Case) -> Finding:
    key = Key(case.machine, case.suite, case.op, METRIC, case.name, GATED)
    promised = float(floor.at_least)
    speedup, words = _speedup(floor, case)
    reason = f"{words}, promised are {promised:.12g}: {floor.reason}"
    if math.isnan(speedup):
        return Finding(key, "undecided", promised, math.nan, reason)
    outcome: Outcome = "regressed" if speedup < promised else "pass"
    ratio = speedup / promised
    return Finding(key, outcome, promised, speedup, reason, ratio, ratio, ratio)


def _speedup(floor: Floor, case: _Case) -> tuple[float, str]:
    """kernl's speedup, and in words over what; NaN and why where there is none."""
    twice = [
        name
        for name, rows in case.rows.items()
        if len(rows) > 1 and (name == GATED or is_opponent(name))
    ]
    if twice:
        return math.nan, f"measured twice for one commit: {', '.join(sorted(twice))}"
    ours, kernl = case.rows[GATED][0], GATED
    if ours["status"] == "skipped":
        kernl = f"{CONTROL}, to which kernl leaves it ({_reason(ours)})"
        if CONTROL not in case.rows:
            return math.nan, f"no time of {kernl}"
        ours = case.rows[CONTROL][0]
    seconds = _seconds(ours)
    if math.isnan(seconds):
        return math.nan, f"no time of {kernl}: {_why(ours)}"
    times = {
        name: time
        for name, rows in case.rows.items()
        if is_opponent(name) and not math.isnan(time := _seconds(rows[0]))
    }
    if floor.over != BEST and floor.over not in times:
        rows = case.rows.get(floor.over)
        return math.nan, f"no time of {floor.over}: {_why(rows[0]) if rows else 'it has no row'}"
    if not times:
        return math.nan, "no time of any other implementation"
    name = floor.over if floor.over != BEST else min(times, key=lambda one: (times[one], one))
    speedup = times[name] / seconds
    if floor.over == BEST and speedup >= floor.at_least and _is_best_unknown(case, times):
        return math.nan, f"no time of any opponent but {CONTROL}: others were left out of this run"
    said = f"{_shown(speedup, floor.at_least)} times as fast as {name}"
    return speedup, said if kernl == GATED else f"{said}, with the time of {kernl}"


def _is_best_unknown(case: _Case, times: dict[str, float]) -> bool:
    """Whether nobody asked for the opponents that could be faster than eager."""
    return set(times) == {CONTROL} and any(
        is_opponent(name) and _left_out(rows[0]) for name, rows in case.rows.items()
    )


def _shown(value: float, promised: float) -> str:
    """A number with three digits, or as many more as show on which side of the promise it lies."""
    texts = (f"{value:.{digits}g}" for digits in range(3, 18))
    return next(text for text in texts if (float(text) < promised) == (value < promised))


def _seconds(row: Row) -> float:
    """The time of a good row; NaN where there is none."""
    value = float(row["value"])
    return value if row["status"] == "ok" and 0 < value < math.inf else math.nan


def _left_out(row: Row) -> bool:
    """Whether nobody asked for this point: it is skipped and says so, or says nothing."""
    reason = _reason(row)
    return row["status"] == "skipped" and (not reason or was_left_out(reason))


def _reason(row: Row) -> str:
    return str(row["reason"]).strip()


def _why(row: Row) -> str:
    """Why a row has no time."""
    if row["status"] == "ok":
        return f"{row['value']:g} s is no positive time"
    return f"{row['status']}, {_reason(row) or 'no reason recorded'}"


def _floor(entry: reviewed.Entry) -> Floor:
    table = entry.table
    return Floor(line=entry.line, **{**table, "at_least": float(table["at_least"])})


def _wrong(entry: dict[str, Any]) -> list[str]:
    """What is wrong with one table, in words."""
    wrong = [f"{key!r} is missing, it is needed" for key in NEEDED if key not in entry]
    wrong += reviewed.unknown(entry, _LIST, KEYS)
    for key in ("case", "reason", "machine"):
        value = entry.get(key, "x")
        if not isinstance(value, str) or not value.strip():
            wrong.append(f"{key!r} is {value!r}, it must be text that is not empty")
    suite, op = entry.get("suite"), entry.get("op", "x")
    if "suite" in entry and (not isinstance(suite, str) or suite not in TIMED):
        wrong.append(f"'suite' is {suite!r}, allowed: {', '.join(sorted(TIMED))}")
    if not isinstance(op, str) or not _NAME.fullmatch(op):
        wrong.append(f"'op' is {op!r}, it must be an exact name such as \"bert_base\"")
    over = entry.get("over", BEST)
    if not isinstance(over, str) or not _NAME.fullmatch(over) or not is_opponent(over):
        wrong.append(
            f"'over' is {over!r}, it must be {BEST!r} or the exact name of an opponent such as "
            f"{CONTROL!r}; kernl and its parts are none"
        )
    number = entry.get("at_least", 1.0)
    if isinstance(number, bool) or not isinstance(number, int | float) or not _is_speedup(number):
        wrong.append(
            f"'at_least' is {number!r}, it must be a number above 0 and up to {_MAX_SPEEDUP:g}: "
            f"the other one's time divided by kernl's"
        )
    return wrong


def _is_speedup(number: float) -> bool:
    return 0 < number <= _MAX_SPEEDUP
