"""The check before timing: an implementation must compute the op before its speed counts.

The truth is the op's reference in float64 on the same inputs. The error of an implementation is the
largest relative L2 distance, ‖out - truth‖ / ‖truth‖, over its outputs.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

_TIES = 1.001
"""What lies near the middle of two numbers may be rounded to the other one."""
_ROUNDINGS = {64: 3, 1024: 2}
"""Of so many numbers at most, how many roundings of each may be seen: one or two numbers decide
what the limit for many is about."""

Inputs = dict[str, Any]
Outputs = tuple[torch.Tensor, ...]


def as_tuple(outputs: Any) -> Outputs:
    """The outputs of an op: one tensor, or a tuple or list of them."""
    return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)


def tensor_bytes(values: Sequence[Any]) -> int:
    """Bytes of all tensors among `values`, each counted whole."""
    return sum(v.numel() * v.element_size() for v in values if isinstance(v, torch.Tensor))


def upcast(inputs: Inputs, device: str | None = None) -> Inputs:
    """Inputs with every floating-point tensor in float64, moved to `device` where one is named."""

    def lift(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        moved = value if device is None else value.to(device)
        return moved.double() if moved.is_floating_point() else moved

    return {name: lift(value) for name, value in inputs.items()}


def truth(
    reference: Callable[..., Any],
    inputs: Inputs,
    mutates: tuple[str, ...] = (),
    *,
    on_cpu: bool = True,
) -> Outputs:
    """The reference in float64: on the inputs' device, or on the CPU where that has no memory.

    The inputs named in `mutates` follow what it returns, as it has written them. Raises
    OutOfMemoryError where it may not go `on_cpu`, which takes all cores, and minutes.
    """
    try:
        return _computed(reference, upcast(copies(inputs, mutates)), mutates)
    except torch.OutOfMemoryError:
        if not on_cpu:
            raise
        torch.cuda.empty_cache()
    return _computed(reference, upcast(copies(inputs, mutates), "cpu"), mutates)


def _computed(reference: Callable[..., Any], inputs: Inputs, mutates: tuple[str, ...]) -> Outputs:
    return as_tuple(reference(**inputs)) + tuple(inputs[name] for name in mutates)


def relative_l2(out: torch.Tensor, ref: torch.Tensor) -> float:
    """‖out - ref‖ / ‖ref‖ in float64; NaN or infinity in `out` gives NaN or infinity.

    Integers, such as indices, are equal (0) or not (1).
    """
    if not out.is_floating_point():
        return 0.0 if torch.equal(out.to(ref.device), ref) else 1.0
    exact = ref.double()
    distance = torch.linalg.vector_norm(out.to(ref.device).double() - exact).item()
    size = torch.linalg.vector_norm(exact).item()
    if size == 0.0:
        return 0.0 if distance == 0.0 else math.inf
    return distance / size


def rounding(ref: torch.Tensor, dtype: torch.dtype) -> float:
    """What rounding `ref` to a dtype may cost at most, relative: half a step of each element.

    Of many numbers that is less than what an operator is allowed; of one, or of numbers that the
    dtype can hardly hold, it may be more. Few numbers may cost it two or three times: an operator
    may round what it computes them from as well, such as a sum before its norm, or both factors of
    a gated product, which the limit for many allows.
    """
    exact, kind = ref.double(), torch.finfo(dtype)
    _, exponent = torch.frexp(exact)
    half_steps = torch.ldexp(torch.full_like(exact, kind.eps / 4), exponent)
    half_steps.clamp_(min=kind.smallest_normal * kind.eps / 2)
    size = torch.linalg.vector_norm(exact).item()
    times = next((often for few, often in _ROUNDINGS.items() if exact.numel() <= few), 1)
    return times * torch.linalg.vector_norm(half_steps).item() / size if size else math.inf


def disagreement(outputs: Outputs, expected: Outputs, limit: float) -> tuple[float | None, str]:
    """(error, reason): the largest relative L2 over the outputs, and what is wrong, in words.

    The reason is empty where every output has the expected shape and an error up to `limit`, or up
    to what rounding to its dtype costs.
    """
    shapes = [tuple(out.shape) for out in outputs]
    expected_shapes = [tuple(ref.shape) for ref in expected]
    if shapes != expected_shapes:
        return None, f"outputs of shapes {shapes}, the reference gives {expected_shapes}"
    errors = [relative_l2(out, ref) for out, ref in zip(outputs, expected, strict=True)]
    broken = [error for error in errors if not math.isfinite(error)]
    if broken:
        holes = sum(int((~torch.isfinite(out)).sum().item()) for out in outputs)
        total = sum(out.numel() for out in outputs)
        return None, (
            f"{holes} of {total} output elements are NaN or infinite: "
            "never written, or computed wrongly"
        )
    error = max(errors)
    if any(
        one > limit and one > _TIES * rounding(ref, out.dtype)
        for one, out, ref in zip(errors, outputs, expected, strict=True)
    ):
        return error, f"relative L2 error {error:.3g} against float64, allowed is {limit:.3g}"
    return error, ""


def changed_inputs(inputs: Inputs, pristine: Inputs) -> str:
    """Names of the input tensors that a call has written to, in words; empty where none."""
    changed = [
        name
        for name, value in inputs.items()
        if isinstance(value, torch.Tensor) and not torch.equal(value, pristine[name])
    ]
    return f"the call changed its inputs: {', '.join(changed)}" if changed else ""


def copies(inputs: Inputs, names: Sequence[str] | None = None) -> Inputs:
    """Inputs with every tensor cloned, or those named alone."""
    return {
        name: value.clone()
        if isinstance(value, torch.Tensor) and (names is None or name in names)
        else value
        for name, value in inputs.items()
    }


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """While this holds, `torch.empty` and its like give NaN, so what a kernel leaves out shows.

    PyTorch fills new memory only in its deterministic mode, which is set to warn, not to raise.
    `CUBLAS_WORKSPACE_CONFIG` is left alone: it would change what cuBLAS runs when it is timed.
    """
    memory: Any = torch.utils.deterministic
    before = torch.get_deterministic_debug_mode()
    filled = memory.fill_uninitialized_memory
    # `torch.use_deterministic_algorithms` would import all of Inductor, which takes a second.
    torch.set_deterministic_debug_mode("warn")
    memory.fill_uninitialized_memory = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        memory.fill_uninitialized_memory = filled
        torch.set_deterministic_debug_mode(before)
