"""Call every implementation of a case once, so that its code lies in the caches on disk.

Nothing is measured, and no choice is kept: other processes use the device meanwhile. Where Inductor
would time a kernel's configurations it takes the first one, and forgets afterwards which it took.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.measure.implementations import IMPLEMENTATIONS


def compile_once(
    op: Any, case: Any, device: str, stage: Callable[[str, str], None] = lambda _what, _name: None
) -> None:
    """What fails here fails again where the case is measured, which says why.

    `stage` is told of each implementation before it is called.
    """
    # What would keep a choice that it made beside other processes waits until it is alone.
    names = [name for name, one in IMPLEMENTATIONS.items() if not one.chooses]
    with _first_choices():
        for name in names:
            stage("compile", name)
            with contextlib.suppress(Exception):
                inputs = op.inputs(case, device, 0)
                if not IMPLEMENTATIONS[name].unavailable(op, device, inputs):
                    IMPLEMENTATIONS[name].build(op)(**inputs)


@contextlib.contextmanager
def _first_choices() -> Iterator[None]:
    """Inductor's kernels take their first configuration; all that it compiled is forgotten."""
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
