"""A Dask scheduler and its workers, each a process of its own, on the loopback interface."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import distributed

from tests.suite.fake_worker import ROOT

DRIVER = "printf 'NVIDIA {gpu}, GPU-{directory}-%s, 580, 80000\\n' 0 1 2 3"
"""Stands for nvidia-smi: four cards of one kind, its own of each directory; a worker has one."""
DASK = """
from benchmarks.measure.lifetime import die_with_parent
die_with_parent()
from dask.cli import run_cli
run_cli()
"""


class Cluster:
    """A scheduler on the loopback interface and its workers, all of them ended by `stop`."""

    def __init__(self, directory: Path, allowed_failures: int = 1) -> None:
        self.directory = directory
        self._file = directory / "scheduler.json"
        self._processes: list[subprocess.Popen[bytes]] = []
        more = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(allowed_failures)}
        self._start(["scheduler", "--scheduler-file", str(self._file), "--port", "0"], more)

    @property
    def address(self) -> str:
        wait_until(self._file.exists)
        return str(json.loads(self._file.read_text())["address"])

    def worker(self, card: int, root: Path = ROOT, gpu: str = "H200") -> subprocess.Popen[bytes]:
        arguments = ["worker", "--scheduler-file", str(self._file), "--nthreads", "1"]
        arguments += ["--memory-limit", "0", "--local-directory", str(self.directory)]
        more = {"CUDA_VISIBLE_DEVICES": str(card), "PATH": path_with_driver(self.directory, gpu)}
        more["TMPDIR"] = str(self.directory)
        return self._start(arguments, more, root)

    def _start(
        self, arguments: Sequence[str], more: dict[str, str], root: Path = ROOT
    ) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-c", DASK, *arguments, "--host", "127.0.0.1"]
        process = subprocess.Popen(
            [*program, "--no-dashboard"],
            cwd=root,
            env={**os.environ, **more, "PYTHONPATH": python_path(root)},
            stdout=(self.directory / "dask.log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def wait_for_workers(self, count: int) -> None:
        with distributed.Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=30)

    def stop_scheduler(self) -> None:
        end(self._processes[0])

    def stop(self) -> None:
        for process in self._processes:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """A process and all that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def python_path(root: Path) -> str:
    return f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"


def path_with_driver(directory: Path, gpu: str) -> str:
    script = directory / gpu / "nvidia-smi"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f"#!/bin/sh\n{DRIVER.format(gpu=gpu, directory=directory)}\n")
    script.chmod(0o755)
    return f"{script.parent}{os.pathsep}{os.environ['PATH']}"


def wait_until(so: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < deadline, "waited for too long"
        time.sleep(0.05)
