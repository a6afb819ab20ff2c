"""What a browser must know of one commit's samples to judge them against any other commit's.

`benchmarks.compare.compare_samples` uses the samples of a side only through the numbers of
`Evidence`; no number needs the samples of both sides together. `static/verdicts.js` makes the same
tests from them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.compare import MIN_SAMPLES, spread
from benchmarks.gate.findings import Row

_NO_DRIFT: tuple[float, ...] = ()


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
    if len(samples) < MIN_SAMPLES or not _are_times(samples):
        return Evidence(len(samples))
    logs = np.log(np.asarray(samples, float))
    if len(drift) != len(samples) or not _are_times(drift):
        return Evidence(len(samples), *_statistics(logs))
    residuals = logs - np.log(np.asarray(drift, float))
    return Evidence(len(samples), *_statistics(logs), *_statistics(residuals))


def of_row(row: Row, control: Row | None) -> Evidence:
    """The evidence of a row of `benchmarks.store`, as the gate takes it.

    `control` is eager's row of the same case and commit. It counts where it is good and was timed
    in the run that timed `row`.
    """
    beside = (
        control is not None
        and control["status"] == "ok"
        and not math.isnan(control["value"])
        and control["run"] == row["run"]
    )
    return of_samples(row["samples"], control["samples"] if beside and control else _NO_DRIFT)


def _are_times(samples: Sequence[float]) -> bool:
    return all(sample > 0 and math.isfinite(sample) for sample in samples)


def _statistics(logs: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean, variance and robust spread."""
    return float(np.mean(logs)), float(np.var(logs, ddof=1)), spread(logs)
