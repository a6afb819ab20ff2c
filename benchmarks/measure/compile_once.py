"""Call implementations of a case once, so that their code lies in the caches on disk.

Nothing is measured, and no choice is kept: other processes use the device meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.measure.choosing import first_choices
from benchmarks.measure.implementations import IMPLEMENTATIONS


def compile_once(
    op: Any,
    case: Any,
    names: Sequence[str],
    device: str,
    stage: Callable[[str, str], None] = lambda _what, _name: None,
) -> None:
    """What fails here fails again where the case is measured, which says why.

    `stage` is told of each implementation before it is called.
    """
    # What would keep a choice that it made beside other processes waits until it is alone.
    with first_choices():
        for name in names:
            if IMPLEMENTATIONS[name].chooses:
                continue
            stage("compile", name)
            with contextlib.suppress(Exception):
                inputs = op.inputs(case, device, 0)
                if not IMPLEMENTATIONS[name].unavailable(op, device, inputs):
                    IMPLEMENTATIONS[name].build(op)(**inputs)
