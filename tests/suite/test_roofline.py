"""The ceilings that a run was measured at, and what is derived of a time: worked out by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import cases, roofline
from benchmarks.cases import Cost
from benchmarks.measure import __main__ as command
from benchmarks.measure import graphs, timing
from benchmarks.measure.timing import Ceilings

FIGURES = {
    "copy_bytes_per_s": 3e12,
    "fp16_flops_per_s": 750e12,
    "bf16_flops_per_s": 780e12,
    "fp32_flops_per_s": 50e12,
    "tf32_flops_per_s": 380e12,
}


def test_ceilings_of_a_fingerprint_know_the_fastest_unit_of_each_dtype() -> None:
    found = Ceilings.of({**FIGURES, "gpu": "NVIDIA H200"})
    assert found.copy_bytes_per_s == 3e12
    assert [found.flops_per_s[dtype] for dtype in ("fp16", "bf16", "fp32", "fp8")] == [
        *(750e12, 780e12, 380e12, 1500e12),
    ]
    slow_tf32 = Ceilings.of({**FIGURES, "tf32_flops_per_s": 20e12})
    assert slow_tf32.flops_per_s["fp32"] == 50e12


def test_the_floor_is_the_longer_of_moving_and_computing() -> None:
    found = Ceilings.of(FIGURES)
    assert found.floor(6_000_000, 750_000, "fp16") == (2e-6, "memory")
    assert found.floor(3_000_000, 7_500_000_000, "fp16") == (1e-5, "compute")
    assert found.floor(3_000_000, 7_500_000_000, "fp8") == (5e-6, "compute")
    assert found.floor(3_000_000, 0, "fp64") == (1e-6, "memory")


@pytest.mark.parametrize(
    "senseless", [None, math.nan, math.inf, 0, -3e12, "3e12", True, 10**400, [3e12], b"3"]
)
def test_of_a_senseless_figure_no_floor_follows(senseless: object) -> None:
    no_copy = Ceilings.of({**FIGURES, "copy_bytes_per_s": senseless})
    assert math.isnan(no_copy.floor(1, 1, "fp16")[0])
    for key, units in (
        ("fp16_flops_per_s", ("fp16", "fp8")),
        ("fp32_flops_per_s", ("fp32",)),
        ("tf32_flops_per_s", ("fp32",)),
    ):
        found = Ceilings.of({**FIGURES, key: senseless})
        for unit in ("fp16", "bf16", "fp32", "fp8"):
            floor, bound = found.floor(3_000_000, 1, unit)
            assert math.isnan(floor) == (unit in units)
            assert bound == ("" if unit in units else "memory")
    assert "no rate of fp16" in str(no_copy.impossible(1.0, 1, 1, "fp16"))
    assert Ceilings.of({}).floor(1, 1, "fp16")[1] == ""


def test_the_measured_ceilings_are_those_of_their_figures(tmp_path: Path) -> None:
    shared = tmp_path / "ceilings.json"
    shared.write_text(json.dumps(FIGURES))
    assert graphs.ceilings(str(shared)) == (Ceilings.of(FIGURES), FIGURES)
    assert set(graphs._PRODUCTS) == set(timing.PRODUCTS)


KNOWN = Ceilings.of(FIGURES)
MOVES = Cost(bytes=6_000_000, flops=1_500_000_000, unit="fp16")  # 2 µs by both
LARGE = Cost(bytes=3_000_000, flops=75_000_000_000, unit="fp16")  # 1 µs and 100 µs


@pytest.mark.parametrize(
    ("seconds", "cost", "expected"),
    [
        (4e-6, MOVES, (1.5e12, 3.75e14, 0.5, "memory")),
        (2e-6, MOVES, (3e12, 7.5e14, 1.0, "memory")),
        (125e-6, LARGE, (2.4e10, 6e14, 0.8, "compute")),
        (125e-6, replace(LARGE, unit="fp8"), (2.4e10, 6e14, 0.4, "compute")),
        (250e-6, replace(LARGE, unit="fp32"), (1.2e10, 3e14, 75 / 380 / 250 * 1e3, "compute")),
        (4e-6, replace(MOVES, flops=0), (1.5e12, 0.0, 0.5, "memory")),
        (1e-6, MOVES, (6e12, 1.5e15, 2.0, "memory")),
    ],
)
def test_rates_and_shares_are_those_worked_out_by_hand(
    seconds: float, cost: Cost, expected: tuple[float, float, float, str]
) -> None:
    found = roofline.achieved(seconds, cost, KNOWN)
    assert (found.bytes_per_s, found.flops_per_s, found.share) == pytest.approx(expected[:3])
    assert found.bound == expected[3]


@pytest.mark.parametrize("seconds", [0.0, -1e-6, math.nan, math.inf])
def test_of_a_time_that_is_none_nothing_follows(seconds: float) -> None:
    found = roofline.achieved(seconds, MOVES, KNOWN)
    assert all(map(math.isnan, (found.bytes_per_s, found.flops_per_s, found.share)))
    assert found.bound == ""


@pytest.mark.parametrize("senseless", [None, math.nan, -3e12, "3e12"])
def test_without_ceilings_there_are_rates_and_no_share(senseless: object) -> None:
    for figures in ({}, {**FIGURES, "copy_bytes_per_s": senseless}):
        found = roofline.achieved(4e-6, MOVES, Ceilings.of(figures))
        assert (found.bytes_per_s, found.flops_per_s) == pytest.approx((1.5e12, 3.75e14))
        assert math.isnan(found.share)
        assert found.bound == ""


def test_costs_are_those_of_the_frozen_version_alone() -> None:
    frozen = cases.load()
    known = roofline.costs(frozen)
    assert len(known) == sum(len(frozen.kernel_cases(op)) for op in frozen.ops)
    name, version = frozen.kernel_cases("softmax")[0], frozen.version("softmax")
    assert known["softmax", name, str(version)] == frozen.cost("softmax", name)
    assert ("softmax", name, str(version + 1)) not in known
    assert not {op for op, _, _ in known} & set(frozen.models)


def test_shares_and_rates_in_words() -> None:
    said = [roofline.in_words(share) for share in (0.826, 0.0996, 0.041, 0.0001, 1.0, 1.004, 1.2)]
    assert said == [
        *("83 %", "10 %", "4.1 %", "under 0.1 %", "100 %"),
        *("100 %, above the roofline", "120 %, above the roofline"),
    ]
    assert {roofline.in_words(share) for share in (0.0, -1.0, math.nan, math.inf)} == {"–"}
    assert [roofline.gb_per_s(1e9 * rate) for rate in (2914.4, 61.23, 0.01, 1e-5, 0.0)] == [
        *("2,914", "61.2", "0.01", "<0.001", "0"),
    ]
    assert roofline.tflop_per_s(766.4e12) == "766"
    assert roofline.tflop_per_s(math.nan) == "–"


def point(variant: str, run: str = "run", **changed: object) -> dict[str, object]:
    """A point of a journal."""
    made = {"case": "a.fp16", "variant": variant, "run": run, "status": "ok", "error": 1e-4}
    measured = {"values": {"time": 4e-6}, "samples": [4e-6], "hot_samples": [], "reason": ""}
    return {**made, **measured, **changed}


def test_the_command_prints_what_a_time_amounts_to() -> None:
    points = [
        point("eager", values={"time": 8e-6}, samples=[8e-6]),
        point("compile", status="failed", reason="out of memory", values={}),
        point("kernl"),
        point("other", case="b.fp16"),
        point("fast", samples=[1e-6]),
    ]
    ceilings = command.ceilings_of(
        {"run": {"fingerprint": FIGURES}, "dry": {"fingerprint": {}}, "odd": {"fingerprint": "x"}}
    )
    assert set(ceilings) == {"run"}
    costs = {"a.fp16": MOVES, "b.fp16": None}
    heading, eager, failed, ours, unknown, fast = command.table(points, costs, ceilings)
    assert heading.endswith("    GB/s  TFLOP/s  of the roofline")
    assert eager.endswith("      750      188  25 % (memory)")
    assert failed.endswith("failed: out of memory")
    assert ours.endswith("    1,500      375  50 % (memory)")
    assert unknown.endswith("        –        –  –")
    assert fast.endswith("200 %, above the roofline (memory)")
    assert heading.index("GB/s") + 4 == ours.index("1,500") + 5


def test_without_ceilings_the_command_prints_what_it_did() -> None:
    heading, ours = command.table([point("kernl", run="dry")], {"a.fp16": MOVES}, {})
    assert heading.endswith("× eager    error")
    assert ours.endswith(" 1.0e-04")
