"""Reads the points of a journal column by column: thirty thousand weigh less than their lines.

Lines are decoded in batches, where msgspec is installed. A batch that holds anything but sound
points is decoded again line by line as `benchmarks.measure.journal.read` does, with the same
records and the same problems.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import details
from benchmarks.asv_file import Floats, to_samples
from benchmarks.measure import journal, packed
from benchmarks.measure.journal import Record

try:
    from benchmarks import journal_lines
except ImportError:  # without msgspec
    journal_lines = None  # type: ignore[assignment]

NAMES = journal.REQUIRED["point"]
COLUMNS = (*NAMES, "reason", "version", "error")
"""Columns as they stand in the journal, None for what is missing."""


@dataclass
class Points:
    """What a journal holds; the columns and `clock` have a value for each point.

    Attributes:
        runs: its records of kind run.
        problems: what was left out, in words.
        columns: those of `COLUMNS`.
        clock: the GPU's as the journal says it.
        samples: of all points, one after the other, in seconds.
        counts: how many are of each point: none where one is no positive, finite number.
        details: by the place of a point that has any (`benchmarks.details`).
    """

    runs: list[Record] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    clock: list[Any] = field(default_factory=list)
    samples: Floats = field(default_factory=lambda: np.empty(0))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    details: dict[int, str] = field(default_factory=dict)


def read(path: Path) -> Points:
    """All points of a journal in the order of writing; a missing file has none."""
    try:
        try:
            return _read(path, packed.stream(path), _Found())
        except packed.Doubtful:
            content, damage = packed.contents(path)
    except FileNotFoundError:
        return Points()
    found = _Found()
    if damage:
        found.add_problem(f"{path.name}: {damage}")
    return _read(path, [content], found)


def _read(path: Path, pieces: Iterable[bytes], found: "_Found") -> Points:
    number = 1
    for lines in _batches(pieces):
        if not found.add_sound(lines):
            found.add_each(lines, number, path.name)
        number += len(lines)
    return found.points()


def _batches(pieces: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The lines of some pieces, several at once, with their ends."""
    begun: list[bytes] = []
    for piece in pieces:
        if b"\n" in piece:
            lines = BytesIO(b"".join([*begun, piece])).readlines()
            begun = [] if lines[-1].endswith(b"\n") else [lines.pop()]
            yield lines
        else:
            begun.append(piece)
    yield [b"".join(begun)]


class _Found:
    """Points, which grow batch by batch."""

    def __init__(self) -> None:
        self._points = Points()
        self._columns: tuple[list[Any], ...] = tuple([] for _ in COLUMNS)
        self._same: dict[Any, Any] = {}  # most words stand in a journal many times
        self._samples: list[bytes] = []
        self._counts: list[int] = []

    def add_sound(self, lines: list[bytes]) -> bool:
        """Add lines that all are sound points; returns whether they are, and adds none if not."""
        found = journal_lines.decoded(lines) if journal_lines is not None else None
        if found is None:
            return False
        for column, words in zip(self._columns, found.words, strict=False):
            column.extend(map(self._same.setdefault, words, words))
        *_, versions, errors = self._columns
        versions += found.version
        errors += found.error
        self._points.clock += found.clock
        counts = list(map(len, found.samples))
        if len(set(counts)) == 1:
            self._samples += starmap(_pack(counts[0]), found.samples)
        else:
            self._samples += [_pack(len(some))(*some) for some in found.samples]
        self._counts += counts
        return True

    def add_each(self, lines: list[bytes], first: int, name: str) -> None:
        """Add lines of a file of that name, the first of which has that number."""
        for number, line in enumerate(lines, start=first):
            if not line or line.isspace():
                continue
            record = journal.parsed(line.removesuffix(b"\n"))
            if isinstance(record, str):
                self.add_problem(f"{name} line {number}: {record}; the line is left out")
            elif record["kind"] == "run":
                self._points.runs.append(record)
            else:
                self._add(record)

    def _add(self, record: Record) -> None:
        word = details.word_of(record)
        if word:
            self._points.details[len(self._points.clock)] = word
        for found, column in zip(self._columns, COLUMNS, strict=True):
            found.append(record.get(column))
        telemetry, samples = record.get("telemetry"), to_samples(record.get("samples"))
        clock = telemetry.get("sm_clock_mhz") if isinstance(telemetry, dict) else None
        self._points.clock.append(clock)
        self._samples.append(_pack(len(samples))(*samples))
        self._counts.append(len(samples))

    def add_problem(self, problem: str) -> None:
        """Add what was left out, in words."""
        self._points.problems.append(problem)

    def points(self) -> Points:
        """All of them."""
        found = self._points
        found.columns = dict(zip(COLUMNS, self._columns, strict=True))
        counts = np.array(self._counts, np.int64)
        found.samples, found.counts = _times(np.frombuffer(b"".join(self._samples)), counts)
        return found


@lru_cache(maxsize=1024)
def _pack(count: int) -> Callable[..., bytes]:
    """Packs so many numbers."""
    return struct.Struct(f"{count}d").pack


def _times(samples: Floats, counts: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
    """Without the samples of rows that `to_samples` does not take."""
    some = np.flatnonzero(counts)
    if not len(some):
        return samples, counts
    begins = (np.cumsum(counts) - counts)[some]
    with np.errstate(over="ignore"):
        good = np.minimum.reduceat(samples, begins) > 0
        good &= np.isfinite(np.add.reduceat(samples, begins))
    if good.all():
        return samples, counts
    kept = np.ones(len(counts), bool)
    kept[some[~good]] = False
    return samples[np.repeat(kept, counts)], np.where(kept, counts, 0)
