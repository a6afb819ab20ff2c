"""Where a series of numbers moved: pure functions, for `benchmarks.gate.history`.

Two detectors have to agree. One cuts the series into levels at the least cost (PELT, of `ruptures`,
by squares), its single outliers replaced by what is around them. The other, a modified z-score,
looks at the medians of up to fifteen values before and after such a cut, whatever levels lie there,
so that a few values that come back are no move: they have to differ by 2 %, by two and a half
spreads, and three of four values on either side have to lie nearer to their own median.

Levels that follow each other in one direction are one move where there are fewer than six values on
one of them, or where a step by itself would be too small to count: that is how a slow creep looks.
Which of the values a move spans is what fits best: a level, a straight rise, another level.

Sources: R. Killick, P. Fearnhead and I. A. Eckley, "Optimal detection of changepoints with a linear
computational cost", J. Am. Stat. Assoc. 107 (2012); B. Iglewicz and D. C. Hoaglin, "How to detect
and handle outliers", ASQC 1993.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from benchmarks.compare import MIN_EFFECT

Array = NDArray[np.float64]

LEAST = 3
"""Values that make a level."""
SIDE = 15
"""Values before and after a cut that are compared."""
PENALTY = 4.0
"""Of a cut, in variances and logarithms of the series' length."""
MIN_SCORE = 2.5
OWN_SIDE = 0.75
"""The part of the values on either side that have to lie nearer to their own median."""
TYPICAL_SPREAD = 0.004
"""The standard deviation of the recorded noise's calmer half: no series counts as calmer."""

_OUTLIER = 3.5
_GAUSSIAN_MAD = 0.6745
_SHORT = 2 * LEAST
_LONGER = 1.5
"""Spreads by which a rise that spans one value more has to fit better."""


class Move(NamedTuple):
    """A level of a series that gave way to another.

    Attributes:
        first: place of the first value that has moved.
        last: of the first one that is on the new level: `first`, unless it took several.
        old: the level before.
        new: the level after.
        score: by how many spreads they differ.
        before: the places that the old level is taken from.
        after: those of the new one.
    """

    first: int
    last: int
    old: float
    new: float
    score: float
    before: slice
    after: slice


class Seen(NamedTuple):
    """A series as the detectors see it.

    Attributes:
        values: as they were measured.
        calm: without outliers.
        scale: their spread.
        least: what a move has to be larger than.
    """

    values: Array
    calm: Array
    scale: float
    least: float

    @classmethod
    def of(cls, values: Array) -> Seen:
        """A series of logarithms."""
        calm = without_outliers(values)
        scale = spread(calm)
        return cls(values, calm, float(scale), float(_least(scale)))


def find_moves(values: Array) -> list[Move]:
    """The moves of a series of logarithms, in order; none of one shorter than two levels."""
    if len(values) < 2 * LEAST:
        return []
    seen = Seen.of(values)
    found = (compared(seen, start, end) for start, end in _candidates(seen))
    return [move for move in found if move is not None]


def can_move(series: Array) -> NDArray[np.bool_]:
    """Whether `find_moves` may find something, for many series of one length: one in each row.

    False is certain: no two levels that `compared` can be asked for lie far enough apart, wherever
    the cuts are (each leaves `LEAST` values on either side). True says nothing. It takes some
    twenty times the memory of the series.
    """
    if series.shape[-1] < 2 * LEAST:
        return np.zeros(len(series), dtype=bool)
    calm = without_outliers(series)
    before, after = _sides(calm, SIDE)
    old, new = before[..., LEAST - 1 : -LEAST], after[..., LEAST : 1 - LEAST]
    lowest, highest = np.minimum.accumulate(old, axis=-1), np.maximum.accumulate(old, axis=-1)
    furthest = np.maximum(new - lowest, highest - new).max(axis=-1)
    return furthest > _least(spread(calm))


def without_outliers(values: Array) -> Array:
    """Single values that lie beyond both sides, and far, are replaced by the nearer side's median.

    The first and the last stay: nobody can tell yet whether they are outliers. Of many series of
    one length, each is a row.
    """
    limit = _OUTLIER * spread(values)[..., None]
    before, after = _sides(values, LEAST)
    sides, inner = (before[..., :-2], after[..., 2:]), values[..., 1:-1]
    low, high = np.minimum(*sides), np.maximum(*sides)
    beyond = (inner < low - limit) | (inner > high + limit)
    kept = values.copy()
    kept[..., 1:-1] = np.where(beyond, np.clip(inner, low, high), inner)
    return kept


def spread(values: Array) -> Array:
    """A robust standard deviation from neighbours' differences, so that no level enlarges it.

    Of many series of one length, each is a row.
    """
    steps = np.diff(values)
    deviation = _medians(np.abs(steps - _medians(steps)[..., None])) / _GAUSSIAN_MAD
    return np.maximum(TYPICAL_SPREAD, deviation / math.sqrt(2))


def cuts(seen: Seen) -> list[int]:
    """Places where another level begins, by PELT."""
    # Its import takes half a second, and most series cannot move.
    import ruptures

    signal = ((seen.calm - _medians(seen.calm)) / seen.scale).reshape(-1, 1)
    search = ruptures.KernelCPD(kernel="linear", min_size=LEAST).fit(signal)
    return [int(at) for at in search.predict(pen=PENALTY * math.log(len(signal)))[:-1]]


def compared(seen: Seen, start: int, end: int) -> Move | None:
    """What lies between the level before `start` and the one from `end` on, where it counts."""
    calm = seen.calm
    before, after = slice(max(0, start - SIDE), start), slice(end, min(len(calm), end + SIDE))
    old, new = float(_medians(calm[before])), float(_medians(calm[after]))
    direction, middle = math.copysign(1, new - old), (old + new) / 2
    away = [direction * (seen.values[part] - middle) for part in (before, after)]
    own = min(float(np.mean(away[0] < 0)), float(np.mean(away[1] > 0)))
    if abs(new - old) <= seen.least or own < OWN_SIDE:
        return None
    first, last = _span(seen, range(before.start, after.stop), (start, end), (old, new))
    return Move(first, last, old, new, abs(new - old) / seen.scale, before, after)


def _least(scale: Array) -> Array:
    """What a move has to be larger than."""
    return np.maximum(MIN_SCORE * scale, math.log1p(MIN_EFFECT))


def _medians(values: Array) -> Array:
    """Those of the rows. A short row is sorted in a fraction of the time that `np.median` takes."""
    ranked, length = np.sort(values, axis=-1), values.shape[-1]
    return (ranked[..., (length - 1) // 2] + ranked[..., length // 2]) / 2


def _sides(values: Array, count: int) -> tuple[Array, Array]:
    """Medians of up to `count` values that end at each place of a row, and that begin there."""
    count = min(count, values.shape[-1])
    whole = _medians(sliding_window_view(values, count, axis=-1))
    first = [_medians(values[..., :size])[..., None] for size in range(1, count)]
    last = [_medians(values[..., -size:])[..., None] for size in range(count - 1, 0, -1)]
    return np.concatenate([*first, whole], axis=-1), np.concatenate([whole, *last], axis=-1)


def _candidates(seen: Seen) -> list[tuple[int, int]]:
    """First and last cut of each move that there may be."""
    places = cuts(seen)
    edges = pairwise([0, *places, len(seen.calm)])
    levels = [float(_medians(seen.calm[start:end])) for start, end in edges]
    steps = np.diff(levels)
    groups: list[list[int]] = []
    for at, step in enumerate(steps):
        if groups and np.sign(step) == np.sign(steps[at - 1]):
            short = places[at] - places[at - 1] < _SHORT
            so_far = abs(levels[at] - levels[groups[-1][0]])
            if short or min(so_far, abs(step)) <= seen.least:
                groups[-1].append(at)
                continue
        groups.append([at])
    return [(places[group[0]], places[group[-1]]) for group in groups]


def _span(
    seen: Seen, places: range, ends: tuple[int, int], levels: tuple[float, float]
) -> tuple[int, int]:
    """The first and the last place of the straight rise that fits best between two levels."""
    at, calm = np.arange(places.start, places.stop), seen.calm[places.start : places.stop]
    old, new = levels
    possible = range(
        max(places.start + 1, ends[0] - LEAST), min(places.stop - 1, ends[1] + LEAST) + 1
    )

    def best_from(first: int) -> tuple[float, int, int]:
        """The least cost of a rise that begins here, and its places."""
        longer = np.arange(possible.stop - first)
        risen = np.clip((at - first + 1) / (longer[:, None] + 1), 0, 1)
        missed = np.abs(calm - old - (new - old) * risen).sum(axis=1)
        costs = missed + _LONGER * seen.scale * longer
        least = int(costs.argmin())
        return float(costs[least]), first, first + least

    _, first, last = min(map(best_from, possible))
    return first, last


def largest_steps(values: Array, move: Move, count: int) -> Sequence[tuple[int, float]]:
    """Places of a move's largest steps in its direction, largest first, each with its size."""
    calm = without_outliers(values)
    steps = [(at, float(calm[at] - calm[at - 1])) for at in range(move.first, move.last + 1)]
    direction = math.copysign(1, move.new - move.old)
    own = [step for step in steps if direction * step[1] > 0]
    return sorted(own, key=lambda step: -direction * step[1])[:count]
