"""What asv sees of the sweep: samples, skips in words, failures with their reason."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cases as frozen_cases
from benchmarks.asv_file import METRICS
from benchmarks.measure import ahead, device, for_asv
from benchmarks.measure.journal import Journal
from benchmarks.measure.points import point_path, read_point
from benchmarks.measure.selection import matching
from tests.suite.fake_worker import COMMIT, FAKE_WORKER, ROOT, Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("KERNL_PROGRESS", str(tmp_path / "progress"))
    return Bench(tmp_path)


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    from benchmarks.suite import kernels

    return kernels


def test_every_frozen_op_has_a_class_with_a_cache_of_its_own(suite: Any) -> None:
    frozen = frozen_cases.load()
    classes: dict[str, Any] = {
        value.op: value
        for name, value in vars(suite).items()
        if isinstance(value, type) and hasattr(value, "op")
    }
    assert set(classes) == set(frozen.ops)
    lines = {each.setup_cache.__code__.co_firstlineno for each in classes.values()}
    assert len(lines) == len(classes)
    for op, each in classes.items():
        assert each.__name__ == "".join(part.capitalize() for part in op.split("_"))
        assert each.params == (frozen.kernel_cases(op), frozen.implementations(op))
        assert each.version == frozen.version(op)


def test_without_a_gpu_every_case_is_skipped_in_words(
    suite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    benchmark = suite.Softmax()
    unmeasured = benchmark.setup_cache()
    assert unmeasured == for_asv.no_gpu("kernels")
    with pytest.raises(NotImplementedError, match="no NVIDIA GPU"):
        benchmark.setup(unmeasured, "rows192_cols16.fp16", "kernl")


@pytest.fixture
def on_a_gpu(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """asv's environment variables and the fake worker; returns where the journal will lie."""
    monkeypatch.setenv("KERNL_COMMIT", COMMIT)
    monkeypatch.setenv("KERNL_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("KERNL_ENV_NAME", "worktree")
    monkeypatch.setattr(device, "gpu", lambda: device.Gpu("NVIDIA H200", "", "", 1))
    for module in ("sweep", "pool"):
        monkeypatch.setattr(
            f"benchmarks.measure.{module}.worker_command",
            lambda *_: [sys.executable, "-S", str(bench.script), str(bench.log), ""],
        )
    return tmp_path / "results" / "nvidia-h200" / "01234567-worktree.points.jsonl"


def test_points_reach_asv_as_samples_skips_and_failures(
    suite: Any, bench: Bench, on_a_gpu: Path, tmp_path: Path
) -> None:
    """The whole way from asv's environment variables to `track_time`, with the fake worker."""
    names = frozen_cases.load().kernel_cases("softmax")
    broken = names[1]
    bench.script.write_text(FAKE_WORKER.replace('what == "memory"', f"what == {broken[:-5]!r}"))
    benchmark = suite.Softmax()
    unmeasured = benchmark.setup_cache()
    assert unmeasured == ""
    variants = frozen_cases.load().selected_implementations("softmax")
    assert len(Journal(on_a_gpu).points()) == len(variants) * len(names)

    benchmark.setup("", names[0], "kernl")
    assert benchmark.track_time("", names[0], "kernl") == {"samples": [1e-6, 1.1e-6], "number": 1}
    with pytest.raises(RuntimeError, match="OutOfMemoryError: CUDA out of memory"):
        benchmark.setup("", broken, "kernl")
    point = read_point(tmp_path, broken, "eager")
    assert point is not None
    assert point["status"] == "ok"
    point_path(tmp_path, names[0], "compile").unlink()
    with pytest.raises(RuntimeError, match="never measured"):
        benchmark.setup("", names[0], "compile")
    with pytest.raises(NotImplementedError, match=frozen_cases.NOT_SELECTED):
        benchmark.setup("", names[0], "flaggems")

    calls = bench.calls()
    assert suite.Softmax().setup_cache() == ""  # asv was killed before it saved: all is reused
    assert bench.calls() == calls


def test_operators_swept_ahead_share_a_worker_and_asv_finds_them_all(
    suite: Any, bench: Bench, on_a_gpu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNL_PROFILE", "quick")
    assert (
        for_asv.measure_commits(
            {for_asv.Checkout.of_asv(): {"kernels": ["softmax", "layer_norm"]}}, tmp_path
        )
        == ""
    )
    calls = bench.calls()
    frozen = frozen_cases.load()
    selected = {op: frozen.selected_kernel_cases(op) for op in ("softmax", "layer_norm")}
    assert calls["start"] == 1
    assert calls.total() == 1 + sum(map(len, selected.values()))
    measured = [p for p in Journal(on_a_gpu).points() if p["status"] == "ok"]
    assert {(p["op"], p["case"]) for p in measured} == {
        (op, case) for op, cases in selected.items() for case in cases
    }
    assert suite.Softmax().setup_cache() == suite.LayerNorm().setup_cache() == ""
    assert bench.calls() == calls, "asv's own processes measured something again"


def test_a_regular_expression_picks_operators_as_asv_does() -> None:
    ops = ("softmax", "linear", "linear_layer_norm")
    assert matching(ops, "", "kernels") == list(ops)
    assert matching(ops, "kernels", "kernels") == list(ops)
    assert matching(ops, "kernels", "codegen") == []
    assert matching(ops, r"kernels\.Linear\.", "kernels") == ["linear"]
    assert matching(ops, "LayerNorm", "codegen") == ["linear_layer_norm"]
    assert matching(ops, "track_spills", "codegen") == list(ops)


def test_the_metrics_are_those_of_the_suite(suite: Any) -> None:
    from benchmarks.suite import codegen

    for module in (suite, codegen):
        tracked = {name[6:] for name in dir(module.Softmax) if name.startswith("track_")}
        assert tracked == set(METRICS[module.__name__.rsplit(".", 1)[-1]])


def test_many_commits_are_measured_ahead_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `history` prints; a commit that is not there costs itself alone."""
    asked: list[dict[for_asv.Checkout, dict[str, list[str]]]] = []

    def measure_commits(found: Any, _directory: Path) -> str:
        asked.append(found)
        return ""

    git = ["git", "-C", str(ROOT), "rev-list", "-2", "HEAD", "--", "kernl"]
    done = subprocess.run(git, stdout=subprocess.PIPE, text=True, check=True)
    newer, older = done.stdout.split()
    lines = [
        rf"{older} ^(?:kernels\.Softmax|models\.Gpt2)\.",
        f"{'0' * 40} ^kernels",
        "",
        rf"{newer} ^(?:kernels\.Linear|codegen\.Linear)\.",
    ]
    monkeypatch.setattr(ahead, "measure_commits", measure_commits)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert ahead.main(["--list"]) == 0
    (found,) = asked
    assert {checkout.commit: suites for checkout, suites in found.items()} == {
        older: {"kernels": ["softmax"], "models": ["gpt2"]},
        newer: {"kernels": ["linear"]},
    }
    for checkout in found:
        assert checkout.code is not None
        assert (checkout.code / "kernl" / "__init__.py").exists()
        assert checkout.results == ROOT / "benchmarks" / "results"
    said = capsys.readouterr().err
    assert said.startswith("ahead: Commit 00000000 is not in the repository")
    assert "it is left out" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--bench", "("], "no regular expression"),
        (["no-such-commit"], "no commit 'no-such-commit'"),
    ],
)
def test_what_ahead_cannot_do_is_said(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = ahead.main(arguments)
    except SystemExit as error:
        status = error.code
    assert status in (1, 2)
    assert says in capsys.readouterr().err
