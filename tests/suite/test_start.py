"""The command that times how long a process waits for its first call by graph."""

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.measure import device, start


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(device, "gpu", lambda: None)
    with pytest.raises(SystemExit) as left:
        start.main([])
    assert left.value.code == 2
    assert "no NVIDIA GPU on this machine" in capsys.readouterr().err


def test_processes_share_a_folder_and_each_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []

    def run(command: list[str], **_: Any) -> Any:
        folders.append(command[command.index("--folder") + 1])
        return SimpleNamespace(returncode=0, stdout=f"a warning\n{20.0 / len(folders):.2f}\n")

    monkeypatch.setattr(device, "gpu", lambda: "a GPU")
    monkeypatch.setattr(subprocess, "run", run)
    start.main(["--processes", "2"])
    assert len(folders) == 2
    assert len(set(folders)) == 1
    assert capsys.readouterr().out.splitlines() == [
        "process 1: 20.00 s to the first call by graph",
        "process 2: 10.00 s to the first call by graph",
    ]


def test_a_process_that_fails_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SimpleNamespace(returncode=1, stdout="")
    monkeypatch.setattr(device, "gpu", lambda: "a GPU")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(SystemExit, match="process 1 failed"):
        start.main([])


@pytest.mark.gpu
def test_a_call_goes_by_graph(tmp_path: Any) -> None:
    assert start.waited(str(tmp_path)) > 0
