"""A worker that holds a case ready and times it in blocks, beside a partner that does the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from benchmarks.measure.process import Message, WorkerProcess


class Partner(WorkerProcess):
    """One running worker of `benchmarks.measure.paired_case`. Each method may raise WorkerFault."""

    _points: list[Message]
    _prepared = False

    def prepare(self, task: Mapping[str, Any], timeout_s: float) -> list[str]:
        """Names of the implementations that it holds ready: none where all have their point."""
        self._points, self._prepared = [], False
        self._ask(task, timeout_s)
        message = self._last()
        if message["kind"] == "done":
            return []
        if message["kind"] != "prepared" or not isinstance(message.get("names"), list):
            raise self._odd(message)
        self._prepared = True
        return [str(name) for name in message["names"]]

    def block(
        self, rounds: int, seed: int, *, calm: bool, timeout_s: float
    ) -> dict[str, list[float]]:
        """Seconds of `rounds` calls of each implementation; `calm`: once the device rests."""
        self._begin(timeout_s)
        self._write({"kind": "block", "rounds": rounds, "seed": seed, "calm": calm})
        message = self._last()
        taken = message.get("taken")
        if message["kind"] != "block" or not isinstance(taken, dict):
            raise self._odd(message)
        for seconds in taken.values():
            if len(seconds) != rounds or not all(0 < one < math.inf for one in seconds):
                raise self._fault(f"a block of {rounds} rounds took {str(seconds)[:80]} s")
        return taken

    def finish(self, timeout_s: float) -> list[Message]:
        """The points of the case, all of them: it is held no longer."""
        if self._prepared:
            self._prepared = False
            self._begin(timeout_s)
            self._write({"kind": "enough"})
            message = self._last()
            if message["kind"] != "done":
                raise self._odd(message)
        return self._points

    def _last(self) -> Message:
        """The next message that is no point; points are kept."""
        while (message := self._told(lambda _stage, _implementation: None))["kind"] == "point":
            self._points.append(message)
        return message
