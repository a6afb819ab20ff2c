"""Matrices that the kernel computes by itself are known, and those beside them are not."""

import pytest
import torch

from kernl.ops.attention import seen_reference
from kernl.ops.relative_bias import bucket_reference, first_distances
from kernl.rewrite.bands import Bounds, Buckets, bounds_of, buckets_of

SIZES = [(1, 5), (13, 13), (40, 150), (150, 40), (200, 200)]


def distances(queries: int, keys: int) -> torch.Tensor:
    return torch.arange(keys)[None] - torch.arange(queries)[:, None] - (keys - queries)


def places(matrix: torch.Tensor) -> list[tuple[int, int]]:
    """Corners, and some between them."""
    rows, cols = matrix.shape
    random = torch.Generator("cpu").manual_seed(0)
    some = torch.randint(0, rows * cols, (6,), generator=random, device="cpu")
    corners = [(0, 0), (0, cols - 1), (rows - 1, 0), (rows - 1, cols - 1)]
    return [*corners, *((int(one) // cols, int(one) % cols) for one in some)]


@pytest.mark.parametrize(("queries", "keys"), [(13, 13), (6, 13), (13, 6)])
@pytest.mark.parametrize("bounds", [Bounds(True, None), Bounds(True, 4), Bounds(False, 4)])
def test_bounds_are_found_and_near_ones_are_not(queries: int, keys: int, bounds: Bounds) -> None:
    seen = seen_reference(queries, keys, *bounds, torch.device("cpu"))
    assert bounds_of(seen) == bounds
    for place in places(seen):
        altered = seen.clone()
        altered[place] = ~altered[place]
        near = bounds_of(altered)
        # Causality without its farthest key is a window.
        corner = place == (queries - 1, 0) and bounds == Bounds(True, None)
        assert near == (Bounds(True, keys - 1) if corner else None)


def test_all_and_nothing() -> None:
    assert bounds_of(torch.ones(5, 7, dtype=torch.bool)) == Bounds(False, None)
    assert bounds_of(torch.zeros(5, 7, dtype=torch.bool)) is None


@pytest.mark.parametrize(("queries", "keys"), SIZES)
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("count", "max_distance"), [(32, 128), (16, 40), (64, 777), (8, 20)])
def test_buckets_are_found_and_near_ones_are_not(
    queries: int, keys: int, bidirectional: bool, count: int, max_distance: int
) -> None:
    distance = distances(queries, keys)
    matrix = bucket_reference(distance, count, bidirectional, max_distance)
    options = buckets_of(matrix, count)
    assert options is not None
    assert torch.equal(bucket_reference(distance, count, *options), matrix)
    if queries > 1:
        assert options.bidirectional == bidirectional
    if max_distance == 128:
        assert options.max_distance == 128
    for place in places(matrix):
        altered = matrix.clone()
        altered[place] = (altered[place] + 1) % count
        near = buckets_of(altered, count)
        # The farthest distances occur once: their bucket may be that of another max_distance.
        assert near is None or torch.equal(bucket_reference(distance, count, *near), altered)
        if 0 < place[0] < queries - 1 and 0 < place[1] < keys - 1:
            assert near is None


def test_buckets_for_another_place_of_the_queries_are_not_taken() -> None:
    """The last query stands at the last key, and nowhere else."""
    shifted = distances(7, 20) - 1
    assert buckets_of(bucket_reference(shifted, 32, True, 128), 32) is None
    assert buckets_of(bucket_reference(distances(7, 20), 32, True, 128), 32) == Buckets(True, 128)


def test_a_device_by_default_changes_nothing() -> None:
    """A user may have said `torch.set_default_device`; these matrices are compared on the CPU."""
    matrix = bucket_reference(distances(7, 20).cpu(), 32, True, 128)
    first_distances.cache_clear()
    with torch.device("meta"):
        assert buckets_of(matrix, 32) == Buckets(True, 128)
