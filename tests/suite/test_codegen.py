"""Compile-only metrics: exact, repeatable, and moved by what they should notice.

Kernels are compiled in processes of their own, because Triton decides at import whether to
interpret them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cases
from benchmarks.measure import codegen
from benchmarks.measure.codegen_sweep import Outcome, Task
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
