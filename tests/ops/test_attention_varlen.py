"""Sequences packed one behind another."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernl import tuning
from kernl.op import DTYPES, Case
from kernl.ops import attention, attention_varlen
from kernl.ops.attention_config import VARLEN_TUNABLE, AttentionConfig
from kernl.ops.attention_varlen import (
    ATTENTION_VARLEN,
    attention_varlen_library,
    attention_varlen_reference,
)
from tests.ops.attention_operands import TOLERANCE, in_float64, random, whole


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [(5,), (0, 17, 1, 0, 40, 16), (1, 1, 1), (33, 0)])
def test_packed_sequences(lengths: tuple[int, ...], causal: bool) -> None:
    tokens = sum(lengths)
    q, k, v = (random(tokens, heads, 32, seed=heads) for heads in (4, 2, 2))
    starts = whole(*(sum(lengths[:place]) for place in range(len(lengths) + 1)))
    longest = max(lengths)
    with tuning.forcing(VARLEN_TUNABLE, AttentionConfig(16, 16, 4, 1)):
        out = attention_varlen(q, k, v, starts, longest, causal=causal)
        wider = attention_varlen(q, k, v, starts, longest + 50, causal=causal)
    truth = attention_varlen_reference(
        q.double(), k.double(), v.double(), starts, longest, causal=causal
    )
    assert (out.double() - truth).norm() <= TOLERANCE["fp32"] * truth.norm()
    assert torch.equal(out, wider)
    place = 0
    for length in lengths:
        mine, keys, values = (x[place : place + length].transpose(0, 1)[None] for x in (q, k, v))
        alone = attention(mine, keys, values, causal=causal)[0].transpose(0, 1)
        assert torch.allclose(out[place : place + length], alone, atol=2e-6, rtol=2e-6)
        place += length


@pytest.mark.parametrize("options", [{"window": 5}, {"softcap": 3.0}, {"scale": 0.3}])
def test_packed_sequences_take_options(options: dict[str, Any]) -> None:
    q, k, v = (random(50, 2, 40, seed=seed) for seed in range(3))
    starts = whole(0, 20, 50, dtype=torch.int64)
    slopes = random(2).abs()
    out = attention_varlen(q, k, v, starts, 30, causal=True, alibi_slopes=slopes, **options)
    truth = attention_varlen_reference(
        q.double(),
        k.double(),
        v.double(),
        starts,
        30,
        causal=True,
        alibi_slopes=slopes.double(),
        **options,
    )
    assert (out.double() - truth).norm() <= TOLERANCE["fp32"] * truth.norm()


@given(st.data())
def test_whatever_a_user_passes(data: st.DataObject) -> None:
    draw = data.draw
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    lengths = draw(st.lists(st.integers(0, 40), min_size=1, max_size=3))
    kv_heads, group, dim = (
        draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 40)),
    )
    heads, tokens = kv_heads * group, sum(lengths)
    layout = draw(st.sampled_from(["apart", "packed", "heads first", "one value for all"]))
    packed = random(tokens, heads + 2 * kv_heads, dim, dtype=DTYPES[dtype])
    parts = packed.split([heads, kv_heads, kv_heads], dim=1)
    q, k, v = (part if layout == "packed" else part.contiguous() for part in parts)
    if layout == "heads first":
        q, k, v = (x.transpose(0, 1).contiguous().transpose(0, 1) for x in (q, k, v))
    if layout == "one value for all" and tokens:
        v = v[:1].expand(v.shape)
    options: dict[str, Any] = {
        "causal": draw(st.booleans()),
        "scale": draw(st.sampled_from([None, 0.3])),
        "window": draw(st.one_of(st.none(), st.integers(1, 50))),
        "softcap": draw(st.sampled_from([None, 2.0])),
        "alibi_slopes": random(heads).abs() if draw(st.booleans()) else None,
    }
    starts = whole(
        *(sum(lengths[:place]) for place in range(len(lengths) + 1)),
        dtype=draw(st.sampled_from([torch.int32, torch.int64])),
    )
    longest = max(lengths) + draw(st.integers(0, 20))
    with tuning.forcing(VARLEN_TUNABLE, AttentionConfig(16, 16, 4, 1)):
        out = attention_varlen(q, k, v, starts, longest, **options)
    truth = attention_varlen_reference(
        q.double(), k.double(), v.double(), starts, longest, **in_float64(options)
    )
    assert (out.dtype, out.shape, out.is_contiguous()) == (q.dtype, truth.shape, True)
    # A single value has no norm to average its rounding over.
    limit = TOLERANCE[dtype] * max(1.0, 30 / max(out.numel(), 1))
    assert (out.double() - truth).norm() <= limit * truth.norm()


def test_no_tokens_at_all() -> None:
    q = random(0, 2, 32)
    assert attention_varlen(q, q, q, whole(0), 0).shape == (0, 2, 32)
    assert attention_varlen(q, q, q, whole(0, 0, 0), 0).shape == (0, 2, 32)


@pytest.mark.gpu
@pytest.mark.parametrize("case", ATTENTION_VARLEN.edge_cases()[::3], ids=lambda case: case.name)
def test_the_library_computes_the_same(case: Case) -> None:
    inputs = ATTENTION_VARLEN.inputs(case, "cuda", 1)
    out, truth = attention_varlen_library(**inputs), attention_varlen_reference(**inputs)
    assert (out - truth).norm() <= 2e-3 * truth.norm()


def test_what_the_library_is_not_asked_for() -> None:
    q = random(5, 2, 32)
    with pytest.raises(NotImplementedError, match="16-bit"):
        attention_varlen_library(q, q, q, whole(0, 5), 5)
    q = q.half()
    with pytest.raises(NotImplementedError, match="softcap"):
        attention_varlen_library(q, q, q, whole(0, 5), 5, softcap=3.0)


@pytest.mark.parametrize("newer", [False, True])
def test_the_library_of_each_pytorch_is_asked_in_its_words(
    monkeypatch: pytest.MonkeyPatch, newer: bool
) -> None:
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    seen: list[dict[str, Any]] = []

    def before_2_12(q: torch.Tensor, *_: Any, window_size: tuple[int, int]) -> torch.Tensor:
        seen.append({"window_size": window_size})
        return q

    def since_2_12(
        q: torch.Tensor, *_: Any, window_size: tuple[int, int], enable_gqa: bool
    ) -> torch.Tensor:
        seen.append({"window_size": window_size, "enable_gqa": enable_gqa})
        return q

    monkeypatch.setattr(varlen, "varlen_attn", since_2_12 if newer else before_2_12)
    q, k = random(5, 4, 32).half(), random(5, 2, 32).half()
    attention_varlen_library(q, k, k, whole(0, 5), 5, causal=True)
    grouped = {"enable_gqa": True} if newer else {}
    assert seen == [{"window_size": (-1, 0), **grouped}]
