"""Whoever chooses by timing does so while nobody else uses the device, and keeps no choice.

Inductor times configurations of a kernel when it is first called, kernl times ways to capture a
model's graph when the model is first called. Beside other workers of the same device either would
choose by chance. Whoever compiles says so: others may time meanwhile.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Any

Context = Callable[[], AbstractContextManager[object]]
Alone = Callable[[str], AbstractContextManager[object]]
"""While what it gives holds, no other worker uses the device; it is told what for."""

TIMED_BY_KERNL = (
    ("kernl.runtime.runner", "device_times"),
    ("kernl.optimize.captured", "device_times"),
    ("kernl.optimize.engine", "slower"),
)
"""Modules of kernl, and by which name each calls what times anything while a model is prepared."""


def choose_anew() -> None:
    """Let Inductor time its candidates in this process, and neither read nor keep the fastest.

    A process that times them beside others finds the fastest by chance. Kept on disk, that would be
    what is measured.
    """
    import torch._inductor.config

    torch._inductor.config.autotune_local_cache = False


def choose_alone(alone: Alone) -> None:
    """Let Inductor time its candidates while no other worker uses the device."""
    from torch._inductor.runtime import benchmarking
    from torch._inductor.runtime.triton_heuristics import CachingAutotuner

    timing: list[tuple[Any, str]] = [(CachingAutotuner, "benchmark_all_configs")]
    timing += [
        (each, "benchmark_gpu")
        for each in vars(benchmarking).values()
        if isinstance(each, type) and "benchmark_gpu" in vars(each)
    ]
    for owner, name in timing:
        setattr(owner, name, _inside(partial(alone, "what torch.compile times"), owner, name))


def aside_while_compiling(aside: Context) -> None:
    """Let PyTorch and Triton say, by `aside`, when they compile: nothing uses the device then.

    What Inductor times in between is alone (`choose_alone`).
    """
    from torch._dynamo.callback import CallbackTrigger, CompilationCallbackHandler

    handler: Any = CompilationCallbackHandler
    installed = handler.install_callbacks

    @contextlib.contextmanager
    def install_callbacks(self: Any, trigger: Any, compile_id: str) -> Iterator[None]:
        # Autotuning and the recording of graphs, which are told of too, use the device.
        compiles = trigger is CallbackTrigger.DYNAMO
        with installed(self, trigger, compile_id), aside() if compiles else nullcontext():
            yield

    handler.install_callbacks = install_callbacks
    aside_while_triton_compiles(aside)


def aside_while_triton_compiles(aside: Context) -> None:
    """Let Triton alone say so: without `torch.compile`, whose modules take a second to import."""
    import triton
    import triton.compiler

    # Inductor and Triton each call it by a name of their own.
    callers: tuple[Any, ...] = (triton, triton.compiler)
    for module in callers:
        module.compile = _inside(aside, module, "compile")


def _inside(context: Context, owner: Any, name: str) -> Any:
    """What is called so, inside of the context."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with context():
            return function(*args, **kwargs)

    return called


@contextlib.contextmanager
def alone_once_kernl_times(alone: Alone) -> Iterator[None]:
    """Inside, the device is this worker's from the first time on that kernl times anything.

    Until then, while it traces, rewrites, compiles and captures, others may use the device. A
    commit whose kernl times elsewhere has the device from the start.
    """
    with ExitStack() as stack:
        held = False

        def ask() -> None:
            nonlocal held
            if not held:
                held = True
                stack.enter_context(alone("what kernl times"))

        try:
            owners = [(importlib.import_module(module), name) for module, name in TIMED_BY_KERNL]
            found = [(owner, name, getattr(owner, name)) for owner, name in owners]
        except (ImportError, AttributeError):
            found = []
            ask()
        for owner, name, timed in found:
            stack.callback(setattr, owner, name, timed)
            setattr(owner, name, _after(ask, timed))
        yield


def _after(ask: Callable[[], None], timed: Any) -> Any:
    @functools.wraps(timed)
    def asking(*args: Any, **kwargs: Any) -> Any:
        ask()
        return timed(*args, **kwargs)

    return asking
