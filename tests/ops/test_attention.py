"""Attention beside the contract: lengths, windows, heads, strides, whatever a user passes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernl.op import DTYPES, Case
from kernl.ops import attention
from kernl.ops.attention import attention_plan, attention_reference
from kernl.ops.attention_cases import ATTENTION, attention_library
from kernl.ops.attention_config import ATTENTION_TUNABLE, VARLEN_TUNABLE
from kernl.ops.tile import shared_memory_limit
from tests.ops.attention_operands import DEVICE, TOLERANCE, blocks, error, operands, random, whole


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


def _constants(capability: int, queries: int, dim: int, **options: Any) -> dict[str, Any]:
    """Of the launch for heads that lie side by side with those of keys and values."""
    dtype = options.pop("dtype", torch.float16)
    packed = torch.empty(2, queries, 3, 4, dim, dtype=dtype, device="meta")
    q, k, v = (x.transpose(1, 2) for x in packed.unbind(2))
    (launch,) = attention_plan(capability, q, k, v, **options).kernels
    return dict(launch.constants)


@pytest.mark.parametrize(
    ("capability", "dim", "dtype", "expected"),
    [
        (90, 64, torch.float16, True),
        (90, 32, torch.bfloat16, True),
        (90, 40, torch.float16, False),  # rows end inside a block
        (90, 64, torch.float32, False),
        (80, 64, torch.float16, False),  # never timed there
        (100, 64, torch.float16, False),
    ],
)
def test_addresses_are_counted_on_where_whole_vectors_are_read(
    capability: int, dim: int, dtype: torch.dtype, expected: bool
) -> None:
    assert _constants(capability, 512, dim, dtype=dtype)["COUNT_ON"] is expected


def test_a_call_without_edges_walks_none() -> None:
    keys = torch.empty(2, 1, 1, 512, dtype=torch.bool, device="meta")
    lengths = torch.empty(2, dtype=torch.int32, device="meta")
    assert _constants(90, 512, 64)["WHOLE"] is True
    assert _constants(80, 512, 64)["WHOLE"] is True
    assert _constants(90, 512, 64, mask=keys.half())["WHOLE"] is True
    assert _constants(90, 500, 64)["WHOLE"] is False
    assert _constants(100, 512, 64)["WHOLE"] is False
    for hides in ({"causal": True}, {"window": 9}, {"mask": keys}, {"key_lengths": lengths}):
        assert _constants(90, 512, 64, **hides)["WHOLE"] is False
