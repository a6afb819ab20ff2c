"""Attention beside the contract: masks, edges of blocks, strides, T5's buckets, packing."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.t5.modeling_t5 import T5Attention

from kernl import errors, tuning
from kernl.op import DTYPES, Case
from kernl.ops import attention, attention_varlen
from kernl.ops.attention import attention_plan, attention_reference
from kernl.ops.attention_cases import ATTENTION, attention_library
from kernl.ops.attention_config import ATTENTION_TUNABLE, VARLEN_TUNABLE, AttentionConfig
from kernl.ops.attention_varlen import attention_varlen_reference
from kernl.ops.relative_bias import bucket_reference, first_distances
from kernl.ops.tile import shared_memory_limit

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = ATTENTION.tolerance
INFINITY = float("inf")


def blocks(block_n: int = 16) -> AbstractContextManager[None]:
    """Inside, blocks are small, so that short sequences have many boundaries."""
    return tuning.forcing(ATTENTION_TUNABLE, AttentionConfig(16, block_n, 4, 1))


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator(DEVICE).manual_seed(seed + sum(shape))
    return (2 * torch.randn(shape, generator=generator, device=DEVICE)).to(dtype)


def operands(
    q_len: int, k_len: int, batch: int = 1, heads: int = 2, kv_heads: int = 2, dim: int = 32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    k = random(batch, kv_heads, k_len, dim, seed=1)
    return random(batch, heads, q_len, dim), k, random(batch, kv_heads, k_len, dim, seed=2)


def whole(*values: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device=DEVICE)


def in_float64(options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.double() if torch.is_tensor(value) and value.is_floating_point() else value
        for name, value in options.items()
    }


def error(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: Any) -> float:
    """Relative L2 against float64."""
    truth = attention_reference(q.double(), k.double(), v.double(), **in_float64(options))
    out = attention(q, k, v, **options)
    assert out.dtype == q.dtype
    assert out.shape == truth.shape
    assert not truth.isnan().any()
    return float((out.double() - truth).norm() / truth.norm().clamp_min(1e-30))


@pytest.mark.parametrize("k_len", [1, 15, 16, 17, 31, 33])
@pytest.mark.parametrize("q_len", [1, 16, 17, 33])
@pytest.mark.parametrize("causal", [False, True])
def test_lengths_at_every_boundary(q_len: int, k_len: int, causal: bool) -> None:
    """Also the ancestor's fault: a key length that is no multiple of a block."""
    with blocks():
        assert error(*operands(q_len, k_len), causal=causal) <= TOLERANCE["fp32"]


def test_keys_beyond_the_last_block_count_for_nothing_even_with_negative_scores() -> None:
    """Padding a block with keys of zero would give them the score 0, above all true ones."""
    q, k, v = operands(5, 19)
    k, q = k.abs(), -q.abs()
    with blocks():
        assert error(q, k, v) <= TOLERANCE["fp32"]
        assert error(q, k, v, causal=True) <= TOLERANCE["fp32"]


def test_causality_is_aligned_at_the_last_key() -> None:
    q, k, v = operands(3, 40)
    with blocks():
        out = attention(q, k, v, causal=True)
        changed = k.clone()
        changed[:, :, 38:] += 1
        again = attention(q, changed, v, causal=True)
    assert torch.equal(out[:, :, 0], again[:, :, 0])
    assert not torch.equal(out[:, :, 1], again[:, :, 1])


def test_a_prefix_and_the_rest_give_what_the_whole_gives() -> None:
    """A cache of keys: the last queries alone see what they see among all queries."""
    q, k, v = operands(37, 37)
    with blocks():
        all_at_once = attention(q, k, v, causal=True)
        rest = attention(q[:, :, 30:], k, v, causal=True)
    assert torch.allclose(all_at_once[:, :, 30:], rest, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("k_len", [3, 16, 20])
def test_queries_before_the_first_key_give_zeros(k_len: int) -> None:
    q, k, v = operands(24, k_len)
    with blocks():
        out = attention(q, k, v, causal=True)
        assert error(q, k, v, causal=True) <= TOLERANCE["fp32"]
    assert torch.equal(out[:, :, : 24 - k_len], torch.zeros_like(out[:, :, : 24 - k_len]))


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


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("causal", [False, True])
def test_key_lengths(dtype: torch.dtype, causal: bool) -> None:
    lengths = whole(0, 1, 16, 33, 40, dtype=dtype)
    q, k, v = operands(20, 40, batch=5, heads=2, kv_heads=1)
    truth = attention_reference(q, k, v, causal=causal, key_lengths=lengths)
    unused = torch.arange(40, device=DEVICE)[:, None] >= lengths[:, None, None, None]
    k, v = (x.masked_fill(unused, float("nan")) for x in (k, v))
    with blocks():
        out = attention(q, k, v, causal=causal, key_lengths=lengths)
    assert (out - truth).norm() <= TOLERANCE["fp32"] * truth.norm()
    assert torch.equal(out[0], torch.zeros_like(out[0]))


def test_key_lengths_outside_count_as_the_ends() -> None:
    q, k, v = operands(3, 20, batch=2)
    out = attention(q, k, v, key_lengths=whole(-4, 900))
    assert torch.equal(out[0], torch.zeros_like(out[0]))
    assert torch.equal(out[1], attention(q, k, v, key_lengths=whole(0, 20))[1])


@pytest.mark.parametrize("window", [1, 2, 15, 16, 17, 40, 1000])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("q_len", "k_len"), [(33, 33), (7, 50), (50, 20)])
def test_windows(window: int, causal: bool, q_len: int, k_len: int) -> None:
    with blocks():
        q, k, v = operands(q_len, k_len)
        assert error(q, k, v, window=window, causal=causal) <= TOLERANCE["fp32"]


def test_keys_outside_the_window_are_not_read() -> None:
    q, k, v = operands(64, 64)
    k[:, :, :16], v[:, :, :16] = float("nan"), float("nan")
    with blocks():
        out = attention(q, k, v, window=5, causal=True)
    assert out[:, :, :16].isnan().any()
    assert not out[:, :, 32:].isnan().any()


@pytest.mark.parametrize("heads", [(6, 6), (6, 3), (6, 2), (6, 1)])
def test_groups_of_heads(heads: tuple[int, int]) -> None:
    q, k, v = operands(19, 23, batch=2, heads=heads[0], kv_heads=heads[1])
    assert error(q, k, v, causal=True) <= TOLERANCE["fp32"]


@pytest.mark.parametrize("dim", [1, 7, 32, 40, 64, 72, 80, 96, 100, 112, 128, 160, 192, 255, 256])
def test_head_dims(dim: int) -> None:
    q, k, v = operands(17, 21, dim=dim)
    assert error(q, k, v) <= TOLERANCE["fp32"]


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


@pytest.mark.parametrize("scale", [0.0, 0.01, 1.0])
def test_scale(scale: float) -> None:
    q, k, v = operands(18, 30)
    assert error(q, k, v, scale=scale) <= TOLERANCE["fp32"]


@pytest.mark.parametrize("size", [-30.0, 30.0])
def test_scores_far_apart_do_not_overflow(size: float) -> None:
    q, k, v = operands(5, 40)
    q = q * size
    k[:, :, ::3] *= 30
    out = attention(q.half(), k.half(), v.half())
    assert out.isfinite().all()
    truth = attention_reference(q.half().double(), k.half().double(), v.half().double())
    assert (out.double() - truth).norm() <= TOLERANCE["fp16"] * truth.norm()


def test_operands_larger_than_one_in_fp16_are_scaled_in_float32() -> None:
    """q · k of these is above the largest half before it is scaled."""
    q, k, v = (x.half() for x in operands(3, 20, dim=128))
    q, k = q * 100, k * 100
    out = attention(q, k, v, scale=1e-4)
    truth = attention_reference(q.double(), k.double(), v.double(), scale=1e-4)
    assert (out.double() - truth).norm() <= TOLERANCE["fp16"] * truth.norm()


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "heads of a token side by side": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "head_dim outermost": lambda x: x.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0),
    "every third element": lambda x: x.repeat_interleave(3, dim=-1)[..., ::3],
    "behind an odd offset": lambda x: torch.cat([x.flatten()[:3], x.flatten()])[3:].view(x.shape),
    "one head for all": lambda x: x[:, :1].expand(x.shape),
    "one sequence for all": lambda x: x[:1].expand(x.shape),
    "reversed twice": lambda x: x.flip(2).flip(2),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(layout: str) -> None:
    q, k, v = (LAYOUTS[layout](x) for x in operands(18, 33, batch=2))
    mask = random(2, 33, 18, seed=4).transpose(1, 2)[:, None].expand(2, 2, 18, 33)
    assert error(q, k, v) <= TOLERANCE["fp32"]
    assert error(q, k, v, mask=mask, causal=True) <= TOLERANCE["fp32"]


def test_the_slices_of_one_projection() -> None:
    packed = random(2, 18, 3, 4, 32)
    q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
    assert error(q, k, v, causal=True) <= TOLERANCE["fp32"]


def test_the_output_is_ready_for_the_next_projection() -> None:
    out = attention(*operands(5, 7, batch=2))
    assert out.transpose(1, 2).is_contiguous()


def test_empty_batches_queries_and_keys() -> None:
    q, k, v = operands(4, 9)
    assert attention(q[:0], k[:0], v[:0]).shape == (0, 2, 4, 32)
    assert attention(q[:, :, :0], k, v).shape == (1, 2, 0, 32)
    out = attention(q, k[:, :, :0], v[:, :, :0])
    assert torch.equal(out, torch.zeros_like(out))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [(5,), (0, 17, 1, 0, 40, 16), (1, 1, 1), (33, 0)])
def test_packed_sequences(lengths: tuple[int, ...], causal: bool) -> None:
    tokens = sum(lengths)
    q, k, v = (random(tokens, heads, 32, seed=heads) for heads in (4, 2, 2))
    starts = whole(*(sum(lengths[:place]) for place in range(len(lengths) + 1)))
    longest = max(lengths)
    with tuning.forcing(VARLEN_TUNABLE, AttentionConfig(16, 16, 4, 1)):
        out = attention_varlen(q, k, v, starts, longest, causal=causal)
        wider = attention_varlen(q, k, v, starts, longest + 50, causal=causal)
    truth = attention_varlen_reference(
        q.double(), k.double(), v.double(), starts, longest, causal=causal
    )
    assert (out.double() - truth).norm() <= TOLERANCE["fp32"] * truth.norm()
    assert torch.equal(out, wider)
    place = 0
    for length in lengths:
        mine, keys, values = (x[place : place + length].transpose(0, 1)[None] for x in (q, k, v))
        alone = attention(mine, keys, values, causal=causal)[0].transpose(0, 1)
        assert torch.allclose(out[place : place + length], alone, atol=2e-6, rtol=2e-6)
        place += length


@pytest.mark.parametrize("options", [{"window": 5}, {"softcap": 3.0}, {"scale": 0.3}])
def test_packed_sequences_take_options(options: dict[str, Any]) -> None:
    q, k, v = (random(50, 2, 40, seed=seed) for seed in range(3))
    starts = whole(0, 20, 50, dtype=torch.int64)
    slopes = random(2).abs()
    out = attention_varlen(q, k, v, starts, 30, causal=True, alibi_slopes=slopes, **options)
    truth = attention_varlen_reference(
        q.double(),
        k.double(),
        v.double(),
        starts,
        30,
        causal=True,
        alibi_slopes=slopes.double(),
        **options,
    )
    assert (out.double() - truth).norm() <= TOLERANCE["fp32"] * truth.norm()


def test_no_tokens_at_all() -> None:
    q = random(0, 2, 32)
    assert attention_varlen(q, q, q, whole(0), 0).shape == (0, 2, 32)
    assert attention_varlen(q, q, q, whole(0, 0, 0), 0).shape == (0, 2, 32)


def test_blocks_seen_whole_are_walked_without_a_mask() -> None:
    """What is asked for reaches the kernel, and nothing else does."""
    q, k, v = operands(4, 9)
    constants = attention_plan(90, q, k, v).kernels[0].constants
    assert not any(constants[name] for name in ("CAUSAL", "WINDOW", "ALIBI", "SOFTCAP", "VARLEN"))
    assert constants["MASK"] == constants["RELATIVE"] == "none"
    mask = torch.zeros(1, 1, 1, 9, device=DEVICE)
    constants = attention_plan(90, q, k, v, mask, True, window=3).kernels[0].constants
    assert constants["CAUSAL"] is constants["WINDOW"] is True
    assert constants["MASK"] == "additive"
    assert constants["MASK_OF_QUERY"] is False


@pytest.mark.parametrize("capability", [80, 86, 89, 90, 100])
@pytest.mark.parametrize("bits", [16, 32])
def test_every_class_has_configurations_that_fit(bits: int, capability: int) -> None:
    for dim in (32, 40, 64, 96, 128, 160, 256):
        for extra in (0, 1):
            for queries in (1, 128, 4096):
                key = {"bits": bits, "causal": 1, "extra": extra, "programs": 96}
                key |= {"queries": queries, "keys": 4096, "dim": dim}
                for tunable in (ATTENTION_TUNABLE, VARLEN_TUNABLE):
                    config = tunable.default(capability, key)
                    width = max(16, 1 << (dim - 1).bit_length())
                    rows = config.block_m + 2 * config.num_stages * config.block_n
                    assert rows * width * bits // 8 <= shared_memory_limit(capability)


@pytest.mark.parametrize(
    "case", [c for c in ATTENTION.edge_cases() if c.dtype == "fp32"], ids=lambda c: c.name
)
def test_the_library_computes_the_same(case: Case) -> None:
    inputs = ATTENTION.inputs(case, DEVICE, 1)
    if case["bias"] in ("boolean", "alibi", "relative", "past", "softcap", "window"):
        with pytest.raises(NotImplementedError, match="scaled_dot_product_attention"):
            attention_library(**inputs)
        return
    out = attention_library(**inputs)
    truth = attention_reference(**inputs)
    seen = truth.abs().sum(-1) > 0
    assert torch.allclose(out[seen], truth[seen], atol=1e-5, rtol=1e-5)


def _wrong_calls() -> dict[str, tuple[type[Exception], Callable[[], Any], str]]:
    q, k, v = operands(4, 9, heads=4)
    ids = whole(0, 4)
    packed = q[0].transpose(0, 1)
    return {
        "three dimensions": (errors.ShapeError, lambda: attention(q[0], k, v), "4 dimensions"),
        "heads": (
            errors.ShapeError,
            lambda: attention(q[:, :3], k, v),
            "q has 3 heads, k has 2",
        ),
        "v": (errors.ShapeError, lambda: attention(q, k, v[:, :, 1:]), "the shape of k"),
        "batch": (errors.ShapeError, lambda: attention(q, k.repeat(2, 1, 1, 1), v), "v has shape"),
        "head_dim": (
            errors.ShapeError,
            lambda: attention(*operands(2, 2, dim=264)),
            "head_dim is 264; allowed: up to 256",
        ),
        "dtype": (errors.DTypeError, lambda: attention(q, k.half(), v), "one dtype"),
        "mask": (errors.ShapeError, lambda: attention(q, k, v, mask=q), "mask has shape"),
        "mask of ints": (
            errors.DTypeError,
            lambda: attention(q, k, v, mask=ids),
            "torch.bool",
        ),
        "causal": (
            errors.ArgumentError,
            lambda: attention(q, k, v, causal=cast(bool, 1)),
            "True or False",
        ),
        "scale": (
            errors.OptionError,
            lambda: attention(q, k, v, scale=float("nan")),
            "a finite number",
        ),
        "window": (errors.OptionError, lambda: attention(q, k, v, window=0), "window=0"),
        "softcap": (errors.OptionError, lambda: attention(q, k, v, softcap=0.0), "above 0"),
        "lengths": (
            errors.DTypeError,
            lambda: attention(q, k, v, key_lengths=random(1)),
            "torch.int32",
        ),
        "lengths' shape": (
            errors.ShapeError,
            lambda: attention(q, k, v, key_lengths=ids),
            "the batch of q",
        ),
        "slopes": (
            errors.ShapeError,
            lambda: attention(q, k, v, alibi_slopes=random(3)),
            "the heads of q",
        ),
        "buckets": (
            errors.OptionError,
            lambda: attention(q, k, v, relative_bias=random(6, 4)),
            "the number of buckets",
        ),
        "bias": (
            errors.ShapeError,
            lambda: attention(q, k, v, relative_bias=random(32, 3)),
            "the heads of q",
        ),
        "max_distance": (
            errors.OptionError,
            lambda: attention(q, k, v, relative_bias=random(32, 4), max_distance=8),
            "max_distance=8",
        ),
        "cu_seqlens": (
            errors.ShapeError,
            lambda: attention_varlen(packed, packed, packed, whole(0, 0, 4, 4)[::2], 4),
            "side by side in memory",
        ),
        "no cu_seqlens": (
            errors.ShapeError,
            lambda: attention_varlen(packed, packed, packed, whole(), 4),
            "one value more",
        ),
        "max_seqlen": (
            errors.OptionError,
            lambda: attention_varlen(packed, packed, packed, ids, 0),
            "max_seqlen=0",
        ),
    }


@pytest.mark.parametrize("name", _wrong_calls())
def test_wrong_arguments_say_what_is_allowed(name: str) -> None:
    kind, call, text = _wrong_calls()[name]
    with pytest.raises(kind) as caught:
        call()
    assert text in str(caught.value)


@given(st.data())
def test_whatever_a_user_passes(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(sorted(DTYPES)))
    kv_heads, group = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    q_len, k_len = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 50))
    batch, dim = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 70))
    q, k, v = (
        x.to(DTYPES[dtype]) for x in operands(q_len, k_len, batch, kv_heads * group, kv_heads, dim)
    )
    options: dict[str, Any] = {"causal": data.draw(st.booleans())}
    if data.draw(st.booleans()):
        options["window"] = data.draw(st.integers(1, 60))
    if data.draw(st.booleans()):
        options["key_lengths"] = whole(*(data.draw(st.integers(0, k_len)) for _ in range(batch)))
    if data.draw(st.booleans()):
        shape = [
            data.draw(st.sampled_from([1, n])) for n in (batch, kv_heads * group, q_len, k_len)
        ]
        mask = random(*shape, seed=9)
        boolean = data.draw(st.booleans())
        options["mask"] = mask > -1 if boolean else mask.to(DTYPES[dtype])
    if data.draw(st.booleans()):
        options["alibi_slopes"] = random(kv_heads * group).abs().to(DTYPES[dtype])
    assert error(q, k, v, **options) <= TOLERANCE[dtype]
