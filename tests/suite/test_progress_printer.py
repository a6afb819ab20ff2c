"""The printer of a progress file, on a terminal and on a plain stream."""

import io
import time
from pathlib import Path

import pytest

from benchmarks.progress import ProgressPrinter, newest_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def wait_for(stream: io.StringIO, text: str) -> None:
    deadline = time.monotonic() + 10
    while text not in stream.getvalue():
        assert time.monotonic() < deadline, f"{text!r} never came: {stream.getvalue()!r}"
        time.sleep(0.005)


def test_progress_is_written_once_a_change_as_plain_lines(tmp_path: Path) -> None:
    stream, path = io.StringIO(), tmp_path / "progress"
    path.write_text("left by an earlier run\n")
    with ProgressPrinter(path, stream, interval=0.01):
        path.write_text("softmax 1 of 3\n")
        wait_for(stream, "softmax 1 of 3")
        with path.open("a") as lines:
            lines.write("softmax 2 of 3\n\x1b[31msoftmax 3 of 3\n\n")
    assert stream.getvalue() == "\nsoftmax 1 of 3\n[31msoftmax 3 of 3\n"


def test_progress_is_rewritten_in_place_and_wiped_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "11")
    stream, path = Terminal(), tmp_path / "progress"
    with ProgressPrinter(path, stream, interval=0.01):
        path.write_text("a line that is far too long\n")
        wait_for(stream, "a line")
        path.write_text("short\n")
        wait_for(stream, "short")
    assert stream.getvalue() == "\n\ra line tha\rshort     \r          \r"


def test_progress_at_its_default_pace_waits_for_the_end(tmp_path: Path) -> None:
    stream, path = io.StringIO(), tmp_path / "progress"
    started = time.monotonic()
    with ProgressPrinter(path, stream):
        path.write_text("1\n")
        path.write_text("2\n")
        time.sleep(0.05)
        assert stream.getvalue() == ""
    assert stream.getvalue() == "\n2\n"
    assert time.monotonic() - started < 2


def test_progress_survives_a_stream_that_closes(tmp_path: Path) -> None:
    stream, path = io.StringIO(), tmp_path / "progress"
    path.write_text("unread\n")
    with ProgressPrinter(path, stream, interval=0.01):
        stream.close()
        path.write_text("nobody watches\n")


def test_newest_line_of_odd_files(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    assert newest_line(path) == ""
    path.write_bytes(b"\n \n")
    assert newest_line(path) == ""
    path.write_bytes(b"x" * 9000 + b"\nlast \xff line\n\n")
    assert newest_line(path) == "last � line"
