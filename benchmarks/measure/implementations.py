"""The implementations that every op is measured in: the only place that names them.

`reference` of an op is what a PyTorch user would write: run eagerly it is the baseline, compiled it
is the alternative. `torch.compile` runs in its default mode, so it brings kernels alone: the CUDA
graph around them is the harness's, the same for all. `library` is the best single library call for
the same thing, where the op names one; where its reference is that call already, as cuBLAS is for
a linear layer, `eager` stands for it. Other projects' kernels stand in `alternatives`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.measure.alternatives import ALTERNATIVES, Alternative

Call = Callable[..., Any]


@dataclass(frozen=True)
class Implementation:
    """One way to compute an op.

    `build(op)` returns a callable that takes the op's inputs as keyword arguments.
    `unavailable(op, device, inputs)` returns the reason in words why it cannot run, or None.
    `poisonable` says that its outputs come from `torch.empty` and can be filled with NaN by
    PyTorch's deterministic mode without changing the code that runs.
    `tolerance_factor` multiplies the op's tolerance in the check before timing.
    `chooses`: its first call times what it may run, so that nothing else may use the device.
    """

    name: str
    build: Callable[[Any], Call]
    unavailable: Callable[[Any, str, dict[str, Any]], str | None]
    poisonable: bool
    tolerance_factor: float
    chooses: bool = False


def _always(_op: Any, _device: str, _inputs: dict[str, Any]) -> str | None:
    return None


def _library_unavailable(op: Any, _device: str, _inputs: dict[str, Any]) -> str | None:
    if getattr(op, "library", None) is None:
        return "no single library call computes this operator in this commit"
    return None


def _compile_unavailable(_op: Any, device: str, _inputs: dict[str, Any]) -> str | None:
    if device != "cuda":
        return "torch.compile is measured on CUDA alone; a dry run leaves it out"
    return None


def _kernel_unsupported(op: Any, _device: str, inputs: dict[str, Any]) -> str | None:
    if op.unsupported is None:
        return None
    reason: str | None = op.unsupported(**inputs)
    return reason


def _build_compiled(op: Any) -> Call:
    # One case must not inherit another's guards or its count of recompilations.
    torch._dynamo.reset()
    compiled: Call = torch.compile(op.reference, fullgraph=True, dynamic=False)
    return compiled


EAGER = Implementation("eager", lambda op: op.reference, _always, False, 10.0)
# Not poisonable: in deterministic mode Inductor compiles other code than that which is timed.
COMPILE = Implementation("compile", _build_compiled, _compile_unavailable, False, 10.0)
LIBRARY = Implementation("library", lambda op: op.library, _library_unavailable, False, 10.0)
KERNL = Implementation("kernl", lambda op: op.kernel, _kernel_unsupported, True, 1.0)


def _of(alternative: Alternative) -> Implementation:
    def unavailable(op: Any, device: str, _inputs: dict[str, Any]) -> str | None:
        if device != "cuda":
            return f"{alternative.name} is measured on CUDA alone; a dry run leaves it out"
        return alternative.missing(op)

    # Not poisonable: what its memory is like before it writes is that project's own matter.
    return Implementation(
        alternative.name, alternative.call, unavailable, False, 10.0, alternative.chooses
    )


IMPLEMENTATIONS = {
    one.name: one for one in (EAGER, COMPILE, LIBRARY, *map(_of, ALTERNATIVES), KERNL)
}
