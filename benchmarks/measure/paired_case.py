"""One case of one op, held ready by its worker and timed in blocks, as whoever asks wants them.

Another worker holds the same case of another commit ready. Blocks of the two take turns, so that
what changes on the machine meanwhile meets both (`benchmarks.measure.paired`).

After the points of what cannot be timed:

    ← {"kind": "prepared", "names": […]}             what can; not sent where nothing can
    → {"kind": "block", "rounds": …, "seed": …, "calm": …}     "calm": wait until the device rests
    ← {"kind": "block", "taken": {name: [seconds, …]}}
    → {"kind": "enough"}

and then a point, without a time, of each that was timed, with the telemetry of all blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from benchmarks.measure import graphs
from benchmarks.measure.check import keep_passing, truth
from benchmarks.measure.laboratory import (
    Laboratory,
    Passed,
    Point,
    Stage,
    Task,
    clear,
    free,
    point,
    points_of_all,
    synchronize,
)
from benchmarks.measure.measurement import Bench, resolve

Converse = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Sends a message and returns the answer to it."""


def serve(
    task: Task, ops: Mapping[str, Any], lab: Laboratory, stage: Stage, converse: Converse
) -> Iterator[Point]:
    """Check and capture the task's implementations, time blocks while asked to, a point of each."""
    op = ops.get(task.op)
    case, reason = resolve(task, op)
    if reason:
        yield from points_of_all(task, "skipped", reason)
        return
    with torch.no_grad():
        known = truth(task, op, case, lab, stage)
        if isinstance(known, str):
            yield from points_of_all(task, "failed", known)
            clear(lab)
            return
        passed: dict[str, Passed] = {}
        yield from keep_passing(passed, task.implementations, task, op, case, lab, known, stage)
        free(lab)
        bench = Bench(op, case, lab, stage, hot=False)
        yield from bench.prepare(passed)
        if passed:
            synchronize(lab)  # whoever times now finds nothing of this worker's on the device
            stage("block", "")
            lab.telemetry.clear()
            asked = converse({"kind": "prepared", "names": list(passed)})
            while asked["kind"] == "block":
                if asked["calm"]:
                    _come_to_rest(lab)
                taken = bench.block(passed, asked["rounds"], asked["seed"])
                asked = converse({"kind": "block", "taken": taken})
        for name, one in passed.items():
            seen = lab.telemetry.summary()
            yield point(name, "ok", "", error=one.error, telemetry=seen, dry=lab.device == "cpu")
        del bench
        clear(lab)


def _come_to_rest(lab: Laboratory) -> None:
    """Raises RuntimeError where the device does not: what is timed then would be wrong."""
    if lab.device == "cuda" and not graphs.wait_for_calm():
        raise RuntimeError("the device does not come to rest: another process uses it")
