"""Measure one case of one op in every implementation: check, capture, time, judge.

Runs in the worker. A case that goes wrong gives a point with the reason in words; only a device
that no longer answers ends the worker, by `DeviceFault`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch

from benchmarks.measure import accuracy, graphs, timing
from benchmarks.measure.check import keep_passing, truth
from benchmarks.measure.implementations import IMPLEMENTATIONS
from benchmarks.measure.laboratory import (
    Laboratory,
    Passed,
    Point,
    Stage,
    Task,
    clear,
    describe,
    free,
    point,
    points_of_all,
    require_device,
)
from benchmarks.measure.telemetry import throttled
from benchmarks.measure.timing import Samples

_DRY_ROUNDS = 3
_SETS_BYTES = 1 << 30
"""Of one worker: others that share the device have as much."""
_LARGE_BYTES = 512 << 20
"""What a case moves. One that moves more needs the device's memory for itself: its reference in
float64 takes several times as much."""


def measure(task: Task, ops: Mapping[str, Any], lab: Laboratory, stage: Stage) -> Iterator[Point]:
    """One point for each implementation of the task, in the order in which they are decided."""
    op = ops.get(task.op)
    case, reason = resolve(task, op)
    if reason:
        yield from points_of_all(task, "skipped", reason)
        return
    assert op is not None
    large = op.bytes(case) > _LARGE_BYTES
    with torch.no_grad(), lab.alone("large cases") if large else nullcontext():
        known = truth(task, op, case, lab, stage)
        if isinstance(known, str):
            yield from points_of_all(task, "failed", known)
            clear(lab)
            return
        passed: dict[str, Passed] = {}

        def check(names: Iterable[str]) -> Iterator[Point]:
            return keep_passing(passed, names, task, op, case, lab, known, stage)

        chooses = {name: IMPLEMENTATIONS[name].chooses for name in task.implementations}
        yield from check(name for name in chooses if not chooses[name])
        free(lab)
        bench = Bench(op, case, lab, stage, hot=task.hot)
        yield from bench.prepare(passed)
        timed: list[Point] = []
        with lab.alone("timing"):
            lab.know_ceilings(stage)
            yield from check(name for name in chooses if chooses[name])
            yield from bench.prepare(passed)
            if passed:
                timed = list(bench.time(task, passed))
        yield from timed  # whoever waits for the device need not wait for these to be sent
        del bench
        clear(lab)


def resolve(task: Task, op: Any) -> tuple[Any, str]:
    """(case, ""), or (None, why this commit, whose op it is, cannot measure it)."""
    if op is None:
        return None, f"this commit has no op {task.op}"
    if op.version != task.version:
        return None, (
            f"inputs of {task.op} have version {op.version} in this commit, "
            f"the frozen cases have version {task.version}: not comparable"
        )
    first = op.cases()[0]
    known = {name for name, _ in first.dims}
    if set(task.dims) != known:
        return None, (
            f"{task.op} has dims {', '.join(sorted(known))} in this commit, "
            f"the case has {', '.join(sorted(task.dims))}"
        )
    return type(first).of(task.dtype, **task.dims), ""


class Bench:
    """The implementations of one case, made ready to be timed.

    On a GPU each is a graph over the same input sets, and one more where it is timed `hot` too.
    Whoever cannot be captured is taken out of those that passed.
    """

    def __init__(self, op: Any, case: Any, lab: Laboratory, stage: Stage, *, hot: bool) -> None:
        self._op, self._case, self._lab, self._stage = op, case, lab, stage
        self._hot = hot
        self._sets: list[accuracy.Inputs] = []
        self._captured: dict[str, graphs.Captured] = {}
        self._failure = ""

    def prepare(self, passed: dict[str, Passed]) -> Iterator[Point]:
        """Capture those that are not captured yet; points of those that cannot be."""
        waiting = {name: one for name, one in passed.items() if name not in self._captured}
        if self._lab.device != "cuda" or not waiting or self._failure:
            return
        try:
            if not self._sets:
                self._stage("inputs", "")
                self._sets = _input_sets(self._op, self._case, passed)
        except Exception as error:
            self._failure = f"timing failed: {describe(error)}"
            require_device(self._lab, self._failure)
            return
        for name, one in waiting.items():
            self._stage("capture", name)
            reason = self._capture(name, one)
            if reason:
                del passed[name]
                yield point(name, "failed", reason, error=one.error)

    def _capture(self, name: str, one: Passed) -> str:
        """Capture one and replay it once; returns what went wrong, in words."""
        try:
            graph = graphs.capture(one.call, self._sets, hot=self._hot)
            reason = graphs.replay_disagreement(graph, one.call, self._sets, one.limit)
            if not reason:
                self._captured[name] = graph
            return reason
        except Exception as error:
            reason = f"CUDA-graph capture failed: {describe(error)}"
        require_device(self._lab, reason)
        return reason

    def time(self, task: Task, passed: Mapping[str, Passed]) -> Iterator[Point]:
        """A point of each that passed."""
        lab, reason = self._lab, self._failure
        taken: dict[str, Samples] = {}
        telemetry: dict[str, Any] = {}
        if not reason:
            self._stage("time", "")
            try:
                taken, telemetry = self._samples(task, passed)
            except Exception as error:
                reason = f"timing failed: {describe(error)}"
                require_device(lab, reason)
        for name, one in passed.items():
            if reason:
                yield point(name, "failed", reason, error=one.error)
            else:
                yield _judged(self._op, self._case, lab, name, one, taken[name], telemetry)

    def block(self, passed: Mapping[str, Passed], rounds: int, seed: int) -> dict[str, list[float]]:
        """Seconds of a call in so many rounds, each of those that passed once a round, L2 cold."""
        if self._lab.device == "cuda":
            flush = self._lab.flush = self._lab.flush or graphs.Flush()
            return graphs.time_block(self._captured, flush, rounds, seed, self._lab.telemetry)
        taken = timing.wall_clock(self._calls(passed), rounds, seed)
        return {name: list(samples.cold) for name, samples in taken.items()}

    def _samples(
        self, task: Task, passed: Mapping[str, Passed]
    ) -> tuple[dict[str, Samples], dict[str, Any]]:
        if self._lab.device == "cuda":
            return _time_captured(task, self._captured, self._lab)
        return timing.wall_clock(self._calls(passed), _DRY_ROUNDS, _order_seed(task)), {}

    def _calls(self, passed: Mapping[str, Passed]) -> dict[str, Callable[[], object]]:
        inputs = self._op.inputs(self._case, self._lab.device, 0)
        return {name: partial(one.call, **inputs) for name, one in passed.items()}


def _input_sets(op: Any, case: Any, passed: Mapping[str, Passed]) -> list[accuracy.Inputs]:
    """Distinct input sets, seeds 0, 1, …: the same for every implementation and every commit."""
    first = op.inputs(case, "cuda", 0)
    set_bytes = accuracy.tensor_bytes(list(first.values()))
    set_bytes += sum(one.output_bytes for one in passed.values())
    available, _ = torch.cuda.mem_get_info()
    count = timing.choose_sets(set_bytes, min(_SETS_BYTES, available // 2))
    return [first, *(op.inputs(case, "cuda", seed) for seed in range(1, count))]


def _time_captured(
    task: Task, captured: dict[str, graphs.Captured], lab: Laboratory
) -> tuple[dict[str, Samples], dict[str, Any]]:
    """Samples of each implementation, and the telemetry of their taking."""
    if lab.flush is None:
        lab.flush = graphs.Flush()
    take = partial(graphs.time_graphs, captured, lab.flush, task.samples, task.budget_s)

    def attempt(number: int) -> tuple[dict[str, Samples], dict[str, Any]]:
        return take(_order_seed(task) + number, lab.telemetry), lab.telemetry.summary()

    def noisy(found: tuple[dict[str, Samples], dict[str, Any]]) -> int:
        return timing.noisy({name: samples.cold for name, samples in found[0].items()})

    return timing.calmest(attempt, noisy)


def _order_seed(task: Task) -> int:
    return zlib.crc32(f"{task.op} {task.case}".encode())


def _judged(
    op: Any,
    case: Any,
    lab: Laboratory,
    name: str,
    one: Passed,
    samples: Samples,
    telemetry: dict[str, Any],
) -> Point:
    seconds = timing.median(samples.cold)
    impossible = None
    if lab.ceilings is not None:
        unit = getattr(op, "arithmetic", None) or case.dtype
        impossible = lab.ceilings.impossible(seconds, op.bytes(case), op.flops(case), unit)
    return point(
        name,
        "failed" if impossible else "ok",
        impossible or timing.noise(samples.cold) or throttled(telemetry),
        error=one.error,
        values={} if impossible else {"time": seconds},
        samples=[float(f"{sample:.6g}") for sample in samples.cold],
        hot_samples=[float(f"{sample:.6g}") for sample in samples.hot],
        telemetry=telemetry,
        dry=lab.device == "cpu",
    )
