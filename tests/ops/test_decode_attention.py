"""Decode attention beside the contract: lengths, splits, groups, strides, garbage, which path."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernl import errors, tuning
from kernl.op import DTYPES, Case
from kernl.ops import decode_attention
from kernl.ops.decode_attention import (
    DECODE_ATTENTION,
    decode_attention_library,
    decode_attention_plan,
    decode_attention_reference,
)
from kernl.ops.decode_attention_config import DECODE_TUNABLE, MOST_SPLITS, DecodeConfig
from kernl.ops.tile import shared_memory_limit
from tests.ops.refusals import check_refusal

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = DECODE_ATTENTION.tolerance


def config(splits: int, block_n: int = 16) -> AbstractContextManager[None]:
    """Inside, keys are taken in blocks of 16, so that small caches have many boundaries."""
    return tuning.forcing(DECODE_TUNABLE, DecodeConfig(block_n, splits, 4, 2))


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator(DEVICE).manual_seed(seed + sum(shape))
    return (2 * torch.randn(shape, generator=generator, device=DEVICE)).to(dtype)


def lengths_of(*values: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device=DEVICE)


def caches(
    batch: int, heads: int, capacity: int, dim: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    k = random(batch, heads, capacity, dim, dtype=dtype, seed=1)
    return k, random(batch, heads, capacity, dim, dtype=dtype, seed=2)


def error(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    length: torch.Tensor | None = None,
    **options: Any,
) -> float:
    """Relative L2 against float64, with NaN in the part of the caches that is not valid."""
    truth = decode_attention_reference(q.double(), k.double(), v.double(), length, **options)
    if length is not None:
        unused = torch.arange(k.shape[2], device=DEVICE)[:, None] >= length.reshape(-1, 1, 1, 1)
        k, v = (cache.masked_fill(unused, float("nan")) for cache in (k, v))
    out = decode_attention(q, k, v, length, **options)
    assert out.dtype == q.dtype
    assert out.shape == truth.shape
    assert out.transpose(1, 2).is_contiguous()
    assert not truth.isnan().any()
    return float((out.double() - truth).norm() / truth.norm().clamp_min(1e-30))


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 48, 49, 51])
def test_a_length_at_every_boundary(length: int, splits: int) -> None:
    q = random(1, 2, 1, 32)
    with config(splits):
        assert error(q, *caches(1, 1, 51, 32), lengths_of(length)) <= TOLERANCE["fp32"]


@pytest.mark.parametrize("splits", [1, 4])
def test_an_empty_cache_gives_zeros(splits: int) -> None:
    k, v = (torch.full((2, 1, 33, 32), float("nan"), device=DEVICE) for _ in "kv")
    with config(splits):
        out = decode_attention(random(2, 3, 2, 32), k, v, lengths_of(0, 0))
    assert torch.equal(out, torch.zeros_like(out))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_each_sequence_has_its_length(dtype: torch.dtype) -> None:
    q, (k, v) = random(4, 2, 2, 32), caches(4, 1, 70, 32)
    every_other = lengths_of(0, 9, 33, 9, 70, 9, 1, 9, dtype=dtype)[::2]
    with config(3):
        for length in (lengths_of(0, 33, 70, 1, dtype=dtype), every_other, every_other[1]):
            assert error(q, k, v, length) <= TOLERANCE["fp32"]
        assert error(q, k, v, every_other[1:2]) <= TOLERANCE["fp32"]


def test_lengths_outside_the_cache_count_as_its_ends() -> None:
    q, (k, v) = random(2, 1, 1, 32), caches(2, 1, 20, 32)
    with config(2):
        out = decode_attention(q, k, v, lengths_of(-3, 99))
        assert torch.equal(out, decode_attention(q, k, v, lengths_of(0, 20)))


@pytest.mark.parametrize("splits", [7, 40, MOST_SPLITS])
def test_more_splits_than_keys(splits: int) -> None:
    q, (k, v) = random(1, 1, 1, 16), caches(1, 1, 37, 16)
    with config(splits):
        assert error(q, k, v, lengths_of(5)) <= TOLERANCE["fp32"]


def test_a_split_without_keys_leaves_no_trace() -> None:
    """It writes no output, so what the merge finds there is whatever lay in memory."""
    q, (k, v) = random(1, 2, 1, 16), caches(1, 1, 37, 16)
    with config(8):
        plan = decode_attention_plan(80, q, k, v, lengths_of(5))
    plan.kernels[0].args["partial_ptr"].fill_(float("nan"))
    (out,) = plan.run()
    assert torch.allclose(out, decode_attention_reference(q, k, v, lengths_of(5)), atol=1e-6)


def test_splits_share_the_valid_keys_evenly() -> None:
    """Not the capacity: with 40 of 400 keys valid, four splits have ten each."""
    q, (k, v) = random(1, 1, 1, 16), caches(1, 1, 400, 16)
    with config(4):
        plan = decode_attention_plan(80, q, k, v, lengths_of(40))
    lse = plan.kernels[0].args["lse_ptr"].fill_(float("nan"))
    plan.run()
    scores = (q @ k.mT)[0, 0, 0, :40] * 16**-0.5
    expected = torch.logsumexp(scores.view(4, 10), 1) / torch.log(torch.tensor(2.0))
    assert torch.allclose(lse.flatten(), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize("group", [1, 3, 4, 7, 16])
def test_groups(group: int, dtype: str) -> None:
    kind = DTYPES[dtype]
    q, (k, v) = random(1, 2 * group, 1, 32, dtype=kind), caches(1, 2, 40, 32, kind)
    with config(2):
        assert error(q, k, v, lengths_of(35)) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("q_len", [1, 2, 3, 4, 5])
def test_several_queries_are_causal_among_themselves(q_len: int, dtype: str) -> None:
    kind = DTYPES[dtype]
    q, (k, v) = random(2, 3, q_len, 32, dtype=kind), caches(2, 1, 40, 32, kind)
    for splits in (1, 3):
        with config(splits):
            assert error(q, k, v) <= TOLERANCE[dtype]
            # The second sequence is shorter than its queries: the first of them see nothing.
            assert error(q, k, v, lengths_of(37, 2)) <= TOLERANCE[dtype]


def test_an_earlier_query_does_not_see_a_later_key() -> None:
    q, (k, v) = random(1, 2, 3, 32), caches(1, 1, 30, 32)
    with config(2):
        before = decode_attention(q, k, v)
        v[:, :, -1] += 100
        after = decode_attention(q, k, v)
    assert torch.equal(before[:, :, :2], after[:, :, :2])
    assert not torch.equal(before[:, :, 2], after[:, :, 2])


def _token_by_token(cache: torch.Tensor) -> torch.Tensor:
    return cache.transpose(1, 2).contiguous().transpose(1, 2)


STRIDED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "batch, capacity, heads, dim": _token_by_token,
    "dim before capacity": lambda x: x.mT.contiguous().mT,
    "capacity first": lambda x: x.permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3),
    "every other column": lambda x: torch.stack((x, -x), -1).flatten(-2)[..., ::2],
    "part of a longer cache": lambda x: torch.cat((-x, x, -x), 2)[:, :, x.shape[2] : -x.shape[2]],
    "odd offset": lambda x: torch.cat((x.new_zeros(3), x.flatten()))[3:].view(x.shape),
    "one sequence for all": lambda x: x[:1].expand(x.shape),
}


@pytest.mark.parametrize("name", STRIDED)
def test_any_strides(name: str) -> None:
    q, (k, v) = random(2, 6, 2, 24), caches(2, 2, 37, 24)
    q_strided, k_strided, v_strided = map(STRIDED[name], (q, k, v))
    with config(2):
        for arguments in ((q_strided, k, v), (q, k_strided, v), (q, k, v_strided)):
            exact = [x.double() for x in arguments]
            truth = decode_attention_reference(exact[0], exact[1], exact[2])
            out = decode_attention(*arguments)
            assert (out.double() - truth).norm() <= TOLERANCE["fp32"] * truth.norm()
        assert error(q_strided, k_strided, v_strided) <= TOLERANCE["fp32"]


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("window", [1, 16, 17, 40, 2**62])
def test_a_window(window: int, splits: int) -> None:
    q, (k, v) = random(3, 2, 3, 32), caches(3, 1, 40, 32)
    with config(splits):
        assert error(q, k, v, lengths_of(40, 19, 2), window=window) <= TOLERANCE["fp32"]
        assert error(q, k, v, window=window) <= TOLERANCE["fp32"]


def test_keys_before_the_window_are_not_read() -> None:
    """A cache whose oldest pages were given away holds anything there."""
    q, (k, v) = random(1, 2, 2, 32), caches(1, 1, 40, 32)
    truth = decode_attention_reference(q.double(), k.double(), v.double(), window=8)
    k[:, :, :31], v[:, :, :31] = float("nan"), float("nan")
    with config(2):
        out = decode_attention(q, k, v, window=8)
    assert (out.double() - truth).norm() <= TOLERANCE["fp32"] * truth.norm()


@pytest.mark.parametrize("softcap", [0.5, 5.0, 50.0])
def test_a_softcap_and_a_scale(softcap: float) -> None:
    q, (k, v) = random(1, 4, 2, 32), caches(1, 2, 40, 32)
    with config(2):
        assert error(q, k, v, lengths_of(33), softcap=softcap) <= 2 * TOLERANCE["fp32"]
        assert error(q, k, v, scale=0.7, softcap=softcap) <= 2 * TOLERANCE["fp32"]
        assert error(q, k, v, scale=0.03, window=9) <= TOLERANCE["fp32"]
        assert error(q, k, v, scale=0) <= TOLERANCE["fp32"]


def test_scores_far_apart_do_not_overflow() -> None:
    """One split has all the weight, and exp of its scores is beyond float32."""
    q, (k, v) = random(1, 2, 1, 32), caches(1, 1, 48, 32)
    for winner in (0, 20, 47):
        peaked = k.clone()
        peaked[0, 0, winner] = 20 * q[0, 0, 0]
        with config(3):
            assert error(q, peaked, v) <= 1e-5


def test_empty_batches_give_empty_results() -> None:
    empty = torch.empty(0, 2, 9, 32, device=DEVICE)
    out = decode_attention(torch.empty(0, 4, 1, 32, device=DEVICE), empty, empty)
    assert out.shape == (0, 4, 1, 32)


def _plan(splits: int, length: torch.Tensor | None, q_len: int = 1) -> Any:
    q, (k, v) = random(2, 4, q_len, 32), caches(2, 2, 100, 32)
    with config(splits):
        return decode_attention_plan(90, q, k, v, length)


def test_one_split_is_one_launch_and_several_are_two() -> None:
    names = [launch.kernel.__name__ for launch in _plan(1, None).launches]
    assert names == ["decode_split_kernel"]
    names = [launch.kernel.__name__ for launch in _plan(3, None).launches]
    assert names == ["decode_split_kernel", "_decode_merge_kernel"]
    assert _plan(3, None).kernels[0].grid == (4, 3, 1)


def test_the_grid_does_not_depend_on_a_length() -> None:
    """A CUDA graph is captured once and holds for every length."""

    def what_is_launched(length: torch.Tensor) -> list[Any]:
        plan = _plan(5, length)
        numbers = [
            {k: v for k, v in launch.args.items() if not isinstance(v, torch.Tensor)}
            for launch in plan.kernels
        ]
        grids = [(launch.grid, launch.constants) for launch in plan.kernels]
        return [numbers, grids, plan.outputs[0].shape]

    first = what_is_launched(lengths_of(0, 0))
    for values in ((1, 1), (17, 100), (100, 100)):
        assert what_is_launched(lengths_of(*values)) == first
    assert what_is_launched(torch.empty(2, dtype=torch.int32, device="meta")) == first


def test_rows_beyond_one_tile_are_taken_in_several() -> None:
    half = torch.empty(1, 71, 2, 64, dtype=torch.float16, device="meta")
    cache = torch.empty(1, 1, 300, 64, dtype=torch.float16, device="meta")
    split = decode_attention_plan(90, half, cache, cache).kernels[0]
    assert (split.grid[2], split.constants["BLOCK_M"]) == (3, 64)
    split = decode_attention_plan(90, half.float(), cache.float(), cache.float()).kernels[0]
    assert (split.grid[2], split.constants["BLOCK_M"]) == (9, 16)


def test_one_float32_row_needs_no_padding() -> None:
    def rows(dtype: torch.dtype, heads: int) -> int:
        q, cache = (torch.empty(1, n, 1, 64, dtype=dtype, device="meta") for n in (heads, 2))
        return int(decode_attention_plan(90, q, cache, cache).kernels[0].constants["BLOCK_M"])

    assert [rows(torch.float32, 2), rows(torch.float32, 4), rows(torch.float16, 2)] == [1, 16, 16]


@pytest.mark.parametrize("capability", [80, 86, 89, 90, 100, 120])
@pytest.mark.parametrize("bits", [16, 32])
def test_every_class_has_configurations_that_fit(bits: int, capability: int) -> None:
    groups = (16, 32, 64) if bits == 16 else (1, 16)
    for group in groups:
        for head in (16, 32, 64, 128, 256):
            for programs, capacity in ((1, 1), (8, 2048), (8, 131072), (96, 512), (4096, 4096)):
                key = {"bits": bits, "head_block": head, "group_block": group}
                key |= {"programs": programs, "capacity": capacity}
                default = DECODE_TUNABLE.default(capability, key)
                assert DECODE_TUNABLE.fits(capability, key, default)
                assert default.splits * programs <= max(264, programs)
                assert default.splits <= max(1, -(-capacity // default.block_n))
                stage = 2 * default.block_n * head * bits // 8
                assert stage * default.num_stages <= shared_memory_limit(capability)
                candidates = list(DECODE_TUNABLE.candidates(capability, key))
                assert 1 <= len(candidates) <= 20
                assert len(set(candidates)) == len(candidates)


@pytest.mark.parametrize("case", DECODE_ATTENTION.edge_cases()[2::3], ids=lambda case: case.name)
def test_the_library_computes_the_same(case: Case) -> None:
    inputs = DECODE_ATTENTION.inputs(case, DEVICE, 0)
    truth = decode_attention_reference(**inputs)
    out = decode_attention_library(**inputs)
    assert (out - truth).norm() <= 1e-5 * truth.norm()
    with pytest.raises(NotImplementedError, match="no softcap"):
        decode_attention_library(**inputs, softcap=1.0)


def test_the_fake_has_the_strides_of_the_result() -> None:
    q, (k, v) = random(2, 4, 3, 24), caches(2, 2, 9, 24)
    fake = decode_attention_plan(90, q.to("meta"), k.to("meta"), v.to("meta")).outputs[0]
    assert decode_attention(q, k, v).stride() == fake.stride() == (288, 24, 96, 1)
    torch.library.opcheck(
        torch.ops.kernl.decode_attention.default, (q, k, v, lengths_of(3), None, 2, None)
    )


def _wrong_calls() -> dict[str, tuple[type[Exception], Callable[[], Any], str]]:
    q, (k, v), length = random(2, 4, 1, 16), caches(2, 2, 9, 16), lengths_of(3, 4)
    call: Callable[..., Any] = decode_attention
    shape, option = errors.ShapeError, errors.OptionError
    return {
        "list": (errors.ArgumentError, lambda: call([1.0], k, v), "q is a list"),
        "length is an int": (errors.ArgumentError, lambda: call(q, k, v, 3), "a int"),
        "float length": (errors.DTypeError, lambda: call(q, k, v, length.float()), "float32"),
        "int q": (errors.DTypeError, lambda: call(q.int(), k, v), "torch.int32"),
        "mixed": (errors.DTypeError, lambda: call(q, k.half(), v), "k_cache is torch.float16"),
        "meta": (errors.DeviceError, lambda: call(q, k, v.to("meta")), "v_cache is on meta"),
        "length on meta": (errors.DeviceError, lambda: call(q, k, v, length.to("meta")), "meta"),
        "three dimensions": (shape, lambda: call(q[0], k, v), "q has shape (4, 1, 16)"),
        "cache of three": (shape, lambda: call(q, k[0], v[0]), "k_cache has shape (2, 9, 16)"),
        "17 queries": (shape, lambda: call(q.expand(2, 4, 17, 16), k, v), "q_len = 17"),
        "no queries": (shape, lambda: call(q[:, :, :0], k, v), "q_len = 0"),
        "wide head": (shape, lambda: call(random(1, 1, 1, 257), k, v), "head_dim = 257"),
        "no capacity": (shape, lambda: call(q, k[:, :, :0], v[:, :, :0]), "capacity = 0"),
        "no key heads": (shape, lambda: call(q, k[:, :0], v[:, :0]), "kv_heads = 0"),
        "heads": (shape, lambda: call(q[:, :3], k, v), "3 heads of q, 2 of k_cache"),
        "fewer heads": (shape, lambda: call(q[:, :1], k, v), "kv_heads = 2"),
        "other batch": (shape, lambda: call(q[:1], k, v), "k_cache has shape (2, 2, 9, 16)"),
        "other dim": (shape, lambda: call(q[..., :8], k, v), "k_cache has shape"),
        "short values": (shape, lambda: call(q, k, v[:, :, :8]), "v_cache has shape"),
        "lengths": (shape, lambda: call(q, k, v, lengths_of(1, 2, 3)), "shape (3,)"),
        "length matrix": (shape, lambda: call(q, k, v, length[None]), "shape (1, 2)"),
        "scale": (option, lambda: call(q, k, v, scale=-1.0), "scale=-1.0"),
        "scale word": (errors.ArgumentError, lambda: call(q, k, v, scale="x"), "scale is a str"),
        "window": (option, lambda: call(q, k, v, window=0), "window=0"),
        "window type": (errors.ArgumentError, lambda: call(q, k, v, window=1.5), "window is a f"),
        "softcap": (option, lambda: call(q, k, v, softcap=0.0), "softcap=0"),
        "softcap nan": (option, lambda: call(q, k, v, softcap=float("nan")), "softcap=nan"),
    }


@pytest.mark.parametrize("name", _wrong_calls())
def test_wrong_arguments_say_what_is_allowed(name: str) -> None:
    check_refusal(*_wrong_calls()[name])


@given(st.data())
def test_whatever_a_user_passes(data: st.DataObject) -> None:
    draw = data.draw
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    batch, kv_heads, group = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 2)),
        draw(st.integers(1, 5)),
    )
    q_len, capacity, dim = (
        draw(st.integers(1, 4)),
        draw(st.integers(1, 70)),
        draw(st.integers(1, 40)),
    )
    q = random(batch, kv_heads * group, q_len, dim, dtype=DTYPES[dtype])
    k, v = caches(batch, kv_heads, capacity, dim, DTYPES[dtype])
    values = [draw(st.integers(0, capacity)) for _ in range(batch)]
    length = draw(st.sampled_from([None, lengths_of(*values), lengths_of(values[0])]))
    window = draw(st.one_of(st.none(), st.integers(1, 80)))
    layout = STRIDED[draw(st.sampled_from(["odd offset", "batch, capacity, heads, dim"]))]
    with config(draw(st.integers(1, 6)), draw(st.sampled_from([16, 32]))):
        # A single value has no norm to average its rounding over.
        limit = TOLERANCE[dtype] * max(1.0, 30 / q.numel())
        assert error(layout(q), layout(k), v, length, window=window) <= limit
