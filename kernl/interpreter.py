"""Mends for Triton's interpreter, which runs the kernels where there is no GPU.

It patches the language anew in each call of a device function, which takes a fifth of the time of
such kernels. Here a launch patches each module of the language once.

NumPy has neither bfloat16 nor 8-bit floats, so the interpreter keeps such tensors as the bits of an
unsigned integer. Seen in Triton 3.6.0 and 3.7.1:

- its `tl.dot` multiplies those integers as if they were numbers. Here they are widened to float32
  first, which is exact: float32 holds each of their values;
- its casts to bfloat16 cut the low bits off, which doubles the rounding error and can turn a NaN
  into an infinity, and its casts to 8 bits lose the carry where rounding reaches the next power of
  two. GPUs round to the nearest even value, as PyTorch does, so PyTorch does it here.
"""

import threading
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

LOCK = threading.RLock()
"""Held for every interpreted launch: the interpreter keeps a program's place in a global."""

# As Triton names them, as PyTorch does, and the integers that have as many bits.
_NARROW: dict[Any, tuple[torch.dtype, torch.dtype]] = {
    tl.bfloat16: (torch.bfloat16, torch.int16),
    tl.float8e4nv: (torch.float8_e4m3fn, torch.int8),
}


def _widened(value: Any) -> Any:
    """A handle of bfloat16 or 8-bit floats as a float32 one; any other as it is."""
    if value.dtype.scalar not in _NARROW:
        return value
    kind, bits = _NARROW[value.dtype.scalar]
    signed = np.ascontiguousarray(value.data).view(f"i{bits.itemsize}")
    # A view of its own shape: NumPy makes one dimension of a scalar.
    exact = torch.from_numpy(signed).view(kind).float().numpy().reshape(value.data.shape)
    return interpreter.TensorHandle(exact, tl.float32)


def _narrowed(value: Any, dtype: Any) -> Any:
    """A float32 handle as one of bfloat16 or 8-bit floats, rounded to the nearest even value."""
    kind, bits = _NARROW[dtype]
    exact = torch.from_numpy(np.ascontiguousarray(value.data))
    rounded = exact.to(kind).view(bits).numpy().view(f"u{bits.itemsize}")
    return interpreter.TensorHandle(rounded.reshape(value.data.shape), dtype)


class _PatchOnce:
    """In the place of the interpreter's `_patch_lang`: a launch patches each module once.

    The interpreter restores what the kernel itself had patched when the launch ends; then all of
    it counts as unpatched.
    """

    def __init__(self, patch: Any) -> None:
        self._patch = patch
        self._patched: set[int] = set()

    def __call__(self, fn: Any) -> Any:
        seen = {id(value) for value in fn.__globals__.values() if value is tl or value is tl.core}
        if seen and seen <= self._patched:
            return interpreter._LangPatchScope()
        scope = self._patch(fn)
        first = not self._patched
        self._patched |= seen
        if first:
            restore = scope.restore

            def end() -> None:
                self._patched.clear()
                restore()

            scope.restore = end
        return scope


def mend() -> None:
    """Make the interpreter right for narrow floats, and faster; a second call changes nothing."""
    builder: Any = interpreter.InterpreterBuilder
    dot, cast, convert = builder.create_dot, builder.cast_impl, builder.create_fp_to_fp
    if getattr(dot, "mended", False):
        return

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, _widened(a), _widened(b), *rest)

    def cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
        src = _widened(src)
        if dst_type.scalar not in _NARROW:
            return cast(self, src, dst_type)
        if src.dtype.scalar != tl.float32:
            src = cast(self, src, tl.float32)
        return _narrowed(src, dst_type.scalar)

    def create_fp_to_fp(self: Any, src: Any, dst_type: Any, rounding_mode: Any) -> Any:
        if src.dtype.scalar in _NARROW or dst_type.scalar in _NARROW:
            return cast_impl(self, src, dst_type)
        return convert(self, src, dst_type, rounding_mode)

    # Private to Triton, and for speed alone: a version without it is as right.
    if hasattr(interpreter, "_patch_lang") and hasattr(interpreter, "_LangPatchScope"):
        interpreter._patch_lang = _PatchOnce(interpreter._patch_lang)
    create_dot.mended = True  # type: ignore[attr-defined]
    builder.create_dot, builder.cast_impl = create_dot, cast_impl
    builder.create_fp_to_fp = create_fp_to_fp
