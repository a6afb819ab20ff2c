"""A session is one observation, and what is known of a case's noise counts as more."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks import compare
from benchmarks.sessions import Spread, compare_sessions, confirms

CALM = Spread(0.002**2, 0.003**2, 20.0)


def test_without_a_prior_it_is_students_test() -> None:
    ratios = [0.031, 0.034, 0.052, 0.018]
    found = compare_sessions(ratios, [], Spread(1e-4, math.inf, 0.0))
    student = stats.ttest_1samp(ratios, 0.0, alternative="greater")
    assert found.p_slower == pytest.approx(student.pvalue)
    assert found.log_effect == pytest.approx(np.mean(ratios))
    assert found.degrees == 3.0


def test_what_is_known_counts_as_observations() -> None:
    # Three equal sessions alone would say that there is no noise at all.
    equal = compare_sessions([0.02, 0.02, 0.02], [], CALM)
    expected = math.sqrt(20 * 0.002**2 / 22 / 3)
    assert equal.standard_error == pytest.approx(expected)
    # And three that differ by much say that there is more than was known.
    wild = compare_sessions([-0.05, 0.0, 0.11], [], CALM)
    squares = 0.07**2 + 0.02**2 + 0.09**2
    assert wild.standard_error == pytest.approx(math.sqrt((20 * 0.002**2 + squares) / 22 / 3))
    assert wild.p_slower > 0.05


@pytest.mark.parametrize(("raw", "limit"), [(0.002, math.log1p(0.02)), (0.02, 0.06 / math.sqrt(3))])
def test_the_limit_is_two_per_cent_or_three_times_the_noise(raw: float, limit: float) -> None:
    found = compare_sessions([0.0] * 3, [], Spread(raw**2, math.inf, 20.0))
    assert found.threshold == pytest.approx(limit)


def test_drift_is_taken_out_where_that_is_known_to_help() -> None:
    ratios, drifts = [0.05, 0.01, 0.09], [0.05, 0.01, 0.09]
    helps = compare_sessions(ratios, drifts, Spread(0.04**2, 0.002**2, 20.0))
    assert helps.drift_removed
    assert helps.log_effect == 0.0
    hurts = compare_sessions(ratios, drifts, Spread(0.002**2, 0.04**2, 20.0))
    assert not hurts.drift_removed
    assert hurts.log_effect == pytest.approx(0.05)
    # Eager that ran in two sessions of three tells nothing of the third.
    gap = compare_sessions(ratios, [0.05, math.nan, 0.09], Spread(0.04**2, 0.002**2, 20.0))
    assert not gap.drift_removed


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ([], "0 sessions, at least 3 are needed"),
        ([0.1, 0.1], "2 sessions"),
        ([0.1, math.nan, 0.1], "not a finite number"),
        ([0.1, math.inf, 0.1], "not a finite number"),
    ],
)
def test_too_little_decides_nothing(ratios: list[float], words: str) -> None:
    found = compare_sessions(ratios, [], CALM)
    assert words in found.problem
    (decided,) = compare.decide([found])
    assert decided.verdict == "unstable"


def test_no_case_is_believed_to_be_without_noise() -> None:
    found = compare_sessions([0.0, 0.0, 0.0], [], Spread(0.0, math.inf, 20.0))
    assert found.standard_error > 0


def test_a_second_measurement_has_to_be_significant_and_both_large_enough() -> None:
    first, again = [0.03, 0.032, 0.031], [0.029, 0.03, 0.031]
    test, whole = (compare_sessions(some, [], CALM) for some in (again, first + again))
    assert confirms(test, whole)
    nothing = [0.001, -0.001, 0.0]
    test, whole = (compare_sessions(some, [], CALM) for some in (nothing, [0.06] * 3 + nothing))
    assert whole.log_effect > whole.threshold
    assert not confirms(test, whole)  # the second measurement sees nothing
    small = [0.011, 0.01, 0.012]
    test, whole = (compare_sessions(some, [], CALM) for some in (small, [0.021] * 3 + small))
    assert test.p_slower < 0.01
    assert not confirms(test, whole)  # both together are below two per cent
    few = compare_sessions([0.5], [], CALM)
    assert not confirms(few, whole)


def test_what_is_faster_is_confirmed_alike() -> None:
    first, again = [-0.03, -0.032, -0.031], [-0.029, -0.03, -0.031]
    test, whole = (compare_sessions(some, [], CALM) for some in (again, first + again))
    assert confirms(test, whole, faster=True)
    assert not confirms(test, whole)
    slower = compare_sessions([0.03] * 3, [], CALM)
    assert not confirms(slower, whole, faster=True)


def test_power_and_what_is_detectable_agree() -> None:
    tests = [compare_sessions([0.0, 0.001, -0.001], [], CALM)] * 50
    (smallest, *rest) = compare.detectable(tests)
    assert rest == [smallest] * 49
    assert compare.power(tests, smallest) == pytest.approx(compare.POWER, abs=1e-6)
    assert compare.power(tests, 0.5) > 0.999
    broken = compare_sessions([], [], CALM)
    assert compare.detectable([broken]) == [math.inf]
    assert math.isnan(compare.power([broken], 0.05))
