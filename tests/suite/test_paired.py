"""Two commits beside each other: blocks in turns, by processes of each, and nobody times beside."""

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measure import paired
from benchmarks.measure.measuring import Settings, SweepCase
from benchmarks.measure.pairs import Asked, NoWorker, Plan, measure_pairs
from benchmarks.measure.process import Launch, WorkerRefusal, launched
from tests.suite.fake_worker import ROOT

WORKER = r"""
import json, os, pathlib, sys, time
log, side = pathlib.Path(sys.argv[1]), sys.argv[2]

def note(text):
    with log.open("a") as file:
        file.write(text + "\n")

def send(**message):
    print(json.dumps(message), flush=True)

def hear():
    return json.loads(sys.stdin.readline())

note(f"start-{side}-{os.getpid()}")
if side == "refuses":
    send(kind="refused", status="skipped", reason="no CUDA device here")
    sys.exit()
if side == "never":
    print("cannot import torch", file=sys.stderr)
    sys.exit(3)
send(kind="ready", fingerprint={})
for line in sys.stdin:
    task = json.loads(line)
    what = task["case"].split(".")[0]
    passed = list(task["implementations"])
    if what == "wrong" and side == "head":
        passed.remove("kernl")
        send(kind="point", variant="kernl", status="failed", reason="relative L2 error 0.5")
    if what == "absent":
        passed = []
        for name in task["implementations"]:
            send(kind="point", variant=name, status="skipped", reason="this commit has no op")
    if what == "dies" and side == "head":
        os._exit(9)
    if what == "slow":
        note("ready-begin")
        time.sleep(0.2)
        note("ready-end")
    if passed:
        send(kind="prepared", names=passed)
        asked = hear()
        while asked["kind"] == "block":
            note(f"in-{os.getpid()}-{side}-{what}-{asked['calm']}")
            time.sleep(0.01)
            if what == "crashes" and side == "head":
                os._exit(9)
            seconds = 1.1e-6 if side == "head" else 1e-6
            count = asked["rounds"] - (what == "short")
            note(f"out-{os.getpid()}")
            send(kind="block", taken={name: [seconds] * count for name in passed})
            asked = hear()
    for name in passed:
        seen = {"sm_clock_mhz": 1980.0 if side == "head" else 1755.0}
        send(kind="point", variant=name, status="ok", reason="", error=1e-4, telemetry=seen)
    send(kind="done", worn=what == "worn" and side == "head")
"""


class Stand:
    """Fake workers of two commits, their log, and what was written."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "log"
        self.log.touch()
        self._script = directory / "worker.py"
        self._script.write_text(WORKER)
        self.written: list[dict[str, Any]] = []

    def side(self, name: str) -> Launch:
        command = [sys.executable, "-S", str(self._script), str(self.log), name]
        return launched(command, {}, self.log.parent)

    def measure(
        self, names: Sequence[str], plan: Plan, base: str = "base", head: str = "head"
    ) -> list[dict[str, Any]]:
        measure_pairs(
            [Asked("softmax", 1, SweepCase(f"{name}.fp16", {"rows": 1}, "fp16")) for name in names],
            self.side(base),
            self.side(head),
            plan,
            self.written.append,
            settings=Settings(case_timeout_s=5.0, start_timeout_s=20.0),
        )
        return self.written

    def lines(self, what: str) -> list[str]:
        return [line for line in self.log.read_text().split() if line.startswith(what)]


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    monkeypatch.setenv("KERNL_PROGRESS", str(tmp_path / "progress"))
    return Stand(tmp_path)


def _of(written: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    (found,) = (one for one in written if one["case"] == f"{name}.fp16" and not one["control"])
    return found


def test_blocks_of_two_commits_take_turns_in_every_session(stand: Stand) -> None:
    names = [f"case{number}" for number in range(6)]
    written = stand.measure(names, Plan(sessions=2, quads=3, rounds=4, pairs=2, control=0.0))
    assert Counter(one["session"] for one in written) == {0: 6, 1: 6}
    begun = set()
    for one in written:
        assert one["status"] == "ok"
        assert {side: seen["sm_clock_mhz"] for side, seen in one["telemetry"].items()} == {
            "base": 1755.0,
            "head": 1980.0,
        }
        order = "".join(block["side"][0] for block in one["blocks"])
        quads = re.findall("....", order)
        assert len(quads) == 3
        assert set(quads) <= {"bhhb", "hbbh"}
        begun |= set(quads)
        for block in one["blocks"]:
            seconds = 1.1e-6 if block["side"] == "head" else 1e-6
            assert block["taken"] == {"eager": [seconds] * 4, "kernl": [seconds] * 4}
    assert len(begun) == 2
    assert len(stand.lines("start-base")) == len(stand.lines("start-head")) == 4  # new each session
    # Only the first block of a case waits until the device rests.
    assert len([line for line in stand.lines("in-") if line.endswith("True")]) == 12


def test_nobody_times_beside_a_pair(stand: Stand) -> None:
    stand.measure([f"case{n}" for n in range(8)], Plan(sessions=1, rounds=2, pairs=3, control=0.5))
    taken = re.findall(r"(in|out)-(\d+)", stand.log.read_text())
    for (one, worker), (other, same) in zip(taken[::2], taken[1::2], strict=True):
        assert (one, other, worker) == ("in", "out", same)
    pids = {line.split("-")[2]: line.split("-")[1] for line in stand.lines("start-")}
    cases = re.findall(r"in-(\d+)-\w+-(\w+)-", stand.log.read_text())
    whole = [cases[place : place + 8] for place in range(0, len(cases), 8)]
    for blocks in whole:  # a case's blocks are not torn apart by another pair's
        assert len({case for _, case in blocks}) == 1
        assert len({pid for pid, _ in blocks}) == 2
    assert set(pids.values()) == {"base", "head"}


def test_a_limit_leaves_cases_of_every_operator() -> None:
    every = paired.asked_for("", "", None)
    some = paired.asked_for("", "", 200)
    assert len(some) == len({(one.op, one.case.name) for one in some}) == 200
    assert {one.op for one in some} == {one.op for one in every}
    assert some == [one for one in every if one in some]
    assert paired.asked_for("", "", 10**6) == every


def test_models_are_a_suite_of_their_own() -> None:
    found = paired.asked_for("models.BertBase", "^batch1_", None, "models")
    assert {(one.op, one.suite) for one in found} == {("bert_base", "models")}
    assert {"batch1_seq16.fp16", "batch1_seq128.fp16"} <= {one.case.name for one in found}
    assert paired.asked_for("models", "", None) == []


def test_of_a_model_one_side_is_made_ready_after_the_other(stand: Stand) -> None:
    """It times what it may compute by meanwhile."""
    asked = [Asked("bert_base", 1, SweepCase("slow.fp16", {"batch": 1}, "fp16"), "models")]
    measure_pairs(
        asked,
        stand.side("base"),
        stand.side("head"),
        Plan(sessions=1, quads=1, rounds=2, pairs=1, control=0.0),
        stand.written.append,
        settings=Settings(case_timeout_s=5.0, start_timeout_s=20.0),
    )
    (one,) = stand.written
    assert (one["status"], one["suite"]) == ("ok", "models")
    ready = [line.split("-")[1] for line in stand.lines("ready-")]
    assert ready == ["begin", "end", "begin", "end"]


def test_controls_are_base_beside_base(stand: Stand) -> None:
    names = [f"case{number}" for number in range(10)]
    written = stand.measure(names, Plan(sessions=2, quads=1, rounds=2, pairs=1, control=0.2))
    controls = [one for one in written if one["control"]]
    assert Counter(one["session"] for one in controls) == {0: 2, 1: 2}
    for one in controls:
        assert {block["side"] for block in one["blocks"]} == {"base", "head"}
        assert all(block["taken"]["kernl"] == [1e-6] * 2 for block in one["blocks"])
    assert len(written) == 24
    # The same cases in each session: a control is judged as the others are.
    assert len({one["case"] for one in controls}) == 2


def test_no_case_is_begun_late(stand: Stand) -> None:
    plan = Plan(sessions=1, pairs=1, control=0.0, until=time.monotonic() - 1)
    assert stand.measure(["one", "two"], plan) == []
    assert stand.lines("start-") == []


@pytest.mark.parametrize(
    ("fault", "status", "of_head", "reason"),
    [
        ("dies", "failed", "failed", "head: the worker ended with status 9"),
        ("crashes", "failed", "failed", "head: the worker ended with status 9 during"),
        ("short", "failed", None, "a block of 2 rounds took"),
        ("wrong", "failed", "failed", "head: relative L2 error 0.5"),
        ("absent", "skipped", "skipped", "base: this commit has no op; head: this commit has no"),
    ],
)
def test_a_fault_costs_one_case(
    stand: Stand, fault: str, status: str, of_head: str | None, reason: str
) -> None:
    plan = Plan(sessions=1, quads=1, rounds=2, pairs=1, control=0.0)
    written = stand.measure(["one", fault, "two"], plan)
    assert [_of(written, name)["status"] for name in ("one", fault, "two")] == ["ok", status, "ok"]
    found = _of(written, fault)
    assert reason in found["reason"]
    assert found["blocks"] == []
    assert of_head in (None, found["sides"]["head"])
    assert _of(written, "one")["sides"] == {"base": "ok", "head": "ok"}
    restarted = fault in ("dies", "crashes", "short")
    assert len(stand.lines("start-")) == (4 if restarted else 2)


def test_a_worker_that_keeps_memory_is_replaced_alone(stand: Stand) -> None:
    stand.measure(["one", "worn", "two"], Plan(sessions=1, quads=1, rounds=2, pairs=1, control=0.0))
    assert (len(stand.lines("start-base")), len(stand.lines("start-head"))) == (1, 2)


@pytest.mark.parametrize(("cases", "pairs"), [(1, 1), (4, 1), (5, 2), (12, 3), (40, 3)])
def test_few_cases_start_few_workers(stand: Stand, cases: int, pairs: int) -> None:
    """A start takes as long as some cases do."""
    names = [f"case{number}" for number in range(cases)]
    stand.measure(names, Plan(sessions=1, quads=1, rounds=2, pairs=3, control=0.0))
    assert len(stand.lines("start-")) == 2 * pairs


def test_where_no_worker_starts_the_run_ends_with_the_reason(stand: Stand) -> None:
    names = [f"case{number}" for number in range(9)]
    with pytest.raises(NoWorker, match=r"the worker of head does not start: .*cannot import torch"):
        stand.measure(names, Plan(sessions=1, pairs=1, control=0.0), head="never")
    assert len(stand.lines("start-never")) == 3


def test_where_nothing_can_be_measured_the_run_ends_at_once(stand: Stand) -> None:
    with pytest.raises(WorkerRefusal, match="no CUDA device"):
        stand.measure(["one", "two"], Plan(pairs=1, control=0.0), base="refuses", head="refuses")
    assert len(stand.lines("start-refuses")) <= 2


def test_what_cannot_be_written_ends_the_run(stand: Stand) -> None:
    def full(record: Mapping[str, Any]) -> None:
        raise OSError(28, f"No space left for {record['case']}")

    with pytest.raises(OSError, match="No space left"):
        measure_pairs(
            [Asked("softmax", 1, SweepCase("one.fp16", {"rows": 1}, "fp16"))] * 4,
            stand.side("base"),
            stand.side("head"),
            Plan(sessions=3, pairs=1, control=0.0),
            full,
        )


def _git_checkout() -> bool:
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True)
    return done.returncode == 0


def test_the_command_times_the_real_workers_of_a_commit_dry(tmp_path: Path) -> None:
    if not _git_checkout():
        pytest.skip("not a git checkout")
    out = tmp_path / "pairs.jsonl"
    asked = ["HEAD", "HEAD", "--out", str(out), "--bench", "kernels.Softmax", "--device", "cpu"]
    few = ["--match", r"^rows1_cols1\.fp16", "--sessions", "1", "--quads", "1", "--rounds", "2"]
    assert paired.main([*asked, *few]) == 0
    run, *pairs = (json.loads(line) for line in out.read_text().splitlines())
    assert run["kind"] == "run"
    assert run["base"] == run["head"]
    assert run["plan"]["sessions"] == 1
    assert sorted(one["control"] for one in pairs) == [False, True]
    for one in pairs:
        assert (one["status"], one["reason"]) == ("ok", "")
        assert [len(block["taken"]["kernl"]) for block in one["blocks"]] == [2] * 4


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["--device", "cpu", "--match", "rows0_"], "no case fits"),
        (["--device", "cpu", "--sessions", "0"], "'0' is no whole number of at least 1"),
        ([], "no NVIDIA GPU on this machine"),
    ],
)
def test_the_command_says_what_is_missing(
    asked: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("benchmarks.measure.device.gpu", lambda: None)
    with pytest.raises(SystemExit) as stopped:
        paired.main(["HEAD", "HEAD", "--out", str(tmp_path / "out"), *asked])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def test_a_commit_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["nowhere", "HEAD", "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert paired.main([*asked, "--bench", "kernels.Softmax"]) == 2
    assert capsys.readouterr().err.startswith("paired: there is no commit 'nowhere'")
