"""What the implementations of a model call: shared weights, graphs by hand, kernl's own copy."""

import contextlib
import dataclasses
import gc
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch

from benchmarks.measure.model_calls import Weights, build, captured, optimized
from benchmarks.measure.model_check import yardstick
from benchmarks.measure.model_measurement import Shelf
from benchmarks.model import ModelCase, Sample
from benchmarks.models import BERT_BASE, DISTILBERT, MODELS
from kernl.optimize.forward import OptimizedForward
from tests.canaries import on_every_stream

on_the_cpu = pytest.mark.skipif(
    torch.cuda.is_available(), reason="kernl runs on the CPU where there is no GPU"
)


@pytest.fixture(scope="module")
def shelf() -> Shelf:
    return Shelf()


@on_the_cpu
def test_a_call_that_was_not_by_graph_is_a_complaint(shelf: Shelf) -> None:
    weights = shelf.weights(DISTILBERT, "cpu")
    small, other = (
        DISTILBERT.samples(ModelCase(1, seq), [0], "cpu", dry=True)[0] for seq in (4, 5)
    )
    running = optimized(weights, small)
    with torch.inference_mode():
        running.call(small)
        assert running.complaint() == ""
        running.call(other)
    assert "1 of 2 calls not by graph: 1 by PyTorch: the first call" in running.complaint()


@on_the_cpu
def test_a_graph_that_was_not_rewritten_is_told(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = OptimizedForward.prepare

    def as_written(self: OptimizedForward, **given: Any) -> Any:
        return dataclasses.replace(prepare(self, **given), remark="0.8 ms, and 1.7 ms rewritten")

    weights = shelf.weights(BERT_BASE, "cpu")
    (sample,) = BERT_BASE.samples(ModelCase(1, 4), [0], "cpu", dry=True)
    assert optimized(weights, sample).remark == ""
    monkeypatch.setattr(OptimizedForward, "prepare", as_written)
    assert optimized(weights, sample).remark == "not rewritten: 0.8 ms, and 1.7 ms rewritten"


@on_the_cpu
def test_kernl_leaves_the_shared_weights_alone(shelf: Shelf) -> None:
    weights = shelf.weights(BERT_BASE, "cpu")
    before = {name: (p.data_ptr(), p.clone()) for name, p in weights.half.named_parameters()}
    (sample,) = BERT_BASE.samples(ModelCase(1, 4), [0], "cpu", dry=True)
    optimized(weights, sample)
    for name, parameter in weights.half.named_parameters():
        assert parameter.data_ptr() == before[name][0]
        assert torch.equal(parameter, before[name][1])
    assert shelf.weights(BERT_BASE, "cpu") is weights
    assert shelf.weights(DISTILBERT, "cpu") is not weights


def test_half_precision_is_of_parameters_alone() -> None:
    llama = next(model for model in MODELS if model.kind == "llama")
    half = Weights(llama, "cpu").half
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float16}
    assert {buffer.dtype for buffer in half.buffers()} == {torch.float32}


class FakeGraph:
    """A CUDA graph whose replay does what a test says."""

    def replay(self) -> None:
        """Nothing."""


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts of torch.cuda around a capture, on the CPU; returns what was called, in order."""
    heard: list[str] = []

    class Stream:
        def wait_stream(self, _: object) -> None:
            heard.append("wait")

    @contextlib.contextmanager
    def within(name: str, *_: object, **__: object) -> Iterator[None]:
        heard.append(name)
        yield
        heard.append(f"end of {name}")

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", partial(within, "side stream"))
    monkeypatch.setattr(torch.cuda, "graph", partial(within, "capture"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: heard.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    # PyTorch without CUDA does not have it.
    name = "_cuda_clearCublasWorkspaces"
    monkeypatch.setattr(torch._C, name, lambda: heard.append("clear"), raising=False)
    return heard


def test_a_graph_gets_its_inputs_and_its_output_is_the_callers(
    fake_cuda: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replays double what lies in the static input into the static output."""
    statics: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []

    def forward(x: torch.Tensor) -> dict[str, Any]:
        assert torch.is_inference_mode_enabled()
        fake_cuda.append("forward")
        statics.append(x)
        outputs.append(2 * x)
        return {"last_hidden_state": outputs[-1], "pooled": x + 1, "cache": None}

    def replay(_: FakeGraph) -> None:
        outputs[-1].copy_(2 * statics[-1])

    monkeypatch.setattr(FakeGraph, "replay", replay)
    first, second = (Sample({"x": torch.full((2,), n)}, {}, None) for n in (1.0, 5.0))
    call = captured(forward, first)
    assert fake_cuda == [
        *("forward", "wait", "side stream", *["forward"] * 3, "end of side stream", "wait"),
        *("synchronize", "clear", "capture", "forward", "end of capture"),
    ]
    with torch.inference_mode():
        one = call(first)
        other = call(second)
    assert one.tolist() == [2.0, 2.0]
    assert other.tolist() == [10.0, 10.0]
    assert statics[-1] is not first.half["x"]
    assert first.half["x"].tolist() == [1.0, 1.0]


@pytest.mark.gpu
def test_a_captured_graph_writes_to_memory_of_its_own_alone() -> None:
    """The workspace of its product was made by an earlier graph that is gone, or by itself."""
    weight = torch.randn(65_536, 64, device="cuda", dtype=torch.float16) / 256
    sample = Sample({"x": torch.randn(16, 65_536, device="cuda", dtype=torch.float16)}, {}, None)

    def forward(x: torch.Tensor) -> dict[str, Any]:
        return {"last_hidden_state": x @ weight}

    captured(forward, sample)
    call = captured(forward, sample)
    with torch.inference_mode():
        expected = call(sample)
        torch._C._cuda_clearCublasWorkspaces()
        gc.collect()
        torch.cuda.empty_cache()
        others = on_every_stream(weight.device)
        assert torch.equal(call(sample), expected)
    assert all(bool((other == 7).all()) for other in others)


def test_what_is_compiled_is_compiled_once_a_mode_and_forgotten_after_the_case(
    fake_cuda: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dynamo itself, without Inductor's compiler; a graph is a call where nothing is captured."""
    asked: list[tuple[str, bool]] = []
    real = torch.compile

    def compile_eagerly(module: Any, *, dynamic: bool, mode: str) -> Any:
        asked.append((mode, dynamic))
        return real(module, dynamic=dynamic, backend="eager")

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    weights = Weights(DISTILBERT, "cpu")
    weights.device = "cuda"
    samples = DISTILBERT.samples(ModelCase(2, 8), [0, 1], "cpu", dry=True)
    yard = yardstick(weights, samples[:1], 0)
    names = ("compile", "compile_reduce_overhead", "compile_max_autotune", "compile_cudagraph")
    for name in names:
        assert yard.judge(build(name, weights, samples[0]).call)[1] == ""
    assert asked == [("default", False), ("reduce-overhead", False), ("max-autotune", False)]
    weights.forget_compiled()
    build("compile", weights, samples[0])
    assert asked[3:] == [("default", False)]
