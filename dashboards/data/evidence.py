"""What a browser must know of one commit's samples to judge them against any other commit's.

`benchmarks.compare.compare_samples` uses the samples of a side only through the numbers of
`Evidence`; no number needs the samples of both sides together. `static/verdicts.js` makes the same
tests from them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from benchmarks.asv_file import OK
from benchmarks.compare import MIN_SAMPLES, spread
from benchmarks.gate.findings import CONTROL, GATED, TIMED
from benchmarks.record import Record

_NO_DRIFT: tuple[float, ...] = ()
_SAME = ("suite", "op", "case", "metric", "run")
"""What kernl's time and eager's beside it have in common."""

Floats = NDArray[np.float64]
Places = NDArray[np.intp]


@dataclass(frozen=True)
class Evidence:
    """The statistics of one side's samples, of their natural logarithms.

    They are to be kept in full: rounded numbers may turn a verdict. Variances are kept, not
    standard deviations, so that not even the last digit of a standard error depends on who
    computes it.

    Attributes:
        count: how many samples there are.
        mean: of the logarithms. It and all that follows is NaN where the samples decide nothing:
            fewer than `MIN_SAMPLES`, or one that is not a positive finite number.
        variance: of the logarithms, over count - 1.
        spread: of the logarithms, from their median absolute deviation.
        residual_mean: the same three of the logarithms' differences to those of an implementation
            that did not change, sample i less its sample i; NaN where it was not timed beside.
        residual_variance: see `residual_mean`.
        residual_spread: see `residual_mean`.
    """

    count: int
    mean: float = math.nan
    variance: float = math.nan
    spread: float = math.nan
    residual_mean: float = math.nan
    residual_variance: float = math.nan
    residual_spread: float = math.nan


def of_samples(samples: Sequence[float], drift: Sequence[float] = _NO_DRIFT) -> Evidence:
    """The evidence of `samples` (seconds), and of those of `drift` that were taken beside them.

    `drift` counts where it has as many samples as `samples`, all of them positive and finite, as
    for `benchmarks.compare.compare_samples`.
    """
    count = len(samples)
    if count < MIN_SAMPLES:
        return Evidence(count)
    beside = drift if len(drift) == count else [math.nan] * count
    found = _statistics(np.asarray([samples], float), np.asarray([beside], float))
    return Evidence(count, *found[0].tolist())


def of_record(record: Record) -> tuple[Places, Floats]:
    """The rows of kernl's times, and the evidence of each: a column for each field of `Evidence`.

    The drift is eager's of the same case, where that is good and was timed in the same run.
    """
    suites = [place for place, word in enumerate(record.words["suite"]) if word in TIMED]
    good = np.isin(record.codes["suite"], suites) & (record.status == OK)
    judged = np.flatnonzero(good & record.where("variant", GATED))
    control = good & record.where("variant", CONTROL) & ~np.isnan(record.numbers["value"])
    beside = _beside(record, judged, np.flatnonzero(control))
    counts = np.diff(record.ends)
    found = np.full((len(judged), len(fields(Evidence))), np.nan)
    found[:, 0] = counts[judged]
    for count in np.unique(counts[judged]).tolist():
        if count >= MIN_SAMPLES:
            at = np.flatnonzero(counts[judged] == count)
            ours = _samples(record, judged[at], count)
            theirs = np.full_like(ours, np.nan)
            paired = (beside[at] >= 0) & (counts[beside[at]] == count)
            theirs[paired] = _samples(record, beside[at][paired], count)
            found[at, 1:] = _statistics(ours, theirs)
    return judged, found


def _beside(record: Record, judged: Places, control: Places) -> Places:
    """The row of `control` that belongs to each of `judged`, the last; -1 where there is none."""
    if not len(control):
        return np.full(len(judged), -1)
    keys = _keys(record, np.concatenate([judged, control]))
    asked, known = keys[: len(judged)], keys[len(judged) :]
    order = np.argsort(known, kind="stable")
    last = np.searchsorted(known[order], asked, side="right") - 1
    found = order[last]
    return np.where(known[found] == asked, control[found], -1)


def _keys(record: Record, rows: Places) -> NDArray[np.int64]:
    """A number for each row: the same for rows that have `_SAME` in common, and for no others."""
    found, most = np.zeros(len(rows), np.int64), 1
    for name in _SAME:
        count = len(record.words[name])
        if most * count >= 2**62:
            found = np.unique(found, return_inverse=True)[1]
            most = len(rows)
        found = found * count + record.codes[name][rows]
        most *= count
    return found


def _samples(record: Record, rows: Places, count: int) -> Floats:
    """The samples of rows that have so many, a row each."""
    at = record.ends[rows][:, None] + np.arange(count)
    return np.asarray(record.samples[at], float)


def _statistics(samples: Floats, drift: Floats) -> Floats:
    """All of `Evidence` but the count, a row for each row of samples."""
    found = np.full((len(samples), 6), np.nan)
    sound = _are_times(samples)
    found[sound, :3] = _moments(np.log(samples[sound]))
    both = sound & _are_times(drift)
    found[both, 3:] = _moments(np.log(samples[both]) - np.log(drift[both]))
    return found


def _are_times(samples: Floats) -> NDArray[np.bool_]:
    return np.asarray(((samples > 0) & np.isfinite(samples)).all(axis=1), np.bool_)


def _moments(logs: Floats) -> Floats:
    """Mean, variance and robust spread of each row."""
    return np.stack([logs.mean(axis=1), logs.var(axis=1, ddof=1), spread(logs)], axis=1)
