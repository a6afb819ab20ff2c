"""What `attention` and `attention_varlen` take, checked."""

import torch

from kernl import checks
from kernl.errors import ArgumentError, OptionError, ShapeError
from kernl.ops.attention_kernel import attention_kernel

MAX_HEAD_DIM = 256


def check_operands(op: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ndim: int) -> None:
    """q, k and v share dtype, device and head_dim; key heads divide query heads.

    The last dimension is head_dim, the heads are at -3 in four dimensions and at -2 in three.
    """
    checks.tensors(op, attention_kernel, q=q, k=k, v=v)
    means = {
        4: "(batch, heads, length, head_dim)",
        3: "(tokens, heads, head_dim)",
    }[ndim]
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        checks.ndim(op, name, tensor, ndim, means)
    checks.shape(op, "v", v, tuple(k.shape), "the shape of k")
    checks.positive(op, "head_dim", q.shape[-1])
    if q.shape[-1] > MAX_HEAD_DIM:
        raise ShapeError(
            seen=f"{op}: head_dim is {q.shape[-1]}",
            allowed=f"up to {MAX_HEAD_DIM}",
            action="use torch.nn.functional.scaled_dot_product_attention",
        )
    place = -3 if ndim == 4 else -2
    heads, kv_heads = q.shape[place], k.shape[place]
    if kv_heads < 1 or heads % kv_heads:
        raise ShapeError(
            seen=f"{op}: q has {heads} heads, k has {kv_heads}",
            allowed="a number of key heads that divides that of query heads",
            action="repeat key and value heads, or check which tensor was passed",
        )
    like_q = list(q.shape)
    like_q[place] = kv_heads
    if ndim == 4:
        like_q[2] = k.shape[2]
    checks.shape(op, "k", k, tuple(like_q), "the shape of q but for heads and length")


def check_scores(
    op: str,
    q: torch.Tensor,
    heads: int,
    causal: object,
    scale: float | None,
    window: int | None,
    softcap: float | None,
    alibi_slopes: torch.Tensor | None,
) -> None:
    """What changes scores or bounds what is seen, and needs no more than the number of heads."""
    flag(op, "causal", causal)
    if scale is not None:
        checks.number(op, "scale", scale)
    if window is not None:
        checks.index(op, "window", window, 1, 2**31 - 1)
    if softcap is not None:
        checks.number(op, "softcap", softcap)
        if softcap == 0:
            raise OptionError(
                seen=f"{op}: softcap=0", allowed="above 0, or None", action="leave it out"
            )
    if alibi_slopes is not None:
        checks.typed(op, "alibi_slopes", alibi_slopes, q, (torch.float32, q.dtype))
        checks.shape(op, "alibi_slopes", alibi_slopes, (heads,), "the heads of q")


def flag(op: str, name: str, value: object) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise ArgumentError(
            seen=f"{op}: {name} is a {type(value).__name__}",
            allowed="True or False",
            action=f"pass {name} as a bool",
        )


def check_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    key_lengths: torch.Tensor | None = None,
    window: int | None = None,
    softcap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
    relative_bias: torch.Tensor | None = None,
    bidirectional: bool = True,
    max_distance: int = 128,
) -> None:
    """Raise a `kernl.errors.KernlError` where `attention` does not take these arguments."""
    op = "attention"
    check_operands(op, q, k, v, 4)
    batch, heads, q_len, _ = q.shape
    check_scores(op, q, heads, causal, scale, window, softcap, alibi_slopes)
    if mask is not None:
        checks.typed(op, "mask", mask, q, (torch.bool, q.dtype, torch.float32))
        target = (batch, heads, q_len, k.shape[2])
        checks.broadcastable(op, "mask", mask, target, "(batch, heads, q_len, k_len)")
    if key_lengths is not None:
        checks.indices(op, "key_lengths", key_lengths, q)
        checks.shape(op, "key_lengths", key_lengths, (batch,), "the batch of q")
    if relative_bias is not None:
        checks.typed(op, "relative_bias", relative_bias, q, (q.dtype, torch.float32))
        checks.matrix(op, "relative_bias", relative_bias, heads, "the heads of q")
        flag(op, "bidirectional", bidirectional)
        least = 8 if bidirectional else 4
        checks.index(op, "the number of buckets", relative_bias.shape[0], least, 512)
        checks.even(op, "the number of buckets", relative_bias.shape[0])
        exact = relative_bias.shape[0] // (4 if bidirectional else 2)
        checks.index(op, "max_distance", max_distance, exact + 1, 2**20)
