"""Where one suite's cases are measured for pytest, warm from one test to the next."""

import secrets
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

import pytest

from benchmarks import cases
from benchmarks.measure.for_asv import settings_of
from benchmarks.measure.laboratory import Point, Task
from benchmarks.measure.worker import prepare

Wanted = Mapping[tuple[str, str], Collection[str]]
"""Implementations that were chosen, by an operator's or model's name and a shape."""


class SampleClock:
    """A timer whose time goes on by the samples that were measured."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds so far."""
        return self.now


CLOCK = SampleClock()


class Stand:
    """Measures shapes, each once, and hands out points of it.

    Args:
        suite: `kernels` or `models`.
        device: `cuda`, or `cpu` for a dry run under Triton's interpreter, whose times mean nothing.
        wanted: what is to be measured side by side.

    Raises:
        Refusal: nothing can be measured here.
    """

    def __init__(self, suite: str, device: str, wanted: Wanted) -> None:
        self._measure, _ = prepare(device, suite)
        self._settings = settings_of(suite)
        self._wanted = wanted
        self._known: tuple[str, str] = ("", "")
        self._points: dict[str, Point] = {}

    def point(self, name: str, shape: str, implementation: str) -> Point:
        """What was measured of an operator's or model's shape in an implementation."""
        if (name, shape) != self._known or implementation not in self._points:
            self._known = name, shape
            task = self._task(name, shape, {*self._wanted.get(self._known, ()), implementation})
            self._points = {point["variant"]: dict(point) for point in self._measure(task, _tell)}
        return self._points[implementation]

    def _task(self, name: str, shape: str, chosen: Collection[str]) -> Task:
        frozen = cases.load()
        return Task(
            op=name,
            case=shape,
            dims=frozen.dims(name, shape),
            dtype=frozen.dtype(name, shape),
            version=frozen.version(name),
            implementations=tuple(one for one in frozen.implementations(name) if one in chosen),
            samples=self._settings.samples,
            budget_s=self._settings.budget_s,
            seed=secrets.randbelow(1 << 31),
        )


def _tell(stage: str, implementation: str) -> None:
    print(f"{stage} {implementation}".rstrip(), file=sys.stderr)


def shapes(name: str) -> pytest.MarkDecorator:
    """Each shape of an operator or model in each implementation, of the profile that is asked for.

    What is asked for stands in KERNL_PROFILE and KERNL_IMPLEMENTATIONS, as for asv.
    """
    frozen = cases.load()
    selected, chosen = frozen.selected_kernel_cases(name), frozen.selected_implementations(name)
    pairs = [
        (shape, implementation)
        for shape in frozen.kernel_cases(name)
        if shape in selected
        for implementation in frozen.implementations(name)
        if implementation in chosen
    ]
    return pytest.mark.parametrize(("shape", "implementation"), pairs)


def replay(benchmark: Any, point: Point) -> None:
    """Let pytest-benchmark see the samples of a point, or skip or fail in its words."""
    if point["status"] == "skipped":
        pytest.skip(point["reason"])
    if point["status"] != "ok":
        pytest.fail(point["reason"], pytrace=False)
    samples = iter(point["samples"])

    def next_sample() -> None:
        CLOCK.now += next(samples)

    benchmark.extra_info.update(error=point["error"], telemetry=point["telemetry"])
    benchmark.pedantic(next_sample, rounds=len(point["samples"]), iterations=1)


Run = Callable[[str, str, str], None]
"""Takes a name, a shape, an implementation."""
