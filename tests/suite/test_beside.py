"""Records of two commits beside each other → what the gate says of each case."""

from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.gate.beside import Case, Gathered, Verdicts, judge
from benchmarks.gate.findings import Finding
from tests.suite.pair_records import MACHINE, calm, failed, pair, run

Records = Sequence[dict[str, Any]]


def judged(records: Records) -> Verdicts:
    gathered = Gathered()
    for record in records:
        gathered.add(record)
    return judge(gathered, calm(), MACHINE)


def only(records: Records) -> Finding:
    (found,) = judged(records).findings
    return found


def three(change: float, **rest: Any) -> Records:
    return [pair(session, change, **rest) for session in range(3)]


def test_nothing_changed_passes() -> None:
    found = only([run(), *three(0.0)])
    assert found.outcome == "pass"
    assert found.base == found.head == pytest.approx(1e-5)


def test_a_confirmed_slowdown_is_red() -> None:
    found = only([run(), *three(0.05), *three(0.05, stage="again")])
    assert found.outcome == "regressed"
    assert found.ratio == pytest.approx(1.05)
    assert found.head == pytest.approx(1.05e-5)
    assert found.reason.endswith("measured again +5.0 %")


def test_an_improvement_needs_no_confirmation() -> None:
    assert only([run(), *three(-0.05)]).outcome == "improved"


@pytest.mark.parametrize(("again", "outcome"), [(0.0, "unstable"), (0.04, "regressed")])
def test_a_slowdown_that_is_not_confirmed_is_not_red(again: float, outcome: str) -> None:
    found = only([run(), *three(0.05), *three(again, stage="again")])
    assert found.outcome == outcome
    assert ("does not confirm" in found.reason) == (outcome == "unstable")


def test_a_suspect_that_nobody_measured_again_is_not_decided() -> None:
    verdicts = judged([run(), *three(0.05), *three(0.09, case="two.fp16")])
    assert verdicts.suspects == [Case("softmax", "two.fp16"), Case("softmax", "one.fp16")]
    assert {one.outcome for one in verdicts.findings} == {"undecided"}
    assert "measured again in 0 sessions, at least 3 are needed" in verdicts.findings[0].reason


def test_a_slowdown_below_the_limit_passes() -> None:
    assert only([run(), *three(0.015), *three(0.015, stage="again")]).outcome == "pass"


def test_one_wild_session_of_three_is_no_slowdown() -> None:
    wild = [pair(0, 0.12), pair(1, 0.0), pair(2, 0.0)]
    others = [record for name in ("two", "three", "four") for record in three(0.0, case=name)]
    again = three(0.001, stage="again")
    for found in judged([run(), *wild, *others, *again]).findings:
        assert found.outcome in ("pass", "unstable")


RED = [run(), *three(0.08), *three(0.08, stage="again")]
CONTROL = {"case": "two.fp16", "control": True}
ITS_NAME = "the control softmax two.fp16, base beside base,"


@pytest.mark.parametrize(("first", "again"), [(0.04, 0.05), (-0.04, -0.05)])
def test_a_control_that_differs_twice_voids_the_run(first: float, again: float) -> None:
    verdicts = judged([*RED, *three(first, **CONTROL), *three(again, **CONTROL, stage="again")])
    assert verdicts.blockers == [
        f"{ITS_NAME} differs by {100 * first:+.1f} %, measured again {100 * again:+.1f} %: "
        "the run is void, measure again"
    ]
    assert verdicts.alarms == [Case("softmax", "two.fp16")]
    assert verdicts.notes == []
    (found,) = verdicts.findings
    assert found.outcome == "undecided"
    assert "void" in found.reason


@pytest.mark.parametrize(("first", "again"), [(0.04, 0.0), (-0.04, 0.0), (0.04, -0.05)])
def test_a_control_that_is_not_confirmed_is_said_and_blocks_nothing(
    first: float, again: float
) -> None:
    verdicts = judged([*RED, *three(first, **CONTROL), *three(again, **CONTROL, stage="again")])
    assert verdicts.blockers == []
    assert verdicts.notes == [
        f"{ITS_NAME} differed by {100 * first:+.1f} % at first, but measured again "
        f"{100 * again:+.1f} %, which does not confirm it"
    ]
    (found,) = verdicts.findings
    assert found.outcome == "regressed"


def test_a_control_that_nobody_measured_again_voids_the_run() -> None:
    control = three(0.04, **CONTROL)
    hot = three(0.0, **CONTROL, stage="again", throttle=["hardware thermal"])
    few = "measured again in 0 sessions, at least 3 are needed"
    for again, words in (
        ([], f"{few}: the run is void"),
        (hot, f"{few}; noisy: the device slowed down"),
    ):
        verdicts = judged([*RED, *control, *again])
        (blocker,) = verdicts.blockers
        assert blocker.startswith(f"{ITS_NAME} differs by +4.0 %, {words}")
        assert [one.outcome for one in verdicts.findings] == ["undecided"]


def test_a_control_that_does_not_differ_says_nothing() -> None:
    verdicts = judged([*RED, *three(0.0, **CONTROL)])
    assert (verdicts.blockers, verdicts.alarms, verdicts.notes) == ([], [], [])


def test_sessions_in_which_the_device_slowed_down_do_not_count() -> None:
    hot = three(0.3, throttle=["hardware thermal"])
    found = only([run(), *hot])
    assert found.outcome == "undecided"
    assert "0 sessions" in found.reason
    assert "hardware thermal" in found.reason
    assert only([run(), *hot, *three(0.0)]).outcome == "pass"
    # At its power cap a device is meant to work.
    assert only([run(), *three(0.0, throttle=["software power cap"])]).outcome == "pass"


@pytest.mark.parametrize(
    ("base", "head", "outcome"),
    [
        ("ok", "failed", "failed"),
        ("unknown", "failed", "failed"),
        ("failed", "ok", "fixed"),
        ("failed", "failed", "failing"),
        ("failed", "unknown", "undecided"),
        ("skipped", "skipped", "skipped"),
        ("ok", "skipped", "missing"),
        ("skipped", "ok", "new"),
    ],
)
def test_a_side_that_cannot_be_timed(base: str, head: str, outcome: str) -> None:
    found = only([run(), *(failed(session, base, head) for session in range(3))])
    assert found.outcome == outcome
    assert found.reason == "head: wrong"


def test_a_crash_that_came_once_decides_nothing() -> None:
    crashed = failed(2, "unknown", "failed", "head: the worker was killed by SIGSEGV")
    found = only([run(), pair(0), pair(1), crashed])
    assert found.outcome == "undecided"
    assert found.reason.startswith("1 of 3 sessions failed: head: the worker was killed")
    assert only([run(), failed(0, "unknown", "failed")]).outcome == "undecided"


def test_runs_of_unlike_machines_are_not_put_together() -> None:
    records = [run(), *three(0.08), run(driver="571"), *three(0.08, stage="again")]
    verdicts = judged(records)
    assert verdicts.blockers == ["the runs were not measured on one machine: driver 570.1, 571"]
    assert verdicts.findings[0].outcome == "undecided"


def test_the_least_certain_cases_come_first() -> None:
    names = {"one.fp16": 0.001, "two.fp16": 0.08, "three.fp16": 0.05}
    records = [run()]
    for name, wild in names.items():
        records += [pair(0, wild, case=name), pair(1, -wild, case=name), pair(2, case=name)]
    verdicts = judged(records)
    assert verdicts.uncertain == [Case("softmax", "two.fp16"), Case("softmax", "three.fp16")]
    assert verdicts.power[0.05] < 1.0
    assert 0 < verdicts.power[0.02] < verdicts.power[0.05]


def test_eagers_drift_is_taken_out() -> None:
    # Power-bound: head's process got slower clocks, and eager in it too.
    gathered = Gathered()
    for record in [run(), *(pair(session, drift=0.06) for session in range(3))]:
        gathered.add(record)
    (seen,) = gathered.cases.values()
    assert [one.ratio for one in seen.sessions] == pytest.approx(
        [one.drift for one in seen.sessions]
    )
