"""Whatever a case does to the worker costs that case alone."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.measure.journal import read
from benchmarks.measure.process import WorkerFault, WorkerProcess, launched
from tests.suite.fake_worker import DEVICE, FAKE_WORKER, Bench, statuses

FAULTS = {
    "segfault": "the worker was killed by SIGSEGV during check of kernl",
    "exit": "the worker ended with status 9 during check of kernl; its last words: goodbye",
    "hang": "no answer within 1 s during check of kernl",
    "cuda": "the device is lost after: illegal memory access during check of kernl",
    "memory": "OutOfMemoryError: CUDA out of memory",
    "signal": "the worker was killed by signal 40 during check of kernl",
}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("KERNL_PROGRESS", str(tmp_path / "progress"))
    return Bench(tmp_path)


def test_a_sweep_without_faults_keeps_one_worker(bench: Bench, tmp_path: Path) -> None:
    found = bench.sweep("one", "two")
    assert (
        statuses(found["one"])
        == statuses(found["two"])
        == dict.fromkeys(("eager", "compile", "kernl"), "ok")
    )
    assert bench.calls() == Counter(["start", "one:eager,compile,kernl", "two:eager,compile,kernl"])
    records, problems = read(bench.journal.path)
    assert problems == []
    assert records[0]["fingerprint"] == {**DEVICE, "suite": "kernels", "copy_bytes_per_s": 4.2e12}
    assert records[1:] == [point for points in found.values() for point in points.values()]
    lines = (tmp_path / "progress").read_text().splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("1/6  softmax one.fp16 eager ok")


def test_what_is_left_out_is_neither_counted_nor_written(bench: Bench, tmp_path: Path) -> None:
    found = bench.sweep("one", "large", left_out=["large"])
    assert found["large"] == {}
    assert {point["case"] for point in bench.journal.points()} == {"one.fp16"}
    lines = (tmp_path / "progress").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["1/3", "2/3", "3/3"]


def test_what_a_worker_finds_out_later_begins_another_run(bench: Bench) -> None:
    found = bench.sweep("memory", "one")
    runs = bench.journal.runs()
    rates = {
        (case, name): runs[point["run"]]["fingerprint"].get("copy_bytes_per_s")
        for case, points in found.items()
        for name, point in points.items()
    }
    assert rates.pop(("memory", "kernl")) is None, "it failed before anything was timed"
    assert set(rates.values()) == {4.2e12}
    assert len(runs) == 2


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_one_implementation_of_one_case(bench: Bench, fault: str) -> None:
    found = bench.sweep("before", fault, "after")
    assert (
        statuses(found["before"])
        == statuses(found["after"])
        == dict.fromkeys(("eager", "compile", "kernl"), "ok")
    )
    assert statuses(found[fault]) == {"eager": "ok", "compile": "ok", "kernl": "failed"}
    assert found[fault]["kernl"]["reason"] == FAULTS[fault]
    assert bench.calls()["start"] == (1 if fault == "memory" else 2)
    assert bench.calls()[f"{fault}:eager,compile"] == (0 if fault == "memory" else 1)
    assert bench.calls()["after:eager,compile,kernl"] == 1
    written = {(p["case"], p["variant"]): p["reason"] for p in bench.journal.points()}
    assert written[f"{fault}.fp16", "kernl"] == FAULTS[fault]
    assert len(written) == 9


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("shout", "the worker broke the protocol with b'hello from a library'"),
        ("odd", "the worker broke the protocol with {'kind': 'point'"),
        ("unasked", "the worker sent a point nobody asked for"),
        ("short", "the worker sent no point for eager, compile, kernl"),
        ("nested", "the worker broke the protocol with b'[[[["),
    ],
)
def test_a_worker_that_breaks_the_protocol_costs_the_case(
    bench: Bench, fault: str, reason: str
) -> None:
    found = bench.sweep(fault, "after")
    assert all(p["status"] == "failed" and reason in p["reason"] for p in found[fault].values())
    assert set(statuses(found["after"]).values()) == {"ok"}
    assert bench.calls()["start"] == 2


def test_a_worker_that_cannot_be_ended_holds_nobody_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is inside of a driver's call which does not return."""
    waited: list[float | None] = []
    real = subprocess.Popen.wait

    def wait(self: "subprocess.Popen[bytes]", timeout: float | None = None) -> int:
        if not waited:
            waited.append(timeout)
            raise subprocess.TimeoutExpired("worker", timeout or 0.0)
        return real(self, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    found = bench.sweep("hang", "after")
    assert waited[0] is not None
    assert (
        "no answer within 1 s during check of kernl; it could not be ended"
        in (found["hang"]["kernl"]["reason"])
    )
    assert set(statuses(found["after"]).values()) == {"ok"}


def test_a_worker_that_dies_after_a_case_costs_the_next_one_nothing(bench: Bench) -> None:
    bench.script.write_text(
        FAKE_WORKER
        + '    if what == "leaves":\n        print("late", file=sys.stderr, flush=True)\n'
        "        os._exit(9)\n"
    )
    found = bench.sweep("leaves", "after")
    assert all(set(statuses(points).values()) == {"ok"} for points in found.values())
    assert bench.calls()["start"] == 2


def test_a_worker_that_keeps_memory_is_replaced_after_its_case(bench: Bench) -> None:
    *rest, end = FAKE_WORKER.rpartition('send(kind="done")')
    bench.script.write_text(rest[0] + 'send(kind="done", worn=what == "leaks")' + end)
    found = bench.sweep("one", "leaks", "two", "three")
    assert all(set(statuses(points).values()) == {"ok"} for points in found.values())
    assert bench.calls()["start"] == 2


def test_a_worker_that_dies_of_the_task_itself_costs_the_case(bench: Bench) -> None:
    bench.script.write_text(
        FAKE_WORKER.replace(
            'if what == "shout":', 'if what == "task":\n        os._exit(9)\n    if 0:'
        )
    )
    found = bench.sweep("task", "after")
    assert {p["reason"] for p in found["task"].values()} == {
        "the worker ended with status 9 during start of the case"
    }
    assert set(statuses(found["after"]).values()) == {"ok"}
    assert bench.calls()["start"] == 3


def test_an_implementation_that_always_faults_is_left_out_in_the_end(bench: Bench) -> None:
    names = ["exit", "segfault", "one", "exit2", "exit", "segfault"]
    bench.script.write_text(FAKE_WORKER.replace('what == "exit"', 'what.startswith("exit")'))
    found = bench.sweep("exit", "segfault", "one", "exit2", "exit3", "exit4", faults_in_a_row=2)
    assert len(names) == len(found)
    assert statuses(found["one"])["kernl"] == "failed"  # the two before it were in a row
    assert "left out: it took the worker down 2 cases in a row" in found["one"]["kernl"]["reason"]
    assert {points["eager"]["status"] for points in found.values()} == {"ok"}
    assert bench.calls()["start"] == 3


def test_a_success_between_faults_starts_the_count_again(bench: Bench) -> None:
    bench.sweep("exit", "one", "segfault", "two", "cuda", faults_in_a_row=2)
    assert bench.calls()["cuda:eager,compile,kernl"] == 1


def test_a_worker_that_never_starts_gives_words_for_every_point(bench: Bench) -> None:
    found = bench.sweep("one", "two", mode="never")
    assert bench.calls() == Counter({"start": 3})
    for points in found.values():
        assert statuses(points) == dict.fromkeys(("eager", "compile", "kernl"), "failed")
        assert "the worker did not start, 3 times in a row" in points["kernl"]["reason"]
        assert "cannot import torch" in points["kernl"]["reason"]
    assert len(bench.journal.points()) == 6


def test_a_worker_that_starts_late_is_waited_for(bench: Bench) -> None:
    found = bench.sweep("one", mode="late")
    assert bench.calls()["start"] == 3
    assert set(statuses(found["one"]).values()) == {"ok"}


def test_a_refusal_is_believed_at_once(bench: Bench) -> None:
    found = bench.sweep("one", "two", mode="refuse")
    assert bench.calls() == Counter({"start": 1})
    assert {p["status"] for points in found.values() for p in points.values()} == {"skipped"}
    assert found["two"]["kernl"]["reason"] == "no CUDA device here"


def test_a_command_that_does_not_exist_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(WorkerFault, match="cannot be started"):
        WorkerProcess(launched([str(tmp_path / "none")], {}, tmp_path), 1.0)


def test_a_hanging_worker_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    script = (
        "import subprocess, sys, time\n"
        "process = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(child)!r}, 'w').write(str(process.pid))\n"
        'print(\'{"kind": "ready"}\', flush=True)\n'
        "time.sleep(60)\n"
    )
    worker = WorkerProcess(
        launched([sys.executable, "-S", "-c", script], dict(os.environ), tmp_path), 20.0
    )
    with pytest.raises(WorkerFault, match=r"no answer within 0.2 s"):
        list(worker.measure({}, 0.2))
    status = Path(f"/proc/{child.read_text()}/status")
    deadline = time.monotonic() + 5
    while status.exists() and "zombie" not in status.read_text():
        assert time.monotonic() < deadline, "the worker's child is still running"
        time.sleep(0.02)
