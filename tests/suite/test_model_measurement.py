"""Models are checked before and after they are timed, in turns; what is wrong gets no time."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.measure import model_measurement
from benchmarks.measure.laboratory import Laboratory, Point, Task
from benchmarks.measure.model_calls import (
    IMPLEMENTATIONS,
    Running,
    Unavailable,
    Weights,
    rewriting,
)
from benchmarks.measure.model_check import FACTOR, FLOOR, yardstick
from benchmarks.measure.model_measurement import WARM_UPS, Shelf, measure
from benchmarks.model import ModelCase, Sample
from benchmarks.models import DISTILBERT, MODELS
from benchmarks.models import IMPLEMENTATIONS as NAMES
from kernl.optimize import engine
from kernl.optimize import forward as optimized_forward
from kernl.optimize.engine import Engine
from kernl.rewrite.report import Refusal, Report


@pytest.fixture(scope="module")
def shelf() -> Shelf:
    return Shelf()


def task(model: str, names: tuple[str, ...], ragged: bool = False) -> Task:
    dims = {"batch": 2, "seq": 16, "ragged": ragged}
    return Task(model, "batch2_seq16.fp16", dims, "fp16", 1, names, 3, 0.1, seed=11)


def points(
    shelf: Shelf, model: str, *names: str, ragged: bool = False, stages: list[Any] | None = None
) -> dict[str, Point]:
    def stage(what: str, name: str) -> None:
        if stages is not None:
            stages.append((what, name))

    found = measure(task(model, names, ragged), shelf, Laboratory("cpu"), stage)
    return {point["variant"]: point for point in found}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_model_is_measured_dry(model: Any) -> None:
    names = ("eager", "autocast", "compile_cudagraph")
    dims = model.cases[-1].dims
    asked = Task(model.name, model.cases[-1].name, dims, "fp16", 1, names, 3, 0.1, seed=5)
    found = {p["variant"]: p for p in measure(asked, Shelf(), Laboratory("cpu"), lambda *_: None)}
    for name in ("eager", "autocast"):
        assert found[name]["status"] == "ok", found[name]["reason"]
        assert found[name]["dry"] is True
        assert 0 < found[name]["error"] < 3e-3
        values = found[name]["values"]
        assert 0 < values["p20"] <= values["time"] <= values["p80"]
        assert 0 < values["host"] <= values["p80"]
        assert "rewrite" not in found[name]
        assert len(found[name]["samples"]) == 1  # of three rounds: Python launches its kernels
    assert found["compile_cudagraph"]["status"] == "skipped"
    assert "on a GPU alone" in found["compile_cudagraph"]["reason"]


def test_kernl_runs_by_its_graph_and_is_checked(shelf: Shelf) -> None:
    stages: list[Any] = []
    names = ("eager", "kernl_graphs_only", "kernl_rewrite_only")
    found = points(shelf, "distilbert", *names, stages=stages)
    assert found["kernl_rewrite_only"]["status"] == "ok", found["kernl_rewrite_only"]["reason"]
    assert found["kernl_rewrite_only"]["error"] <= FACTOR * found["eager"]["error"] + FLOOR
    assert found["kernl_graphs_only"]["status"] == "skipped"
    assert ("check", "kernl_rewrite_only") in stages
    assert stages.index(("time", "")) < stages.index(("check after timing", "eager"))
    rewritten = found["kernl_rewrite_only"]["rewrite"]
    (model,) = (one for one in MODELS if one.name == "distilbert")
    assert set(rewritten["replaced"]) == set(model.operators)
    assert all(count > 0 for part in rewritten.values() for count in part.values())
    assert set(rewritten) == {"replaced", "left", "refused"}
    assert "rewrite" not in found["eager"]


def test_a_report_of_another_form_says_nothing() -> None:
    report = Report(Counter(attention=12), [Refusal("linear", "n1", "too wide")] * 2)
    assert rewriting(report) == {
        "replaced": {"attention": 12}, "left": {}, "refused": {"linear: too wide": 2},
    }  # fmt: skip
    assert rewriting(None) is None
    assert rewriting(SimpleNamespace(fused=Counter())) is None


def test_a_model_is_held_ready_and_timed_in_blocks(shelf: Shelf) -> None:
    said: list[Any] = []
    asked = iter(
        [
            {"kind": "block", "rounds": 2, "seed": 1, "calm": True},
            {"kind": "block", "rounds": 3, "seed": 2, "calm": False},
            {"kind": "enough"},
        ]
    )

    def converse(message: Any) -> Any:
        said.append(message)
        return next(asked)

    names = ("eager", "autocast")
    found = list(
        measure(task("distilbert", names), shelf, Laboratory("cpu"), lambda *_: None, converse)
    )
    assert said[0] == {"kind": "prepared", "names": list(names)}
    assert [one["kind"] for one in said[1:]] == ["block", "block"]
    for block, rounds in zip(said[1:], (2, 3), strict=True):
        # Each implementation in every round: whoever compares two commits wants pairs.
        assert {name: len(seconds) for name, seconds in block["taken"].items()} == dict.fromkeys(
            names, rounds
        )
    assert [(one["variant"], one["status"], one["values"]) for one in found] == [
        (name, "ok", {}) for name in names
    ]


def test_a_model_that_cannot_run_is_not_held_ready(shelf: Shelf) -> None:
    asked = task("distilbert", ("compile_cudagraph",))

    def converse(_: Any) -> Any:
        pytest.fail("nothing can be timed")

    (found,) = measure(asked, shelf, Laboratory("cpu"), lambda *_: None, converse)
    assert found["status"] == "skipped"


def test_a_fallback_is_skipped_with_its_reason(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: Any) -> Engine:
        return Engine(None, lambda row: row, None, "slower than the original: 9 ms, not 4")

    monkeypatch.setattr(optimized_forward, "build", refusing)
    found = points(shelf, "distilbert", "eager", "kernl")
    assert found["eager"]["status"] == "ok"
    assert found["kernl"]["status"] == "skipped"
    assert found["kernl"]["reason"] == "left to PyTorch: slower than the original: 9 ms, not 4"


Change = Callable[[torch.Tensor, int], torch.Tensor]


def changed(change: Change) -> Callable[[Weights, Sample], Running]:
    """Eager, its output changed: `change` gets it and the number of the call."""

    def changing(weights: Weights, _: Sample) -> Running:
        calls = 0

        def call(sample: Sample) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return change(weights.half(**sample.half)[0], calls)

        return Running(call)

    return changing


def stale(weights: Weights, example: Sample) -> Running:
    """Answers every call with the output of the first inputs, as a graph does that copies none."""
    with torch.inference_mode():
        out = weights.half(**example.half)[0]
    return Running(lambda _: out)


def raising(*_: Any) -> Running:
    raise RuntimeError("out of luck\nsecond line")


def unavailable(*_: Any) -> Running:
    raise Unavailable("not on a Tuesday")


UNTIL_TIMING = 2 + WARM_UPS
FAULTS: dict[str, tuple[Callable[..., Running], str, str]] = {
    "wrong": (changed(lambda out, _: out * 1.01), "failed", "relative L2 error 0.0"),
    "holes": (changed(lambda out, _: out / 0), "failed", "are NaN or infinite"),
    "short": (changed(lambda out, _: out[:, 1:]), "failed", "an output of shape (2, 15, 64)"),
    "stale": (stale, "failed", "relative L2 error 1 "),
    "late": (
        changed(lambda out, calls: out if calls <= UNTIL_TIMING else out + 1),
        "failed",
        "after timing: relative L2 error",
    ),
    "raises": (
        raising,
        "failed",
        "the check failed: RuntimeError: out of luck (inputs of seed 11)",
    ),
    "unavailable": (unavailable, "skipped", "not on a Tuesday"),
}


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(IMPLEMENTATIONS, dict)
    for name, (make, _, _) in FAULTS.items():
        monkeypatch.setitem(IMPLEMENTATIONS, name, make)


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_gets_no_time(shelf: Shelf, fault: str) -> None:
    found = points(shelf, "distilbert", "eager", fault)
    _, status, reason = FAULTS[fault]
    assert found["eager"]["status"] == "ok"
    assert found[fault]["status"] == status
    assert reason in found[fault]["reason"]
    assert "samples" not in found[fault]


def test_padding_does_not_count_but_must_be_finite(shelf: Shelf) -> None:
    weights = shelf.weights(DISTILBERT, "cpu")
    case = ModelCase(2, 16, ragged=True)
    samples = DISTILBERT.samples(case, [0, 1], "cpu", dry=True)
    yard = yardstick(weights, samples, 0)

    def in_padding(value: float) -> Callable[[Sample], torch.Tensor]:
        def call(sample: Sample) -> torch.Tensor:
            assert sample.valid is not None
            out = weights.half(**sample.half)[0].clone()
            out[~sample.valid] = value
            return out

        return call

    assert yard.judge(in_padding(0.0)) == (yard.eager_error, "")
    assert "NaN or infinite" in yard.judge(in_padding(float("nan")))[1]


def test_a_mask_that_is_not_read_is_found(shelf: Shelf) -> None:
    weights = shelf.weights(DISTILBERT, "cpu")
    samples = DISTILBERT.samples(ModelCase(4, 16, ragged=True), [0], "cpu", dry=True)
    yard = yardstick(weights, samples, 0)
    error, reason = yard.judge(lambda sample: weights.half(sample.half["input_ids"])[0])
    assert error is not None
    assert "relative L2 error" in reason


def test_a_model_that_fp16_cannot_hold_fails_in_words(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Weights(DISTILBERT, "cpu")
    next(weights.half.parameters()).data.fill_(torch.inf)
    monkeypatch.setattr(shelf, "weights", lambda *_: weights)
    found = points(shelf, "distilbert", "eager", "autocast")
    assert {point["status"] for point in found.values()} == {"failed"}
    assert "eager fp16 is no yardstick" in found["eager"]["reason"]


def test_an_unknown_model_is_skipped(shelf: Shelf) -> None:
    found = points(shelf, "eliza", "eager")
    assert found["eager"]["status"] == "skipped"
    assert "no model eliza of version 1" in found["eager"]["reason"]


@pytest.mark.parametrize("name", ["kernl", "kernl_rewrite_only"])
def test_kernl_has_the_device_for_itself_once_it_times(
    name: str, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    @contextlib.contextmanager
    def alone(what: str) -> Iterator[None]:
        heard.append(what)
        yield
        heard.append(f"end of {what}")

    def builds(weights: Weights, example: Sample) -> Running:
        heard.append("trace")
        kernl_engine.slower()
        kernl_engine.slower()
        heard.append("built")
        return real(weights, example)

    real = IMPLEMENTATIONS[name]
    kernl_engine: Any = engine
    monkeypatch.setitem(IMPLEMENTATIONS, name, builds)
    monkeypatch.setattr(engine, "slower", lambda *_: heard.append("time"))
    lab = Laboratory("cpu", alone=alone)
    found = list(measure(task("distilbert", (name,)), shelf, lab, lambda *_: None))
    assert [point["status"] for point in found] == ["ok"]
    one, other = "what kernl times", "timing"
    expected = ["trace", one, "time", "time", "built", f"end of {one}", other, f"end of {other}"]
    assert heard == expected


@pytest.mark.gpu
def test_every_implementation_runs_on_the_gpu() -> None:
    assert model_measurement.TIMED_SAMPLES > 1
    names = tuple(name for name in NAMES if name != "compile_max_autotune")
    asked = Task("distilbert", "c", DISTILBERT.cases[0].dims, "fp16", 1, names, 5, 0.1, seed=5)
    found = {p["variant"]: p for p in measure(asked, Shelf(), Laboratory("cuda"), lambda *_: None)}
    reasons = {name: point["reason"] for name, point in found.items() if point["status"] != "ok"}
    assert reasons == {}
