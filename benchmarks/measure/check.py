"""The check of every implementation of one case, before any of them is timed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import accuracy
from benchmarks.measure.implementations import IMPLEMENTATIONS, Implementation
from benchmarks.measure.laboratory import (
    Laboratory,
    Passed,
    Point,
    Stage,
    Task,
    describe,
    point,
    release,
    require_device,
    synchronize,
)


@dataclass(frozen=True)
class Truth:
    """The inputs of a check, and what the reference makes of them in float64."""

    inputs: accuracy.Inputs
    outputs: accuracy.Outputs


def truth(task: Task, op: Any, case: Any, lab: Laboratory, stage: Stage) -> Truth | str:
    """What to check against, or why there is none, in words.

    Raises DeviceFault where the device does not answer any more.
    """
    stage("reference", "")
    try:
        inputs = op.inputs(case, lab.device, task.seed)
        mutated = _mutates(op)
        outputs = accuracy.truth(op.reference, inputs, mutated, on_cpu=not task.beside_others)
        synchronize(lab)
        release(lab)  # what it computed on its way took several times as much
        return Truth(inputs, outputs)
    except Exception as error:
        reason = f"the float64 reference failed: {describe(error)}"
    require_device(lab, reason)
    return reason


def keep_passing(
    passed: dict[str, Passed],
    names: Iterable[str],
    task: Task,
    op: Any,
    case: Any,
    lab: Laboratory,
    truth: Truth,
    stage: Stage,
) -> Iterator[Point]:
    """Put those that pass into `passed`; a point of each of the others, that says why not.

    Raises DeviceFault where the device does not answer any more.
    """
    for name in names:
        stage("check", name)
        outcome: Passed | Point
        try:
            outcome = _check_one(IMPLEMENTATIONS[name], op, case, lab, truth)
            synchronize(lab)
        except Exception as error:
            outcome = point(name, "failed", f"the check failed: {describe(error)}")
        if isinstance(outcome, Passed):
            passed[name] = outcome
            continue
        if outcome["status"] == "failed":
            outcome["reason"] += f" (inputs of seed {task.seed})"
            require_device(lab, outcome["reason"])
        yield outcome


def _mutates(op: Any) -> tuple[str, ...]:
    """Inputs that the op writes into; a commit from before there were such ops has none."""
    names: tuple[str, ...] = getattr(op, "mutates", ())
    return names


def _check_one(
    implementation: Implementation,
    op: Any,
    case: Any,
    lab: Laboratory,
    truth: Truth,
) -> Passed | Point:
    name = implementation.name
    inputs = accuracy.copies(truth.inputs)
    unavailable = implementation.unavailable(op, lab.device, inputs)
    if unavailable:
        return point(name, "skipped", unavailable)
    call = implementation.build(op)
    try:
        with accuracy.poisoned() if implementation.poisonable else contextlib.nullcontext():
            outputs = accuracy.as_tuple(call(**inputs))
    except NotImplementedError as refusal:
        return point(name, "skipped", str(refusal) or f"{name} does not compute this case")
    written = _mutates(op)
    outputs += tuple(inputs[one] for one in written)
    read = {key: value for key, value in inputs.items() if key not in written}
    changed = accuracy.changed_inputs(read, truth.inputs)
    if changed:
        return point(name, "failed", changed)
    limit = op.tolerance[case.dtype] * implementation.tolerance_factor
    error, reason = accuracy.disagreement(outputs, truth.outputs, limit)
    if reason or error is None:
        return point(name, "failed", reason, error=error)
    return Passed(call, error, accuracy.tensor_bytes(outputs), limit)
