"""Workers that are forked: each a process of its own, which ends, fails and is ended like any."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cases
from benchmarks.measure import paired
from benchmarks.measure.fork_server import ForkServer
from benchmarks.measure.measuring import worker_command, worker_environment
from benchmarks.measure.paired import TwoCommits, asked_for
from benchmarks.measure.pairs import Plan
from benchmarks.measure.partner import Partner
from benchmarks.measure.process import WorkerFault, WorkerProcess, WorkerRefusal
from tests.suite.fake_worker import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are Linux' alone")

SERVER = r"""
import json, os, signal, sys
from benchmarks.measure import fork_server

how, channel = sys.argv[1], int(sys.argv[3])
if how == "broken":
    sys.exit("no such module")
imported = os.getpid()
if fork_server.serve(channel):
    def send(**message):
        os.write(1, json.dumps(message).encode() + b"\n")
    send(kind="ready", fingerprint={"pid": os.getpid(), "imported": imported})
    for line in sys.stdin:
        case = json.loads(line)["case"]
        if case == "exits":
            sys.exit(3)
        if case == "crashes":
            print("out of luck", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        send(kind="done", worn=False)
"""


def server(directory: Path, how: str = "works") -> ForkServer:
    script = directory / "server.py"
    script.write_text(SERVER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return ForkServer([sys.executable, str(script), how], environment, directory)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[ForkServer]:
    with server(tmp_path) as one:
        yield one


def _ask(worker: WorkerProcess, case: str) -> None:
    assert list(worker.measure({"case": case}, 20.0)) == []


def test_each_worker_is_a_process_and_leads_its_group(running: ForkServer) -> None:
    workers = [WorkerProcess(running.launch, 20.0) for _ in range(3)]
    ids = [int(worker.fingerprint["pid"]) for worker in workers]
    assert len({worker.fingerprint["imported"] for worker in workers}) == 1
    assert len(set(ids)) == 3
    for worker, pid in zip(workers, ids, strict=True):
        assert os.getpgid(pid) == pid
        assert os.getsid(pid) == pid
        _ask(worker, "anything")
    for worker in workers:
        worker.stop()
    for pid in ids:
        with pytest.raises(ProcessLookupError):  # reaped: not even a zombie is left
            os.kill(pid, 0)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("exits", "the worker ended with status 3"),
        ("crashes", "the worker was killed by SIGSEGV during start of the case; its last words: "),
    ],
)
def test_how_a_worker_ends_is_told_and_costs_it_alone(
    running: ForkServer, case: str, words: str
) -> None:
    other = WorkerProcess(running.launch, 20.0)
    worker = WorkerProcess(running.launch, 20.0)
    with pytest.raises(WorkerFault) as fault:
        _ask(worker, case)
    assert words in str(fault.value)
    assert ("out of luck" in str(fault.value)) == (case == "crashes")
    _ask(other, "anything")
    other.stop()
    WorkerProcess(running.launch, 20.0).stop()


def test_a_worker_can_be_stopped_and_goes_on(running: ForkServer) -> None:
    worker = WorkerProcess(running.launch, 20.0)
    pid = int(worker.fingerprint["pid"])
    os.killpg(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    os.killpg(pid, signal.SIGCONT)
    _ask(worker, "anything")
    worker.stop()


def test_a_server_that_cannot_import_says_why(tmp_path: Path) -> None:
    with server(tmp_path, "broken") as broken, pytest.raises(WorkerFault) as fault:
        WorkerProcess(broken.launch, 20.0)
    assert "the process that forks workers ended; its last words: no such module" in str(
        fault.value
    )


def test_a_server_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    script = tmp_path / "hangs.py"
    script.write_text("import time; time.sleep(600)")
    before = time.monotonic()
    with ForkServer([sys.executable, "-S", str(script)], {}, tmp_path) as one:
        with pytest.raises(WorkerFault) as fault:
            WorkerProcess(one.launch, 0.5)
        one._process.kill()  # else it would be waited for
    assert "the process that forks workers gives no answer" in str(fault.value)
    assert time.monotonic() - before < 10


def test_workers_and_server_end_with_who_started_them(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    program = f"""
import os, sys, pathlib
from benchmarks.measure.fork_server import ForkServer
from benchmarks.measure.process import WorkerProcess
server = ForkServer([sys.executable, {str(script)!r}, "works"], dict(os.environ), pathlib.Path("."))
worker = WorkerProcess(server.launch, 20.0)
print(worker.fingerprint["pid"], worker.fingerprint["imported"], flush=True)
os.kill(os.getpid(), 9)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = {int(pid) for pid in done.stdout.split()}
    assert len(left) == 2
    deadline = time.monotonic() + 10
    while any(_runs(pid) for pid in left):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_the_real_worker_is_forked_without_other_peoples_kernels(tmp_path: Path) -> None:
    """What it imports is what takes a start its time."""
    command = [*worker_command("cpu"), "--paired"]
    with ForkServer(command, worker_environment(None), tmp_path) as one:
        worker = Partner(one.launch, 120.0)
        before = time.monotonic()
        second = Partner(one.launch, 120.0)
        started_s = time.monotonic() - before
        frozen = cases.load()
        name = "rows1_cols1_bias.fp32"
        task = {
            "op": "layer_norm", "case": name, "dims": dict(frozen.dims("layer_norm", name)),
            "dtype": "fp32", "version": frozen.version("layer_norm"), "samples": 2,
            "implementations": ["eager", "kernl"], "budget_s": 0.0, "seed": 3,
        }  # fmt: skip
        assert worker.prepare(task, 60.0) == ["eager", "kernl"]
        taken = worker.block(2, 1, calm=False, timeout_s=60.0)
        assert {key: len(seconds) for key, seconds in taken.items()} == {"eager": 2, "kernl": 2}
        assert [point["status"] for point in worker.finish(60.0)] == ["ok", "ok"]
        worker.stop()
        second.stop()
    assert started_s < 2.0  # it imports nothing: on its own that takes more


def test_a_commit_without_kernl_is_refused_by_its_workers(tmp_path: Path) -> None:
    environment = {**worker_environment(None), "KERNL_CODE": str(tmp_path)}
    command = [*worker_command("cpu"), "--paired"]
    with (
        ForkServer(command, environment, tmp_path) as one,
        pytest.raises(WorkerRefusal) as refusal,
    ):
        WorkerProcess(one.launch, 120.0)
    assert f"not from KERNL_CODE = {tmp_path}" in str(refusal.value)


def test_who_imports_what_may_use_the_device_is_not_forked() -> None:
    done = subprocess.run(
        [*worker_command("cpu"), "--fork", "3"],
        env=worker_environment(None), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--fork is for --paired --suite kernels" in done.stderr


def test_servers_live_as_long_as_the_two_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All stages of a gate's run fork from the same two."""
    started: list[ForkServer] = []

    class Noted(ForkServer):
        def __init__(self, *how: Any) -> None:
            super().__init__(*how)
            started.append(self)

    monkeypatch.setattr(paired, "ForkServer", Noted)
    monkeypatch.setenv("KERNL_PROGRESS", str(tmp_path / "progress"))
    written: list[dict[str, object]] = []
    asked = asked_for(r"kernels\.LayerNorm", "rows1_cols1_bias.fp32", None)
    plan = Plan(sessions=2, quads=1, rounds=2, control=0.0)
    with TwoCommits.of("HEAD", "HEAD", "cpu") as bench:
        for _ in range(2):
            bench.measure(asked, plan, written.append)
        assert len(started) == 2
        assert [server._process.poll() for server in started] == [None, None]
    assert [server._process.returncode for server in started] == [0, 0]
    assert [one["status"] for one in written if one["kind"] == "pair"] == ["ok"] * 4
