"""One op, all its cases, one warm worker: measure, write down, survive.

The sweep runs in the process that asv starts for a suite's `setup_cache`. It never touches the GPU
itself. Whatever a case does to the worker (a CUDA fault, a segmentation fault, a hang, no memory,
garbage on its output) is written down as that case's reason, and the next case gets a new worker.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cases import NOT_SELECTED, was_left_out
from benchmarks.measure.device import Fingerprint
from benchmarks.measure.journal import Journal, Record
from benchmarks.measure.process import Message, WorkerFault, WorkerProcess, WorkerRefusal
from benchmarks.measure.progress import Progress, say

SUITE = "kernels"
ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class SweepCase:
    """One case as it is frozen: its name, its dims, its dtype; whether this profile measures it."""

    name: str
    dims: Mapping[str, Any]
    dtype: str
    selected: bool = True


@dataclass(frozen=True)
class Settings:
    """How to measure. Times are seconds.

    Attributes:
        device: `cuda`, or `cpu` for a dry run under Triton's interpreter.
        samples: the fewest cold samples of each implementation.
        budget_s: GPU time up to which a case takes more samples than that.
        case_timeout_s: after this long a case counts as hanging; compiling is part of it.
        tell_stages: say each step of a case in the progress, where a case takes minutes.
        start_timeout_s: the same for the start of a worker.
        start_attempts: starts that may fail one after another before the sweep gives up.
        faults_in_a_row: cases one after another in which an implementation may take the worker
            down before it is left out of the rest.
    """

    device: str = "cuda"
    samples: int = 30
    budget_s: float = 0.5
    case_timeout_s: float = 300.0
    start_timeout_s: float = 300.0
    start_attempts: int = 3
    faults_in_a_row: int = 10
    tell_stages: bool = False


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


@dataclass
class Workshop:
    """Holds the running worker; several sweeps of the same device and commit may share one."""

    worker: WorkerProcess | None = None

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


def sweep(
    subject: Subject,
    cases: Sequence[SweepCase],
    journal: Journal,
    *,
    settings: Settings = Settings(),
    reuse: Mapping[str, Sequence[Record]] | None = None,
    command: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    workshop: Workshop | None = None,
) -> list[Record]:
    """A point for every case and implementation, each in the journal before the next is measured.

    `reuse` maps names of cases to points of an earlier run (`resume.reusable`), which are returned
    as they are. `command` replaces the worker's command line. A `workshop` that is given keeps its
    worker for the next sweep; the caller stops it. Raises ValueError for a dry run into
    the project's own results, and JournalError where another process writes the same journal.
    """
    if settings.device == "cpu" and journal.path.resolve().is_relative_to(RESULTS):
        raise ValueError(f"a dry run may not write {journal.path}: its times mean nothing")
    kept = dict(reuse or {})
    waiting = sum(case.name not in kept and case.selected for case in cases)
    running = _Sweep(
        subject,
        journal,
        settings,
        list(command or worker_command(settings.device, subject.suite)),
        dict(environment if environment is not None else worker_environment(None)),
        Progress(waiting * len(set(subject.implementations) - subject.left_out)),
        workshop or Workshop(),
    )
    points: list[Record] = []
    try:
        # What is left out comes last: a run says in its fingerprint what its worker found.
        for case in sorted(cases, key=lambda case: not case.selected):
            points += kept[case.name] if case.name in kept else running.measure(case)
    finally:
        if workshop is None:
            running.stop()
    return points


class _Sweep:
    """The state of one sweep: its run in the journal, its worker, and what it has given up."""

    def __init__(
        self,
        subject: Subject,
        journal: Journal,
        settings: Settings,
        command: list[str],
        environment: dict[str, str],
        progress: Progress,
        workshop: Workshop,
    ) -> None:
        self._progress = progress
        self._workshop = workshop
        self._subject = subject
        self._journal = journal
        self._settings = settings
        self._command = command
        self._environment = environment
        self._run = ""
        self._given_up: tuple[str, str] | None = None
        self._faults: Counter[str] = Counter()

    def measure(self, case: SweepCase) -> list[Record]:
        """Points of one case. An implementation that takes the worker down is left out of a
        second try, so that it costs the others nothing.
        """
        points: list[Record] = []
        names = self._subject.implementations
        left_out = self._subject.left_out if case.selected else frozenset(names)
        pending = [name for name in names if name not in left_out]

        def note(message: Message) -> None:
            pending.remove(message["variant"])
            points.append(self._record(case, message))

        for name in list(pending):
            if self._faults[name] >= self._settings.faults_in_a_row:
                count = self._faults[name]
                note(_failed(name, f"left out: it took the worker down {count} cases in a row"))
        while pending:
            worker = self._ready_worker()
            if worker is None:
                status, reason = self._given_up or ("failed", "the worker did not start")
                for name in list(pending):
                    note({"variant": name, "status": status, "reason": reason})
                break
            try:
                self._ask(worker, case, pending, note)
            except WorkerFault as fault:
                self.stop()
                known = fault.implementation in pending
                for name in [fault.implementation] if known else list(pending):
                    self._faults[name] += 1
                    note(_failed(name, str(fault)))
        self._begin_run()
        for name in names:
            if name in left_out:
                skipped = {"variant": name, "status": "skipped", "reason": NOT_SELECTED}
                points.append(self._record(case, skipped))
        return points

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

    def _tell(self, stage: str, implementation: str) -> None:
        if self._settings.tell_stages:
            say(f"    {stage} {implementation}".rstrip())

    def stop(self) -> None:
        """End the worker, if one runs."""
        self._workshop.stop()

    def _ready_worker(self) -> WorkerProcess | None:
        """The worker, started where none runs; None once the sweep has given up."""
        failures: list[str] = []
        while self._workshop.worker is None and self._given_up is None:
            try:
                self._workshop.worker = WorkerProcess(
                    self._command,
                    self._environment,
                    Path(tempfile.gettempdir()),
                    self._settings.start_timeout_s,
                )
            except WorkerRefusal as refusal:
                self._given_up = (refusal.status, str(refusal))
            except WorkerFault as fault:
                failures.append(str(fault))
                if len(failures) >= self._settings.start_attempts:
                    self._given_up = (
                        "failed",
                        f"the worker did not start, {len(failures)} times in a row: {fault}",
                    )
        self._begin_run()
        return self._workshop.worker

    def _begin_run(self) -> None:
        """Say in the journal who measures, once."""
        if not self._run:
            worker = self._workshop.worker
            figures = worker.fingerprint if worker is not None else {}
            fingerprint = {**figures, **self._subject.fingerprint, "suite": self._subject.suite}
            subject = self._subject
            self._run = self._journal.start_run(subject.commit, subject.machine, fingerprint)

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
        }

    def _record(self, case: SweepCase, message: Message) -> Record:
        record = self._journal.append_point(
            run=self._run,
            suite=self._subject.suite,
            op=self._subject.op,
            case=case.name,
            variant=message["variant"],
            version=self._subject.version,
            status=message["status"],
            reason=message.get("reason", ""),
            values=message.get("values"),
            samples=message.get("samples", ()),
            hot_samples=message.get("hot_samples", ()),
            error=message.get("error"),
            telemetry=message.get("telemetry"),
            dry=bool(message.get("dry")),
        )
        if not was_left_out(record["reason"]):
            self._progress.step(_outcome(record))
        return record


def _outcome(record: Record) -> str:
    """A point in one line, such as `softmax rows1_cols1.fp16 kernl ok, 0.00213 ms`."""
    what = f"{record['op']} {record['case']} {record['variant']} {record['status']}"
    seconds = record["values"].get("time")
    return what + (f", {1e3 * seconds:.3g} ms" if seconds else "")


def _failed(variant: str, reason: str) -> Message:
    return {"variant": variant, "status": "failed", "reason": reason}
