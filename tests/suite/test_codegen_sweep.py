"""A sweep of the compiler: resumed, done again by another toolchain, and a crash costs a point."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measure import codegen_sweep
from benchmarks.measure.codegen_sweep import METRICS, Outcome, Task
from benchmarks.measure.journal import Journal
from benchmarks.measure.points import read_point
from tests.suite.fake_worker import ROOT


class _Frozen:
    """Two cases on one architecture."""

    architectures = ("sm_90",)

    def version(self, op: str) -> int:
        return 1

    def codegen_cases(self, op: str) -> list[str]:
        return ["a1.fp16", "a2.fp16"]

    def selected_codegen_cases(self, op: str) -> set[str]:
        return set(self.codegen_cases(op))

    def selected_architectures(self) -> tuple[str, ...]:
        return self.architectures

    def dims(self, op: str, case: str) -> dict[str, int]:
        return {"a": 1}

    def dtype(self, op: str, case: str) -> str:
        return "fp16"


def test_a_killed_sweep_compiles_only_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    die_after = 1

    def compile_all(waiting: list[Task]) -> Any:
        for one in waiting:
            if len(compiled) == die_after:
                raise KeyboardInterrupt
            compiled.append(one.case)
            status, reason = ("failed", "no memory") if one.case == "a2.fp16" else ("ok", "")
            yield one, Outcome(status, reason, dict.fromkeys(METRICS, len(compiled)))

    monkeypatch.setattr(codegen_sweep, "compile_all", compile_all)
    path = tmp_path / "results" / "journal.points.jsonl"

    frozen: Any = _Frozen()

    def run() -> None:
        with Journal(path) as journal:
            codegen_sweep.sweep(frozen, ["op"], journal, "c" * 40, "m", tmp_path)

    with pytest.raises(KeyboardInterrupt):
        run()
    die_after = 99
    run()
    assert compiled == ["a1.fp16", "a2.fp16"]
    run()
    assert compiled == ["a1.fp16", "a2.fp16", "a2.fp16"], "a failed point is tried again"
    point = read_point(tmp_path, "a1.fp16", "sm_90")
    assert point is not None
    assert point["values"] == dict.fromkeys(METRICS, 1)


def test_a_point_of_a_suite_that_measured_less_is_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    values = {"registers": 1.0}

    def compile_all(waiting: list[Task]) -> Any:
        compiled.extend(one.case for one in waiting)
        return ((one, Outcome("ok", "", values)) for one in waiting)

    monkeypatch.setattr(codegen_sweep, "compile_all", compile_all)
    frozen: Any = _Frozen()
    for _ in range(3):
        with Journal(tmp_path / "results" / "journal.points.jsonl") as journal:
            codegen_sweep.sweep(frozen, ["op"], journal, "c" * 40, "m", tmp_path)
        values = dict.fromkeys(METRICS, 1.0)
    assert compiled == ["a1.fp16", "a2.fp16"] * 2


def test_operators_compiled_ahead_are_found_by_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []

    def compile_all(waiting: list[Task]) -> Any:
        for one in waiting:
            compiled.append(f"{one.op} {one.case}")
            yield one, Outcome("ok", "", dict.fromkeys(METRICS, len(compiled)))

    monkeypatch.setattr(codegen_sweep, "compile_all", compile_all)
    path = tmp_path / "journal.points.jsonl"
    frozen: Any = _Frozen()
    with Journal(path) as journal:
        codegen_sweep.sweep(frozen, ["one", "two"], journal, "c" * 40, "m", None)
    assert compiled == ["one a1.fp16", "one a2.fp16", "two a1.fp16", "two a2.fp16"]
    assert not (tmp_path / "points").exists()
    with Journal(path) as journal:
        codegen_sweep.sweep(frozen, ["two"], journal, "c" * 40, "m", tmp_path)
    assert len(compiled) == 4
    point = read_point(tmp_path, "a2.fp16", "sm_90")
    assert point is not None
    assert point["values"] == dict.fromkeys(METRICS, 4)


def test_the_quick_profile_leaves_points_out_and_keeps_what_was_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_all(waiting: list[Task]) -> Any:
        return ((one, Outcome("ok", "", dict.fromkeys(METRICS, 1.0))) for one in waiting)

    monkeypatch.setattr(codegen_sweep, "compile_all", compile_all)
    frozen: Any = _Frozen()
    few: Any = _Frozen()
    few.selected_codegen_cases = lambda op: {"a2.fp16"}
    none: Any = _Frozen()
    none.selected_architectures = lambda: ("sm_80",)

    def statuses(asked: Any) -> dict[str, str]:
        with Journal(tmp_path / "journal.points.jsonl") as journal:
            codegen_sweep.sweep(asked, ["op"], journal, "c" * 40, "m", tmp_path)
        points = {case: read_point(tmp_path, case, "sm_90") for case in ("a1.fp16", "a2.fp16")}
        return {case: point["status"] for case, point in points.items() if point is not None}

    assert statuses(none) == {"a1.fp16": "skipped", "a2.fp16": "skipped"}
    assert statuses(few) == {"a1.fp16": "skipped", "a2.fp16": "ok"}
    assert statuses(frozen) == {"a1.fp16": "ok", "a2.fp16": "ok"}
    assert statuses(none) == {"a1.fp16": "ok", "a2.fp16": "ok"}


def test_another_toolchain_compiles_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []

    def compile_all(waiting: list[Task]) -> Any:
        for one in waiting:
            compiled.append(one.case)
            yield one, Outcome("ok", "", dict.fromkeys(METRICS, 1.0))

    monkeypatch.setattr(codegen_sweep, "compile_all", compile_all)
    frozen: Any = _Frozen()
    for triton in ("3.7.1", "3.7.1", "3.9.0"):
        monkeypatch.setattr(
            codegen_sweep, "fingerprint", lambda suite, t=triton: {"triton": t, "ptxas": "12"}
        )
        with Journal(tmp_path / "j.points.jsonl") as journal:
            codegen_sweep.sweep(frozen, ["op"], journal, "c" * 40, "m", tmp_path)
    assert len(compiled) == 4


def test_a_crash_of_the_compiler_costs_one_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted kernl whose softmax takes the process down for one of three cases."""
    package = tmp_path / "kernl"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "op.py").write_text(
        "class Op: ...\nclass Case:\n    of = staticmethod(lambda d, **k: k['rows'])\n"
    )
    (package / "ops.py").write_text(
        "import os\n"
        "class Op:\n"
        "    name, edges = 'softmax', ({'rows': 1},)\n"
        "    def plan_on_meta(self, rows, capability):\n"
        "        os._exit(9) if rows == 2 else None\n"
        "        raise ValueError(f'rows {rows}')\n"
        "ALL = (Op(),)\n"
    )
    (package / "launch.py").write_text("Launch = object\ninterpreting = None\n")
    program = (
        "import json; from benchmarks.measure.codegen_sweep import *\n"
        "if __name__ == '__main__':\n"
        "    tasks = [Task('softmax', f'c{i}', 'sm_90', '', (('rows', i),)) for i in (1, 2, 3)]\n"
        "    print(json.dumps({t.case: o.reason for t, o in compile_all(tasks, workers=2)}))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(program)
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == {
        "c1": "ValueError: rows 1",
        "c2": "the compiler took its process down",
        "c3": "ValueError: rows 3",
    }


def test_a_compiling_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    """asv, killed, would leave its `setup_cache` behind with the journal locked."""
    child = (
        "import os, sys, time; sys.path.insert(0, sys.argv[1]);"
        "from benchmarks.measure.lifetime import die_with_parent; die_with_parent();"
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, sys.argv[1]])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent, str(ROOT)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    for _ in range(100):
        if not _alive(pid):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} outlived its parent")


def _alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
