"""Matrices (queries, keys) that `attention` computes by itself: what is seen, T5's buckets.

A matrix is compared element by element with what the kernel would compute, whose last query
stands at the last key. One element that differs, and it is not taken.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from kernl.ops.attention import seen_reference
from kernl.ops.relative_bias import first_distances


class Bounds(NamedTuple):
    """What a query sees by its position."""

    causal: bool
    window: int | None


class Buckets(NamedTuple):
    """The options of T5's relative positions."""

    bidirectional: bool
    max_distance: int


def bounds_of(seen: torch.Tensor) -> Bounds | None:
    """The causality and the window that a boolean matrix (queries, keys) is; None if it is none."""
    if bool(seen.all()):
        return Bounds(False, None)
    queries, keys = seen.shape
    window = int(seen[-1].sum())
    if window == 0:
        return None
    for found in (Bounds(True, None), Bounds(True, window), Bounds(False, window)):
        if torch.equal(seen_reference(queries, keys, *found, seen.device), seen):
            return found
    return None


def buckets_of(matrix: torch.Tensor, count: int) -> Buckets | None:
    """The options under which T5 puts distances into this matrix of `count` buckets, or None.

    Where several do, as in a sequence too short for the wide buckets, 128 is taken for
    `max_distance` if it is among them.
    """
    matrix = matrix.cpu()
    queries, keys = matrix.shape
    # The bucket of each distance, from that of the last query to the first key on.
    found = torch.cat((matrix[-1], matrix[:-1, -1].flip(0)))
    places = torch.arange(max(queries, keys), device="cpu")
    distance = places[None, :keys] - places[:queries, None] + queries - 1
    if not torch.equal(found[distance], matrix):
        return None
    behind = found[keys:]
    for bidirectional in (True, False):
        if count % 2 or count < (8 if bidirectional else 4):
            continue
        if behind.numel() and bool(behind.all()) != bidirectional:
            continue
        for max_distance in _candidates(matrix[-1].flip(0), count, bidirectional):
            options = Buckets(bidirectional, max_distance)
            if torch.equal(_table(queries, keys, count, options), found):
                return options
    return None


def _table(queries: int, keys: int, count: int, options: Buckets) -> torch.Tensor:
    """The bucket of each distance, by the whole numbers that the kernel compares with."""
    exact, first = first_distances(count, *options)
    distance = torch.arange(1 - keys, queries, device="cpu")
    size = distance.abs() if options.bidirectional else (-distance).clamp_min(0)
    bounds = torch.tensor(first, device="cpu")
    wide = exact - 1 + torch.searchsorted(bounds, size, right=True)
    behind = exact + len(first) if options.bidirectional else 0
    return torch.where(size < exact, size, wide) + (distance > 0) * behind


def _candidates(by_size: torch.Tensor, count: int, bidirectional: bool) -> Iterator[int]:
    """What `max_distance` may be: 128, powers of two, and what the widest bucket says.

    Args:
        by_size: the bucket of each distance 0, 1, … from a query back.
        count: of buckets.
        bidirectional: whether half of them are for keys behind the query.
    """
    side = count // 2 if bidirectional else count
    exact = side // 2
    yield from (power for power in (128, *(2**n for n in range(3, 15))) if power > exact)
    bucket = int(by_size[-1])
    first = int((by_size < bucket).sum())
    if exact < bucket < side and first > exact + 1:
        # Bucket b begins at exact · (max_distance / exact) ^ ((b - exact) / (side - exact)).
        power = (side - exact) / (bucket - exact)
        low, high = (exact * math.pow(size / exact, power) for size in (first - 1, first))
        if high < 2**14:
            yield from range(max(exact + 1, math.floor(low)), math.ceil(high) + 1)
