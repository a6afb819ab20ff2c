"""Tune one operator for one's own shapes: asked for by name, kept on disk, never done in passing.

    from kernl.autotune import autotune
    from kernl.ops.linear import LINEAR

    autotune(LINEAR, x=x, weight=weight)    # once; later calls and processes use it

Every candidate is run on the tensors given, checked against the operator's reference in float64
and timed. The best is kept on disk (`kernl.tuned_cache`), where an upgrade cannot make it stale.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import triton

from kernl import launch, tuning
from kernl.errors import DeviceError, KernlError, OptionError
from kernl.op import Op, Outputs
from kernl.tables import Row, Tunable, Value
from kernl.tuned_cache import keep


class Tuned(NamedTuple):
    """What `autotune` found.

    Attributes:
        config: the fastest configuration by name.
        seconds: its time for one call.
        default_seconds: the time of the configuration that a call took before.
        tried: how many candidates gave the right result.
    """

    config: dict[str, Any]
    seconds: float
    default_seconds: float
    tried: int


def autotune(op: Op, **inputs: Any) -> list[Tuned]:
    """Time every candidate of `op` on these inputs and keep the fastest for this GPU.

    Args:
        op: an operator of `kernl.ops.ALL`.
        inputs: its arguments by keyword, on a CUDA device. They are not written to, except those
            that the operator itself writes (`op.mutates`).

    Returns:
        One result for each thing the operator lets be tuned; empty where it lets nothing.

    Raises:
        DeviceError: the tensors are not on a CUDA device.
        KernlError: whatever the operator raises for such arguments.
    """
    op.check(**inputs)
    device = next(value.device for value in inputs.values() if isinstance(value, torch.Tensor))
    if device.type != "cuda":
        raise DeviceError(
            seen=f"autotune: tensors on {device}",
            allowed="a CUDA device: there is nothing to time elsewhere",
            action="move the tensors, for example x.cuda()",
        )
    with torch.no_grad(), torch.cuda.device(device):
        capability = launch.capability(device)
        with tuning.asked() as questions:
            op.plan(capability, **inputs)
        unique = {(tunable.name, tuple(key.items())): (tunable, key) for tunable, key in questions}
        results = [_tune(op, inputs, tunable, key, capability) for tunable, key in unique.values()]
    tuning.forget()
    return results


def _tune(
    op: Op,
    inputs: Mapping[str, Any],
    tunable: Tunable[Any],
    key: dict[str, Value],
    capability: int,
) -> Tuned:
    def call() -> Outputs:
        return op.kernel(**inputs)

    before = _seconds(call)
    expected = _tuple(op.reference(**_upcast(inputs)))
    timed: list[tuple[float, tuple[Any, ...]]] = []
    for config in tunable.candidates(capability, key):
        with tuning.forcing(tunable, config):
            if tunable.fits(capability, key, config) and _right(op, call, expected):
                timed.append((_seconds(call), config))
    if not timed:
        raise OptionError(
            seen=f"autotune: no candidate of {tunable.name} runs for {key}",
            allowed="shapes that one of its candidates fits",
            action="leave this shape to the default configuration",
        )
    seconds, config = min(timed, key=lambda one: one[0])
    if seconds < before:
        keep(tunable, Row(capability, key, config))
    named = dict(zip(tunable.fields, config, strict=True))
    return Tuned(named, min(seconds, before), before, len(timed))


def _right(op: Op, call: Callable[[], Outputs], expected: tuple[torch.Tensor, ...]) -> bool:
    """Whether the result is within twice the operator's tolerance of the float64 reference."""
    try:
        outputs = _tuple(call())
    except (KernlError, RuntimeError, triton.CompilationError):
        return False
    for out, truth in zip(outputs, expected, strict=True):
        if not out.is_floating_point():
            continue
        names = {torch.float16: "fp16", torch.bfloat16: "bf16"}
        limit = 2 * op.tolerance[names.get(out.dtype, "fp32")]
        distance = (out.double() - truth).norm() / truth.norm().clamp_min(1e-300)
        if not float(distance) <= limit:
            return False
    return True


def _tuple(outputs: Outputs) -> tuple[torch.Tensor, ...]:
    return (outputs,) if isinstance(outputs, torch.Tensor) else outputs


def _upcast(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: (value.double() if value.is_floating_point() else value.clone())
        if isinstance(value, torch.Tensor)
        else value
        for name, value in inputs.items()
    }


def _seconds(call: Callable[[], object]) -> float:
    """Median device time of one call, in seconds, by Triton's own benchmark with a cold L2."""
    return float(triton.testing.do_bench(call, warmup=5, rep=30, return_mode="median")) / 1e3
