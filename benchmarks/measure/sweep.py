"""One op, all its cases, one warm worker: measure, write down, survive.

The sweep runs in the process that asv starts for a suite's `setup_cache`. It never touches the GPU
itself. Whatever a case does to the worker (a CUDA fault, a segmentation fault, a hang, no memory,
garbage on its output) is written down as that case's reason, and the next case gets a new worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from benchmarks.measure.device import Fingerprint
from benchmarks.measure.journal import Journal, Record
from benchmarks.measure.measuring import (
    ROOT,
    SUITE,
    Measuring,
    Settings,
    Subject,
    SweepCase,
    Workshop,
    worker_command,
    worker_environment,
)
from benchmarks.measure.process import Message
from benchmarks.measure.progress import Progress

__all__ = [
    "SUITE",
    "Settings",
    "Subject",
    "SweepCase",
    "Workshop",
    "Writing",
    "sweep",
    "worker_command",
    "worker_environment",
]

RESULTS = ROOT / "benchmarks" / "results"


def sweep(
    subject: Subject,
    cases: Sequence[SweepCase],
    journal: Journal,
    *,
    settings: Settings | None = None,
    reuse: Mapping[str, Sequence[Record]] | None = None,
    command: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    workshop: Workshop | None = None,
) -> list[Record]:
    """A point for every case and implementation of this run, each in the journal before the next.

    `reuse` maps names of cases to points of an earlier run (`resume.reusable`), which are returned
    as they are, those of cases that this run leaves out too. What is left out has no point.
    `command` replaces the worker's command line. A `workshop` that is given keeps its worker for
    the next sweep; the caller stops it. Raises ValueError for a dry run into the project's own
    results, and JournalError where another process writes the same journal.
    """
    settings = settings or Settings()
    if settings.device == "cpu" and journal.path.resolve().is_relative_to(RESULTS):
        raise ValueError(f"a dry run may not write {journal.path}: its times mean nothing")
    kept = dict(reuse or {})
    waiting = [case for case in cases if case.name not in kept and case.selected]
    measuring = Measuring(
        subject,
        settings,
        list(command or worker_command(settings.device, subject.suite)),
        dict(environment if environment is not None else worker_environment(None)),
        workshop or Workshop(),
    )
    progress = Progress(len(waiting) * len(subject.measured))
    writing = Writing(subject, journal, progress, lambda: measuring.figures)
    points = [point for case in cases for point in kept.get(case.name, ())]

    def write(case: SweepCase, message: Message) -> None:
        points.append(writing.point(case, message))

    try:
        for case in waiting:
            measuring.measure(case, partial(write, case))
    finally:
        if workshop is None:
            measuring.stop()
    return points


class Writing:
    """Writes the points of one run of one subject into the journal, and tells the progress.

    The run is begun with the first point; `figures` then says what its worker found. Where that is
    more later, as of ceilings measured before the first timing, another run is begun.
    """

    def __init__(
        self,
        subject: Subject,
        journal: Journal,
        progress: Progress,
        figures: Callable[[], Fingerprint],
    ) -> None:
        self._subject = subject
        self._journal = journal
        self._progress = progress
        self._figures = figures
        self._run = ""
        self._known: Fingerprint = {}

    def point(self, case: SweepCase, message: Message) -> Record:
        """Write down one point as a worker sends it."""
        record = self._journal.append_point(
            run=self._begun_run(),
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
            rewrite=message.get("rewrite"),
            dry=bool(message.get("dry")),
        )
        self._progress.step(_outcome(record))
        return record

    def _begun_run(self) -> str:
        """The run's id; says in the journal who measures, once."""
        subject = self._subject
        known = {**self._figures(), **subject.fingerprint, "suite": subject.suite}
        if not self._run or known != self._known:
            self._known = known
            self._run = self._journal.start_run(subject.commit, subject.machine, known)
        return self._run


def _outcome(record: Record) -> str:
    """A point in one line, such as `softmax rows1_cols1.fp16 kernl ok, 0.00213 ms`."""
    what = f"{record['op']} {record['case']} {record['variant']} {record['status']}"
    seconds = record["values"].get("time")
    return what + (f", {1e3 * seconds:.3g} ms" if seconds else "")
