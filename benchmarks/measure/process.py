"""The worker seen from the sweep: start it, ask it, and survive whatever becomes of it.

The worker has a process group of its own, so that it and all that it started can be ended by the
id of that group. Standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from benchmarks.measure.journal import STATUSES
from benchmarks.measure.turns import Turn, Turns

Message = dict[str, Any]

_ASKED = "start of the case"
_LAST_WORDS = 300
_STOP_S = 10.0


class Process(Protocol):
    """A process that leads its group, as `subprocess.Popen` shows one."""

    pid: int
    stdin: IO[bytes] | None
    stdout: IO[bytes] | None
    returncode: int | None

    def wait(self, timeout: float) -> int:
        """Reap it; its exit code. Raises subprocess.TimeoutExpired."""


Launch = Callable[[IO[bytes], float], Process]
"""Starts a worker, which writes what it has to say to a person to a file; within so many seconds.
Raises OSError."""


def launched(argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> Launch:
    """How a command is started as a worker."""

    def launch(log: IO[bytes], _timeout_s: float) -> Process:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )

    return launch


class WorkerFault(Exception):
    """The worker is gone: it crashed, hung, lost its device or broke the protocol.

    `implementation` names the one at work, "" where no single one was. `before_the_case` says that
    it had died by itself before it said anything of the case it was asked for.
    """

    def __init__(
        self, reason: str, implementation: str = "", before_the_case: bool = False
    ) -> None:
        super().__init__(reason)
        self.implementation = implementation
        self.before_the_case = before_the_case


class WorkerRefusal(Exception):
    """The worker says that nothing can be measured here: status and reason in words."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class WorkerProcess:
    """One running worker. After a WorkerFault it has been ended and cannot be asked again.

    Attributes:
        fingerprint: what it says of its device.
        worn: it keeps memory of the device that it cannot give back: better start another one.
    """

    def __init__(
        self,
        launch: Launch,
        start_timeout_s: float,
        turn: Turn | None = None,
    ) -> None:
        """Start it and wait until it is ready. Raises WorkerFault or WorkerRefusal.

        `turn` is its place among workers that share a device; by default nobody shares it.
        """
        self._turn = turn or Turns().turn()
        self._buffer = b""
        self._at = ("start", "")
        self.worn = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the worker)
        try:
            self._process = launch(self._log, start_timeout_s)
        except OSError as error:
            self._log.close()
            raise WorkerFault(f"the worker cannot be started: {error}") from error
        pid = self._process.pid
        self._turn.attach(lambda number: os.killpg(pid, number))
        self._limit_s = start_timeout_s
        self._begin(start_timeout_s)
        message = self._heard()
        if message.get("kind") == "refused":
            self.stop()
            raise WorkerRefusal(str(message.get("status")), str(message.get("reason")))
        if message.get("kind") != "ready":
            raise self._fault(f"the worker answered {message} instead of being ready")
        self.fingerprint: dict[str, str | int | float] = dict(message.get("fingerprint") or {})

    def measure(
        self,
        task: Mapping[str, Any],
        timeout_s: float,
        tell: Callable[[str, str], None] = lambda _stage, _implementation: None,
    ) -> Iterator[Message]:
        """Points of one task as they come; `tell` hears each step as it begins.

        Raises WorkerFault, also after some of the points.
        """
        self._ask(task, timeout_s)
        while (message := self._told(tell))["kind"] != "done":
            if message["kind"] != "point":
                raise self._odd(message)
            yield message

    def stop(self) -> None:
        """Let it end by itself; end it where it does not."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._ended_within(_STOP_S)
        self._end()
        self._turn.drop()

    def _ask(self, task: Mapping[str, Any], timeout_s: float) -> None:
        """Give it a task, which may take so long from here."""
        self._limit_s = timeout_s
        self._begin(timeout_s)
        self._at = (_ASKED, "")
        self._write(task)

    def _told(self, tell: Callable[[str, str], None]) -> Message:
        """The next message that its caller has to deal with: `point`, `done`, or another kind."""
        while True:
            message = self._heard()
            kind = message.get("kind")
            if kind == "stage":
                self._at = (str(message.get("stage")), str(message.get("implementation") or ""))
                self._turn.tell(self._at[0])
                tell(*self._at)
            elif kind == "figures":
                self.fingerprint.update(message.get("figures") or {})
            elif kind == "fault":
                raise self._fault(str(message.get("reason")))
            elif not isinstance(kind, str) or (kind == "point" and not _well_formed(message)):
                raise self._odd(message)
            else:
                if kind == "done":
                    self.worn = bool(message.get("worn"))
                return message

    def _odd(self, message: Message) -> WorkerFault:
        return self._fault(f"the worker broke the protocol with {str(message)[:80]}")

    def _begin(self, seconds: float) -> None:
        """So long it may take from here."""
        self._deadline = time.monotonic() - self._held_s() + seconds

    def _held_s(self) -> float:
        """Waiting for the others, and standing still for them, is not this one's time."""
        return self._turn.waited_s + self._turn.stopped_s

    def _heard(self) -> Message:
        """The next message that is not about whose the device is."""
        while True:
            message = self._read()
            kind = message.get("kind")
            if kind == "aside":
                self._turn.aside()
                continue
            if kind == "rested":
                self._turn.rested()
                continue
            if kind == "alone":
                self._turn.take(str(message.get("what")), quiet=bool(message.get("quiet")))
            elif kind == "together":
                self._turn.give_back()
            elif kind == "back":
                self._turn.back()
            else:
                return message
            self._write({"kind": kind})

    def _write(self, task: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(task).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._fault(self._ending()) from None

    def _read(self) -> Message:
        assert self._process.stdout is not None
        stream = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            remaining = self._deadline + self._held_s() - time.monotonic()
            if remaining <= 0:
                raise self._fault(f"no answer within {self._limit_s:g} s")
            if select.select([stream], [], [], remaining)[0]:
                chunk = os.read(stream, 1 << 16)
                if not chunk:
                    raise self._fault(self._ending())
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise self._fault(f"the worker broke the protocol with {line[:80]!r}")
        return message

    def _ending(self) -> str:
        """How the process ended, in words."""
        if not self._ended_within(_STOP_S):
            return "the worker closed its output and went on running"
        self._end(keep_log=True)
        status = self._process.returncode
        if status is None:
            return "the worker closed its output and cannot be ended"
        if status >= 0:
            return f"the worker ended with status {status}"
        # Real-time signals, but for the first and the last, have no name.
        known = {one.value: one.name for one in signal.Signals}
        name = known.get(-status, f"signal {-status}")
        hint = ": the system may have run out of memory" if name == "SIGKILL" else ""
        return f"the worker was killed by {name}{hint}"

    def _ended_within(self, seconds: float) -> bool:
        """Whether the process ends in time. It is left unreaped, so its id stays its own."""
        end = time.monotonic() + seconds
        while self._process.returncode is None:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            if os.waitid(os.P_PID, self._process.pid, options) is not None:
                break
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    def _fault(self, reason: str) -> WorkerFault:
        """End the process; the fault says what it was doing and what it last printed."""
        died = self._process.returncode is not None
        self._end(keep_log=True)
        self._turn.drop()
        words = last_line(self._log)
        self._log.close()
        stage, implementation = self._at
        left = "" if self._process.returncode is not None else "; it could not be ended"
        doing = f" during {stage}" + (f" of {implementation}" if implementation else "")
        said = f"; its last words: {words}" if words else ""
        return WorkerFault(f"{reason}{doing}{left}{said}", implementation, died and stage == _ASKED)

    def _end(self, *, keep_log: bool = False) -> None:
        """End the whole group while its id cannot be another's, then reap.

        A process inside of a driver's call that does not return cannot be ended: it is left there.
        """
        self._turn.detach()  # from here on its id may become another's
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S)
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # unsent bytes of a broken pipe
                if stream is not None:
                    stream.close()
        if not keep_log:
            self._log.close()


def last_line(log: IO[bytes]) -> str:
    """What a process printed last."""
    log.seek(0, os.SEEK_END)
    log.seek(max(0, log.tell() - 4096))
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip()[:_LAST_WORDS] if lines else ""


def _well_formed(point: Message) -> bool:
    """Whether a point can be written down: a variant, a known status, a reason where it is due."""
    if not isinstance(point.get("variant"), str) or point.get("status") not in STATUSES:
        return False
    return point["status"] == "ok" or bool(point.get("reason"))
