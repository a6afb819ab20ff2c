"""Keeps a bounded number of things by key; what was not used for longest goes first."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Shelf(Generic[Thing]):
    """At most `most` things. Safe to use from several threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._things: OrderedDict[Hashable, Thing] = OrderedDict()
        self._last: tuple[Hashable, Thing] | None = None
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Thing | None:
        """What is kept under this key, now the one used last; None where nothing is."""
        last = self._last  # read once, as other threads change it
        if last is not None and last[0] == key:
            return last[1]  # it is at the end already: no lock, no hash
        with self._lock:
            found = self._things.get(key)
            if found is not None:
                self._things.move_to_end(key)
                self._last = key, found
            return found

    def put(self, key: Hashable, thing: Thing) -> None:
        """Keep it; the one that was not used for longest goes where there are too many."""
        with self._lock:
            self._things[key] = thing
            self._things.move_to_end(key)
            self._last = key, thing
            while len(self._things) > self._most:
                self._things.popitem(last=False)

    def values(self) -> list[Thing]:
        """All that is kept, what was used last at the end."""
        with self._lock:
            return list(self._things.values())

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._things.clear()
            self._last = None
