"""Triton's interpreter: what it gets wrong in narrow floats, and does too often, mended."""

from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter as triton_interpreter
from triton.runtime.interpreter import InterpreterBuilder

from kernl import interpreter, launch

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="the interpreter runs where there is no GPU"
)


@triton.jit
def _dot(a_ptr: Any, b_ptr: Any, out_ptr: Any, SIZE: tl.constexpr) -> None:
    offs = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    tl.store(out_ptr + offs, tl.dot(tl.load(a_ptr + offs), tl.load(b_ptr + offs)))


@triton.jit
def _cast(x_ptr: Any, out_ptr: Any, SIZE: tl.constexpr) -> None:
    offs = tl.arange(0, SIZE)
    tl.store(out_ptr + offs, tl.load(x_ptr + offs).to(out_ptr.dtype.element_ty))


@triton.jit
def _twice(x: Any) -> Any:
    return x + tl.sum(x, axis=0)


@triton.jit
def _calls(x_ptr: Any, out_ptr: Any, SIZE: tl.constexpr) -> None:
    offs = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    x = tl.load(x_ptr + offs)
    for _ in range(5):
        x = _twice(x)
    tl.store(out_ptr + offs, x)


def test_bf16_dot_multiplies_numbers_not_bits() -> None:
    a, b = (torch.randn(16, 16).bfloat16() for _ in range(2))
    out = torch.full((16, 16), float("nan"))
    _dot[(1,)](a, b, out, SIZE=16)
    truth = a.double() @ b.double()
    assert (out - truth).norm() <= 1e-6 * truth.norm()


def test_bf16_casts_round_to_nearest_even_and_keep_nan() -> None:
    x = torch.cat([torch.randn(60), torch.tensor([1 + 2**-8, float("inf"), -0.0, 1e-40])])
    x[0] = torch.tensor(0x7F800001).to(torch.int32).view(torch.float32)  # a NaN in the low bits
    out = torch.zeros(64, dtype=torch.bfloat16)
    _cast[(1,)](x, out, SIZE=64)
    assert torch.equal(out.nan_to_num(7), x.bfloat16().nan_to_num(7))
    assert out[0].isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.int32])
def test_bf16_to_other_types(dtype: torch.dtype) -> None:
    x = torch.randint(-9, 9, (64,)).bfloat16()
    out = torch.zeros(64, dtype=dtype)
    _cast[(1,)](x, out, SIZE=64)
    assert torch.equal(out, x.to(dtype))
    back = torch.zeros(64, dtype=torch.bfloat16)
    _cast[(1,)](out, back, SIZE=64)
    assert torch.equal(back, x)


def test_the_mend_is_made_once() -> None:
    before = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl
    interpreter.mend()
    assert (InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl) == before


def test_the_language_is_patched_once_in_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    patched: list[str] = []
    mended: Any = triton_interpreter._patch_lang
    patch = mended._patch

    def counted(fn: Any) -> Any:
        patched.append(fn.__name__)
        return patch(fn)

    monkeypatch.setattr(mended, "_patch", counted)
    load, x, out = tl.load, torch.randn(48), torch.full((48,), float("nan"))
    for launches in (1, 2):
        _calls[(3,)](x, out, SIZE=16)
        truth = x.double().view(3, 16)
        for _ in range(5):
            truth = truth + truth.sum(dim=1, keepdim=True)
        assert (out.double() - truth.flatten()).norm() <= 1e-6 * truth.norm()
        assert patched.count("_calls") == launches
        assert patched.count("_twice") == 0
        assert len(patched) <= 2 * launches  # `tl.sum` sees a module that the kernel does not
        assert tl.load is load


def test_a_launch_that_fails_leaves_the_language_as_it_was() -> None:
    load = tl.load
    with pytest.raises(triton_interpreter.InterpreterError):
        _calls[(1,)](torch.randn(16), torch.randn(16), SIZE=15)
    assert tl.load is load
    out = torch.zeros(16)
    _calls[(1,)](torch.ones(16), out, SIZE=16)
    assert out.tolist() == [17.0**5] * 16


def test_kernels_here_are_interpreted() -> None:
    assert launch.interpreting(_dot)
    assert launch.capability(torch.device("cpu")) == 80


def test_8_bit_casts_carry_into_the_exponent() -> None:
    """127 lies nearer to 128 than to 120; the interpreter's own cast makes 64 of it."""
    x = torch.tensor([127.0, -125.3, 0.4977, 448.0])
    out = torch.zeros(4, dtype=torch.float8_e4m3fn)
    _cast[(1,)](x, out, SIZE=4)
    assert out.float().tolist() == [128.0, -128.0, 0.5, 448.0]
    back = torch.zeros(4)
    _cast[(1,)](out, back, SIZE=4)
    assert back.tolist() == out.float().tolist()


def test_8_bit_dot_multiplies_numbers_not_bits() -> None:
    a, b = (torch.randn(16, 16).to(torch.float8_e4m3fn) for _ in range(2))
    out = torch.full((16, 16), float("nan"))
    _dot[(1,)](a, b, out, SIZE=16)
    truth = a.double() @ b.double()
    assert (out - truth).norm() <= 1e-6 * truth.norm()
