"""What all commits measured of a suite on one machine, as arrays: a row a commit, a column a point.

Fifteen million points weigh some five hundred megabytes, and what spans commits (trends, moves,
what changed) is made of whole columns of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.asv_file import OK, SKIPPED
from benchmarks.cases import was_left_out
from benchmarks.gate.findings import GATED, SAME
from benchmarks.record import Words
from dashboards.data.measured import Measured
from dashboards.data.points import Points

ABSENT = 3
"""The status of a point that a commit says nothing of."""
UNASKED = 4
"""Of one that no run of it asked for."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Cube:
    """What all commits measured of a suite on one machine.

    All arrays have the axes commit, case, implementation, metric.

    Attributes:
        machine: its name.
        points: the names of cases, implementations and metrics.
        commits: hashes of all that say something of the suite, oldest first.
        value: NaN where there is none.
        low, high: the ends of its 99 % interval.
        status: a place in `benchmarks.asv_file.STATUSES`, `ABSENT`, or `UNASKED`.
        version, run: the places of their words.
        versions, runs: those words.
    """

    machine: str
    points: Points
    commits: tuple[str, ...]
    value: Floats
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    status: NDArray[np.uint8]
    version: NDArray[np.uint16]
    run: NDArray[np.int32]
    versions: Sequence[str]
    runs: Sequence[str]

    def part(self, op: str) -> Cube:
        """That of one operator or model; its cases are views of these."""
        cases = self.points.slices.get(op, slice(0, 0))
        points = Points(
            self.points.suite,
            (op,),
            self.points.cases[cases],
            self.points.variants,
            self.points.metrics,
        )
        arrays = {name: getattr(self, name)[:, cases] for name in _ARRAYS}
        return Cube(
            self.machine, points, self.commits, **arrays, versions=self.versions, runs=self.runs
        )

    @cached_property
    def ok(self) -> Bools:
        """Where there is a value."""
        return np.asarray((self.status == OK) & ~np.isnan(self.value))

    @cached_property
    def measured(self) -> tuple[str, ...]:
        """The commits with anything measured, oldest first."""
        some = (self.status == OK).any(axis=(1, 2, 3))
        return tuple(one for one, known in zip(self.commits, some.tolist(), strict=True) if known)

    def of(self, variant: str, name: str = "value", metric: str = "time") -> NDArray[Any]:
        """One of the arrays of one implementation: commit × case."""
        at = self.points.variants.index(variant), self.points.metrics.index(metric)
        found: NDArray[Any] = getattr(self, name)[:, :, at[0], at[1]]
        return found

    def times(self, variant: str) -> Floats:
        """Seconds of one implementation, commit × case; NaN where there is no time above 0."""
        if variant not in self.points.variants or "time" not in self.points.metrics:
            return np.full(self.value.shape[:2], np.nan)
        found = self.of(variant)
        good = (self.of(variant, "status") == OK) & (found > 0) & np.isfinite(found)
        return np.where(good, found, np.nan)

    def cases_of(self, keep: Bools) -> Iterator[tuple[str, str]]:
        """The (operator or model, case) of the marked cases."""
        return (self.points.cases[place] for place in np.flatnonzero(keep).tolist())


_ARRAYS = ("value", "low", "high", "status", "version", "run")


class Filling:
    """The cube of a machine and suite while commits are added to it."""

    def __init__(self, machine: str, points: Points, commits: Sequence[str]) -> None:
        self._machine, self._points, self._commits = machine, points, tuple(commits)
        shape = (len(commits), int(np.prod(points.shape)))
        self._arrays: dict[str, NDArray[Any]] = {
            "value": np.full(shape, np.nan),
            "low": np.full(shape, np.nan, np.float32),
            "high": np.full(shape, np.nan, np.float32),
            "status": np.full(shape, ABSENT, np.uint8),
            "version": np.zeros(shape, np.uint16),
            "run": np.zeros(shape, np.int32),
        }
        self._words = {"version": Words(), "run": Words()}

    def add(self, place: int, measured: Measured) -> None:
        """Adds what a commit measured; `place` is its own among the commits."""
        record = measured.record
        rows, numbers = self._points.numbers(measured)
        asked = np.array([bool(why) and not was_left_out(why) for why in record.words["reason"]])
        status = record.status[rows].copy()
        status[(status == SKIPPED) & ~asked[record.codes["reason"][rows]]] = UNASKED
        good = status == OK
        self._arrays["status"][place, numbers] = status
        for name in ("value", "low", "high"):
            known = np.where(good, record.numbers[name][rows], np.nan)
            with np.errstate(over="ignore"):
                self._arrays[name][place, numbers] = known
        for name, words in self._words.items():
            codes = words.codes(record.words[name])
            self._arrays[name][place, numbers] = codes[record.codes[name][rows]]

    def cube(self) -> Cube:
        """All that was added."""
        shape = (len(self._commits), *self._points.shape)
        return Cube(
            self._machine,
            self._points,
            self._commits,
            **{name: array.reshape(shape) for name, array in self._arrays.items()},
            versions=self._words["version"].listed() or [""],
            runs=self._words["run"].listed() or [""],
        )


def alike_of(cube: Cube, runs: pd.DataFrame) -> NDArray[np.int64]:
    """Commit × case: the same number where kernl's times may be compared.

    That is where the case's version, the libraries and the machine beneath are the same.
    """
    names = list(SAME[cube.points.suite])
    known = runs.drop_duplicates("run").set_index("run").reindex(columns=names)
    said = {run: str(tuple(map(str, of))) for run, *of in known.itertuples()}
    beneath = Words().codes(said.get(run, "") for run in cube.runs).astype(np.int64)
    run, version = cube.of(GATED, "run"), cube.of(GATED, "version")
    return np.asarray(version.astype(np.int64) * (int(beneath.max(initial=0)) + 1) + beneath[run])
