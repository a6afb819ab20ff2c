"""Workers that share a device: each case once, timed alone, and a fault costs one case."""

import re
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.measure.journal import Journal
from benchmarks.measure.measuring import Lot, Settings
from benchmarks.measure.pool import Batch, measure_batches, workers_for
from tests.suite.fake_worker import FAKE_WORKER, Bench, statuses, subject
from tests.suite.pooled import SOUND, a_case, measured, progress


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("KERNL_PROGRESS", str(tmp_path / "progress"))
    return Bench(tmp_path)


def test_each_case_is_measured_once_and_timed_alone(bench: Bench) -> None:
    names = [f"case{number}" for number in range(12)]
    found = measured(bench, *names)
    assert {name: statuses(points) for name, points in found.items()} == dict.fromkeys(names, SOUND)
    calls = bench.calls()
    assert calls["start"] == 3
    assert all(calls[f"{name}:eager,compile,kernl"] == 1 for name in names)
    taken = re.findall(r"(in|out)-(\d+)", bench.log.read_text())
    assert len({worker for _, worker in taken}) == 3
    for (one, worker), (other, same) in zip(taken[::2], taken[1::2], strict=True):
        assert (one, other, worker) == ("in", "out", same)
    lines = progress(bench)
    assert lines[-2].startswith("36/36  softmax")
    assert re.fullmatch(
        r"3 workers, \d+ s, 12 turns: (\d+ s timing, )?\d+ s nobody alone; "
        r"held up \d+% of their time",
        lines[-1],
    )


def test_small_lots_come_first_and_large_cases_stand_apart(bench: Bench) -> None:
    lots = [
        Lot(subject(), [a_case(f"{op}{n}") for n in range(count)])
        for op, count in (("grid", 4), ("one", 1), ("pair", 2))
    ]
    with bench.journal as journal:
        command = [sys.executable, "-S", str(bench.script), str(bench.log), ""]
        batch = Batch(lots, Settings(), journal, {})
        measure_batches([batch], command=command, workers=1)
    order = [line.split(":")[0] for line in bench.log.read_text().split() if ":" in line]
    assert order == ["one0", "pair0", "pair1", "grid0", "grid3", "grid1", "grid2"]


@pytest.mark.parametrize("fault", ["segfault", "cuda", "hang", "dies"])
def test_a_fault_costs_one_case_and_holds_nobody_up(bench: Bench, fault: str) -> None:
    names = ["one", "two", fault, "three", "four", "five"]
    found = measured(bench, *names, case_timeout_s=1.0)
    for name in names:
        if name != fault:
            assert statuses(found[name]) == SOUND
    assert statuses(found[fault])["kernl"] == "failed"
    if fault != "dies":  # that one dies while all three are timed
        assert statuses(found[fault])["eager"] == "ok"


def test_a_worker_that_breaks_the_protocol_gives_the_device_back(bench: Bench) -> None:
    bench.script.write_text(
        FAKE_WORKER.replace(
            'if what == "dies":',
            'if what == "odd_alone":\n            point("nobody")\n        if what == "dies":',
        )
    )
    names = ["one", "odd_alone", "two", "three"]
    found = measured(bench, *names, workers=2)
    assert [name for name in names if statuses(found[name]) != SOUND] == ["odd_alone"]
    assert "a point nobody asked for" in found["odd_alone"]["kernl"]["reason"]


def test_waiting_for_the_others_is_not_a_case_s_own_time(bench: Bench) -> None:
    found = measured(bench, "quick", "hang", workers=2, case_timeout_s=0.8)
    assert statuses(found["quick"]) == SOUND
    assert "no answer within 0.8 s" in found["hang"]["kernl"]["reason"]


def test_a_long_run_says_where_its_time_went_so_far(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.measure.pool._SAID_S", 0.02)
    measured(bench, *(f"one{n}" for n in range(6)), workers=1)
    said = [line for line in progress(bench) if line.startswith("1 workers, ")]
    assert len(said) >= 3
    turns = [int(number) for line in said for number in re.findall(r"(\d+) turns", line)]
    assert turns == sorted(turns)
    assert turns[-1] == 6


def test_without_any_worker_each_case_says_so(bench: Bench) -> None:
    found = measured(bench, "one", "two", "three", mode="never")
    for points in found.values():
        assert set(statuses(points).values()) == {"failed"}
        assert "the worker did not start" in points["kernl"]["reason"]


def test_workers_are_as_many_as_are_worth_their_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    settings = Settings(workers=12, cases_a_worker=2)
    assert [workers_for(cases, settings) for cases in (0, 1, 3, 4, 20, 100)] == [1, 1, 1, 2, 10, 12]
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert workers_for(100, settings) == 2


def test_operators_and_models_share_the_device(bench: Bench) -> None:
    """Each suite has workers of its own, and nobody times beside anybody."""
    batches = [
        Batch(
            [Lot(replace(subject(), suite=suite), [a_case(f"{suite}{n}") for n in range(6)])],
            Settings(case_timeout_s=5.0, start_timeout_s=20.0),
            bench.journal,
            {},
        )
        for suite in ("kernels", "models")
    ]
    with bench.journal:
        command = [sys.executable, "-S", str(bench.script), str(bench.log), "share"]
        measure_batches(batches, command=command, workers=2)
    points = bench.journal.points()
    assert Counter(point["status"] for point in points) == {"ok": 36}
    assert Counter(point["suite"] for point in points) == {"kernels": 18, "models": 18}
    runs = bench.journal.runs()
    assert all(runs[p["run"]]["fingerprint"]["suite"] == p["suite"] for p in points)
    calls = bench.calls()
    assert calls["start"] == 4
    taken = re.findall(r"(in|out)-(\d+)", bench.log.read_text())
    assert len({worker for _, worker in taken}) == 4
    for (one, worker), (other, same) in zip(taken[::2], taken[1::2], strict=True):
        assert (one, other, worker) == ("in", "out", same)
    lines = progress(bench)
    assert lines[-2].startswith("36/36  ")
    assert lines[-1].startswith("2 + 2 workers, ")


def test_what_a_worker_finds_out_later_stands_in_the_run(bench: Bench) -> None:
    """A case is written down once it is over: also what failed before anything was timed."""
    measured(bench, "memory", "one", workers=1)
    runs = bench.journal.runs()
    known = {
        point["case"]: runs[point["run"]]["fingerprint"].get("copy_bytes_per_s")
        for point in bench.journal.points()
    }
    assert known == {"memory.fp16": 4.2e12, "one.fp16": 4.2e12}


def test_commits_of_a_history_are_measured_at_the_same_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by a worker of its own with its own code, and never more of them than may be."""
    monkeypatch.setattr("os.cpu_count", lambda: 5)  # three workers, two cores for the rest
    commits = [f"{number:040x}" for number in range(5)]
    bench.script.write_text(
        FAKE_WORKER.replace('note("start")', 'note("start"); note("of-" + os.environ["CODE"])')
    )
    journals = {commit: Journal(bench.directory / f"{commit}.jsonl") for commit in commits}
    batches = [
        Batch(
            [Lot(replace(subject(), commit=commit), [a_case(f"{place}{n}") for n in range(3)])],
            Settings(case_timeout_s=5.0, start_timeout_s=20.0),
            journals[commit],
            {"CODE": commit},
        )
        for place, commit in enumerate(commits)
    ]
    command = [sys.executable, "-S", str(bench.script), str(bench.log), "share"]
    measure_batches(batches, command=command)
    for place, commit in enumerate(commits):
        journal = journals[commit]
        journal.close()
        assert {point["case"] for point in journal.points()} == {
            f"{place}{number}.fp16" for number in range(3)
        }
        assert {run["commit"] for run in journal.runs().values()} == {commit}
    calls = bench.calls()
    assert calls["start"] == 5
    assert [calls[f"of-{commit}"] for commit in commits] == [1] * 5
    assert progress(bench)[-1].startswith("3 workers, ")
    assert progress(bench)[-2].startswith("45/45  ")


def test_a_crew_whose_workers_do_not_start_costs_its_own_commit_alone(bench: Bench) -> None:
    bench.script.write_text(
        FAKE_WORKER.replace('if "never" in sys.argv', 'if os.environ["CODE"] == "broken"')
    )
    journals = [Journal(bench.directory / f"{number}.jsonl") for number in range(2)]
    batches = [
        Batch(
            [Lot(subject(), [a_case("one"), a_case("two"), a_case("three")])],
            Settings(case_timeout_s=5.0, start_timeout_s=20.0),
            journal,
            {"CODE": code},
        )
        for journal, code in zip(journals, ("broken", "sound"), strict=True)
    ]
    command = [sys.executable, "-S", str(bench.script), str(bench.log), "share"]
    measure_batches(batches, command=command, workers=2)
    for journal, status in zip(journals, ("failed", "ok"), strict=True):
        journal.close()
        assert Counter(point["status"] for point in journal.points()) == {status: 9}


def test_fewer_are_fewer_of_several_commits_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each commit's crew is of one worker at least, and all together are a quarter."""
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    with ExitStack() as stack:
        batches = []
        for number in range(8):
            journal = stack.enter_context(Journal(bench.directory / f"{number}.points.jsonl"))
            lot = Lot(subject(), [a_case("crowded16_failed")])  # two tries of each find none
            patient = Settings(case_timeout_s=5.0, start_timeout_s=20.0)
            batches.append(Batch([lot], patient, journal, {}))
        command = [sys.executable, "-S", str(bench.script), str(bench.log), "share"]
        measure_batches(batches, command=command, workers=1)
    said = [line for line in progress(bench) if " workers" in line]
    assert said[0].startswith("8 workers, ")
    assert said[1] == "8 cases found no memory beside others: once more, by 2 workers"
    assert said[2].startswith("2 workers, ")
