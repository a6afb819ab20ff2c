"""A packed linear layer and the gated activation behind it are one call."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx

from kernl import tuning
from kernl.ops import geglu, swiglu
from kernl.ops.linear_glu_config import LINEAR_GLU_TUNABLE, TWO, GluConfig
from kernl.rewrite import rewrite, trace
from kernl.rewrite.report import Report
from tests.tiny_models import CONFIGURATIONS, Flat, inputs, tensors_of, tiny

functional = torch.nn.functional
FUSED = GluConfig("fused", 16, 32, 32, 4, 2)
# One a layer, of an encoder and a decoder where there are both.
FAMILIES = {
    "llama": (2, "silu"),
    "qwen2": (2, "silu"),
    "gemma": (2, "gelu_tanh"),
    "gemma2": (2, "gelu_tanh"),
    "phi3": (2, "silu"),
    "modernbert": (4, "gelu"),
    "t5": (4, "gelu_tanh"),
}


@pytest.fixture(autouse=True)
def _a_gated_t5(monkeypatch: pytest.MonkeyPatch) -> None:
    """As T5 v1.1 and Flan-T5 are."""
    gated = {**CONFIGURATIONS["t5"], "feed_forward_proj": "gated-gelu"}
    monkeypatch.setitem(CONFIGURATIONS, "t5", gated)


def rewritten(kind: str) -> tuple[fx.GraphModule, Report, torch.nn.Module]:
    model, given = tiny(kind), inputs(kind)
    graph = trace(Flat(model, list(given)), list(given.values()))
    return graph, rewrite(graph), model


def calls(graph: fx.GraphModule, op: str) -> list[fx.Node]:
    target = f"kernl.{op}.default"
    return [node for node in graph.graph.nodes if str(node.target) == target]


def error(out: torch.Tensor, truth: torch.Tensor) -> float:
    return float((out.double() - truth.double()).norm() / truth.double().norm().clamp_min(1e-30))


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_first_half_of_every_gated_mlp(kind: str) -> None:
    graph, report, model = rewritten(kind)
    count, activation = FAMILIES[kind]
    assert [node.args[-1] for node in calls(graph, "linear_glu")] == count * [activation]
    assert report.fused["linear_glu"] == count
    # The report tells what stands in the graph, packed layers aside.
    assert not {"swiglu", "geglu"} & set(report.fused)
    assert report.fused["linear"] - report.packed == len(calls(graph, "linear"))
    fresh = inputs(kind, seed=1)
    with torch.no_grad():
        with tuning.forcing(LINEAR_GLU_TUNABLE, FUSED):
            outputs = graph(*fresh.values())
        assert max(map(error, outputs, tensors_of(model(**fresh)))) < 1e-5


def test_weights_changed_in_place_are_seen() -> None:
    graph, _, model = rewritten("llama")
    fresh = inputs("llama", seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(1.5 if "gate_proj" in name else 0.9)
        for config in (FUSED, TWO):
            with tuning.forcing(LINEAR_GLU_TUNABLE, config):
                outputs = graph(*fresh.values())
            assert max(map(error, outputs, tensors_of(model(**fresh)))) < 1e-5


X, WEIGHT, BIAS = (2, 3, 8), (12, 8), (12,)
Function = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Any]


def _chunked(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Any:
    gate, up = functional.linear(x, weight, bias).chunk(2, -1)
    return functional.silu(gate) * up


def _up_on_the_left(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Any:
    gate, up = functional.linear(x, weight).chunk(2, -1)
    return up * functional.gelu(gate)


def _by_the_operator(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Any:
    return swiglu(functional.linear(x, weight, bias))


def _by_slices(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Any:
    both = functional.linear(x, weight, bias)
    return geglu(both[..., :6], both[..., 6:], "gelu_tanh")


JOINED: dict[str, tuple[Function, str]] = {
    "chunked": (_chunked, "silu"),
    "up on the left": (_up_on_the_left, "gelu"),
    "by the operator, packed": (_by_the_operator, "silu"),
    "by the operator, slices": (_by_slices, "gelu_tanh"),
}


def run(function: Function) -> tuple[fx.GraphModule, Report]:
    """The rewritten graph of a function, whose values are the function's."""
    tensors = [torch.randn(shape) for shape in (X, WEIGHT, BIAS)]
    graph = trace(function, tensors)
    report = rewrite(graph)
    expected = function(*tensors)
    expected = (expected,) if isinstance(expected, torch.Tensor) else expected
    for out, true in zip(graph(*tensors), expected, strict=True):
        torch.testing.assert_close(out, true, rtol=1e-4, atol=1e-5)
    return graph, report


@pytest.mark.parametrize("name", JOINED)
def test_a_layer_packed_by_the_model_itself(name: str) -> None:
    function, activation = JOINED[name]
    graph, report = run(function)
    (call,) = calls(graph, "linear_glu")
    assert call.args[-1] == activation
    assert report.fused == {"linear_glu": 1}
    assert not calls(graph, "linear")


def _also_needed(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Any:
    both = functional.linear(x, weight, bias)
    gate, up = both.chunk(2, -1)
    return functional.silu(gate) * up, both


def _half_also_needed(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Any:
    gate, up = functional.linear(x, weight, bias).chunk(2, -1)
    return functional.silu(gate) * up, up.sin()


def _up_first(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Any:
    up, gate = functional.linear(x, weight, bias).chunk(2, -1)
    return functional.silu(gate) * up


def _thirds(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Any:
    gate, up, _ = functional.linear(x, weight, bias).chunk(3, -1)
    return functional.silu(gate) * up


def _rows(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Any:
    gate, up = functional.linear(x, weight, bias).chunk(2, 0)
    return functional.silu(gate) * up


def _activated(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Any:
    gate, up = functional.relu(functional.linear(x, weight, bias)).chunk(2, -1)
    return functional.silu(gate) * up


def _itself(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Any:
    gate, _ = functional.linear(x, weight, bias).chunk(2, -1)
    return swiglu(gate, gate)


@pytest.mark.parametrize(
    "function", [_also_needed, _half_also_needed, _up_first, _thirds, _rows, _activated, _itself]
)
def test_what_only_looks_like_it_stays(function: Function) -> None:
    graph, report = run(function)
    assert not calls(graph, "linear_glu")
    assert not report.fused["linear_glu"]
    assert len(calls(graph, "linear")) == len(calls(graph, "swiglu")) == 1


def test_the_report_tells_it_like_any_other() -> None:
    _, report, _ = rewritten("llama")
    assert "     2 × linear_glu\n" in str(report)
    assert "swiglu" not in str(report)
