"""Operands for the tests of attention, and its error against float64."""

from contextlib import AbstractContextManager
from typing import Any

import torch

from kernl import tuning
from kernl.ops import attention
from kernl.ops.attention import attention_reference
from kernl.ops.attention_cases import ATTENTION
from kernl.ops.attention_config import ATTENTION_TUNABLE, AttentionConfig

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = ATTENTION.tolerance
INFINITY = float("inf")


def blocks(block_n: int = 16) -> AbstractContextManager[None]:
    """Inside, blocks are small, so that short sequences have many boundaries."""
    return tuning.forcing(ATTENTION_TUNABLE, AttentionConfig(16, block_n, 4, 1))


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator(DEVICE).manual_seed(seed + sum(shape))
    return (2 * torch.randn(shape, generator=generator, device=DEVICE)).to(dtype)


def operands(
    q_len: int, k_len: int, batch: int = 1, heads: int = 2, kv_heads: int = 2, dim: int = 32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    k = random(batch, kv_heads, k_len, dim, seed=1)
    return random(batch, heads, q_len, dim), k, random(batch, kv_heads, k_len, dim, seed=2)


def whole(*values: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device=DEVICE)


def in_float64(options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.double() if torch.is_tensor(value) and value.is_floating_point() else value
        for name, value in options.items()
    }


def error(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: Any) -> float:
    """Relative L2 against float64."""
    truth = attention_reference(q.double(), k.double(), v.double(), **in_float64(options))
    out = attention(q, k, v, **options)
    assert out.dtype == q.dtype
    assert out.shape == truth.shape
    assert not truth.isnan().any()
    return float((out.double() - truth).norm() / truth.norm().clamp_min(1e-30))
