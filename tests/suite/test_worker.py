"""The real worker, dry on the CPU: right kernels pass its check, wrong ones do not."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.measure import __main__ as command
from benchmarks.measure import device, worker
from benchmarks.measure.journal import Journal, Record
from benchmarks.measure.process import WorkerProcess, launched
from benchmarks.measure.sweep import (
    RESULTS,
    Settings,
    SweepCase,
    sweep,
    worker_command,
    worker_environment,
)
from tests.suite.fake_worker import ROOT, subject


def test_a_dry_run_may_not_write_into_the_results() -> None:
    journal = Journal(RESULTS / "m" / "01234567-worktree.points.jsonl")
    with pytest.raises(ValueError, match="a dry run may not write"):
        sweep(subject(), [], journal, settings=Settings(device="cpu"))
    assert not journal.path.exists()


def check_dry_point(op: Any, case: Any, point: Record) -> None:
    if point["variant"] == "compile":
        assert point["status"] == "skipped"
        return
    assert point["status"] == "ok", point["reason"]
    assert point["dry"] is True
    assert point["values"]["time"] > 0
    factor = 1 if point["variant"] == "kernl" else 10
    assert 0 <= point["error"] <= factor * op.tolerance[case.dtype]


def test_the_real_worker_measures_every_op_dry(tmp_path: Path) -> None:
    ops = pytest.importorskip("kernl.ops").ALL
    environment = {**worker_environment(None), "KERNL_CODE": str(ROOT)}
    process = WorkerProcess(
        launched(worker_command("cpu"), environment, tmp_path), start_timeout_s=120.0
    )
    assert process.fingerprint["torch"] == device.fingerprint()["torch"]
    variants = ["eager", "compile", "kernl"]
    for op in ops:
        for case in sorted(op.edge_cases(), key=op.bytes)[:3]:
            task = {"op": op.name, "case": case.name, "dims": dict(case.dims), "dtype": case.dtype}
            task |= {"version": op.version, "implementations": variants, "seed": 1}
            points = list(process.measure({**task, "samples": 1, "budget_s": 0.1}, 120.0))
            assert sorted(point["variant"] for point in points) == sorted(variants)
            for point in points:
                check_dry_point(op, case, point)
    process.stop()


def test_the_command_measures_and_prints_a_few_cases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "j.points.jsonl"
    chosen = ["--match", "rows3_cols7", "--limit", "1", "--device", "cpu"]
    command.main(["softmax", *chosen, "--journal", str(path)])
    points = {point["variant"]: point for point in Journal(path).points()}
    assert {point["case"] for point in points.values()} == {"rows3_cols7.fp16"}
    assert points["kernl"]["dry"] is True
    heading, *lines = capsys.readouterr().out.splitlines()
    assert "cold µs" in heading
    words = {line.split()[1]: line.split() for line in lines}
    assert words["eager"][6] == "1.00"
    assert float(words["kernl"][2]) == pytest.approx(1e6 * points["kernl"]["values"]["time"], 1e-2)
    assert "skipped: torch.compile is measured on CUDA alone" in " ".join(words["compile"])


def test_the_command_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    for arguments in (["softmax", "--match", "nothing"], ["softmax"]):
        with pytest.raises(SystemExit):
            command.main(arguments)
    said = capsys.readouterr().err
    assert "no case of softmax contains 'nothing'" in said
    assert "no NVIDIA GPU on this machine" in said


WRONG_OPS = """
import torch
from dataclasses import dataclass

@dataclass(frozen=True)
class Case:
    dims: tuple
    dtype: str
    @classmethod
    def of(cls, dtype, **dims):
        return cls(tuple(dims.items()), dtype)

def wrong(x):
    return x * 1.01

def unwritten(x):
    out = torch.empty_like(x)
    out[1:] = x[1:] * 2
    return out

def writes(x):
    x += 1
    return (x - 1) * 2

def raises(x):
    raise ValueError("no such thing\\nsecond line")

class Op:
    version = 1
    tolerance = {"fp32": 1e-6}
    def __init__(self, name, kernel):
        self.name, self.kernel = name, kernel
    def reference(self, x):
        return x * 2
    def cases(self):
        return (Case.of("fp32", rows=4),)
    def inputs(self, case, device, seed):
        return {"x": torch.randn(4, generator=torch.Generator().manual_seed(seed))}
    def unsupported(self, x):
        return "not for this shape" if self.name == "never" else None
    def bytes(self, case):
        return 32
    flops = bytes

KERNELS = {"wrong": wrong, "unwritten": unwritten, "writes": writes, "raises": raises,
           "never": wrong, "right": lambda x: x + x}
ALL = tuple(Op(name, kernel) for name, kernel in KERNELS.items())
"""


@pytest.fixture(scope="module")
def wrong_points(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Record]:
    """Points of ops that are wrong in one way each, in a kernl package of their own."""
    directory = tmp_path_factory.mktemp("code")
    package = directory / "kernl" / "ops"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").write_text(WRONG_OPS)
    process = WorkerProcess(
        launched(worker_command("cpu"), worker_environment(directory), directory), 60.0
    )
    task = {"case": "rows4.fp32", "dims": {"rows": 4}, "dtype": "fp32", "version": 1, "seed": 7}
    task |= {"implementations": ["eager", "kernl"], "samples": 1, "budget_s": 0.1}
    names = ("wrong", "unwritten", "writes", "raises", "never", "right", "absent")
    tasks = {name: {**task, "op": name} for name in names}
    tasks["renamed"] = {**task, "op": "right", "dims": {"lines": 4}}
    tasks["newer"] = {**task, "op": "right", "version": 2}
    found = {
        (name, point["variant"]): point
        for name, each in tasks.items()
        for point in process.measure(each, 60.0)
    }
    process.stop()
    return found


@pytest.mark.parametrize(
    ("op", "status", "reason"),
    [
        ("wrong", "failed", "relative L2 error 0.495 against float64, allowed is 1e-06"),
        ("unwritten", "failed", "1 of 4 output elements are NaN or infinite"),
        ("writes", "failed", "the call changed its inputs: x (inputs of seed 7)"),
        ("raises", "failed", "the check failed: ValueError: no such thing (inputs of seed 7)"),
        ("never", "skipped", "not for this shape"),
        ("absent", "skipped", "this commit has no op absent"),
        ("renamed", "skipped", "right has dims rows in this commit, the case has lines"),
        ("newer", "skipped", "version 1 in this commit, the frozen cases have version 2"),
        ("right", "ok", ""),
    ],
)
def test_a_kernel_is_checked_before_it_is_timed(
    wrong_points: dict[tuple[str, str], Record], op: str, status: str, reason: str
) -> None:
    point = wrong_points[op, "kernl"]
    assert point["status"] == status
    assert reason in point["reason"]
    assert ("samples" in point) == (status == "ok")
    if op in ("wrong", "unwritten", "writes", "raises"):
        assert wrong_points[op, "eager"]["status"] == "ok"


def test_kernl_from_elsewhere_is_refused(tmp_path: Path) -> None:
    environment = {**worker_environment(None), "KERNL_CODE": str(tmp_path)}
    points = sweep(
        subject(),
        [SweepCase("rows4_cols4.fp16", {"rows": 4, "cols": 4}, "fp16")],
        Journal(tmp_path / "j.points.jsonl"),
        settings=Settings(device="cpu"),
        environment=environment,
    )
    assert {point["status"] for point in points} == {"failed"}
    assert f"not from KERNL_CODE = {tmp_path}" in points[0]["reason"]


@pytest.mark.parametrize(("kept", "left", "worn"), [(0, 0, False), (2, 0, False), (2, 2, True)])
def test_a_worker_is_worn_by_what_it_cannot_give_back(
    kept: int, left: int, worn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a case held until its last point was sent can be given back."""
    reserved = [kept << 30]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: reserved[-1])
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: reserved.append(left << 30))
    assert worker._keeps_more_than(1 << 30) is worn
    assert len(reserved) == (2 if kept else 1)


def test_what_two_commits_are_not_compared_in_is_not_imported() -> None:
    """Inductor and other projects' kernels, which take longer to import than a case to measure."""
    program = """
import sys
from benchmarks.measure import worker
worker.import_all("cuda", others=sys.argv[1] == "all")
print(*(name for name in ("torch._inductor", "benchmarks.measure.alternatives")
        if name in sys.modules))
"""
    for asked, imported in (("all", 2), ("kernl", 0)):
        done = subprocess.run(
            [sys.executable, "-c", program, asked],
            env=worker_environment(None), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert len(done.stdout.split()) == imported
