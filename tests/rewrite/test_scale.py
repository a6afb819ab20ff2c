"""Scaled queries and keys: the number goes into attention, and only where nothing else changes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx

from kernl.rewrite import rewrite, trace
from tests.tiny_models import DEVICE, Flat, inputs, tensors_of, tiny

sdpa = torch.nn.functional.scaled_dot_product_attention
Q, K, V = (
    torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(seed)).to(DEVICE)
    for seed in range(3)
)


def rewritten(function: Callable[..., Any], *tensors: torch.Tensor) -> tuple[fx.GraphModule, Any]:
    """The graph, which gives what the function gives in float64, and what is left to PyTorch."""
    graph = trace(function, tensors)
    report = rewrite(graph)
    assert report.fused["attention"] == 1
    out = graph(*tensors)[0]
    truth = tensors_of(function(*(tensor.double() for tensor in tensors)))[0]
    assert (out.double() - truth).norm() <= 1e-6 * truth.norm()
    return graph, report.left


def scale_of(graph: fx.GraphModule) -> float:
    (found,) = (n for n in graph.graph.nodes if n.target is torch.ops.kernl.attention.default)
    scale = found.args[5]
    assert isinstance(scale, float)
    return scale


def as_heads(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).reshape(2, 4, 24)[:, :, :16].reshape(2, 4, 2, 8).transpose(1, 2)


FOLDED: dict[str, tuple[Callable[..., torch.Tensor], float]] = {
    "queries": (lambda q, k, v: sdpa(q * 0.3, k, v, scale=1.0), 0.3),
    "a number first": (lambda q, k, v: sdpa(0.3 * q, k, v, scale=0.5), 0.15),
    "keys": (lambda q, k, v: sdpa(q, k * 3, v, scale=0.5), 1.5),
    "both": (lambda q, k, v: sdpa(q * 0.5, k * 0.25, v, scale=1.0), 0.125),
    "a quotient": (lambda q, k, v: sdpa(q / 8, k, v, scale=1.0), 0.125),
    "attention's own scale": (lambda q, k, v: sdpa(q * 2, k, v), 2 / 8**0.5),
    "a mask": (lambda q, k, v: sdpa(q * 0.3, k, v, attn_mask=v[..., :4], scale=1.0), 0.3),
    "views between": (
        lambda q, k, v: sdpa(as_heads(q * 0.3), as_heads(k), as_heads(v), scale=1.0),
        0.3,
    ),
    "written out": (
        lambda q, k, v: (
            torch.softmax(torch.matmul(q * 0.3, k.mT) * 0.5, -1, torch.float32).to(v.dtype) @ v
        ),
        0.15,
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_a_number_becomes_part_of_the_scale(name: str) -> None:
    function, scale = FOLDED[name]
    graph, left = rewritten(function, Q, K, V)
    assert left == {}
    assert scale_of(graph) == pytest.approx(scale)


def doubled(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
    wide = q * 0.3
    return sdpa(wide, k, v, scale=1.0), wide


def view_of_doubled(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
    wide = (q * 0.3).transpose(0, 1)
    return sdpa(wide.transpose(0, 1), k, v, scale=1.0), wide.sin()


LEFT: dict[str, Callable[..., Any]] = {
    "a factor of the input": lambda q, k, v: sdpa(q * v[:1, :1, :1, :1], k, v, scale=1.0),
    "a factor for each column": lambda q, k, v: sdpa(q * v, k, v, scale=1.0),
    "a result that is returned too": doubled,
    "a view that is needed too": view_of_doubled,
    "values": lambda q, k, v: sdpa(q, k, v * 0.3, scale=1.0),
    "queries that are keys": lambda q, k, v: (lambda x: sdpa(x, x, v, scale=1.0))(q * 0.3),
    "queries that are values": lambda q, k, v: (lambda x: sdpa(x, k, x, scale=1.0))(q * 0.3),
    "a negative number": lambda q, k, v: sdpa(q * -0.3, k, v, scale=1.0),
    "zero": lambda q, k, v: sdpa(q * 0.0, k, v, scale=1.0),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_no_mere_number_or_needed_elsewhere_stays(name: str) -> None:
    graph, left = rewritten(LEFT[name], Q, K, V)
    assert left["mul"] == 1
    assert scale_of(graph) == 1.0


def test_half_precision_is_as_right_or_more() -> None:
    function, _ = FOLDED["queries"]
    half = [tensor.half() for tensor in (4 * Q, K, V)]
    graph = trace(function, half)
    rewrite(graph)
    truth = function(*(tensor.double() for tensor in half))
    error = (graph(*half)[0].double() - truth).norm()
    assert error <= (function(*half).double() - truth).norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_whisper_scales_no_queries_and_packs_them_with_keys_and_values(dtype: torch.dtype) -> None:
    model, given = tiny("whisper", dtype), inputs("whisper", dtype)
    graph = trace(Flat(model, list(given)), list(given.values()))
    report = rewrite(graph)
    assert report.left["mul"] == 0
    # Two of three in each of four layers; keys and values of two more, all of one input.
    assert report.packed == 4 * 2 + 3
    with torch.no_grad():
        outputs, eager = graph(*given.values()), tensors_of(model(**given))
        wide = {k: v.double() if v.is_floating_point() else v for k, v in given.items()}
        truths = tensors_of(model.double()(**wide))
    for out, theirs, truth in zip(outputs, eager, truths, strict=True):
        limit = 1e-5 * truth.norm() if dtype == torch.float32 else 1.5 * (theirs - truth).norm()
        assert (out - truth).norm() <= limit
