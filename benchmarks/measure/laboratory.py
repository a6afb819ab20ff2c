"""What every step of a measurement shares: the task, the device, points and faults."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.measure.choosing import Alone
from benchmarks.measure.graphs import Flush
from benchmarks.measure.implementations import Call
from benchmarks.measure.telemetry import Telemetry
from benchmarks.measure.timing import Ceilings

Point = dict[str, Any]
Stage = Callable[[str, str], None]
"""Called with (stage, implementation) before each step that could take the worker down."""


class DeviceFault(Exception):
    """The device does not answer any more: this process cannot go on. The reason is in words."""


@dataclass(frozen=True)
class Task:
    """One case to measure. `seed` draws the inputs of the check; `budget_s` is seconds of GPU.

    `hot`: also with L2 hot. `beside_others`: what finds no memory here is measured once more where
    there is more, so it need not make do without.
    """

    op: str
    case: str
    dims: dict[str, Any]
    dtype: str
    version: int
    implementations: tuple[str, ...]
    samples: int
    budget_s: float
    seed: int
    hot: bool = False
    beside_others: bool = False

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Task:
        """The task in a message of the sweep."""
        names = {**message, "implementations": tuple(message["implementations"])}
        return cls(**{name: names[name] for name in cls.__dataclass_fields__ if name in names})


@dataclass
class Laboratory:
    """What all cases of a worker share. `flush` is None in a dry run.

    What times anything on the device does so under `alone`. The device's ceilings are measured, by
    `find_ceilings`, when the first case is about to be timed: others may need long until then.
    """

    device: str
    ceilings: Ceilings | None = None
    flush: Flush | None = None
    telemetry: Telemetry = field(default_factory=lambda: Telemetry(""))
    alone: Alone = field(default=lambda _: nullcontext())
    find_ceilings: Callable[[], Ceilings] | None = None

    def know_ceilings(self, stage: Stage) -> None:
        """Measure what is not known yet. The device has to be this worker's."""
        if self.ceilings is None and self.find_ceilings is not None:
            stage("ceilings", "")
            self.ceilings = self.find_ceilings()


@dataclass(frozen=True)
class Passed:
    """An implementation that passed the check: what to time, its error, bytes of its outputs."""

    call: Call
    error: float
    output_bytes: int
    limit: float


def describe(error: BaseException) -> str:
    """An exception in one line: its type and the first line of what it says, and the same of the
    one behind it, which tells more where cleaning up raised the last one.
    """
    behind = error.__cause__ or error.__context__
    texts = [_one_line(error), *([_one_line(behind)] if behind else [])]
    return ", after ".join(dict.fromkeys(texts))


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def point(variant: str, status: str, reason: str, **rest: Any) -> Point:
    """A point of one implementation, as the worker sends it."""
    return {"variant": variant, "status": status, "reason": reason, **rest}


def points_of_all(task: Task, status: str, reason: str) -> Iterator[Point]:
    """The same of each implementation of the task."""
    return (point(name, status, reason) for name in task.implementations)


def synchronize(lab: Laboratory) -> None:
    """Wait for the device, so that its errors show here."""
    if lab.device == "cuda":
        torch.cuda.synchronize()


def free(lab: Laboratory) -> None:
    """Give cached memory back to the device, and what only garbage holds."""
    gc.collect()
    release(lab)


def clear(lab: Laboratory) -> None:
    """After a case: `free`, and cuBLAS' workspaces too, of tens of megabytes a stream.

    No graph that was captured before may be replayed any more: it may write to one of them.
    """
    if lab.device == "cuda":
        torch._C._cuda_clearCublasWorkspaces()
    free(lab)


def release(lab: Laboratory) -> None:
    """Give cached memory back to the device: others share it."""
    if lab.device == "cuda":
        torch.cuda.empty_cache()


def require_device(lab: Laboratory, reason: str) -> None:
    """Raise DeviceFault where the device does not compute any more: CUDA's errors can be sticky."""
    if lab.device != "cuda":
        return
    try:
        free(lab)
        alive = torch.ones(2, device="cuda").sum().item() == 2.0
    except Exception:
        alive = False
    if not alive:
        raise DeviceFault(reason)
