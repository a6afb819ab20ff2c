"""Pairs of workers, each of two commits, that time the same cases in turns.

`benchmarks.measure.paired` is the command, and says what is measured and written.
"""

from __future__ import annotations

import math
import random
import secrets
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.measure.measuring import (
    SUITE,
    Settings,
    SweepCase,
)
from benchmarks.measure.partner import Partner
from benchmarks.measure.process import Launch, Message, WorkerFault
from benchmarks.measure.progress import Progress
from benchmarks.measure.room import Memory, Room
from benchmarks.measure.turns import Turns

IMPLEMENTATIONS = ("eager", "kernl")
"""What is compared, and what did not change, which tells how the machine drifts."""
BASE, HEAD = "base", "head"
_NO_POINT = {"status": "failed", "reason": "the worker sent no point"}
_ORDERS = ((BASE, HEAD, HEAD, BASE), (HEAD, BASE, BASE, HEAD))
_WORTH_A_START = 4
"""So many cases of an operator are measured while two more workers start."""


@dataclass(frozen=True)
class Plan:
    """How often what is measured.

    Attributes:
        sessions: so often each case is measured, by new processes each time.
        quads: of four blocks each, in a session.
        rounds: of a block; in each round every implementation is timed once.
        pairs: of processes, at the same time, at most.
        control: the part of the cases that is also measured base beside base.
        until: by `time.monotonic`: no case is begun later.
    """

    sessions: int = 3
    quads: int = 2
    rounds: int = 6
    pairs: int = 5
    control: float = 0.05
    until: float = math.inf


@dataclass(frozen=True)
class Asked:
    """One case, and of which version of its op: an operator, or a model of the suite `models`."""

    op: str
    version: int
    case: SweepCase
    suite: str = SUITE


Write = Callable[[Message], None]


class NoWorker(Exception):
    """No worker of one of the commits starts; the reason is in words."""


def measure_pairs(
    asked: Sequence[Asked],
    base: Launch,
    head: Launch,
    plan: Plan,
    write: Write,
    *,
    settings: Settings | None = None,
    memory: Memory = lambda: None,
    seed: int = 0,
) -> None:
    """A record of each case of each session, controls among them, as soon as it is there.

    `base` and `head` start a worker of each commit; `seed` draws the controls and who begins.
    Raises what `write` raises, once all ended, and WorkerRefusal or NoWorker where no worker can
    measure here.
    """
    settings = settings or Settings()
    chance = random.Random(seed)
    controls = max(1, round(plan.control * len(asked))) if plan.control and asked else 0
    progress = Progress(plan.sessions * (len(asked) + controls))
    lock = threading.Lock()

    def done(record: Message) -> None:
        with lock:
            write(record)
            what = "control " if record["control"] else ""
            progress.step(f"{what}{record['op']} {record['case']} {record['status']}")

    queue = deque((session, one) for session in range(plan.sessions) for one in asked)
    beside_itself = chance.sample(list(asked), controls)
    drawn = deque((session, one) for session in range(plan.sessions) for one in beside_itself)
    shared = _Run(plan, settings, Room(memory), Turns(), done)
    different, same = {BASE: base, HEAD: head}, {BASE: base, HEAD: base}
    worth = _WORTH_A_START if all(one.suite == SUITE for one in asked) else 1
    several = min(plan.pairs, math.ceil(len(asked) / worth))
    pairs = [
        *(_Pair(shared, queue, different, control=False) for _ in range(several)),
        *(_Pair(shared, drawn, same, control=True) for _ in range(min(1, controls))),
    ]
    for pair in pairs:
        pair.start()
    for pair in pairs:
        pair.join()
    for pair in pairs:
        if pair.error is not None:
            raise pair.error


class _SideFault(WorkerFault):
    """A worker's fault, and which of the two it was."""

    def __init__(self, side: str, fault: WorkerFault) -> None:
        super().__init__(f"{side}: {fault}", fault.implementation, fault.before_the_case)
        self.side = side


@contextmanager
def _told_of(side: str) -> Iterator[None]:
    """A worker's fault says which of the two it was."""
    try:
        yield
    except WorkerFault as fault:
        raise _SideFault(side, fault) from fault


@dataclass(frozen=True)
class _Run:
    """What all pairs share."""

    plan: Plan
    settings: Settings
    room: Room
    turns: Turns
    done: Write


class _Pair(threading.Thread):
    """Two workers, which measure one case of a queue after another, new ones in each session.

    Attributes:
        error: what ended it early.
    """

    def __init__(
        self,
        run: _Run,
        queue: deque[tuple[int, Asked]],
        sides: Mapping[str, Launch],
        *,
        control: bool,
    ) -> None:
        super().__init__(daemon=True)
        self.error: BaseException | None = None
        self._run, self._queue, self._sides = run, queue, sides
        self._session = 0
        self._control = control
        self._unstarted = Counter[str]()
        self._turns = {name: run.turns.turn() for name in (BASE, HEAD)}
        self._turns[BASE].partner = self._turns[HEAD]
        self._turns[HEAD].partner = self._turns[BASE]
        self._workers: dict[str, Partner] = {}
        # For as long as the pair: a worker dies with the thread that started it.
        self._hands = ThreadPoolExecutor(2)

    def run(self) -> None:
        """Measure until the queue is empty."""
        try:
            while time.monotonic() < self._run.plan.until:
                try:
                    session, asked = self._queue.popleft()
                except IndexError:
                    break
                if session != self._session:
                    self._stop()
                    self._session = session
                need = 2 * self._run.settings.need(asked.case)
                long = asked.suite != SUITE
                with self._run.room.place(need, long=long, unless=lambda: False):
                    self._run.done({**self._named(asked), **self._measured(asked)})
        except BaseException as error:
            self.error = error
            self._queue.clear()
        finally:
            self._stop()
            self._hands.shutdown()
            for turn in self._turns.values():
                turn.drop()

    def _named(self, asked: Asked) -> Message:
        what = {"kind": "pair", "session": self._session, "control": self._control}
        case = {"op": asked.op, "version": asked.version, "case": asked.case.name}
        return {**what, "suite": asked.suite, **case}

    def _measured(self, asked: Asked) -> Message:
        """Status of the case and of each side, reason, each side's telemetry, and blocks."""
        blocks: list[Message] = []
        try:
            self._start()
            prepared = self._both(
                lambda one: one.prepare(self._task(asked), self._limit),
                # A model times what it may compute by while it is built: no partner beside it.
                at_once=asked.suite == SUITE,
            )
            if all("kernl" in names for names in prepared.values()):
                blocks = self._blocks(asked)
            points = self._both(lambda one: one.finish(self._limit))
        except _SideFault as fault:
            self._stop()
            sides = {name: "failed" if name == fault.side else "unknown" for name in self._sides}
            return {"status": "failed", "sides": sides, "reason": str(fault), "blocks": []}
        self._replace_worn()
        why = {
            name: next((point for point in told if point["variant"] == "kernl"), _NO_POINT)
            for name, told in points.items()
        }
        sides = {name: point["status"] for name, point in why.items()}
        wrong = {name: point for name, point in why.items() if point["status"] != "ok"}
        if wrong:
            seen = {point["status"] for point in wrong.values()}
            status = "skipped" if seen == {"skipped"} else "failed"
            reason = "; ".join(f"{name}: {point['reason']}" for name, point in wrong.items())
            return {"status": status, "sides": sides, "reason": reason, "blocks": []}
        telemetry: Message = {name: point.get("telemetry", {}) for name, point in why.items()}
        told = {"status": "ok", "sides": sides, "reason": "", "telemetry": telemetry}
        return {**told, "blocks": blocks}

    def _blocks(self, asked: Asked) -> list[Message]:
        """All blocks of a case, while this pair has the device."""
        plan = self._run.plan
        seed = zlib.crc32(f"{asked.op} {asked.case.name} {self._session}".encode())
        chance = random.Random(seed)
        order = [side for _ in range(plan.quads) for side in chance.choice(_ORDERS)]
        turn = self._turns[BASE]
        turn.take("blocks")
        turn.rested()
        try:
            blocks: list[Message] = []
            for number, side in enumerate(order):
                with _told_of(side):
                    taken = self._workers[side].block(
                        plan.rounds, seed + number, calm=number == 0, timeout_s=self._limit
                    )
                blocks.append({"side": side, "taken": taken})
            return blocks
        finally:
            turn.give_back()

    @property
    def _limit(self) -> float:
        return self._run.settings.case_timeout_s

    def _start(self) -> None:
        """Start whoever does not run."""
        missing = [name for name in self._sides if name not in self._workers]
        self._at_once({name: partial(self._start_one, name) for name in missing})

    def _start_one(self, name: str) -> None:
        """Raises WorkerFault, or NoWorker where it has been in vain too often."""
        settings = self._run.settings
        try:
            self._workers[name] = Partner(
                self._sides[name], settings.start_timeout_s, self._turns[name]
            )
            self._unstarted[name] = 0
        except WorkerFault as fault:
            self._unstarted[name] += 1
            if self._unstarted[name] >= settings.start_attempts:
                raise NoWorker(f"the worker of {name} does not start: {fault}") from fault
            raise

    def _both(self, call: Callable[[Partner], Any], *, at_once: bool = True) -> dict[str, Any]:
        """What both answer, asked at the same time or one after the other.

        Raises what either raises, once both ended that were asked.
        """
        calls = {name: partial(call, self._workers[name]) for name in self._sides}
        if at_once:
            return self._at_once(calls)
        return {
            name: answer
            for one, asked in calls.items()
            for name, answer in self._at_once({one: asked}).items()
        }

    def _at_once(self, calls: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        asked = {name: self._hands.submit(call) for name, call in calls.items()}
        wait(asked.values())
        answers: dict[str, Any] = {}
        for name, future in asked.items():
            with _told_of(name):
                answers[name] = future.result()
        return answers

    def _replace_worn(self) -> None:
        for name, worker in list(self._workers.items()):
            if worker.worn:
                self._workers.pop(name).stop()

    def _stop(self) -> None:
        for name in list(self._workers):
            with suppress(Exception):  # it may be gone already
                self._workers.pop(name).stop()

    def _task(self, asked: Asked) -> Message:
        return {
            "op": asked.op,
            "case": asked.case.name,
            "dims": dict(asked.case.dims),
            "dtype": asked.case.dtype,
            "version": asked.version,
            "implementations": list(IMPLEMENTATIONS),
            "samples": self._run.plan.rounds,
            "budget_s": 0.0,
            "seed": secrets.randbelow(1 << 31),
            "beside_others": True,
        }
