"""Who has a device alone has it alone, nobody waits for ever, and who is aside goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.measure.process import WorkerFault, WorkerProcess
from benchmarks.measure.turns import RESTING, Turns

WORKER = """
import json, sys, time
def send(kind, quiet=False):
    print(json.dumps({"kind": kind, "what": "timing", "quiet": quiet}), flush=True)
def work(what, seconds, log=open(sys.argv[1], "w")):
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        print(what, time.monotonic(), file=log, flush=True)
        time.sleep(0.001)
send("back")
sys.stdin.readline()
send("ready")
for line in sys.stdin:
    for step in json.loads(line)["steps"]:
        if step in ("alone", "together", "back"):
            send(step)
            sys.stdin.readline()
        elif step == "alone quietly":
            send("alone", quiet=True)
            sys.stdin.readline()
        elif step in ("aside", "rested"):
            send(step)
        elif step == "die":
            sys.exit(3)
        else:
            work(*step.split())
    send("done")
"""
BESIDE, ALONE = "beside 0.03", ["alone", "rested", "itself 0.03", "together"]
COMPILING = ["aside", "compile 0.05", "back"]
_SIGNAL_S = 0.005
"""A process may go on for so long after it was told to stop."""

Marks = dict[str, list[float]]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator["Processes"]:
    found = Processes(tmp_path)
    yield found
    found.stop()


class Processes:
    """Real processes that note what they do at each millisecond."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.turns = Turns()
        self.all: list[WorkerProcess] = []

    def start(self, *, quiet: bool = False) -> WorkerProcess:
        log = self.directory / f"{len(self.all)}.log"
        command = [sys.executable, "-S", "-c", WORKER, str(log)]
        turn = self.turns.turn(quiet=quiet)
        self.all.append(WorkerProcess(command, dict(os.environ), self.directory, 20.0, turn))
        return self.all[-1]

    def marks(self, number: int) -> Marks:
        found: Marks = {"beside": [], "itself": [], "compile": []}
        for line in (self.directory / f"{number}.log").read_text().splitlines():
            what, at = line.split()
            found[what].append(float(at))
        return found

    def stop(self) -> None:
        for process in self.all:
            process.stop()


def do(process: WorkerProcess, steps: list[str], timeout_s: float = 20.0) -> None:
    for _ in process.measure({"steps": steps}, timeout_s):
        pass


def at_once(*jobs: tuple[WorkerProcess, list[str]]) -> None:
    threads = [threading.Thread(target=do, args=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive(), "somebody waits for ever"


def stretches(times: list[float]) -> list[tuple[float, float]]:
    """First and last moment of each stretch in which a mark followed the other."""
    found: list[tuple[float, float]] = []
    for at in times:
        if found and at - found[-1][1] < 0.02:
            found[-1] = found[-1][0], at
        else:
            found.append((at, at))
    return found


def inside(times: list[float], alone: list[tuple[float, float]]) -> int:
    """How many moments lie within, but for what a signal takes to arrive."""
    return sum(first + _SIGNAL_S < at < last for at in times for first, last in alone)


def test_one_is_alone_or_many_are_together(processes: Processes) -> None:
    workers = [processes.start() for _ in range(4)]
    steps = [BESIDE, *ALONE, BESIDE, *COMPILING, BESIDE] * 4
    at_once(*((worker, steps) for worker in workers))
    marks = [processes.marks(number) for number in range(4)]
    for number, own in enumerate(marks):
        alone = stretches(own["itself"])
        assert len(alone) >= 4
        for other in marks[:number] + marks[number + 1 :]:
            assert inside(other["beside"], alone) == 0
            assert inside(other["itself"], alone) == 0
    assert processes.turns.taken == 16
    assert set(processes.turns.alone_s) == {RESTING, "timing"}
    assert 16 * 0.03 <= processes.turns.alone_s["timing"] < 10.0
    assert processes.turns.held_s > 0.0


def test_who_is_in_the_middle_of_its_work_stands_still(processes: Processes) -> None:
    holder, other = processes.start(), processes.start()
    at_once((holder, [BESIDE, *ALONE] * 6), (other, ["beside 0.6"]))
    alone = stretches(processes.marks(0)["itself"])
    beside = processes.marks(1)["beside"]
    assert len(alone) == 6
    assert inside(beside, alone) == 0
    assert any(beside[0] < first for first, _ in alone)
    assert any(last < beside[-1] for _, last in alone)


@pytest.mark.parametrize("quiet", [True, False])
def test_who_is_aside_goes_on_unless_the_host_has_to_be_quiet(
    processes: Processes, quiet: bool
) -> None:
    holder, other = processes.start(quiet=quiet), processes.start()
    at_once((holder, [BESIDE, *ALONE] * 6), (other, ["aside", "compile 0.5", "back"]))
    alone = stretches(processes.marks(0)["itself"])
    assert (inside(processes.marks(1)["compile"], alone) == 0) == quiet
    assert processes.marks(1)["compile"]


def test_a_worker_can_ask_for_a_quiet_host_once(processes: Processes) -> None:
    holder, other = processes.start(), processes.start()
    steps = [BESIDE, "alone quietly", "itself 0.05", "together", BESIDE, *ALONE]
    at_once((holder, steps), (other, ["aside", "compile 0.4", "back"]))
    quiet, plain = stretches(processes.marks(0)["itself"])
    assert inside(processes.marks(1)["compile"], [quiet]) == 0
    assert inside(processes.marks(1)["compile"], [plain]) > 0


def test_standing_still_is_not_a_process_s_own_time(processes: Processes) -> None:
    holder, other = processes.start(), processes.start()
    at_once((holder, ["alone", "itself 1.2", "together"]), (other, ["beside 0.5"]))
    started = time.monotonic()
    thread = threading.Thread(target=do, args=(holder, ["alone", "itself 1.2", "together"]))
    thread.start()
    time.sleep(0.1)
    do(other, ["beside 0.05"], timeout_s=0.8)  # it was stopped for longer than that
    thread.join()
    assert time.monotonic() - started > 1.2
    with pytest.raises(WorkerFault, match=r"no answer within 0\.3 s"):
        do(other, ["beside 5"], timeout_s=0.3)


def test_who_waits_and_is_stopped_is_held_up_once(processes: Processes) -> None:
    workers = [processes.start() for _ in range(3)]
    begun, before = time.monotonic(), processes.turns.held_s
    at_once(*((worker, [BESIDE, *ALONE] * 8) for worker in workers))
    taken = time.monotonic() - begun
    # One of the three has the device at any time, so two are held up at the most.
    assert 0.0 < processes.turns.held_s - before <= 2.0 * taken
    assert all(turn.stopped_s + turn.waited_s <= taken + 1.0 for turn in processes.turns._turns)


def test_who_ends_gives_the_device_back(processes: Processes) -> None:
    holder, other = processes.start(), processes.start()
    thread = threading.Thread(target=do, args=(other, ["beside 0.2", *ALONE]))
    thread.start()
    with pytest.raises(WorkerFault, match="ended with status 3"):
        do(holder, ["alone", "itself 0.1", "die"])
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert processes.marks(1)["itself"]


def test_a_process_that_stands_still_can_be_ended(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.measure.process._STOP_S", 0.5)
    holder, other = processes.start(), processes.start()
    thread = threading.Thread(target=do, args=(holder, ["alone", "itself 4", "together"]))
    thread.start()
    time.sleep(0.2)
    started = time.monotonic()
    other.stop()
    assert 0.4 < time.monotonic() - started < 3.0
    thread.join(timeout=20)


def test_what_for_is_told_apart() -> None:
    turns = Turns()
    turn = turns.turn()
    turn.take("timing")
    time.sleep(0.02)
    turn.rested()
    time.sleep(0.02)
    turn.tell("ceilings")
    time.sleep(0.02)
    turn.give_back()
    turn.tell("nobody counts this")
    turn.rested()
    assert set(turns.alone_s) == {RESTING, "timing", "ceilings"}
    assert all(seconds >= 0.02 for seconds in turns.alone_s.values())


def test_who_never_had_it_gives_nothing_back() -> None:
    turns = Turns()
    first, second = turns.turn(), turns.turn()
    first.drop()
    first.give_back()
    second.take("timing")
    second.drop()
    first.take("timing")
    first.drop()
    assert turns.taken == 2


def test_a_stopped_process_dies_with_its_parent(tmp_path: Path) -> None:
    """What is killed with SIGKILL need not be running: nothing stopped is left behind."""
    program = (
        "import json, os, signal, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'from benchmarks.measure.lifetime import "
        "die_with_parent; die_with_parent(); print(1, flush=True); import time; time.sleep(60)'],"
        " stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "os.kill(child.pid, signal.SIGSTOP)\n"
        "print(json.dumps(child.pid), flush=True)\n"
        "time.sleep(60)\n"
    )
    root = Path(__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = json.loads(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        state = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[-1].split()[0]
        if state == "Z":
            break
        time.sleep(0.02)
    else:
        assert not Path(f"/proc/{child}").exists()
