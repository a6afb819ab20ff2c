"""How models write attention: PyTorch's function, or product, softmax, product."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from kernl.errors import ShapeError
from kernl.op import Spelling

_Q, _K, _MASK = (2, 4, 3, 8), (2, 4, 5, 8), (2, 1, 3, 5)
_FEWER = (2, 2, 5, 8)
_SCALE = {"scale": 0.7310585}

Attention = Callable[..., torch.Tensor]
sdpa = torch.nn.functional.scaled_dot_product_attention


def attention_spellings(attention: Attention) -> tuple[Spelling, ...]:
    """Heads that share keys first, so that the copies of these go too."""
    return (
        *_functional(attention, _repeated, _FEWER, grouped=False),
        *_functional(attention, _as_it_is, _FEWER, grouped=True),
        *_functional(attention, _as_it_is, _K, grouped=False),
        *_written_out(attention, _repeated, _FEWER),
        *_written_out(attention, _as_it_is, _K),
    )


def _as_it_is(keys: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return keys


def _repeated(keys: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Each key head once for each of its query heads, as Llama copies it."""
    batch, kv_heads, length, dim = keys.shape
    wide = keys[:, :, None, :, :].expand(batch, kv_heads, q.shape[1] // kv_heads, length, dim)
    return wide.reshape(batch, q.shape[1], length, dim)


def _causal(attention: Attention) -> Attention:
    """PyTorch's causality counts from the first key, kernl's from the last."""

    def replacement(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **rest: Any) -> torch.Tensor:
        if q.shape[2] != k.shape[2]:
            raise ShapeError(
                seen=f"attention: {q.shape[2]} queries, {k.shape[2]} keys, is_causal",
                allowed="as many queries as keys",
                action="pass a mask, or kernl.ops.attention, whose last query sees the last key",
            )
        return attention(q, k, v, causal=True, **rest)

    return replacement


def _functional(
    attention: Attention,
    heads: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    keys: tuple[int, ...],
    grouped: bool,
) -> Iterator[Spelling]:
    def masked(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float
    ) -> torch.Tensor:
        k, v = heads(k, q), heads(v, q)
        return sdpa(q, k, v, attn_mask=mask, scale=scale, enable_gqa=grouped)

    def causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
        return sdpa(q, heads(k, q), heads(v, q), is_causal=True, scale=scale, enable_gqa=grouped)

    def full(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
        return sdpa(q, heads(k, q), heads(v, q), scale=scale, enable_gqa=grouped)

    shapes = {"q": _Q, "k": keys, "v": keys}
    yield Spelling(masked, attention, {**shapes, "mask": _MASK}, _SCALE)
    square = {**shapes, "q": (*_Q[:2], keys[2], _Q[3])}
    yield Spelling(causal, _causal(attention), square, _SCALE)
    yield Spelling(full, attention, shapes, _SCALE)


def _written_out(
    attention: Attention,
    heads: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    keys: tuple[int, ...],
) -> Iterator[Spelling]:
    def weighted(scores: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        weights = torch.nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype)
        return torch.matmul(weights, v)

    def masked(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float
    ) -> torch.Tensor:
        k, v = heads(k, q), heads(v, q)
        return weighted(torch.matmul(q, k.transpose(2, 3)) * scale + mask, v)

    def full(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
        k, v = heads(k, q), heads(v, q)
        return weighted(torch.matmul(q, k.transpose(2, 3)) * scale, v)

    def capped(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: torch.Tensor,
        scale: float,
        softcap: float,
    ) -> torch.Tensor:
        k, v = heads(k, q), heads(v, q)
        scores = torch.matmul(q, k.transpose(2, 3)) * scale
        return weighted(torch.tanh(scores / softcap) * softcap + mask, v)

    def divided(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, divisor: float
    ) -> torch.Tensor:
        scores = torch.matmul(q, heads(k, q).transpose(-1, -2)) / divisor + mask
        return torch.matmul(torch.nn.functional.softmax(scores, dim=-1), heads(v, q))

    def biased(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        bias: torch.Tensor,
        mask: torch.Tensor,
        divisor: float,
    ) -> torch.Tensor:
        scores = torch.matmul(q, heads(k, q).transpose(-1, -2)) / divisor + bias + mask
        return torch.matmul(torch.nn.functional.softmax(scores, dim=-1), heads(v, q))

    def undivided(divisor: float, **rest: Any) -> torch.Tensor:
        return attention(**rest, scale=1 / divisor)

    def both(divisor: float, bias: torch.Tensor, mask: torch.Tensor, **rest: Any) -> torch.Tensor:
        return attention(**rest, mask=bias + mask, scale=1 / divisor)

    shapes = {"q": _Q, "k": keys, "v": keys}
    with_mask = {**shapes, "mask": _MASK}
    divisor = {"divisor": 1.7310585}
    yield Spelling(biased, both, {**with_mask, "bias": (1, 4, 3, 5)}, divisor)
    yield Spelling(divided, undivided, with_mask, divisor)
    yield Spelling(capped, attention, with_mask, {**_SCALE, "softcap": 1.7310585})
    yield Spelling(masked, attention, with_mask, _SCALE)
    yield Spelling(full, attention, shapes, _SCALE)
