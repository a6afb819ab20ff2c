"""Rotary position embedding with the write into the key-value cache, in one launch.

    q_out = rotate(q),   k_cache[b, h, positions[b, s]] = rotate(k)[b, h, s],   v_cache likewise

The kernel and the formula are those of `kernl.ops.rotary`.
"""

from collections.abc import Iterator
from typing import Any

import torch

from kernl import checks, launch
from kernl.launch import Plan
from kernl.op import Case, Dims, Op, Spelling
from kernl.ops.rotary import (
    STYLES,
    check_rotary,
    like_projection,
    rotary,
    rotary_launch,
    rotary_plan,
    rotary_reference,
    rotated,
)
from kernl.shapes import ModelShape, Workload


def rotary_cache_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    positions: torch.Tensor,
    style: str = "half",
) -> torch.Tensor:
    """What a PyTorch user would write."""
    slots = positions.expand(q.shape[0], -1).to(torch.int64)[:, None, :, None].expand(k.shape)
    k_cache.scatter_(2, slots, rotated(k, cos, sin, style))
    v_cache.scatter_(2, slots, v)
    return rotated(q, cos, sin, style)


def rotary_cache_plan(
    capability: int,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    positions: torch.Tensor,
    style: str = "half",
) -> Plan:
    """The rotated queries, and the one launch that fills them and writes into the caches."""
    q_out = like_projection(q)
    if q.numel() == 0:
        return Plan((q_out,), ())
    slots = positions if positions.dim() == 2 else positions[None]
    outs = (q_out, k_cache, v_cache)
    return Plan((q_out,), (rotary_launch(q, k, v, cos, sin, slots, outs, style),))


@torch.library.custom_op("kernl::rotary_cache", mutates_args=("k_cache", "v_cache"))
def _rotary_cache(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    positions: torch.Tensor,
    style: str,
) -> torch.Tensor:
    capability = launch.capability(q.device)
    plan = rotary_cache_plan(capability, q, k, v, cos, sin, k_cache, v_cache, positions, style)
    return plan.run()[0]


@_rotary_cache.register_fake
def _rotary_cache_fake(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    positions: torch.Tensor,
    style: str,
) -> torch.Tensor:
    return like_projection(q)


def check_rotary_cache(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    positions: torch.Tensor,
    style: str = "half",
) -> None:
    """Raise a `kernl.errors.KernlError` where `rotary_cache` does not take these arguments."""
    op = "rotary_cache"
    check_rotary(q, k, cos, sin, style, op)
    checks.typed(op, "v", v, q, (q.dtype,))
    checks.shape(op, "v", v, tuple(k.shape), "the shape of k")
    for name, cache in (("k_cache", k_cache), ("v_cache", v_cache)):
        checks.typed(op, name, cache, q, (q.dtype,))
        checks.ndim(op, name, cache, 4, "(batch, kv_heads, capacity, head_dim)")
        expected = (*k.shape[:2], cache.shape[2], k.shape[3])
        checks.shape(op, name, cache, expected, "the shape of k but for its capacity")
    checks.shape(op, "v_cache", v_cache, tuple(k_cache.shape), "the shape of k_cache")
    checks.indices(op, "positions", positions, q)
    checks.at_least(op, "positions", positions, 1)
    checks.at_most(op, "positions", positions, 2)
    lead = (q.shape[0], q.shape[2])
    expected = lead[-positions.dim() :]
    checks.shape(op, "positions", positions, expected, "the batch and the length of q")


def rotary_cache(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    positions: torch.Tensor,
    style: str = "half",
) -> torch.Tensor:
    """Rotate queries and keys, and put keys and values into their cache.

    Args:
        q: (batch, heads, seq, head_dim), any strides, fp16, bf16 or fp32.
        k: (batch, kv_heads, seq, head_dim), any strides.
        v: like `k`.
        cos: (batch or 1, seq, rotary_dim), as `kernl.ops.rotary` takes it.
        sin: like `cos`.
        k_cache: (batch, kv_heads, capacity, head_dim), any strides; written in place.
        v_cache: like `k_cache`.
        positions: (seq,) or (batch, seq), int32 or int64: the slot of each token, each at most
            once in a sequence. A token whose slot lies outside of 0 to capacity - 1 is written
            nowhere: a kernel cannot raise without waiting for the device.
        style: as `kernl.ops.rotary` takes it.

    Returns:
        The rotated queries, of the shape of `q`, the heads of a token side by side in memory.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_rotary_cache(q, k, v, cos, sin, k_cache, v_cache, positions, style)
    return _rotary_cache(q, k, v, cos, sin, k_cache, v_cache, positions, style)


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    if not model.rope:
        return
    for seq in (1, workload.seq):
        yield {
            "batch": workload.batch,
            "seq": seq,
            "heads": model.heads,
            "kvheads": model.kv_heads,
            "dim": model.head_dim,
            "rotary": model.head_dim,
            "style": "half",
        }


def _rotary_inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    batch, seq, dim = case["batch"], case["seq"], case["dim"]
    angles = 3 * random(1, seq, case["rotary"] // 2)
    paired = angles.repeat_interleave(2, -1)
    angles = paired if case["style"] == "interleaved" else torch.cat((angles, angles), -1)
    # As a projection leaves them: the heads of a token side by side.
    return {
        "q": random(batch, seq, case["heads"], dim).to(case.torch_dtype).transpose(1, 2),
        "k": random(batch, seq, case["kvheads"], dim).to(case.torch_dtype).transpose(1, 2),
        "cos": angles.cos().to(case.torch_dtype),
        "sin": angles.sin().to(case.torch_dtype),
        "style": case["style"],
    }


def _cache_inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    inputs = _rotary_inputs(case, device, seed)
    generator = torch.Generator(device).manual_seed(seed + 1)
    k, seq = inputs["k"], case["seq"]
    shape = (case["batch"], case["kvheads"], _capacity(case), case["dim"])

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device).to(case.torch_dtype)

    return {
        **inputs,
        "v": random(*k.shape),
        "k_cache": random(*shape),
        "v_cache": random(*shape),
        "positions": torch.arange(3, 3 + seq, device=device, dtype=torch.int64),
    }


def _capacity(case: Case) -> int:
    return int(case["seq"]) + 64


def _rows(case: Case, heads: int) -> int:
    return int(case["batch"] * case["seq"] * heads * case["dim"])


def _table_bytes(case: Case) -> int:
    return int(2 * case["seq"] * case["rotary"] * case.itemsize)


def _rotary_bytes(case: Case) -> int:
    moved = 2 * _rows(case, case["heads"] + case["kvheads"]) * int(case.itemsize)
    return moved + _table_bytes(case)


def _cache_bytes(case: Case) -> int:
    moved = 2 * _rows(case, case["heads"] + 2 * case["kvheads"]) * int(case.itemsize)
    return moved + _table_bytes(case) + 8 * int(case["seq"])


def _flops(case: Case) -> int:
    return 3 * _rows(case, case["heads"] + case["kvheads"])


def _spelled_half(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)

    def exchanged(x: torch.Tensor) -> torch.Tensor:
        first, second = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
        return torch.cat((-second, first), dim=-1)

    return (q * cos) + (exchanged(q) * sin), (k * cos) + (exchanged(k) * sin)


def _spelled_in_float(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    q_out, k_out = _spelled_half(q.float(), k.float(), cos, sin)
    return q_out.to(q.dtype), k_out.to(k.dtype)


_SPELLED_SHAPES = {"q": (2, 4, 3, 8), "k": (2, 2, 3, 8), "cos": (1, 3, 8), "sin": (1, 3, 8)}


_EDGES: tuple[Dims, ...] = tuple(
    {
        "batch": batch,
        "seq": seq,
        "heads": heads,
        "kvheads": kvheads,
        "dim": dim,
        "rotary": turned,
        "style": STYLES[place % 2],
    }
    for place, (batch, seq, heads, kvheads, dim, turned) in enumerate(
        (
            (1, 1, 1, 1, 2, 2),
            (2, 3, 5, 1, 34, 34),
            (1, 17, 4, 2, 80, 20),
            (3, 7, 3, 3, 64, 64),
            (1, 5, 33, 11, 96, 48),
        )
    )
)
_TOLERANCE = {"fp32": 1e-6, "fp16": 5e-4, "bf16": 4e-3}

ROTARY = Op(
    name="rotary",
    kernel=rotary,
    reference=rotary_reference,
    plan=rotary_plan,
    check=check_rotary,
    dims=_dims,
    inputs=_rotary_inputs,
    edges=_EDGES,
    bytes=_rotary_bytes,
    flops=_flops,
    tolerance=_TOLERANCE,
    spellings=(
        Spelling(_spelled_in_float, rotary, _SPELLED_SHAPES),
        Spelling(_spelled_half, rotary, _SPELLED_SHAPES),
    ),
)

ROTARY_CACHE = Op(
    name="rotary_cache",
    kernel=rotary_cache,
    reference=rotary_cache_reference,
    plan=rotary_cache_plan,
    check=check_rotary_cache,
    dims=_dims,
    inputs=_cache_inputs,
    edges=_EDGES,
    bytes=_cache_bytes,
    flops=_flops,
    tolerance=_TOLERANCE,
    mutates=("k_cache", "v_cache"),
    moves_part_of_its_inputs=True,
)
