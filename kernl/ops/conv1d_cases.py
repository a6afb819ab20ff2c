"""The cases of `conv1d`: what Whisper runs, shapes that no model has, inputs and costs."""

from collections.abc import Iterator
from typing import Any

import torch

from kernl.op import Case, Dims
from kernl.ops.conv1d_config import positions
from kernl.shapes import ModelShape, Workload


def conv1d_dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    """The two with which an encoder that hears begins; the second halves the length."""
    if model.mel_bins and workload.seq == model.frames:
        yield from _speech(workload.batch, model.mel_bins, model.hidden, 2 * model.frames)


def _speech(batch: int, mel_bins: int, hidden: int, length: int) -> Iterator[Dims]:
    yield _case(batch, mel_bins, length, hidden, 3, 1, 1, False, "gelu")
    yield _case(batch, hidden, length, hidden, 3, 2, 1, True, "gelu", residual=True)


def _case(
    batch: int,
    in_channels: int,
    length: int,
    out_channels: int,
    kernel_size: int,
    stride: int,
    padding: int,
    time_major: bool,
    activation: str,
    bias: bool = True,
    residual: bool = False,
) -> Dims:
    return {
        "batch": batch,
        "in_channels": in_channels,
        "length": length,
        "out_channels": out_channels,
        "kernel_size": kernel_size,
        "stride": stride,
        # A size is 1 or more, and a flag that is off is left out of the name.
        "padding": padding or False,
        "time_major": time_major,
        "bias": bias,
        "activation": activation,
        "residual": residual,
    }


EDGES: tuple[Dims, ...] = (
    _case(1, 1, 1, 1, 1, 1, 0, False, "none", bias=False),
    _case(3, 3, 1, 17, 3, 1, 1, False, "relu"),
    _case(2, 1, 37, 19, 5, 3, 0, False, "silu"),
    _case(1, 17, 65, 33, 2, 1, 0, True, "gelu", residual=True),
    _case(2, 80, 131, 70, 3, 1, 1, False, "gelu"),
    _case(2, 64, 97, 96, 3, 2, 1, True, "gelu", residual=True),
    _case(1, 48, 33, 129, 5, 3, 7, True, "tanh", bias=False),
    _case(5, 3, 23, 7, 2, 2, 3, True, "gelu_tanh"),
    _case(1, 130, 19, 40, 1, 1, 0, True, "none", residual=True),
    _case(1, 8, 3, 16, 7, 1, 2, False, "none", bias=False),
)
"""Among them channels that are no multiple of a vector, and padding that sees zeros alone."""

SWEEP: tuple[Dims, ...] = tuple(
    dims
    for mel_bins, hidden in ((80, 384), (80, 768), (80, 1024), (128, 1280))
    for dims in _speech(1, mel_bins, hidden, 3000)
)
"""Whisper's other sizes: tiny, small, medium, large-v3."""


def _rows(case: Case) -> int:
    return positions(case["length"], case["kernel_size"], case["stride"], int(case["padding"]))


def conv1d_inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    """Signed and random; `time_major`: both operands lie as in a model behind another one."""
    generator = torch.Generator(device).manual_seed(seed)

    def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
        values = torch.randn(shape, generator=generator, device=device)
        return (scale * values).to(case.torch_dtype)

    batch, channels, length = case["batch"], case["in_channels"], case["length"]
    outs, taps, rows = case["out_channels"], case["kernel_size"], _rows(case)
    scale = (channels * taps) ** -0.5
    if case["time_major"]:
        x = random(batch, length, channels).transpose(1, 2)
        weight = random(outs, taps, channels, scale=scale).transpose(1, 2)
    else:
        x = random(batch, channels, length)
        weight = random(outs, channels, taps, scale=scale)
    return {
        "x": x,
        "weight": weight,
        "bias": random(outs) if case["bias"] else None,
        "stride": case["stride"],
        "padding": int(case["padding"]),
        "activation": case["activation"],
        # One for all sequences, as positions are.
        "residual": random(rows, outs).t().expand(batch, outs, rows) if case["residual"] else None,
    }


def bytes_moved(case: Case) -> int:
    """Each input read once, the output written once."""
    outs, rows = case["out_channels"], _rows(case)
    elements = case["batch"] * case["in_channels"] * case["length"]
    elements += outs * case["in_channels"] * case["kernel_size"]
    elements += case["batch"] * rows * outs
    elements += outs if case["bias"] else 0
    elements += rows * outs if case["residual"] else 0
    return int(elements * case.itemsize)


def flops(case: Case) -> int:
    """Of the products."""
    inner = case["in_channels"] * case["kernel_size"]
    return int(2 * case["batch"] * _rows(case) * case["out_channels"] * inner)
