"""Activations that other kernels apply in registers, before they write.

    relu(z) = max(z, 0)                 gelu(z)      = z · (1 + erf(z / √2)) / 2
    silu(z) = z / (1 + exp(-z))         gelu_tanh(z) = z · (1 + tanh(√(2/π) (z + 0.044715 z³))) / 2
    tanh(z) = 2 / (1 + exp(-2z)) - 1

erf to the last bit costs more than all the rest of an epilogue. Here it is within 1.5e-7, by one
exponential and a series in t = 1 / (1 + 0.3275911 |z| / √2), with its halves and √2 multiplied
into the constants:

    gelu(z) = max(z, 0) - |z| · series(t) · exp(-z² / 2)

t is the square of a reciprocal square root, which is one instruction; a division is seven.

Sources: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016,
https://arxiv.org/abs/1606.08415; Abramowitz and Stegun, "Handbook of Mathematical Functions",
1964, formula 7.1.26.
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
    """z · (1 + erf(z / √2)) / 2 of float32 `z`, within 2e-7 · (1 + |z|)."""
    # Beyond 20 the tail is 0 in float32; infinity times 0 would be NaN.
    size = tl.minimum(tl.abs(z), 20.0)
    root = tl.rsqrt(1.0 + 0.2316418970 * size)
    t = root * root
    series = 0.7107068705 + t * (-0.7265765135 + t * 0.5307027145)
    series = t * (0.127414796 + t * (-0.142248368 + t * series))
    tail = size * series * tl.exp2(size * size * -0.7213475204)
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
