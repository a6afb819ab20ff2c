"""What a measuring process says to who started it, above all what it does with the device.

Several such processes may share one (`benchmarks.measure.turns`); `benchmarks.measure.worker` lists
all messages.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from benchmarks.measure.journal import finite


class Asking:
    """Tells who started this worker what it does with the device, which several workers may share.

    It begins aside: it uses no device before `back` is called.
    """

    def __init__(self, out: TextIO, answers: TextIO, device: str) -> None:
        self._out = out
        self._answers = answers
        self._device = device
        self._depth = 0
        self._aside = True

    @contextlib.contextmanager
    def alone(self, what: str, *, quiet: bool = False) -> Iterator[None]:
        """While this holds no other worker uses the device, nor computes anything where it is to be
        `quiet`. Within another one, it asks nothing.
        """
        aside = self._aside
        if aside:
            self.back()
        if self._depth == 0:
            self._wait()
            self._ask(kind="alone", what=what, quiet=quiet)
            self._wait_for_calm()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._wait()
                self._ask(kind="together")
            if aside:
                self.aside()

    def aside(self) -> None:
        """From here on nothing is done with the device, and others may time."""
        if self._depth == 0 and not self._aside:
            self._wait()
            self._aside = True
            send(self._out, {"kind": "aside"})

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """While this holds nothing is done with the device, unless this worker has it alone."""
        if self._depth or self._aside or not self._may_step_aside():
            yield
            return
        self.aside()
        try:
            yield
        finally:
            self.back()

    def _may_step_aside(self) -> bool:
        """Not from another thread, nor while a graph is captured: nobody may wait then."""
        if threading.current_thread() is not threading.main_thread():
            return False
        if self._device != "cuda":
            return True
        import torch

        return not torch.cuda.is_current_stream_capturing()

    def back(self) -> None:
        """The device is about to be used beside others. Waits until nobody has it alone."""
        if self._aside:
            self._aside = False
            self._ask(kind="back")

    def _wait(self) -> None:
        if self._device == "cuda":
            import torch

            with contextlib.suppress(Exception):  # a lost device shows where it is used
                torch.cuda.synchronize()

    def _wait_for_calm(self) -> None:
        """What the others had given the device before they were stopped is still being done."""
        if self._device == "cuda":
            from benchmarks.measure.graphs import wait_for_calm

            with contextlib.suppress(Exception):
                wait_for_calm()

    def _ask(self, **message: str | bool) -> None:
        send(self._out, message)
        if not self._answers.readline():
            raise SystemExit  # nobody is there any more


def send(out: TextIO, message: Mapping[str, Any]) -> None:
    """One message, a line of JSON; NaN and infinities become null."""
    out.write(json.dumps(finite(message), allow_nan=False) + "\n")
    out.flush()
