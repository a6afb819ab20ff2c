"""Measure by many GPUs: the cases of a run as Dask tasks, their points in one journal.

The environment variable KERNL_FLEET names a Dask scheduler, such as `tcp://host:8786`. Each of its
workers has one GPU and measures one case at a time (`fleet_worker`), all implementations of it side
by side, as a sweep on one machine does. Dask hands the cases out, and gives the case of a worker
that is lost to another. The process that calls `measure` alone writes the journal, where asv's
processes find the points.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.measure.fleet_members import Roster, admit, connected, distributed, lost
from benchmarks.measure.fleet_work import Identity, Outcome, Refused, Work, sources
from benchmarks.measure.journal import Journal
from benchmarks.measure.measuring import Lot, Settings, Subject, SweepCase, failed
from benchmarks.measure.progress import Progress, say
from benchmarks.measure.sweep import Writing

PATIENCE_S = 120.0
"""How long there may be no worker at all, or no answer from the scheduler."""
_POLL_S = 0.1


@dataclass(frozen=True, eq=False)
class _Task:
    subject: Subject
    case: SweepCase

    @property
    def name(self) -> str:
        return f"{self.subject.op} {self.case.name}"


def scheduler_address() -> str:
    """The Dask scheduler that the environment names; "" where this machine measures by itself."""
    return os.environ.get("KERNL_FLEET", "").strip()


def measure(
    scheduler: str,
    lots: Sequence[Lot],
    journal: Journal,
    *,
    settings: Settings,
    commit: str = "",
    code: Path | None = None,
    command: Sequence[str] = (),
    patience_s: float = PATIENCE_S,
) -> None:
    """Write a point for every case and implementation of the lots into the journal.

    The subjects of all lots are of one machine. `commit` names whose kernl is measured, which lies
    in `code` here; without them it is the checkout's, here and there. `command` replaces the
    measuring process's command line. Raises FleetError; what is in the journal by then stays.
    """
    subject = lots[0].subject
    expected = Identity(subject.machine, subject.fingerprint, sources(code))
    work = Work(secrets.token_hex(8), commit, settings, expected, tuple(command))
    with connected(scheduler, patience_s) as client:
        admit(client, commit, expected, patience_s)
        try:
            _Run(client, scheduler, work, lots, journal, patience_s).measure()
        finally:
            _release(client, work)


class _Run:
    """The state of one run of a fleet: its client, its workers, what it has written."""

    def __init__(
        self,
        client: Any,
        scheduler: str,
        work: Work,
        lots: Sequence[Lot],
        journal: Journal,
        patience_s: float,
    ) -> None:
        self._client = client
        self._scheduler = scheduler
        self._work = work
        self._tasks = [_Task(lot.subject, case) for lot in lots for case in lot.cases]
        self._journal = journal
        self._roster = Roster(client, patience_s)
        self._progress = Progress(sum(len(task.subject.measured) for task in self._tasks))
        self._writing: dict[tuple[str, str], Writing] = {}
        self._submitted = 0
        self._done = 0

    def measure(self) -> None:
        """All cases; those with which workers died again at the end, each by itself.

        Dask blames a worker's end on all the cases it was given. Alone, there is one to blame.
        """
        suspects = self._gather(self._tasks)
        for task in suspects:
            say(f"    {task.name}: workers died with it; measured again, by itself")
            for guilty, deaths in self._gather([task]).items():
                self._give_up(guilty, deaths)

    def _gather(self, tasks: Sequence[_Task]) -> dict[_Task, int]:
        """Write what comes, as it comes; returns cases that came to nothing, and workers lost."""
        killed: dict[_Task, int] = {}
        waiting = {self._submit(task): task for task in tasks}
        completed = distributed().as_completed(
            list(waiting), loop=self._client.loop, with_results=True, raise_errors=False
        )
        while waiting:
            for future, result in completed.next_batch(block=False):
                task = waiting.pop(future)
                future.release()
                if isinstance(result, Outcome):
                    self._write(task, result)
                elif deaths := self._deaths(result):
                    killed[task] = deaths
                else:
                    again = self._submit(task)
                    waiting[again] = task
                    completed.add(again)
            self._roster.look(f"{self._done} of {len(self._tasks)} cases are measured")
            time.sleep(_POLL_S)
        return killed

    def _submit(self, task: _Task) -> Any:
        from benchmarks.measure.fleet_worker import measure_case

        self._submitted += 1
        # Keys of one group: Dask then keeps what waits to itself until a worker is free.
        key = (f"kernl-{self._work.token}", self._submitted)
        return self._client.submit(measure_case, self._work, task.subject, task.case, key=key)

    def _deaths(self, result: Any) -> int:
        """How many workers in a row ended with a case until Dask gave it up.

        0 where its worker measures nothing and is sent away, and the case is another's. Raises
        NoScheduler where Dask dropped the case.
        """
        from distributed.scheduler import KilledWorker

        if not isinstance(result, tuple):
            raise lost(self._scheduler)
        error = result[1]
        if isinstance(error, KilledWorker):
            return int(error.allowed_failures) + 1
        if not isinstance(error, Refused):
            raise error
        self._roster.dismiss(error.address, error.reason)
        return 0

    def _write(self, task: _Task, outcome: Outcome) -> None:
        key = (task.subject.op, outcome.address)
        if key not in self._writing:
            subject = replace(task.subject, fingerprint=outcome.fingerprint)
            self._writing[key] = Writing(subject, self._journal, self._progress, dict)
        for message in outcome.messages:
            self._writing[key].point(task.case, message)
        self._done += 1

    def _give_up(self, task: _Task, deaths: int) -> None:
        """Write down that the case costs its workers their lives."""
        reason = (
            f"left out: {deaths} Dask workers in a row ended while they measured this case by "
            "itself; their logs may say why"
        )
        writing = Writing(task.subject, self._journal, self._progress, dict)
        for name in task.subject.measured:
            writing.point(task.case, failed(name, reason))
        self._done += 1


def _release(client: Any, work: Work) -> None:
    """End the measuring processes that the workers keep warm for this run."""
    from benchmarks.measure.fleet_worker import release

    # A scheduler or a worker that is gone by now has ended them by itself. A case that still runs,
    # where the run was interrupted, is not waited for here.
    with suppress(Exception):
        client.run(release, work.token, wait=False, on_error="ignore")
