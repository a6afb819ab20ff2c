"""Keeps calls of modules and tracing apart.

While PyTorch traces, the calls and attributes of every module in the process go through the
tracer, those of other threads too. So a trace waits until no call of an optimised model runs, and
such calls wait until it is over. Replays of CUDA graphs touch no module and need not wait.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 5.0
"""Seconds that a trace waits for calls of other threads before it lets the matter rest."""


class Traffic:
    """Many callers, or one who traces. A thread that traces may call, one that calls may trace."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._callers: dict[int, int] = {}
        self._tracer: int | None = None
        self._waiting = 0
        self._depth = 0

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Around a call of a module."""
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._may_call(me))
            self._callers[me] = self._callers.get(me, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._callers[me] -= 1
                if not self._callers[me]:
                    del self._callers[me]
                self._changed.notify_all()

    @contextmanager
    def tracing(self, patience: float | None = None) -> Iterator[bool]:
        """Around a trace; gives False, and nothing may be traced, where others do not stop calling.

        Args:
            patience: how many seconds to wait for them; None waits for good.
        """
        me = threading.get_ident()
        with self._changed:
            self._waiting += 1
            free = self._wait(me, patience)
            self._waiting -= 1
            self._changed.notify_all()
            if free:
                self._tracer = me
                self._depth += 1
        try:
            yield free
        finally:
            if free:
                with self._changed:
                    self._depth -= 1
                    if not self._depth:
                        self._tracer = None
                    self._changed.notify_all()

    def traced_elsewhere(self) -> bool:
        """Whether another thread traces: PyTorch then says in every thread that it does."""
        return self._tracer not in (None, threading.get_ident())

    def _may_call(self, me: int) -> bool:
        """A thread that calls or traces already may; others let a trace that waits go first."""
        if me in self._callers or self._tracer == me:
            return True
        return self._tracer is None and not self._waiting

    def _wait(self, me: int, patience: float | None) -> bool:
        """Another trace ends by itself; calls have so many seconds to end."""
        left = float("inf") if patience is None else patience
        while True:
            if self._tracer not in (None, me):
                self._changed.wait()
            elif not set(self._callers) - {me}:
                return True
            elif left <= 0:
                return False
            else:
                start = time.monotonic()
                self._changed.wait(None if patience is None else left)
                left -= time.monotonic() - start


TRAFFIC = Traffic()
"""One for the process, as PyTorch's tracing is."""
