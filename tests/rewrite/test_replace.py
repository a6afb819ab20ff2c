"""What a pattern finds, what it must not find, and what is said of both."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kernl.errors import ShapeError, UntraceableError
from kernl.ops import layer_norm, softmax
from kernl.rewrite import graph_report, replace_pattern, rewrite, trace
from tests.tiny_models import DEVICE

functional = torch.nn.functional
X = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(3)).to(DEVICE)
W, B = torch.randn(8, device=DEVICE), torch.randn(8, device=DEVICE)


def fused(function: Callable[..., Any], *tensors: torch.Tensor) -> dict[str, int]:
    """How often each operator was put into the graph of a function, whose values must stay."""
    graph = trace(function, tensors)
    report = rewrite(graph)
    expected = function(*tensors)
    expected = (expected,) if isinstance(expected, torch.Tensor) else tuple(expected)
    for out, true in zip(graph(*tensors), expected, strict=True):
        torch.testing.assert_close(out, true, rtol=1e-4, atol=1e-5)
    return dict(report.fused)


NEAR_MISSES: dict[str, tuple[Callable[..., Any], str]] = {
    "softmax over another dimension": (lambda x: torch.softmax(x, 1), "softmax"),
    "a norm over two dimensions": (
        lambda x: functional.layer_norm(x, (3, 8), W.expand(3, 8), B.expand(3, 8)),
        "layer_norm",
    ),
    "an RMS norm of cubes": (
        lambda x: W * (x * torch.rsqrt(x.abs().pow(3).mean(-1, keepdim=True) + 1e-6)),
        "rms_norm",
    ),
    "an RMS norm of another dimension": (
        lambda x: W * (x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)),
        "rms_norm",
    ),
    "a gate that multiplies itself": (
        lambda x: functional.silu(x) + functional.silu(x.sin()),
        "swiglu",
    ),
    "a written-out GELU with another constant": (
        lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.05 * torch.pow(x, 3.0)))),
        "linear",
    ),
    "attention whose weights are doubled": (
        lambda x: torch.matmul(2 * torch.softmax(torch.matmul(x, x.mT) * 0.3, -1), x),
        "attention",
    ),
}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_a_near_miss_is_left_alone(name: str) -> None:
    function, op = NEAR_MISSES[name]
    x = X[:, None].expand(2, 2, 3, 8) if op == "attention" else X
    assert op not in fused(function, x)


@pytest.mark.parametrize("eps", [1e-12, 1e-5, 0.1])
def test_a_constant_is_taken_from_where_it_stands(eps: float) -> None:
    found = fused(lambda x, w, b: functional.layer_norm(x, (8,), w, b, eps), X * 1e-3, W, B)
    assert found == {"layer_norm": 1}


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_the_flavour_of_an_activation_is_kept(approximate: str) -> None:
    weight = torch.randn(5, 8)
    found = fused(
        lambda x, w: functional.gelu(functional.linear(x, w), approximate=approximate), X, weight
    )
    assert found == {"linear": 1}


def test_the_order_of_a_sum_does_not_matter() -> None:
    weight = torch.randn(8, 8)
    for function in (
        lambda x, w: x + functional.linear(x, w),
        lambda x, w: functional.linear(x, w) + x,
    ):
        assert fused(function, X, weight) == {"linear": 1}


def test_a_sum_that_others_need_is_returned_too() -> None:
    def pre_norm(x: torch.Tensor, y: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> Any:
        summed = x + y
        return functional.layer_norm(summed, (8,), w, b), summed.sin()

    assert fused(pre_norm, X, X.sin(), W, B) == {"layer_norm": 1}


def test_what_is_needed_elsewhere_is_refused_in_words() -> None:
    def shared(x: torch.Tensor, w: torch.Tensor) -> Any:
        wide = functional.linear(x, w)
        return functional.gelu(wide), wide

    graph = trace(shared, [X, torch.randn(5, 8)])
    report = rewrite(graph)
    assert report.fused == {"linear": 1}
    assert [(one.op, one.reason) for one in report.refused] == [
        ("linear", "what linear computes on the way is needed elsewhere too")
    ]
    assert report.left == {"gelu": 1}
    assert "needed elsewhere" in str(report)
    assert "1 × gelu" in str(report)


def test_causality_that_counts_from_the_first_key_is_refused_where_it_matters() -> None:
    q, k = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 5, 8)
    graph = trace(
        lambda q, k: functional.scaled_dot_product_attention(q, k, k, is_causal=True), [q, k]
    )
    report = rewrite(graph)
    assert report.fused == {}
    assert "nothing: what was found is refused" in str(report)
    assert "as many queries as keys" in report.refused[0].reason
    assert fused(lambda k: functional.scaled_dot_product_attention(k, k, k, is_causal=True), k) == {
        "attention": 1
    }


def test_queries_and_keys_of_one_layer_are_rotated_together() -> None:
    def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        half = torch.cat((-x[..., 4:], x[..., :4]), dim=-1)
        return x * cos[:, None] + half * sin[:, None]

    def two_layers(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> Any:
        first = rotate(q, cos, sin), rotate(k, cos, sin)
        return *first, rotate(first[0].sin(), cos, sin), rotate(first[1].sin(), cos, sin)

    q, k = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 3, 8)
    angles = torch.randn(1, 3, 8)
    assert fused(two_layers, q, k, angles.cos(), angles.sin()) == {"rotary": 2}


def test_a_pattern_of_ones_own() -> None:
    def pattern(x: torch.Tensor, shift: float) -> torch.Tensor:
        return torch.softmax(x.sin() + shift, dim=-1)

    def replacement(x: torch.Tensor, shift: float) -> torch.Tensor:
        return softmax(x.sin() + shift)

    graph = trace(lambda x: torch.softmax((x * 2).sin() + 0.25, dim=-1), [X])
    report = replace_pattern(graph, pattern, replacement, {"x": (4, 8)}, {"shift": 0.7310585})
    assert report.fused == {"replacement": 1}
    assert "kernl.softmax" in graph_report(graph)
    torch.testing.assert_close(graph(X)[0], torch.softmax((X * 2).sin() + 0.25, dim=-1))


@pytest.mark.parametrize(
    ("mark", "number", "count"),
    [(7919, 2, 1), (7919, 2.5, 0), (7919, float("inf"), 0), (0.7310585, 2, 1), (0.7310585, 2.5, 1)],
)
def test_a_constant_that_is_an_integer_stands_for_integers_alone(
    mark: float, number: float, count: int
) -> None:
    def pattern(x: torch.Tensor, shift: float) -> torch.Tensor:
        return (x + shift).sin()

    def replacement(x: torch.Tensor, shift: float) -> torch.Tensor:
        assert type(shift) is type(mark)
        return torch.sin(x + shift)

    graph = trace(lambda x: (x + number).sin(), [X])
    report = replace_pattern(graph, pattern, replacement, {"x": (4, 8)}, {"shift": mark})
    assert report.fused["replacement"] == count


def test_a_pattern_that_is_a_module() -> None:
    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.LayerNorm(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.relu(self.norm(x))

    def replacement(
        x: torch.Tensor, norm_weight: torch.Tensor, norm_bias: torch.Tensor
    ) -> torch.Tensor:
        return torch.relu(layer_norm(x, norm_weight, norm_bias))

    torch.manual_seed(0)
    stack = torch.nn.Sequential(Block(), Block()).eval()
    graph = trace(stack, [X])
    report = replace_pattern(graph, Block().eval(), replacement, {"x": (4, 8)})
    assert report.fused == {"replacement": 2}
    torch.testing.assert_close(graph(X)[0], stack(X))


def test_a_call_that_returns_something_else_is_refused() -> None:
    graph = trace(lambda x: x.sin().cos(), [X])
    report = replace_pattern(graph, lambda x: x.sin().cos(), lambda x: x.half().sin(), {"x": (8,)})
    assert report.fused == {}
    assert "the call returns torch.float16 (2, 3, 8)" in report.refused[0].reason


def test_what_an_operator_refuses_is_the_reason() -> None:
    def refuses(x: torch.Tensor) -> torch.Tensor:
        raise ShapeError(seen="a moody call", allowed="sunshine", action="wait")

    graph = trace(lambda x: x.sin().cos(), [X])
    report = replace_pattern(graph, lambda x: x.sin().cos(), refuses, {"x": (8,)})
    assert "a moody call" in report.refused[0].reason
    torch.testing.assert_close(graph(X)[0], X.sin().cos())


def test_a_pattern_that_cannot_be_traced_is_an_error() -> None:
    graph = trace(lambda x: x.sin(), [X])
    with pytest.raises(UntraceableError):
        replace_pattern(graph, lambda x: x if x.sum() > 0 else -x, torch.sin, {"x": (8,)})


def test_a_model_without_a_match_is_not_silent() -> None:
    graph = trace(lambda x: x.sin().cos(), [X])
    assert "no operator's spelling was found" in str(rewrite(graph))
    assert graph_report(graph).split() == ["1", "aten.sin", "1", "aten.cos"]
