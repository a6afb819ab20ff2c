"""Cases: their names, their dims, what they refuse."""

import pickle
from typing import Any

import pytest
import torch

from kernl import errors
from kernl.op import Case, Op
from kernl.ops import ALL


def test_a_name_is_the_dims() -> None:
    case = Case.of("fp16", rows=4096, cols=768, bias=True, residual=False, activation="gelu_tanh")
    assert case.name == "rows4096_cols768_bias_gelu_tanh.fp16"
    assert case["rows"] == 4096
    assert case["residual"] is False
    assert case.torch_dtype == torch.float16
    assert case.itemsize == 2
    assert Case.of("fp32", rows=1, activation="none").name == "rows1.fp32"


def test_a_case_is_frozen_and_hashable() -> None:
    one, two = Case.of("bf16", m=1, n=2), Case.of("bf16", m=1, n=2)
    assert {one} == {two}
    with pytest.raises(AttributeError):
        one.dtype = "fp16"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("dtype", "dims", "error"),
    [
        ("fp8", {"rows": 1}, errors.OptionError),
        ("fp16", {"rows": 0}, errors.ShapeError),
        ("fp16", {"rows": -3}, errors.ShapeError),
        ("fp16", {"rows": 1.5}, errors.ArgumentError),
        ("fp16", {"rows": None}, errors.ArgumentError),
        ("fp16", {"../rows": 1}, errors.OptionError),
        ("fp16", {"activation": "<script>"}, errors.OptionError),
        ("fp16", {"activation": ""}, errors.OptionError),
    ],
)
def test_bad_cases_are_refused(
    dtype: str, dims: dict[str, Any], error: type[errors.KernlError]
) -> None:
    with pytest.raises(error, match="allowed: "):
        Case.of(dtype, **dims)


def test_errors_cross_process_boundaries() -> None:
    error = errors.ShapeError(seen="a", allowed="b", action="c")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is errors.ShapeError
    assert str(again) == str(error) == "a; allowed: b; c."


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_all_cases_of_an_operator_have_the_same_dims(op: Op) -> None:
    """A worker takes only cases whose dims its commit knows."""
    assert len({tuple(name for name, _ in case.dims) for case in op.cases()}) == 1
