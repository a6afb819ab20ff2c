"""The statistics: exact rules, properties, and simulated false alarm rate and power."""

import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.compare import (
    FALSE_DISCOVERY_RATE,
    MAX_DETECTABLE,
    MIN_EFFECT,
    MIN_SAMPLES,
    compare_counts,
    compare_samples,
    decide,
    geometric_mean,
)

MIRRORED = {"regressed": "improved", "improved": "regressed"}
counts = st.integers(0, 10**6).map(float)
times = st.floats(1e-7, 1e-1)
sample_lists = st.lists(times, min_size=MIN_SAMPLES, max_size=30)
# Noise of up to 1 % around one time: the range in which the gate really decides.
quiet_lists = st.builds(
    lambda time, noise: [time * (1 + n) for n in noise],
    times,
    st.lists(st.floats(-0.01, 0.01), min_size=MIN_SAMPLES, max_size=30),
)
any_lists = sample_lists | quiet_lists


def verdict(base: list[float], head: list[float]) -> str:
    return decide([compare_samples(base, head)])[0].verdict


def near_a_limit(base: list[float], head: list[float]) -> bool:
    """Rounding alone may tip such samples to either side."""
    test = compare_samples(base, head)
    return abs(abs(test.log_effect) - test.threshold) < 1e-9


def simulate(
    cases: int, samples: int, spread: float, effect: float = 0.0, tails: int = 0
) -> Counter[str]:
    """Verdicts on log-normal (or, with `tails` degrees of freedom, log-t) noise."""
    generator = np.random.default_rng(20)
    size = (2, cases, samples)
    noise = generator.normal(0, 1, size)
    if tails:
        noise = generator.standard_t(tails, size) / math.sqrt(tails / (tails - 2))
    base, head = 1e-5 * np.exp(spread * noise)
    tests = [compare_samples(b, h * (1 + effect)) for b, h in zip(base, head, strict=True)]
    return Counter(comparison.verdict for comparison in decide(tests))


@pytest.mark.parametrize(
    ("base", "head", "lower_is_better", "expected", "ratio"),
    [
        (32, 33, True, "regressed", 33 / 32),
        (33, 32, True, "improved", 32 / 33),
        (32, 32, True, "pass", 1.0),
        (0, 4, True, "regressed", math.inf),
        (4, 0, True, "improved", 0.0),
        (0, 0, True, "pass", 1.0),
        (0.75, 0.5, False, "regressed", 0.5 / 0.75),
        (0.5, 0.75, False, "improved", 1.5),
        (0.5, 0.0, False, "regressed", 0.0),
    ],
)
def test_counts_are_compared_exactly(
    base: float, head: float, lower_is_better: bool, expected: str, ratio: float
) -> None:
    comparison = compare_counts(base, head, lower_is_better)
    assert comparison.verdict == expected
    assert comparison.ratio == comparison.low == comparison.high == ratio


@pytest.mark.parametrize(
    ("base", "head", "expected", "word"),
    [
        (math.nan, 1, "missing", "base"),
        (1, math.nan, "missing", "head"),
        (math.nan, math.nan, "missing", "base and head"),
        (math.inf, math.inf, "unstable", "base is inf"),
        (1, math.inf, "unstable", "head is inf"),
        (-1, 1, "unstable", "base is -1"),
        (1, -math.inf, "unstable", "head is -inf"),
    ],
)
def test_a_count_that_is_none_never_passes(
    base: float, head: float, expected: str, word: str
) -> None:
    for lower_is_better in (True, False):
        comparison = compare_counts(base, head, lower_is_better)
        assert comparison.verdict == expected
        assert word in comparison.reason
        assert math.isnan(comparison.ratio)


@given(counts, counts, st.booleans())
def test_counts_mirror(base: float, head: float, lower_is_better: bool) -> None:
    forth = compare_counts(base, head, lower_is_better)
    back = compare_counts(head, base, lower_is_better)
    other = compare_counts(base, head, not lower_is_better)
    mirrored = MIRRORED.get(forth.verdict, forth.verdict)
    assert back.verdict == mirrored
    assert other.verdict == mirrored


@given(sample_lists, sample_lists)
def test_the_test_is_welchs(base: list[float], head: list[float]) -> None:
    logs = np.log(base), np.log(head)
    assume(min(np.std(logs[0]), np.std(logs[1])) > 1e-3)
    test = compare_samples(base, head)
    expected = stats.ttest_ind(logs[1], logs[0], equal_var=False, alternative="greater")
    assert test.p_slower == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert test.p_faster == pytest.approx(1 - expected.pvalue, rel=1e-6, abs=1e-12)
    assert test.degrees == pytest.approx(expected.df, rel=1e-6)
    interval = expected.confidence_interval  # one-sided: its two-sided end is at 99.5 %
    assert math.isinf(interval(0.99).high)
    comparison = decide([test])[0]
    assert math.log(comparison.low) == pytest.approx(interval(0.995).low, rel=1e-6, abs=1e-9)


@given(any_lists, st.randoms())
def test_equal_samples_never_regress(samples: list[float], order: random.Random) -> None:
    shuffled = order.sample(samples, len(samples))
    assert verdict(samples, shuffled) in {"pass", "unstable"}


@given(any_lists, any_lists)
def test_swapping_the_sides_mirrors_the_verdict(base: list[float], head: list[float]) -> None:
    assume(not near_a_limit(base, head))
    forth, back = (decide([compare_samples(*pair)])[0] for pair in ((base, head), (head, base)))
    assert back.verdict == MIRRORED.get(forth.verdict, forth.verdict)
    assert back.ratio == pytest.approx(1 / forth.ratio)
    assert back.low == pytest.approx(1 / forth.high)


@given(any_lists, any_lists, st.sampled_from([1e-9, 0.3, 7.0, 1e9]))
def test_the_unit_of_time_does_not_matter(
    base: list[float], head: list[float], scale: float
) -> None:
    assume(not near_a_limit(base, head))
    scaled = [sample * scale for sample in base], [sample * scale for sample in head]
    assert verdict(*scaled) == verdict(base, head)


@settings(max_examples=50)
@given(st.lists(st.tuples(quiet_lists, st.floats(0.5, 2.0)), min_size=1, max_size=20))
def test_a_pass_hides_no_change_above_what_must_be_found(
    cases: list[tuple[list[float], float]],
) -> None:
    tests = [compare_samples(base, [b * factor for b in base]) for base, factor in cases]
    for comparison in decide(tests):
        if comparison.verdict == "pass":
            assert abs(math.log(comparison.ratio)) <= math.log1p(MAX_DETECTABLE)


@pytest.mark.parametrize("bad", [0.0, -1e-6, math.nan, math.inf, -math.inf])
def test_a_sample_that_is_no_time_decides_nothing(bad: float) -> None:
    good = [1e-5] * 10
    for base, head in ((good, [*good, bad]), ([*good, bad], good)):
        comparison = decide([compare_samples(base, head)])[0]
        assert comparison.verdict == "unstable"
        assert "not a positive finite time" in comparison.reason


@pytest.mark.parametrize("few", range(MIN_SAMPLES))
def test_few_samples_decide_nothing(few: int) -> None:
    good = [1e-5] * 10
    for base, head in ((good, [2e-5] * few), ([2e-5] * few, good)):
        comparison = decide([compare_samples(base, head)])[0]
        assert comparison.verdict == "unstable"
        assert f"{few} samples" in comparison.reason
    assert verdict(good, [2e-5] * MIN_SAMPLES) == "regressed"


def test_small_and_noisy_changes_are_told_apart() -> None:
    quiet = [1e-5 * (1 + 0.001 * (i % 5)) for i in range(20)]
    assert verdict(quiet, [1.5 * MIN_EFFECT * s + s for s in quiet]) == "regressed"
    assert verdict(quiet, [0.9 * MIN_EFFECT * s + s for s in quiet]) == "pass"
    assert verdict(quiet, [s / 1.03 for s in quiet]) == "improved"
    # Three spreads of 1.2 % stand above a change of 3 %, and below one of 8 %.
    noisy = [1e-5 * (1 + 0.008 * (i % 3)) for i in range(200)]
    assert verdict(noisy, [s * 1.03 for s in noisy]) == "pass"
    assert verdict(noisy, [s * 1.08 for s in noisy]) == "regressed"
    wild = [1e-5 * (1 + 0.1 * (i % 3)) for i in range(20)]
    comparison = decide([compare_samples(wild, wild)])[0]
    assert comparison.verdict == "unstable"
    assert "too noisy" in comparison.reason


def test_drift_is_divided_out_only_where_that_lowers_the_noise() -> None:
    generator = np.random.default_rng(3)
    ramp = np.exp(np.linspace(0, 0.2, 20))
    noise = np.exp(generator.normal(0, 0.002, (4, 20)))
    base, head = 1e-5 * ramp * noise[0], 1e-5 * 1.2 * ramp * noise[1]
    eager = 3e-5 * ramp * noise[2], 3e-5 * 1.2 * ramp * noise[3]
    alone = compare_samples(base, head)
    paired = compare_samples(base, head, *eager)
    assert not alone.drift_removed
    assert paired.drift_removed
    assert [c.verdict for c in decide([alone, paired])] == ["unstable", "pass"]
    # What eager does not show stays a regression.
    slower = compare_samples(base, head * 1.05, *eager)
    assert decide([slower])[0].verdict == "regressed"
    assert decide([slower])[0].ratio == pytest.approx(1.05, rel=0.005)
    # Independent noise can only add to the samples' own.
    independent = 3e-5 * np.exp(generator.normal(0, 0.2, (2, 20)))
    assert compare_samples(base, head, *independent) == alone


@pytest.mark.parametrize("drift", [[], [1e-5] * 9, [1e-5] * 9 + [math.nan], [0.0] * 10])
def test_drift_that_cannot_be_paired_is_left_out(drift: list[float]) -> None:
    samples = [1e-5 * (1 + 0.001 * i) for i in range(10)]
    assert compare_samples(samples, samples, drift, samples) == compare_samples(samples, samples)


def test_cases_are_judged_together() -> None:
    """A p-value of 0.05 % is a finding alone, and chance among a thousand cases."""
    noise = [1e-5 * math.exp(0.01 * n) for n in (-1, -0.5, 0, 0.5, 1)]
    doubtful = compare_samples(noise, [sample * math.exp(0.025) for sample in noise])
    assert 1e-4 < doubtful.p_slower < FALSE_DISCOVERY_RATE
    assert decide([doubtful])[0].verdict == "regressed"
    unchanged = compare_samples(noise, noise)
    assert decide([doubtful, *[unchanged] * 1000])[0].verdict == "unstable"
    # Many such cases are no chance.
    assert {c.verdict for c in decide([doubtful] * 500 + [unchanged] * 500)[:500]} == {"regressed"}


def test_nothing_to_decide() -> None:
    assert decide([]) == []
    assert [c.verdict for c in decide([compare_samples([], [])])] == ["unstable"]


@pytest.mark.parametrize("tails", [0, 3])
def test_unchanged_cases_raise_no_alarm(tails: int) -> None:
    verdicts = simulate(cases=1500, samples=20, spread=0.01, tails=tails)
    assert verdicts["regressed"] + verdicts["improved"] <= 1
    assert verdicts["unstable"] <= 0.06 * 1500


def test_a_change_of_five_percent_is_found() -> None:
    verdicts = simulate(cases=500, samples=20, spread=0.01, effect=0.05)
    assert verdicts["regressed"] >= 0.95 * 500
    assert verdicts["improved"] == 0
    verdicts = simulate(cases=500, samples=20, spread=0.01, effect=-0.05)
    assert verdicts["improved"] >= 0.95 * 500
    assert verdicts["regressed"] == 0


def test_noise_is_reported_rather_than_passed() -> None:
    assert simulate(cases=300, samples=20, spread=0.04)["pass"] == 0


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=50))
def test_geometric_mean(ratios: list[float]) -> None:
    mean = geometric_mean(ratios)
    assert min(ratios) * (1 - 1e-9) <= mean <= max(ratios) * (1 + 1e-9)
    assert geometric_mean([1 / ratio for ratio in ratios]) == pytest.approx(1 / mean)
    assert mean == pytest.approx(float(stats.gmean(ratios)))


@pytest.mark.parametrize("ratios", [[], [1.0, 0.0], [-1.0], [math.nan], [math.inf]])
def test_geometric_mean_refuses(ratios: list[float]) -> None:
    with pytest.raises(ValueError, match="ratio"):
        geometric_mean(ratios)
