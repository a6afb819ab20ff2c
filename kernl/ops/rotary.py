"""Rotary position embedding of queries and keys, alone or with the write into a key-value cache.

    out_i = x_i · cos_i + r_i · sin_i          for i < rotary_dim, else out_i = x_i

r is x with the two parts of each pair exchanged, the first one negated. A pair is (i, i + half)
in the style `half`, which Llama and GPT-NeoX use, and (2i, 2i + 1) in the style `interleaved`,
which GPT-J uses. cos and sin come as the models pass them, with a value for each element.

One program takes one token and some of its heads, so cos and sin are read once for them. With a
cache the same launch puts the rotated keys, and the values as they are, into their slots.

Source: Su, Lu, Pan, Murtadha, Wen and Liu, "RoFormer: Enhanced Transformer with Rotary Position
Embedding", 2021, https://arxiv.org/abs/2104.09864.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from kernl import checks, launch
from kernl.errors import ShapeError
from kernl.launch import Launch, Plan, cdiv, next_power_of_2
from kernl.ops.dependent import wait_for_inputs

STYLES = ("half", "interleaved")
BLOCK_ELEMENTS = 1024
"""Elements of one program: 8 a thread."""


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, style: str) -> torch.Tensor:
    """What a PyTorch user would write for one of queries and keys."""
    rotary_dim = cos.shape[-1]
    turned, kept = x[..., :rotary_dim], x[..., rotary_dim:]
    if style == "half":
        first, second = turned.chunk(2, dim=-1)
        exchanged = torch.cat((-second, first), dim=-1)
    else:
        exchanged = torch.stack((-turned[..., 1::2], turned[..., ::2]), dim=-1).flatten(-2)
    out = turned * cos.unsqueeze(1) + exchanged * sin.unsqueeze(1)
    return torch.cat((out.to(x.dtype), kept), dim=-1)


def rotary_reference(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, style: str = "half"
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a PyTorch user would write."""
    return rotated(q, cos, sin, style), rotated(k, cos, sin, style)


@triton.jit
def _turned(x_ptr, x_rows, stride_d, d_offs, mask, cos, sin, rotary_dim, STYLE: tl.constexpr):
    """Rotate the heads whose first elements lie at x_rows; cos is 1 and sin 0 behind rotary_dim."""
    if STYLE == "half":
        half = rotary_dim // 2
        first = d_offs < half
        partner = tl.where(first, d_offs + half, d_offs - half)
    else:
        first = d_offs % 2 == 0
        partner = tl.where(first, d_offs + 1, d_offs - 1)
    partner = tl.where(d_offs < rotary_dim, partner, d_offs)
    x = tl.load(x_ptr + x_rows + d_offs[None, :] * stride_d, mask=mask).to(tl.float32)
    other = tl.load(x_ptr + x_rows + partner[None, :] * stride_d, mask=mask).to(tl.float32)
    return x * cos[None, :] + tl.where(first[None, :], -other, other) * sin[None, :]


@triton.jit
def _rotary_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    q_out_ptr,
    k_out_ptr,
    v_out_ptr,
    cos_ptr,
    sin_ptr,
    positions_ptr,
    seq,
    heads,
    kv_heads,
    head_dim,
    rotary_dim,
    capacity,
    stride_q_b,
    stride_q_h,
    stride_q_s,
    stride_q_d,
    stride_k_b,
    stride_k_h,
    stride_k_s,
    stride_k_d,
    stride_v_b,
    stride_v_h,
    stride_v_s,
    stride_v_d,
    stride_q_out_b,
    stride_q_out_h,
    stride_q_out_s,
    stride_q_out_d,
    stride_k_out_b,
    stride_k_out_h,
    stride_k_out_s,
    stride_k_out_d,
    stride_v_out_b,
    stride_v_out_h,
    stride_v_out_s,
    stride_v_out_d,
    stride_cos_b,
    stride_cos_s,
    stride_cos_d,
    stride_sin_b,
    stride_sin_s,
    stride_sin_d,
    stride_positions_b,
    stride_positions_s,
    STYLE: tl.constexpr,
    HAS_CACHE: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    PDL: tl.constexpr = False,
):
    """Program (token, part): the parts are blocks of query heads, then key heads, then values'."""
    wait_for_inputs(PDL)
    token = tl.program_id(0).to(tl.int64)
    batch, position = token // seq, token % seq
    part = tl.program_id(1)
    q_parts, kv_parts = tl.cdiv(heads, BLOCK_HEADS), tl.cdiv(kv_heads, BLOCK_HEADS)
    d_offs = tl.arange(0, BLOCK_DIM)

    turned = d_offs < rotary_dim
    cos_row = cos_ptr + batch * stride_cos_b + position * stride_cos_s
    sin_row = sin_ptr + batch * stride_sin_b + position * stride_sin_s
    cos = tl.load(cos_row + d_offs * stride_cos_d, mask=turned, other=1.0).to(tl.float32)
    sin = tl.load(sin_row + d_offs * stride_sin_d, mask=turned, other=0.0).to(tl.float32)

    if part < q_parts:
        h_offs = (part * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)).to(tl.int64)[:, None]
        mask = (h_offs < heads) & (d_offs < head_dim)[None, :]
        rows = batch * stride_q_b + h_offs * stride_q_h + position * stride_q_s
        out = _turned(q_ptr, rows, stride_q_d, d_offs, mask, cos, sin, rotary_dim, STYLE)
        rows = batch * stride_q_out_b + h_offs * stride_q_out_h + position * stride_q_out_s
        out_ptrs = q_out_ptr + rows + d_offs[None, :] * stride_q_out_d
        tl.store(out_ptrs, out.to(q_out_ptr.dtype.element_ty), mask=mask)
    else:
        kv_part = (part - q_parts) % kv_parts
        h_offs = (kv_part * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)).to(tl.int64)[:, None]
        mask = (h_offs < kv_heads) & (d_offs < head_dim)[None, :]
        slot = position
        kept = mask
        if HAS_CACHE:
            slots = positions_ptr + batch * stride_positions_b + position * stride_positions_s
            slot = tl.load(slots).to(tl.int64)
            # A slot outside of the cache would be somebody else's memory.
            kept = mask & (slot >= 0) & (slot < capacity)
        if part < q_parts + kv_parts:
            rows = batch * stride_k_b + h_offs * stride_k_h + position * stride_k_s
            out = _turned(k_ptr, rows, stride_k_d, d_offs, mask, cos, sin, rotary_dim, STYLE)
            rows = batch * stride_k_out_b + h_offs * stride_k_out_h + slot * stride_k_out_s
            out_ptrs = k_out_ptr + rows + d_offs[None, :] * stride_k_out_d
            tl.store(out_ptrs, out.to(k_out_ptr.dtype.element_ty), mask=kept)
        elif HAS_CACHE:
            rows = batch * stride_v_b + h_offs * stride_v_h + position * stride_v_s
            v = tl.load(v_ptr + rows + d_offs[None, :] * stride_v_d, mask=mask)
            rows = batch * stride_v_out_b + h_offs * stride_v_out_h + slot * stride_v_out_s
            tl.store(v_out_ptr + rows + d_offs[None, :] * stride_v_out_d, v, mask=kept)


def rotary_launch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor | None,
    outs: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None],
    style: str,
) -> Launch:
    """The launch that fills outs: rotated q, rotated k and, with a cache, v."""
    batch, heads, seq, head_dim = q.shape
    kv_heads = k.shape[1]
    block_dim = next_power_of_2(head_dim)
    block_heads = max(1, min(BLOCK_ELEMENTS // block_dim, next_power_of_2(heads)))
    q_out, k_out, v_out = outs
    # Absent tensors are stood in for by k: their pointers are never used.
    tensors = {
        "q": q,
        "k": k,
        "v": k if v is None else v,
        "q_out": q_out,
        "k_out": k_out,
        "v_out": k_out if v_out is None else v_out,
    }
    slots = torch.empty((1, 1), dtype=torch.int32, device="meta")
    slots = slots if positions is None else positions.expand(batch, seq)
    sections = 1 if v is None else 2
    parts = cdiv(heads, block_heads) + sections * cdiv(kv_heads, block_heads)
    return Launch(
        kernel=_rotary_kernel,
        grid=(batch * seq, parts),
        args={
            **{f"{name}_ptr": tensor for name, tensor in tensors.items()},
            **{
                f"stride_{name}_{axis}": stride
                for name, tensor in tensors.items()
                for axis, stride in zip("bhsd", tensor.stride(), strict=True)
            },
            **_table_args("cos", cos, batch),
            **_table_args("sin", sin, batch),
            "positions_ptr": k if positions is None else slots,
            "stride_positions_b": slots.stride(0),
            "stride_positions_s": slots.stride(1),
            "seq": seq,
            "heads": heads,
            "kv_heads": kv_heads,
            "head_dim": head_dim,
            "rotary_dim": cos.shape[-1],
            "capacity": k_out.shape[2],
        },
        constants={
            "STYLE": style,
            "HAS_CACHE": v is not None,
            "BLOCK_HEADS": block_heads,
            "BLOCK_DIM": block_dim,
        },
        num_warps=4,
    )


def _table_args(name: str, table: torch.Tensor, batch: int) -> dict[str, Any]:
    strides = table.expand(batch, *table.shape[1:]).stride()
    return {
        f"{name}_ptr": table,
        **{f"stride_{name}_{axis}": s for axis, s in zip("bsd", strides, strict=True)},
    }


def like_projection(x: torch.Tensor) -> torch.Tensor:
    """Room for x (batch, heads, seq, head_dim) with the heads of a token side by side."""
    batch, heads, seq, head_dim = x.shape
    room = torch.empty((batch, seq, heads, head_dim), dtype=x.dtype, device=x.device)
    return room.transpose(1, 2)


def rotary_plan(
    capability: int,
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    style: str = "half",
) -> Plan:
    """Both outputs and the one launch that fills them."""
    q_out, k_out = like_projection(q), like_projection(k)
    if q.numel() == 0:
        return Plan((q_out, k_out), ())
    turned = rotary_launch(q, k, None, cos, sin, None, (q_out, k_out, None), style)
    return Plan((q_out, k_out), (turned,))


@torch.library.custom_op("kernl::rotary", mutates_args=())
def _rotary(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, style: str
) -> tuple[torch.Tensor, torch.Tensor]:
    q_out, k_out = rotary_plan(launch.capability(q.device), q, k, cos, sin, style).run()
    return q_out, k_out


@_rotary.register_fake
def _rotary_fake(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, style: str
) -> tuple[torch.Tensor, torch.Tensor]:
    return like_projection(q), like_projection(k)


def check_rotary(
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    style: str = "half",
    op: str = "rotary",
) -> None:
    """Raise a `kernl.errors.KernlError` where `rotary` does not take these arguments."""
    checks.tensors(op, _rotary_kernel, q=q, k=k)
    checks.option(op, "style", style, STYLES)
    checks.ndim(op, "q", q, 4, "(batch, heads, seq, head_dim)")
    checks.ndim(op, "k", k, 4, "(batch, kv_heads, seq, head_dim)")
    batch, _, seq, head_dim = q.shape
    like_q = (batch, k.shape[1], seq, head_dim)
    checks.shape(op, "k", k, like_q, "the shape of q but for its heads")
    for name, table in (("cos", cos), ("sin", sin)):
        checks.typed(op, name, table, q, (q.dtype, torch.float32))
        checks.ndim(op, name, table, 3, "(batch or 1, seq, rotary_dim)")
    checks.shape(op, "sin", sin, tuple(cos.shape), "the shape of cos")
    rotary_dim = cos.shape[2]
    checks.even(op, "rotary_dim, the last dimension of cos,", rotary_dim)
    if cos.shape[0] not in (1, batch) or cos.shape[1] != seq or not 0 < rotary_dim <= head_dim:
        raise ShapeError(
            seen=f"{op}: cos has shape {tuple(cos.shape)}, q has {tuple(q.shape)}",
            allowed=f"(1 or {batch}, {seq}, 2 to {head_dim})",
            action="pass the rows of cos and sin for the positions of these tokens",
        )


def rotary(
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    style: str = "half",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate queries and keys by their positions, computed in float32.

    Args:
        q: (batch, heads, seq, head_dim), any strides, fp16, bf16 or fp32.
        k: (batch, kv_heads, seq, head_dim), any strides.
        cos: (batch or 1, seq, rotary_dim), in the dtype of `q` or float32, with a value for each
            element: both parts of a pair have the same. rotary_dim is even and up to head_dim;
            elements behind it are kept.
        sin: like `cos`.
        style: "half" pairs (i, i + rotary_dim / 2), "interleaved" pairs (2i, 2i + 1).

    Returns:
        Both rotated, of the shapes of `q` and `k`, with the heads of a token side by side in
        memory, as a projection leaves them.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_rotary(q, k, cos, sin, style)
    q_out, k_out = _rotary(q, k, cos, sin, style)
    return q_out, k_out
