"""The suite as functions of pytest: each case is there, is measured once, and pytest-benchmark sees
the samples that asv would."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cases
from benchmarks.by_pytest import test_benchmark_kernels, test_benchmark_models
from benchmarks.by_pytest.stand import CLOCK, Stand, replay
from benchmarks.measure.alternatives import ALTERNATIVES
from benchmarks.measure.for_asv import no_gpu
from benchmarks.models import LEFT_OUT

ROOT = Path(__file__).parents[2]
BOTH = (test_benchmark_kernels, test_benchmark_models)
CHOOSING = [one.name for one in ALTERNATIVES if one.chooses]
"""They are measured only where they are named."""


def run_pytest(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "KERNL_"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def pairs_of(function: Any) -> list[tuple[str, str]]:
    (mark,) = (mark for mark in function.pytestmark if mark.name == "parametrize")
    return list(mark.args[1])


def test_each_operator_and_model_has_its_function() -> None:
    frozen = cases.load()
    for module, names in zip(BOTH, (frozen.ops, frozen.models), strict=True):
        found = {name for name in vars(module) if name.startswith("test_benchmark_")}
        assert found == {f"test_benchmark_{name}" for name in names}
        for name in names:
            function = getattr(module, f"test_benchmark_{name}")
            assert pairs_of(function) == [
                (shape, implementation)
                for shape in frozen.kernel_cases(name)
                for implementation in frozen.implementations(name)
                if implementation not in (*LEFT_OUT, *CHOOSING)
            ]


def test_there_are_as_many_as_the_readme_says() -> None:
    functions = [
        function
        for module in BOTH
        for name, function in vars(module).items()
        if name.startswith("test_benchmark_")
    ]
    count = sum(len(pairs_of(function)) for function in functions)
    assert count >= 2400
    assert f"functions of pytest, {count:,} of them" in (ROOT / "README.md").read_text()


def test_no_other_test_has_their_name(request: pytest.FixtureRequest) -> None:
    """So `pytest -k "not benchmark"` runs all tests, and `-k benchmark` none of them."""
    others = [
        part
        for item in request.session.items
        if "by_pytest" not in item.nodeid.partition("::")[0]
        for part in item.nodeid.split("/")
        if "benchmark" in part.lower()
    ]
    assert others == []


def test_one_shape_in_all_implementations(tmp_path: Path) -> None:
    table = tmp_path / "out.json"
    done = run_pytest(
        "benchmarks/by_pytest",
        "-k",
        "benchmark_softmax and rows1_cols1.fp32",
        "--benchmark-group-by=fullfunc,param:implementation,param:shape",
        f"--benchmark-json={table}",
        KERNL_BENCHMARK_DEVICE="cpu",
    )
    assert done.returncode == 0, done.stdout
    assert "benchmarks on cpu, a dry run: its times mean nothing, profile full" in done.stdout
    assert "torch.compile is measured on CUDA alone" in done.stdout
    found = json.loads(table.read_text())["benchmarks"]
    assert [one["params"]["implementation"] for one in found] == ["eager", "kernl"]
    for one in found:
        assert one["params"]["shape"] == "rows1_cols1.fp32"
        assert one["stats"]["rounds"] == 3
        assert 0 <= one["extra_info"]["error"] < 1e-6
        group = f"implementation={one['params']['implementation']} shape=rows1_cols1.fp32"
        assert f"test_benchmark_kernels.py::test_benchmark_softmax {group}" in done.stdout


def test_without_a_gpu_they_are_skipped_in_words() -> None:
    for suite in ("kernels", "models"):
        done = run_pytest(
            f"benchmarks/by_pytest/test_benchmark_{suite}.py",
            "-k",
            "rows1_cols1.fp32 or batch1_seq16.fp16",
            PATH="/nonexistent",
        )
        assert done.returncode == 0, done.stdout
        assert no_gpu(suite) in done.stdout


def test_an_unknown_device_says_what_is_allowed() -> None:
    done = run_pytest("benchmarks/by_pytest", "--collect-only", KERNL_BENCHMARK_DEVICE="tpu")
    assert done.returncode != 0
    assert "KERNL_BENCHMARK_DEVICE is 'tpu'; allowed: cuda, cpu" in done.stdout + done.stderr


class Recorder:
    """As much of pytest-benchmark as a point needs."""

    def __init__(self) -> None:
        self.extra_info: dict[str, Any] = {}
        self.taken: list[float] = []

    def pedantic(self, function: Any, rounds: int, iterations: int) -> None:
        assert iterations == 1
        for _ in range(rounds):
            start = CLOCK()
            function()
            self.taken.append(CLOCK() - start)


def point(status: str = "ok", reason: str = "") -> dict[str, Any]:
    samples = [3e-6, 2e-6, 4e-6]
    return {"status": status, "reason": reason, "samples": samples, "error": 1e-4, "telemetry": {}}


def test_the_samples_are_the_suites_own() -> None:
    recorder = Recorder()
    replay(recorder, point())
    assert recorder.taken == pytest.approx([3e-6, 2e-6, 4e-6], rel=1e-6)
    assert recorder.extra_info == {"error": 1e-4, "telemetry": {}}


def test_what_was_not_measured_is_told() -> None:
    with pytest.raises(pytest.skip.Exception, match="not on this GPU"):
        replay(Recorder(), point("skipped", "not on this GPU"))
    with pytest.raises(pytest.fail.Exception, match="wrong by 3"):
        replay(Recorder(), point("failed", "wrong by 3"))


def test_a_shape_is_measured_once_for_all_that_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measure(task: Any, stage: Any) -> Any:
        asked.append((task.case, task.implementations))
        return [{"variant": name, **point()} for name in task.implementations]

    monkeypatch.setattr("benchmarks.by_pytest.stand.prepare", lambda *_: (measure, {}))
    one, other = cases.load().kernel_cases("softmax")[:2]
    wanted = {("softmax", one): ["kernl", "eager"], ("softmax", other): ["kernl"]}
    stand = Stand("kernels", "cuda", wanted)
    for name in ("eager", "kernl"):
        assert stand.point("softmax", one, name)["variant"] == name
    assert stand.point("softmax", other, "kernl")["variant"] == "kernl"
    assert asked == [(one, ("eager", "kernl")), (other, ("kernl",))]
