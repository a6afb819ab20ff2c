"""Batched products: any inner size, any strides, broadcasting without copies, paths."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernl import errors, tuning
from kernl.launch import LibraryCall
from kernl.op import DTYPES
from kernl.ops.batched_matmul import (
    BATCHED_MATMUL,
    BATCHED_MATMUL_TUNABLE,
    BatchedConfig,
    batched_matmul,
    batched_matmul_plan,
    batches,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL = BatchedConfig(False, 16, 16, 16, 2, 2)


def _random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator(DEVICE).manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, device=DEVICE).to(dtype)


def _error(a: torch.Tensor, b: torch.Tensor, scale: float = 1.0) -> float:
    out, truth = batched_matmul(a, b, scale), scale * (a.double() @ b.double())
    assert out.shape == truth.shape
    assert out.is_contiguous()
    return float((out.double() - truth).norm() / truth.norm().clamp_min(1e-30))


@pytest.mark.parametrize("k", [*range(1, 36), 63, 64, 65, 100])
def test_every_inner_size(k: int) -> None:
    """The ancestor was wrong wherever a block did not divide k."""
    with tuning.forcing(BATCHED_MATMUL_TUNABLE, SMALL):
        assert _error(_random(2, 5, k), _random(2, k, 19)) <= 1e-6


SHAPES: dict[str, Callable[[], tuple[torch.Tensor, torch.Tensor]]] = {
    "plain": lambda: (_random(3, 5, 7), _random(3, 7, 9)),
    "no batch": lambda: (_random(5, 7), _random(7, 9)),
    "b for all": lambda: (_random(2, 3, 5, 7), _random(7, 9)),
    "a for all": lambda: (_random(5, 7), _random(4, 7, 9)),
    "crossed": lambda: (_random(2, 1, 5, 7), _random(1, 3, 7, 9)),
    "heads inside": lambda: (
        _random(2, 5, 3, 8).transpose(1, 2),
        _random(2, 6, 3, 8).transpose(1, 2).mT,
    ),
    "grouped": lambda: (
        _random(2, 6, 5, 8),
        _random(2, 2, 1, 8, 5).expand(2, 2, 3, 8, 5).flatten(1, 2),
    ),
    "five dimensions": lambda: (
        _random(2, 3, 2, 5, 4).transpose(0, 2),
        _random(2, 3, 2, 4, 5).transpose(0, 1).transpose(0, 1),
    ),
    "expanded rows": lambda: (_random(3, 1, 7).expand(3, 5, 7), _random(3, 7, 1).expand(3, 7, 9)),
    "sliced": lambda: (_random(3, 5, 14)[:, :, ::2], _random(3, 14, 9)[:, 1::2]),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_strides_and_broadcasting(name: str, scale: float) -> None:
    assert _error(*SHAPES[name](), scale) <= 1e-6


def test_broadcasting_copies_nothing() -> None:
    a, b = _random(2, 1, 5, 7).expand(2, 3, 5, 7), _random(1, 3, 7, 9).expand(2, 3, 7, 9)
    found = batches(a, b)
    assert found is not None
    assert (found.outer, found.inner) == (2, 3)
    assert (found.stride_a[1], found.stride_b[0]) == (0, 0)
    (launch,) = batched_matmul_plan(80, a, b).kernels
    assert launch.args["a_ptr"].data_ptr() == a.data_ptr()
    assert launch.args["b_ptr"].data_ptr() == b.data_ptr()


def test_more_products_than_a_grid_axis_holds() -> None:
    a, b = torch.empty(70000, 1, 2, device="meta"), torch.empty(70000, 2, 1, device="meta")
    (launch,) = batched_matmul_plan(80, a, b).kernels
    assert launch.grid == (70000,)


def test_the_library_takes_what_the_table_gives_it() -> None:
    a, b = _random(3, 5, 7), _random(3, 7, 9)
    with tuning.forcing(BATCHED_MATMUL_TUNABLE, SMALL._replace(library=True)):
        (step,) = batched_matmul_plan(80, a, b).launches
        assert isinstance(step, LibraryCall)
        assert _error(a, b) <= 1e-6
        (scaled,) = batched_matmul_plan(80, a, b, 0.5).launches
        assert not isinstance(scaled, LibraryCall)


@given(
    st.integers(1, 4),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 70),
    st.sampled_from(sorted(DTYPES)),
    st.booleans(),
    st.booleans(),
)
def test_any_shape(
    batch: int, m: int, n: int, k: int, dtype: str, transpose_a: bool, transpose_b: bool
) -> None:
    a = _random(batch, k, m, dtype=DTYPES[dtype]).mT if transpose_a else None
    b = _random(batch, n, k, dtype=DTYPES[dtype]).mT if transpose_b else None
    a = _random(batch, m, k, dtype=DTYPES[dtype]) if a is None else a
    b = _random(batch, k, n, dtype=DTYPES[dtype]) if b is None else b
    limit = BATCHED_MATMUL.tolerance[dtype] * max(1.0, 30 / (batch * m * n))
    out, truth = batched_matmul(a, b), a.double() @ b.double()
    assert (out.double() - truth).norm() <= limit * truth.norm() + 1e-4


def test_empty_batches_give_empty_results() -> None:
    assert batched_matmul(_random(2, 3, 4)[:0], _random(4, 5)).shape == (0, 3, 5)
    assert batched_matmul(_random(2, 3, 4)[:, :0], _random(4, 5)).shape == (2, 0, 5)


@pytest.mark.parametrize(
    ("error", "call", "seen"),
    [
        (errors.ShapeError, lambda x: batched_matmul(x, x), "b has (2, 3, 4)"),
        (errors.ShapeError, lambda x: batched_matmul(x, x[0, 0]), "b has shape (4,)"),
        (
            errors.ShapeError,
            lambda x: batched_matmul(x, _random(3, 4, 5)),
            "a has shape (2, 3, 4)",
        ),
        (errors.ShapeError, lambda x: batched_matmul(x[..., :0], x.mT[:, :0]), "size 0"),
        (errors.DTypeError, lambda x: batched_matmul(x, x.mT.half()), "b is torch.float16"),
        (errors.OptionError, lambda x: batched_matmul(x, x.mT, -1.0), "scale=-1.0"),
    ],
)
def test_wrong_arguments(
    error: type[errors.KernlError], call: Callable[[torch.Tensor], Any], seen: str
) -> None:
    with pytest.raises(error) as caught:
        call(_random(2, 3, 4))
    assert seen in caught.value.seen
