"""From a model's frozen cases to asv's samples, to the store's rows, and to a table for people."""

import datetime
import json
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

import kernl
from benchmarks import cases as frozen_cases
from benchmarks import freeze, store
from benchmarks.asv_file import METRICS
from benchmarks.cases import NOT_SELECTED
from benchmarks.gate.stored import judge
from benchmarks.measure import device, for_asv, models
from benchmarks.measure.journal import Journal, Record
from benchmarks.measure.model_table import standing, table
from benchmarks.measure.points import read_point
from benchmarks.measure.selection import class_name, matching
from benchmarks.model import DTYPE, Model
from benchmarks.models import IMPLEMENTATIONS, LEFT_OUT, MODELS, QUICK_LEFT_OUT
from tests.suite.asv_results import COMMIT as STORED
from tests.suite.asv_results import OTHER, write_results
from tests.suite.fake_worker import COMMIT, FAKE_WORKER, Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("KERNL_PROGRESS", str(tmp_path / "progress"))
    return Bench(tmp_path)


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    from benchmarks.suite import models as suite

    return suite


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
            lambda *asked: [sys.executable, "-S", str(bench.script), str(bench.log), asked[1]],
        )
    return tmp_path / "results" / "nvidia-h200" / "01234567-worktree.points.jsonl"


def test_the_frozen_models_are_those_of_the_registry() -> None:
    frozen = frozen_cases.load()
    assert frozen.models == tuple(model.name for model in MODELS)
    assert not set(frozen.models) & set(frozen.ops)
    for model in MODELS:
        assert frozen.kernel_cases(model.name) == [case.name for case in model.cases]
        assert frozen.implementations(model.name) == IMPLEMENTATIONS
        assert frozen.version(model.name) == model.version
        for case in model.cases:
            assert frozen.dims(model.name, case.name) == case.dims
            assert frozen.dtype(model.name, case.name) == DTYPE


def test_the_quick_profile_leaves_cases_and_implementations_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frozen = frozen_cases.load()
    monkeypatch.setenv("KERNL_PROFILE", "full")
    assert frozen.selected_implementations("bert_base") == set(IMPLEMENTATIONS) - set(LEFT_OUT)
    assert frozen.selected_implementations("linear") == set(frozen.implementations("linear"))
    monkeypatch.setenv("KERNL_PROFILE", "quick")
    left_out = {*LEFT_OUT, *QUICK_LEFT_OUT}
    assert frozen.selected_implementations("bert_base") == set(IMPLEMENTATIONS) - left_out
    assert frozen.selected_implementations("linear") == set(frozen.implementations("linear"))
    assert {name for name in frozen.models if frozen.selected_kernel_cases(name)} == {
        "bert_base",
        "t5_base_encoder",
        "whisper_base_encoder",
        "tiny_llama",
    }


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_model_names_the_operators_in_its_graph(
    model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    case = model.case_of(model.cases[0].dims, dry=True)
    (sample,) = model.samples(case, [0], "cpu", dry=True)
    module: Any = model.build(dry=True)
    report = kernl.explain(module, **sample.full)
    assert sorted(report.fused) == sorted(model.operators)
    assert frozen_cases.load().operators(model.name) == model.operators
    capsys.readouterr()


def test_a_stale_model_is_named() -> None:
    current = json.loads(frozen_cases.PATH.read_text())
    stale = deepcopy(current)
    stale["models"]["gpt2"]["version"] = 0
    stale["models"]["bert_base"]["kernels"].pop("batch1_seq16.fp16")
    stale["models"]["bert_base"]["left_out"] = []
    del stale["models"]["vit_base"]
    assert freeze.differences(stale, current) == [
        "bert_base: kernels case batch1_seq16.fp16 is new",
        "bert_base: left_out is now ['compile_max_autotune']",
        "gpt2: version 0 is now 1",
        "vit_base: is new",
    ]


def test_every_model_has_a_class_with_a_cache_of_its_own(suite: Any) -> None:
    frozen = frozen_cases.load()
    classes: dict[str, Any] = {
        value.op: value
        for value in vars(suite).values()
        if isinstance(value, type) and hasattr(value, "op")
    }
    assert tuple(classes) == frozen.models
    lines = {each.setup_cache.__code__.co_firstlineno for each in classes.values()}
    assert len(lines) == len(classes)
    for name, each in classes.items():
        assert each.__name__ == class_name(name)
        assert "setup_cache" in vars(each), "asv keys a cache by its source line"
        assert each.params == (frozen.kernel_cases(name), IMPLEMENTATIONS)
        tracked = {method[6:] for method in dir(each) if method.startswith("track_")}
        assert tracked == set(METRICS["models"])


def test_without_a_gpu_every_case_is_skipped_in_words(
    suite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    unmeasured = suite.BertBase().setup_cache()
    assert unmeasured == "no NVIDIA GPU on this machine: models are timed on a GPU alone"
    with pytest.raises(NotImplementedError, match="no NVIDIA GPU"):
        suite.BertBase().setup(unmeasured, "batch1_seq16.fp16", "kernl")


def test_points_reach_asv_and_a_quick_run_is_reused(
    suite: Any, bench: Bench, on_a_gpu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNL_PROFILE", "quick")
    broken = "batch1_seq128"
    bench.script.write_text(FAKE_WORKER.replace('what == "memory"', f"what == {broken!r}"))
    names = ["bert_base", "t5_base_encoder"]
    assert for_asv.measure_commits({for_asv.Checkout.of_asv(): {"models": names}}, tmp_path) == ""
    calls = bench.calls()
    left_out = {*LEFT_OUT, *QUICK_LEFT_OUT}
    measured = ",".join(name for name in IMPLEMENTATIONS if name not in left_out)
    assert calls["start"] == 1
    assert calls[f"batch8_seq128:{measured}"] == 1
    assert {point["suite"] for point in Journal(on_a_gpu).points()} == {"models"}
    runs = Journal(on_a_gpu).runs().values()
    assert all(run["fingerprint"]["suite"] == "models" for run in runs)
    assert all("copy_bytes_per_s" in run["fingerprint"] for run in runs), "the worker's own figures"

    benchmark = suite.BertBase()
    assert benchmark.setup_cache() == ""
    assert bench.calls() == calls, "asv's own process measured again"
    benchmark.setup("", "batch8_seq128.fp16", "kernl")
    assert benchmark.track_time("", "batch8_seq128.fp16", "kernl")["samples"] == [1e-6, 1.1e-6]
    with pytest.raises(RuntimeError, match="OutOfMemoryError"):
        benchmark.setup("", f"{broken}.fp16", "kernl")
    for case, name in (
        ("batch8_seq128.fp16", "compile_max_autotune"),
        ("batch8_seq512.fp16", "kernl"),
    ):
        with pytest.raises(NotImplementedError, match=NOT_SELECTED):
            benchmark.setup("", case, name)

    monkeypatch.setenv("KERNL_IMPLEMENTATIONS", ",".join(IMPLEMENTATIONS))
    assert suite.BertBase().setup_cache() == ""
    whole = ",".join(IMPLEMENTATIONS)
    assert bench.calls()[f"batch8_seq128:{whole}"] == 1, "implementations are measured side by side"
    point = read_point(tmp_path, "batch8_seq128.fp16", "compile_max_autotune")
    assert point is not None
    assert point["status"] == "ok"


def test_a_case_that_is_left_out_keeps_what_fewer_implementations_found(
    suite: Any, bench: Bench, on_a_gpu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNL_IMPLEMENTATIONS", "eager,kernl")
    assert suite.BertBase().setup_cache() == ""
    assert bench.calls()["batch8_seq512:eager,kernl"] == 1
    monkeypatch.setenv("KERNL_IMPLEMENTATIONS", "")
    monkeypatch.setenv("KERNL_PROFILE", "quick")
    assert suite.BertBase().setup_cache() == ""
    statuses = {
        point["variant"]: point["status"]
        for point in Journal(on_a_gpu).points()
        if point["case"] == "batch8_seq512.fp16"
    }
    assert statuses == {"eager": "ok", "kernl": "ok"}
    point = read_point(tmp_path, "batch8_seq512.fp16", "kernl")
    assert point is not None
    assert point["status"] == "ok"


def test_a_regular_expression_picks_models_as_asv_does() -> None:
    names = frozen_cases.load().models
    assert matching(names, "", "models") == list(names)
    assert matching(names, "models", "models") == list(names)
    assert matching(names, "kernels", "models") == []
    assert matching(names, r"models\.BertBase", "models") == ["bert_base"]


def test_the_store_has_rows_of_the_suite_and_the_gate_reads_them(tmp_path: Path) -> None:
    benchmark = "models.T5BaseEncoder.track_time"
    for commit, seconds in ((STORED, 1e-3), (OTHER, 2e-3)):
        write_results(
            tmp_path, {benchmark: [4e-3, seconds]}, commit=commit, cases=["batch1_seq16.fp16"]
        )
    found = store.load(tmp_path)
    assert found.problems == []
    assert set(found.rows["suite"]) == {"models"}
    assert set(found.rows["op"]) == {"t5_base_encoder"}
    report = judge(found.rows, found.runs, STORED, OTHER, today=datetime.date(2030, 1, 1))
    assert [finding.outcome for finding in report.findings] == ["undecided"]
    assert report.exit_code == 2  # these files do not say on which GPU they were measured


def record(name: str, seconds: float | None, reason: str = "", status: str = "ok") -> Record:
    return {
        "case": "batch1_seq16.fp16",
        "variant": name,
        "status": status,
        "reason": reason,
        "values": {"time": seconds} if seconds else {},
        "error": 1e-3 if seconds else None,
    }


def test_kernl_stands_against_the_fastest_other() -> None:
    points = [
        record("eager", 4e-3),
        record("compile_cudagraph", 6e-4),
        record("kernl_graphs_only", 1e-4),
        record("kernl", 3e-4),
    ]
    found = {point["variant"]: point for point in points}
    assert standing(found) == "2.00 (compile_cudagraph)"
    found["kernl"] = record("kernl", None, "left to PyTorch: slower", "skipped")
    assert standing(found) == "0.15 (compile_cudagraph, a fallback)"
    found["kernl"] = record("kernl", None, "wrong", "failed")
    assert standing(found) == "–"
    lines = table("bert_base", list(found.values()), ["eager", "compile_cudagraph", "kernl"])
    assert lines[0] == "bert_base, ms"
    assert lines[2].split()[:4] == ["batch1_seq16.fp16", "4.000", "0.600", "–"]
    assert lines[-1] == "batch1_seq16.fp16 kernl failed: wrong"


def test_the_command_measures_and_prints_dry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "j.points.jsonl"
    chosen = ["--match", "batch1_seq3000", "--implementations", "eager,compile_cudagraph"]
    models.main(["whisper", *chosen, "--device", "cpu", "--journal", str(path)])
    points = {point["variant"]: point for point in Journal(path).points()}
    assert points["eager"]["status"] == "ok", points["eager"]["reason"]
    assert points["eager"]["dry"] is True
    assert points["eager"]["suite"] == "models"
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == "whisper_base_encoder, ms"
    assert "compile_cudagraph skipped: torch.compile is measured on a GPU" in captured.out
    assert "check eager" in captured.err
    assert "1/2  whisper_base_encoder" in captured.err


def test_the_command_lists_cases(capsys: pytest.CaptureFixture[str]) -> None:
    models.main(["bert", "t5", "--match", "batch1_*", "--list"])
    listed = capsys.readouterr().out.splitlines()
    assert listed[0] == "bert_base batch1_seq16.fp16"
    assert listed[-1] == "t5_base_encoder batch1_seq128.fp16"
    models.main(["all", "--quick", "--list"])
    assert len(capsys.readouterr().out.splitlines()) == sum(len(model.quick) for model in MODELS)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["eliza"], "no model 'eliza'; allowed: all, bert_base"),
        (["bert", "--match", "batch7_*"], "no case of bert matches 'batch7_*'"),
        (["bert", "--implementations", "eager,magic"], "no implementation magic; allowed: eager"),
        (["bert"], "no NVIDIA GPU on this machine"),
    ],
)
def test_what_the_command_cannot_do_is_said(
    arguments: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "--implementations" in arguments:
        monkeypatch.setattr(device, "gpu", lambda: device.Gpu("NVIDIA H200", "", "", 1))
    else:
        monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SystemExit):
        models.main(arguments)
    assert says in capsys.readouterr().err
