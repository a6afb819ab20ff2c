"""Progress of a long run: how many points are done, which one is current, how much time is left.

One line a point goes to the file that `KERNL_PROGRESS` names; asv swallows the standard streams of
the process that measures, and `benchmarks.progress` shows that file's newest line in its place.
Without the variable the lines go to standard error.
"""

import os
import sys
import time
from pathlib import Path


class Progress:
    """Counts `total` steps; each `step` writes one line."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._started = time.monotonic()

    def step(self, what: str) -> None:
        """One more point is done; `what` names it."""
        self._done += 1
        elapsed = time.monotonic() - self._started
        left = elapsed / self._done * (self._total - self._done)
        _write(f"{self._done}/{self._total}  {what}  {_duration(left)} left")


def say(line: str) -> None:
    """One line that counts nothing, such as what a long step is about to do."""
    _write(line)


def _write(line: str) -> None:
    path = os.environ.get("KERNL_PROGRESS")
    if path is None:
        print(line, file=sys.stderr, flush=True)
    else:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
