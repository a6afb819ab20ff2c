"""Stream-K beside the contract: its schedule covers everything once, evenly; sums do not wander."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernl import errors, tuning
from kernl.op import DTYPES
from kernl.ops import stream_k_matmul
from kernl.ops.stream_k_matmul import (
    STREAM_K_MATMUL,
    STREAM_K_TUNABLE,
    StreamKConfig,
    plan_of,
    stream_k_matmul_plan,
)
from kernl.ops.stream_k_schedule import by_tiles, pays, pieces, schedule, share

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def config(programs: int) -> AbstractContextManager[None]:
    """Inside, tiles are 16 · 16 and steps 16, so that small products have many of both."""
    return tuning.forcing(STREAM_K_TUNABLE, StreamKConfig(programs, 16, 16, 16, 4, 1))


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator(DEVICE).manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, device=DEVICE).to(dtype)


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 150))
def test_every_step_is_computed_once(tiles: int, steps: int, programs: int) -> None:
    for plan in (schedule(tiles, steps, programs), by_tiles(tiles, steps, programs)):
        seen = [0] * (tiles * steps)
        for piece in pieces(plan):
            assert 0 <= piece.program < programs
            for step in range(piece.first, piece.last):
                seen[piece.tile * steps + step] += 1
        assert seen == [1] * (tiles * steps)


@pytest.mark.parametrize(
    ("tiles", "k", "shared"),
    [
        (132, 8192, False),
        (133, 8192, True),
        (133, 768, False),
        (260, 8192, False),
        (20, 2048, True),
    ],
)
def test_sharing_is_for_long_tiles_and_an_empty_last_round(
    tiles: int, k: int, shared: bool
) -> None:
    assert pays(tiles, k, 132) == shared


def test_whole_tiles_alone_need_no_second_launch() -> None:
    a, b = random(48, 40), random(40, 64)
    truth = a.double() @ b.double()
    alone = StreamKConfig(5, 16, 16, 16, 4, 1, sharing=False)
    with tuning.forcing(STREAM_K_TUNABLE, alone):
        assert len(stream_k_matmul_plan(90, a, b).launches) == 1
        out = stream_k_matmul(a, b)
    assert (out.double() - truth).norm() <= 3e-6 * truth.norm()


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 150))
def test_work_is_even_and_pieces_are_few(tiles: int, steps: int, programs: int) -> None:
    plan = schedule(tiles, steps, programs)
    work = [0] * plan.programs
    cut: dict[tuple[int, int], int] = {}
    for piece in pieces(plan):
        size = piece.last - piece.first
        work[piece.program] += size
        if size < steps:
            slot = (piece.program, int(piece.first == 0))
            cut[slot] = cut.get(slot, 0) + 1
    assert max(work) - min(work) <= 1
    assert max(cut.values(), default=1) == 1, "two pieces in one slot"
    assert (plan.tiles - plan.shared) % plan.programs == 0 or plan.shared == plan.tiles
    assert plan.shared < 2 * programs


def test_shares_lie_end_to_end() -> None:
    plan = schedule(7, 5, 3)
    assert [share(plan, program) for program in range(3)] == [(0, 7), (7, 14), (14, 20)]
    assert plan.shared == 4


def test_the_picture_in_the_explanation() -> None:
    plan = schedule(6, 6, 4)
    words = dict.fromkeys(range(4), "")
    for piece in pieces(plan):
        words[piece.program] += str(piece.tile) * (piece.last - piece.first)
    assert list(words.values()) == ["000000111", "111222222", "333333444", "444555555"]


@pytest.mark.parametrize("programs", [1, 2, 3, 4, 5, 7, 9, 12, 13, 40])
@pytest.mark.parametrize("sizes", [(48, 64, 80), (33, 17, 100), (16, 16, 500), (1, 1, 1)])
def test_any_number_of_programs(programs: int, sizes: tuple[int, int, int]) -> None:
    m, n, k = sizes
    a, b = random(m, k), random(k, n)
    truth = a.double() @ b.double()
    with config(programs):
        out = stream_k_matmul(a, b)
        again = stream_k_matmul(a, b)
    assert (out.double() - truth).norm() <= 3e-6 * truth.norm()
    assert torch.equal(out, again)


def test_even_rounds_need_no_second_launch() -> None:
    a, b = random(48, 40), random(40, 64)
    with config(12):
        assert len(stream_k_matmul_plan(90, a, b).launches) == 1
    with config(11):
        assert len(stream_k_matmul_plan(90, a, b).launches) == 2
        assert plan_of(48, 64, 40, StreamKConfig(11, 16, 16, 16, 4, 1)).shared == 12


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transposed": lambda x: x.t().contiguous().t(),
    "every third column": lambda x: x.repeat_interleave(3, dim=1)[:, ::3],
    "behind an odd offset": lambda x: torch.cat([x.new_zeros(3), x.flatten()])[3:].view(x.shape),
    "one row for all": lambda x: x[:1].expand(x.shape),
    "one column for all": lambda x: x[:, :1].expand(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(layout: str) -> None:
    a, b = LAYOUTS[layout](random(35, 70)), LAYOUTS[layout](random(70, 50))
    with config(5):
        out = stream_k_matmul(a, b)
    truth = a.double() @ b.double()
    assert (out.double() - truth).norm() <= 3e-6 * truth.norm()


@given(
    m=st.integers(1, 70),
    n=st.integers(1, 70),
    k=st.integers(1, 150),
    programs=st.integers(1, 20),
    dtype=st.sampled_from(sorted(DTYPES)),
    layouts=st.tuples(*2 * [st.sampled_from(["", *LAYOUTS])]),
)
def test_any_shape(
    m: int, n: int, k: int, programs: int, dtype: str, layouts: tuple[str, str]
) -> None:
    made = (random(m, k, dtype=DTYPES[dtype]), random(k, n, dtype=DTYPES[dtype]))
    a, b = (LAYOUTS[how](x) if how else x for how, x in zip(layouts, made, strict=True))
    with config(programs):
        out = stream_k_matmul(a, b)
    truth = a.double() @ b.double()
    # A single value has no norm to average its rounding over.
    limit = STREAM_K_MATMUL.tolerance[dtype] * max(1.0, 30 / out.numel())
    assert (out.double() - truth).norm() <= limit * truth.norm()


def test_empty_results() -> None:
    assert stream_k_matmul(random(0, 5), random(5, 3)).shape == (0, 3)
    assert stream_k_matmul(random(4, 5), random(5, 0)).shape == (4, 0)


WRONG: dict[str, tuple[type[Exception], Callable[[], Any], str]] = {
    "ndim": (errors.ShapeError, lambda: stream_k_matmul(random(2, 3, 4), random(4, 5)), "(m, k)"),
    "sizes": (errors.ShapeError, lambda: stream_k_matmul(random(3, 4), random(5, 6)), "(k, n)"),
    "k": (errors.ShapeError, lambda: stream_k_matmul(random(3, 0), random(0, 6)), "1 or more"),
    "dtype": (
        errors.DTypeError,
        lambda: stream_k_matmul(random(3, 4), random(4, 6).half()),
        "one dtype",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_say_what_is_allowed(name: str) -> None:
    kind, call, text = WRONG[name]
    with pytest.raises(kind) as caught:
        call()
    assert text in str(caught.value)
