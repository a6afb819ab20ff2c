"""What one commit measured on one machine, column by column: a few bytes a point, not an object.

Text columns hold the place of their word among those of the record, as most words stand in it many
times. A record of thirty thousand points weighs a few megabytes and makes a frame where one is
wanted (`Record.frame`), in the columns of `benchmarks.store.Store.rows`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.asv_file import STATUSES, Samples

TEXT = ("suite", "op", "metric", "case", "variant", "version", "reason", "run", "details")
NUMBERS = ("value", "low", "high", "error", "clock")
KEY = ("suite", "op", "metric", "case", "variant")
"""The columns that name a point."""

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Record:
    """What one commit measured on one machine; no two rows have the same `KEY`.

    Attributes:
        machine: its name.
        commit: the full hash.
        committed_at_ms: when it was made, milliseconds since 1970.
        words: of each text column, the words that stand in it.
        codes: of each text column, the place of each row's word.
        numbers: the columns of `NUMBERS`: `benchmarks.store.Store` describes them, but for clock,
            the GPU's in MHz when the point was measured.
        status: the place of each row's status in `STATUSES`.
        samples: of all rows, one after the other, in seconds.
        ends: where each row's samples begin, and where those of the last end.
    """

    machine: str
    commit: str
    committed_at_ms: int
    words: Mapping[str, Sequence[str]]
    codes: Mapping[str, Ints]
    numbers: Mapping[str, Floats]
    status: NDArray[np.uint8]
    samples: NDArray[np.floating[Any]]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.status)

    def where(self, column: str, word: str) -> NDArray[np.bool_]:
        """Which rows have a word in a text column."""
        try:
            place = self.words[column].index(word)
        except ValueError:
            return np.zeros(len(self), bool)
        found: NDArray[np.bool_] = self.codes[column] == place
        return found

    def samples_of(self, row: int) -> Samples:
        """The samples of one row."""
        return tuple(self.samples[self.ends[row] : self.ends[row + 1]].tolist())

    @cached_property
    def committed_at(self) -> pd.Timestamp:
        """When the commit was made."""
        return pd.Timestamp(self.committed_at_ms, unit="ms", tz="UTC")

    def frame(self, rows: NDArray[np.intp] | None = None, *, samples: bool = True) -> pd.DataFrame:
        """All rows, or some, as a frame of objects; without `samples` those are empty."""
        at = np.arange(len(self)) if rows is None else rows
        taken = [self.samples_of(row) if samples else () for row in at.tolist()]
        text = {
            name: np.array(self.words[name], dtype=object)[self.codes[name][at]] for name in TEXT
        }
        columns = {
            "machine": self.machine,
            "commit": self.commit,
            "committed_at": self.committed_at,
            **{name: text[name] for name in KEY},
            **{name: self.numbers[name][at] for name in ("value", "low", "high")},
            "samples": pd.Series(taken, dtype=object),
            "version": text["version"],
            "status": np.array(STATUSES, dtype=object)[self.status[at]],
            "reason": text["reason"],
            "error": self.numbers["error"][at],
            "run": text["run"],
            "details": text["details"],
        }
        return pd.DataFrame(columns, index=range(len(at)))


class _Places(dict[str, int]):
    """Words with their places; a new one comes last."""

    def __missing__(self, word: str) -> int:
        self[word] = place = len(self)
        return place


class Words:
    """Different words of a column, each with its place."""

    def __init__(self) -> None:
        self._at = _Places()

    def code(self, word: str) -> int:
        """The place of a word; a new one comes last."""
        return self._at[word]

    def codes(self, words: Iterable[str]) -> Ints:
        """The places of several words."""
        several = list(words)
        return np.fromiter(map(self._at.__getitem__, several), np.int32, len(several))

    def listed(self) -> list[str]:
        """All of them by their places."""
        return list(self._at)


def of_frame(rows: pd.DataFrame) -> Iterator[Record]:
    """The records of rows that have the columns of `benchmarks.store.Store.rows`.

    Of rows with the same key the last counts. A status that is none of `STATUSES` is a failure.
    """
    identity = ["machine", "commit", *KEY]
    rows = rows.drop_duplicates(identity, keep="last")
    for (machine, commit), part in rows.groupby(["machine", "commit"], sort=True):
        words = {name: Words() for name in TEXT}
        codes = {name: words[name].codes(_texts(part, name)) for name in TEXT}
        moment = part["committed_at"].min()
        known = {status: place for place, status in enumerate(STATUSES)}
        failed = known["failed"]
        samples, ends = flat(part["samples"])
        yield Record(
            machine=str(machine),
            commit=str(commit),
            committed_at_ms=0 if pd.isna(moment) else int(moment.timestamp() * 1000),
            words={name: words[name].listed() for name in TEXT},
            codes=codes,
            numbers={name: _numbers(part, name) for name in NUMBERS},
            status=np.array([known.get(one, failed) for one in part["status"]], np.uint8),
            samples=samples,
            ends=ends,
        )


def _texts(rows: pd.DataFrame, name: str) -> Iterable[str]:
    """A column; empty words where the rows do not have it."""
    return map(str, rows[name]) if name in rows else [""] * len(rows)


def _numbers(rows: pd.DataFrame, name: str) -> Floats:
    """A column; NaN where the rows do not have it."""
    return rows[name].to_numpy(float) if name in rows else np.full(len(rows), np.nan)


def flat(samples: Iterable[Sequence[float]]) -> tuple[Floats, NDArray[np.int64]]:
    """Samples of rows one after the other, and where those of each begin."""
    rows = list(samples)
    ends = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)), out=ends[1:])
    return np.fromiter(chain.from_iterable(rows), float, int(ends[-1])), ends
