"""Compile-only metrics: exact, repeatable, and moved by what they should notice.

Kernels are compiled in processes of their own, because Triton decides at import whether to
interpret them.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cases
from benchmarks.measure import codegen, codegen_sweep
from benchmarks.measure.codegen_sweep import METRICS, Outcome, Task
from benchmarks.measure.journal import Journal
from benchmarks.measure.points import read_point
from kernl.ops.linear import LINEAR
from kernl.ops.tile import shared_memory_limit

ROOT = Path(__file__).parents[2]
ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100")


def task(op: str, case: str, architecture: str) -> Task:
    frozen = cases.load()
    dims = tuple(frozen.dims(op, case).items())
    return Task(op, case, architecture, frozen.dtype(op, case), dims)


def measured(tasks: list[Task], cache: Path, code: Path = ROOT) -> list[dict[str, Any]]:
    """Outcomes from a fresh process with a fresh Triton cache, with kernl from `code`."""
    program = (
        "import json, sys; from benchmarks.measure.codegen_sweep import *;"
        "tasks = [Task(*t) for t in json.load(sys.stdin)];"
        "print(json.dumps([compile_point(t)._asdict() for t in tasks]))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(cache), "PYTHONPATH": f"{code}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        input=json.dumps(tasks),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return list(json.loads(done.stdout))


@pytest.fixture(scope="module")
def sample() -> list[Task]:
    names = {
        "softmax": "rows2_cols4097.fp32",
        "layer_norm": "rows3_cols7_bias_residual.fp16",
        "linear": "m17_n31_k127_bias_gelu_tanh.bf16",
    }
    return [task(op, case, arch) for op, case in names.items() for arch in ARCHITECTURES]


def test_two_runs_agree_to_the_digit(sample: list[Task], tmp_path: Path) -> None:
    first = measured(sample, tmp_path / "one")
    assert first == measured(sample, tmp_path / "two")
    for outcome in first:
        assert outcome["status"] == "ok"
        values = outcome["values"]
        assert 8 <= values["registers"] <= 255
        assert values["instructions"] > 20
        assert 0 < values["occupancy"] <= 1


def test_a_transposed_weight_needs_no_more_registers(tmp_path: Path) -> None:
    """Read one by one, its elements need an address each: 168 registers where vectors need 72."""
    frozen = cases.load()
    name = "m128_n3072_k768_bias_gelu_tanh_transposed.fp16"
    dims = frozen.dims("linear", name)
    tasks = [
        Task("linear", name, arch, "fp16", tuple({**dims, "transposed": transposed}.items()))
        for arch in ("sm_80", "sm_90")
        for transposed in (False, True)
    ]
    registers = [one["values"]["registers"] for one in measured(tasks, tmp_path)]
    for plain, transposed in (registers[:2], registers[2:]):
        assert transposed <= 1.25 * plain


def test_shared_memory_fits_every_architecture(tmp_path: Path) -> None:
    frozen = cases.load()
    largest = [c for c in frozen.codegen_cases("linear") if c.startswith(("m4096", "m16384"))]
    assert largest
    tasks = [task("linear", case, arch) for case in largest[:2] for arch in ARCHITECTURES]
    outcomes = measured(tasks, tmp_path)
    assert {outcome["status"] for outcome in outcomes} <= {"ok", "skipped"}
    compiled = [pair for pair in zip(tasks, outcomes, strict=True) if pair[1]["status"] == "ok"]
    assert len(compiled) >= 5
    for one, outcome in compiled:
        limit = shared_memory_limit(int(one.architecture.removeprefix("sm_")))
        assert outcome["values"]["shared_memory"] <= limit
    assert max(outcome["values"]["shared_memory"] for _, outcome in compiled) > 50_000


def test_machine_code_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = (
        "  REG:9 STACK:0\n        /*0000*/   @!P0 LDL.64 R4, [R1] ;\n        /*0010*/   EXIT ;\n"
        "        /*0020*/   NOP ;\n"
    )
    read: list[tuple[str, ...]] = []

    def tool(*arguments: str) -> str:
        read.append(arguments)
        return listing

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(codegen, "_cuobjdump", tool)
    counts = {"registers": 9, "spills": 1, "instructions": 2, "memory_instructions": 0}
    assert codegen._counts_kept(b"one") == codegen._counts_kept(b"one") == counts
    assert len(read) == 1
    listing = listing.replace("REG:9", "REG:10")
    assert codegen._counts_kept(b"other") == {**counts, "registers": 10}
    for kept in tmp_path.rglob("*.json"):
        kept.write_text("{broken")
    assert codegen._counts_kept(b"one") == {**counts, "registers": 10}
    assert len(read) == 3


def test_a_case_of_a_library_has_nothing_to_compile(tmp_path: Path) -> None:
    calls = (c.name for c in LINEAR.cases() if not LINEAR.plan_on_meta(c, 90).kernels)
    compiled = set(cases.load().codegen_cases("linear"))
    # What is compiled for another architecture may be a library's call on this one.
    library = task("linear", next(name for name in calls if name in compiled), "sm_90")
    (outcome,) = measured([library], tmp_path)
    assert outcome["status"] == "skipped"
    assert "on sm_90 this case is a library's call" in outcome["reason"]


def test_a_planted_spill_shows(sample: list[Task], tmp_path: Path) -> None:
    """A kernel that asks for one program to hold 64 times as much must spill its registers."""
    (tmp_path / "code").mkdir()
    subprocess.run(["cp", "-r", str(ROOT / "kernl"), str(tmp_path / "code")], check=True)
    rows = tmp_path / "code" / "kernl" / "ops" / "rows.py"
    source = rows.read_text()
    right = "16 if block_cols <= 16384 else 32"
    assert source.count(right) == 1
    rows.write_text(source.replace(right, "1"))
    wide = task("layer_norm", "rows2_cols16384_bias.fp16", "sm_80")

    (good,) = measured([wide], tmp_path / "good")
    (bad,) = measured([wide], tmp_path / "bad", tmp_path / "code")
    assert good["values"]["spills"] == 0
    assert bad["values"]["spills"] > 100


def test_what_this_commit_lacks_is_skipped_in_words(tmp_path: Path) -> None:
    known = task("softmax", "rows1_cols1.fp16", "sm_90")
    absent = known._replace(op="conjured")
    foreign = known._replace(dims=(("rows", 1), ("heads", 2)))
    (tmp_path / "old" / "kernl").mkdir(parents=True)
    (tmp_path / "old" / "kernl" / "__init__.py").write_text("")
    first, second = measured([absent, foreign], tmp_path)
    (third,) = measured([known], tmp_path, tmp_path / "old")
    assert third["status"] == "skipped"
    assert third["reason"].startswith("today's suite cannot compile this commit: No module named")
    assert first == Outcome("skipped", "this commit has no operator conjured", {})._asdict()
    assert second["reason"] == "this commit's softmax has no heads"


def test_a_case_that_does_not_compile_fails_with_its_reason(tmp_path: Path) -> None:
    known = task("softmax", "rows1_cols1.fp16", "sm_90")
    (outcome,) = measured([known._replace(dims=(("rows", 0), ("cols", 1)))], tmp_path)
    assert outcome["status"] == "failed"
    assert "rows = 0" in outcome["reason"]


def test_occupancy_is_the_scarcest_resource() -> None:
    assert codegen.occupancy("sm_80", num_warps=4, registers=32, shared_memory=0) == 1.0
    # 65,536 registers / (128 a thread × 32) = 16 warps of 64.
    assert codegen.occupancy("sm_80", num_warps=4, registers=128, shared_memory=0) == 0.25
    # 33 registers are handed out as 40: 51 warps, 12 whole blocks of 4.
    assert codegen.occupancy("sm_80", num_warps=4, registers=33, shared_memory=0) == 0.75
    # 164 KiB hold one block of 100 KiB: 4 warps of 64.
    assert codegen.occupancy("sm_80", 4, registers=32, shared_memory=100 * 1024) == 0.0625
    # 16 blocks of 1 warp out of 48.
    assert codegen.occupancy("sm_86", num_warps=1, registers=16, shared_memory=0) == 16 / 48


def test_metrics_of_several_launches() -> None:
    one = codegen.Metrics(10, 2, 1000, 50, 5, 0.5)
    two = codegen.Metrics(20, 3, 500, 70, 7, 0.25)
    assert codegen.combine([one, two]) == codegen.Metrics(20, 5, 1000, 120, 12, 0.25)


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

    def run() -> None:
        with Journal(path) as journal:
            codegen_sweep.sweep(_Frozen(), ["op"], journal, "c" * 40, "m", tmp_path)  # type: ignore[arg-type]

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
    for _ in range(3):
        with Journal(tmp_path / "results" / "journal.points.jsonl") as journal:
            codegen_sweep.sweep(_Frozen(), ["op"], journal, "c" * 40, "m", tmp_path)  # type: ignore[arg-type]
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
    for triton in ("3.7.1", "3.7.1", "3.9.0"):
        monkeypatch.setattr(
            codegen_sweep, "fingerprint", lambda suite, t=triton: {"triton": t, "ptxas": "12"}
        )
        with Journal(tmp_path / "j.points.jsonl") as journal:
            codegen_sweep.sweep(_Frozen(), ["op"], journal, "c" * 40, "m", tmp_path)  # type: ignore[arg-type]
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
