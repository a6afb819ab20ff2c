"""`python -m benchmarks.limits`: spills, shared memory and what did not compile."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import limits
from benchmarks.cases import NOT_SELECTED
from benchmarks.limits import Excuse, judge


def row(metric: str, value: float, variant: str = "sm_86", **rest: Any) -> dict[str, Any]:
    base = {"op": "linear", "case": "m1_n1_k1.fp16", "status": "ok", "reason": ""}
    return {**base, "metric": metric, "value": value, "variant": variant, **rest}


EXCUSE = Excuse("linear", "m1_*", "sm_8*", 4, "looked at")


def test_a_kernel_within_its_limits_is_silent() -> None:
    rows = [row("spills", 0), row("shared_memory", 99 * 1024), row("registers", 255)]
    assert judge(rows, []) == ([], 1)


def test_a_spill_needs_an_excuse_and_keeps_to_it() -> None:
    assert "spills: 3 instructions" in judge([row("spills", 3)], [])[0][0]
    assert judge([row("spills", 3)], [EXCUSE]) == ([], 1)
    assert "4 are excused" in judge([row("spills", 5)], [EXCUSE])[0][0]


@pytest.mark.parametrize(
    "other", [{"variant": "sm_90"}, {"op": "softmax"}, {"case": "m2_n1_k1.fp16"}]
)
def test_an_excuse_covers_what_it_names_alone(other: dict[str, str]) -> None:
    found, _ = judge([row("spills", 3) | other], [EXCUSE])
    assert len(found) == 1
    assert "spills: 3 instructions" in found[0]


def test_an_excuse_is_not_void_where_a_quick_run_left_cases_out() -> None:
    left_out = {"status": "skipped", "reason": NOT_SELECTED, "case": "m2_n1_k1.fp16"}
    wide = replace(EXCUSE, case="m*.fp16")
    rows = [row("spills", 0), row("spills", math.nan) | left_out]
    assert judge(rows, [wide]) == ([], 1)
    found, _ = judge(rows[:1], [wide])
    assert "excuses nothing" in found[0]


def test_an_excuse_that_is_needed_no_more_is_reported() -> None:
    found, judged = judge([row("spills", 0)], [EXCUSE])
    assert judged == 1
    assert "excuses nothing: take it out" in found[0]
    # One spills still; and of what was not compiled nothing is known.
    assert judge([row("spills", 0), row("spills", 2, "sm_89")], [EXCUSE]) == ([], 2)
    assert judge([row("spills", 0, "sm_90")], [EXCUSE]) == ([], 1)


@pytest.mark.parametrize(("variant", "kib"), [("sm_80", 163), ("sm_86", 99), ("sm_90", 227)])
def test_shared_memory_is_judged_by_architecture(variant: str, kib: int) -> None:
    assert judge([row("shared_memory", kib * 1024, variant)], [])[0] == []
    assert "a block may use" in judge([row("shared_memory", kib * 1024 + 1, variant)], [])[0][0]


def test_what_did_not_compile_is_never_excused() -> None:
    broken = row("spills", math.nan, status="failed", reason="out of registers")
    assert "did not compile: out of registers" in judge([broken], [EXCUSE])[0][0]
    assert judge([row("spills", math.nan, status="skipped")], []) == ([], 0)


def test_the_committed_list_can_be_read() -> None:
    assert all(excuse.reason for excuse in limits.load_excuses())


@pytest.mark.parametrize(
    "text", ["[[excused]]\nop = 'linear'", "[[excused", "[[excused]]\nwhat = 1"]
)
def test_a_wrong_list_says_what_is_allowed(text: str, tmp_path: Path) -> None:
    path = tmp_path / "excused.toml"
    path.write_text(text)
    with pytest.raises(limits.ExcuseError, match=r"allowed: \[\[excused\]\] tables"):
        limits.load_excuses(path)


def test_without_results_nothing_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert limits.main(["--results", str(tmp_path)]) == 2
    assert "run `make bench`" in capsys.readouterr().out
