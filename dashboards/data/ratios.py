"""kernl's speedups of all commits on one machine, and their mean along the commits: like with like.

The rules are those of `dashboards.data.summary`, whose `speedups` gives the rows of single commits.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from benchmarks.asv_file import FAILED, OK, SKIPPED
from dashboards.data.cube import Cube
from dashboards.data.summary import BASELINE, OURS, PARTS

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Ratios:
    """Speedups, commit × case; NaN where there is none.

    Attributes:
        over_eager: kernl against eager; 1 where it leaves a case to eager.
        over_best: kernl against the fastest other implementation.
        alternatives: how many other implementations have a time.
        failed: where kernl's measurement failed.
    """

    over_eager: Floats
    over_best: Floats
    alternatives: Counts
    failed: NDArray[np.bool_]

    @classmethod
    def of(cls, cube: Cube) -> Ratios:
        """Those of a suite's cube, or of a part of it."""
        eager, ours = cube.times(BASELINE), cube.times(OURS)
        status = np.full(ours.shape, -1)
        if OURS in cube.points.variants:
            status = cube.of(OURS, "status")
        failed = (status == FAILED) | ((status == OK) & np.isnan(ours))
        # What it skips for a reason is served by eager.
        kernl = np.where(status == SKIPPED, eager, ours)
        best, alternatives = np.full(ours.shape, np.nan), np.zeros(ours.shape, np.int64)
        for name in cube.points.variants:
            if name not in (OURS, *PARTS):
                times = cube.times(name)
                best = np.fmin(best, times)
                alternatives += ~np.isnan(times)
        return cls(eager / kernl, best / kernl, alternatives, failed)

    def at(self, commits: Sequence[int]) -> Ratios:
        """Those of some commits."""
        return Ratios(*(getattr(self, field.name)[list(commits)] for field in fields(self)))

    def of_cases(self, cases: NDArray[np.intp]) -> Ratios:
        """Those of some cases."""
        return Ratios(*(getattr(self, field.name)[:, cases] for field in fields(self)))


@dataclass(frozen=True)
class Trend:
    """A mean along the commits: `mean`, over how many `cases`, and how many `measured` there."""

    mean: Floats
    cases: Counts
    measured: Counts


def over_eager(ratios: Ratios) -> Trend:
    """The trend of kernl's speed over eager's."""
    return _trend(ratios.over_eager, ratios.failed)


def over_best(ratios: Ratios) -> Trend:
    """The trend over the fastest other implementation.

    A commit that timed eager alone says nothing of a case for which another commit had more.
    """
    most = ratios.alternatives.max(axis=0, initial=0)
    telling = (ratios.alternatives > 1) | (most <= 1)
    return _trend(np.where(telling, ratios.over_best, np.nan), ratios.failed)


def _trend(ratios: Floats, failed: NDArray[np.bool_]) -> Trend:
    """A mean of ratios by commit: like with like, back from the newest.

    At the newest commit it is the geometric mean over all cases known by then. From one commit to
    the next it moves by the mean of what the cases moved that are known at both: a case that joins,
    or leaves, moves nothing. A commit may measure a few cases alone, those that it can have
    changed; one that it did not ask for keeps the ratio it had before. Once kernl's call failed,
    nothing is kept.

    The mean is NaN where none was measured, and before a commit that shares no case with the next.
    """
    # Infinity stands for a failure: it ends what is kept, and is no ratio.
    told = np.where(failed, np.inf, ratios)
    measured = np.isfinite(told).sum(axis=1)
    places = np.where(np.isnan(told), 0, np.arange(len(told))[:, None])
    latest = np.maximum.accumulate(places, axis=0)
    kept = np.take_along_axis(told, latest, axis=0)
    kept = np.where(np.isinf(kept), np.nan, kept)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(kept[measured > 0])
    mean = np.full(len(told), np.nan)
    if len(logs):
        steps = _means(np.diff(logs, axis=0))
        back = np.concatenate([_means(logs[-1:]), -steps[::-1]]).cumsum()
        mean[measured > 0] = np.exp(back[::-1])
    return Trend(mean, (~np.isnan(kept)).sum(axis=1), measured)


def _means(rows: Floats) -> Floats:
    """The mean of what is known in each row; NaN where nothing is."""
    known = ~np.isnan(rows)
    count = known.sum(axis=1)
    total = np.where(known, rows, 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(rows), np.nan), where=count > 0)


def places(cube: Cube, names: Collection[str]) -> NDArray[np.intp]:
    """The cases of some operators or models."""
    return np.array(
        [place for place, (op, _) in enumerate(cube.points.cases) if op in names], np.intp
    )
