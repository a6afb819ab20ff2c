"""One case, one warm worker: measure it, and survive whatever it does to the worker.

Nothing here knows a journal: who asks gets plain messages, a point each, and writes them down. So a
case is measured in the same way by a sweep on this machine and by a process of a fleet on another.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure.device import Fingerprint
from benchmarks.measure.process import (
    Message,
    WorkerFault,
    WorkerProcess,
    WorkerRefusal,
    launched,
)
from benchmarks.measure.progress import say
from benchmarks.measure.turns import Turn

_COPIES = 16
"""What a case of an operator takes, in what it moves: the reference computes in float64."""
_SETS, _SETS_BYTES = 64, 1 << 30
"""And for the input sets that a graph walks through: so many, as long as they fit."""
SUITE = "kernels"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class SweepCase:
    """One case as it is frozen: its name, its dims, its dtype.

    Attributes:
        selected: whether this profile measures it.
        bytes: what an operator's case moves at least; 0 where that is not known.
    """

    name: str
    dims: Mapping[str, Any]
    dtype: str
    selected: bool = True
    bytes: int = 0


@dataclass(frozen=True)
class Settings:
    """How to measure. Times are seconds.

    Attributes:
        device: `cuda`, or `cpu` for a dry run under Triton's interpreter.
        samples: the fewest cold samples of each implementation; a third of that of a model's
            implementations whose kernels Python launches.
        budget_s: seconds of timing up to which a case takes more samples than that.
        case_timeout_s: after this long a case counts as hanging; compiling is part of it.
        tell_stages: say each step of a case in the progress, where a case takes minutes.
        workers: how many may share the device, where many cases are measured.
        cases_a_worker: so many cases and its start takes less time than it saves.
        case_bytes: of the device's memory, what a case takes beside what grows with its size.
        hot: time operators with L2 hot too; only `python -m benchmarks.measure` shows that.
        start_timeout_s: the same for the start of a worker.
        start_attempts: starts that may fail one after another before the sweep gives up.
        faults_in_a_row: cases one after another in which an implementation may take the worker
            down before it is left out of the rest.
    """

    device: str = "cuda"
    samples: int = 30
    budget_s: float = 0.06
    case_timeout_s: float = 300.0
    start_timeout_s: float = 300.0
    start_attempts: int = 3
    faults_in_a_row: int = 10
    tell_stages: bool = False
    workers: int = 12
    cases_a_worker: int = 8
    case_bytes: int = 512 << 20
    hot: bool = False

    def need(self, case: SweepCase) -> int:
        """About how many bytes of the device's memory a worker takes for a case."""
        sets = min(_SETS * case.bytes, _SETS_BYTES)
        return self.case_bytes + sets + _COPIES * case.bytes


@dataclass(frozen=True)
class Subject:
    """What is measured: an op in a commit, in which implementations, on which machine.

    `left_out` are those of the implementations that this run does not measure.
    """

    op: str
    version: int
    commit: str
    machine: str
    implementations: tuple[str, ...]
    fingerprint: Fingerprint
    suite: str = SUITE
    left_out: frozenset[str] = frozenset()

    @property
    def measured(self) -> list[str]:
        """The implementations that this run measures, in their order."""
        return [name for name in self.implementations if name not in self.left_out]


@dataclass(frozen=True)
class Lot:
    """The cases of one op that wait to be measured; one or more."""

    subject: Subject
    cases: Sequence[SweepCase]


@dataclass
class Workshop:
    """Holds the running worker; several sweeps of the same device and commit may share one.

    `figures` is what the worker that was started last says of its device. `turn` is the workers'
    place among those that share the device; None where nobody else uses it. `beside_others`: what
    finds no memory is measured once more later.
    """

    turn: Turn | None = None
    beside_others: bool = False
    worker: WorkerProcess | None = None
    figures: Fingerprint = field(default_factory=dict)

    def stop(self) -> None:
        """End the worker, if one runs."""
        if self.worker is not None:
            self.worker.stop()
            self.worker = None


def worker_command(device: str, suite: str = SUITE) -> list[str]:
    """The command line of the real worker. `-P`: the current directory must not be imported."""
    program = ["-P", "-m", "benchmarks.measure.worker"]
    return [sys.executable, *program, "--device", device, "--suite", suite]


def worker_environment(code: Path | None) -> dict[str, str]:
    """Environment in which kernl comes from `code`, or from this checkout, and all else from here.

    `code` is the directory that holds the commit's `kernl/`.
    """
    environment = dict(os.environ)
    if code is not None:
        environment["KERNL_CODE"] = str(code)
    paths = [str(code)] if code is not None else []
    inherited = environment.get("PYTHONPATH", "")
    environment["PYTHONPATH"] = os.pathsep.join([*paths, str(ROOT), *inherited.split(os.pathsep)])
    return environment


class Measuring:
    """The cases of one subject on this machine: its worker, its faults, why it has given up.

    Attributes:
        given_up: status and reason once no worker can be had here; None before.
    """

    def __init__(
        self,
        subject: Subject,
        settings: Settings,
        command: Sequence[str],
        environment: Mapping[str, str],
        workshop: Workshop,
    ) -> None:
        self.given_up: tuple[str, str] | None = None
        self._subject = subject
        self._settings = settings
        self._command = command
        self._environment = environment
        self._workshop = workshop
        self._faults: Counter[str] = Counter()

    @property
    def figures(self) -> Fingerprint:
        """What the worker that was started last says of its device; empty before the first."""
        return self._workshop.figures

    def measure(self, case: SweepCase, note: Callable[[Message], None]) -> None:
        """Note a message for each implementation of the case as it comes, but for those left out.

        One that takes the worker down is left out of a second try, so that it costs the others
        nothing. A worker that had died before it began the case is replaced, once: the case is not
        to blame.
        """
        replaced = False
        pending = self._subject.measured

        def found(message: Message) -> None:
            pending.remove(message["variant"])
            note(message)

        for name in list(pending):
            if self._faults[name] >= self._settings.faults_in_a_row:
                count = self._faults[name]
                found(failed(name, f"left out: it took the worker down {count} cases in a row"))
        while pending:
            worker = self._ready_worker()
            if worker is None:
                status, reason = self.given_up or ("failed", "the worker did not start")
                for name in list(pending):
                    found({"variant": name, "status": status, "reason": reason})
                break
            try:
                self._ask(worker, case, pending, found)
            except WorkerFault as fault:
                self._workshop.stop()
                if fault.before_the_case and not replaced:
                    replaced = True
                    continue
                known = fault.implementation in pending
                for name in [fault.implementation] if known else list(pending):
                    self._faults[name] += 1
                    found(failed(name, str(fault)))

    def excuse(self) -> None:
        """What happened last is no fault of an implementation's: none has one to its name."""
        self._faults.clear()

    def stop(self) -> None:
        """End the worker, if one runs."""
        self._workshop.stop()

    def _ask(
        self,
        worker: WorkerProcess,
        case: SweepCase,
        pending: Sequence[str],
        note: Callable[[Message], None],
    ) -> None:
        """Note the points of all pending implementations. Raises WorkerFault."""
        task = self._task(case, pending)
        for message in worker.measure(task, self._settings.case_timeout_s, self._tell):
            if message["variant"] not in pending:
                raise WorkerFault(f"the worker sent a point nobody asked for: {str(message)[:80]}")
            self._faults[message["variant"]] = 0
            note(message)
        if pending:
            raise WorkerFault(f"the worker sent no point for {', '.join(pending)}")
        if worker.worn:
            self._workshop.stop()

    def _tell(self, stage: str, implementation: str) -> None:
        if self._settings.tell_stages:
            say(f"    {stage} {implementation}".rstrip())

    def _ready_worker(self) -> WorkerProcess | None:
        """The worker, started where none runs; None once the sweep has given up."""
        failures: list[str] = []
        while self._workshop.worker is None and self.given_up is None:
            try:
                here = Path(tempfile.gettempdir())
                self._workshop.worker = WorkerProcess(
                    launched(self._command, self._environment, here),
                    self._settings.start_timeout_s,
                    self._workshop.turn,
                )
                self._workshop.figures = self._workshop.worker.fingerprint
            except WorkerRefusal as refusal:
                self.given_up = (refusal.status, str(refusal))
            except WorkerFault as fault:
                failures.append(str(fault))
                if len(failures) >= self._settings.start_attempts:
                    self.given_up = (
                        "failed",
                        f"the worker did not start, {len(failures)} times in a row: {fault}",
                    )
        return self._workshop.worker

    def _task(self, case: SweepCase, implementations: Sequence[str]) -> dict[str, Any]:
        return {
            "op": self._subject.op,
            "case": case.name,
            "dims": dict(case.dims),
            "dtype": case.dtype,
            "version": self._subject.version,
            "implementations": list(implementations),
            "samples": self._settings.samples,
            "budget_s": self._settings.budget_s,
            "seed": secrets.randbelow(1 << 31),
            "hot": self._settings.hot,
            "beside_others": self._workshop.beside_others,
        }


def failed(variant: str, reason: str) -> Message:
    """A point that has no result, as a worker would send it."""
    return {"variant": variant, "status": "failed", "reason": reason}
