"""Which configuration a kernel runs in: read from a table in the repository, never searched for.

A `Tunable` says what one operator lets the tuner choose. Its table, `kernl/tuned/NAME.csv`, has a
row for each architecture and class of shapes that was tuned on such a GPU (`make tune`). A call
takes the row of its own class, or of the nearest one, at once. Where none is near, or on an
architecture that no row was made on, nor on one before it in its generation, the operator's own
rule, `default`, decides.

A user who wants a shape of his own tuned asks for it: `kernl.autotune.autotune`.
"""

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch

Value = int | str
Key = Mapping[str, Value]
"""One class: the sizes and options that a configuration is chosen by."""
Config = TypeVar("Config", bound=tuple[Any, ...])

TABLES = Path(__file__).parent / "tuned"

FARTHEST = 4.0
"""A row farther away than this, a factor of 16 over all sizes, says nothing about a shape."""


@dataclass(frozen=True)
class Tunable(Generic[Config]):
    """What one operator lets the tuner choose.

    Attributes:
        name: the table is `kernl/tuned/NAME.csv`.
        exact: parts of the key that a row must share, such as the bits of an element.
        sizes: parts of the key that are compared by their ratio; a row is as far away as the sum
            of |log2(ratio)| over them.
        config: a NamedTuple of int, bool and str fields: the columns that are chosen.
        default: (capability, key) → the configuration where no table speaks.
        candidates: (capability, key) → what the tuner tries.
        fits: (capability, key, config) → whether it can run there: shared memory, registers.
    """

    name: str
    exact: tuple[str, ...]
    sizes: tuple[str, ...]
    config: Callable[..., Config]
    default: Callable[[int, Key], Config]
    candidates: Callable[[int, Key], Iterable[Config]]
    fits: Callable[[int, Key, Config], bool]

    @property
    def key_names(self) -> tuple[str, ...]:
        """The key's parts, in the order of the table's columns."""
        return self.exact + self.sizes

    @property
    def fields(self) -> Mapping[str, type]:
        """The configuration's fields and their types."""
        return dict(self.config.__annotations__)


class Row(NamedTuple):
    """One line of a table."""

    architecture: int
    key: Key
    config: tuple[Any, ...]


_forced: ContextVar[Mapping[str, tuple[Any, ...]] | None] = ContextVar("forced", default=None)
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
    forced = (_forced.get() or {}).get(tunable.name)
    if forced is not None:
        return forced  # type: ignore[return-value]
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

    Rows farther away than `FARTHEST` do not count.
    """
    near = [
        (_distance(tunable, row.key, key), row)
        for row in rows
        if all(row.key[name] == key[name] for name in tunable.exact)
    ]
    for distance, row in sorted(near, key=lambda one: one[0]):
        config = tunable.config(*row.config)
        if distance <= FARTHEST and tunable.fits(capability, key, config):
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


def read(path: Path, tunable: Tunable[Any], skip_broken: bool = False) -> tuple[Row, ...]:
    """The rows of one table. Columns beyond architecture, key and configuration are remarks.

    Raises:
        ValueError: a column is missing or a value is of another type; names the file and line.
            With `skip_broken` such a line costs itself alone.
    """
    rows = []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        for line in reader:
            try:
                rows.append(_row(path, reader.line_num, line, tunable))
            except ValueError:
                if not skip_broken:
                    raise
    return tuple(rows)


def _row(path: Path, number: int, line: Mapping[str, str], tunable: Tunable[Any]) -> Row:
    try:
        key = {name: _number_or_word(line[name]) for name in tunable.key_names}
        config = tuple(_as(kind, line[name]) for name, kind in tunable.fields.items())
        return Row(int(line["architecture"]), key, config)
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        columns = ("architecture", *tunable.key_names, *tunable.fields)
        raise ValueError(
            f"{path}, line {number}: {error!r}; allowed: the columns {', '.join(columns)}; "
            "write the table anew with `make tune`."
        ) from error


def _number_or_word(text: str) -> Value:
    return int(text) if text.lstrip("-").isdigit() else text


def _as(kind: type, text: str) -> Any:
    if kind is bool:
        return {"True": True, "False": False}[text]
    return kind(text)


@cache
def _users_rows(tunable: Tunable[Any]) -> tuple[Row, ...]:
    # Read at the first call on a GPU, not at import.
    from kernl import autotune

    return autotune.kept_rows(tunable)


def forget() -> None:
    """Read tables and what users tuned anew at the next call."""
    _chosen.cache_clear()
    _users_rows.cache_clear()
    table.cache_clear()


@contextmanager
def forcing(tunable: Tunable[Config], config: Config) -> Iterator[None]:
    """Inside, `choose` gives this configuration for this operator, whatever the shape."""
    token = _forced.set({**(_forced.get() or {}), tunable.name: config})
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
