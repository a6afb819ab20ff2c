"""Shows the newest line of a progress file while a process that may not print is running.

asv swallows what a `setup_cache` writes to its streams, and a sweep takes minutes: so the sweep
writes lines to a file, and asv's own process shows the last of them.
"""

import os
import shutil
import threading
from pathlib import Path
from typing import TextIO


def newest_line(path: Path) -> str:
    """The last line of a progress file that is not blank, printable characters only.

    "" where there is none, or no such file.
    """
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 4096))
            tail = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = ["".join(filter(str.isprintable, line)).strip() for line in tail.splitlines()]
    return next((line for line in reversed(lines) if line), "")


class ProgressPrinter:
    """While it is entered, a thread copies the newest line of a file to a stream, when it changed.

    On a terminal the line is rewritten in place every 2 s and wiped at the end; elsewhere a line is
    added every 10 s, and the last one at the end. `interval` (seconds) replaces both.
    """

    def __init__(self, path: Path, stream: TextIO, interval: float | None = None) -> None:
        self._path = path
        self._stream = stream
        self._terminal = stream.isatty()
        self._interval = interval if interval is not None else (2.0 if self._terminal else 10.0)
        self._shown = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)

    def __enter__(self) -> "ProgressPrinter":
        self._path.unlink(missing_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        try:
            while not self._stop.wait(self._interval):
                self._show()
            if not self._terminal:
                self._show()
            elif self._shown:
                self._write("\r" + " " * self._width() + "\r")
        except (OSError, ValueError):  # the stream is gone: nobody watches
            return

    def _show(self) -> None:
        line = newest_line(self._path)
        if not line or line == self._shown:
            return
        first = "" if self._shown else "\n"  # asv has left its own line open
        self._shown = line
        width = self._width()
        self._write(first + (f"\r{line[:width]:<{width}}" if self._terminal else f"{line}\n"))

    def _width(self) -> int:
        return max(1, shutil.get_terminal_size().columns - 1)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
