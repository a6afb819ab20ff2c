"""Every family of models: traced, rewritten, and right."""

import pytest
import torch

from kernl.rewrite import rewrite, trace
from tests.tiny_models import CONFIGURATIONS, Flat, inputs, tensors_of, tiny

# What must not be left to PyTorch: each has an operator of ours.
OURS = {
    *("linear", "addmm", "layer_norm", "scaled_dot_product_attention", "gelu", "silu", "softmax"),
    "conv1d",
}


def error(out: torch.Tensor, truth: torch.Tensor) -> float:
    return float((out.double() - truth.double()).norm() / truth.double().norm().clamp_min(1e-30))


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_a_rewritten_model_computes_what_it_did(kind: str) -> None:
    model, given = tiny(kind), inputs(kind)
    graph = trace(Flat(model, list(given)), list(given.values()))
    report = rewrite(graph)
    assert not set(report.left) & OURS, report
    layers = CONFIGURATIONS[kind].get("num_hidden_layers", 2)
    assert report.fused["attention"] >= layers
    linears = sum(count for name, count in report.fused.items() if name.startswith("linear"))
    assert linears >= 4 * layers
    with torch.no_grad():
        # Other data than the graph was traced on.
        fresh = inputs(kind, seed=1)
        outputs, truth = graph(*fresh.values()), tensors_of(model(**fresh))
    assert len(outputs) == len(truth)
    assert max(map(error, outputs, truth)) < 1e-5


HALVES = ("bert", "t5", "bart", "modernbert", "gpt2", "llama", "gemma2")


@pytest.mark.parametrize("kind", HALVES)
def test_in_half_precision_a_model_is_as_right_as_it_was(kind: str) -> None:
    dtype = torch.float16 if kind != "gemma2" else torch.bfloat16
    model, given = tiny(kind, dtype), inputs(kind, dtype)
    graph = trace(Flat(model, list(given)), list(given.values()))
    report = rewrite(graph)
    assert not set(report.left) & OURS, report
    with torch.no_grad():
        outputs, eager = graph(*given.values()), tensors_of(model(**given))
        wide = {k: v.float() if v.is_floating_point() else v for k, v in given.items()}
        truth = tensors_of(model.float()(**wide))
    ours = max(error(out, true) for out, true in zip(outputs, truth, strict=True))
    theirs = max(error(out, true) for out, true in zip(eager, truth, strict=True))
    assert ours <= 1.5 * theirs


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "camembert", "mpnet"])
def test_positions_that_count_tokens_are_counted_where_they_are_looked_up(kind: str) -> None:
    """Padding at the end, in front and in between, which this family knows by its id."""
    model, given = tiny(kind), inputs(kind)
    graph = trace(Flat(model, list(given)), list(given.values()))
    report = rewrite(graph)
    assert report.fused["embedding_layer_norm"] == 1
    assert not {"ne", "cumsum", "mul", "add", "gather"} & set(report.left), report
    fresh = inputs(kind, seed=1)
    ids = next(iter(fresh.values()))
    ids[0, 9:], ids[1, :4], ids[1, 6] = 1, 1, 1
    with torch.no_grad():
        outputs, truth = graph(*fresh.values()), tensors_of(model(**fresh))
    assert max(map(error, outputs, truth)) < 1e-5


def test_attention_weights_that_are_asked_for_stay_with_pytorch() -> None:
    model, given = tiny("bert", attn_implementation="eager"), inputs("bert")

    class Weights(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
            return tensors_of(self.model(ids, mask, output_attentions=True))

    graph = trace(Weights(), list(given.values()))
    report = rewrite(graph)
    assert report.fused["attention"] == 0
    assert any("needed elsewhere" in one.reason for one in report.refused)
    with torch.no_grad():
        outputs = graph(*given.values())
        truth = tensors_of(model(*given.values(), output_attentions=True))
    assert len(outputs) == len(truth) == 4
    assert max(map(error, outputs, truth)) < 1e-5


def test_attention_written_out_is_found_too() -> None:
    model, given = tiny("bert", attn_implementation="eager"), inputs("bert")
    graph = trace(Flat(model, list(given)), list(given.values()))
    assert rewrite(graph).fused["attention"] == 2
    with torch.no_grad():
        outputs, truth = graph(*given.values()), tensors_of(model(**given))
    assert max(map(error, outputs, truth)) < 1e-5


def test_weights_changed_in_place_are_seen() -> None:
    model, given = tiny("bert"), inputs("bert")
    graph = trace(Flat(model, list(given)), list(given.values()))
    rewrite(graph)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
        outputs, truth = graph(*given.values()), tensors_of(model(**given))
    assert max(map(error, outputs, truth)) < 1e-5
