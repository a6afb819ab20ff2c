"""How models write convolutions over time: with and without bias, activation and residual."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from kernl.op import Spelling
from kernl.ops.conv1d_config import positions

Activation = Callable[[torch.Tensor], torch.Tensor]

_BIAS = (16,)
_SHAPES = {"x": (2, 8, 9), "weight": (16, 8, 3)}
_RESIDUAL = (5, 16)
# Nine positions give five with these, as with 2 and 1.
_CONSTANTS = {"stride": 3571, "padding": 7919}


def _gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh")


def _none(x: torch.Tensor) -> torch.Tensor:
    return x


_ACTIVATIONS: tuple[tuple[str, Activation], ...] = (
    ("gelu", torch.nn.functional.gelu),
    ("gelu_tanh", _gelu_tanh),
    ("relu", torch.relu),
    ("silu", torch.nn.functional.silu),
    ("tanh", torch.tanh),
    ("none", _none),
)


def conv1d_spellings(conv1d: Callable[..., torch.Tensor]) -> tuple[Spelling, ...]:
    """What is added behind it first, then activations, then the convolution alone."""
    return (_with_positions(conv1d), *_activated(conv1d))


def _activated(conv1d: Callable[..., torch.Tensor]) -> Iterator[Spelling]:
    for name, function in _ACTIVATIONS:
        call = partial(conv1d, activation=name)
        for biased in (True, False):
            shapes = {**_SHAPES, "bias": _BIAS} if biased else _SHAPES
            yield Spelling(_composed(function, biased), call, shapes, _CONSTANTS)


def _composed(activation: Activation, biased: bool) -> Callable[..., torch.Tensor]:
    def with_bias(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: int, padding: int
    ) -> torch.Tensor:
        return activation(torch.nn.functional.conv1d(x, weight, bias, stride, padding))

    def without_bias(
        x: torch.Tensor, weight: torch.Tensor, stride: int, padding: int
    ) -> torch.Tensor:
        return activation(torch.nn.functional.conv1d(x, weight, None, stride, padding))

    return with_bias if biased else without_bias


def _with_positions(conv1d: Callable[..., torch.Tensor]) -> Spelling:
    def with_positions(
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        residual: torch.Tensor,
        stride: int,
        padding: int,
    ) -> torch.Tensor:
        """As Whisper's encoder begins."""
        out = torch.nn.functional.conv1d(x, weight, bias, stride, padding)
        return torch.nn.functional.gelu(out).transpose(1, 2) + residual

    def call(
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        residual: torch.Tensor,
        stride: int,
        padding: int,
    ) -> torch.Tensor:
        rows = positions(x.shape[2], weight.shape[2], stride, padding)
        added = residual.expand(x.shape[0], rows, weight.shape[0]).transpose(1, 2)
        return conv1d(x, weight, bias, stride, padding, "gelu", added).transpose(1, 2)

    shapes = {**_SHAPES, "bias": _BIAS, "residual": _RESIDUAL}
    return Spelling(with_positions, call, shapes, _CONSTANTS)
