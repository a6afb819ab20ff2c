"""Measure one case of one model in every implementation: check, warm up, time in turns.

Latency is wall-clock time around a call that ends when the device is done. Runs in the worker.
"""

from __future__ import annotations

import gc
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from benchmarks.measure import timing
from benchmarks.measure.blocks import Converse, serve_blocks
from benchmarks.measure.choosing import alone_once_kernl_times
from benchmarks.measure.laboratory import (
    Laboratory,
    Point,
    Stage,
    Task,
    clear,
    describe,
    free,
    point,
    points_of_all,
    release,
    require_device,
    synchronize,
)
from benchmarks.measure.model_calls import BY_HOST, CHOOSING, Running, Unavailable, Weights, build
from benchmarks.measure.model_check import Yardstick, yardstick
from benchmarks.measure.telemetry import throttled
from benchmarks.model import Model, Sample
from benchmarks.models import MODELS

TIMED_SAMPLES = 4
WARM_UPS = 5  # torch.compile with graphs compiles, warms up and records in the first three
_DRY_ROUNDS = 3


class Shelf:
    """The weights of the model that was measured last: its next case needs them again."""

    def __init__(self) -> None:
        self._name = ""
        self._weights: Weights | None = None

    def weights(self, model: Model, device: str) -> Weights:
        """The model's weights on a device; those of another model go first."""
        if self._weights is None or self._name != model.name:
            self._weights = None
            gc.collect()
            self._weights = Weights(model, device)
            self._name = model.name
        return self._weights


def measure(
    task: Task, shelf: Shelf, lab: Laboratory, stage: Stage, converse: Converse | None = None
) -> Iterator[Point]:
    """One point for each implementation of the task, in the order in which they are decided.

    With `converse` they are timed in blocks, as it asks for them, and the points have no times
    (`benchmarks.measure.blocks`).

    Raises DeviceFault where the device does not answer any more.
    """
    model = next((one for one in MODELS if one.name == task.op), None)
    if model is None or model.version != task.version:
        yield from points_of_all(
            task, "skipped", f"there is no model {task.op} of version {task.version}"
        )
        return
    free(lab)
    weights: Weights | None = None
    try:
        stage("weights", "")
        weights = shelf.weights(model, lab.device)
        case = model.case_of(task.dims, lab.device == "cpu")
        draw = partial(model.samples, case, device=lab.device, dry=lab.device == "cpu")
        stage("reference", "")
        yard = yardstick(weights, draw([task.seed, task.seed + 1]), task.seed)
        timed = draw(range(TIMED_SAMPLES))  # the same for each commit
        synchronize(lab)
        release(lab)
    except Exception as error:
        reason = f"the reference failed: {describe(error)}"
        require_device(lab, reason)
        yield from points_of_all(task, "failed", reason)
        return
    yield from _measured(task, weights, yard, timed, lab, stage, converse)
    weights.forget_compiled()
    clear(lab)


def _measured(
    task: Task,
    weights: Weights,
    yard: Yardstick,
    timed: Sequence[Sample],
    lab: Laboratory,
    stage: Stage,
    converse: Converse | None,
) -> Iterator[Point]:
    running: dict[str, Running] = {}
    for name in task.implementations:
        stage("check", name)
        outcome = _ready(name, weights, yard, timed, lab)
        release(lab)  # others may take minutes to compile
        if isinstance(outcome, Running):
            running[name] = outcome
        else:
            yield outcome
    stage("time", "")
    gc.collect()
    try:
        taken = _Taken()
        if converse is not None:
            taken = _Taken(telemetry=_in_blocks(running, timed, lab, stage, converse))
        elif running:
            with lab.alone("timing"):
                taken = _time(task, running, timed, lab)
    except Exception as error:
        reason = f"timing failed: {describe(error)}"
        require_device(lab, reason)
        for name in running:
            yield point(name, "failed", reason)
        return
    for name, one in running.items():
        stage("check after timing", name)
        yield _judged(name, one, taken, yard, lab)


def _ready(
    name: str, weights: Weights, yard: Yardstick, timed: Sequence[Sample], lab: Laboratory
) -> Running | Point:
    """The implementation, built, checked and warmed up; or a point that says why not."""
    error: float | None = None
    try:
        with _choosing(name, lab):
            running = build(name, weights, yard.samples[0])
            error, reason = yard.judge(running.call)
            with torch.inference_mode():
                for number in range(0 if reason else WARM_UPS):
                    running.call(timed[number % len(timed)])
            synchronize(lab)
        reason = reason or running.complaint()
        if not reason:
            return running
    except Unavailable as refusal:
        return point(name, "skipped", str(refusal))
    except Exception as broken:
        reason = f"the check failed: {describe(broken)}"
    require_device(lab, reason)
    return point(name, "failed", _seeded(reason, yard), error=error)


def _choosing(name: str, lab: Laboratory) -> AbstractContextManager[object]:
    """What holds while an implementation is built that times anything on the device."""
    if name.startswith("kernl"):
        return alone_once_kernl_times(lab.alone)
    return lab.alone(f"what {name} times") if name in CHOOSING else nullcontext()


@dataclass(frozen=True)
class _Taken:
    """Seconds of calls by implementation, and the telemetry of their taking.

    Attributes:
        seconds: until the device was done.
        host: until the call returned.
    """

    seconds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    host: Mapping[str, Sequence[float]] = field(default_factory=dict)
    telemetry: dict[str, Any] = field(default_factory=dict)


def _time(
    task: Task, running: Mapping[str, Running], timed: Sequence[Sample], lab: Laboratory
) -> _Taken:
    """Seconds of each call: at least `task.samples`, more while all of them fit the budget.

    Those of calls that Python launches kernel by kernel are a third as many: they take most of the
    time, and the host's noise is larger than what more of them would tell. Samples are taken again
    where those of a graph are noisy; the calmest attempt is kept, with its telemetry.
    """
    calls = _calls(running, timed)
    seed = zlib.crc32(f"{task.op} {task.case}".encode())
    wait = partial(synchronize, lab)
    take = partial(timing.take_turns, calls, lead_in=True, seldom=BY_HOST, synchronize=wait)
    gc.disable()
    try:
        with torch.inference_mode():
            trial = take(rounds=2, seed=seed)
            shares = {name: timing.SELDOM if name in BY_HOST else 1 for name in trial}
            round_s = 2 * sum(min(seconds) / shares[name] for name, seconds in trial.items())
            rounds = timing.choose_rounds(round_s, task.samples, task.budget_s)
            if lab.device == "cpu":
                rounds = _DRY_ROUNDS

            def attempt(number: int) -> _Taken:
                lab.telemetry.clear()
                host: dict[str, list[float]] = {name: [] for name in calls}
                taken = take(
                    rounds=rounds,
                    seed=seed + number,
                    between=lab.telemetry.sample,
                    returned=lambda name, seconds: host[name].append(seconds),
                )
                return _Taken(taken, host, lab.telemetry.summary())

            def noisy(found: _Taken) -> int:
                seconds = found.seconds.items()
                of_graphs = {name: each for name, each in seconds if name not in BY_HOST}
                return timing.noisy(of_graphs)

            return timing.calmest(attempt, noisy)
    finally:
        gc.enable()


def _in_blocks(
    running: Mapping[str, Running],
    timed: Sequence[Sample],
    lab: Laboratory,
    stage: Stage,
    converse: Converse,
) -> dict[str, Any]:
    """Time blocks while asked to; the telemetry of all of them."""
    calls = _calls(running, timed)

    def block(rounds: int, seed: int) -> Mapping[str, Sequence[float]]:
        with torch.inference_mode():
            return timing.take_turns(
                calls,
                rounds,
                seed,
                lead_in=True,
                synchronize=partial(synchronize, lab),
                between=lab.telemetry.sample,
            )

    if not running:
        return {}
    synchronize(lab)
    gc.disable()
    try:
        serve_blocks(list(running), block, lab, stage, converse)
    finally:
        gc.enable()
    return lab.telemetry.summary()


def _calls(
    running: Mapping[str, Running], timed: Sequence[Sample]
) -> dict[str, Callable[[int], object]]:
    """What to call with the number of a round: all get the same inputs in one round."""

    def turn(call: Callable[[Sample], object], number: int) -> object:
        return call(timed[number % len(timed)])

    return {name: partial(turn, one.call) for name, one in running.items()}


def _judged(
    name: str,
    one: Running,
    taken: _Taken,
    yard: Yardstick,
    lab: Laboratory,
) -> Point:
    """The point, once a last call still agrees: the others ran meanwhile."""
    error: float | None = None
    try:
        error, reason = yard.judge(one.call)
        synchronize(lab)
        reason = reason or one.complaint()
    except Exception as broken:
        reason = f"the check failed: {describe(broken)}"
    if reason:
        reason = _seeded(f"after timing: {reason}", yard)
        require_device(lab, reason)
        return point(name, "failed", reason, error=error)
    seconds, host = taken.seconds.get(name, ()), taken.host.get(name, ())
    shares = {"time": 0.5, "p20": 0.2, "p80": 0.8} if seconds else {}
    values = {key: timing.percentile(seconds, share) for key, share in shares.items()}
    if host:
        values["host"] = timing.median(host)
    noise = timing.noise(seconds) if seconds else ""
    rewritten = {} if one.rewrite is None else {"rewrite": one.rewrite}
    return point(
        name,
        "ok",
        "; ".join(filter(None, (one.remark, noise or throttled(taken.telemetry)))),
        error=error,
        values=values,
        samples=[float(f"{sample:.6g}") for sample in seconds],
        telemetry=taken.telemetry,
        dry=lab.device == "cpu",
        **rewritten,
    )


def _seeded(reason: str, yard: Yardstick) -> str:
    return f"{reason} (inputs of seed {yard.seed})"
