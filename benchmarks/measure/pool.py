"""Many cases, one device, several workers: all but the timing is done by many at once.

`turns` says who may use the device when. Each worker measures whole cases, as that of a sweep does,
and whatever a case does to its worker costs that case alone. A case for which there was no memory
beside the others is measured once more when they are gone.

Operators and models have workers of their own, which share the device at the same time. A model's
latency is by wall clock: while one is timed, nobody else computes anything.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

Job = tuple[int, SweepCase]
"""The number of a lot in its batch, and one of its cases."""


@dataclass(frozen=True)
class Batch:
    """Lots of one suite, and how their cases are measured."""

    lots: Sequence[Lot]
    settings: Settings

    @property
    def suite(self) -> str:
        """Whose lots they are."""
        return self.lots[0].subject.suite

    @property
    def points(self) -> int:
        """How many there will be."""
        return sum(len(lot.cases) * len(lot.subject.measured) for lot in self.lots)


def workers_for(cases: int, settings: Settings) -> int:
    """How many workers so many cases are worth: a core for each, and cases to pay for its start."""
    cores = (os.cpu_count() or 1) - _CORES_LEFT
    return max(1, min(settings.workers, cores, cases // settings.cases_a_worker))


def measure_batches(
    batches: Sequence[Batch],
    journal: Journal,
    environment: Mapping[str, str],
    *,
    command: Sequence[str] | None = None,
    workers: int | None = None,
) -> None:
    """Points of all cases of the batches into the journal.

    `command` replaces the workers' command line, `workers` their number for each batch.
    """
    progress = Progress(sum(batch.points for batch in batches))
    with tempfile.TemporaryDirectory() as directory:
        shared = {"KERNL_CEILINGS": str(Path(directory) / "ceilings.json"), **environment}
        crews = [_Crew(batch, journal, progress, shared, command) for batch in batches]
        _work([(crew, crew.jobs, workers or crew.worth) for crew in crews])
        for crew in crews:
            if crew.again:
                say(f"{len(crew.again)} cases found no memory beside others: once more, alone")
                _work([(crew, crew.again, 1)])


def _work(orders: Sequence[tuple[_Crew, deque[Job], int]]) -> None:
    """Let each crew do its jobs by so many workers. Raises what a thread raised, once all ended."""
    shift = _Shift(sum(count for _, _, count in orders))
    threads = [
        thread for crew, jobs, count in orders for thread in crew.threads(jobs, count, shift)
    ]
    begun = time.monotonic()
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        counts = " + ".join(str(count) for _, _, count in orders)
        say(_split(time.monotonic() - begun, counts, shift))
    if shift.error is not None:
        raise shift.error


class _Shift:
    """Workers that share the device at the same time.

    Attributes:
        error: what one of their threads raised; the others then stop.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.turns = Turns()
        self.error: BaseException | None = None


class _Crew:
    """The workers of one batch, each with a thread that brings it one case after another."""

    def __init__(
        self,
        batch: Batch,
        journal: Journal,
        progress: Progress,
        environment: Mapping[str, str],
        command: Sequence[str] | None,
    ) -> None:
        # Small lots first: they need weights and code of their own, and the cases of a large one,
        # which are alike, keep all workers busy up to the end.
        lots = batch.lots
        order = sorted(range(len(lots)), key=lambda number: len(lots[number].cases))
        self.jobs: deque[Job] = deque(
            (number, case) for number in order for case in lots[number].cases
        )
        self.again: deque[Job] = deque()
        self.worth = workers_for(len(self.jobs), batch.settings)
        self._batch = batch
        self._environment = environment
        self._command = command
        self._figures: Fingerprint = {}
        self._writing = [
            Writing(lot.subject, journal, progress, lambda: self._figures) for lot in lots
        ]
        self._running = 0

    def threads(self, jobs: deque[Job], count: int, shift: _Shift) -> list[threading.Thread]:
        """Those of so many workers, not yet started."""
        self._running = count
        environment = dict(self._environment)
        models = self._batch.suite != SUITE
        if models:
            # Of a model many kernels are compiled at once, and each worker would take all cores.
            cores = max(1, (os.cpu_count() or 1) // count)
            environment.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(cores))
        shops = [Workshop(shift.turns.turn(quiet=models)) for _ in range(count)]
        return [
            threading.Thread(target=self._work, args=(jobs, environment, shop, shift), daemon=True)
            for shop in shops
        ]

    def _work(
        self, jobs: deque[Job], environment: Mapping[str, str], shop: Workshop, shift: _Shift
    ) -> None:
        lots = [self._measuring(lot, environment, shop) for lot in self._batch.lots]
        try:
            while shift.error is None and (job := self._next(jobs)):
                lot, case = job
                messages: list[Message] = []
                lots[lot].measure(case, messages.append)
                with _LOCK:
                    if lots[lot].given_up and self._running > 1:
                        jobs.appendleft(job)  # the others go on without this worker
                        return
                    if shift.workers > 1 and any(map(_found_no_memory, messages)):
                        self.again.append(job)
                        continue
                    self._figures = {**self._figures, **shop.figures}
                    for message in messages:
                        self._writing[lot].point(case, message)
        except BaseException as error:
            shift.error = error
        finally:
            shop.stop()
            with _LOCK:
                self._running -= 1

    def _next(self, jobs: deque[Job]) -> Job | None:
        with _LOCK:
            return jobs.popleft() if jobs else None

    def _measuring(self, lot: Lot, environment: Mapping[str, str], shop: Workshop) -> Measuring:
        settings = self._batch.settings
        command = self._command or worker_command(settings.device, lot.subject.suite)
        return Measuring(lot.subject, settings, command, environment, shop)


_LOCK = threading.Lock()
"""Held by who takes a job or writes points: all crews write into one journal."""


def _found_no_memory(message: Message) -> bool:
    return message["status"] == "failed" and _NO_MEMORY in str(message.get("reason")).lower()


def _split(seconds: float, workers: str, shift: _Shift) -> str:
    """Where the wall clock went, in one line."""
    turns = shift.turns
    ordered = sorted(turns.alone_s.items(), key=lambda item: -item[1])
    parts = [f"{taken:.0f} s {what}" for what, taken in ordered if taken >= 0.5]
    parts.append(f"{seconds - sum(turns.alone_s.values()):.0f} s nobody alone")
    held = turns.held_s / (shift.workers * max(seconds, 1e-9))
    return (
        f"{workers} workers, {seconds:.0f} s, {turns.taken} turns: {', '.join(parts)}; "
        f"held up {held:.0%} of their time"
    )
