"""Layers that normalise first: a linear layer, its residual and the next norm are one call."""

from typing import Any

import pytest
import torch
from torch import fx

from kernl import tuning
from kernl.ops.linear_add_layer_norm import LINEAR_ADD_LAYER_NORM_TUNABLE
from kernl.ops.linear_config import LinearConfig
from kernl.ops.linear_rms_norm import LINEAR_RMS_NORM_TUNABLE
from kernl.rewrite import rewrite, trace
from kernl.rewrite.report import Report
from tests.tiny_models import Flat, inputs, tensors_of, tiny

SPLIT = LinearConfig("split", 16, 16, 16, 3, 4, 2)
DECODERS = ("llama", "mistral", "qwen2", "qwen3", "gemma", "phi3")
functional = torch.nn.functional


def rewritten(kind: str) -> tuple[fx.GraphModule, Report, torch.nn.Module]:
    model, given = tiny(kind), inputs(kind)
    graph = trace(Flat(model, list(given)), list(given.values()))
    return graph, rewrite(graph), model


def error(out: torch.Tensor, truth: torch.Tensor) -> float:
    return float((out.double() - truth.double()).norm() / truth.double().norm().clamp_min(1e-30))


@pytest.mark.parametrize("split", [False, True], ids=["rule", "split"])
@pytest.mark.parametrize("kind", DECODERS)
def test_every_sum_of_a_decoder_is_normed_where_it_is_made(kind: str, split: bool) -> None:
    graph, report, model = rewritten(kind)
    # Two sums a layer, and one norm that has none in front; qwen3 norms queries and keys too.
    assert report.fused["linear_rms_norm"] == 4
    assert report.fused["rms_norm"] == (5 if kind == "qwen3" else 1)
    # What reads the normed tensor is packed as it was: queries, keys and values; gate and up.
    assert report.packed == (0 if kind == "phi3" else 6)
    check(graph, model, kind, LINEAR_RMS_NORM_TUNABLE, split)


@pytest.mark.parametrize("split", [False, True], ids=["rule", "split"])
@pytest.mark.parametrize(("kind", "joints", "ends"), [("vit", 3, 1), ("whisper", 8, 2)])
def test_the_same_with_layer_norms(kind: str, joints: int, ends: int, split: bool) -> None:
    graph, report, model = rewritten(kind)
    assert report.fused["linear_add_layer_norm"] == joints
    # Nothing is added to the last sum.
    assert report.fused["linear_layer_norm"] == ends
    check(graph, model, kind, LINEAR_ADD_LAYER_NORM_TUNABLE, split)


def test_a_sum_that_is_clamped_is_normed_with_it() -> None:
    """Whisper's layers in half precision: no pass of their own clamps their sums."""
    model, given = tiny("whisper", torch.float16), inputs("whisper", torch.float16)
    flat = Flat(model, list(given))
    graph = trace(flat, list(given.values()))
    report = rewrite(graph)
    # The encoder's two layers end in a clamp, and nothing needs the last sum of the decoder's.
    assert report.fused["linear_add_layer_norm"] == 9
    assert report.fused["linear_layer_norm"] == 1
    assert any("limit" in str(node.kwargs) or 64504.0 in node.args for node in graph.graph.nodes)
    with torch.no_grad():
        outputs = graph(*given.values())
        truth = tensors_of(model.float()(**{k: _full(v) for k, v in given.items()}))
    assert max(map(error, outputs, truth)) < 5e-3


def _full(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value


def check(
    graph: fx.GraphModule, model: torch.nn.Module, kind: str, tunable: Any, split: bool
) -> None:
    fresh = inputs(kind, seed=1)
    with torch.no_grad():
        if split:
            with tuning.forcing(tunable, SPLIT):
                outputs = graph(*fresh.values())
        else:
            outputs = graph(*fresh.values())
        truth = tensors_of(model(**fresh))
    assert max(map(error, outputs, truth)) < 1e-5


@pytest.mark.parametrize("kind", ["bert", "bart", "gemma2"])
def test_a_layer_that_normalises_last_keeps_its_operator(kind: str) -> None:
    _, report, _ = rewritten(kind)
    assert report.fused["linear_rms_norm"] == report.fused["linear_add_layer_norm"] == 0


def test_a_product_that_others_need_stays() -> None:
    x, residual = torch.randn(2, 3, 8), torch.randn(2, 3, 16)
    weight, scale = torch.randn(16, 8), torch.randn(16)

    def function(x: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, ...]:
        product = functional.linear(x, weight.to(x.device))
        summed = residual + product
        return functional.rms_norm(summed, (16,), scale.to(x.device), 1e-6), summed, product

    graph = trace(function, [x, residual])
    report = rewrite(graph)
    assert report.fused == {"rms_norm": 1, "linear": 1}
    assert any("needed elsewhere" in one.reason for one in report.refused)
    for out, true in zip(graph(x, residual), function(x, residual), strict=True):
        torch.testing.assert_close(out, true, rtol=1e-4, atol=1e-5)
