"""Two mends for Triton's interpreter, which runs the kernels where there is no GPU.

NumPy has no bfloat16, so the interpreter keeps such tensors as the 16 bits of an unsigned integer.
Seen in Triton 3.6.0 and 3.7.1:

- its `tl.dot` multiplies those integers as if they were numbers. Here they are widened to float32
  first, which is exact: float32 holds every bfloat16 value;
- its casts from float32 cut the low bits off, which doubles the rounding error and can turn a NaN
  into an infinity. GPUs round to the nearest even value, as PyTorch does, so PyTorch does it here.
"""

from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter


def _widened(value: Any) -> Any:
    """A bfloat16 handle as a float32 one; any other as it is."""
    if value.dtype.scalar != tl.bfloat16:
        return value
    bits = value.data.astype(np.uint32) << 16
    return interpreter.TensorHandle(bits.view(np.float32), tl.float32)


def _narrowed(value: Any) -> Any:
    """A float32 handle as a bfloat16 one, rounded to the nearest even value."""
    exact = torch.from_numpy(np.ascontiguousarray(value.data))
    bits = exact.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    return interpreter.TensorHandle(bits.reshape(value.data.shape), tl.bfloat16)


def mend() -> None:
    """Make the interpreter right for bfloat16; a second call changes nothing."""
    builder: Any = interpreter.InterpreterBuilder
    dot, cast = builder.create_dot, builder.cast_impl
    if getattr(dot, "mended", False):
        return

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, _widened(a), _widened(b), *rest)

    def cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
        src = _widened(src)
        if dst_type.scalar != tl.bfloat16:
            return cast(self, src, dst_type)
        if src.dtype.scalar != tl.float32:
            src = cast(self, src, tl.float32)
        return _narrowed(src)

    create_dot.mended = True  # type: ignore[attr-defined]
    builder.create_dot, builder.cast_impl = create_dot, cast_impl
