"""How weights are kept in 8 or 4 bits: integers, and one scale for each group of a row.

    weight[n, k] ≈ scale[n, k // group] · q[n, k]        q = round(weight / scale)

8 bits: q is int8, from -127 to 127. 4 bits: q is from -7 to 7, kept as q + 8; a byte holds two. A
group's first half lies in the low four bits of its bytes, its second half in the high ones, so a
kernel that has read the bytes of a group multiplies each half with columns that lie side by side.
"""

import torch

from kernl.errors import ArgumentError, DTypeError, OptionError, ShapeError

GROUP_SIZES = (32, 64, 128, 256)
"""Columns that share a scale. 8 bits may also have one scale for a whole row."""


def quantize_weight(
    weight: torch.Tensor, bits: int, group_size: int | None = 128
) -> tuple[torch.Tensor, torch.Tensor]:
    """Round a weight to 8 or 4 bits, symmetrically, by the largest absolute value of each group.

    Args:
        weight: (n, k), floating point.
        bits: 8 or 4.
        group_size: one of `GROUP_SIZES`, dividing k; None, for 8 bits alone, is one group a row.

    Returns:
        (n, k) int8, or (n, k / 2) uint8 for 4 bits; and the scales (n, groups) in the dtype of
        `weight`. A group of zeros has the scale 1.

    Raises:
        ArgumentError, DTypeError, OptionError, ShapeError: from `kernl.errors`.
    """
    size = _check(weight, bits, group_size)
    n, k = weight.shape
    grouped = weight.float().view(n, k // size, size)
    largest = 127 if bits == 8 else 7
    scale = (grouped.abs().amax(-1) / largest).to(weight.dtype)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    rounded = (grouped / scale.float()[..., None]).round().clamp(-largest, largest)
    if bits == 8:
        return rounded.to(torch.int8).view(n, k), scale
    low, high = (rounded + 8).to(torch.uint8).view(n, k // size, 2, size // 2).unbind(2)
    return (low | (high << 4)).view(n, k // 2), scale


def dequantize_weight(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """(n, k) in the dtype of `scale`, from what `quantize_weight` returned."""
    n, groups = scale.shape
    if weight.dtype == torch.int8:
        integers = weight.reshape(n, groups, -1)
    else:
        packed = weight.reshape(n, groups, -1)
        integers = torch.cat([packed & 15, packed >> 4], -1).to(torch.int8) - 8
    return (integers.to(scale.dtype) * scale[..., None]).flatten(1)


def _check(weight: torch.Tensor, bits: int, group_size: int | None) -> int:
    if not isinstance(weight, torch.Tensor):
        raise ArgumentError(
            seen=f"quantize_weight: weight is a {type(weight).__name__}",
            allowed="a torch.Tensor",
            action="pass a tensor, such as linear.weight",
        )
    if not weight.is_floating_point():
        raise DTypeError(
            seen=f"quantize_weight: weight is {weight.dtype}",
            allowed="a floating-point dtype",
            action="pass the weight before it was quantized",
        )
    if weight.dim() != 2 or weight.shape[1] == 0:
        raise ShapeError(
            seen=f"quantize_weight: weight has shape {tuple(weight.shape)}",
            allowed="(n, k) with k of 1 or more",
            action="pass a matrix",
        )
    if bits not in (4, 8):
        raise OptionError(
            seen=f"quantize_weight: bits={bits!r}", allowed="4, 8", action="choose one of them"
        )
    k = weight.shape[1]
    if group_size is None and bits == 8:
        return k
    if group_size not in GROUP_SIZES:
        raise OptionError(
            seen=f"quantize_weight: group_size={group_size!r} with {bits} bits",
            allowed=f"{', '.join(map(str, GROUP_SIZES))}, and None with 8 bits",
            action="choose one of them",
        )
    if k % group_size:
        raise ShapeError(
            seen=f"quantize_weight: {k} columns in groups of {group_size}",
            allowed="a group size that divides the columns",
            action="choose a smaller group or leave this layer as it is",
        )
    return group_size
