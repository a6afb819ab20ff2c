"""Rows of two commits → findings: what the gate says about each measurement of `base` and `head`.

Works on rows as `benchmarks.store` gives them and touches no file.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from benchmarks import compare
from benchmarks.cases import NOT_SELECTED, was_left_out

Outcome = Literal[
    "failed",
    "regressed",
    "missing",
    "unstable",
    "undecided",
    "acknowledged",
    "improved",
    "fixed",
    "new",
    "version",
    "failing",
    "skipped",
    "pass",
]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
REGRESSIONS: frozenset[Outcome] = frozenset({"failed", "regressed"})
UNDECIDED: frozenset[Outcome] = frozenset({"missing", "unstable", "undecided"})
COMPARED: frozenset[Outcome] = frozenset({"pass", "improved", "regressed", "acknowledged"})
HIGHER_IS_BETTER = frozenset({"occupancy", "speedup"})
TIMED = frozenset({"kernels", "models"})
"""Suites whose numbers are times with samples; the others' are exact counts."""
GATED = "kernl"
CONTROL = "eager"
SAME: dict[str, tuple[str, ...]] = {
    "codegen": ("triton", "ptxas"),
    "kernels": ("gpu", "driver", "torch", "triton"),
    "models": ("gpu", "driver", "torch", "triton", "transformers"),
}
"""What must be recorded and equal on both sides before numbers of a suite can be compared."""

_FAILED_NOW: dict[str, Outcome] = {"ok": "failed", "failed": "failing"}

Row = Mapping[str, Any]
Runs = Mapping[str, Mapping[str, Any]]


class Key(NamedTuple):
    """What was measured."""

    machine: str
    suite: str
    op: str
    metric: str
    case: str
    variant: str


@dataclass(frozen=True)
class Finding:
    """What the gate says about one measurement.

    `base` and `head` are values in the metric's unit, NaN where there is none. `ratio` is
    head / base with its 99 % interval `low` to `high`, which are equal where nothing tells one, NaN
    where nothing was compared. `commits` are full hashes, one or several of which brought the
    change; empty where any may have.
    """

    key: Key
    outcome: Outcome
    base: float
    head: float
    reason: str
    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan
    drift_removed: bool = False
    commits: tuple[str, ...] = ()

    @property
    def worse(self) -> float:
        """How many times worse head is: below 1 it is better, NaN where nothing was compared."""
        if self.key.metric not in HIGHER_IS_BETTER or math.isnan(self.ratio):
            return self.ratio
        return math.inf if self.ratio == 0 else 1 / self.ratio


@dataclass(frozen=True)
class _Pair:
    """Two good rows of one key that may be compared."""

    key: Key
    base: Row
    head: Row


def find(base: Sequence[Row], head: Sequence[Row], runs: Runs) -> list[Finding]:
    """One finding for each measurement in `base` or `head`, worst first.

    Args:
        base: rows of the older commit.
        head: rows of the newer commit.
        runs: fingerprint of each run by its id.

    Time is judged for the implementation `kernl` alone, of operators and of models together in one
    family of tests; `eager` serves as drift. Models' `kernl_graphs_only` and `kernl_rewrite_only`
    are not judged: they are parts of kernl for readers to compare, which nobody runs, and what
    makes one of them slower and matters makes `kernl` slower too.
    """
    findings: list[Finding] = []
    counts: list[_Pair] = []
    samples: list[_Pair] = []
    twice = _twice(base) | _twice(head)
    olds, news = _by_key(base), _by_key(head)
    for key in sorted(olds.keys() | news.keys()):
        if key.suite in TIMED and key.variant != GATED:
            continue
        old, new = olds.get(key), news.get(key)
        if key in twice:
            findings.append(_plain(key, "undecided", old, new, "measured twice for one commit"))
            continue
        settled = _by_status(key, old, new)
        if settled is None and old is not None and new is not None:
            settled = _comparable(key, old, new, runs)
        if settled is not None:
            findings.append(settled)
        elif old is not None and new is not None:
            (samples if key.suite in TIMED else counts).append(_Pair(key, old, new))
    findings += [_count(pair) for pair in counts]
    findings += _judge_samples(samples, olds, news)
    return sorted(findings, key=worst_first)


def control_drift(
    findings: Iterable[Finding], base: Sequence[Row], head: Sequence[Row]
) -> dict[str, tuple[float, int]]:
    """Median change of `eager`, whose code did not change: suite → (ratio, number of cases).

    Counts the cases whose time was compared without dividing eager's drift out. Suites are counted
    apart: a slower host moves whole models and no kernel. One without such a case is left out.
    """
    olds, news = _by_key(base), _by_key(head)
    ratios: dict[str, list[float]] = {}
    for finding in findings:
        key = finding.key._replace(variant=CONTROL)
        if key.suite not in TIMED or math.isnan(finding.ratio) or finding.drift_removed:
            continue
        old, new = _value(olds.get(key)), _value(news.get(key))
        if 0 < old < math.inf and 0 < new < math.inf:
            ratios.setdefault(key.suite, []).append(new / old)
    return {suite: (statistics.median(found), len(found)) for suite, found in ratios.items()}


def others_moved(base: Iterable[Row], head: Iterable[Row]) -> dict[Key, dict[str, float]]:
    """How far what nobody changed moved beside kernl: log of head over base by implementation.

    By the key of kernl's own time. kernl's halves are left out, as their code is kernl's too.
    """
    olds, news = _by_key(base), _by_key(head)
    found: dict[Key, dict[str, float]] = {}
    for key in olds.keys() & news.keys():
        if key.suite in TIMED and key.variant.split("_", 1)[0] != GATED:
            old, new = _value(olds[key]), _value(news[key])
            if 0 < old < math.inf and 0 < new < math.inf:
                of_case = found.setdefault(key._replace(variant=GATED), {})
                of_case[key.variant] = math.log(new / old)
    return found


def worst_first(finding: Finding) -> tuple[int, float, Key]:
    """Sort key: outcomes in the order of `OUTCOMES`, then the largest worsening."""
    worse = finding.worse if not math.isnan(finding.worse) else 0.0
    return OUTCOMES.index(finding.outcome), -worse, finding.key


def _key(row: Row) -> Key:
    return Key(*(str(row[field]) for field in Key._fields))


def _by_key(rows: Iterable[Row]) -> dict[Key, Row]:
    return {_key(row): row for row in rows}


def _twice(rows: Iterable[Row]) -> set[Key]:
    return {key for key, times in Counter(map(_key, rows)).items() if times > 1}


def _status(row: Row) -> str:
    status = str(row["status"])
    if status == "ok" and math.isnan(float(row["value"])):
        return "failed"
    return status


def _value(row: Row | None) -> float:
    return math.nan if row is None or _status(row) != "ok" else float(row["value"])


def _plain(key: Key, outcome: Outcome, base: Row | None, head: Row | None, why: str) -> Finding:
    return Finding(key, outcome, _value(base), _value(head), why)


def _by_status(key: Key, base: Row | None, head: Row | None) -> Finding | None:
    """The finding where one side has no number; None where both have."""
    old = "absent" if base is None else _status(base)
    new = "absent" if head is None else _status(head)
    if base is not None and head is not None and base["version"] != head["version"]:
        versions = f"benchmark version {base['version']} on base, {head['version']} on head"
        if new == "failed":
            return _plain(key, "undecided", base, head, f"{_why(head)}, and {versions}")
        return _plain(key, "version", base, head, versions)
    if old == "ok" and new == "ok":
        return None
    if new == "failed":
        outcome = _FAILED_NOW.get(old, "undecided")
        earlier = "" if old == "ok" else f", and base {_was(old)}"
        return _plain(key, outcome, base, head, f"{_why(head)}{earlier}")
    if new == "ok":
        return _plain(key, "fixed" if old == "failed" else "new", base, head, f"base {_was(old)}")
    if was_left_out(_reason(base)) or was_left_out(_reason(head)):
        return _plain(key, "skipped", base, head, NOT_SELECTED)
    if new == "skipped" and old != "ok":
        return _plain(key, "skipped", base, head, f"n/a on head, and base {_was(old)}")
    if old == "skipped":
        return _plain(key, "skipped", base, head, "n/a on base, no result on head")
    return _plain(key, "missing", base, head, f"base {_was(old)}, head {_was(new)}")


def _was(status: str) -> str:
    words = {"ok": "was measured", "failed": "failed", "skipped": "was n/a"}
    return words.get(status, "has no result")


def _reason(row: Row | None) -> str:
    return "" if row is None else str(row["reason"]).strip()


def _why(row: Row | None) -> str:
    reason = _reason(row)
    return f"failed on head: {reason}" if reason else "failed on head, no reason recorded"


def _comparable(key: Key, base: Row, head: Row, runs: Runs) -> Finding | None:
    """The finding where the two numbers must not be compared; None where they may."""
    if key.suite in TIMED:
        wrong = [f"{row['value']:g} s" for row in (base, head) if not 0 < row["value"] < math.inf]
        if wrong:
            return _plain(key, "undecided", base, head, f"not a positive time: {', '.join(wrong)}")
    prints = [runs.get(str(row["run"]), {}) for row in (base, head)]
    differences = []
    for field in SAME.get(key.suite, ()):
        old, new = (_known(fingerprint.get(field)) for fingerprint in prints)
        sides = [side for side, value in (("base", old), ("head", new)) if not value]
        if sides:
            differences.append(f"{field} not recorded for {' and '.join(sides)}")
        elif old != new:
            differences.append(f"{field} {old} on base, {new} on head")
    if not differences:
        return None
    return _plain(key, "undecided", base, head, "not comparable: " + "; ".join(differences))


def _known(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).strip()


def _count(pair: _Pair) -> Finding:
    return _compared(
        pair,
        compare.compare_counts(
            float(pair.base["value"]),
            float(pair.head["value"]),
            lower_is_better=pair.key.metric not in HIGHER_IS_BETTER,
        ),
    )


def _judge_samples(
    pairs: Sequence[_Pair], olds: Mapping[Key, Row], news: Mapping[Key, Row]
) -> list[Finding]:
    tests = [
        compare.compare_samples(
            pair.base["samples"],
            pair.head["samples"],
            _drift(pair.key, pair.base, olds),
            _drift(pair.key, pair.head, news),
        )
        for pair in pairs
    ]
    decided = compare.decide(tests)
    return [
        _compared(pair, comparison, test.drift_removed)
        for pair, test, comparison in zip(pairs, tests, decided, strict=True)
    ]


def _drift(key: Key, row: Row, rows: Mapping[Key, Row]) -> Sequence[float]:
    """Eager's samples of the same case, where they were interleaved with `row`'s."""
    control = rows.get(key._replace(variant=CONTROL))
    if control is None or _status(control) != "ok" or control["run"] != row["run"]:
        return ()
    samples: Sequence[float] = control["samples"]
    return samples


def _compared(pair: _Pair, comparison: compare.Comparison, drift_removed: bool = False) -> Finding:
    return Finding(
        key=pair.key,
        outcome=comparison.verdict,
        base=float(pair.base["value"]),
        head=float(pair.head["value"]),
        reason=comparison.reason,
        ratio=comparison.ratio,
        low=comparison.low,
        high=comparison.high,
        drift_removed=drift_removed,
    )
