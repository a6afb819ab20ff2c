"""Wrong calls of attention and attention_varlen, and what they say."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from kernl import errors
from kernl.ops import attention, attention_varlen
from tests.ops.attention_operands import operands, random, whole


def _wrong_calls() -> dict[str, tuple[type[Exception], Callable[[], Any], str]]:
    q, k, v = operands(4, 9, heads=4)
    ids = whole(0, 4)
    packed = q[0].transpose(0, 1)
    return {
        "three dimensions": (errors.ShapeError, lambda: attention(q[0], k, v), "4 dimensions"),
        "heads": (
            errors.ShapeError,
            lambda: attention(q[:, :3], k, v),
            "q has 3 heads, k has 2",
        ),
        "v": (errors.ShapeError, lambda: attention(q, k, v[:, :, 1:]), "the shape of k"),
        "batch": (errors.ShapeError, lambda: attention(q, k.repeat(2, 1, 1, 1), v), "v has shape"),
        "head_dim": (
            errors.ShapeError,
            lambda: attention(*operands(2, 2, dim=264)),
            "head_dim is 264; allowed: up to 256",
        ),
        "dtype": (errors.DTypeError, lambda: attention(q, k.half(), v), "one dtype"),
        "mask": (errors.ShapeError, lambda: attention(q, k, v, mask=q), "mask has shape"),
        "mask of ints": (
            errors.DTypeError,
            lambda: attention(q, k, v, mask=ids),
            "torch.bool",
        ),
        "causal": (
            errors.ArgumentError,
            lambda: attention(q, k, v, causal=cast(bool, 1)),
            "True or False",
        ),
        "scale": (
            errors.OptionError,
            lambda: attention(q, k, v, scale=float("nan")),
            "a finite number",
        ),
        "window": (errors.OptionError, lambda: attention(q, k, v, window=0), "window=0"),
        "softcap": (errors.OptionError, lambda: attention(q, k, v, softcap=0.0), "above 0"),
        "lengths": (
            errors.DTypeError,
            lambda: attention(q, k, v, key_lengths=random(1)),
            "torch.int32",
        ),
        "lengths' shape": (
            errors.ShapeError,
            lambda: attention(q, k, v, key_lengths=ids),
            "the batch of q",
        ),
        "slopes": (
            errors.ShapeError,
            lambda: attention(q, k, v, alibi_slopes=random(3)),
            "the heads of q",
        ),
        "buckets": (
            errors.OptionError,
            lambda: attention(q, k, v, relative_bias=random(6, 4)),
            "the number of buckets",
        ),
        "bias": (
            errors.ShapeError,
            lambda: attention(q, k, v, relative_bias=random(32, 3)),
            "the heads of q",
        ),
        "max_distance": (
            errors.OptionError,
            lambda: attention(q, k, v, relative_bias=random(32, 4), max_distance=8),
            "max_distance=8",
        ),
        "cu_seqlens": (
            errors.ShapeError,
            lambda: attention_varlen(packed, packed, packed, whole(0, 0, 4, 4)[::2], 4),
            "side by side in memory",
        ),
        "no cu_seqlens": (
            errors.ShapeError,
            lambda: attention_varlen(packed, packed, packed, whole(), 4),
            "one value more",
        ),
        "max_seqlen": (
            errors.OptionError,
            lambda: attention_varlen(packed, packed, packed, ids, 0),
            "max_seqlen=0",
        ),
    }


@pytest.mark.parametrize("name", _wrong_calls())
def test_wrong_arguments_say_what_is_allowed(name: str) -> None:
    kind, call, text = _wrong_calls()[name]
    with pytest.raises(kind) as caught:
        call()
    assert text in str(caught.value)
