"""Many cases, one device, several workers: all but the timing is done by many at once.

`turns` says who may use the device when. Operators' cases are compiled first, by all workers. Then
each measures whole cases, as that of a sweep does, and whatever a case does to its worker costs
that case alone. A case for which there was no memory beside the others is measured once more when
they are gone.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.measure.device import Fingerprint
from benchmarks.measure.journal import Journal
from benchmarks.measure.measuring import (
    SUITE,
    Lot,
    Measuring,
    Settings,
    SweepCase,
    Workshop,
    worker_command,
)
from benchmarks.measure.process import Message
from benchmarks.measure.progress import Progress, say
from benchmarks.measure.sweep import Writing
from benchmarks.measure.turns import Turns

_CORES_LEFT = 2
_NO_MEMORY = "out of memory"


def workers_for(cases: int, settings: Settings) -> int:
    """How many workers so many cases are worth: a core for each, and cases to pay for its start."""
    cores = (os.cpu_count() or 1) - _CORES_LEFT
    return max(1, min(settings.workers, cores, cases // settings.cases_a_worker))


def measure_lots(
    lots: Sequence[Lot],
    journal: Journal,
    settings: Settings,
    environment: Mapping[str, str],
    *,
    command: Sequence[str] | None = None,
    workers: int | None = None,
) -> None:
    """Points of all cases of the lots, which are of one suite, into the journal.

    `command` replaces the workers' command line, `workers` their number.
    """
    count = workers or workers_for(sum(len(lot.cases) for lot in lots), settings)
    with tempfile.TemporaryDirectory() as directory:
        shared = {"KERNL_CEILINGS": str(Path(directory) / "ceilings.json")}
        if any(lot.subject.suite != SUITE for lot in lots):
            # Of a model many kernels are compiled at once, and each worker would take all cores.
            threads = max(1, (os.cpu_count() or 1) // count)
            shared["TORCHINDUCTOR_COMPILE_THREADS"] = str(threads)
        pool = _Pool(lots, journal, settings, {**shared, **environment}, command)
        pool.run(pool.jobs, count)
        if pool.again:
            say(f"{len(pool.again)} cases found no memory beside others: once more, alone")
            pool.run(pool.again, 1)


class _Pool:
    """Workers, each with a thread that brings it one case after another."""

    def __init__(
        self,
        lots: Sequence[Lot],
        journal: Journal,
        settings: Settings,
        environment: Mapping[str, str],
        command: Sequence[str] | None,
    ) -> None:
        # Small lots first: they need weights and code of their own, and the cases of a large one,
        # which are alike, keep all workers busy up to the end.
        order = sorted(range(len(lots)), key=lambda number: len(lots[number].cases))
        self.jobs = deque((number, case) for number in order for case in lots[number].cases)
        self.again: deque[tuple[int, SweepCase]] = deque()
        self._uncompiled: deque[tuple[int, SweepCase]] = deque()
        self._lots = lots
        self._settings = settings
        self._environment = environment
        self._command = command
        self._figures: Fingerprint = {}
        progress = Progress(sum(len(lot.cases) * len(lot.subject.measured) for lot in lots))
        self._writing = [
            Writing(lot.subject, journal, progress, lambda: self._figures) for lot in lots
        ]
        self._lock = threading.Lock()
        self._running = 0
        self._error: BaseException | None = None

    def run(self, jobs: deque[tuple[int, SweepCase]], count: int) -> None:
        """Measure the jobs with so many workers. Raises what a thread raised, once all ended."""
        if count > 1 and all(lot.subject.suite == SUITE for lot in self._lots):
            self._uncompiled.extend(jobs)
        self._compiling = _Compiling(len(self._uncompiled))
        turns = Turns(count)
        shops = [Workshop(turns.turn()) for _ in range(count)]
        self._running = count
        threads = [
            threading.Thread(target=self._work, args=(jobs, shop, turns), daemon=True)
            for shop in shops
        ]
        begun = time.monotonic()
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            say(_split(time.monotonic() - begun, count, turns))
        if self._error is not None:
            raise self._error

    def _work(self, jobs: deque[tuple[int, SweepCase]], shop: Workshop, turns: Turns) -> None:
        company = self._running > 1
        lots = [self._measuring(lot, shop) for lot in self._lots]
        try:
            while self._error is None and (job := self._next(self._uncompiled)):
                lot, case = job
                lots[lot].compile(case)
                self._compiling.step()
            while self._error is None and (job := self._next(jobs)):
                lot, case = job
                messages: list[Message] = []
                lots[lot].measure(case, messages.append)
                with self._lock:
                    if lots[lot].given_up and self._running > 1:
                        jobs.appendleft(job)  # the others go on without this worker
                        return
                    if company and any(_found_no_memory(message) for message in messages):
                        self.again.append(job)
                        continue
                    self._figures = shop.figures
                    for message in messages:
                        self._writing[lot].point(case, message)
        except BaseException as error:
            self._error = error
        finally:
            shop.stop()
            turns.leave()
            with self._lock:
                self._running -= 1

    def _next(self, jobs: deque[tuple[int, SweepCase]]) -> tuple[int, SweepCase] | None:
        with self._lock:
            return jobs.popleft() if jobs else None

    def _measuring(self, lot: Lot, shop: Workshop) -> Measuring:
        subject = lot.subject
        command = self._command or worker_command(self._settings.device, subject.suite)
        return Measuring(subject, self._settings, command, self._environment, shop)


class _Compiling:
    """Says how far it is, ten times in all."""

    def __init__(self, cases: int) -> None:
        self._cases = cases
        self._done = 0
        self._begun = time.monotonic()
        self._lock = threading.Lock()

    def step(self) -> None:
        """Another case is compiled."""
        with self._lock:
            self._done += 1
            if 10 * self._done // self._cases > 10 * (self._done - 1) // self._cases:
                taken = time.monotonic() - self._begun
                say(f"compiled {self._done} of {self._cases} cases after {taken:.0f} s")


def _found_no_memory(message: Message) -> bool:
    return message["status"] == "failed" and _NO_MEMORY in str(message.get("reason")).lower()


def _split(seconds: float, workers: int, turns: Turns) -> str:
    """Where the wall clock went, in one line."""
    ordered = sorted(turns.alone_s.items(), key=lambda item: -item[1])
    parts = [f"{taken:.0f} s {what}" for what, taken in ordered if taken >= 0.5]
    together = seconds - sum(turns.alone_s.values())
    busy = 1.0 - turns.waited_s / (workers * max(together, 1e-9))
    parts.append(f"{together:.0f} s together, workers {max(busy, 0.0):.0%} busy")
    return f"{workers} workers, {seconds:.0f} s, {turns.phases} turns: {', '.join(parts)}"
