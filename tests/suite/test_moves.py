"""Where a series moved: steps and creep, what is no move, and which values are named."""

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.gate import moves
from benchmarks.gate.moves import Array, find_moves


def stairs(length: int, start: int, steps: int, size: float, apart: int = 1) -> Array:
    """The logarithm of so many steps of a size, one every `apart` values."""
    at = np.arange(length)[:, None] >= start + apart * np.arange(steps)
    return np.asarray(at.sum(axis=1) * np.log1p(size))


def still(length: int) -> Array:
    """A small regular noise."""
    return np.array([(-0.002, 0.001, 0.002, -0.001)[at % 4] for at in range(length)])


def places(values: Array) -> list[tuple[int, int]]:
    return [(move.first, move.last) for move in find_moves(values)]


@pytest.mark.parametrize("size", [0.03, 0.05, 0.1, -0.05])
@pytest.mark.parametrize("start", [3, 4, 17, 27])
def test_a_step_is_named_by_its_value(size: float, start: int) -> None:
    (move,) = find_moves(still(30) + stairs(30, start, 1, size))
    assert (move.first, move.last) == (start, start)
    assert move.new - move.old == pytest.approx(np.log1p(size), abs=0.003)
    assert move.score > moves.MIN_SCORE
    assert (move.before.stop, move.after.start) == (start, start)


def test_a_level_needs_three_values() -> None:
    assert places(still(30) + stairs(30, 28, 1, 0.1)) == []
    assert places(still(30) + stairs(30, 2, 1, 0.1)) == []


def test_what_is_too_small_to_count_is_no_move() -> None:
    assert places(still(60) + stairs(60, 30, 1, 0.018)) == []
    assert places(still(60) + stairs(60, 30, 1, 0.024)) == [(30, 30)]


def test_creep_is_one_move_of_all_its_steps() -> None:
    (move,) = find_moves(still(40) + stairs(40, 15, 10, 0.01))
    assert (move.first, move.last) == (15, 24)
    assert move.new - move.old == pytest.approx(10 * np.log1p(0.01), abs=0.003)


@pytest.mark.parametrize("apart", [2, 3, 6, 8])
def test_slow_creep_is_found_whole(apart: int) -> None:
    """In parts that add up, where each of them would count by itself."""
    length = 20 + 10 * apart
    found = find_moves(still(length) + stairs(length, 10, 10, 0.01, apart))
    assert 1 <= len(found) <= 5
    assert found[0].first in range(7, 10 + 2 * apart)
    assert found[-1].last in range(10 + 7 * apart, 12 + 9 * apart)
    assert found[-1].new - found[0].old == pytest.approx(10 * np.log1p(0.01), abs=0.012)


def test_no_two_neighbours_of_a_creep_would_count() -> None:
    """What a gate between two commits sees of it."""
    values = still(40) + stairs(40, 15, 10, 0.01)
    assert np.abs(np.diff(values)).max() < np.log1p(0.02)
    assert find_moves(values)


def test_large_steps_in_one_direction_stay_apart() -> None:
    values = still(40) + stairs(40, 10, 1, 0.05) + stairs(40, 25, 1, 0.05)
    assert places(values) == [(10, 10), (25, 25)]


def test_a_move_names_its_largest_steps() -> None:
    values = still(40) + stairs(40, 15, 10, 0.01) + stairs(40, 18, 1, 0.03)
    (move,) = find_moves(values)
    assert 14 <= move.first <= 16
    assert 23 <= move.last <= 25
    steps = moves.largest_steps(values, move, 3)
    assert steps[0][0] == 18
    assert len(steps) == 3
    (move,) = find_moves(-values)
    assert moves.largest_steps(-values, move, 1)[0][0] == 18


def test_a_few_values_that_come_back_are_no_move() -> None:
    values = still(40)
    values[20:25] += 0.1
    assert len(moves.cuts(moves.Seen.of(values))) == 2
    assert places(values) == []
    values[25:32] += 0.1
    assert places(values) == [(20, 20), (32, 32)]


def test_an_outlier_is_no_move_and_hides_none() -> None:
    values = still(24) + stairs(24, 5, 1, 0.07)
    values[[12, 16]] += 0.3
    assert places(values) == [(5, 5)]
    values[5] += 0.3  # the step itself
    assert places(values) == [(5, 5)]
    assert places(still(24) + 0.1 * (np.arange(24) == 12)) == []


def test_levels_that_overlap_are_none() -> None:
    values = still(40) + stairs(40, 20, 1, 0.05)
    values[[8, 12, 16]] += 0.05
    assert places(values) == [(20, 20)]
    values[[6, 10]] += 0.05
    assert places(values) == []


@pytest.mark.parametrize("silenced", ["cuts", "compared"])
def test_both_detectors_have_to_agree(silenced: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[str, Callable[..., object]] = {
        "cuts": lambda _: [],
        "compared": lambda *_: None,
    }
    values = still(40) + stairs(40, 20, 1, 0.1)
    assert find_moves(values)
    monkeypatch.setattr(moves, silenced, answers[silenced])
    assert find_moves(values) == []


def test_the_spread_is_that_of_the_noise_alone() -> None:
    values = np.random.default_rng(5).normal(0, 0.02, 2_000)
    assert moves.spread(values) == pytest.approx(0.02, rel=0.1)
    assert moves.spread(values + stairs(2_000, 900, 1, 3.0)) == pytest.approx(0.02, rel=0.1)
    assert moves.spread(np.zeros(20)) == moves.TYPICAL_SPREAD


@pytest.mark.parametrize("length", range(6))
def test_too_short_a_series_has_no_move(length: int) -> None:
    assert find_moves(np.linspace(0, 1, length)) == []


def test_constant_and_absurd_values_are_no_error() -> None:
    assert find_moves(np.zeros(20)) == []
    assert find_moves(np.array([0.0] * 19 + [700.0])) == []
    for height in (0.1, 690.0, 1400.0):
        assert places(np.repeat([0.0, height], 10)) == [(10, 10)]
