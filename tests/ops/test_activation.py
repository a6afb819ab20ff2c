"""Activations by themselves, in float32, where no product's rounding hides their errors."""

from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from kernl.ops.activation import ACTIVATIONS, activate, activation_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INFINITY = float("inf")


@triton.jit
def _activate_kernel(
    z_ptr: "Any", out_ptr: "Any", size: "Any", ACTIVATION: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    z = tl.load(z_ptr + offs, mask=offs < size, other=0.0)
    tl.store(out_ptr + offs, activate(z, ACTIVATION), mask=offs < size)


def _activated(z: torch.Tensor, activation: str) -> torch.Tensor:
    out = torch.full_like(z, float("nan"))
    _activate_kernel[(triton.cdiv(z.numel(), 1024),)](z, out, z.numel(), activation, 1024)
    return out


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_is_as_close_as_float32_lets_it(activation: str) -> None:
    z = torch.cat(
        [
            torch.linspace(-13, 13, 20001, device=DEVICE),
            torch.tensor([-3e38, -88.0, -1e-30, 0.0, 1e-30, 88.0, 3e38], device=DEVICE),
        ]
    )
    truth = activation_reference(z.double(), activation)
    error = (_activated(z, activation).double() - truth).abs() / (1 + z.double().abs())
    assert error.max() <= 1.5e-7


def test_gelu_is_close_near_zero_too() -> None:
    """Where a result is small, its own digits count: a half has eleven bits of them."""
    z = torch.linspace(-5, -1e-3, 20001, device=DEVICE)
    truth = activation_reference(z.double(), "gelu")
    assert ((_activated(z, "gelu").double() - truth) / truth).abs().max() <= 4e-4


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_stays_and_infinity_goes_where_it_should(activation: str) -> None:
    z = torch.tensor([float("nan"), INFINITY], device=DEVICE)
    nan, top = _activated(z, activation).tolist()
    assert nan != nan
    assert top == (1.0 if activation == "tanh" else INFINITY)


def test_gelu_far_below_zero_is_zero() -> None:
    """Also of -infinity, where PyTorch's own is NaN: infinity times nothing."""
    z = torch.tensor([-INFINITY, -3e38, -200.0, -20.0], device=DEVICE)
    assert _activated(z, "gelu").tolist() == [0.0] * 4
