"""Rotary embedding against transformers' own functions, partial, strided, and into a cache."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as gptj
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as llama

from kernl import errors
from kernl.ops.rotary import rotary, rotary_reference
from kernl.ops.rotary_cache import rotary_cache, rotary_cache_plan, rotary_cache_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(
        shape, generator=torch.Generator(DEVICE).manual_seed(sum(shape)), device=DEVICE
    )


def _close(out: torch.Tensor, truth: torch.Tensor) -> bool:
    assert out.shape == truth.shape
    return bool((out.double() - truth).norm() <= 1e-6 * truth.norm())


def _angles(batch: int, seq: int, pairs: int, style: str) -> tuple[torch.Tensor, torch.Tensor]:
    angles = 3 * _random(batch, seq, pairs)
    paired = angles.repeat_interleave(2, -1)
    both = paired if style == "interleaved" else torch.cat((angles, angles), -1)
    return both.cos(), both.sin()


def test_half_is_what_llama_does() -> None:
    q, k = _random(2, 6, 5, 32), _random(2, 2, 5, 32)
    cos, sin = _angles(2, 5, 16, "half")
    for out, truth in zip(rotary(q, k, cos, sin), llama(q, k, cos, sin), strict=True):
        assert torch.allclose(out, truth, atol=1e-6)


def test_interleaved_is_what_gptj_does() -> None:
    x = _random(2, 4, 5, 32)
    cos, sin = _angles(2, 5, 16, "interleaved")
    out, _ = rotary(x, x, cos, sin, "interleaved")
    truth = gptj(x.transpose(1, 2), sin[..., ::2], cos[..., ::2]).transpose(1, 2)
    assert torch.allclose(out, truth, atol=1e-6)


@given(
    st.integers(1, 3),
    st.integers(1, 6),
    st.sampled_from([(1, 1), (4, 2), (5, 5), (6, 1)]),
    st.integers(1, 40),
    st.integers(0, 9),
    st.sampled_from(["half", "interleaved"]),
    st.sampled_from(["projection", "heads", "sliced"]),
)
def test_any_shape(
    batch: int,
    seq: int,
    heads: tuple[int, int],
    pairs: int,
    kept: int,
    style: str,
    layout: str,
) -> None:
    dim = 2 * pairs + kept

    def make(count: int) -> torch.Tensor:
        if layout == "projection":
            return _random(batch, seq, count, dim).transpose(1, 2)
        if layout == "sliced":
            return _random(batch, count, seq, 2 * dim)[..., ::2]
        return _random(batch, count, seq, dim)

    q, k = make(heads[0]), make(heads[1])
    cos, sin = _angles(1, seq, pairs, style)
    outs = rotary(q, k, cos, sin, style)
    truths = rotary_reference(q.double(), k.double(), cos.double(), sin.double(), style)
    assert all(_close(out, truth) for out, truth in zip(outs, truths, strict=True))


def test_heads_of_a_token_lie_side_by_side() -> None:
    q = _random(2, 3, 5, 8)
    out, _ = rotary(q, q, *_angles(1, 5, 4, "half"))
    assert out.transpose(1, 2).is_contiguous()


def test_float32_tables_for_half_queries() -> None:
    q, (cos, sin) = _random(2, 3, 5, 8).half(), _angles(2, 5, 4, "half")
    out, _ = rotary(q, q, cos, sin)
    truth, _ = rotary_reference(q.double(), q.double(), cos.double(), sin.double())
    assert (out.double() - truth).norm() <= 5e-4 * truth.norm()


def _cache_call(positions: torch.Tensor, capacity: int = 9) -> dict[str, Any]:
    cos, sin = _angles(1, 4, 4, "half")
    return {
        "q": _random(2, 6, 4, 8),
        "k": _random(2, 2, 4, 8),
        "v": _random(2, 2, 4, 8) + 1,
        "cos": cos,
        "sin": sin,
        # Another order of the dimensions than a fresh tensor has.
        "k_cache": _random(2, capacity, 2, 8).transpose(1, 2),
        "v_cache": _random(capacity, 2, 2, 8).permute(1, 2, 0, 3),
        "positions": positions.to(DEVICE),
    }


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(
    "slots", [[0, 1, 2, 3], [5, 6, 7, 8], [8, 0, 3, 2], [[0, 1, 2, 3], [4, 8, 6, 5]]]
)
def test_slots_are_written_and_no_others(slots: list[Any], dtype: torch.dtype) -> None:
    inputs = _cache_call(torch.tensor(slots, dtype=dtype))
    upcast = {
        name: value.double() if value.is_floating_point() else value
        for name, value in inputs.items()
    }
    truth = rotary_cache_reference(**upcast)
    assert _close(rotary_cache(**inputs), truth)
    for name in ("k_cache", "v_cache"):
        assert _close(inputs[name], upcast[name])


def test_a_slot_outside_of_the_cache_is_written_nowhere() -> None:
    inputs = _cache_call(torch.tensor([-1, 9, 2, 1 << 33]))
    room = torch.full((4, 2, 2, 9, 8), float("nan"), device=DEVICE)
    inputs["k_cache"], inputs["v_cache"] = room[1], room[2]
    rotary_cache(**inputs)
    written = ~room.isnan()
    assert not written[[0, 3]].any()
    assert written[1:3, :, :, 2].all()
    assert written.sum() == 2 * 2 * 2 * 8


@given(st.data())
def test_any_cache(data: st.DataObject) -> None:
    draw = data.draw
    batch, seq, kv_heads = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 3))
    heads, pairs, style = (
        kv_heads * draw(st.integers(1, 3)),
        draw(st.integers(1, 20)),
        draw(st.sampled_from(["half", "interleaved"])),
    )
    dim, capacity = 2 * pairs + draw(st.integers(0, 9)), seq + draw(st.integers(0, 9))
    slots = [draw(st.permutations(range(-1, capacity + 1)))[:seq] for _ in range(batch)]
    shared = draw(st.booleans())
    cos, sin = _angles(1 if shared else batch, seq, pairs, style)
    order = draw(st.sampled_from([(0, 1, 2, 3), (0, 2, 1, 3), (2, 0, 1, 3), (0, 1, 3, 2)]))
    inverse = tuple(order.index(place) for place in range(4))
    sizes = (batch, kv_heads, capacity, dim)
    inputs = {
        "q": _random(batch, seq, heads, dim).transpose(1, 2),
        "k": _random(batch, seq, kv_heads, dim).transpose(1, 2),
        "v": _random(batch, kv_heads, seq, 2 * dim)[..., ::2],
        "cos": cos,
        "sin": sin,
        "k_cache": _random(*(sizes[place] for place in order)).permute(inverse),
        "v_cache": 1 + _random(*(sizes[place] for place in order)).permute(inverse),
        "positions": torch.tensor(slots[0] if shared else slots, device=DEVICE),
    }
    # The reference writes every slot, so it has a cache with one more at either end.
    roomy = {name: x.double() if x.is_floating_point() else x + 1 for name, x in inputs.items()}
    for name in ("k_cache", "v_cache"):
        roomy[name] = torch.nn.functional.pad(roomy[name], (0, 0, 1, 1))
    truth = rotary_cache_reference(**roomy, style=style)
    assert _close(rotary_cache(**inputs, style=style), truth)
    for name in ("k_cache", "v_cache"):
        assert _close(inputs[name], roomy[name][:, :, 1:-1])


def test_one_launch_does_it_all() -> None:
    plan = rotary_cache_plan(80, **_cache_call(torch.arange(4)))
    assert len(plan.launches) == 1


@pytest.mark.parametrize(
    ("change", "error", "seen"),
    [
        ({"k": (2, 2, 3, 8)}, errors.ShapeError, "k has shape (2, 2, 3, 8)"),
        ({"cos": (1, 4, 10)}, errors.ShapeError, "sin has shape (1, 4, 8)"),
        ({"q": (2, 4, 8)}, errors.ShapeError, "q has shape (2, 4, 8)"),
        ({"v": (2, 1, 4, 8)}, errors.ShapeError, "v has shape (2, 1, 4, 8)"),
        ({"k_cache": (2, 1, 9, 8)}, errors.ShapeError, "k_cache has shape (2, 1, 9, 8)"),
        ({"v_cache": (2, 2, 7, 8)}, errors.ShapeError, "v_cache has shape (2, 2, 7, 8)"),
        ({"positions": torch.arange(3)}, errors.ShapeError, "positions has shape (3,)"),
        ({"positions": torch.ones(4)}, errors.DTypeError, "positions is torch.float32"),
        ({"style": "gptj"}, errors.OptionError, "style='gptj'"),
    ],
)
def test_wrong_arguments(change: dict[str, Any], error: type[errors.KernlError], seen: str) -> None:
    made = {k: _random(*v) if isinstance(v, tuple) else v for k, v in change.items()}
    moved = {k: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for k, v in made.items()}
    with pytest.raises(error) as caught:
        rotary_cache(**{**_cache_call(torch.arange(4)), **moved})
    assert seen in caught.value.seen


def test_an_odd_number_cannot_be_paired() -> None:
    x, table = _random(1, 1, 2, 8), _random(1, 2, 5)
    with pytest.raises(errors.ShapeError, match="size 5"):
        rotary(x, x, table, table)
