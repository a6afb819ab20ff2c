"""Gated activations: packed and separate, any strides, wrong arguments."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernl import errors
from kernl.op import DTYPES
from kernl.ops.gated import GEGLU, SWIGLU, geglu, geglu_reference, swiglu, swiglu_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator(DEVICE).manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, device=DEVICE).to(dtype)


def _close(out: torch.Tensor, truth: torch.Tensor, tolerance: float) -> bool:
    assert out.shape == truth.shape
    return bool((out.double() - truth).norm() <= tolerance * truth.norm() + 1e-12)


STRIDED: dict[str, Callable[[], torch.Tensor]] = {
    "transposed": lambda: _random(34, 9).t(),
    "permuted": lambda: _random(3, 34, 5).permute(2, 0, 1),
    "sliced columns": lambda: _random(9, 68)[:, ::2],
    "expanded": lambda: _random(1, 34).expand(9, 34),
    "one dimension": lambda: _random(34),
}


@pytest.mark.parametrize("layout", STRIDED)
def test_any_strides_packed_and_separate(layout: str) -> None:
    x = STRIDED[layout]()
    assert _close(swiglu(x), swiglu_reference(x.double()), 1e-6)
    other = _random(*x.shape) - x
    assert _close(swiglu(x, other), swiglu_reference(x.double(), other.double()), 1e-6)
    assert _close(geglu(other, x), geglu_reference(other.double(), x.double()), 1e-6)


def test_packed_is_separate() -> None:
    x = _random(5, 70)
    gate, up = x.chunk(2, dim=-1)
    assert torch.equal(swiglu(x), swiglu(gate, up))
    assert torch.equal(geglu(x), geglu(gate.contiguous(), up.contiguous()))


def test_limits_and_nan() -> None:
    gate = torch.tensor([float("nan"), float("inf"), -200.0, 200.0, 0.0], device=DEVICE)
    up = torch.full_like(gate, 2.0)
    for out in (swiglu(gate, up), geglu(gate, up), geglu(gate, up, "gelu_tanh")):
        assert out.isnan().tolist() == [True, False, False, False, False]
        assert out[1:].tolist() == [float("inf"), 0.0, 400.0, 0.0]


def test_empty_batches_give_empty_results() -> None:
    assert swiglu(torch.empty(2, 0, 8, device=DEVICE)).shape == (2, 0, 4)


@given(
    st.integers(1, 70),
    st.integers(1, 1100),
    st.sampled_from(sorted(DTYPES)),
    st.sampled_from(["swiglu", "gelu", "gelu_tanh"]),
    st.booleans(),
)
def test_any_shape(rows: int, cols: int, dtype: str, which: str, packed: bool) -> None:
    gate = 3 * _random(min(rows, 5) if cols > 100 else rows, 2 * cols, dtype=DTYPES[dtype])
    inputs: dict[str, Any] = {"gate": gate} if packed else {"gate": gate, "up": gate.flip(-1)}
    op = SWIGLU if which == "swiglu" else GEGLU
    if op is GEGLU:
        inputs["activation"] = which
    upcast = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
    truth = op.reference(**upcast)
    out = op.kernel(**inputs)
    assert isinstance(truth, torch.Tensor)
    assert isinstance(out, torch.Tensor)
    # A few elements have no norm to average their rounding over.
    limit = op.tolerance[dtype] * max(1.0, 30 / truth.numel())
    assert _close(out, truth, limit)


@pytest.mark.parametrize(
    ("error", "call", "seen"),
    [
        (errors.ShapeError, lambda x: swiglu(x[:, :7]), "has size 7"),
        (errors.ShapeError, lambda x: swiglu(x, x[:3]), "up has shape (3, 8)"),
        (errors.ShapeError, lambda x: geglu(x[:, :0]), "has size 0"),
        (errors.DTypeError, lambda x: geglu(x, x.half()), "up is torch.float16"),
        (errors.OptionError, lambda x: geglu(x, activation="silu"), "'silu'"),
        (errors.ArgumentError, lambda x: swiglu([x]), "gate is a list"),  # type: ignore[arg-type]
    ],
)
def test_wrong_arguments(
    error: type[errors.KernlError], call: Callable[[torch.Tensor], Any], seen: str
) -> None:
    with pytest.raises(error) as caught:
        call(_random(4, 8))
    assert seen in caught.value.seen
