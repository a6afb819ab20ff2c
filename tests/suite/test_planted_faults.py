"""Faults planted in kernels that the real worker measures: each costs its case, and nothing else.

With `-s` pytest prints what was recorded of each as a table. Where a GPU answers the faults are a
GPU's own, elsewhere those of the dry run on the CPU.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.measure.journal import read
from benchmarks.measure.sweep import SweepCase
from tests.suite.planted import (
    CASE_TIMEOUT_S,
    FAULTS,
    ROOT,
    VARIANTS,
    Fault,
    Planted,
    Points,
    alive,
    case,
    times,
)

HEADING = ("planted: a kernel that …", "recorded", "survived")
Around = tuple[SweepCase, SweepCase, SweepCase]
"""The sound case before, the fault's own, the sound case after."""


@pytest.fixture
def planted(tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> Planted:
    monkeypatch.setenv("KERNL_PROGRESS", str(tmp_path / "progress"))
    return Planted(tmp_path, device)


def row(fault: Fault, points: Points, around: Around, workers: int) -> str:
    """One line of the table: what was recorded of the case, what has a time, who went on."""
    before, own, after = (points[one.name] for one in around)
    faults = [f"{one['status']}: {one['reason']}" for one in own.values() if one["status"] != "ok"]
    recorded = "; ".join(dict.fromkeys(faults)) or "ok, and a time"
    kept = [f"`{name}` of the case" for name in VARIANTS if name in times(own)]
    whole = [times(neighbour) == set(VARIANTS) for neighbour in (before, after)]
    kept.append(("no neighbour", "one neighbour", "both neighbours")[sum(whole)])
    worker = f"{workers} new worker" if workers else "the worker"
    # A seed is another one each time.
    recorded = re.sub(r" \(inputs of seed \d+\)", "", recorded)
    return f"| {fault.planted} | {recorded} | {', '.join(kept)}; {worker} |"


def test_a_fault_costs_its_case_alone(
    planted: Planted, device: str, subtests: pytest.Subtests
) -> None:
    possible = [fault for fault in FAULTS if device in fault.said]
    cases = [case("sound", 1)]
    for fault in possible:
        cases += [case(fault.name, len(cases) + 1), case("sound", len(cases) + 2)]
    points = planted.sweep(cases, CASE_TIMEOUT_S[device])

    print(f"\n| {' | '.join(HEADING)} |\n|{' --- |' * len(HEADING)}")
    around: dict[str, Around] = {}
    started: dict[str, int] = {}
    for place, fault in enumerate(possible):
        before, own, after = cases[2 * place : 2 * place + 3]
        around[fault.name] = before, own, after
        started[fault.name] = planted.workers_between(own, after)
        print(row(fault, points, around[fault.name], started[fault.name]))
    for fault in FAULTS:
        if fault not in possible:
            print(f"| {fault.planted} | needs a GPU | |")

    for fault in possible:
        before_it, itself, after_it = (points[one.name] for one in around[fault.name])
        with subtests.test(fault.name):
            assert times(before_it) == times(after_it) == set(VARIANTS)
            assert times(itself) == set(VARIANTS) - set(fault.costs)
            for name in fault.costs:
                assert itself[name]["status"] == "failed"
                reason = itself[name]["reason"]
                assert [words for words in fault.said[device] if words not in reason] == []
            assert started[fault.name] == fault.ends_worker
    assert [pid for pid in planted.workers() if alive(pid)] == []
    # What the sweep returned is what a later run, or a reader, finds.
    written = {(one["case"], one["variant"]): one for one in planted.journal.points()}
    assert written == {(c, v): one for c, each in points.items() for v, one in each.items()}


@pytest.mark.parametrize(
    "names",
    [
        ("segfault", "late"),
        pytest.param([fault.name for fault in FAULTS], marks=pytest.mark.gpu, id="all"),
    ],
    ids="+".join,
)
def test_a_fault_costs_the_workers_beside_it_nothing(
    planted: Planted, device: str, names: Sequence[str]
) -> None:
    faults = [fault for fault in FAULTS if fault.name in names]
    cases = [case("sound", 1)]
    for fault in faults:
        cases += [case(fault.name, len(cases) + 1), case("sound", len(cases) + 2)]
    workers = 4 if device == "cuda" else 2
    points = planted.measure_together(cases, CASE_TIMEOUT_S[device], workers)
    lost = dict(zip((one.name for one in cases[1::2]), (set(f.costs) for f in faults), strict=True))
    assert {name: set(VARIANTS) - times(each) for name, each in points.items()} == {
        one.name: lost.get(one.name, set()) for one in cases
    }
    assert len(planted.workers()) >= workers
    assert [pid for pid in planted.workers() if alive(pid)] == []


def test_a_killed_sweep_loses_the_case_in_flight_alone(
    planted: Planted, device: str, tmp_path: Path
) -> None:
    cases = [case(name, 1 + place) for place, name in enumerate(("sound", "hang_once", "sound"))]
    program = (
        "import sys; from pathlib import Path; from tests.suite.planted import Planted, case\n"
        "planted = Planted(Path(sys.argv[1]), sys.argv[2])\n"
        "planted.sweep([case('sound', 1), case('hang_once', 2), case('sound', 3)], 600.0)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path), device]
    sweeping = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        waited_until = time.monotonic() + 120
        while "hanging" not in planted.log():
            assert sweeping.poll() is None
            assert time.monotonic() < waited_until, "the case that hangs was not begun"
            time.sleep(0.02)
    finally:
        sweeping.kill()
        sweeping.wait()
    waited_until = time.monotonic() + 20
    while any(map(alive, planted.workers())):
        assert time.monotonic() < waited_until, "the worker outlives the sweep that started it"
        time.sleep(0.02)

    records, problems = read(planted.journal.path)
    assert problems == []
    kept = [one for one in records if one["kind"] == "point"]
    assert [(one["case"], one["variant"]) for one in kept] == [
        (cases[0].name, name) for name in VARIANTS
    ]
    begun = len(planted.log())
    found = planted.sweep(cases, CASE_TIMEOUT_S[device])
    assert {line for line in planted.log()[begun:] if line.startswith("case ")} == {
        f"case {one.name}" for one in cases[1:]
    }
    assert list(found[cases[0].name].values()) == kept
    assert all(times(points) == set(VARIANTS) for points in found.values())
    assert len(planted.workers()) == 2


def test_the_page_says_what_is_recorded_of_each_fault() -> None:
    lines = (ROOT / "CONTRIBUTING.md").read_text().splitlines()
    for fault in FAULTS:
        rows = [line for line in lines if line.startswith(f"| {fault.planted} |")]
        assert rows, f"no row of a kernel that {fault.planted}"
        due = [*fault.said.values(), ("needs a GPU",)]
        assert all(any(all(w in row for w in said) for said in due) for row in rows), rows
