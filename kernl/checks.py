"""Checks of arguments that every operator makes, each raising one of `kernl.errors`."""

import torch

from kernl.errors import ArgumentError, DeviceError, DTypeError, OptionError, ShapeError
from kernl.launch import interpreting

SUPPORTED_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def tensors(op: str, kernel: object, **arguments: object) -> None:
    """Every argument is a tensor, of one supported dtype, on one device that can run `kernel`.

    Arguments that are None are options left out. The first argument sets dtype and device.
    """
    first: torch.Tensor | None = None
    for name, value in arguments.items():
        if value is None and first is not None:
            continue
        if not isinstance(value, torch.Tensor):
            raise ArgumentError(
                seen=f"{op}: {name} is a {type(value).__name__}",
                allowed="a torch.Tensor",
                action=f"pass {name} as a tensor",
            )
        if value.layout != torch.strided:
            raise ArgumentError(
                seen=f"{op}: {name} has layout {value.layout}",
                allowed="dense (strided) tensors",
                action=f"call {name}.to_dense() first",
            )
        if first is None:
            first = value
            _check_dtype(op, name, value)
            _check_device(op, name, value, kernel)
        else:
            _check_alike(op, name, value, first)


def _check_dtype(op: str, name: str, value: torch.Tensor) -> None:
    if value.dtype not in SUPPORTED_DTYPES:
        raise DTypeError(
            seen=f"{op}: {name} is {value.dtype}",
            allowed=", ".join(str(dtype) for dtype in SUPPORTED_DTYPES),
            action=f"convert it, for example {name}.to(torch.float16)",
        )


def _check_device(op: str, name: str, value: torch.Tensor, kernel: object) -> None:
    if value.device.type == "cuda" or (value.device.type == "cpu" and interpreting(kernel)):
        return
    raise DeviceError(
        seen=f"{op}: {name} is on {value.device}",
        allowed="a CUDA device (or the CPU with TRITON_INTERPRET=1 set before kernl is imported)",
        action=f"move it, for example {name}.cuda()",
    )


def _check_alike(op: str, name: str, value: torch.Tensor, first: torch.Tensor) -> None:
    if value.dtype != first.dtype:
        raise DTypeError(
            seen=f"{op}: {name} is {value.dtype}, the first tensor is {first.dtype}",
            allowed="one dtype for all tensors of a call",
            action=f"convert it, for example {name}.to({first.dtype})",
        )
    if value.device != first.device:
        raise DeviceError(
            seen=f"{op}: {name} is on {value.device}, the first tensor on {first.device}",
            allowed="one device for all tensors of a call",
            action=f"move it, for example {name}.to({str(first.device)!r})",
        )


def at_least(op: str, name: str, value: torch.Tensor, ndim: int) -> None:
    """The tensor has `ndim` dimensions or more."""
    if value.dim() < ndim:
        raise ShapeError(
            seen=f"{op}: {name} has shape {tuple(value.shape)}",
            allowed=f"{ndim} dimensions or more",
            action=f"reshape {name}",
        )


def shape(op: str, name: str, value: torch.Tensor, expected: tuple[int, ...], why: str) -> None:
    """The tensor has exactly this shape; `why` says where the shape comes from."""
    if tuple(value.shape) != expected:
        raise ShapeError(
            seen=f"{op}: {name} has shape {tuple(value.shape)}",
            allowed=f"{expected}, {why}",
            action=f"reshape {name} or check which tensor was passed",
        )


def matrix(op: str, name: str, value: torch.Tensor, cols: int, why: str) -> None:
    """The tensor is (any, cols); `why` says where `cols` comes from."""
    if value.dim() != 2 or value.shape[1] != cols:
        raise ShapeError(
            seen=f"{op}: {name} has shape {tuple(value.shape)}",
            allowed=f"(n, {cols}), {cols} being {why}",
            action=f"reshape {name} or check which tensor was passed",
        )


def positive(op: str, name: str, size: int) -> None:
    """A size that the operator reduces over, or writes, is 1 or more."""
    if size < 1:
        raise ShapeError(
            seen=f"{op}: {name} has size {size}",
            allowed="sizes of 1 or more",
            action="skip the call, there is nothing to compute",
        )


def option(op: str, name: str, value: object, allowed: tuple[str, ...]) -> None:
    """A word out of a list."""
    if value not in allowed:
        raise OptionError(
            seen=f"{op}: {name}={value!r}",
            allowed=", ".join(repr(word) for word in allowed),
            action=f"choose one of these for {name}",
        )


def index(op: str, name: str, value: object, low: int, high: int) -> None:
    """An integer in [low, high], as a dimension's index is."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentError(
            seen=f"{op}: {name} is a {type(value).__name__}",
            allowed="an int",
            action=f"pass {name} as an int",
        )
    if not low <= value <= high:
        raise OptionError(
            seen=f"{op}: {name}={value}",
            allowed=f"{low} to {high}",
            action=f"choose {name} inside the tensor's dimensions",
        )


def number(op: str, name: str, value: object) -> None:
    """A finite number of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ArgumentError(
            seen=f"{op}: {name} is a {type(value).__name__}",
            allowed="a float",
            action=f"pass {name} as a float",
        )
    if not 0 <= value < float("inf"):
        raise OptionError(
            seen=f"{op}: {name}={value}",
            allowed="a finite number of 0 or more",
            action=f"choose another {name}",
        )
