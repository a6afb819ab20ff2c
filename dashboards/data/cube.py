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

from benchmarks.asv_file import OK
from benchmarks.gate.findings import GATED, SAME
from benchmarks.record import Words
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
        arrays = {name: getattr(self, name)[:, cases] for name in ARRAYS}
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
        if variant not in self._times:
            self._times[variant] = self._timed(variant)
        return self._times[variant]

    @cached_property
    def _times(self) -> dict[str, Floats]:
        return {}

    def _timed(self, variant: str) -> Floats:
        if variant not in self.points.variants or "time" not in self.points.metrics:
            return np.full(self.value.shape[:2], np.nan)
        found = self.of(variant)
        good = (self.of(variant, "status") == OK) & (found > 0) & np.isfinite(found)
        return np.where(good, found, np.nan)

    def cases_of(self, keep: Bools) -> Iterator[tuple[str, str]]:
        """The (operator or model, case) of the marked cases."""
        return (self.points.cases[place] for place in np.flatnonzero(keep).tolist())


ARRAYS = ("value", "low", "high", "status", "version", "run")
"""The arrays of a cube."""


def alike_of(cube: Cube, runs: pd.DataFrame) -> NDArray[np.int64]:
    """Commit × case: the same number where kernl's times may be compared.

    That is where the case's version, the libraries and the machine beneath are the same.
    """
    beneath = beneath_of(cube, runs)
    run, version = cube.of(GATED, "run"), cube.of(GATED, "version")
    return np.asarray(version.astype(np.int64) * (int(beneath.max(initial=0)) + 1) + beneath[run])


def beneath_of(cube: Cube, runs: pd.DataFrame) -> NDArray[np.int64]:
    """The cube's runs: the same number where what a suite needs to be the same is so."""
    names = list(SAME[cube.points.suite])
    known = runs.drop_duplicates("run").set_index("run").reindex(columns=names)
    said = {run: str(tuple(map(str, of))) for run, *of in known.itertuples()}
    return Words().codes(said.get(run, "") for run in cube.runs).astype(np.int64)
