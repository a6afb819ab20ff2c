"""A killed sweep goes on where it stopped, and no point is measured twice."""

import datetime
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measure import resume
from benchmarks.measure.journal import read
from tests.suite.fake_worker import (
    COMMIT,
    DEVICE,
    FAKE_WORKER,
    ROOT,
    Bench,
    reusable,
    statuses,
)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("KERNL_PROGRESS", str(tmp_path / "progress"))
    return Bench(tmp_path)


def test_a_killed_sweep_goes_on_without_measuring_again(bench: Bench, tmp_path: Path) -> None:
    names = ["slow", "slow1", "slow2", "slow3"]
    bench.script.write_text(FAKE_WORKER.replace('what == "slow"', 'what.startswith("slow")'))
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import sys\nfrom pathlib import Path\nfrom tests.suite.fake_worker import Bench\n"
        "bench = Bench(Path(sys.argv[1]))\n"
        f"bench.script.write_text({bench.script.read_text()!r})\n"
        f"bench.sweep(*{names!r}, case_timeout_s=20.0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(driver), str(tmp_path)], env=environment)
    deadline = time.monotonic() + 30
    while len(bench.journal.points()) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    done = bench.reusable()
    assert 1 <= len(done) < len(names)
    found = bench.sweep(*names, case_timeout_s=20.0)
    assert all(set(statuses(points).values()) == {"ok"} for points in found.values())
    tried = {call.split(":")[0]: count for call, count in bench.calls().items() if ":" in call}
    assert all(tried[case.removesuffix(".fp16")] == 1 for case in done)
    # The case that was under way, and no other, was begun twice.
    assert sum(tried.values()) <= len(names) + 1


def test_a_finished_journal_starts_no_worker(bench: Bench) -> None:
    first = bench.sweep("one", "exit")
    calls = bench.calls()
    assert bench.sweep("one", "exit") == first
    assert bench.calls() == calls


@pytest.mark.parametrize(
    "replaced",
    [
        {"commit": "f" * 40},
        {"version": 2},
        {"op": "linear"},
        {"suite": "codegen"},
        {"variants": ("eager", "compile", "kernl", "another")},
        {"fingerprint": {**DEVICE, "gpu": "NVIDIA A100"}},
        {"fingerprint": {**DEVICE, "driver": "581"}},
        {"fingerprint": {**DEVICE, "torch": "2.12.0"}},
        {"fingerprint": {**DEVICE, "triton": "3.7.0"}},
        {"after": datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)},
    ],
)
def test_points_of_anything_else_are_not_reused(bench: Bench, replaced: dict[str, Any]) -> None:
    bench.sweep("one")
    assert set(bench.reusable()) == {"one.fp16"}
    assert bench.reusable(**replaced) == {}


def test_a_case_that_lacks_an_implementation_is_measured_whole(bench: Bench) -> None:
    bench.sweep("one", "two")
    records, _ = read(bench.journal.path)
    assert set(reusable(records[:-1])) == {"one.fp16"}


def test_implementations_of_several_runs_are_measured_again_beside_each_other(
    bench: Bench,
) -> None:
    """A run that asked for kernl alone keeps what the others had, and stands beside none of it."""
    bench.sweep("one")
    records, _ = read(bench.journal.path)
    (run,) = (record for record in records if record["kind"] == "run")
    kernl = next(record for record in records if record.get("variant") == "kernl")
    later = [*records, {**run, "id": "later"}, {**kernl, "run": "later"}]
    assert reusable(later) == {}
    assert set(reusable(later, left_out=("eager", "compile"))) == {"one.fp16"}


def asv_result(path: Path, started_at: datetime.datetime, benchmark: str) -> None:
    path.write_text(
        json.dumps(
            {
                "version": 2,
                "commit_hash": COMMIT,
                "date": 1_700_000_000_000,
                "params": {"machine": "m"},
                "result_columns": ["result", "params", "version", "started_at"],
                "results": {
                    benchmark: [
                        [1e-6],
                        [["'one.fp16'"], ["'kernl'"]],
                        "1",
                        int(started_at.timestamp() * 1e3),
                    ]
                },
            }
        )
    )


def test_points_that_asv_has_saved_are_measured_again(bench: Bench) -> None:
    bench.sweep("one")
    path = bench.journal.path.with_name("01234567-worktree.json")
    now = datetime.datetime.now(datetime.UTC)
    hour = datetime.timedelta(hours=1)

    def counts(benchmark: str, at: datetime.datetime) -> bool:
        asv_result(path, at, benchmark)
        after = resume.saved_at(path, "m", "kernels", "softmax")
        return bool(bench.reusable(after=after))

    assert resume.saved_at(path, "m", "kernels", "softmax") is None  # asv has saved nothing yet
    assert not counts("kernels.Softmax.track_time", now + hour)
    assert counts("kernels.Softmax.track_time", now - hour)
    assert counts("kernels.LayerNorm.track_time", now + hour)
    assert counts("codegen.Softmax.track_registers", now + hour)
    path.write_text("{")
    assert resume.saved_at(path, "m", "kernels", "softmax") is None
