"""Checks of arguments that every operator makes, each raising one of `kernl.errors`."""

import torch

from kernl.errors import ArgumentError, DeviceError, DTypeError, OptionError, ShapeError
from kernl.launch import interpreting

SUPPORTED_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
INDEX_DTYPES = (torch.int32, torch.int64)


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


def indices(op: str, name: str, value: object, like: torch.Tensor) -> None:
    """A tensor of int32 or int64 on the device of `like`: ids, lengths, offsets."""
    typed(op, name, value, like, INDEX_DTYPES)


def typed(
    op: str, name: str, value: object, like: torch.Tensor, allowed: tuple[torch.dtype, ...]
) -> None:
    """A dense tensor of one of these dtypes on the device of `like`."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        seen = value.layout if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
        raise ArgumentError(
            seen=f"{op}: {name} is {seen}",
            allowed="a dense torch.Tensor",
            action=f"pass {name} as a tensor",
        )
    if value.dtype not in allowed:
        raise DTypeError(
            seen=f"{op}: {name} is {value.dtype}",
            allowed=", ".join(str(dtype) for dtype in allowed),
            action=f"convert it, for example {name}.to({allowed[0]})",
        )
    if value.device != like.device:
        raise DeviceError(
            seen=f"{op}: {name} is on {value.device}, the first tensor on {like.device}",
            allowed="one device for all tensors of a call",
            action=f"move it, for example {name}.to({str(like.device)!r})",
        )


def broadcastable(
    op: str, name: str, value: torch.Tensor, target: tuple[int, ...], why: str
) -> None:
    """The tensor broadcasts to this shape, as PyTorch does; `why` says where the shape is from."""
    padded = (1,) * (len(target) - value.dim()) + tuple(value.shape)
    if value.dim() > len(target) or any(
        size not in (1, goal) for size, goal in zip(padded, target, strict=True)
    ):
        raise ShapeError(
            seen=f"{op}: {name} has shape {tuple(value.shape)}",
            allowed=f"what broadcasts to {target}, {why}",
            action=f"reshape {name} or check which tensor was passed",
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


def number(op: str, name: str, value: object, low: float = 0.0) -> None:
    """A finite number of `low` or more: 0 unless told."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ArgumentError(
            seen=f"{op}: {name} is a {type(value).__name__}",
            allowed="a float",
            action=f"pass {name} as a float",
        )
    if not low <= value < float("inf"):
        raise OptionError(
            seen=f"{op}: {name}={value}",
            allowed=f"a finite number of {low:g} or more",
            action=f"choose another {name}",
        )


def even(op: str, name: str, size: int) -> None:
    """A size that two halves share."""
    if size % 2:
        raise ShapeError(
            seen=f"{op}: {name} has size {size}",
            allowed="even sizes",
            action="pass both halves side by side, or apart as two tensors",
        )


def at_most(op: str, name: str, value: torch.Tensor, ndim: int) -> None:
    """The tensor has `ndim` dimensions or fewer."""
    if value.dim() > ndim:
        raise ShapeError(
            seen=f"{op}: {name} has shape {tuple(value.shape)}",
            allowed=f"{ndim} dimensions or fewer",
            action="flatten the leading dimensions",
        )


def ndim(op: str, name: str, value: torch.Tensor, count: int, means: str) -> None:
    """The tensor has exactly `count` dimensions; `means` names them."""
    if value.dim() != count:
        raise ShapeError(
            seen=f"{op}: {name} has shape {tuple(value.shape)}",
            allowed=f"{count} dimensions, {means}",
            action=f"reshape {name}",
        )


def fraction(op: str, name: str, value: object) -> None:
    """A number from 0 to 1: a probability, a share."""
    number(op, name, value)
    if isinstance(value, int | float) and value > 1:
        raise OptionError(
            seen=f"{op}: {name}={value}",
            allowed="a number from 0 to 1",
            action=f"choose another {name}",
        )


def count(op: str, name: str, value: object) -> None:
    """An int of 0 or more: how many."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentError(
            seen=f"{op}: {name} is a {type(value).__name__}",
            allowed="an int",
            action=f"pass {name} as an int",
        )
    if value < 0:
        raise OptionError(
            seen=f"{op}: {name}={value}",
            allowed="an int of 0 or more",
            action=f"choose another {name}",
        )
