"""One case of one op, held ready by its worker and timed in `benchmarks.measure.blocks`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch

from benchmarks.measure.blocks import Converse, serve_blocks
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
            serve_blocks(list(passed), partial(bench.block, passed), lab, stage, converse)
        for name, one in passed.items():
            seen = lab.telemetry.summary()
            yield point(name, "ok", "", error=one.error, telemetry=seen, dry=lab.device == "cpu")
        del bench
        clear(lab)
