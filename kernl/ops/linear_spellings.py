"""How models write linear layers: with and without bias, activation, residual and norm."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from kernl.op import Spelling
from kernl.ops.norm_spellings import RMS_NORMS, Pattern, with_offset

_X, _WEIGHT, _BIAS, _OUT = (2, 3, 8), (16, 8), (16,), (2, 3, 16)
_EPS = 0.7310585

Activation = Callable[[torch.Tensor], torch.Tensor]


def _gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh")


def gelu_written_out(x: torch.Tensor) -> torch.Tensor:
    """As GPT-2, Phi and T5 v1.1 write it."""
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))
    return 0.5 * x * (1.0 + torch.tanh(inner))


_ACTIVATIONS: tuple[tuple[str, Activation], ...] = (
    ("gelu_tanh", gelu_written_out),
    ("gelu_tanh", _gelu_tanh),
    ("gelu", torch.nn.functional.gelu),
    ("relu", torch.relu),
    ("silu", torch.nn.functional.silu),
    ("tanh", torch.tanh),
)


def linear_spellings(linear: Callable[..., torch.Tensor]) -> tuple[Spelling, ...]:
    """Activations first, then residuals, then the bare layer."""
    return (*_activated(linear), *_with_residual(linear), *_bare(linear))


def _activated(linear: Callable[..., torch.Tensor]) -> Iterator[Spelling]:
    for name, function in _ACTIVATIONS:
        for biased in (True, False):
            pattern = _composed(function, biased)
            yield Spelling(pattern, partial(linear, activation=name), _tensors(biased))


def _composed(activation: Activation, biased: bool) -> Callable[..., torch.Tensor]:
    def with_bias(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return activation(torch.nn.functional.linear(x, weight, bias))

    def without_bias(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return activation(torch.nn.functional.linear(x, weight))

    return with_bias if biased else without_bias


def _tensors(biased: bool) -> dict[str, tuple[int, ...]]:
    shapes = {"x": _X, "weight": _WEIGHT}
    return {**shapes, "bias": _BIAS} if biased else shapes


def _with_residual(linear: Callable[..., torch.Tensor]) -> Iterator[Spelling]:
    def with_bias(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, residual: torch.Tensor
    ) -> torch.Tensor:
        return residual + torch.nn.functional.linear(x, weight, bias)

    def without_bias(x: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return residual + torch.nn.functional.linear(x, weight)

    def limited(
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        residual: torch.Tensor,
        limit: float,
    ) -> torch.Tensor:
        """As Whisper, MBart and others keep half precision from overflowing."""
        summed = residual + torch.nn.functional.linear(x, weight, bias)
        return torch.clamp(summed, min=-limit, max=limit)

    yield Spelling(limited, linear, {**_tensors(True), "residual": _OUT}, {"limit": 1.7310585})
    yield Spelling(with_bias, linear, {**_tensors(True), "residual": _OUT})
    yield Spelling(without_bias, linear, {**_tensors(False), "residual": _OUT})


def _bare(linear: Callable[..., torch.Tensor]) -> Iterator[Spelling]:
    def with_bias(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, weight, bias)

    def without_bias(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, weight)

    yield Spelling(with_bias, linear, _tensors(True))
    yield Spelling(without_bias, linear, _tensors(False))


def linear_layer_norm_spellings(
    linear_layer_norm: Callable[..., torch.Tensor],
) -> tuple[Spelling, ...]:
    """A post-norm layer's end, as BERT writes it."""

    def post_norm(
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        residual: torch.Tensor,
        norm_weight: torch.Tensor,
        norm_bias: torch.Tensor,
        eps: float,
    ) -> torch.Tensor:
        summed = torch.nn.functional.linear(x, weight, bias) + residual
        return torch.nn.functional.layer_norm(
            summed, (summed.shape[-1],), norm_weight, norm_bias, eps
        )

    shapes = {**_tensors(True), "residual": _OUT, "norm_weight": _BIAS, "norm_bias": _BIAS}
    return (Spelling(post_norm, linear_layer_norm, shapes, {"eps": _EPS}),)


def linear_rms_norm_spellings(
    linear_rms_norm: Callable[..., tuple[torch.Tensor, torch.Tensor]],
) -> tuple[Spelling, ...]:
    """A pre-norm layer's end and the norm of the next layer, in each model's own words."""
    found = []
    for norm, offset in RMS_NORMS:
        for biased in (True, False):
            shapes = {**_tensors(biased), "residual": _OUT, "norm_weight": _BIAS}
            kernel = _with_or_without(with_offset(linear_rms_norm, offset), biased)
            found.append(Spelling(_pre_norm(norm, biased), kernel, shapes, {"eps": _EPS}))
    return tuple(found)


def _with_or_without(kernel: Callable[..., Any], biased: bool) -> Callable[..., Any]:
    return kernel if biased else partial(kernel, bias=None)


def _pre_norm(norm: Pattern, biased: bool) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    def with_bias(
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        residual: torch.Tensor,
        norm_weight: torch.Tensor,
        eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        summed = residual + torch.nn.functional.linear(x, weight, bias)
        return norm(summed, norm_weight, eps), summed

    def without_bias(
        x: torch.Tensor,
        weight: torch.Tensor,
        residual: torch.Tensor,
        norm_weight: torch.Tensor,
        eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return with_bias(x, weight, None, residual, norm_weight, eps)

    return with_bias if biased else without_bias


def linear_add_layer_norm_spellings(
    linear_add_layer_norm: Callable[..., tuple[torch.Tensor, torch.Tensor]],
) -> tuple[Spelling, ...]:
    """A pre-norm layer's end and the layer norm of the next, as GPT-2, ViT and Whisper write it."""

    def with_bias(
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        residual: torch.Tensor,
        norm_weight: torch.Tensor,
        norm_bias: torch.Tensor,
        eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        summed = residual + torch.nn.functional.linear(x, weight, bias)
        size = (summed.shape[-1],)
        return torch.nn.functional.layer_norm(summed, size, norm_weight, norm_bias, eps), summed

    def without_bias(
        x: torch.Tensor,
        weight: torch.Tensor,
        residual: torch.Tensor,
        norm_weight: torch.Tensor,
        norm_bias: torch.Tensor,
        eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return with_bias(x, weight, None, residual, norm_weight, norm_bias, eps)

    def limited(
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        residual: torch.Tensor,
        norm_weight: torch.Tensor,
        norm_bias: torch.Tensor,
        eps: float,
        limit: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As Whisper keeps half precision from overflowing between its layers."""
        summed = residual + torch.nn.functional.linear(x, weight, bias)
        summed = torch.clamp(summed, min=-limit, max=limit)
        size = (summed.shape[-1],)
        return torch.nn.functional.layer_norm(summed, size, norm_weight, norm_bias, eps), summed

    norm = {"norm_weight": _BIAS, "norm_bias": _BIAS}
    shapes = {**_tensors(True), "residual": _OUT, **norm}
    numbers = {"eps": _EPS, "limit": 1.7310585}
    found = [Spelling(limited, linear_add_layer_norm, shapes, numbers)]
    for pattern, biased in ((with_bias, True), (without_bias, False)):
        shapes = {**_tensors(biased), "residual": _OUT, **norm}
        kernel = _with_or_without(linear_add_layer_norm, biased)
        found.append(Spelling(pattern, kernel, shapes, {"eps": _EPS}))
    return tuple(found)
