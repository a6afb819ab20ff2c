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
        outermost = self._depth == 0
        if outermost:
            self._synchronize()
            self._ask(kind="alone", what=what, quiet=quiet)
        self._depth += 1
        try:
            if outermost:
                self._wait_for_calm()
                send(self._out, {"kind": "rested"})
            yield
        finally:
            self._depth -= 1
            if outermost:
                self._synchronize()
                self._ask(kind="together")

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """While this holds nothing is done with the device, unless this worker has it alone."""
        if self._depth or self._aside or not self._may_step_aside():
            yield
            return
        self._synchronize()
        self._aside = True
        send(self._out, {"kind": "aside"})
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

    def _synchronize(self) -> None:
        if self._device == "cuda":
            import torch

            with contextlib.suppress(Exception):  # a lost device shows where it is used
                torch.cuda.synchronize()

    def _wait_for_calm(self) -> None:
        """What the others had given the device before they were stopped is still being done.

        Raises RuntimeError where it does not end: what is timed now would be wrong.
        """
        if self._device == "cuda":
            from benchmarks.measure.graphs import wait_for_calm

            calm = True
            with contextlib.suppress(Exception):  # a lost device shows where it is used
                calm = wait_for_calm()
            if not calm:
                raise RuntimeError(
                    "the device does not come to rest: another process uses it; end that one, or "
                    "measure when it is done"
                )

    def _ask(self, **message: str | bool) -> None:
        send(self._out, message)
        if not self._answers.readline():
            raise SystemExit  # nobody is there any more


def send(out: TextIO, message: Mapping[str, Any]) -> None:
    """One message, a line of JSON; NaN and infinities become null."""
    out.write(json.dumps(finite(message), allow_nan=False) + "\n")
    out.flush()
