"""Two commits that were timed beside each other → findings: what the gate says of each case.

Works on records as `benchmarks.measure.paired` writes them and touches no file. A case is

- regressed where head is slower by more than its noise explains, over all cases together
  (`benchmarks.compare.decide`), by more than 2 % and by three times what is known of its noise
  (`benchmarks.sessions`), and where a second measurement by new processes is significant too and
  both together are above these limits;
- improved by the mirrored first two;
- unstable where it was slower at first and not again, or where a change of 5 % could have been
  missed; else it passes.

Cases that were measured base beside base, the controls, are judged alike: where one of them is
slower or faster, and a second measurement confirms it, nothing of the run is believed. Nor where
nobody measured it again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from benchmarks import compare
from benchmarks.gate.findings import GATED, Finding, Key, Outcome, worst_first
from benchmarks.known_noise import KnownNoise, Session, session
from benchmarks.measure.telemetry import throttled
from benchmarks.sessions import SOUGHT, compare_sessions, confirms

Record = Mapping[str, Any]


class Case(NamedTuple):
    """A case of an operator or a model."""

    op: str
    name: str
    suite: str = "kernels"

    def key(self, machine: str) -> Key:
        """As the gate's findings name it."""
        return Key(machine, self.suite, self.op, "time", self.name, GATED)


_SAME = ("gpu", "driver", "torch", "triton")
_ATTEMPTS = 2
"""So often head has to fail, and base never, before it is called head's failure."""


@dataclass
class Evidence:
    """What was measured of one case.

    Attributes:
        sessions: log-ratios of those that count.
        base: seconds of a call, one of each of these sessions.
        head: the same.
        left_out: why the other sessions do not count.
        sides: status of each side in each session, whether it counts or not.
    """

    sessions: list[Session] = field(default_factory=list)
    base: list[float] = field(default_factory=list)
    head: list[float] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    sides: list[Mapping[str, str]] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Raises ValueError or KeyError where the record is none of a case."""
        self.sides.append(record.get("sides", {}))
        if record["status"] != "ok":
            self.left_out.append(str(record["reason"]))
            return
        slowed = [throttled(seen) for seen in record.get("telemetry", {}).values()]
        if any(slowed):
            self.left_out.append(next(filter(None, slowed)))
            return
        self.sessions.append(session(record))
        for side, seconds in (("base", self.base), ("head", self.head)):
            taken = [block["taken"][GATED] for block in record["blocks"] if block["side"] == side]
            seconds.append(statistics.median(one for block in taken for one in block))

    def test(self, case: Case, known: KnownNoise) -> compare.SampleTest:
        """The t-test of its sessions."""
        drifts = [one.drift for one in self.sessions]
        spread = known.of(case.op, case.name)
        return compare_sessions([one.ratio for one in self.sessions], drifts, spread)


@dataclass
class Gathered:
    """The records of a run, by case.

    `again` and `controls_again` are what was measured to confirm a suspicion and an alarm.
    """

    cases: dict[Case, Evidence] = field(default_factory=dict)
    controls: dict[Case, Evidence] = field(default_factory=dict)
    again: dict[Case, Evidence] = field(default_factory=dict)
    controls_again: dict[Case, Evidence] = field(default_factory=dict)
    fingerprints: list[Record] = field(default_factory=list)
    commits: set[tuple[str, str]] = field(default_factory=set)

    def add(self, record: Record) -> None:
        """Raises ValueError or KeyError where it is no record of `benchmarks.measure.paired`."""
        if record["kind"] == "run":
            self.fingerprints.append(record["fingerprint"])
            self.commits.add((str(record["base"]), str(record["head"])))
            return
        again = record.get("stage") == "again"
        into = self.again if again else self.cases
        if record["control"]:
            into = self.controls_again if again else self.controls
        suite = str(record.get("suite", "kernels"))
        case = Case(str(record["op"]), str(record["case"]), suite)
        into.setdefault(case, Evidence()).add(record)

    def unlike(self) -> str:
        """What differs between the machines of the runs, in words; empty where nothing."""
        for name in _SAME:
            seen = sorted({str(one.get(name)) for one in self.fingerprints})
            if len(seen) > 1:
                return f"the runs were not measured on one machine: {name} {', '.join(seen)}"
        return ""


@dataclass(frozen=True)
class Verdicts:
    """What the records say.

    Attributes:
        findings: one of each case, worst first.
        blockers: why nothing is decided.
        suspects: cases that a second measurement has to confirm, worst first.
        alarms: controls of which the same is true.
        notes: of controls that differed at first and not again, in words.
        uncertain: cases in which a change of 3 % could have been missed, the least certain first;
            before them those that too few sessions count of.
        power: by slowdown, in what part of the cases it would have been seen.
    """

    findings: Sequence[Finding]
    blockers: Sequence[str]
    suspects: Sequence[Case]
    alarms: Sequence[Case]
    notes: Sequence[str]
    uncertain: Sequence[Case]
    power: Mapping[float, float]


def judge(gathered: Gathered, known: KnownNoise, machine: str) -> Verdicts:
    """Judge all cases together. A suspect that `again` says nothing of is not decided yet."""
    tests = {case: seen.test(case, known) for case, seen in gathered.cases.items()}
    whole = {case: test for case, test in tests.items() if not _broken(gathered.cases[case])}
    decided = dict(zip(whole, compare.decide(list(whole.values())), strict=True))
    findings, suspects = [], []
    for case, seen in gathered.cases.items():
        if case not in decided:
            findings.append(_failed(case, seen, machine))
            continue
        found = _finding(case, seen, decided[case], tests[case], machine)
        if found.outcome == "regressed":
            suspects.append((found.ratio, case))
            found = _confirmed(found, seen, gathered.again.get(case), case, known)
        findings.append(found)
    alarms = _alarms(gathered, known)
    blockers = [*(one.words for one in alarms if one.void), *filter(None, [gathered.unlike()])]
    if blockers:
        findings = [_void(found) for found in findings]
    smallest = dict(zip(whole, compare.detectable(list(whole.values())), strict=True))
    uncertain = sorted(
        (case for case, one in smallest.items() if one > SOUGHT),
        key=lambda case: -smallest[case],
    )
    return Verdicts(
        sorted(findings, key=worst_first),
        blockers,
        [case for _, case in sorted(suspects, reverse=True)],
        [one.case for one in alarms],
        [one.words for one in alarms if not one.void],
        uncertain,
        {change: compare.power(list(whole.values()), change) for change in (0.02, 0.03, 0.05)},
    )


def _broken(seen: Evidence) -> bool:
    return any(set(sides.values()) - {"ok"} for sides in seen.sides)


def _finding(
    case: Case,
    seen: Evidence,
    found: compare.Comparison,
    test: compare.SampleTest,
    machine: str,
) -> Finding:
    outcome: Outcome = found.verdict
    reason = found.reason
    if test.problem:
        outcome = "undecided"
        reason = "; ".join(dict.fromkeys([test.problem, *seen.left_out]))
    base, head = (statistics.median(one) if one else math.nan for one in (seen.base, seen.head))
    return Finding(
        case.key(machine),
        outcome,
        base,
        head,
        reason,
        found.ratio,
        found.low,
        found.high,
        test.drift_removed,
    )


def _failed(case: Case, seen: Evidence, machine: str) -> Finding:
    """The finding where a session of a case could not be measured."""
    base, head = ({sides.get(side, "unknown") for sides in seen.sides} for side in ("base", "head"))
    why = "; ".join(dict.fromkeys(seen.left_out))
    outcome: Outcome = "undecided"
    if base == head == {"skipped"}:
        outcome = "skipped"
    elif base == {"ok"} and head == {"skipped"}:
        outcome = "missing"
    elif base == {"skipped"} and head == {"ok"}:
        outcome = "new"
    elif base == head == {"failed"}:
        outcome = "failing"
    elif base == {"failed"} and head == {"ok"}:
        outcome = "fixed"
    elif head == {"failed"} and "failed" not in base and len(seen.sides) >= _ATTEMPTS:
        outcome = "failed"
    elif seen.sessions:
        why = f"{len(seen.left_out)} of {len(seen.sides)} sessions failed: {why}"
    return Finding(case.key(machine), outcome, math.nan, math.nan, why)


def _confirmed(
    found: Finding, seen: Evidence, again: Evidence | None, case: Case, known: KnownNoise
) -> Finding:
    """A suspect, once new processes measured it again."""
    second = _second(seen, again, case, known)
    if second.confirmed is None:
        reason = f"{found.reason}, not confirmed: {second.words}"
        return replace(found, outcome="undecided", reason=reason)
    if second.confirmed:
        return replace(found, reason=f"{found.reason}; {second.words}")
    return replace(found, outcome="unstable", reason=f"slower at first, but {second.words}")


class _Second(NamedTuple):
    """What a second measurement says: whether it confirms the first, None where it cannot tell."""

    confirmed: bool | None
    words: str


def _second(
    seen: Evidence, again: Evidence | None, case: Case, known: KnownNoise, *, faster: bool = False
) -> _Second:
    again = again or Evidence()
    test = again.test(case, known)
    if test.problem:
        why = dict.fromkeys([f"measured again in {test.problem}", *again.left_out])
        return _Second(None, "; ".join(why))
    change = f"measured again {_percent(test.log_effect)}"
    whole = Evidence(sessions=[*seen.sessions, *again.sessions])
    if confirms(test, whole.test(case, known), faster=faster):
        return _Second(True, change)
    return _Second(False, f"{change}, which does not confirm it")


class _Alarm(NamedTuple):
    """A control that differs; `void`: so that the run is."""

    case: Case
    void: bool
    words: str


def _alarms(gathered: Gathered, known: KnownNoise) -> list[_Alarm]:
    tests = {case: seen.test(case, known) for case, seen in gathered.controls.items()}
    alarms = []
    for (case, test), found in zip(tests.items(), compare.decide([*tests.values()]), strict=True):
        if found.verdict not in ("regressed", "improved"):
            continue
        seen, again = gathered.controls[case], gathered.controls_again.get(case)
        second = _second(seen, again, case, known, faster=found.verdict == "improved")
        control = f"the control {case.op} {case.name}, base beside base,"
        change = _percent(test.log_effect)
        if second.confirmed is False:
            words = f"{control} differed by {change} at first, but {second.words}"
        else:
            words = f"{control} differs by {change}, {second.words}: the run is void, measure again"
        alarms.append(_Alarm(case, second.confirmed is not False, words))
    return alarms


def _percent(log_effect: float) -> str:
    return f"{100 * math.expm1(log_effect):+.1f} %"


def _void(found: Finding) -> Finding:
    if found.outcome not in ("regressed", "improved", "failed"):
        return found
    return replace(found, outcome="undecided", reason=f"{found.reason}, in a run that is void")
