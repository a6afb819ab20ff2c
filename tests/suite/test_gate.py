"""The gate's rules over injected rows: for each one what it finds and how it exits."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.asv_file import METRICS
from benchmarks.gate.stored import judge
from tests.suite.gate_rows import (
    BASE,
    GPU_MACHINE,
    HEAD,
    OTHER,
    TODAY,
    count,
    frame,
    gate,
    outcomes,
    row,
    runs_frame,
    timing,
)

CODEGEN_METRICS = METRICS["codegen"]


def text(said: Any) -> str:
    return "\n".join(said)


@pytest.mark.parametrize("metric", CODEGEN_METRICS)
def test_equal_counts_pass(metric: str) -> None:
    report = gate(count(BASE, 0.5, metric=metric), count(HEAD, 0.5, metric=metric))
    assert report.exit_code == 0
    assert outcomes(report) == ["pass"]
    assert "latency was not measured" in text(report.notes)


@pytest.mark.parametrize("metric", CODEGEN_METRICS)
@pytest.mark.parametrize(("base", "head"), [(32.0, 33.0), (33.0, 32.0), (0.0, 1.0), (1.0, 0.0)])
def test_counts_are_exact(metric: str, base: float, head: float) -> None:
    report = gate(count(BASE, base, metric=metric), count(HEAD, head, metric=metric))
    worse = (head > base) != (metric == "occupancy")
    assert outcomes(report) == ["regressed" if worse else "improved"]
    assert report.exit_code == (1 if worse else 0)


def test_an_added_spill_is_a_regression_among_much_that_is_fine() -> None:
    cases = [f"rows{rows}_cols768.fp16" for rows in range(50)]
    base = [count(BASE, 0, metric="spills", case=case) for case in cases]
    head = [count(HEAD, 0, metric="spills", case=case) for case in cases]
    assert gate(*base, *head).exit_code == 0
    head[7] = count(HEAD, 2, metric="spills", case=cases[7])
    report = gate(*base, *head)
    assert report.exit_code == 1
    assert report.counts == {"regressed": 1, "pass": 49}
    assert report.findings[0].key.case == cases[7]


def test_an_empty_comparison_is_never_a_pass() -> None:
    for rows in (
        [],
        [count(BASE)],
        [count(HEAD)],
        [count(OTHER)],
        [count(BASE), count(HEAD, op="linear", case="m1_n1_k1.fp16")],
        [timing(BASE, variant="eager"), timing(HEAD, variant="eager")],
        [count(BASE, version="1"), count(HEAD, version="2")],
        [row(BASE, "codegen", status="failed"), row(HEAD, "codegen", status="failed")],
        [row(BASE, "codegen", status="failed"), count(HEAD)],
    ):
        report = gate(*rows)
        assert report.exit_code == 2, rows
        assert report.verdict.startswith("UNDECIDED (exit 2)")
        assert report.blockers or set(outcomes(report)) & {"missing"}


def test_a_commit_is_not_compared_with_itself() -> None:
    report = judge(frame([count(BASE)]), runs_frame(), BASE, BASE, today=TODAY)
    assert report.exit_code == 2
    assert "same commit" in text(report.blockers)


def test_no_results_for_a_side_names_the_commits_that_have_some() -> None:
    report = gate(count(BASE), count(OTHER))
    assert report.exit_code == 2
    assert f"no results for head {HEAD[:12]}" in text(report.blockers)
    assert OTHER[:12] in text(report.blockers)


def test_a_missing_case_cannot_be_decided() -> None:
    kept = [count(BASE), count(HEAD)]
    report = gate(*kept, count(BASE, case="rows1_cols1.fp16"))
    assert report.exit_code == 2
    assert report.counts == {"missing": 1, "pass": 1}
    # Measured before and n/a now is missing too.
    skipped = row(HEAD, "codegen", case="rows1_cols1.fp16", status="skipped")
    assert gate(*kept, count(BASE, case="rows1_cols1.fp16"), skipped).exit_code == 2
    # A regression beside it weighs more.
    worse = [count(BASE, 1, metric="spills"), count(HEAD, 2, metric="spills")]
    report = gate(*kept, *worse, count(BASE, case="rows1_cols1.fp16"))
    assert report.exit_code == 1
    assert report.counts == {"regressed": 1, "missing": 1, "pass": 1}


def test_a_crash_is_a_regression() -> None:
    crash = row(HEAD, "codegen", op="linear", status="failed", reason="ptxas ran out of memory")
    report = gate(count(BASE), count(HEAD), count(BASE, op="linear"), crash)
    assert report.exit_code == 1
    assert report.findings[0].outcome == "failed"
    assert "ptxas ran out of memory" in report.findings[0].reason


@pytest.mark.parametrize(
    ("old", "new", "outcome", "code"),
    [
        ("failed", "ok", "fixed", 0),
        ("failed", "failed", "failing", 0),
        ("failed", "skipped", "skipped", 0),
        ("failed", "", "missing", 2),
        ("skipped", "skipped", "skipped", 0),
        ("skipped", "ok", "new", 0),
        ("skipped", "failed", "undecided", 2),
        ("skipped", "", "skipped", 0),
        ("", "ok", "new", 0),
        ("", "failed", "undecided", 2),
        ("", "skipped", "skipped", 0),
        ("ok", "failed", "failed", 1),
        ("ok", "skipped", "missing", 2),
        ("ok", "", "missing", 2),
    ],
)
@pytest.mark.parametrize("suite", ["codegen", "kernels"])
def test_what_becomes_of_a_case(suite: str, old: str, new: str, outcome: str, code: int) -> None:
    """Beside a case that passes, so that only this one decides."""
    make = count if suite == "codegen" else timing
    rows = [make(commit) for commit in (BASE, HEAD)]
    for commit, status in ((BASE, old), (HEAD, new)):
        if status == "ok":
            rows.append(make(commit, case="rows1_cols1.fp16"))
        elif status:
            rows.append(row(commit, suite, case="rows1_cols1.fp16", status=status))
    report = gate(*rows)
    assert sorted(outcomes(report)) == sorted([outcome, "pass"])
    assert report.exit_code == code


def test_only_skipped_is_no_pass() -> None:
    for suite in ("codegen", "kernels"):
        report = gate(row(BASE, suite, status="skipped"), row(HEAD, suite, status="skipped"))
        assert report.exit_code == 2
        assert report.counts == {"skipped": 1}
        assert "only skipped" in text(report.blockers)


def test_another_version_is_not_compared() -> None:
    rows = [count(BASE), count(HEAD)]
    changed = [count(BASE, 1, op="linear", version="1"), count(HEAD, 99, op="linear", version="2")]
    report = gate(*rows, *changed)
    assert report.counts == {"version": 1, "pass": 1}
    assert report.exit_code == 0
    # A new version does not hide a crash.
    changed[1] = row(HEAD, "codegen", op="linear", version="2", status="failed")
    assert gate(*rows, *changed).exit_code == 2


@pytest.mark.parametrize("field", ["triton", "ptxas"])
@pytest.mark.parametrize("value", ["9.9", "", math.nan, None])
def test_codegen_needs_the_same_toolchain(field: str, value: object) -> None:
    for head in (32.0, 48.0):
        report = gate(count(BASE), count(HEAD, head), runs=runs_frame(**{field: value}))
        assert report.exit_code == 2
        assert outcomes(report) == ["undecided"]
        assert field in report.findings[0].reason
    assert gate(count(BASE), count(HEAD), runs=runs_frame(driver="other")).exit_code == 0


@pytest.mark.parametrize("field", ["gpu", "driver", "torch", "triton"])
def test_time_needs_the_same_gpu_and_software(field: str) -> None:
    report = gate(timing(BASE), timing(HEAD, 2e-5), runs=runs_frame(**{field: "other"}))
    assert report.exit_code == 2
    assert f"{field} " in report.findings[0].reason


def test_an_unknown_run_is_undecided() -> None:
    report = gate(count(BASE, run=""), count(HEAD))
    assert report.exit_code == 2
    assert "triton not recorded for base" in report.findings[0].reason


@pytest.mark.parametrize("suite", ["codegen", "kernels"])
def test_different_machines_cannot_be_compared(suite: str) -> None:
    rows = row(BASE, suite, machine="gpu-a"), row(HEAD, suite, machine="gpu-b")
    report = gate(*rows)
    assert report.exit_code == 2
    assert "different machines, base on gpu-a, head on gpu-b" in text(report.blockers)
    assert report.findings == []


def test_a_machine_can_be_chosen() -> None:
    rows = [count(BASE), count(HEAD)]
    rows += [count(BASE, machine="laptop"), count(HEAD, 99, machine="laptop")]
    assert gate(*rows).exit_code == 1
    assert gate(*rows, machine="compile-only").exit_code == 0
    report = gate(*rows, machine="elsewhere")
    assert report.exit_code == 2
    assert "machines known: compile-only, laptop" in text(report.blockers)


def test_a_suite_on_one_side_only() -> None:
    codegen = [count(BASE), count(HEAD)]
    report = gate(*codegen, timing(BASE))
    assert report.exit_code == 0
    assert "latency was not measured" in text(report.notes)
    assert f"{GPU_MACHINE} has results for base only" in text(report.notes)
    assert gate(*codegen, timing(BASE), suite="kernels").exit_code == 2
    # A machine with no GPU is enough for codegen: leaving it out is not.
    report = gate(count(BASE), timing(BASE), timing(HEAD))
    assert report.exit_code == 2
    assert "codegen: no results for head" in text(report.blockers)
    assert gate(count(BASE), timing(BASE), timing(HEAD), suite="kernels").exit_code == 0


def test_time_is_judged_by_its_samples() -> None:
    assert gate(timing(BASE), timing(HEAD)).exit_code == 0
    report = gate(timing(BASE), timing(HEAD, 1.1e-5))
    assert report.exit_code == 1
    assert report.findings[0].ratio == pytest.approx(1.1)
    assert "separate processes" in text(report.notes)
    assert outcomes(gate(timing(BASE), timing(HEAD, 0.9e-5))) == ["improved"]
    # Further than its samples vary, but no further than two runs do.
    assert outcomes(gate(timing(BASE), timing(HEAD, 1.05e-5))) == ["undecided"]
    assert outcomes(gate(timing(BASE), timing(HEAD, 1.01e-5))) == ["pass"]


@pytest.mark.parametrize("samples", [(), (1e-5,) * 4, (1e-5, math.nan) * 5, (-1e-5,) * 9])
def test_samples_that_cannot_decide_are_never_green(samples: tuple[float, ...]) -> None:
    for rows in (
        [timing(BASE), timing(HEAD, samples=samples)],
        [timing(BASE, samples=samples), timing(HEAD)],
    ):
        report = gate(*rows)
        assert outcomes(report) == ["unstable"]
        assert report.exit_code == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
def test_values_that_are_no_number_are_never_green(value: float) -> None:
    for make in (count, timing):
        for pair in ((make(BASE, value), make(HEAD)), (make(BASE), make(HEAD, value))):
            assert gate(*pair).exit_code in {1, 2}
    assert gate(count(BASE), count(HEAD, math.nan)).exit_code == 1
    assert gate(count(BASE), count(HEAD, value=-1.0)).exit_code == 2
    assert gate(timing(BASE), timing(HEAD, value=0.0)).exit_code == 2


def drifting(commit: str, scale: float, seed: int, **eager: Any) -> list[dict[str, Any]]:
    """Twelve cases whose kernl and eager samples share a ramp of 10 %; `eager` changes its rows."""
    generator = np.random.default_rng(seed)
    ramp = np.exp(np.linspace(0, 0.1, 20))
    rows = []
    for index in range(12):
        case = f"rows{index}_cols1.fp16"
        for variant, fields in (("kernl", {}), ("eager", eager)):
            samples = scale * 1e-5 * ramp * np.exp(generator.normal(0, 0.001, 20))
            own = {"case": case, "variant": variant, "samples": tuple(samples), **fields}
            rows.append(timing(commit, scale * 1e-5, **own))
    return rows


def test_drift_that_eager_shows_is_divided_out() -> None:
    base = drifting(BASE, 1, 1)
    report = gate(*base, *drifting(HEAD, 1.3, 2))
    assert report.exit_code == 0
    assert report.counts == {"pass": 12}
    assert all(finding.drift_removed for finding in report.findings)
    # Eager of another sweep was not interleaved with these samples.
    report = gate(*base, *drifting(HEAD, 1.3, 2, run="another"))
    assert report.exit_code != 0
    assert not any(finding.drift_removed for finding in report.findings)


def test_a_machine_that_changed_cannot_pass() -> None:
    """Eager's code is the same on both sides: when it moves, the machine has moved."""
    cases = [f"rows{rows}_cols1.fp16" for rows in range(12)]
    rows = [timing(commit, case=case) for case in cases for commit in (BASE, HEAD)]

    def eager(commit: str, seconds: float) -> list[dict[str, Any]]:
        return [timing(commit, seconds, case=case, variant="eager", samples=()) for case in cases]

    assert gate(*rows, *eager(BASE, 2e-5), *eager(HEAD, 2.01e-5)).exit_code == 0
    report = gate(*rows, *eager(BASE, 2e-5), *eager(HEAD, 2.1e-5))
    assert report.exit_code == 2
    assert "moved by +5.0 % (median of 12 cases)" in text(report.blockers)


def test_a_measurement_stored_twice_is_undecided() -> None:
    report = gate(count(BASE), count(HEAD, 32), count(HEAD, 99))
    assert outcomes(report) == ["undecided"]
    assert report.exit_code == 2


def test_worst_first() -> None:
    rows = []
    for case, value in (("a.fp16", 40), ("b.fp16", 64), ("c.fp16", 16), ("d.fp16", 32)):
        rows += [count(BASE, case=case), count(HEAD, value, case=case)]
    rows.append(count(BASE, case="e.fp16"))
    report = gate(*rows)
    assert [f.key.case[0] for f in report.findings] == ["b", "a", "e", "c", "d"]


VALUES = [1e-5, 1.1e-5, 0.0, 32.0, math.nan, math.inf, -1.0]
any_row = st.builds(
    lambda suite, commit, value, variant, fields: (
        count(commit, value, **fields)
        if suite == "codegen"
        else timing(commit, value, variant=variant, **fields)
    ),
    st.sampled_from(["codegen", "kernels"]),
    st.sampled_from([BASE, HEAD]),
    st.sampled_from(VALUES),
    st.sampled_from(["kernl", "eager", "compile"]),
    st.fixed_dictionaries(
        {
            "status": st.sampled_from(["ok", "ok", "failed", "skipped"]),
            "case": st.sampled_from(["a.fp16", "b.fp16"]),
            "machine": st.sampled_from(["one", "two"]),
            "version": st.sampled_from(["1", "2"]),
        }
    ),
)


@settings(max_examples=200)
@given(st.lists(any_row, max_size=6), st.sampled_from(["all", "codegen", "kernels"]))
def test_every_exit_code_has_its_reason(rows: list[dict[str, Any]], suite: str) -> None:
    report = gate(*rows, suite=suite)
    found = set(outcomes(report))
    if report.exit_code == 0:
        assert found & {"pass", "improved"}
        assert not found & {"failed", "regressed", "missing", "unstable", "undecided"}
        assert not report.blockers
    elif report.exit_code == 1:
        assert found & {"failed", "regressed"}
    else:
        assert report.blockers or found & {"missing", "unstable", "undecided"}
