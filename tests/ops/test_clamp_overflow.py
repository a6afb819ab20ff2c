"""Overflow clamped away: bit for bit what PyTorch gives, wherever the infinity stands."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernl import errors
from kernl.op import DTYPES
from kernl.ops.clamp_overflow import clamp_overflow, clamp_overflow_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INF, NAN = float("inf"), float("nan")
LARGEST = {dtype: torch.finfo(dtype).max for dtype in DTYPES.values()}
ROWS, COLS = 41, 300
"""Twelve blocks: the infinity may be in any."""


def _wild(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    """The whole range of the dtype, its ends among it."""
    generator = torch.Generator(DEVICE).manual_seed(sum(shape))
    values = torch.randn(shape, generator=generator, device=DEVICE) * (LARGEST[dtype] / 2)
    return values.clamp(-LARGEST[dtype], LARGEST[dtype]).to(dtype)


def _same(x: torch.Tensor, limit: float, overflow_limit: float) -> bool:
    out = clamp_overflow(x, limit, overflow_limit)
    truth = clamp_overflow_reference(x, limit, overflow_limit)
    assert (out.shape, out.dtype, out.is_contiguous()) == (truth.shape, truth.dtype, True)
    return bool(torch.equal(out.isnan(), truth.isnan())) and torch.equal(
        out.nan_to_num(1.0), truth.nan_to_num(1.0)
    )


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("infinity", [INF, -INF])
@pytest.mark.parametrize("place", [(0, 0), (5, 255), (5, 256), (8, 0), (40, 299)])
def test_an_infinity_anywhere_clamps_everything(
    place: tuple[int, int], infinity: float, dtype: torch.dtype
) -> None:
    x, limit = _wild(ROWS, COLS, dtype=dtype), LARGEST[dtype]
    x[place] = infinity
    assert _same(x, limit, limit - 1000)
    assert _same(x, limit / 2, limit / 4)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_without_one_all_stays(dtype: torch.dtype) -> None:
    x, limit = _wild(ROWS, COLS, dtype=dtype), LARGEST[dtype]
    assert torch.equal(clamp_overflow(x, limit, limit - 1000), x)
    assert _same(x, limit / 2, limit / 4)


def test_the_last_numbers_before_infinity() -> None:
    """Between 65,504 - 1,000 and 65,504 halves are 32 apart: 64,504 is rounded to 64,512."""
    x = torch.tensor([64480.0, 64512.0, 65504.0, -65504.0, -0.0, 1.0], device=DEVICE).half()
    assert clamp_overflow(x, 65504.0, 64504.0).tolist() == x.tolist()
    x[-1] = INF
    found = clamp_overflow(x, 65504.0, 64504.0)
    assert found.tolist() == [64480.0, 64512.0, 64512.0, -64512.0, 0.0, 64512.0]
    assert torch.signbit(found).tolist() == [False, False, False, True, True, False]
    assert _same(x, 65504.0, 64504.0)


@pytest.mark.parametrize("infinite", [False, True])
def test_nan_stays_and_is_no_overflow(infinite: bool) -> None:
    x = _wild(ROWS, COLS)
    x[3, 7] = x[40, 299] = NAN
    if infinite:
        x[20, 20] = INF
    assert _same(x, 65504.0, 64504.0)


LAYOUTS: dict[str, Callable[[], torch.Tensor]] = {
    "transposed": lambda: _wild(COLS, ROWS).t(),
    "permuted": lambda: _wild(3, 34, 5).permute(2, 0, 1),
    "sliced": lambda: _wild(9, 68)[1::3, ::2],
    "expanded": lambda: _wild(1, 34).expand(9, 34),
    "one dimension": lambda: _wild(5000),
    "five dimensions": lambda: _wild(2, 3, 1, 4, 5),
}


@pytest.mark.parametrize("infinite", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(layout: str, infinite: bool) -> None:
    x = LAYOUTS[layout]()
    if infinite:
        x[(0,) * x.dim()] = INF
    before = x.clone()
    assert _same(x, 65504.0, 64504.0)
    assert torch.equal(x, before)


@given(st.data())
def test_whatever_a_user_passes(data: st.DataObject) -> None:
    draw = data.draw
    dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
    shape = tuple(draw(st.lists(st.integers(1, 20), min_size=1, max_size=4)))
    step = draw(st.integers(1, 3))
    wide = _wild(*shape[:-1], step * shape[-1], dtype=dtype)
    x = wide[..., ::step].permute(draw(st.permutations(range(len(shape)))))
    for value in draw(st.lists(st.sampled_from([INF, -INF, NAN]), max_size=3)):
        x[tuple(draw(st.integers(0, size - 1)) for size in x.shape)] = value
    limit = draw(st.floats(0, LARGEST[dtype]))
    assert _same(x, limit, draw(st.floats(0, limit)))


def test_more_blocks_than_notes_are_read_at_once_and_programs_there_are() -> None:
    x = torch.full((1100, 2048), 3.0, device=DEVICE, dtype=torch.float16)
    x[-1, -1] = INF
    assert torch.equal(clamp_overflow(x, 4.0, 2.0), torch.full_like(x, 2.0))


@pytest.mark.parametrize("shape", [(0,), (0, 5), (3, 0), (2, 0, 4)])
def test_an_empty_one_is_empty(shape: tuple[int, ...]) -> None:
    assert clamp_overflow(torch.empty(shape, device=DEVICE), 2.0, 1.0).shape == shape


def test_wrong_arguments_say_what_is_allowed() -> None:
    x = _wild(3, 4)
    calls: dict[str, tuple[type[Exception], Callable[[], torch.Tensor], str]] = {
        "dtype": (errors.DTypeError, lambda: clamp_overflow(x.double(), 2.0, 1.0), "float16"),
        "scalar": (errors.ShapeError, lambda: clamp_overflow(x[0, 0], 2.0, 1.0), "1 dimensions"),
        "order": (errors.OptionError, lambda: clamp_overflow(x, 1.0, 2.0), "overflow_limit ≤"),
        "too large": (errors.OptionError, lambda: clamp_overflow(x, 1e5, 1.0), "≤ 65504"),
        "negative": (errors.OptionError, lambda: clamp_overflow(x, 1.0, -1.0), "0 or more"),
        "none": (errors.ArgumentError, lambda: clamp_overflow(x, None, 1.0), "a float"),  # type: ignore[arg-type]
    }
    for error, call, text in calls.values():
        with pytest.raises(error, match=text):
            call()
