"""Activations that other kernels apply in registers, before they write.

    relu(z) = max(z, 0)                 gelu(z)      = z · (1 + erf(z / √2)) / 2
    silu(z) = z / (1 + exp(-z))         gelu_tanh(z) = z · (1 + tanh(√(2/π) (z + 0.044715 z³))) / 2
    tanh(z) = 2 / (1 + exp(-2z)) - 1

erf to the last bit costs more than all the rest of an epilogue. Here gelu is max(z, 0) less a tail
whose logarithm is nearly a parabola, so that a polynomial of degree 6 and one exponential do:

    gelu(z) = max(z, 0) - |z| · 2^p(|z|),   p(x) ≈ log2((1 - erf(x / √2)) / 2)

The coefficients make the largest error of x · 2^p(x) over 0 ≤ x ≤ 5 as small as it can be, with a
ten-thousandth of the weight on its relative error, 3e-4 at most, for the sake of 16-bit results
near zero. Beyond 5 the polynomial goes on falling until 12, where the tail is 1e-28.

Sources: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016,
https://arxiv.org/abs/1606.08415; the coefficients are kernl's own.
"""

from collections.abc import Callable
from functools import partial

import torch
import triton
import triton.language as tl

_REFERENCES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda z: z,
    "relu": torch.nn.functional.relu,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": partial(torch.nn.functional.gelu, approximate="tanh"),
    "silu": torch.nn.functional.silu,
    "tanh": torch.tanh,
}

ACTIVATIONS = tuple(_REFERENCES)
"""The names that `activate` knows."""


def activation_reference(z: torch.Tensor, activation: str) -> torch.Tensor:
    """What a PyTorch user would write."""
    return _REFERENCES[activation](z)


@triton.jit
def tanh(z):
    """Hyperbolic tangent of float32 `z`, by one exponential."""
    return 2.0 * tl.sigmoid(2.0 * z) - 1.0


@triton.jit
def gelu(z):
    """z · (1 + erf(z / √2)) / 2 of float32 `z`, within 1.5e-7 · (1 + |z|)."""
    # Beyond 12 the power falls along a line, to where the tail is 0; infinity times 0 would be NaN.
    size = tl.minimum(tl.abs(z), 12.0)
    power = -7.82035699e-4 + size * 3.47569585e-5
    power = -5.34618981e-2 + size * (8.11762363e-3 + size * power)
    power = -1.15121067 + size * (-0.458738774 + size * power)
    tail = size * tl.exp2(-0.999992251 + tl.abs(z) * power)
    return tl.maximum(z, 0.0, propagate_nan=tl.PropagateNan.ALL) - tail


@triton.jit
def clamped(z, limit):
    """Float32 `z` within ±limit; no comparison holds for NaN, so it stays."""
    z = tl.where(z > limit, limit, z)
    return tl.where(z < -limit, -limit, z)


@triton.jit
def activate(z, ACTIVATION: tl.constexpr):
    """Apply one of `ACTIVATIONS` to float32 `z`; `none` returns it as it is."""
    if ACTIVATION == "relu":
        # Unlike tl.maximum, this keeps NaN.
        z = tl.where(z < 0.0, 0.0, z)
    elif ACTIVATION == "gelu":
        z = gelu(z)
    elif ACTIVATION == "gelu_tanh":
        z = 0.5 * z * (1.0 + tanh(0.7978845608028654 * (z + 0.044715 * z * z * z)))
    elif ACTIVATION == "silu":
        z = z * tl.sigmoid(z)
    elif ACTIVATION == "tanh":
        z = tanh(z)
    return z
