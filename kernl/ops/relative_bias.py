"""T5's relative positions: which bucket a distance between key and query falls into.

Small distances have a bucket each; wider ones share buckets that grow with the logarithm of the
distance, up to `max_distance`, from which on all share the last. In both directions (encoders)
half of the buckets are for keys behind the query.

Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer", 2020, https://arxiv.org/abs/1910.10683, section 2.1.
"""

import math
from functools import cache

import torch


def bucket_reference(
    distance: torch.Tensor, buckets: int, bidirectional: bool, max_distance: int
) -> torch.Tensor:
    """The bucket of key position minus query position, as a model computes it in float32."""
    first = torch.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        first = (distance > 0).to(distance.dtype) * buckets
        size = distance.abs()
    else:
        size = (-distance).clamp_min(0)
    exact = buckets // 2
    ratio = torch.log(size.clamp_min(1).float() / exact) / math.log(max_distance / exact)
    wide = exact + (ratio * (buckets - exact)).to(distance.dtype)
    return first + torch.where(size < exact, size, wide.clamp_max(buckets - 1))


def relative_bias_reference(
    weight: torch.Tensor, distance: torch.Tensor, bidirectional: bool, max_distance: int
) -> torch.Tensor:
    """(heads, q_len, k_len) from weight (buckets, heads) and distance (q_len, k_len)."""
    bucket = bucket_reference(distance, weight.shape[0], bidirectional, max_distance)
    return torch.nn.functional.embedding(bucket, weight).permute(2, 0, 1)


@cache
def first_distances(
    buckets: int, bidirectional: bool, max_distance: int
) -> tuple[int, tuple[int, ...]]:
    """How many distances have a bucket each, and the first distance of every wider bucket.

    Taken from the formula itself, so that a kernel that compares integers rounds nothing.
    """
    side = buckets // 2 if bidirectional else buckets
    distance = -torch.arange(max_distance + 1, dtype=torch.int64, device="cpu")
    found = bucket_reference(distance, buckets, bidirectional, max_distance).tolist()
    exact = side // 2
    # A bucket that no distance falls into begins where the next one does.
    first = (
        next((d for d, bucket in enumerate(found) if bucket >= wanted), max_distance)
        for wanted in range(exact, side)
    )
    return exact, tuple(first)
