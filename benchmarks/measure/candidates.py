"""Time every configuration that an operator may run in, class by class: what `make tune` does.

A class is one key that an operator's `Tunable` is asked for. Its candidates are checked against
float64 and timed in turns, as implementations are in the suite: CUDA graphs, L2 cold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch

from benchmarks.measure import accuracy, graphs, timing
from benchmarks.measure.laboratory import Laboratory, describe, free
from kernl import tuning
from kernl.op import Case, Op
from kernl.tables import Tunable, Value

_SAMPLES = 7
_BUDGET_S = 0.05
_MOST_SETS = 16
_SETS_BYTES = 12 << 30
_TOO_SLOW = 4.0
"""A candidate that takes so many times the fastest one's first call is not timed further."""


class Question(NamedTuple):
    """One class of one tunable, and a case that asks for it."""

    op: Op
    case: Case
    tunable: Tunable[Any]
    key: dict[str, Value]


@dataclass(frozen=True)
class Answer:
    """The fastest configuration of one class: seconds of it and of what was chosen before.

    `failed` counts candidates that were wrong or did not run; `tried` those that were timed.
    """

    question: Question
    config: tuple[Any, ...]
    seconds: float
    before: float | None
    tried: int
    failed: int
    reasons: tuple[str, ...]


def questions(op: Op, cases: Sequence[Case], capability: int) -> list[Question]:
    """The distinct classes that these cases ask for, each with the first case that does."""
    found: dict[tuple[Any, ...], Question] = {}
    for case in cases:
        with tuning.asked() as asked:
            op.plan_on_meta(case, capability)
        for tunable, key in asked:
            found.setdefault((tunable.name, *key.items()), Question(op, case, tunable, key))
    return list(found.values())


def candidates(question: Question, capability: int) -> list[tuple[Any, ...]]:
    """What to try: the operator's candidates that fit, and what it would take today, once each."""
    tunable, key = question.tunable, question.key
    today = tuning.choose(tunable, capability, torch.device("cpu"), **key)
    fitting = [c for c in tunable.candidates(capability, key) if tunable.fits(capability, key, c)]
    return list(dict.fromkeys([today, *fitting]))


def run_once(question: Question, config: tuple[Any, ...], device: str) -> None:
    """Call the operator in one configuration, so that its kernels lie compiled in the cache."""
    inputs = question.op.inputs(question.case, device, 0)
    with tuning.forcing(question.tunable, config):
        question.op.kernel(**inputs)


def beside_the_library(question: Question, capability: int) -> list[tuple[Any, ...]]:
    """What a call takes today and the library's own call; that alone where it is taken today."""
    today, *others = candidates(question, capability)
    return [today, *(config for config in others if config[0] == "library")]


def answer(
    question: Question,
    capability: int,
    lab: Laboratory,
    configs: Sequence[tuple[Any, ...]] | None = None,
) -> Answer | None:
    """Time one class; None where no candidate is right.

    Args:
        question: the class.
        capability: of the GPU.
        lab: where it is timed.
        configs: what to try, today's choice first; all candidates where None.
    """
    tried = configs or candidates(question, capability)
    medians, reasons = timed(question, lab, tried)
    if not medians:
        return None
    fastest = min(medians, key=lambda config: medians[config])
    return Answer(
        question=question,
        config=fastest,
        seconds=medians[fastest],
        before=medians.get(tried[0]),
        tried=len(medians),
        failed=len(reasons),
        reasons=tuple(reasons),
    )


def timed(
    question: Question, lab: Laboratory, configs: Sequence[tuple[Any, ...]]
) -> tuple[dict[tuple[Any, ...], float], list[str]]:
    """Seconds of each configuration that is right and not far too slow, and what is wrong."""
    with torch.no_grad():
        result = _timed(question, lab, configs)
    free(lab)
    return result


def _timed(
    question: Question, lab: Laboratory, configs: Sequence[tuple[Any, ...]]
) -> tuple[dict[tuple[Any, ...], float], list[str]]:
    op, case = question.op, question.case
    pristine = op.inputs(case, lab.device, 1)
    truth = accuracy.truth(op.reference, pristine, op.mutates)
    limit = op.tolerance[case.dtype]
    right: dict[str, tuple[Any, ...]] = {}
    reasons = []
    for config in configs:
        reason = _wrong(question, config, pristine, truth, limit)
        if reason:
            reasons.append(f"{config}: {reason}")
        else:
            right[str(config)] = config
    del truth
    if not right:
        return {}, reasons
    medians = _medians(question, right, pristine, lab)
    return {right[name]: seconds for name, seconds in medians}, reasons


def _wrong(
    question: Question,
    config: tuple[Any, ...],
    pristine: accuracy.Inputs,
    truth: accuracy.Outputs,
    limit: float,
) -> str:
    """Why this configuration cannot be used, in words; empty where it can."""
    op = question.op
    inputs = accuracy.copies(pristine)
    try:
        with tuning.forcing(question.tunable, config), accuracy.poisoned():
            outputs = accuracy.as_tuple(op.kernel(**inputs))
        outputs += tuple(inputs[name] for name in op.mutates)
        return accuracy.disagreement(outputs, truth, limit)[1]
    except Exception as error:  # whatever the compiler and the driver raise
        return describe(error)


def _medians(
    question: Question,
    right: Mapping[str, tuple[Any, ...]],
    pristine: accuracy.Inputs,
    lab: Laboratory,
) -> Iterator[tuple[str, float]]:
    op, case = question.op, question.case
    if lab.flush is None:
        lab.flush = graphs.Flush()
    promising = _promising(question, right, pristine)
    per_set = accuracy.tensor_bytes(list(pristine.values()))
    per_set += len(promising) * accuracy.tensor_bytes(op.plan_on_meta(case, 80).outputs)
    available, _ = torch.cuda.mem_get_info()
    count = timing.choose_sets(per_set, min(_SETS_BYTES, available // 2))
    sets = [op.inputs(case, lab.device, seed) for seed in range(min(count, _MOST_SETS))]
    captured = {
        name: graphs.capture(partial(_forced, question, right[name]), sets) for name in promising
    }
    taken = graphs.time_graphs(captured, lab.flush, _SAMPLES, _BUDGET_S, 0, lab.telemetry)
    for name, samples in taken.items():
        yield name, timing.median(samples.cold)


def _forced(question: Question, config: tuple[Any, ...], **inputs: Any) -> Any:
    with tuning.forcing(question.tunable, config):
        return question.op.kernel(**inputs)


def _promising(
    question: Question, right: Mapping[str, tuple[Any, ...]], inputs: accuracy.Inputs
) -> list[str]:
    """Names of the configurations worth timing well, by the best of three calls of each."""
    quick: dict[str, float] = {}
    for name, config in right.items():
        best = float("inf")
        for _ in range(3):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            _forced(question, config, **inputs)
            end.record()
            torch.cuda.synchronize()
            best = min(best, start.elapsed_time(end))
        quick[name] = best
    limit = _TOO_SLOW * min(quick.values())
    return [name for name in quick if quick[name] <= limit]
