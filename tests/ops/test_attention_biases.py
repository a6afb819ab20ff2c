"""What changes the scores of attention: masks, T5's buckets, ALiBi, a soft cap."""

from typing import Any

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention

from kernl import tuning
from kernl.ops import attention
from kernl.ops.attention_config import ATTENTION_TUNABLE, AttentionConfig
from kernl.ops.relative_bias import bucket_reference, first_distances
from tests.ops.attention_operands import (
    DEVICE,
    INFINITY,
    TOLERANCE,
    blocks,
    error,
    operands,
    random,
)

MASK_SHAPES = [(2, 4, 19, 35), (1, 1, 19, 35), (2, 1, 1, 35), (4, 19, 35), (19, 35), (35,), (1,)]


@pytest.mark.parametrize("shape", [*MASK_SHAPES, (2, 4, 19, 1), (2, 1, 19, 1)])
@pytest.mark.parametrize("kind", ["additive", "boolean", "float32"])
def test_masks_broadcast(shape: tuple[int, ...], kind: str) -> None:
    dtype = torch.float16 if kind == "float32" else torch.float32
    q, k, v = (x.to(dtype) for x in operands(19, 35, batch=2, heads=4, kv_heads=2))
    mask = random(*shape, seed=3)
    if kind == "boolean":
        mask = mask > -1
    with blocks():
        assert error(q, k, v, mask=mask) <= TOLERANCE["fp16" if kind == "float32" else "fp32"]
        assert error(q, k, v, mask=mask, causal=True) <= TOLERANCE["fp16"]


@pytest.mark.parametrize("lowest", [-INFINITY, torch.finfo(torch.float32).min])
def test_masks_of_the_lowest_number(lowest: float) -> None:
    """-inf hides; the lowest finite number, as models write it, leaves rows masked whole alike."""
    q, k, v = operands(9, 35)
    mask = torch.zeros(9, 35, device=DEVICE).masked_fill(random(9, 35) > 0, lowest)
    mask[:, :20] = lowest
    mask[3] = lowest
    with blocks():
        out = attention(q, k, v, mask=mask)
        assert error(q, k, v, mask=mask) <= TOLERANCE["fp32"]
    if lowest == -INFINITY:
        assert torch.equal(out[:, :, 3], torch.zeros_like(out[:, :, 3]))
    else:
        assert torch.allclose(out[:, :, 3], v.mean(2), atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_rows_masked_whole_give_zeros(causal: bool) -> None:
    q, k, v = operands(18, 33)
    mask = torch.ones(18, 33, dtype=torch.bool, device=DEVICE)
    mask[4] = False
    with blocks():
        out = attention(q, k, v, mask=mask, causal=causal)
        assert error(q, k, v, mask=mask, causal=causal) <= TOLERANCE["fp32"]
    assert torch.equal(out[:, :, 4], torch.zeros_like(out[:, :, 4]))
    assert out[:, :, 5].abs().sum() > 0


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (32, 64), (16, 20), (64, 1000)])
def test_buckets_are_those_of_transformers(
    buckets: int, max_distance: int, bidirectional: bool
) -> None:
    distance = torch.arange(-600, 601)
    bucket: Any = T5Attention._relative_position_bucket
    theirs = bucket(distance, bidirectional, buckets, max_distance)
    ours = bucket_reference(distance, buckets, bidirectional, max_distance)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (16, 20), (64, 1000)])
def test_the_kernel_finds_each_bucket(buckets: int, max_distance: int, bidirectional: bool) -> None:
    """Queries and keys of zeros leave the softmax of the biases alone."""
    q = torch.zeros(1, 1, 2, 16, device=DEVICE)
    k = torch.zeros(1, 1, 700, 16, device=DEVICE)
    v = random(1, 1, 700, 16)
    bias = random(buckets, 1)
    options = {"bidirectional": bidirectional, "max_distance": max_distance}
    assert error(q, k, v, relative_bias=bias, **options) <= TOLERANCE["fp32"]
    many = torch.zeros(1, 1, 700, 16, device=DEVICE)
    with tuning.forcing(ATTENTION_TUNABLE, AttentionConfig(64, 64, 4, 1)):
        found = error(many, k[:, :, :130], v[:, :, :130], relative_bias=bias, **options)
    assert found <= TOLERANCE["fp32"]


def test_first_distances_cover_every_bucket() -> None:
    exact, first = first_distances(32, True, 128)
    assert exact == 8
    assert len(first) == 8
    assert list(first) == sorted(first)
    assert first[0] == 8
    assert first[-1] < 128


def test_alibi_with_groups_and_a_cache() -> None:
    q, k, v = operands(7, 30, heads=4, kv_heads=2)
    slopes = random(4).abs()
    assert error(q, k, v, alibi_slopes=slopes, causal=True) <= TOLERANCE["fp32"]
    assert error(q, k, v, alibi_slopes=slopes) <= TOLERANCE["fp32"]


@pytest.mark.parametrize("softcap", [0.5, 3.0, 50.0])
def test_softcap_comes_before_the_mask(softcap: float) -> None:
    q, k, v = operands(18, 30)
    mask = random(18, 30, seed=5)
    assert error(q, k, v, softcap=softcap, mask=mask) <= TOLERANCE["fp32"]
