"""Fixtures of the benchmarks: where a suite's cases are measured, and how a function runs one."""

import os
from collections import defaultdict
from typing import Any

import pytest

from benchmarks.by_pytest.stand import Run, Stand, Wanted, replay
from benchmarks.cases import profile
from benchmarks.measure import device
from benchmarks.measure.for_asv import no_gpu
from benchmarks.measure.worker import Refusal, prepare_environment

DEVICES = ("cuda", "cpu")
_PREFIX = "test_benchmark_"
_PARAMETERS = ("shape", "implementation")


def pytest_report_header() -> str:
    """Which case list and device benchmarks have."""
    dry = ", a dry run: its times mean nothing" if _device() == "cpu" else ""
    return f"kernl: benchmarks on {_device()}{dry}, profile {profile()}"


def _device() -> str:
    """`cuda`; `cpu` for a dry run, where KERNL_BENCHMARK_DEVICE says so."""
    asked = os.environ.get("KERNL_BENCHMARK_DEVICE") or "cuda"
    if asked not in DEVICES:
        raise pytest.UsageError(
            f"KERNL_BENCHMARK_DEVICE is {asked!r}; allowed: {', '.join(DEVICES)}"
        )
    return asked


@pytest.fixture(scope="session")
def wanted(request: pytest.FixtureRequest) -> Wanted:
    """What this session measures side by side."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.originalname.startswith(_PREFIX):
            shape, implementation = (str(item.callspec.params[one]) for one in _PARAMETERS)
            found[item.originalname.removeprefix(_PREFIX), shape].append(implementation)
    return found


@pytest.fixture(scope="module")
def stand(request: pytest.FixtureRequest, wanted: Wanted) -> Stand:
    """Where the suite that the module names in SUITE is measured; skips where nothing can be."""
    suite = request.module.SUITE
    if _device() == "cuda" and device.gpu() is None:
        pytest.skip(no_gpu(suite))
    prepare_environment(_device(), suite)
    try:
        return Stand(suite, _device(), wanted)
    except Refusal as refusal:
        pytest.skip(str(refusal))


@pytest.fixture
def run(stand: Stand, benchmark: Any) -> Run:
    """Measures, and shows pytest-benchmark what was measured."""

    def measured(name: str, shape: str, implementation: str) -> None:
        replay(benchmark, stand.point(name, shape, implementation))

    return measured
