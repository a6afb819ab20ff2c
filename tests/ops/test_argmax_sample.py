"""argmax_sample beside its contract: ties, thresholds, the ends of the uniform, distributions."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

from kernl import errors, tuning
from kernl.op import DTYPES
from kernl.ops import argmax_sample
from kernl.ops.argmax_sample import argmax_sample_plan, argmax_sample_reference
from kernl.ops.argmax_sample_config import ARGMAX_SAMPLE_TUNABLE, SampleConfig, stages
from tests.ops.refusals import check_refusal

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INF, NAN = float("inf"), float("nan")
ALMOST_ONE = 1 - 2**-24
SMALL = SampleConfig(programs=4, block_cols=32, digit_bits=4, num_warps=1)


def random(device: str, *shape: int) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(sum(shape))
    return 3 * torch.randn(shape, generator=generator, device=device)


def row(device: str, *values: float) -> torch.Tensor:
    return torch.tensor([values], device=device)


def uniforms(device: str, *values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def stratified(device: str, count: int) -> torch.Tensor:
    """The middles of `count` equal parts of [0, 1)."""
    return (torch.arange(count, device=device) + 0.5) / count


@pytest.mark.parametrize("dtype", list(DTYPES.values()), ids=str)
@pytest.mark.parametrize("cols", [1, 31, 32, 33, 130])
def test_greedy_takes_the_first_of_the_largest(cols: int, dtype: torch.dtype, device: str) -> None:
    """Negative logits: a column beyond the end read as 0 would win."""
    logits = (-1 - random(device, 5, cols).abs()).to(dtype)
    logits[1, cols // 2 :] = -0.5
    logits[2] = -INF
    logits[3, cols - 1] = -0.0
    logits[4] = logits[4, 0].clone()
    with tuning.forcing(ARGMAX_SAMPLE_TUNABLE, SMALL):
        assert torch.equal(argmax_sample(logits), logits.argmax(-1))
    assert torch.equal(argmax_sample(logits), logits.argmax(-1))


def test_both_zeros_are_one_number(device: str) -> None:
    assert argmax_sample(row(device, -1.0, -0.0, 0.0)).item() == 1
    assert argmax_sample(row(device, -1.0, 0.0, -0.0)).item() == 1
    kept = argmax_sample(row(device, 0.0, -0.0, -9.0), uniforms(device, 0.9), top_k=1)
    assert kept.item() == 1


@pytest.mark.parametrize("dtype", list(DTYPES.values()), ids=str)
def test_what_is_not_finite_is_chosen_greedily(dtype: torch.dtype, device: str) -> None:
    logits = random(device, 5, 70).to(dtype)
    logits[0, 40] = NAN
    logits[1, 50], logits[1, 60] = INF, NAN
    logits[2, 33:] = INF
    logits[3] = -INF
    # The sign of a NaN counts for nothing.
    logits[4, 20] = -torch.tensor(NAN)
    expected = [40, 60, 33, 0, 20]
    assert argmax_sample(logits).tolist() == expected
    uniform = torch.full((5,), 0.5, device=device)
    both: dict[str, Any] = {"top_k": 3, "top_p": 0.5}
    for options in ({}, both):
        assert argmax_sample(logits, uniform, **options).tolist() == expected
        assert argmax_sample_reference(logits, uniform, **options).tolist() == expected


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 0.0}, {"top_p": 1e-6}], ids=str)
def test_narrowest_choices_are_greedy(options: dict[str, Any], device: str) -> None:
    logits = random(device, 3, 300)
    uniform = uniforms(device, 0.0, 0.5, ALMOST_ONE)
    assert torch.equal(argmax_sample(logits, uniform, **options), logits.argmax(-1))


def test_low_temperatures_are_greedy(device: str) -> None:
    logits = random(device, 3, 100)
    uniform = uniforms(device, 0.0, 0.5, ALMOST_ONE)
    assert torch.equal(argmax_sample(logits, uniform, 1e-6), logits.argmax(-1))


@pytest.mark.parametrize("cols", [1, 5, 64, 333])
def test_the_ends_of_the_uniform_are_the_first_and_the_last_token(cols: int, device: str) -> None:
    logits = torch.zeros(1, cols, device=device).expand(6, cols)
    uniform = uniforms(device, 0.0, ALMOST_ONE, -1.0, 1.0, 7.0, NAN)
    tokens = argmax_sample(logits, uniform).tolist()
    assert tokens == [0, cols - 1, 0, cols - 1, cols - 1, 0]


def test_dropped_tokens_are_never_drawn(device: str) -> None:
    """Not even at the very ends, where a cumulative sum does not move over them."""
    logits = random(device, 1, 100)
    logits[:, :10] = logits[:, -10:] = -INF
    first, last = argmax_sample(logits.expand(2, 100), uniforms(device, 0.0, ALMOST_ONE)).tolist()
    assert (first, last) == (10, 89)
    top = logits.topk(7).indices.sort().values[0].tolist()
    ends = argmax_sample(logits.expand(2, 100), uniforms(device, 0.0, ALMOST_ONE), top_k=7)
    assert ends.tolist() == [top[0], top[-1]]


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.float32, {}),
        (torch.float16, {"temperature": 2.5}),
        (torch.bfloat16, {"top_k": 5}),
        (torch.float16, {"top_p": 0.8}),
        (torch.float16, {"top_k": 9, "top_p": 0.7}),
    ],
)
def test_stratified_uniforms_give_the_distribution(
    dtype: torch.dtype, options: dict[str, Any], device: str
) -> None:
    """Each token comes as often as its probability says, to one draw at either end."""
    draws, cols = 32, 24
    logits = (random(device, 1, cols) / 3).to(dtype)
    tokens = argmax_sample(logits.expand(draws, cols), stratified(device, draws), **options)
    assert all(one <= other for one, other in pairwise(tokens.tolist()))

    scores = logits.double() / options.get("temperature", 1.0)
    if "top_k" in options:
        scores = TopKLogitsWarper(options["top_k"])(None, scores)
    if "top_p" in options:
        scores = TopPLogitsWarper(options["top_p"])(None, scores)
    expected = draws * torch.softmax(scores, -1)[0]
    counts = torch.bincount(tokens, minlength=cols)
    assert ((counts - expected).abs() < 1).all()
    assert (counts[expected == 0] == 0).all()


def test_equal_logits_are_kept_together(device: str) -> None:
    logits = row(device, 1.0, 3.0, 2.0, 2.0, 2.0, 0.0).half().expand(8, 6)
    uniform = stratified(device, 8)
    assert set(argmax_sample(logits, uniform, top_k=2).tolist()) == {1, 2, 3, 4}
    # The largest has 0.43 of the probability, and the three next ones 0.16 each.
    assert set(argmax_sample(logits, uniform, top_p=0.4).tolist()) == {1}
    assert set(argmax_sample(logits, uniform, top_p=0.6).tolist()) == {1, 2, 3, 4}
    equal = torch.zeros(4, 4, dtype=torch.float16, device=device)
    assert argmax_sample(equal, stratified(device, 4), top_k=2, top_p=0.1).tolist() == [*range(4)]


def test_top_p_counts_only_what_top_k_kept(device: str) -> None:
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]], device=device).log().half().expand(8, 4)
    uniform = stratified(device, 8)
    assert set(argmax_sample(logits, uniform, top_p=0.5).tolist()) == {0, 1}
    assert set(argmax_sample(logits, uniform, top_k=2, top_p=0.5).tolist()) == {0}


@pytest.mark.parametrize("options", [{}, {"top_k": 50, "top_p": 0.8}], ids=str)
def test_no_configuration_changes_a_token(options: dict[str, Any], device: str) -> None:
    logits = (random(device, 2, 200) / 2).half()
    uniform = uniforms(device, 0.3, 0.97)
    truth = argmax_sample_reference(logits.double(), uniform, **options)
    for config in (
        SampleConfig(1, 256, 4, 8),
        SampleConfig(8, 32, 4, 1),
        SampleConfig(2, 64, 5, 2),
    ):
        with tuning.forcing(ARGMAX_SAMPLE_TUNABLE, config):
            assert torch.equal(argmax_sample(logits, uniform, **options), truth)


def test_strides_and_offsets(device: str) -> None:
    def halves(*shape: int) -> torch.Tensor:
        return random(device, *shape).half()

    uniform = torch.rand(8, generator=torch.Generator(device).manual_seed(1), device=device)[1:7:2]
    for logits in (
        halves(70, 3).t(),
        halves(3, 140)[:, ::2],
        halves(6, 90)[::2, 7:77],
        halves(1, 70).expand(3, 70),
        halves(211)[1:].view(3, 70),
    ):
        truth = argmax_sample_reference(logits.double(), uniform, 0.8, 40)
        assert torch.equal(argmax_sample(logits, uniform, 0.8, 40), truth)
        assert torch.equal(argmax_sample(logits), logits.argmax(-1))


def test_empty_batch(device: str) -> None:
    logits = torch.empty(0, 8, device=device)
    assert argmax_sample(logits).shape == (0,)
    assert argmax_sample(logits, torch.empty(0, device=device), top_k=2).dtype == torch.int64


@pytest.mark.parametrize(
    ("dtype", "options", "searches"),
    [
        (torch.float16, None, None),
        (torch.float16, {}, 1),
        (torch.float16, {"top_k": 1000}, 1),
        (torch.float16, {"top_k": 50}, 4 + 1),
        (torch.bfloat16, {"top_p": 0.9}, 4),
        (torch.float16, {"top_k": 50, "top_p": 0.9}, 4 + 4),
        (torch.float32, {"top_p": 0.9}, 8),
    ],
)
def test_launches(dtype: torch.dtype, options: dict[str, Any] | None, searches: int | None) -> None:
    logits = torch.empty(2, 1000, dtype=dtype, device="meta")
    uniform = None if options is None else torch.empty(2, device="meta")
    plan = argmax_sample_plan(90, logits, uniform, **(options or {}))
    names = [launch.kernel.__name__ for launch in plan.kernels]
    if searches is None:
        assert names == ["best_kernel", "greedy_kernel"]
    else:
        assert names == ["best_kernel", *searches * ["narrow_kernel"], "pick_kernel"]


@given(st.sampled_from([16, 32]), st.integers(1, 8), st.booleans(), st.booleans())
def test_digits_cover_every_bit_once(bits: int, digit: int, top_k: bool, top_p: bool) -> None:
    for kind, wanted in (("count", top_k), ("mass", top_p)):
        found = [stage for stage in stages(bits, digit, top_k, top_p) if stage.kind == kind]
        if wanted:
            assert [stage.opens for stage in found] == [True] + [False] * (len(found) - 1)
            above = [bits] + [stage.shift for stage in found]
            assert [2 ** (a - b) for a, b in pairwise(above)] == [s.digits for s in found]
            assert found[-1].shift == 0


@given(
    st.integers(1, 2),
    st.integers(1, 70),
    st.sampled_from(sorted(DTYPES)),
    st.sampled_from([0.5, 1.0, 1.7]),
    st.integers(0, 80),
    st.sampled_from([0.0, 0.3, 0.95, 1.0]),
    st.integers(0, 2**31),
)
def test_any_shape(
    rows: int, cols: int, dtype: str, temperature: float, top_k: int, top_p: float, seed: int
) -> None:
    generator = torch.Generator(DEVICE).manual_seed(seed)
    logits = 3 * torch.randn(rows, cols, generator=generator, device=DEVICE).to(DTYPES[dtype])
    uniform = torch.rand(rows, generator=generator, device=DEVICE)
    truth = argmax_sample_reference(logits.double(), uniform, temperature, top_k, top_p)
    with tuning.forcing(ARGMAX_SAMPLE_TUNABLE, SMALL):
        assert torch.equal(argmax_sample(logits, uniform, temperature, top_k, top_p), truth)


def _wrong_calls(device: str) -> dict[str, tuple[type[Exception], Callable[[], Any], str]]:
    x, u = random(device, 4, 8), torch.zeros(4, device=device)
    wide = torch.zeros(1, 1, device=device).expand(1, 2**22 + 1)
    return {
        "list": (errors.ArgumentError, lambda: argmax_sample([1.0]), "logits is a list"),  # type: ignore[arg-type]
        "uniform": (errors.ArgumentError, lambda: argmax_sample(x, 0.5), "uniform is a float"),  # type: ignore[arg-type]
        "half uniform": (errors.DTypeError, lambda: argmax_sample(x, u.half()), "torch.float16"),
        "double": (errors.DTypeError, lambda: argmax_sample(x.double()), "torch.float64"),
        "devices": (errors.DeviceError, lambda: argmax_sample(x, u.to("meta")), "is on meta"),
        "three": (errors.ShapeError, lambda: argmax_sample(x[None]), "logits has shape"),
        "one": (errors.ShapeError, lambda: argmax_sample(x[0]), "logits has shape (8,)"),
        "no columns": (errors.ShapeError, lambda: argmax_sample(x[:, :0]), "has size 0"),
        "wide": (errors.ShapeError, lambda: argmax_sample(wide), "4194305 columns"),
        "rows": (errors.ShapeError, lambda: argmax_sample(x, u[:3]), "uniform has shape (3,)"),
        "cold": (errors.OptionError, lambda: argmax_sample(x, u, 0.0), "temperature=0.0"),
        "tensor": (errors.ArgumentError, lambda: argmax_sample(x, u, u), "temperature is a Tensor"),  # type: ignore[arg-type]
        "k": (errors.OptionError, lambda: argmax_sample(x, u, top_k=-1), "top_k=-1"),
        "k type": (errors.ArgumentError, lambda: argmax_sample(x, u, top_k=2.0), "top_k is a"),  # type: ignore[arg-type]
        "p": (errors.OptionError, lambda: argmax_sample(x, u, top_p=1.1), "top_p=1.1"),
        "p nan": (errors.OptionError, lambda: argmax_sample(x, u, top_p=NAN), "top_p=nan"),
        "greedy": (errors.OptionError, lambda: argmax_sample(x, top_k=5), "no uniform"),
    }


@pytest.mark.parametrize("name", _wrong_calls("cpu"))
def test_wrong_arguments_say_what_is_allowed(name: str, device: str) -> None:
    error, call, seen = _wrong_calls(device)[name]
    check_refusal(error, call, seen)
