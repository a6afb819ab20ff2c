"""Activations that other kernels apply in registers, before they write.

    relu(z) = max(z, 0)                 gelu(z)      = z · (1 + erf(z / √2)) / 2
    silu(z) = z / (1 + exp(-z))         gelu_tanh(z) = z · (1 + tanh(√(2/π) (z + 0.044715 z³))) / 2
    tanh(z) = 2 / (1 + exp(-2z)) - 1

Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016,
https://arxiv.org/abs/1606.08415.
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
def activate(z, ACTIVATION: tl.constexpr):
    """Apply one of `ACTIVATIONS` to float32 `z`; `none` returns it as it is."""
    if ACTIVATION == "relu":
        # Unlike tl.maximum, this keeps NaN.
        z = tl.where(z < 0.0, 0.0, z)
    elif ACTIVATION == "gelu":
        z = 0.5 * z * (1.0 + tl.erf(z * 0.7071067811865476))
    elif ACTIVATION == "gelu_tanh":
        z = 0.5 * z * (1.0 + tanh(0.7978845608028654 * (z + 0.044715 * z * z * z)))
    elif ACTIVATION == "silu":
        z = z * tl.sigmoid(z)
    elif ACTIVATION == "tanh":
        z = tanh(z)
    return z
