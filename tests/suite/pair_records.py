"""Records of two commits beside each other, made by hand for the tests of the gate."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.known_noise import KnownNoise, Session

BASE, HEAD = "a" * 40, "b" * 40
MACHINE = "nvidia-h100-80gb-hbm3"
FINGERPRINT = {"gpu": "NVIDIA H100", "driver": "570.1", "torch": "2.11.0", "triton": "3.6.0"}
Made = dict[str, Any]


def run(**fingerprint: str) -> Made:
    """The record that a run begins with."""
    return {
        "kind": "run",
        "base": BASE,
        "head": HEAD,
        "fingerprint": {**FINGERPRINT, **fingerprint},
    }


def pair(
    session: int,
    change: float = 0.0,
    *,
    op: str = "softmax",
    case: str = "one.fp16",
    drift: float = 0.0,
    throttle: Sequence[str] = (),
    **rest: Any,
) -> Made:
    """A session of a case: head is slower by `change`, and both kernl and eager by `drift`."""
    blocks = []
    for side in ("base", "head", "head", "base"):
        slower = math.log1p(drift) if side == "head" else 0.0
        kernl = 1e-5 * math.exp(slower + (math.log1p(change) if side == "head" else 0.0))
        taken = {"kernl": [kernl] * 3, "eager": [5e-5 * math.exp(slower)] * 3}
        blocks.append({"side": side, "taken": taken})
    return {
        "kind": "pair",
        "session": session,
        "control": False,
        "stage": "first",
        "op": op,
        "case": case,
        "status": "ok",
        "sides": {"base": "ok", "head": "ok"},
        "reason": "",
        "telemetry": {side: {"throttle": list(throttle)} for side in ("base", "head")},
        "blocks": blocks,
        **rest,
    }


def failed(session: int, base: str, head: str, reason: str = "head: wrong", **rest: Any) -> Made:
    """A session in which a side could not be timed."""
    sides = {"base": base, "head": head}
    skipped = base == head == "skipped"
    status = "skipped" if skipped else "failed"
    made = pair(session, status=status, sides=sides, reason=reason, blocks=[], telemetry={})
    return {**made, **rest}


def calm(spread: float = 0.002, *, op: str = "softmax", names: Sequence[str] = ()) -> KnownNoise:
    """Noise that is known: twenty sessions of each case, of such a standard deviation."""
    chance = np.random.default_rng(1)
    cases = names or ("one.fp16", "two.fp16", "three.fp16", "four.fp16")
    return KnownNoise(
        {
            (op, case): [Session(float(one), 0.0) for one in chance.normal(0, spread, 20)]
            for case in cases
        }
    )
