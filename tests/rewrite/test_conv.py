"""Convolutions over time in a graph: what is found, what is not, and where weights lie after."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx
from torch.nn import functional

from kernl.rewrite import Report, rewrite, trace
from kernl.rewrite.pack import unpack_linears
from tests.tiny_models import DEVICE, Flat, inputs, tensors_of, tiny

X = torch.randn(2, 8, 21, generator=torch.Generator().manual_seed(0)).to(DEVICE)
ROWS = 11
"""Positions that the convolutions below leave of X."""


def error(out: torch.Tensor, truth: torch.Tensor) -> float:
    return float((out.double() - truth.double()).norm() / truth.double().norm().clamp_min(1e-30))


def rewritten(module: torch.nn.Module, *tensors: torch.Tensor) -> tuple[fx.GraphModule, Report]:
    """Its graph, which computes what the module does."""
    graph = trace(module.eval(), tensors)
    report = rewrite(graph)
    with torch.no_grad():
        outputs, truths = graph(*tensors), tensors_of(module(*tensors))
    assert max(map(error, outputs, truths)) < 1e-5
    return graph, report


class Conv(torch.nn.Module):
    """One convolution, and a function of its output and of what else is given."""

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        super().__init__()
        settings = {"kernel_size": 3, "stride": 2, "padding": 1, **options}
        self.conv = torch.nn.Conv1d(8, 16, **settings)
        self.function = function

    def forward(self, x: torch.Tensor, *others: torch.Tensor) -> Any:
        return self.function(self.conv(x), *others)


def same(x: torch.Tensor) -> torch.Tensor:
    return x


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (same, "none"),
        (functional.gelu, "gelu"),
        (torch.nn.GELU("tanh"), "gelu_tanh"),
        (functional.relu, "relu"),
        (functional.silu, "silu"),
        (torch.tanh, "tanh"),
    ],
)
def test_an_activation_goes_with_its_convolution(
    activation: Callable[..., Any], name: str, bias: bool
) -> None:
    graph, report = rewritten(Conv(activation, bias=bias), X)
    assert (report.fused, report.left, report.refused) == ({"conv1d": 1}, {}, [])
    (call,) = (n for n in graph.graph.nodes if n.target is torch.ops.kernl.conv1d.default)
    assert call.args[3:] == (2, 1, name, None)


@pytest.mark.parametrize(("kernel_size", "stride", "padding"), [(1, 1, 0), (2, 3, 0), (5, 1, 9)])
def test_its_numbers_are_taken_from_where_they_stand(
    kernel_size: int, stride: int, padding: int
) -> None:
    options = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
    _, report = rewritten(Conv(functional.gelu, **options), X)
    assert (report.fused, report.left) == ({"conv1d": 1}, {})


def image(x: torch.Tensor) -> torch.Tensor:
    """As ViT makes patches."""
    return functional.conv2d(x[:, :, None], torch.ones(16, 8, 1, 3), stride=(1, 2))


def reversed_conv(x: torch.Tensor) -> torch.Tensor:
    return functional.gelu(functional.conv_transpose1d(x, torch.ones(8, 16, 3), stride=2))


OTHERS: dict[str, torch.nn.Module] = {
    "groups": Conv(functional.gelu, groups=4),
    "dilation": Conv(functional.gelu, dilation=2),
    "padding by a word": Conv(functional.gelu, stride=1, padding="same"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_convolution_stays_with_pytorch(name: str) -> None:
    _, report = rewritten(OTHERS[name].to(DEVICE), X)
    assert (report.fused, report.left) == ({}, {"conv1d": 1, "gelu": 1})


@pytest.mark.parametrize(
    ("function", "left"),
    [(image, {"conv2d": 1}), (reversed_conv, {"conv_transpose1d": 1, "gelu": 1})],
)
def test_two_dimensions_and_the_way_back_stay_too(
    function: Callable[..., Any], left: dict[str, int]
) -> None:
    graph = trace(function, [X])
    report = rewrite(graph)
    report.left.pop("ones", None)
    assert (report.fused, report.left) == ({}, left)


def test_a_sequence_without_a_batch_is_refused_in_words() -> None:
    _, report = rewritten(Conv(same), X[0])
    assert report.left == {"conv1d": 1}
    assert any("3 dimensions" in one.reason for one in report.refused)


def test_an_activation_of_what_is_needed_elsewhere_stays() -> None:
    _, report = rewritten(Conv(lambda out: (functional.gelu(out), out)), X)
    assert (report.fused, report.left) == ({"conv1d": 1}, {"gelu": 1})


@pytest.mark.parametrize("shape", [(ROWS, 16), (1, ROWS, 16), (2, ROWS, 16), (16,), (ROWS, 1)])
@pytest.mark.parametrize("first", [True, False])
def test_what_is_added_behind_the_turn_goes_with_it(shape: tuple[int, ...], first: bool) -> None:
    def added(out: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        turned = functional.gelu(out).permute(0, 2, 1)
        return positions + turned if first else turned + positions

    _, report = rewritten(Conv(added), X, torch.randn(shape))
    assert (report.fused, report.left) == ({"conv1d": 1}, {})


def test_more_than_what_a_convolution_gives_is_added_by_pytorch() -> None:
    def added(out: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        return functional.gelu(out).transpose(1, 2) + others

    _, report = rewritten(Conv(added), X, torch.randn(3, 1, ROWS, 16))
    assert (report.fused, report.left) == ({"conv1d": 1}, {"add": 1})


class Two(torch.nn.Module):
    """As Whisper's encoder begins."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv1d(8, 16, 3, padding=1)
        self.second = torch.nn.Conv1d(16, 24, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.gelu(self.second(functional.gelu(self.first(x))))


NATURAL, IN_ROWS = (48, 3, 1), (48, 1, 16)


def test_a_weight_lies_in_rows_where_its_input_does() -> None:
    module = Two()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    graph, report = rewritten(module, X)
    assert report.fused == {"conv1d": 2}
    assert module.first.weight.stride() == (24, 3, 1)
    assert module.second.weight.stride() == IN_ROWS
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, before[name])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)
        assert error(graph(X)[0], module(X)) < 1e-5


def test_its_memory_comes_back() -> None:
    module = Two()
    before = module.second.weight.detach().clone()
    rewritten(module, X)
    unpack_linears(module)
    assert module.second.weight.stride() == NATURAL
    assert torch.equal(module.second.weight, before)
    rewritten(module, X)
    assert module.second.weight.stride() == IN_ROWS


def test_a_second_graph_reads_the_same_memory() -> None:
    module = Two()
    first, _ = rewritten(module, X)
    place = module.second.weight.data_ptr()
    second, _ = rewritten(module, X[:1, :, :9])
    assert module.second.weight.data_ptr() == place
    with torch.no_grad():
        module.second.weight.mul_(2)
        assert error(first(X)[0], module(X)) < 1e-5
        assert error(second(X[:1, :, :9])[0], module(X[:1, :, :9])) < 1e-5


def test_what_an_earlier_graph_reads_is_not_moved() -> None:
    module = Two()
    alone, _ = rewritten(module.second, torch.randn(2, 16, 7))
    graph, _ = rewritten(module, X)
    assert module.second.weight.stride() == NATURAL
    with torch.no_grad():
        module.second.weight.mul_(2)
        x = torch.randn(2, 16, 7)
        assert error(alone(x)[0], module.second(x)) < 1e-5
        assert error(graph(X)[0], module(X)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_whispers_encoder_begins_with_two(dtype: torch.dtype) -> None:
    model, given = tiny("whisper", dtype), inputs("whisper", dtype)
    graph = trace(Flat(model, list(given)), list(given.values()))
    report = rewrite(graph)
    assert report.fused["conv1d"] == 2
    # Token ids are looked up, and the decoder's positions.
    assert report.left == {"embedding": 1, "index": 1}
    with torch.no_grad():
        fresh = inputs("whisper", dtype, seed=1)
        outputs, eager = graph(*fresh.values()), tensors_of(model(**fresh))
        wide = {k: v.double() if v.is_floating_point() else v for k, v in fresh.items()}
        truths = tensors_of(model.double()(**wide))
    for out, theirs, truth in zip(outputs, eager, truths, strict=True):
        limit = 1e-5 * truth.norm() if dtype == torch.float32 else 1.5 * (theirs - truth).norm()
        assert (out - truth).norm() <= limit
