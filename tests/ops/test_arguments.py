"""What users can pass: strides, empty batches, wrong arguments."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kernl import errors
from kernl.ops import layer_norm, linear, softmax
from kernl.ops.activation import ACTIVATIONS
from kernl.ops.layer_norm import layer_norm_reference
from kernl.ops.linear import linear_reference
from kernl.ops.softmax import softmax_reference
from tests.ops.refusals import check_refusal

TOLERANCE = 3e-6


def close(out: torch.Tensor, truth: torch.Tensor) -> bool:
    """Relative L2 against float64, as tight as float32 allows."""
    assert out.shape == truth.shape
    return bool((out.double() - truth).norm() <= TOLERANCE * truth.norm())


def _random(device: str, *shape: int) -> torch.Tensor:
    return torch.randn(
        shape, generator=torch.Generator(device).manual_seed(sum(shape)), device=device
    )


STRIDED: dict[str, Callable[[str], torch.Tensor]] = {
    "transposed": lambda d: _random(d, 33, 9).t(),
    "permuted": lambda d: _random(d, 3, 33, 5).permute(2, 0, 1),
    "sliced rows": lambda d: _random(d, 18, 33)[::2],
    "sliced columns": lambda d: _random(d, 9, 66)[:, ::2],
    "odd offset": lambda d: _random(d, 9 * 33 + 1)[1:].view(9, 33),
    "expanded rows": lambda d: _random(d, 1, 33).expand(9, 33),
    "expanded columns": lambda d: _random(d, 9, 1).expand(9, 33),
    "four dimensions": lambda d: _random(d, 2, 3, 4, 33),
    "one dimension": lambda d: _random(d, 33),
    "column slice of wider rows": lambda d: _random(d, 9, 50)[:, 7:40],
}


@pytest.fixture(params=list(STRIDED.values()), ids=list(STRIDED))
def strided(request: pytest.FixtureRequest, device: str) -> torch.Tensor:
    """A (…, 33) tensor with strides that are not those of a fresh one."""
    make: Callable[[str], torch.Tensor] = request.param
    return make(device)


def test_softmax_takes_any_strides(strided: torch.Tensor) -> None:
    assert close(softmax(strided), softmax_reference(strided.double()))


def test_layer_norm_takes_any_strides(strided: torch.Tensor, device: str) -> None:
    weight = _random(device, 66)[::2]
    bias = _random(device, 1).expand(33)
    residual = _random(device, *strided.shape)
    truth = layer_norm_reference(
        strided.double(), weight.double(), bias.double(), residual.double()
    )
    for x, r in ((strided, residual), (residual, strided)):
        outputs = layer_norm(x, weight, bias, residual=r)
        assert all(close(out, t) for out, t in zip(outputs, truth, strict=True))


def test_linear_takes_any_strides(strided: torch.Tensor, device: str) -> None:
    weight, bias = _random(device, 33, 17).t(), _random(device, 34)[::2]
    residual = _random(device, 17, *strided.shape[:-1]).movedim(0, -1)
    truth = linear_reference(
        strided.double(), weight.double(), bias.double(), "gelu", residual.double()
    )
    assert close(linear(strided, weight, bias, "gelu", residual), truth)


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, -3])
def test_softmax_over_any_dimension(dim: int, device: str) -> None:
    x = _random(device, 5, 6, 7)
    assert close(softmax(x, dim), softmax_reference(x.double(), dim))


@pytest.mark.parametrize("cols", [33, 20000])
def test_softmax_treats_infinities_as_pytorch_does(cols: int, device: str) -> None:
    x = _random(device, 4, cols)
    x[0, : cols - 1] = float("-inf")
    x[1] = float("-inf")
    x[2, 5] = float("nan")
    x[3, ::2] = float("-inf")
    assert torch.allclose(softmax(x), softmax_reference(x), equal_nan=True, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("cols", [64, 20000])
def test_layer_norm_keeps_its_digits_far_from_zero(cols: int, device: str) -> None:
    """E[x²] - E[x]² in float32 would lose the whole variance here."""
    x = 1000 + _random(device, 3, cols)
    weight = torch.ones(cols, device=device)
    truth = layer_norm_reference(x.double(), weight.double())
    assert isinstance(truth, torch.Tensor)
    assert (layer_norm(x, weight).double() - truth).norm() <= 1e-4 * truth.norm()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_linear_activations(activation: str, device: str) -> None:
    x, weight = 4 * _random(device, 20, 40), _random(device, 30, 40)
    truth = linear_reference(x.double(), weight.double(), None, activation)
    assert close(linear(x, weight, activation=activation), truth)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_linear_activations_keep_nan_and_reach_their_limits(activation: str, device: str) -> None:
    x = torch.tensor([[float("nan")], [float("inf")], [200.0], [-200.0]], device=device)
    out = linear(x, torch.ones(1, 1, device=device), activation=activation).flatten().tolist()
    limits = {"none": (float("inf"), 200.0, -200.0), "tanh": (1.0, 1.0, -1.0)}
    assert out[0] != out[0]
    assert tuple(out[1:]) == limits.get(activation, (float("inf"), 200.0, 0.0))


def test_empty_batches_give_empty_results(device: str) -> None:
    x = torch.empty(2, 0, 8, device=device)
    weight = _random(device, 8)
    assert softmax(x).shape == (2, 0, 8)
    assert layer_norm(x, weight).shape == (2, 0, 8)
    assert [o.shape for o in layer_norm(x, weight, residual=x)] == [(2, 0, 8), (2, 0, 8)]
    assert linear(x, _random(device, 5, 8)).shape == (2, 0, 5)


def _wrong_calls(device: str) -> dict[str, tuple[type[Exception], Callable[[], Any], str]]:
    x, weight = _random(device, 4, 8), _random(device, 8)
    square = _random(device, 8, 8)
    cases: dict[str, tuple[type[Exception], Callable[[], Any], str]] = {
        "list": (errors.ArgumentError, lambda: softmax([1.0, 2.0]), "x is a list"),  # type: ignore[arg-type]
        "none": (errors.ArgumentError, lambda: linear(None, square), "x is a NoneType"),  # type: ignore[arg-type]
        "weight": (errors.ArgumentError, lambda: layer_norm(x, 1.0), "weight is a float"),  # type: ignore[call-overload]
        "sparse": (errors.ArgumentError, lambda: softmax(x.to_sparse()), "sparse"),
        "int": (errors.DTypeError, lambda: softmax(x.int()), "torch.int32"),
        "double": (errors.DTypeError, lambda: linear(x.double(), square), "torch.float64"),
        "complex": (errors.DTypeError, lambda: softmax(x.to(torch.complex64)), "complex64"),
        "mixed": (errors.DTypeError, lambda: linear(x, square.half()), "weight is torch.float16"),
        "meta": (errors.DeviceError, lambda: softmax(x.to("meta")), "on meta"),
        "devices": (errors.DeviceError, lambda: linear(x, square.to("meta")), "weight is on meta"),
        "scalar": (errors.ShapeError, lambda: softmax(torch.ones((), device=device)), "()"),
        "no columns": (errors.ShapeError, lambda: softmax(x[:, :0]), "has size 0"),
        "no inner": (errors.ShapeError, lambda: linear(x[:, :0], square[:, :0]), "has size 0"),
        "no outer": (errors.ShapeError, lambda: linear(x, square[:0]), "has size 0"),
        "short weight": (errors.ShapeError, lambda: layer_norm(x, weight[:7]), "(7,)"),
        "long bias": (errors.ShapeError, lambda: linear(x, square, x[0, :7]), "bias has shape"),
        "vector weight": (errors.ShapeError, lambda: linear(x, weight), "weight has shape (8,)"),
        "residual": (
            errors.ShapeError,
            lambda: layer_norm(x, weight, residual=x[:3]),
            "residual has shape (3, 8)",
        ),
        "dim": (errors.OptionError, lambda: softmax(x, 2), "dim=2"),
        "dim type": (errors.ArgumentError, lambda: softmax(x, 1.0), "dim is a float"),  # type: ignore[arg-type]
        "eps": (errors.OptionError, lambda: layer_norm(x, weight, eps=-1.0), "eps=-1.0"),
        "eps nan": (errors.OptionError, lambda: layer_norm(x, weight, eps=float("nan")), "eps=nan"),
        "activation": (errors.OptionError, lambda: linear(x, square, activation="swish"), "swish"),
    }
    return cases


@pytest.mark.parametrize("name", _wrong_calls("cpu"))
def test_wrong_arguments_say_what_is_allowed(name: str, device: str) -> None:
    error, call, seen = _wrong_calls(device)[name]
    check_refusal(error, call, seen)
