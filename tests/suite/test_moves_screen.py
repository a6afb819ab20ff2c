"""Series told together: none that moved is passed over, and quicker ways give the same numbers."""

import math
from collections import defaultdict

import numpy as np
import pytest
from scipy import stats

from benchmarks.gate import moves
from benchmarks.gate.moves import Array, can_move, find_moves

SERIES = 3_000


def any_series(noise: np.random.Generator) -> Array:
    """Noise of some scale, and at random steps, a creep, outliers, values that are rounded."""
    length = int(noise.integers(6, 121))
    scale = noise.choice([0.0005, 0.002, 0.005, 0.01, 0.03, 0.1])
    values = noise.normal(0, scale, length)
    if noise.random() < 0.3:
        values = scale * noise.standard_t(3, length)
    for _ in range(noise.integers(0, 4)):
        values[noise.integers(0, length) :] += noise.choice([-1, 1]) * noise.uniform(0.005, 0.1)
    if noise.random() < 0.3:
        first, last = sorted(noise.integers(0, length, 2))
        rise = noise.uniform(-0.3, 0.3)
        values += np.interp(np.arange(length), [first, last + 1], [0, rise])
    outliers = noise.random(length) < noise.choice([0, 0.02, 0.1])
    values[outliers] += noise.uniform(-0.5, 0.5)
    return np.round(values, 2) + 0.0 if noise.random() < 0.1 else values


@pytest.fixture(scope="module")
def every() -> list[Array]:
    noise = np.random.default_rng(3)
    return [any_series(noise) for _ in range(SERIES)]


@pytest.fixture(scope="module")
def by_length(every: list[Array]) -> list[Array]:
    """The same, those of one length as the rows of a matrix."""
    found = defaultdict(list)
    for values in every:
        found[len(values)].append(values)
    return [np.stack(some) for some in found.values()]


def test_whatever_moved_can_move(by_length: list[Array]) -> None:
    moved = passed = 0
    for rows in by_length:
        able = can_move(rows)
        found = [bool(find_moves(values)) for values in rows]
        assert not np.any(np.array(found) & ~able)
        moved, passed = moved + sum(found), passed + int(able.sum())
    assert SERIES / 2 < moved < passed < SERIES * 0.75


@pytest.mark.parametrize(
    ("scale", "length", "most"), [(0.005, 500, 0.001), (0.005, 20, 0.01), (0.02, 100, 0.1)]
)
def test_hardly_any_noise_can_move(scale: float, length: int, most: float) -> None:
    noise = np.random.default_rng(7).normal(0, scale, (1_000, length))
    assert np.mean(can_move(noise)) <= most


def test_levels_at_the_ends_are_of_three_values() -> None:
    values = np.zeros((4, 20))
    values[0, -3:] = values[1, :3] = values[2, -1:] = values[3, :1] = 0.021
    assert can_move(values).tolist() == [True, True, False, False]
    assert not can_move(values * (0.0197 / 0.021)).any()  # less than 2 %


def test_a_creep_of_steps_too_small_to_count_can_move() -> None:
    assert can_move(np.linspace(0, 0.1, 60)[None]).all()


@pytest.mark.parametrize("length", range(1, 6))
def test_too_short_a_series_cannot_move(length: int) -> None:
    assert can_move(np.full((2, length), [[0.0], [1.0]])).tolist() == [False, False]


def test_rows_are_told_like_each_by_itself(by_length: list[Array]) -> None:
    for rows in by_length:
        assert np.array_equal(can_move(rows), [can_move(row[None])[0] for row in rows])
        calm = moves.without_outliers(rows)
        assert np.array_equal(calm, [moves.without_outliers(row) for row in rows])
        assert np.array_equal(moves.spread(rows), [moves.spread(row) for row in rows])


def test_cuts_leave_a_level_on_either_side(every: list[Array]) -> None:
    """What `can_move` relies on."""
    for values in every[:1_000]:
        found = [0, *moves.cuts(moves.Seen.of(values)), len(values)]
        assert min(np.diff(found)) >= moves.LEAST


def test_the_spread_and_outliers_are_those_of_scipy_and_of_plain_loops(every: list[Array]) -> None:
    for values in every[:300]:
        deviation = stats.median_abs_deviation(np.diff(values)) / 0.6745 / math.sqrt(2)
        assert moves.spread(values) == max(moves.TYPICAL_SPREAD, deviation)
        limit, expected = 3.5 * moves.spread(values), values.copy()
        for at in range(1, len(values) - 1):
            sides = values[max(0, at - 3) : at], values[at + 1 : at + 4]
            low, high = sorted(float(np.median(side)) for side in sides)
            if not low - limit <= values[at] <= high + limit:
                expected[at] = min(max(values[at], low), high)
        assert np.array_equal(moves.without_outliers(values), expected)


def test_a_move_spans_what_fits_best_of_all(every: list[Array]) -> None:
    for values in every[:200]:
        seen = moves.Seen.of(values)
        for move in find_moves(values):
            places = np.arange(move.before.start, move.after.stop)
            possible = range(
                max(places[1], move.before.stop - 3), min(places[-1], move.after.start + 3) + 1
            )
            costs = {}
            for first in possible:
                for last in range(first, possible.stop):
                    risen = np.clip((places - first + 1) / (last - first + 1), 0, 1)
                    missed = seen.calm[places] - move.old - (move.new - move.old) * risen
                    costs[first, last] = np.abs(missed).sum() + 1.5 * seen.scale * (last - first)
            assert (move.first, move.last) == min(costs, key=lambda span: costs[span])
