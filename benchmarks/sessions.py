"""What sessions of two commits beside each other tell of one case: pure functions of numbers.

In a session new processes, one a commit, time the case in turns. Processes of one commit differ, so
a session is one observation (`benchmarks.noise.session_ratio`), whatever it consists of. Three of
them tell little about their own variance; what is known of the case's noise
(`benchmarks.known_noise`) counts as further ones: a moderated t-test. All cases are then judged
together by `benchmarks.compare.decide`.

Source: G. K. Smyth, "Linear models and empirical Bayes methods for assessing differential
expression in microarray experiments", Stat. Appl. Genet. Mol. Biol. 3 (2004), section 4.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from benchmarks.compare import MIN_EFFECT, SPREAD_FACTOR, SampleTest

Array = NDArray[np.float64]

MIN_SESSIONS = 3
"""Fewer sessions of new processes than this never decide anything."""
SOUGHT = 0.03
"""More sessions are taken of a case in which such a change could be missed."""
CONFIRMED = 0.01
"""The p-value by which a second measurement, in processes of its own, confirms a suspect."""

_LEAST_DEVIATION = 0.001
"""What no case's noise is believed to be below: equal sessions may be chance."""


@dataclass(frozen=True)
class Spread:
    """What is known of a case's noise: variances of a session's log-ratio where nothing changed.

    Attributes:
        raw: of log(head / base) of what is gated.
        drift_out: of the same less eager's; infinite where eager does not run.
        degrees: so many observations it counts as.
    """

    raw: float
    drift_out: float
    degrees: float


def compare_sessions(
    ratios: Sequence[float], drifts: Sequence[float], spread: Spread
) -> SampleTest:
    """Test whether a case's sessions tell that head is slower or faster than base.

    Args:
        ratios: log(head / base) of what is gated, one of each session.
        drifts: the same of what did not change, in the same sessions; empty where it does not run.
            It is subtracted where the case's noise is known to be smaller then.
        spread: what is known of that noise.

    A change has to be above 2 %, and above three times what `ratios`' mean is known to vary by.
    """
    problem = _problem(ratios)
    if problem:
        nan = math.nan
        return SampleTest(nan, nan, nan, nan, nan, nan, False, problem)
    observed = np.asarray(ratios, float)
    paired = len(drifts) == len(ratios) and bool(np.isfinite(drifts).all())
    drift_removed = paired and spread.drift_out < spread.raw
    if drift_removed:
        observed = observed - np.asarray(drifts, float)
    known = spread.drift_out if drift_removed else spread.raw
    effect, error, degrees, threshold = moderated(observed, known, spread.degrees)
    return SampleTest(
        log_effect=float(effect),
        standard_error=float(error),
        degrees=float(degrees),
        threshold=float(threshold),
        p_slower=float(scipy.stats.t.sf(effect / error, degrees)),
        p_faster=float(scipy.stats.t.sf(-effect / error, degrees)),
        drift_removed=drift_removed,
        problem="",
    )


def moderated(
    observed: Array, known: Array | float, known_degrees: Array | float
) -> tuple[Array, Array, Array, Array]:
    """Mean, its standard error, degrees of freedom, and the least change that counts.

    Args:
        observed: (…, sessions), log-ratios.
        known: (…), the variance of one of them that is known.
        known_degrees: (…), so many observations that counts as.
    """
    count = observed.shape[-1]
    known = np.maximum(known, _LEAST_DEVIATION**2)
    degrees = np.asarray(known_degrees + count - 1.0)
    squares = np.var(observed, axis=-1) * count
    error = np.sqrt((known_degrees * known + squares) / degrees / count)
    threshold = np.maximum(math.log1p(MIN_EFFECT), SPREAD_FACTOR * np.sqrt(known / count))
    return np.mean(observed, axis=-1), error, degrees, threshold


def confirms(again: SampleTest, whole: SampleTest, *, faster: bool = False) -> bool:
    """Whether a second measurement says by itself that head is slower, and both that by enough.

    `whole` is the test of the sessions of both; `faster`: that head is faster.
    """
    if again.problem or whole.problem:
        return False
    p = again.p_faster if faster else again.p_slower
    effect = -whole.log_effect if faster else whole.log_effect
    return p <= CONFIRMED and effect > whole.threshold


def _problem(ratios: Sequence[float]) -> str:
    if len(ratios) < MIN_SESSIONS:
        return f"{len(ratios)} sessions, at least {MIN_SESSIONS} are needed"
    if not bool(np.isfinite(ratios).all()):
        return "a session has a ratio that is not a finite number"
    return ""
