"""One normal form for what is written in several ways, and the same values as before."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx

from kernl.errors import UntraceableError
from kernl.rewrite import trace
from tests.tiny_models import DEVICE

Function = Callable[..., torch.Tensor]
X = torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(3)).to(DEVICE)


def written(graph: fx.Graph) -> str:
    """A graph as text in which nodes are numbers."""
    names = {node: f"%{place}" for place, node in enumerate(graph.nodes)}
    lines = []
    for node in graph.nodes:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), names.__getitem__)
        # A placeholder's target is its name, and nothing else.
        target = "" if node.op in ("placeholder", "output") else node.target
        lines.append(f"{names[node]} = {node.op} {target} {args} {kwargs}")
    return "\n".join(lines)


SAME: dict[str, tuple[Function, ...]] = {
    "casts": (
        lambda x: x.to(torch.float16) + 1,
        lambda x: x.half() + 1,
        lambda x: x.to(x.device, torch.float16) + 1,
        lambda x: x.type_as(torch.empty(0, dtype=torch.float16)) + 1,
    ),
    "no cast": (lambda x: x + 1, lambda x: x.float() + 1, lambda x: x.to(x.device) + 1),
    "reshapes": (
        lambda x: x.reshape(6, 32) * 2,
        lambda x: x.view(2, 3, -1).flatten(0, 1) * 2,
        lambda x: x.contiguous().view(6, -1) * 2,
    ),
    "swaps": (
        lambda x: x.transpose(-1, -2) * 2,
        lambda x: x.permute(0, 1, 3, 2) * 2,
        lambda x: x.mT * 2,
        lambda x: x.transpose(3, 2) * 2,
    ),
    "copies": (
        lambda x: x * 2,
        lambda x: torch.nn.functional.dropout(x, 0.5, False).contiguous() * 2,
        lambda x: x.clone().detach() * 2,
        lambda x: x.expand(2, 3, 4, 8)[:, :, 0:] * 2,
        lambda x: torch.cat([torch.tensor([]), x], dim=-2) * 2,
        lambda x: (x * 1.0 + 0) * 2,
    ),
    "softmax": (
        lambda x: torch.softmax(x, -1),
        lambda x: torch.nn.functional.softmax(x, dim=3),
        lambda x: torch.nn.functional.softmax(x.float(), dim=-1, dtype=torch.float32),
    ),
    "attention": (
        lambda x: torch.nn.functional.scaled_dot_product_attention(x, x, x),
        lambda x: torch.nn.functional.scaled_dot_product_attention(x, x, x, scale=1 / 8**0.5),
        lambda x: torch.nn.functional.scaled_dot_product_attention(x, x, x, enable_gqa=True),
    ),
    "parts": (
        lambda x: x[..., :4] * x[..., 4:],
        lambda x: torch.mul(*x.chunk(2, dim=-1)),
        lambda x: torch.mul(*x.split(4, dim=-1)),
        lambda x: torch.mul(*x.split([4, 4], dim=3)),
    ),
    "equal nodes": (
        lambda x: (lambda y: y * y)(x.sin()),
        lambda x: x.sin() * x.sin(),
    ),
    "writing in place": (lambda x: x.sin() + x, lambda x: x.sin().add_(x)),
}


@pytest.mark.parametrize(
    ("first", "other"),
    [
        pytest.param(ways[0], way, id=f"{name}-{place}")
        for name, ways in SAME.items()
        for place, way in enumerate(ways[1:], 1)
    ],
)
def test_what_means_the_same_is_written_the_same(first: Function, other: Function) -> None:
    one, two = trace(first, [X]), trace(other, [X])
    assert written(one.graph) == written(two.graph)
    torch.testing.assert_close(two(X)[0], other(X))


DIFFERENT: dict[str, tuple[Function, Function]] = {
    "1 and 1.0": (lambda x: x.half() * 1, lambda x: x.half() * 1.5),
    "dimension": (lambda x: torch.softmax(x, -1), lambda x: torch.softmax(x, -2)),
    "random": (
        lambda x: torch.nn.functional.dropout(x, 0.5) * torch.nn.functional.dropout(x, 0.5),
        lambda x: (lambda y: y * y)(torch.nn.functional.dropout(x, 0.5)),
    ),
    "permutation": (lambda x: x.permute(1, 2, 0, 3) * 2, lambda x: x.permute(2, 1, 0, 3) * 2),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_stays_different(name: str) -> None:
    first, second = DIFFERENT[name]
    assert written(trace(first, [X]).graph) != written(trace(second, [X]).graph)


def test_a_product_with_a_bias_is_a_linear_layer() -> None:
    x, weight, bias = torch.randn(2, 3, 8), torch.randn(8, 5), torch.randn(5)

    def conv1d(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """As GPT-2 has it."""
        return torch.addmm(bias, x.view(-1, 8), weight).view(2, 3, 5)

    graph = trace(conv1d, [x, weight, bias])
    targets = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert targets == ["aten.transpose.int", "aten.linear.default"]
    torch.testing.assert_close(graph(x, weight, bias)[0], conv1d(x, weight, bias))


@pytest.mark.parametrize("options", [{"beta": 2}, {"alpha": 3}])
def test_a_scaled_product_is_none(options: dict[str, Any]) -> None:
    given = [torch.randn(5), torch.randn(4, 8), torch.randn(8, 5)]
    graph = trace(lambda b, x, w: torch.addmm(b, x, w, **options), given)
    assert "linear" not in str(graph.graph)
    torch.testing.assert_close(graph(*given)[0], torch.addmm(*given, **options))


def test_a_branch_on_data_is_refused_in_words() -> None:
    with pytest.raises(UntraceableError, match="depend on shapes and options alone"):
        trace(lambda x: x + 1 if x.sum() > 0 else x - 1, [X])


def test_a_forward_that_writes_into_its_input_is_refused() -> None:
    with pytest.raises(UntraceableError, match="writes into"):
        trace(lambda x: x.add_(1), [X.clone()])


def test_a_clamp_against_infinities_is_always_done() -> None:
    def clamped(x: torch.Tensor) -> torch.Tensor:
        """As BART has it."""
        if x.dtype == torch.float16 and not torch.isfinite(x).all():
            limit = torch.finfo(x.dtype).max - 1000
            x = torch.clamp(x, min=-limit, max=limit)
        return x

    graph = trace(clamped, [X.half()])
    assert "clamp" in str(graph.graph)
    wild = X.half()
    wild[0, 0, 0, 0] = float("inf")
    torch.testing.assert_close(graph(wild)[0], clamped(wild))
    torch.testing.assert_close(graph(X.half())[0], X.half())


def test_a_graph_has_the_modules_own_parameters() -> None:
    layer = torch.nn.Linear(8, 8)
    graph = trace(layer, [X])
    assert {id(p) for p in graph.parameters()} == {id(p) for p in layer.parameters()}
