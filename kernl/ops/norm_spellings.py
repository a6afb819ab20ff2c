"""How models write norms: PyTorch's functions, RMS norms written out, residuals in front."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from kernl.op import Spelling

_X, _WEIGHT = (2, 3, 8), (8,)
_EPS = {"eps": 0.7310585}
_SHAPES = {"x": _X, "weight": _WEIGHT}
_WITH_BIAS = {**_SHAPES, "bias": _WEIGHT}

Pattern = Callable[..., torch.Tensor]


def layer_norm_spellings(layer_norm: Callable[..., Any]) -> tuple[Spelling, ...]:
    """With a residual in front, whose sum is kept or not, and alone; with and without bias."""

    def functional(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
    ) -> torch.Tensor:
        return torch.nn.functional.layer_norm(x, (x.shape[-1],), weight, bias, eps)

    def unbiased(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        return torch.nn.functional.layer_norm(x, (x.shape[-1],), weight, None, eps)

    def after_sum(
        x: torch.Tensor,
        residual: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        summed = x + residual
        return functional(summed, weight, bias, eps), summed

    return (
        Spelling(after_sum, layer_norm, {"x": _X, "residual": _X, **_WITH_BIAS}, _EPS),
        Spelling(functional, layer_norm, _WITH_BIAS, _EPS),
        Spelling(unbiased, layer_norm, _SHAPES, _EPS),
    )


def rms_norm_spellings(rms_norm: Callable[..., Any]) -> tuple[Spelling, ...]:
    """Each model's own, with a residual in front and alone."""
    found = []
    for pattern, offset in RMS_NORMS:
        kernel = with_offset(rms_norm, offset)
        found.append(Spelling(_after_sum(pattern), kernel, {**_SHAPES, "residual": _X}, _EPS))
        found.append(Spelling(pattern, kernel, _SHAPES, _EPS))
    return tuple(found)


def with_offset(kernel: Callable[..., Any], offset: float) -> Callable[..., Any]:
    """The kernel for models whose weights are kept less `offset`."""
    return partial(kernel, offset=offset) if offset else kernel


def _after_sum(norm: Pattern) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    def after_sum(
        x: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        summed = residual + x
        return norm(summed, weight, eps), summed

    return after_sum


def _written_in_float(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Llama, Mistral, Qwen, Phi-3."""
    wide = x.to(torch.float32)
    variance = wide.pow(2).mean(-1, keepdim=True)
    return weight * (wide * torch.rsqrt(variance + eps)).to(x.dtype)


def _written_by_promotion(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """T5: the product with the float32 root is float32 by itself."""
    variance = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
    return weight * (x * torch.rsqrt(variance + eps)).to(weight.dtype)


def _written_with_offset(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Gemma, whose weights are kept less one."""
    wide = x.float()
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (normed * (1.0 + weight.float())).type_as(x)


def _functional(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, eps)


RMS_NORMS: tuple[tuple[Pattern, float], ...] = (
    (_written_in_float, 0.0),
    (_written_by_promotion, 0.0),
    (_written_with_offset, 1.0),
    (_functional, 0.0),
)
"""How models write an RMS norm of x, weight and eps, and what the weight is kept less of."""


def embedding_layer_norm_spellings(
    embedding_layer_norm: Callable[..., torch.Tensor],
) -> tuple[Spelling, ...]:
    """The sum of embeddings and its norm: RoBERTa's and MPNet's, then BERT's and DistilBERT's."""
    embedding, norm = torch.nn.functional.embedding, torch.nn.functional.layer_norm

    def typed(
        input_ids: torch.Tensor,
        token_type_ids: torch.Tensor,
        position_ids: torch.Tensor,
        word: torch.Tensor,
        token_type: torch.Tensor,
        position: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        eps: float,
    ) -> torch.Tensor:
        summed = embedding(input_ids, word) + embedding(token_type_ids, token_type)
        summed = summed + embedding(position_ids, position)
        return norm(summed, (summed.shape[-1],), weight, bias, eps)

    def untyped(
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        word: torch.Tensor,
        position: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        eps: float,
    ) -> torch.Tensor:
        summed = embedding(input_ids, word) + embedding(position_ids, position)
        return norm(summed, (summed.shape[-1],), weight, bias, eps)

    def counted(input_ids: torch.Tensor, padding_idx: int) -> torch.Tensor:
        kept = input_ids.ne(padding_idx).int()
        return (torch.cumsum(kept, dim=1).type_as(kept) * kept).long() + padding_idx

    def typed_and_counted(
        input_ids: torch.Tensor,
        token_type_ids: torch.Tensor,
        word: torch.Tensor,
        token_type: torch.Tensor,
        position: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        eps: float,
        padding_idx: int,
    ) -> torch.Tensor:
        places = counted(input_ids, padding_idx)
        return typed(
            input_ids, token_type_ids, places, word, token_type, position, weight, bias, eps
        )

    def untyped_and_counted(
        input_ids: torch.Tensor,
        word: torch.Tensor,
        position: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        eps: float,
        padding_idx: int,
    ) -> torch.Tensor:
        places = counted(input_ids, padding_idx)
        return untyped(input_ids, places, word, position, weight, bias, eps)

    ids, tables = (2, 3), {"word": (9, 8), "position": (7, 8), "weight": (8,), "bias": (8,)}
    both = {"input_ids": ids, "position_ids": ids}
    integers = ("input_ids", "position_ids")
    kinds, numbers = {"token_type_ids": ids, "token_type": (2, 8)}, {**_EPS, "padding_idx": 3}
    one = {"input_ids": ids}
    return (
        Spelling(
            typed_and_counted,
            embedding_layer_norm,
            {**one, **kinds, **tables},
            numbers,
            ("input_ids", "token_type_ids"),
        ),
        Spelling(
            untyped_and_counted, embedding_layer_norm, {**one, **tables}, numbers, ("input_ids",)
        ),
        Spelling(
            typed,
            embedding_layer_norm,
            {**both, **kinds, **tables},
            _EPS,
            (*integers, "token_type_ids"),
        ),
        Spelling(untyped, embedding_layer_norm, {**both, **tables}, _EPS, integers),
    )
