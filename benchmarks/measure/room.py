"""Memory of one device that several workers share: who begins a case waits until there is room.

A case of a model takes minutes, and where it finds no memory they were in vain; one of an operator
takes seconds. So cases of models share out most of the memory among themselves, and wait for no
operator. A case of an operator begins once enough is free, above what the others that have begun
may still ask for. Alone, a case begins whatever is free.

A case whose reference finds no memory goes on, on the CPU, for as long as that takes: too many at
once do not only fail, they are slow.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

Memory = Callable[[], tuple[int, int] | None]
"""Bytes of the device that are free, and all of them; None where they are not known."""

_PAUSE_S = 0.1
_LONG_SHARE = 0.8
"""Of all memory, what the needs of long cases may add up to."""
_KEPT_SHARE = 0.1
"""Of all memory, what stays free for long cases that have begun: they take it by and by."""
_NOT_YET_TAKEN = 0.5
"""Of the needs of short cases that have begun, what on average is still free."""


class Room:
    """Who has begun a case, and whether another one may.

    Attributes:
        waited_s: seconds for which cases waited, all added up.
    """

    def __init__(self, memory: Memory) -> None:
        self.waited_s = 0.0
        self._memory = memory
        self._changed = threading.Condition()
        self._long: list[int] = []
        self._short: list[int] = []

    @contextlib.contextmanager
    def place(self, need: int, *, long: bool, unless: Callable[[], bool]) -> Iterator[None]:
        """A case that takes about `need` bytes; waits until it may begin, or `unless` holds.

        `long`: it takes minutes, as a model's does.
        """
        begun = self._long if long else self._short
        asked = time.monotonic()
        with self._changed:
            while not (unless() or self._fits(need, long=long)):
                self._changed.wait(_PAUSE_S)
            begun.append(need)
            self.waited_s += time.monotonic() - asked
        try:
            yield
        finally:
            with self._changed:
                begun.remove(need)
                self._changed.notify_all()

    def _fits(self, need: int, *, long: bool) -> bool:
        found = self._memory() if self._long or self._short else None
        if found is None:
            return True
        free, whole = found
        if long:
            return need + sum(self._long) <= _LONG_SHARE * whole
        kept = _KEPT_SHARE * whole if self._long else 0
        return need + _NOT_YET_TAKEN * sum(self._short) + kept <= free
