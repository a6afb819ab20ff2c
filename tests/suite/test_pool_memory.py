"""Workers that share a device's memory: who waits, who is measured once more, and when alone."""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measure.journal import read
from benchmarks.measure.measuring import Lot, Measuring, Settings, SweepCase
from benchmarks.measure.pool import Batch, measure_batches
from benchmarks.measure.room import Room
from tests.suite.fake_worker import FAKE_WORKER, Bench, statuses, subject
from tests.suite.pooled import SOUND, a_case, measured, progress


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("KERNL_PROGRESS", str(tmp_path / "progress"))
    return Bench(tmp_path)


@pytest.mark.parametrize("status", ["failed", "skipped", "cublas"])
def test_what_finds_no_memory_waits_for_the_end_of_the_queue(bench: Bench, status: str) -> None:
    """Also where kernl did without, and left the call to PyTorch; cuBLAS has other words for it."""
    name = f"crowded1_{status}"
    found = measured(bench, name, *(f"case{number}" for number in range(9)))
    assert all(statuses(points) == SOUND for points in found.values())
    order = [line.split(":")[0] for line in bench.log.read_text().split() if ":" in line]
    assert order.count(name) == 2
    assert len(order) - 1 - order[::-1].index(name) >= 8
    assert not any("no memory" in line for line in progress(bench))
    (said,) = (line for line in progress(bench) if "waits for more room" in line)
    assert name in said
    assert "out of memory" in said or "CUBLAS" in said


@pytest.mark.parametrize(
    ("times", "workers", "said"),
    [
        (2, 3, ["1 cases found no memory beside others: once more, alone"]),
        (2, 8, ["1 cases found no memory beside others: once more, by 2 workers"]),
        (
            3,
            8,
            [
                "1 cases found no memory beside others: once more, by 2 workers",
                "1 cases found no memory beside others: once more, alone",
            ],
        ),
    ],
)
def test_what_finds_no_memory_at_the_end_either_is_measured_beside_fewer(
    bench: Bench, times: int, workers: int, said: list[str]
) -> None:
    name = f"crowded{times}_failed"
    found = measured(bench, "one", name, "two", workers=workers)
    assert all(statuses(points) == SOUND for points in found.values())
    assert [line for line in progress(bench) if "no memory" in line] == said
    records = [record for record in read(bench.journal.path)[0] if record["kind"] == "point"]
    assert Counter(record["status"] for record in records) == {"ok": 9}


@pytest.mark.parametrize(("free", "most"), [(0, 1), (3 << 30, 2), (80 << 30, 3)])
def test_no_more_cases_run_than_there_is_memory_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, free: int, most: int
) -> None:
    running, seen = Counter[str](), set()
    measure = Measuring.measure

    def counted(self: Measuring, case: SweepCase, note: Any) -> None:
        running["now"] += 1
        seen.add(running["now"])
        measure(self, case, note)
        running["now"] -= 1

    monkeypatch.setattr(Measuring, "measure", counted)
    found = measured(
        bench, *(f"slow{n}" for n in range(8)), memory=lambda: (free, 80 << 30), case_bytes=2 << 30
    )
    assert all(statuses(points) == SOUND for points in found.values())
    assert max(seen) == most


def _needs(bench: Bench, monkeypatch: pytest.MonkeyPatch, case: SweepCase) -> list[int]:
    """Bytes that were asked for, each time that this case was to begin."""
    asked: list[int] = []
    place = Room.place

    def noted(self: Room, need: int, **how: Any) -> Any:
        asked.append(need)
        return place(self, need, **how)

    monkeypatch.setattr(Room, "place", noted)
    with bench.journal as journal:
        measure_batches(
            [Batch([Lot(subject(), [case])], Settings(case_bytes=500), journal, {})],
            command=[sys.executable, "-S", str(bench.script), str(bench.log), "share"],
            workers=2,
        )
    return asked


def test_a_case_that_found_no_memory_is_given_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = replace(a_case("crowded1_failed"), bytes=1000)
    needed = 500 + 64 * 1000 + 16 * 1000
    assert _needs(bench, monkeypatch, case) == [needed, 4 * needed]


def test_input_sets_take_no_more_than_they_may(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = replace(a_case("one"), bytes=1 << 30)
    assert _needs(bench, monkeypatch, case) == [500 + (1 << 30) + (16 << 30)]


def test_a_worker_that_found_no_memory_gives_back_what_it_kept(bench: Bench) -> None:
    """A capture that failed keeps its memory for as long as the process lives."""
    measured(bench, "crowded1_failed", "one", "two", "three", workers=2)
    assert bench.calls()["start"] == 3


def test_beside_others_a_case_need_not_make_do_without_memory(bench: Bench) -> None:
    bench.script.write_text(
        FAKE_WORKER.replace(
            'what = task["case"]',
            'note(f"beside-{task[\'beside_others\']}")\n    what = task["case"]',
        )
    )
    measured(bench, "crowded2_failed", "one", workers=2)
    calls = bench.calls()
    assert calls["beside-True"] == 3
    assert calls["beside-False"] == 1  # the last try, alone


def test_a_kill_for_want_of_memory_is_no_fault_of_an_implementation(bench: Bench) -> None:
    bench.script.write_text(
        FAKE_WORKER.replace(
            'if what == "segfault":',
            'if what.startswith("killed"):\n'
            "                os.kill(os.getpid(), signal.SIGKILL)\n"
            '            if what == "segfault":',
        )
    )
    cases = [a_case(name) for name in ("killed_one", "sound", "killed_two")]  # the sound one last
    settings = Settings(case_timeout_s=5.0, start_timeout_s=20.0, faults_in_a_row=2)
    lots = [Lot(subject(), cases), Lot(replace(subject(), suite="models"), [a_case("slow")])]
    with bench.journal as journal:
        measure_batches(
            [Batch([lot], settings, journal, {}) for lot in lots],
            command=[sys.executable, "-S", str(bench.script), str(bench.log), "share"],
            workers=1,
        )
    reasons = {
        record["case"]: record["reason"]
        for record in read(bench.journal.path)[0]
        if record["kind"] == "point" and record["variant"] == "kernl"
    }
    assert reasons["sound.fp16"] == reasons["slow.fp16"] == ""
    assert all("SIGKILL" in reasons[f"killed_{one}.fp16"] for one in ("one", "two"))


def test_alone_no_memory_is_no_memory(bench: Bench) -> None:
    found = measured(bench, "memory", "one")
    assert statuses(found["memory"]) == {**SOUND, "kernl": "failed"}
    assert "OutOfMemoryError" in found["memory"]["kernl"]["reason"]
