"""What is kept of a side's samples."""

import math
from typing import Any

import numpy as np
import pytest

from benchmarks.compare import compare_samples
from dashboards.evidence import Evidence, of_row, of_samples

TIMES = [1.0e-5, 1.1e-5, 0.9e-5, 1.05e-5, 0.98e-5, 1.2e-5]
EAGER = [2.0e-5, 2.2e-5, 1.9e-5, 2.05e-5, 2.0e-5, 2.3e-5]


def is_known(evidence: Evidence) -> tuple[bool, bool]:
    """Whether the samples decide something, and whether eager's can be divided out."""
    return not math.isnan(evidence.mean), not math.isnan(evidence.residual_mean)


def row(
    samples: list[float], status: str = "ok", value: float = 1e-5, run: str = "a"
) -> dict[str, Any]:
    return {"samples": tuple(samples), "status": status, "value": value, "run": run}


def test_the_numbers_are_those_of_the_logarithms() -> None:
    found = of_samples(TIMES, EAGER)
    logs = np.log(TIMES)
    residuals = logs - np.log(EAGER)
    assert found.count == 6
    assert [found.mean, found.residual_mean] == [logs.mean(), residuals.mean()]
    assert [found.variance, found.residual_variance] == [logs.var(ddof=1), residuals.var(ddof=1)]
    assert found.spread == pytest.approx(1.4826 * np.median(abs(logs - np.median(logs))), rel=1e-15)


def test_two_sides_make_the_effect_and_the_threshold_of_the_gate() -> None:
    slower = [1.3 * time for time in TIMES]
    test = compare_samples(TIMES, slower, EAGER, EAGER)
    base, head = of_samples(TIMES, EAGER), of_samples(slower, EAGER)
    assert test.drift_removed
    assert test.log_effect == head.residual_mean - base.residual_mean
    assert test.threshold == 3 * max(base.residual_spread, head.residual_spread)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_samples_that_are_no_times_decide_nothing(bad: float) -> None:
    assert is_known(of_samples([*TIMES, bad], [*EAGER, 1.0])) == (False, False)
    assert is_known(of_samples([*TIMES, 1.0], [*EAGER, bad])) == (True, False)


def test_too_few_samples_decide_nothing() -> None:
    assert is_known(of_samples(TIMES[:4])) == (False, False)
    assert is_known(of_samples(TIMES[:5])) == (True, False)
    assert of_samples([]).count == 0


def test_other_samples_than_those_taken_beside_are_no_drift() -> None:
    assert is_known(of_samples(TIMES, EAGER[1:])) == (True, False)


@pytest.mark.parametrize(
    ("control", "counts"),
    [
        (row(EAGER), True),
        (row(EAGER, run="b"), False),
        (row(EAGER, status="failed"), False),
        (row(EAGER, value=math.nan), False),
        (None, False),
    ],
)
def test_eager_counts_where_it_is_good_and_of_the_same_run(
    control: dict[str, Any] | None, counts: bool
) -> None:
    assert is_known(of_row(row(TIMES), control)) == (True, counts)
