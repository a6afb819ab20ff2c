"""What else the host computes while something is timed, by Linux' own counters.

A latency by wall clock is the host's as much as the device's: another process on a core, or on the
other thread of the same one, makes each launch longer.

Source: proc(5), /proc/stat.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_STAT = Path("/proc/stat")


class _Counters(NamedTuple):
    """Seconds since the start of the host, over all its cores; and those of this process."""

    at: float
    busy: float
    stolen: float
    own: float


class HostLoad:
    """Cores that were busy with something else since `clear`; nothing where Linux does not tell."""

    def __init__(
        self,
        stat: Path = _STAT,
        clock: Callable[[], float] = time.monotonic,
        own: Callable[[], float] = time.process_time,
    ) -> None:
        self._stat, self._clock, self._own = stat, clock, own
        self.clear()

    def clear(self) -> None:
        """Count from here."""
        self._since = self._read()

    def summary(self) -> dict[str, float]:
        """`host_cores_busy` with other processes, and `host_cores_stolen` by other machines."""
        before, now = self._since, self._read()
        if before is None or now is None or now.at <= before.at:
            return {}
        seconds = now.at - before.at
        others = now.busy - before.busy - (now.own - before.own)
        return {
            "host_cores_busy": round(max(others, 0.0) / seconds, 2),
            "host_cores_stolen": round(max(now.stolen - before.stolen, 0.0) / seconds, 2),
        }

    def _read(self) -> _Counters | None:
        try:
            with self._stat.open() as file:
                name, *words = file.readline().split()
            ticks = [int(word) for word in words]
            user, nice, system, _idle, _waiting, interrupts, soft, stolen = ticks[:8]
        except (OSError, ValueError):
            return None
        second = os.sysconf("SC_CLK_TCK")
        busy = user + nice + system + interrupts + soft
        if name != "cpu":
            return None
        return _Counters(self._clock(), busy / second, stolen / second, self._own())
