"""What is known of each case's noise: sessions of one commit beside itself, recorded before.

They lie in `benchmarks/recorded_noise`, a file for each kind of GPU, as `python -m benchmarks.noise
--keep` writes them. A case that was not recorded is taken to be as noisy as nine of ten of its
operator's cases are, or of all where its operator has few.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.noise import (
    CONTROL,
    GATED,
    Record,
    read,
    same_on_both_sides,
    session_ratio,
    was_timed,
)
from benchmarks.sessions import Spread

RECORDED = Path(__file__).parent / "recorded_noise"
MOST_DEGREES = 30.0
"""However often a case was recorded: a machine changes."""
GUESSED_DEGREES = 8.0
"""What a guess from other cases counts as."""
_ENOUGH = 3
_NINE_OF_TEN = 0.9


class KnownNoise:
    """Sessions of one commit beside itself, by operator and case.

    Attributes:
        note: what a reader has to know of where they come from; empty where nothing.
    """

    def __init__(
        self, sessions: Mapping[tuple[str, str], Sequence[Session]], note: str = ""
    ) -> None:
        self.note = note
        self._own = {key: _spread(of_case) for key, of_case in sessions.items() if of_case}
        by_op: dict[str, list[Spread]] = defaultdict(list)
        for (op, _), spread in self._own.items():
            by_op[op].append(spread)
        self._by_op = {op: _guess(some) for op, some in by_op.items() if len(some) >= _ENOUGH}
        self._all = _guess(list(self._own.values()))

    def of(self, op: str, case: str) -> Spread:
        """What is known of a case."""
        return self._own.get((op, case)) or self._by_op.get(op) or self._all


@dataclass(frozen=True)
class Session:
    """`session_ratio` of kernl, and of eager as `drift`, which is NaN where eager did not run."""

    ratio: float
    drift: float


def load(machine: str, directory: Path = RECORDED) -> KnownNoise:
    """What is recorded of a kind of GPU, such as `nvidia-h100-80gb-hbm3`, else of all others.

    Raises:
        benchmarks.noise.NoiseError: a file cannot be read.
        ValueError: or has no such records in it.
    """
    paths = sorted(directory.glob("*.jsonl.gz"))
    own = [path for path in paths if path.name == f"{machine}.jsonl.gz"]
    note = ""
    if not own:
        names = ", ".join(path.name.removesuffix(".jsonl.gz") for path in paths) or "none"
        note = f"no noise is recorded of {machine}: that of others is used ({names})"
    return KnownNoise(sessions_of(record for path in own or paths for record in read(path)), note)


def sessions_of(records: Iterable[Record]) -> dict[tuple[str, str], list[Session]]:
    """By operator and case. Raises ValueError as `benchmarks.noise.block_logs` does."""
    found: dict[tuple[str, str], list[Session]] = {}
    for same in same_on_both_sides(records).values():
        key = (str(same[0]["op"]), str(same[0]["case"]))
        found[key] = [session(record) for record in same]
    return found


def session(record: Record) -> Session:
    """Log-ratios of one record. Raises ValueError as `benchmarks.noise.block_logs` does."""
    drift = session_ratio(record, CONTROL) if was_timed(record, CONTROL) else float("nan")
    return Session(session_ratio(record, GATED), drift)


def _spread(sessions: Sequence[Session]) -> Spread:
    """Around zero: nothing changed."""
    ratio = np.array([one.ratio for one in sessions])
    drift = np.array([one.drift for one in sessions])
    without = _variance(ratio - drift) if bool(np.isfinite(drift).all()) else float("inf")
    return Spread(_variance(ratio), without, min(float(len(sessions)), MOST_DEGREES))


def _variance(values: NDArray[np.float64]) -> float:
    return float(np.mean(values**2))


def _guess(some: Sequence[Spread]) -> Spread:
    """Of a case of which nothing is known, from others; of nothing at all, one per cent."""
    if not some:
        return Spread(0.01**2, float("inf"), GUESSED_DEGREES)
    raw = float(np.quantile([one.raw for one in some], _NINE_OF_TEN))
    drift_out = [one.drift_out for one in some if np.isfinite(one.drift_out)]
    without = float(np.quantile(drift_out, _NINE_OF_TEN)) if drift_out else float("inf")
    return Spread(raw, without, GUESSED_DEGREES)
