"""Statistics of a comparison: pure functions of numbers.

A comparison is told as a ratio ``head / base``. For exact counts any change has a meaning
(`compare_counts`). For timing samples a case is first summarised (`compare_samples`), then all
cases of a run are judged together (`decide`), because judging thousands of cases one by one at 1 %
would raise dozens of false alarms.

The samples of a stored result come from one process a side, so what differs from process to process
is not in their noise. Simulated on 1,000 unchanged cases with 20 samples of 1 % spread a side: no
false alarm in either direction when processes do not differ, about 4 % of cases when they differ by
1 %.

Two commits that were timed beside each other are another kind of evidence (`benchmarks.sessions`).

Sources: B. L. Welch, "The generalization of Student's problem when several different population
variances are involved", Biometrika 34 (1947); Y. Benjamini and Y. Hochberg, "Controlling the false
discovery rate", J. R. Statist. Soc. B 57 (1995).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray

Verdict = Literal["pass", "regressed", "improved", "unstable", "missing"]

MIN_SAMPLES = 5
"""Fewer samples than this on a side never decide anything."""
MIN_EFFECT = 0.02
"""Relative changes up to this are not reported: a threshold equal to the effect sought would be a
coin flip, so 2 % is used to find 5 %."""
SPREAD_FACTOR = 3.0
"""A change must also exceed this many within-run spreads of its own case."""
FALSE_DISCOVERY_RATE = 0.01
MAX_DETECTABLE = 0.05
"""A case where only changes larger than this would be found is unstable, not passed."""
POWER = 0.80
CONFIDENCE = 0.99

_NO_DRIFT: tuple[float, ...] = ()
# Scales the median absolute deviation of normal samples to their standard deviation.
_MAD_TO_SD = 1.4826


@dataclass(frozen=True)
class Comparison:
    """Two measurements of one case.

    Attributes:
        ratio: head / base (1.0 is equal); NaN when it cannot be formed, inf when base is 0.
        low: lower end of the ratio's 99 % interval; equal to `ratio` for exact counts.
        high: upper end of the same interval.
        verdict: what was decided.
        reason: why, in words.
    """

    ratio: float
    low: float
    high: float
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class SampleTest:
    """A t-test of one case, before the family of cases is judged.

    Attributes:
        log_effect: mean log(head) - mean log(base), drift divided out where `drift_removed`.
        standard_error: of `log_effect`.
        degrees: of freedom.
        threshold: smallest |log_effect| that counts as a change.
        p_slower: one-sided p-value of "head is slower than base".
        p_faster: one-sided p-value of the mirrored test.
        drift_removed: whether the drift samples were divided out.
        problem: why nothing can be decided, in words; empty when something can.
    """

    log_effect: float
    standard_error: float
    degrees: float
    threshold: float
    p_slower: float
    p_faster: float
    drift_removed: bool
    problem: str


def compare_counts(base: float, head: float, lower_is_better: bool) -> Comparison:
    """Compare two exact numbers, such as registers: any difference is a change.

    A number that is NaN was not measured: the verdict is "missing". One that is infinite or
    negative is no count, and the verdict is "unstable".
    """
    nan = math.nan
    absent = [side for side, value in (("base", base), ("head", head)) if math.isnan(value)]
    if absent:
        return Comparison(nan, nan, nan, "missing", f"no value for {' and '.join(absent)}")
    for side, value in (("base", base), ("head", head)):
        if value < 0 or math.isinf(value):
            reason = f"{side} is {value:g}, which is not a finite number ≥ 0: measure it again"
            return Comparison(nan, nan, nan, "unstable", reason)
    ratio = _ratio(base, head)
    if head == base:
        return Comparison(ratio, ratio, ratio, "pass", "equal")
    direction = "more" if head > base else "less"
    verdict: Verdict = "regressed" if (head > base) == lower_is_better else "improved"
    return Comparison(ratio, ratio, ratio, verdict, f"{direction} than before")


def compare_samples(
    base: Sequence[float],
    head: Sequence[float],
    base_drift: Sequence[float] = _NO_DRIFT,
    head_drift: Sequence[float] = _NO_DRIFT,
) -> SampleTest:
    """Test whether the positive samples (seconds) of `head` are slower or faster than `base`'s.

    `base_drift` and `head_drift` are samples of an implementation that did not change, taken in
    the same rounds: sample i beside sample i. They are divided out, round by round, only where
    both have as many samples as their side and doing so lowers the standard error.
    """
    problem = _problem("base", base) or _problem("head", head)
    if problem:
        nan = math.nan
        return SampleTest(nan, nan, nan, nan, nan, nan, False, problem)
    logs = (np.log(np.asarray(base, float)), np.log(np.asarray(head, float)))
    paired = _paired(base, base_drift) and _paired(head, head_drift)
    drift_removed = False
    if paired:
        residuals = (
            logs[0] - np.log(np.asarray(base_drift, float)),
            logs[1] - np.log(np.asarray(head_drift, float)),
        )
        drift_removed = _standard_error(*residuals)[0] < _standard_error(*logs)[0]
        logs = residuals if drift_removed else logs
    return _welch(*logs, drift_removed)


def detectable(
    tests: Sequence[SampleTest], false_discovery_rate: float = FALSE_DISCOVERY_RATE
) -> list[float]:
    """Of each case, the smallest change that is found with probability `POWER`, as a fraction.

    Infinite where nothing can be decided.
    """
    family = [test for test in tests if not test.problem]
    smallest = iter(_detectable(family, false_discovery_rate) if family else ())
    return [math.inf if test.problem else _exp(float(next(smallest))) - 1 for test in tests]


def power(
    tests: Sequence[SampleTest], change: float, false_discovery_rate: float = FALSE_DISCOVERY_RATE
) -> float:
    """The mean probability, over the cases, that such a slowdown of one of them is found.

    NaN where nothing can be decided.
    """
    family = [test for test in tests if not test.problem]
    if not family:
        return math.nan
    degrees, error, least = _least_found(family, false_discovery_rate)
    seen = scipy.stats.t.sf((least - math.log1p(change)) / error, degrees)
    return float(np.mean(seen))


def decide(
    tests: Sequence[SampleTest], false_discovery_rate: float = FALSE_DISCOVERY_RATE
) -> list[Comparison]:
    """Judge all cases of a run together, with Benjamini-Hochberg's correction over them.

    A case is "regressed" when its corrected p-value is small enough and its effect is above its
    threshold, "improved" by the mirrored test, "unstable" when a change of `MAX_DETECTABLE` could
    have been missed, else "pass". So a pass never hides a measured change above `MAX_DETECTABLE`.
    """
    usable = [index for index, test in enumerate(tests) if not test.problem]
    decided = [_undecidable(test) for test in tests]
    if not usable:
        return decided
    family = [tests[index] for index in usable]
    slower = scipy.stats.false_discovery_control(np.array([test.p_slower for test in family]))
    faster = scipy.stats.false_discovery_control(np.array([test.p_faster for test in family]))
    detectable_by = _detectable(family, false_discovery_rate)
    for index, p_slower, p_faster, smallest in zip(
        usable, slower, faster, detectable_by, strict=True
    ):
        test = tests[index]
        is_slower = bool(p_slower <= false_discovery_rate) and test.log_effect > test.threshold
        is_faster = bool(p_faster <= false_discovery_rate) and -test.log_effect > test.threshold
        decided[index] = _judged(test, is_slower, is_faster, _exp(float(smallest)) - 1)
    return decided


def geometric_mean(ratios: Iterable[float]) -> float:
    """Geometric mean of positive finite ratios.

    Raises:
        ValueError: no ratio was given, or one is not a positive finite number.
    """
    values = list(ratios)
    if not values:
        raise ValueError("no ratio was given, at least one is needed: check that cases matched")
    for value in values:
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(
                f"a ratio is {value:g}, only positive finite numbers have a geometric mean: "
                "leave out what was not measured"
            )
    return math.exp(math.fsum(math.log(value) for value in values) / len(values))


def _ratio(base: float, head: float) -> float:
    if head == base:
        return 1.0
    return math.inf if base == 0 else head / base


def _is_positive_finite(samples: Sequence[float]) -> bool:
    return all(sample > 0 and math.isfinite(sample) for sample in samples)


def _problem(side: str, samples: Sequence[float]) -> str:
    if len(samples) < MIN_SAMPLES:
        return f"{side} has {len(samples)} samples, at least {MIN_SAMPLES} are needed"
    if not _is_positive_finite(samples):
        return f"{side} has a sample that is not a positive finite time"
    return ""


def _paired(samples: Sequence[float], drift: Sequence[float]) -> bool:
    return len(drift) == len(samples) and _is_positive_finite(drift)


def _standard_error(base: NDArray[np.float64], head: NDArray[np.float64]) -> tuple[float, float]:
    """Standard error of the difference of means, and Welch-Satterthwaite degrees of freedom."""
    parts = [float(np.var(side, ddof=1)) / len(side) for side in (base, head)]
    total = sum(parts)
    if total == 0:
        return 0.0, float(len(base) + len(head) - 2)
    # Shares, not squares of variances: those underflow for nearly equal samples.
    shares = [part / total for part in parts]
    inverse = shares[0] ** 2 / (len(base) - 1) + shares[1] ** 2 / (len(head) - 1)
    return math.sqrt(total), 1.0 / inverse


def spread(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """A robust standard deviation along the last axis, from the median absolute deviation."""
    return _MAD_TO_SD * _median(np.abs(logs - _median(logs)[..., None]))


def _median(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """`np.median` along the last axis, which takes five times as long for many short rows."""
    count = rows.shape[-1]
    ordered = np.sort(rows, axis=-1)
    middle = (ordered[..., (count - 1) // 2] + ordered[..., count // 2]) / 2
    return np.where(np.isnan(ordered[..., -1]), np.nan, middle)


def _t_statistic(effect: float, error: float) -> float:
    if error > 0:
        return effect / error
    return math.copysign(math.inf, effect) if effect else 0.0


def _welch(base: NDArray[np.float64], head: NDArray[np.float64], drift_removed: bool) -> SampleTest:
    effect = float(np.mean(head)) - float(np.mean(base))
    error, degrees = _standard_error(base, head)
    t = _t_statistic(effect, error)
    widest = max(float(spread(base)), float(spread(head)))
    return SampleTest(
        log_effect=effect,
        standard_error=error,
        degrees=degrees,
        threshold=max(math.log1p(MIN_EFFECT), SPREAD_FACTOR * widest),
        p_slower=float(scipy.stats.t.sf(t, degrees)),
        p_faster=float(scipy.stats.t.sf(-t, degrees)),
        drift_removed=drift_removed,
        problem="",
    )


def _detectable(family: Sequence[SampleTest], rate: float) -> NDArray[np.float64]:
    """Smallest log effect found with probability `POWER`, were it the only one in the family."""
    degrees, error, least = _least_found(family, rate)
    margin = scipy.stats.t.isf(1 - POWER, degrees) * error
    return np.asarray(least + margin, dtype=np.float64)


def least_found(
    error: NDArray[np.float64],
    degrees: NDArray[np.float64],
    threshold: NDArray[np.float64],
    cases: int,
    rate: float = FALSE_DISCOVERY_RATE,
) -> NDArray[np.float64]:
    """The least log effects that count as found, were each the only one among so many cases.

    The first discovery among them must pass rate / cases: the correction's hardest step.
    """
    needed = scipy.stats.t.isf(rate / cases, degrees) * error
    return np.asarray(np.maximum(threshold, needed), dtype=np.float64)


def _least_found(
    family: Sequence[SampleTest], rate: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Degrees of freedom, standard errors, and what `least_found` says of them."""
    degrees = np.array([test.degrees for test in family])
    error = np.array([test.standard_error for test in family])
    threshold = np.array([test.threshold for test in family])
    return degrees, error, least_found(error, degrees, threshold, len(family), rate)


def _undecidable(test: SampleTest) -> Comparison:
    return Comparison(math.nan, math.nan, math.nan, "unstable", test.problem)


def _judged(test: SampleTest, slower: bool, faster: bool, detectable: float) -> Comparison:
    half_width = float(scipy.stats.t.isf((1 - CONFIDENCE) / 2, test.degrees)) * test.standard_error
    ratio, low, high = (_exp(test.log_effect + offset) for offset in (0.0, -half_width, half_width))
    limit = _percent(math.expm1(min(test.threshold, 700.0)))
    drift = ", after eager's drift was divided out" if test.drift_removed else ""
    verdict: Verdict
    if slower or faster:
        verdict = "regressed" if slower else "improved"
        word = "slower" if slower else "faster"
        reason = f"{word} by more than noise and the {limit} limit of this case{drift}"
    elif detectable > MAX_DETECTABLE:
        verdict = "unstable"
        reason = (
            f"too noisy: only changes above {_percent(detectable)} would be found, "
            f"{_percent(MAX_DETECTABLE)} is allowed{drift}"
        )
    else:
        verdict = "pass"
        reason = f"no change above noise and the {limit} limit of this case{drift}"
    return Comparison(ratio, low, high, verdict, reason)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700.0 else math.inf


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if value < 10 else f"{value:.3g} times"
