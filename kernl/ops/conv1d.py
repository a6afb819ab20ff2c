"""Convolution over time with its epilogue: bias, activation and residual in the same kernel.

    out[b, :, t] = activation(Σ_tap weight[:, :, tap] · x[b, :, t · stride + tap - padding] + bias)
                   + residual[b, :, t]

It is one matrix product whose inner dimension counts taps and channels together, k = taps ·
channels: row t of the left operand is what output t sees of x. That operand is never written. A
program computes a (BLOCK_M, BLOCK_N) tile of outputs in float32, BLOCK_M of them in time, and takes
each element from where it lies in x; what is outside of [0, length) counts as 0. float32 inputs
are multiplied in float32 (no tf32).

What lies in a row should be read in a row. Where channels of x do, k counts the channels of one
tap after the other: `kernl.rewrite` lays weights out so (`kernl.rewrite.pack`). Where time does, as
in a model's features, and the weight lies as PyTorch has it, k counts the taps of one channel after
the other. The output lies in memory as (batch, out_length, out_channels), so that a convolution
behind it, or a linear layer, reads channels in a row.

Source: Chetlur et al., "cuDNN: Efficient Primitives for Deep Learning", 2014, section 3.2,
https://arxiv.org/abs/1410.0759.
"""

import torch
import triton
import triton.language as tl

from kernl import checks, launch
from kernl.errors import OptionError, ShapeError
from kernl.launch import Launch, Plan, cdiv
from kernl.op import Op
from kernl.ops.activation import ACTIVATIONS, activation_reference
from kernl.ops.conv1d_cases import (
    EDGES,
    SWEEP,
    bytes_moved,
    conv1d_dims,
    conv1d_inputs,
    flops,
)
from kernl.ops.conv1d_config import CONV1D_TUNABLE, Layout, positions
from kernl.ops.conv1d_spellings import conv1d_spellings
from kernl.ops.dependent import prefetch_rows, wait_for_inputs
from kernl.ops.epilogue import Epilogue, finish
from kernl.ops.grouped import grouped_tile
from kernl.tuning import choose


def conv1d_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    activation: str = "none",
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """What a PyTorch user would write."""
    out = torch.nn.functional.conv1d(x, weight, bias, stride, padding)
    out = activation_reference(out, activation)
    return out if residual is None else out + residual


@triton.jit
def _conv1d_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    residual_ptr,
    out_ptr,
    length,
    out_length,
    n,
    stride,
    padding,
    stride_x_batch,
    stride_x_channel,
    stride_x_time,
    stride_weight_n,
    stride_weight_channel,
    stride_weight_tap,
    stride_bias,
    stride_residual_batch,
    stride_residual_m,
    stride_residual_n,
    CHANNELS: tl.constexpr,
    TAPS: tl.constexpr,
    TAPS_INNER: tl.constexpr,
    WEIGHT_IN_ORDER: tl.constexpr,
    ACTIVATION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    PDL: tl.constexpr = False,
):
    """The shapes: x (batch, CHANNELS, length), weight (n, CHANNELS, TAPS), out (batch, m, n).

    TAPS_INNER: k counts the taps of a channel, and else the channels of a tap, before it goes on.
    WEIGHT_IN_ORDER: the weight's rows lie in memory as k counts.
    """
    K: tl.constexpr = CHANNELS * TAPS
    tiles_m, tiles_n = tl.cdiv(out_length, BLOCK_M), tl.cdiv(n, BLOCK_N)
    tiles = tiles_m * tiles_n
    program = tl.program_id(0)
    batch = (program // tiles).to(tl.int64)
    tile_m, tile_n = grouped_tile(program % tiles, tiles_m, tiles_n, GROUP_M)
    m_offs = tile_m.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    n_offs = tile_n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    k_offs = tl.arange(0, BLOCK_K)

    # Past the end the first row is read again: its sums are not stored.
    weight_rows = weight_ptr + tl.where(n_offs < n, n_offs, 0) * stride_weight_n
    if WEIGHT_IN_ORDER and tile_m == 0:  # the other programs read what this one asks for
        prefetch_rows(weight_rows, 0, K, PDL)
    wait_for_inputs(PDL)
    # Output m sees the positions first + tap; the taps from low to high - 1 are inside of x.
    first = m_offs * stride - padding
    low = tl.minimum(tl.maximum(-first, 0), TAPS).to(tl.int32)[:, None]
    high = tl.minimum(tl.maximum(length - first, 0), TAPS).to(tl.int32)[:, None]
    x_rows = x_ptr + batch * stride_x_batch + first * stride_x_time

    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + k_offs
        if TAPS_INNER:
            channel, tap = k // TAPS, k % TAPS
        else:
            tap, channel = k // CHANNELS, k % CHANNELS
        x_cols = tap.to(tl.int64) * stride_x_time + channel.to(tl.int64) * stride_x_channel
        if WEIGHT_IN_ORDER:
            weight_cols = k.to(tl.int64)
        else:
            weight_cols = tap.to(tl.int64) * stride_weight_tap
            weight_cols += channel.to(tl.int64) * stride_weight_channel
        x_ptrs = x_rows[:, None] + x_cols[None, :]
        weight_ptrs = weight_rows[None, :] + weight_cols[:, None]
        inside = (tap[None, :] >= low) & (tap[None, :] < high)
        if K % BLOCK_K == 0:
            x = tl.load(x_ptrs, mask=inside, other=0.0)
            weight = tl.load(weight_ptrs)
        else:
            x = tl.load(x_ptrs, mask=inside & (k < K)[None, :], other=0.0)
            weight = tl.load(weight_ptrs, mask=(k < K)[:, None], other=0.0)
        acc = tl.dot(x, weight, acc, input_precision="ieee")

    finish(
        acc,
        m_offs,
        n_offs,
        out_length,
        n,
        bias_ptr,
        residual_ptr + batch * stride_residual_batch,
        out_ptr + batch * out_length * n,
        stride_bias,
        stride_residual_m,
        stride_residual_n,
        ACTIVATION,
        HAS_BIAS,
        HAS_RESIDUAL,
    )


def conv1d_plan(
    capability: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    activation: str = "none",
    residual: torch.Tensor | None = None,
) -> Plan:
    """The output, its channels in a row, and the one launch that fills it."""
    out = _empty_output(x, weight, stride, padding)
    if x.shape[0] == 0:
        return Plan((out,), ())
    layout, (_, channels, taps), (batch, n, m) = Layout.of(x, weight), weight.shape, out.shape
    tile = choose(
        CONV1D_TUNABLE,
        capability,
        x.device,
        bits=8 * x.itemsize,
        x_vectors=int(layout.x_vectors),
        weight_vectors=int(layout.weight_vectors),
        batch=batch,
        m=m,
        n=n,
        k=channels * taps,
    )
    # Those of one sequence, as `finish` sees them: positions, then channels.
    epilogue = Epilogue(bias, activation, None if residual is None else residual[0].t())
    convolved = Launch(
        kernel=_conv1d_kernel,
        grid=(batch * cdiv(m, tile.block_m) * cdiv(n, tile.block_n),),
        args={
            **epilogue.args(x),
            "x_ptr": x,
            "weight_ptr": weight,
            "out_ptr": out,
            "length": x.shape[2],
            "out_length": m,
            "n": n,
            "stride": stride,
            "padding": padding,
            "stride_x_batch": x.stride(0),
            "stride_x_channel": x.stride(1),
            "stride_x_time": x.stride(2),
            "stride_weight_n": weight.stride(0),
            "stride_weight_channel": weight.stride(1),
            "stride_weight_tap": weight.stride(2),
            "stride_residual_batch": 1 if residual is None else residual.stride(0),
        },
        constants={
            **epilogue.constants,
            "CHANNELS": channels,
            "TAPS": taps,
            "TAPS_INNER": layout.taps_inner,
            "WEIGHT_IN_ORDER": layout.weight_in_order,
            "BLOCK_M": tile.block_m,
            "BLOCK_N": tile.block_n,
            "BLOCK_K": tile.block_k,
            "GROUP_M": 8,
        },
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return Plan((out,), (convolved,))


def _empty_output(x: torch.Tensor, weight: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
    """Room for (batch, n, m), laid out as (batch, m, n)."""
    m = positions(x.shape[2], weight.shape[2], stride, padding)
    return x.new_empty((x.shape[0], m, weight.shape[0])).transpose(1, 2)


@torch.library.custom_op("kernl::conv1d", mutates_args=())
def _conv1d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: int,
    padding: int,
    activation: str,
    residual: torch.Tensor | None,
) -> torch.Tensor:
    capability = launch.capability(x.device)
    return conv1d_plan(capability, x, weight, bias, stride, padding, activation, residual).run()[0]


@_conv1d.register_fake
def _conv1d_fake(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: int,
    padding: int,
    *_: object,
) -> torch.Tensor:
    return _empty_output(x, weight, stride, padding)


def check_conv1d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    activation: str = "none",
    residual: torch.Tensor | None = None,
) -> None:
    """Raise a `kernl.errors.KernlError` where `conv1d` does not take these arguments."""
    op = "conv1d"
    checks.tensors(op, _conv1d_kernel, x=x, weight=weight)
    checks.tensors(op, _conv1d_kernel, x=x, bias=bias, residual=residual)
    checks.option(op, "activation", activation, ACTIVATIONS)
    checks.ndim(op, "x", x, 3, "(batch, in_channels, length)")
    checks.ndim(op, "weight", weight, 3, "(out_channels, in_channels, kernel_size)")
    _, in_channels, length = x.shape
    out_channels, _, kernel_size = weight.shape
    expected = (out_channels, in_channels, kernel_size)
    checks.shape(op, "weight", weight, expected, "the second being that of x: no groups")
    sizes = ("in_channels", "length", "out_channels", "kernel_size")
    for name, size in zip(sizes, (in_channels, length, out_channels, kernel_size), strict=True):
        checks.positive(op, name, size)
    checks.count(op, "stride", stride)
    checks.count(op, "padding", padding)
    if stride == 0:
        raise OptionError(
            seen=f"{op}: stride=0",
            allowed="an int of 1 or more",
            action="choose another stride",
        )
    if positions(length, kernel_size, stride, padding) < 1:
        raise ShapeError(
            seen=f"{op}: kernel_size {kernel_size}, length {length}, padding {padding}",
            allowed="a kernel_size of length + 2 · padding or less",
            action="pad x, or skip the call: there is no output",
        )
    if bias is not None:
        checks.shape(op, "bias", bias, (out_channels,), "the first dimension of weight")
    if residual is not None:
        out_length = positions(length, kernel_size, stride, padding)
        shape = (x.shape[0], out_channels, out_length)
        checks.shape(op, "residual", residual, shape, "the shape of the output")


def conv1d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    activation: str = "none",
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """`activation(conv1d(x, weight, bias, stride, padding)) + residual`, summed in float32.

    Args:
        x: (batch, in_channels, length), any strides, fp16, bf16 or fp32. A batch of size 0 gives
            an empty result.
        weight: (out_channels, in_channels, kernel_size), any strides. Where the channels of x lie
            in a row, it is read fastest as a view of memory (out_channels, kernel_size,
            in_channels).
        bias: (out_channels,) or None.
        stride: positions of x from one output to the next, 1 or more.
        padding: zeros in front of x, and as many behind it.
        activation: one of `ACTIVATIONS`; `gelu` is the exact one, by erf.
        residual: of the shape of the output, any strides, added last, or None.

    Returns:
        (batch, out_channels, out_length) in the dtype of `x`, a view of contiguous memory
        (batch, out_length, out_channels), with out_length = (length + 2 · padding - kernel_size)
        // stride + 1.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_conv1d(x, weight, bias, stride, padding, activation, residual)
    return _conv1d(x, weight, bias, stride, padding, activation, residual)


CONV1D = Op(
    name="conv1d",
    kernel=conv1d,
    reference=conv1d_reference,
    plan=conv1d_plan,
    check=check_conv1d,
    dims=conv1d_dims,
    inputs=conv1d_inputs,
    edges=EDGES,
    sweep=SWEEP,
    bytes=bytes_moved,
    flops=flops,
    tolerance={"fp32": 3e-6, "fp16": 5e-4, "bf16": 4e-3},
    spellings=conv1d_spellings(conv1d),
)
