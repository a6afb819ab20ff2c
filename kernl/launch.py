"""Launch, LibraryCall and Plan: what an operator is about to run, as data.

A launcher first makes a `Plan` (output tensors and the launches that fill them) and then runs it.
The same plan, made on meta tensors, is what the compile-only suite hands to the compiler: it
measures exactly the kernels that a user's call would launch.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import triton
from triton.runtime.interpreter import InterpretedFunction

from kernl import interpreter


class _Chain:
    """What was launched last; only a kernel that is `dependent` lets the next one begin early."""

    last_was_dependent = False


_chain: ContextVar[_Chain | None] = ContextVar("chain", default=None)
FIRST_DEPENDENT = 90
"""The first compute capability that has programmatic dependent launch: Hopper's."""


@dataclass(frozen=True)
class Launch:
    """One launch of one `@triton.jit` function.

    Attributes:
        kernel: the jitted function.
        grid: programs along each axis.
        args: run-time arguments by name, tensors and numbers.
        constants: `tl.constexpr` arguments by name.
        num_warps: warps of one program.
        num_stages: depth of the software pipeline.
    """

    kernel: Any
    grid: tuple[int, ...]
    args: Mapping[str, Any]
    constants: Mapping[str, Any]
    num_warps: int
    num_stages: int = 1

    @property
    def unspecialized(self) -> frozenset[str]:
        """Arguments that Triton compiles nothing anew for, whatever integer they are."""
        declared = self.kernel.kwargs if interpreting(self.kernel) else vars(self.kernel)
        return frozenset(declared["do_not_specialize"] or ())

    @property
    def dependent(self) -> bool:
        """Whether the kernel can be launched before the one in front of it is done."""
        return not interpreting(self.kernel) and "PDL" in self.kernel.arg_names

    def run(self) -> None:
        """Launch it on the current device and stream."""
        chain, dependent = _chain.get(), {}
        if chain is not None:
            if self.dependent:
                dependent = {"PDL": True, "launch_pdl": chain.last_was_dependent}
            chain.last_was_dependent = self.dependent
        self.kernel[self.grid](
            **self.args,
            **self.constants,
            **dependent,
            num_warps=self.num_warps,
            num_stages=self.num_stages,
        )


@dataclass(frozen=True)
class LibraryCall:
    """One call of a library's function where that is faster than a kernel of ours.

    Attributes:
        function: writes its result into tensors among its arguments, such as `torch.mm` with `out`.
        args: positional arguments.
        kwargs: arguments by name.
    """

    function: Callable[..., object]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def run(self) -> None:
        """Call it on the current device and stream."""
        self.function(*self.args, **self.kwargs)
        chain = _chain.get()
        if chain is not None:
            chain.last_was_dependent = False


class Plan(NamedTuple):
    """Outputs that nothing has written yet, and the steps that write them, in order."""

    outputs: tuple[torch.Tensor, ...]
    launches: tuple[Launch | LibraryCall, ...]

    @property
    def kernels(self) -> tuple[Launch, ...]:
        """The steps that are Triton kernels: what a compiler can be asked about."""
        return tuple(step for step in self.launches if isinstance(step, Launch))

    def run(self) -> tuple[torch.Tensor, ...]:
        """Run every launch on the outputs' device; an empty output needs none."""
        device = self.outputs[0].device
        if device.type != "cuda":
            with interpreter.LOCK:
                for launch in self.launches:
                    launch.run()
        else:
            with torch.cuda.device(device):
                for launch in self.launches:
                    launch.run()
        return self.outputs


def capability(device: torch.device) -> int:
    """Compute capability of a CUDA device, 90 for 9.0; the interpreter counts as 80."""
    if device.type != "cuda":
        return 80
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@contextmanager
def dependent_launches(device: torch.device) -> Iterator[None]:
    """Inside, kernels begin while the one before them ends, where both can, from Hopper on.

    `kernl.ops.dependent` says what such kernels keep to. Behind a library's kernel, which lets
    nothing begin early, this would cost more than it saves.
    """
    able = device.type == "cuda" and capability(device) >= FIRST_DEPENDENT
    token = _chain.set(_Chain() if able else None)
    try:
        yield
    finally:
        _chain.reset(token)


def interpreting(kernel: Any) -> bool:
    """Whether this kernel runs under Triton's interpreter (TRITON_INTERPRET=1 at its import)."""
    return isinstance(kernel, InterpretedFunction)


def cdiv(numerator: int, denominator: int) -> int:
    """Blocks of size `denominator` that cover `numerator`."""
    return -(-numerator // denominator)


def next_power_of_2(size: int) -> int:
    """The smallest power of two that is not below `size`."""
    return int(triton.next_power_of_2(size))


interpreter.mend()
