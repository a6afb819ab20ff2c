"""Many cases, one device, several workers: all but the timing is done by many at once.

`turns` says who may use the device when. Each worker measures whole cases, as that of a sweep does,
and whatever a case does to its worker costs that case alone. A case begins once there is room for
it (`room`). One that found no memory all the same is measured once more at the end, then beside
fewer, then alone.

Operators, models, and the commits of a history have workers of their own, which share the device at
the same time. A model's latency is by wall clock: while one is timed, nobody else computes
anything.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from benchmarks.measure.device import Fingerprint, gpu
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
from benchmarks.measure.room import Memory, Room
from benchmarks.measure.sweep import Writing
from benchmarks.measure.telemetry import Telemetry
from benchmarks.measure.turns import Turns

_CORES_LEFT = 2
_FEWER = 3
"""Of so many workers one stays for the cases that found no memory beside all of them."""
_NO_MEMORY = re.compile(
    "out of memory|(CUBLAS|CUDNN)_STATUS_(ALLOC_FAILED|EXECUTION_FAILED|NOT_INITIALIZED)",
    re.IGNORECASE,
)
"""NVIDIA's libraries have other words for it: what they allocate themselves finds none either."""
_LESS_SURE = 4
"""A case that found no memory is given so many times as much the next time."""
_SAID_S = 120.0
"""So often a long run says where its time went so far."""

Job = tuple[int, SweepCase]
"""The number of a lot in its batch, and one of its cases."""


@dataclass(frozen=True)
class Batch:
    """Lots of one suite and one commit: how their cases are measured, and where points go.

    `environment` is that of its workers' processes.
    """

    lots: Sequence[Lot]
    settings: Settings
    journal: Journal
    environment: Mapping[str, str]

    @property
    def suite(self) -> str:
        """Whose lots they are."""
        return self.lots[0].subject.suite

    @property
    def points(self) -> int:
        """How many there will be."""
        return sum(len(lot.cases) * len(lot.subject.measured) for lot in self.lots)


def most_workers(settings: Settings) -> int:
    """How many workers may run at once: a core for each."""
    return max(1, min(settings.workers, (os.cpu_count() or 1) - _CORES_LEFT))


def workers_for(cases: int, settings: Settings) -> int:
    """How many workers so many cases are worth, which have to pay for their starts."""
    return max(1, min(most_workers(settings), cases // settings.cases_a_worker))


def measure_batches(
    batches: Sequence[Batch],
    *,
    command: Sequence[str] | None = None,
    workers: int | None = None,
    memory: Memory | None = None,
) -> None:
    """Points of all cases of the batches into their journals.

    `command` replaces the workers' command line, `workers` their number for each batch, `memory`
    what the device says of its own.
    """
    if memory is None:
        card = gpu()
        memory = Telemetry(card.uuid).memory if card else lambda: None
    progress = Progress(sum(batch.points for batch in batches))
    with tempfile.TemporaryDirectory() as directory:
        shared = {"KERNL_CEILINGS": str(Path(directory) / "ceilings.json")}
        crews = [_Crew(batch, progress, shared, command, workers) for batch in batches]
        _work(crews, memory)
        crowded = [crew for crew in crews if crew.again]
        if crowded:
            _once_more(crowded, memory, fewer=_FEWER)
        for crew in crowded:
            if crew.again:
                _once_more([crew], memory, fewer=crew.worth)


def _once_more(crews: Sequence[_Crew], memory: Memory, fewer: int) -> None:
    """What found no memory, by one in so many of each suite's workers."""
    most = {suite: max(1, _count(group) // fewer) for suite, group in _by_suite(crews).items()}
    for crew in crews:
        crew.jobs, crew.again, crew.worth = crew.again, deque(), max(1, crew.worth // fewer)
    left = sum(min(most[suite], _count(group)) for suite, group in _by_suite(crews).items())
    beside = "alone" if left == 1 else f"by {left} workers"
    count = sum(len(crew.jobs) for crew in crews)
    say(f"{count} cases found no memory beside others: once more, {beside}")
    _work(crews, memory, most)


def _work(crews: Sequence[_Crew], memory: Memory, most: Mapping[str, int] | None = None) -> None:
    """Let all crews do their jobs, by no more workers of a suite than `most` says.

    Raises what a thread raised, once all ended.
    """
    suites = _by_suite(crews)
    counts = [
        min(_count(group), (most or {}).get(suite, _count(group)))
        for suite, group in suites.items()
    ]
    shift = _Shift(sum(counts), Room(memory))
    threads = [
        threading.Thread(target=_serve, args=(group, count, shift), daemon=True)
        for group, count in zip(suites.values(), counts, strict=True)
        for _ in range(count)
    ]
    begun = time.monotonic()

    def tell() -> None:
        said = " + ".join(str(count) for count in counts)
        say(_split(time.monotonic() - begun, said, shift))

    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(_SAID_S - (time.monotonic() - begun) % _SAID_S)
                if thread.is_alive():
                    tell()
    finally:
        tell()
    if shift.error is not None:
        raise shift.error


def _by_suite(crews: Sequence[_Crew]) -> dict[str, list[_Crew]]:
    suites: dict[str, list[_Crew]] = {}
    for crew in crews:
        suites.setdefault(crew.batch.suite, []).append(crew)
    return suites


def _count(group: Sequence[_Crew]) -> int:
    """Workers of one suite: what all crews are worth, and no more than may run, or one wants."""
    worth = [crew.worth for crew in group]
    return min(sum(worth), max(most_workers(group[0].batch.settings), *worth))


def _serve(group: Sequence[_Crew], count: int, shift: _Shift) -> None:
    """One worker's place: it works for one crew after another, as long as any needs it."""
    turn = shift.turns.turn(quiet=group[0].batch.suite != SUITE)
    try:
        while shift.error is None and (crew := _joined(group)):
            shop = Workshop(turn, beside_others=shift.workers > 1)
            crew.work(shop, count, shift)
    except BaseException as error:
        shift.error = error
    finally:
        turn.drop()


def _joined(group: Sequence[_Crew]) -> _Crew | None:
    with _LOCK:
        found = next((crew for crew in group if crew.jobs and crew.staff < crew.worth), None)
        if found is not None:
            found.staff += 1
        return found


class _Shift:
    """Workers that share the device at the same time.

    Attributes:
        room: where who begins a case waits until there is memory for it.
        error: what one of their threads raised; the others then stop.
    """

    def __init__(self, workers: int, room: Room) -> None:
        self.workers = workers
        self.room = room
        self.turns = Turns()
        self.error: BaseException | None = None


class _Crew:
    """The jobs of one batch, and who works at them.

    Attributes:
        jobs: what waits.
        again: what found no memory beside others.
        worth: so many workers it is worth.
        staff: so many work for it now.
    """

    def __init__(
        self,
        batch: Batch,
        progress: Progress,
        shared: Mapping[str, str],
        command: Sequence[str] | None,
        workers: int | None,
    ) -> None:
        # Small lots first: they need weights and code of their own, and the cases of a large one,
        # which are alike, keep all workers busy up to the end.
        lots = batch.lots
        order = sorted(range(len(lots)), key=lambda number: len(lots[number].cases))
        self.batch = batch
        self.jobs: deque[Job] = deque(
            (number, case) for number in order for case in _spread(lots[number].cases)
        )
        self.again: deque[Job] = deque()
        self.worth = workers or workers_for(len(self.jobs), batch.settings)
        self.staff = 0
        self._crowded: set[tuple[int, str]] = set()
        self._environment = {**shared, **batch.environment}
        self._command = command
        self._figures: Fingerprint = {}
        self._writing = [
            Writing(lot.subject, batch.journal, progress, lambda: self._figures) for lot in lots
        ]

    def work(self, shop: Workshop, count: int, shift: _Shift) -> None:
        """Measure case after case; `count` workers are of the same suite."""
        lots = [self._measuring(lot, shop, count) for lot in self.batch.lots]
        try:
            while shift.error is None and (job := self._next()):
                lot, case = job
                messages: list[Message] = []
                with shift.room.place(
                    self._need(job),
                    long=self.batch.suite != SUITE,
                    unless=lambda: shift.error is not None,
                ):
                    lots[lot].measure(case, messages.append)
                failing = [message for message in messages if _found_no_memory(message)]
                if failing and shift.workers > 1:
                    shop.stop()  # whatever it kept of the memory is given back
                with _LOCK:
                    if lots[lot].given_up and self.staff > 1:
                        self.jobs.appendleft(job)  # the others go on without this worker
                        self.worth = self.staff - 1
                        return
                    if failing and shift.workers > 1:
                        lots[lot].excuse()
                        self._set_aside(job, str(failing[0]["reason"]))
                        continue
                    self._figures = {**self._figures, **shop.figures}
                    for message in messages:
                        self._writing[lot].point(case, message)
        finally:
            shop.stop()
            with _LOCK:
                self.staff -= 1

    def _next(self) -> Job | None:
        with _LOCK:
            return self.jobs.popleft() if self.jobs else None

    def _need(self, job: Job) -> int:
        """Bytes of the device's memory that it is given."""
        number, case = job
        need = self.batch.settings.need(case)
        return need * (_LESS_SURE if (number, case.name) in self._crowded else 1)

    def _set_aside(self, job: Job, reason: str) -> None:
        """At the end of the queue others may have given memory back; the lock is held."""
        number, case = job
        op = self.batch.lots[number].subject.op
        say(f"    {op} {case.name} waits for more room: {reason[:200]}")
        if (number, case.name) in self._crowded:
            self.again.append(job)
        else:
            self._crowded.add((number, case.name))
            self.jobs.append(job)

    def _measuring(self, lot: Lot, shop: Workshop, count: int) -> Measuring:
        settings = self.batch.settings
        command = self._command or worker_command(settings.device, lot.subject.suite)
        environment = dict(self._environment)
        if self.batch.suite != SUITE:
            # Of a model many kernels are compiled at once, and each worker would take all cores.
            cores = max(1, (os.cpu_count() or 1) // count)
            environment.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(cores))
        return Measuring(lot.subject, settings, command, environment, shop)


_LOCK = threading.Lock()
"""Held by who takes a job or writes points: crews of one commit write into one journal."""


def _spread(cases: Sequence[SweepCase]) -> list[SweepCase]:
    """First, last, second, last but one, …: cases stand by size, and the largest need memory."""
    middle = (len(cases) + 1) // 2
    pairs = zip_longest(cases[:middle], reversed(cases[middle:]))
    return [case for pair in pairs for case in pair if case is not None]


def _found_no_memory(message: Message) -> bool:
    """Also where it went on without: kernl leaves a call to PyTorch, or its graph unrewritten."""
    return _NO_MEMORY.search(str(message.get("reason"))) is not None


def _split(seconds: float, workers: str, shift: _Shift) -> str:
    """Where the wall clock went, in one line."""
    turns = shift.turns
    alone_s = dict(turns.alone_s)  # it may grow meanwhile
    ordered = sorted(alone_s.items(), key=lambda item: -item[1])
    parts = [f"{taken:.0f} s {what}" for what, taken in ordered if taken >= 0.5]
    parts.append(f"{seconds - sum(alone_s.values()):.0f} s nobody alone")
    whole = shift.workers * max(seconds, 1e-9)
    waited = shift.room.waited_s / whole
    return (
        f"{workers} workers, {seconds:.0f} s, {turns.taken} turns: {', '.join(parts)}; "
        f"held up {turns.held_s / whole:.0%} of their time"
        + (f", without memory {waited:.0%}" if waited >= 0.005 else "")
    )
