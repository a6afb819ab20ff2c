"""Workers that share one device: they prepare together, and each times alone.

Most of a case's wall clock is Python's, and none of its GPU's: PyTorch traces, compiles, checks.
Several workers do that at once. But nothing may be timed while another process uses the device. So
who times has it alone: the other workers' processes are stopped meanwhile, wherever they are, and
go on afterwards (SIGSTOP, SIGCONT). Whoever asks while another has the device waits; the first to
ask is the first to have it.

A worker that says it is aside uses no device, as while it compiles: it goes on meanwhile, unless
who times needs a quiet host too. Before it uses the device again it says so, and waits until nobody
has the device alone.

Source: signal(7), "Signal dispositions"; setpgid(2).
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable

RESTING = "until the device rests"
"""What a turn begins with: what the others had given the device is still being done."""

Signal = Callable[[int], object]
"""Sends a signal to all processes of a worker."""


class Turns:
    """Who has one device alone, and who waits for it.

    Attributes:
        alone_s: by what it was for, the seconds in which one worker had the device.
        taken: how often one had it.
    """

    def __init__(self) -> None:
        self.alone_s: dict[str, float] = defaultdict(float)
        self.taken = 0
        self._changed = threading.Condition()
        self._turns: list[Turn] = []
        self._asked: deque[Turn] = deque()

    def turn(self, *, quiet: bool = False) -> Turn:
        """The place of another worker. `quiet`: while it has the device, nobody else computes."""
        turn = Turn(self, quiet=quiet)
        with self._changed:
            self._turns.append(turn)
        return turn

    @property
    def held_s(self) -> float:
        """Seconds in which workers waited or were stopped, all added up."""
        with self._changed:
            return sum(turn.stopped_s + turn.waited_s for turn in self._turns)

    def _settle(self) -> None:
        """Stop who has to stand still, let the others go on. The condition is held."""
        first = self._asked[0] if self._asked else None
        for turn in self._turns:
            waits_for = first if turn is not first and turn.partner is not first else None
            stands = waits_for is not None and turn._in_the_way(quiet=waits_for._quietly)
            turn._hold(stands=stands)
        self._changed.notify_all()


class Turn:
    """One worker's place. Its methods are called by one thread.

    Attributes:
        quiet: nobody else computes while it has the device, ever.
        partner: who shares its turns: never stopped because of it.
        waited_s: seconds for which it waited, for the device or until nobody had it alone.
    """

    def __init__(self, turns: Turns, *, quiet: bool) -> None:
        self.quiet = quiet
        self.partner: Turn | None = None
        self.waited_s = 0.0
        self._quietly = quiet
        self._turns = turns
        self._signal: Signal | None = None
        self._aside = False
        self._waits = False
        self._stopped_at: float | None = None
        self._stopped_s = 0.0
        self._for = ""
        self._what: str | None = None
        self._since = 0.0

    @property
    def stopped_s(self) -> float:
        """Seconds for which its processes were stopped."""
        at = self._stopped_at
        return self._stopped_s + (time.monotonic() - at if at is not None else 0.0)

    def attach(self, send: Signal) -> None:
        """Its process has been started, and uses no device yet: it is aside."""
        with self._turns._changed:
            self._signal = send
            self._aside = True
            self._turns._settle()

    def aside(self) -> None:
        """It uses the device for nothing from now on."""
        with self._turns._changed:
            self._aside = True
            self._turns._settle()

    def back(self) -> None:
        """It is about to use the device beside others. Waits while anybody has it alone."""
        with self._turns._changed:
            self._wait(lambda: not self._turns._asked)
            self._aside = False

    def take(self, what: str, *, quiet: bool = False) -> None:
        """Wait until this worker has the device for itself; `what` it is for, in words.

        `quiet`: this time nobody else computes meanwhile.
        """
        turns = self._turns
        with turns._changed:
            self._quietly = self.quiet or quiet
            turns._asked.append(self)
            self._wait(lambda: turns._asked[0] is self)
            turns.taken += 1
        self._for, self._what = what, RESTING
        self._since = time.monotonic()

    def rested(self) -> None:
        """Nobody else's work is left on the device: what this worker has it for begins."""
        self.tell(self._for)

    def tell(self, what: str) -> None:
        """What this worker does from now on, in words: where it has the device, for that."""
        if self._what is not None:
            self._count()
            self._what = what

    def give_back(self) -> None:
        """It needs the device no longer for itself. Waits while anybody else does."""
        with self._turns._changed:
            self._end()
            self._wait(lambda: not self._turns._asked)

    def detach(self) -> None:
        """Its process is being ended: no signal reaches it any more."""
        with self._turns._changed:
            self._signal = None
            self._hold(stands=False)

    def drop(self) -> None:
        """Its process has ended, whatever it had asked for."""
        with self._turns._changed:
            self.detach()
            self._end()
            self._turns._settle()

    def _end(self) -> None:
        if self._what is not None:
            self._count()
            self._what = None
            self._turns._asked.popleft()

    def _wait(self, until: Callable[[], bool]) -> None:
        """Stand still by itself: whoever waits for an answer need not be stopped."""
        begun = time.monotonic()
        self._waits = True
        self._turns._settle()
        self._turns._changed.wait_for(until)
        self._waits = False
        self.waited_s += time.monotonic() - begun

    def _in_the_way(self, *, quiet: bool) -> bool:
        return self._signal is not None and not self._waits and (quiet or not self._aside)

    def _hold(self, *, stands: bool) -> None:
        if stands == (self._stopped_at is not None):
            return
        if stands:
            self._stopped_at = time.monotonic()
        else:
            self._stopped_s = self.stopped_s
            self._stopped_at = None
        if self._signal is not None:
            with contextlib.suppress(OSError):  # it has just ended
                self._signal(signal.SIGSTOP if stands else signal.SIGCONT)

    def _count(self) -> None:
        now = time.monotonic()
        # Nobody else counts: there is one who has the device.
        self._turns.alone_s[self._what or ""] += now - self._since
        self._since = now
