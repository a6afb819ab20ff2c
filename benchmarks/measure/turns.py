"""Workers that share one device: they prepare together, and each times alone.

Most of a case's wall clock is Python's, and none of its GPU's: PyTorch traces, compiles, checks.
Several workers do that at once. But nothing may be timed while another process uses the device. So
there are two phases. Together, all work until each of them asks for the device or has nothing left
to do. Then those that asked have it one after another, in the order of their asking; whoever had it
waits until all had. Then they go on together.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque


class Turns:
    """The phases of one device.

    Attributes:
        alone_s: by what it was for, the seconds in which one worker had the device.
        phases: how often all had been waiting, so that turns began.
        waited_s: seconds that workers, all added up, waited for the last one to ask.
    """

    def __init__(self, workers: int) -> None:
        self.alone_s: dict[str, float] = defaultdict(float)
        self.phases = 0
        self.waited_s = 0.0
        self._changed = threading.Condition()
        self._workers = workers
        self._asked: deque[Turn] = deque()
        self._asked_at: dict[Turn, float] = {}
        self._served: set[Turn] = set()
        self._serving = False

    def turn(self) -> Turn:
        """The place of one of the workers."""
        return Turn(self)

    def leave(self) -> None:
        """One of the workers has nothing left to do."""
        with self._changed:
            self._workers -= 1
            self._look()

    def _look(self) -> None:
        """Begin or end the phase of turns where it is time to. The condition is held."""
        if not self._serving and self._asked and len(self._asked) >= self._workers:
            self._serving = True
            self.phases += 1
            self.waited_s += sum(time.monotonic() - at for at in self._asked_at.values())
            self._asked_at.clear()
        if self._serving and not self._asked:
            self._serving = False
            self._served.clear()
        self._changed.notify_all()

    def _take(self, turn: Turn) -> None:
        with self._changed:
            self._asked.append(turn)
            if not self._serving:
                self._asked_at[turn] = time.monotonic()
            self._look()
            self._changed.wait_for(lambda: self._serving and self._asked[0] is turn)

    def _give_back(self, turn: Turn, *, wait: bool) -> None:
        with self._changed:
            self._asked.popleft()
            self._served.add(turn)
            self._look()
            if wait:
                self._changed.wait_for(lambda: turn not in self._served)
            self._served.discard(turn)


class Turn:
    """One worker's place. Its methods are called by one thread."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._what: str | None = None
        self._since = 0.0

    def take(self, what: str) -> None:
        """Wait until this worker has the device for itself; `what` it is for, in words."""
        self._turns._take(self)
        self._what = what
        self._since = time.monotonic()

    def tell(self, what: str) -> None:
        """What this worker does from now on, in words: where it has the device, for that."""
        if self._what is not None:
            self._count()
            self._what = what

    def give_back(self) -> None:
        """It needs the device no longer for itself. Waits until it may use it beside others."""
        self._end(wait=True)

    def drop(self) -> None:
        """It has ended, whatever it had asked for."""
        self._end(wait=False)

    def _end(self, *, wait: bool) -> None:
        if self._what is not None:
            self._count()
            self._what = None
            self._turns._give_back(self, wait=wait)

    def _count(self) -> None:
        now = time.monotonic()
        # Nobody else counts: there is one who has the device.
        self._turns.alone_s[self._what or ""] += now - self._since
        self._since = now
