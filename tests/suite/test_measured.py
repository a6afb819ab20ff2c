"""The gate by measuring: which cases, in which order, how often, and what a budget leaves out."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks.gate import measured
from benchmarks.gate.measured import Wanted
from benchmarks.gate.report import Report
from benchmarks.known_noise import KnownNoise, Session
from benchmarks.measure.measuring import SweepCase
from benchmarks.measure.paired import TwoCommits
from benchmarks.measure.pairs import Asked, Plan, Write
from tests.suite.pair_records import BASE, HEAD, MACHINE, pair, run

NAMES = ["calm.fp16", "slow.fp16", "wild.fp16", "fluke.fp16"]


@dataclass
class FakeBench:
    """Measures what a function of stage, case and session says."""

    changes: Callable[[str, int], float]
    cost_s: float = 1.0
    base: str = BASE
    head: str = HEAD
    device: str = "cuda"
    now: float = 1000.0
    taken: list[tuple[list[str], int, float]] = field(default_factory=list)
    _count: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> "FakeBench":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def clock(self) -> float:
        return self.now

    def measure(self, asked: Sequence[Asked], plan: Plan, write: Write) -> None:
        self.taken.append(([one.case.name for one in asked], plan.sessions, plan.control))
        write(run())
        for session in range(plan.sessions):
            for one in asked:
                if self.now >= plan.until:
                    return
                self.now += self.cost_s
                name = one.case.name
                number = self._count[name] = self._count.get(name, -1) + 1
                change = self.changes(name, number)
                write(pair(session, change, op=one.op, case=name, suite=one.suite))


def changes(name: str, number: int) -> float:
    """Of a case's sessions, in the order of their taking."""
    if name == "slow.fp16":
        return 0.06
    if name == "wild.fp16":
        return 0.05 * (-1) ** number
    return 0.06 if name == "fluke.fp16" and number < 3 else 0.0


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    some = [
        Asked(op, 1, SweepCase(name, {"rows": 1}, "fp16"))
        for op, names in (("softmax", NAMES), ("rotary", ["same.fp16"]))
        for name in names
    ]
    models = [Asked("bert_base", 1, SweepCase("batch1.fp16", {"batch": 1}, "fp16"), "models")]
    by_suite = {"kernels": some, "models": models}
    monkeypatch.setattr(measured, "asked_for", lambda _, __, ___, suite: by_suite[suite])
    monkeypatch.setattr(measured, "touched_models", lambda *_: {"bert_base"})
    monkeypatch.setattr("benchmarks.touched.Tree.of", lambda *_: None)
    monkeypatch.setattr(measured, "touched", lambda *_: {"softmax"})
    return some


def gate(bench: FakeBench, written: list[Any] | None = None, **wanted: Any) -> Report:
    noise = [Session(0.002 * (-1) ** number, 0.0) for number in range(20)]
    known = KnownNoise({("softmax", name): noise for name in NAMES})
    write = (written if written is not None else []).append
    return measured.measure(
        cast(TwoCommits, bench), Wanted(**wanted), write, known, MACHINE, clock=bench.clock
    )


def outcomes(report: Report) -> dict[str, str]:
    return {one.key.case: one.outcome for one in report.findings}


@pytest.mark.usefixtures("asked")
def test_each_part_takes_what_it_has_to() -> None:
    bench = FakeBench(changes)
    written: list[Any] = []
    report = gate(bench, written)
    first, *more, again = bench.taken
    assert first == (NAMES, 3, 0.05)
    assert more == [(["wild.fp16"], 3, 0.0)] * len(more)
    assert 1 <= len(more) <= measured.MORE
    assert again == (["slow.fp16", "fluke.fp16"], 3, 0.0)
    assert outcomes(report) == {
        "calm.fp16": "pass",
        "slow.fp16": "regressed",
        "wild.fp16": "pass",
        "fluke.fp16": "unstable",
        "all cases": "pass",
    }
    assert report.exit_code == 1
    stages = [one["stage"] for one in written if one["kind"] == "pair"]
    assert set(stages) == {"first", "more", "again"}
    # What was written tells the same when it is read again.
    noise = [Session(0.002 * (-1) ** number, 0.0) for number in range(20)]
    known = KnownNoise({("softmax", name): noise for name in NAMES})
    read = measured.replay(written, known, MACHINE)
    assert {**outcomes(read), "all cases": "pass"} == outcomes(report)
    assert (read.base, read.head) == (BASE, HEAD)


@dataclass
class ControlBench(FakeBench):
    """Also measures one case base beside base, which takes `control_s` altogether.

    Attributes:
        differs: by so much at first.
    """

    differs: float = 0.0
    control_s: float = 1.0

    def measure(self, asked: Sequence[Asked], plan: Plan, write: Write) -> None:
        super().measure(asked, plan, write)
        if plan.control:
            self.now += self.control_s
            for session in range(plan.sessions):
                write(pair(session, self.differs, case="calm.fp16", control=True))


def _again(change: float, monkeypatch: pytest.MonkeyPatch) -> list[FakeBench]:
    """What measures base beside base once more, and finds such a change."""
    benches: list[FakeBench] = []

    def of(base: str, head: str, device: str) -> FakeBench:
        assert (base, head, device) == (BASE, BASE, "cuda")
        benches.append(FakeBench(lambda *_: change, head=BASE))
        return benches[-1]

    monkeypatch.setattr(TwoCommits, "of", of)
    return benches


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("first", "again", "exit_code"), [(0.05, 0.05, 2), (-0.05, -0.06, 2), (0.05, 0.0, 1)]
)
def test_a_control_that_differs_is_measured_again(
    first: float, again: float, exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    benches = _again(again, monkeypatch)
    written: list[Any] = []
    report = gate(ControlBench(changes, differs=first), written)
    (bench,) = benches
    assert bench.taken == [(["calm.fp16"], 3, 0.0)]
    assert report.exit_code == exit_code
    assert (len(report.blockers), outcomes(report)["slow.fp16"]) == (
        (1, "undecided") if exit_code == 2 else (0, "regressed")
    )
    said = [*report.blockers, *report.notes[1:-1]]
    assert len(said) == 1
    assert f"measured again {100 * again:+.1f} %" in said[0]
    twice = [one for one in written if one["kind"] == "pair" and one["control"]]
    assert [one["stage"] for one in twice] == ["first"] * 3 + ["again"] * 3
    # What was written is of one comparison, and tells the same when it is read again.
    noise = [Session(0.002 * (-1) ** number, 0.0) for number in range(20)]
    known = KnownNoise({("softmax", name): noise for name in NAMES})
    read = measured.replay(written, known, MACHINE)
    assert (read.blockers, read.exit_code) == (report.blockers, report.exit_code)
    assert (read.base, read.head) == (BASE, HEAD)


@pytest.mark.usefixtures("asked")
def test_a_control_that_does_not_differ_is_not_measured_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    benches = _again(0.0, monkeypatch)
    report = gate(ControlBench(lambda *_: 0.0))
    assert (benches, report.blockers, report.exit_code) == ([], [], 0)


@pytest.mark.usefixtures("asked")
def test_where_the_budget_is_spent_a_control_that_differs_voids_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    benches = _again(0.0, monkeypatch)
    bench = ControlBench(lambda *_: 0.0, differs=0.05, control_s=100.0)
    report = gate(bench, budget_s=90.0)
    assert benches == []
    (blocker,) = report.blockers
    assert "differs by +5.0 %, measured again in 0 sessions" in blocker
    assert report.exit_code == 2


@pytest.mark.usefixtures("asked")
def test_what_the_change_cannot_have_touched_passes_unmeasured() -> None:
    report = gate(FakeBench(lambda *_: 0.0))
    (same,) = (one for one in report.findings if one.key.op == "rotary")
    assert (same.outcome, math.isnan(same.ratio)) == ("pass", True)
    assert same.reason == "every file that it depends on says the same in both commits"
    assert report.exit_code == 0
    bench = FakeBench(lambda *_: 0.0)
    report = gate(bench, every=True)
    assert bench.taken[0][0] == [*NAMES, "same.fp16"]
    assert "all cases" not in outcomes(report)


@pytest.mark.usefixtures("asked")
def test_models_are_measured_where_the_change_can_have_touched_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = FakeBench(lambda *_: 0.0)
    report = gate(bench, suites=("kernels", "models"))
    assert bench.taken[0][0] == [*NAMES, "batch1.fp16"]
    (found,) = (one for one in report.findings if one.key.op == "bert_base")
    assert (found.key.suite, found.outcome) == ("models", "pass")
    assert report.suites == ("kernels", "models")
    monkeypatch.setattr(measured, "touched_models", lambda *_: set())
    report = gate(FakeBench(lambda *_: 0.0), suites=("models",))
    assert [(one.key.suite, one.key.case) for one in report.findings] == [("models", "all cases")]


@pytest.mark.usefixtures("asked")
def test_a_limit_is_of_what_is_touched() -> None:
    bench = FakeBench(lambda *_: 0.0)
    gate(bench, limit=2)
    assert bench.taken[0][0] == ["calm.fp16", "wild.fp16"]


def test_a_change_that_touches_nothing_passes_at_once(
    asked: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "touched", lambda *_: set())
    bench = FakeBench(changes)
    report = gate(bench)
    assert bench.taken == []
    assert report.exit_code == 0
    assert {one.key.op for one in report.findings} == {one.op for one in asked}


@pytest.mark.usefixtures("asked")
def test_what_a_budget_does_not_reach_is_not_decided() -> None:
    # Half of 8 s: the first session of the four cases; until 6 s two sessions of the first of them.
    bench = FakeBench(changes)
    report = gate(bench, budget_s=8.0)
    assert report.exit_code == 2
    assert {one.outcome for one in report.findings if one.key.op == "softmax"} == {"undecided"}
    assert len(bench.taken) == 2
    tiny = gate(FakeBench(changes), budget_s=4.0)
    late = [one for one in tiny.findings if "budget ended" in one.reason]
    assert [one.key.case for one in late] == ["wild.fp16", "fluke.fp16"]


@pytest.mark.usefixtures("asked")
def test_sessions_that_do_not_count_are_made_good() -> None:
    """The device slows down in the first two sessions of one case."""

    class HotBench(FakeBench):
        def measure(self, asked: Sequence[Asked], plan: Plan, write: Write) -> None:
            def hot(record: Any) -> None:
                number = self._count.get("calm.fp16", 0)
                if record.get("case") == "calm.fp16" and number < 2:
                    record = {**record, "telemetry": {"base": {"throttle": ["software thermal"]}}}
                write(record)

            super().measure(asked, plan, hot)

    bench = HotBench(lambda *_: 0.0)
    report = gate(bench)
    assert bench.taken[1][0] == ["calm.fp16"]
    assert outcomes(report)["calm.fp16"] == "pass"


@pytest.mark.usefixtures("asked")
def test_with_a_budget_the_suspects_are_measured_again() -> None:
    bench = FakeBench(changes)
    report = gate(bench, budget_s=26.0)
    assert outcomes(report)["slow.fp16"] == "regressed"
    assert bench.now <= 1000.0 + 26.0 + 1.0


@pytest.mark.usefixtures("asked")
def test_the_report_says_what_would_have_been_seen() -> None:
    report = gate(FakeBench(lambda *_: 0.0))
    seen = re.fullmatch(
        r"power: a slowdown of one case would have been seen in "
        r"(\d+) % if by 2 %, (\d+) % if by 3 %, (\d+) % if by 5 %",
        report.notes[0],
    )
    assert seen is not None
    assert int(seen[1]) < 60 < 95 < int(seen[2]) <= int(seen[3]) == 100
    assert report.notes[-1].startswith("measured for ")


def test_records_of_several_comparisons_are_refused(tmp_path: Path) -> None:
    other = {**run(), "head": "c" * 40}
    with pytest.raises(ValueError, match="2 pairs of commits"):
        measured.replay([run(), other], KnownNoise({}), MACHINE)
    with pytest.raises(ValueError, match="0 pairs of commits"):
        measured.replay([], KnownNoise({}), MACHINE)
