"""Which configuration a kernel runs in: read from a table in the repository, never searched for.

A `Tunable` says what one operator lets the tuner choose. Its table, `kernl/tuned/NAME.csv`, has a
row for each architecture and class of shapes that was tuned on such a GPU (`make tune`). A call
takes the row of its own class, or of the nearest one, at once. Where none is near, or on an
architecture that no row was made on, nor on one before it in its generation, the operator's own
rule, `default`, decides.

A user who wants a shape of his own tuned asks for it: `kernl.autotune.autotune`.
"""

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch

from kernl.tables import Config, Key, Row, Tunable, Value, read
from kernl.tuned_cache import kept_rows

TABLES = Path(__file__).parent / "tuned"

FARTHEST = 4.0
"""A row farther away than this, a factor of 16 over all sizes, says nothing about a shape."""

_forced: ContextVar[Mapping[Hashable, tuple[Any, ...]] | None] = ContextVar("forced", default=None)
_asked: ContextVar[list[tuple[Tunable[Any], dict[str, Value]]] | None] = ContextVar(
    "asked", default=None
)


def choose(tunable: Tunable[Config], capability: int, device: torch.device, **key: Value) -> Config:
    """The configuration for one call.

    Args:
        tunable: the operator's.
        capability: the GPU's, 90 for 9.0.
        device: where the tensors are; what a user tuned counts on a GPU alone.
        key: the class of this call: every name of `tunable.key_names`.
    """
    asked = _asked.get()
    if asked is not None:
        asked.append((tunable, key))
    forced = _forced.get()
    if forced is not None:
        config = forced.get((tunable.name, *key.items())) or forced.get(tunable.name)
        if config is not None:
            return tunable.config(*config)
    return _chosen(tunable, capability, device.type == "cuda", tuple(key.items()))


@lru_cache(maxsize=1 << 16)
def _chosen(
    tunable: Tunable[Config], capability: int, on_gpu: bool, items: tuple[tuple[str, Value], ...]
) -> Config:
    key = dict(items)
    if on_gpu:
        for row in _users_rows(tunable):
            if row.architecture == capability and row.key == key:
                return tunable.config(*row.config)
    rows = applicable(table(tunable), capability)
    config = nearest(tunable, capability, key, rows)
    return tunable.default(capability, key) if config is None else config


def applicable(rows: Iterable[Row], capability: int) -> list[Row]:
    """The rows of this architecture, or of the newest one before it in the same generation."""
    kept = list(rows)
    generation = [
        row.architecture
        for row in kept
        if row.architecture <= capability and row.architecture // 10 == capability // 10
    ]
    newest = max(generation, default=None)
    return [row for row in kept if row.architecture == newest]


def nearest(
    tunable: Tunable[Config], capability: int, key: Key, rows: Iterable[Row]
) -> Config | None:
    """The configuration of the nearest row that can run, the first of several; None without one.

    Rows farther away than `FARTHEST` do not count, nor those that do not extend to this key.
    """
    near = [
        (_distance(tunable, row.key, key), row)
        for row in rows
        if all(row.key[name] == key[name] for name in tunable.exact)
    ]
    for distance, row in sorted(near, key=lambda one: one[0]):
        config = tunable.config(*row.config)
        if distance > FARTHEST or not tunable.fits(capability, key, config):
            continue
        if distance == 0 or tunable.extends(capability, key, config):
            return config
    return None


def _distance(tunable: Tunable[Any], one: Key, other: Key) -> float:
    return sum(
        abs(math.log2(max(int(one[name]), 1) / max(int(other[name]), 1))) for name in tunable.sizes
    )


@cache
def table(tunable: Tunable[Any]) -> tuple[Row, ...]:
    """The rows of the operator's table in the repository; none where it has no table."""
    path = TABLES / f"{tunable.name}.csv"
    return read(path, tunable) if path.exists() else ()


@cache
def _users_rows(tunable: Tunable[Any]) -> tuple[Row, ...]:
    # Read at the first call on a GPU, not at import.
    return kept_rows(tunable)


def forget() -> None:
    """Read tables and what users tuned anew at the next call."""
    _chosen.cache_clear()
    _users_rows.cache_clear()
    table.cache_clear()


@contextmanager
def forcing(tunable: Tunable[Config], config: Config, key: Key | None = None) -> Iterator[None]:
    """Inside, `choose` gives this configuration for this operator, for one class or for all."""
    place = tunable.name if key is None else (tunable.name, *key.items())
    token = _forced.set({**(_forced.get() or {}), place: config})
    try:
        yield
    finally:
        _forced.reset(token)


@contextmanager
def asked() -> Iterator[list[tuple[Tunable[Any], dict[str, Value]]]]:
    """Inside, the list given fills with what `choose` is asked for."""
    questions: list[tuple[Tunable[Any], dict[str, Value]]] = []
    token = _asked.set(questions)
    try:
        yield questions
    finally:
        _asked.reset(token)
