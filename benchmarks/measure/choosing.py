"""Whoever chooses by timing does so while nobody else uses the device, and keeps no choice.

Inductor times configurations of a kernel when it is first called, kernl times ways to capture a
model's graph when the model is first called. Beside other workers of the same device either would
choose by chance.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

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
    from torch._inductor.runtime.triton_heuristics import CachingAutotuner

    autotuner: Any = CachingAutotuner
    timed = autotuner.benchmark_all_configs

    @functools.wraps(timed)
    def timed_alone(self: Any, *args: Any, **kwargs: Any) -> Any:
        with alone("what torch.compile times"):
            return timed(self, *args, **kwargs)

    autotuner.benchmark_all_configs = timed_alone


@contextlib.contextmanager
def first_choices() -> Iterator[None]:
    """Inside, Inductor's kernels take their first configuration; all that it compiled is forgotten.

    For who only compiles: which configuration is the fastest is found out by who measures.
    """
    import torch
    from torch._inductor.runtime.triton_heuristics import CachingAutotuner
    from torch._inductor.utils import clear_caches

    autotuner: Any = CachingAutotuner
    timed = autotuner.benchmark_all_configs
    autotuner.benchmark_all_configs = _in_order
    try:
        yield
    finally:
        autotuner.benchmark_all_configs = timed
        torch._dynamo.reset()
        clear_caches()


def _in_order(self: Any, *_args: Any, **_kwargs: Any) -> dict[Any, float]:
    """As if each configuration had taken longer than the one before it."""
    return {launcher: float(place) for place, launcher in enumerate(self.launchers)}


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
