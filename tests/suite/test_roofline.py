"""The ceilings that a run was measured at, and what is derived of a time: worked out by hand."""

import json
import math
from pathlib import Path

import pytest

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
