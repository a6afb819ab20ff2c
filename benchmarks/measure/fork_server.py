"""Workers that are forked from a process which has imported all that they need.

To import PyTorch takes longer than to measure a case. A fork server imports once and uses no
device; a worker forked from it is ready in a moment, and gets a context of its own on the device,
memory of its own there, and its own copy of every kernel. What it shares with the others is what
Python modules hold.

A forked worker becomes a child of who asked for it, not of the server: an orphan goes to the
nearest ancestor that takes in orphans. So whoever asked can wait for it, and its id stays its own
until then.

Source: prctl(2), PR_SET_CHILD_SUBREAPER; unix(7), SCM_RIGHTS.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from benchmarks.measure.lifetime import die_with_parent, take_in_orphans
from benchmarks.measure.process import last_line

_REQUEST = b"fork"
_STREAMS = 3
_END_S = 10.0


class Forked:
    """A forked worker, with as much of `subprocess.Popen` as `WorkerProcess` needs."""

    def __init__(self, pid: int, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self.pid = pid
        self.stdin: IO[bytes] | None = stdin
        self.stdout: IO[bytes] | None = stdout
        self.returncode: int | None = None

    def wait(self, timeout: float) -> int:
        """Reap it; its exit code. Raises subprocess.TimeoutExpired."""
        end = time.monotonic() + timeout
        while self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"worker {self.pid}", timeout)
            else:
                time.sleep(0.01)
        return self.returncode


class ForkServer:
    """A running fork server, as a context: when it is left, the server ends.

    It has to be made by a thread that lives as long as the server shall: it ends with that thread.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], cwd: Path) -> None:
        """Start it: it imports while this returns. Raises OSError.

        `command` is that of a worker which understands `--fork`.
        """
        take_in_orphans()
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the server)
        with theirs:
            self._process = subprocess.Popen(
                [*command, "--fork", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=dict(environment),
                cwd=cwd,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def launch(self, log: IO[bytes], timeout_s: float) -> Forked:
        """Fork a worker, which writes what it has to say to a person to `log`.

        Raises OSError where the server has ended, or takes longer.
        """
        theirs_in, stdin = os.pipe()
        stdout, theirs_out = os.pipe()
        try:
            socket.send_fds(self._requests, [_REQUEST], [theirs_in, theirs_out, log.fileno()])
        except OSError:
            os.close(stdin)
            os.close(stdout)
            raise OSError(self._why_not()) from None
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        worker_in, worker_out = os.fdopen(stdin, "wb"), os.fdopen(stdout, "rb")
        pid = _pid(stdout, time.monotonic() + timeout_s)
        if pid is None:
            worker_in.close()
            worker_out.close()
            raise OSError(self._why_not())
        return Forked(pid, worker_in, worker_out)

    def _why_not(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S / 10)
        words = last_line(self._log)
        ended = self._process.returncode is not None
        doing = "the process that forks workers " + ("ended" if ended else "gives no answer")
        return f"{doing}; its last words: {words}" if words else doing


def _pid(stream: int, deadline: float) -> int | None:
    """The line that a forked worker begins with: its process id; None where none comes."""
    said = b""
    while not said.endswith(b"\n"):
        remaining = deadline - time.monotonic()
        if remaining <= 0 or not select.select([stream], [], [], remaining)[0]:
            return None
        byte = os.read(stream, 1)  # what comes behind the line is for somebody else
        if not byte:
            return None
        said += byte
    return int(said)


def serve(requests: int) -> bool:
    """Be the server: fork a worker for each request that comes by a socket.

    Returns True in each worker, which has the standard streams that the request sent, and False in
    the server, once nobody is left who could ask.
    """
    # Nothing that was imported is garbage, and a collection would copy the pages that it looks at.
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=requests) as asked:
        while True:
            request, streams, _, _ = socket.recv_fds(asked, len(_REQUEST), _STREAMS)
            if not request:
                return False
            forked = _fork_orphan()
            if forked:
                for number, stream in enumerate(streams):
                    os.dup2(stream, number)
            for stream in streams:
                os.close(stream)
            if forked:
                os.write(1, b"%d\n" % os.getpid())
                return True


def _fork_orphan() -> bool:
    """Fork a process that is no child of this one; True in it. It leads a session of its own."""
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return False
    parent = os.getpid()
    if os.fork():
        os._exit(0)
    os.setsid()
    while os.getppid() == parent:
        time.sleep(0.0005)
    die_with_parent()
    return True
