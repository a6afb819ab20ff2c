"""conv1d beside its contract: layouts, borders, every tile, what is read where, arguments."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from kernl import errors, tuning
from kernl.op import DTYPES
from kernl.ops import conv1d
from kernl.ops.activation import ACTIVATIONS
from kernl.ops.conv1d import CONV1D, conv1d_plan, conv1d_reference
from kernl.ops.conv1d_config import CONV1D_TUNABLE, Layout
from kernl.ops.tile import Tile, accumulators_limit, shared_memory_limit
from kernl.tables import Value
from tests.ops.refusals import check_refusal

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAN, INF = float("nan"), float("inf")
LAYOUTS = ("contiguous", "transposed", "spread", "surrounded")
SMALL = Tile(16, 16, 16, 1, 1)


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Every `torch.empty` inside the test is full of NaN, so an unwritten element shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator(DEVICE).manual_seed(sum(shape) + seed)
    return torch.randn(shape, generator=generator, device=DEVICE)


def laid_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values with other strides; what lies between them and around them is NaN."""
    first, second, third = x.shape
    if layout == "transposed":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "spread":
        room = x.new_full((first, 2 * second + 1, 3 * third + 1), NAN)
        return room[:, 1::2, 1::3].copy_(x)
    if layout == "surrounded":
        room = x.new_full((first + 2, third + 2, second + 2), NAN).transpose(1, 2)
        return room[1:-1, 1:-1, 1:-1].copy_(x)
    return x


def doubled(value: torch.Tensor | None) -> torch.Tensor | None:
    return None if value is None else value.double()


def check(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: int,
    padding: int,
    activation: str = "none",
    residual: torch.Tensor | None = None,
) -> None:
    """Against float64, and how the output lies."""
    out = conv1d(x, weight, bias, stride, padding, activation, residual)
    exact = (x.double(), weight.double(), doubled(bias))
    truth = conv1d_reference(*exact, stride, padding, activation, doubled(residual))
    assert (out.shape, out.dtype) == (truth.shape, x.dtype)
    assert out.transpose(1, 2).is_contiguous()
    kind = next(name for name, dtype in DTYPES.items() if dtype == x.dtype)
    # One element has no norm to average its rounding over.
    limit = CONV1D.tolerance[kind] * max(1.0, 30 / truth.numel())
    assert (out.double() - truth).norm() <= limit * truth.norm() + 1e-6


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("x_layout", LAYOUTS)
@pytest.mark.parametrize("weight_layout", LAYOUTS)
def test_operands_are_read_where_they_lie(x_layout: str, weight_layout: str) -> None:
    x, weight = random(2, 5, 37), random(19, 5, 3)
    residual, bias = random(2, 19, 19), random(38)[::2]
    for tile in (SMALL, SMALL._replace(block_m=32, block_n=32, block_k=32, num_warps=4)):
        with tuning.forcing(CONV1D_TUNABLE, tile):
            strided = laid_out(x, x_layout), laid_out(weight, weight_layout)
            check(*strided, bias, 2, 1, "gelu", laid_out(residual, x_layout))


@pytest.mark.parametrize("x_layout", LAYOUTS)
@pytest.mark.parametrize("weight_layout", LAYOUTS)
def test_nothing_is_copied(x_layout: str, weight_layout: str) -> None:
    x, weight = laid_out(random(2, 5, 37), x_layout), laid_out(random(19, 5, 3), weight_layout)
    (launch,) = conv1d_plan(90, x, weight, residual=random(2, 19, 35)).kernels
    assert launch.args["x_ptr"] is x
    assert launch.args["weight_ptr"] is weight
    assert len(launch.grid) == 1  # a grid's other axes end at 65,535, a batch does not


sizes = st.integers(1, 40)
few = st.integers(1, 6)
layouts = st.sampled_from(LAYOUTS)


@given(
    batch=st.integers(1, 3),
    channels=sizes,
    length=sizes,
    outs=sizes,
    taps=few,
    stride=st.integers(1, 4),
    padding=st.integers(0, 7),
    dtype=st.sampled_from(sorted(DTYPES)),
    activation=st.sampled_from(ACTIVATIONS),
    biased=st.booleans(),
    added=st.booleans(),
    x_layout=layouts,
    weight_layout=layouts,
)
def test_any_sizes_and_strides(
    batch: int,
    channels: int,
    length: int,
    outs: int,
    taps: int,
    stride: int,
    padding: int,
    dtype: str,
    activation: str,
    biased: bool,
    added: bool,
    x_layout: str,
    weight_layout: str,
) -> None:
    taps = min(taps, length + 2 * padding)
    rows = (length + 2 * padding - taps) // stride + 1
    kind = DTYPES[dtype]
    x = laid_out(random(batch, channels, length).to(kind), x_layout)
    weight = random(outs, channels, taps) * (channels * taps) ** -0.5
    bias = random(outs).to(kind) if biased else None
    residual = random(1, outs, rows).to(kind).expand(batch, -1, -1) if added else None
    weight = laid_out(weight.to(kind), weight_layout)
    check(x, weight, bias, stride, padding, activation, residual)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation: str) -> None:
    check(3 * random(2, 5, 20), random(7, 5, 3), random(7), 1, 1, activation)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("what", [NAN, INF])
def test_what_is_not_finite_reaches_those_that_see_it_alone(
    what: float, stride: int, layout: str
) -> None:
    weight, taps, padding = random(3, 4, 5).abs(), 5, 2
    for place in (0, 1, 17, 32):
        x = random(1, 4, 33)
        x[0, 2, place] = what
        out = conv1d(laid_out(x, layout), weight, None, stride, padding)
        starts = torch.arange(out.shape[2], device=DEVICE) * stride - padding
        sees = (starts <= place) & (place < starts + taps)
        assert sees.any()
        assert not out[..., ~sees].isnan().any()
        assert not out[..., ~sees].isinf().any()
        # Weights are positive: an infinity that is seen is one.
        assert (out[..., sees].isnan() if what != what else out[..., sees] == INF).all()


def test_an_output_that_sees_padding_alone_is_the_bias() -> None:
    x, weight, bias = random(2, 3, 4), random(5, 3, 2), random(5)
    for layout in LAYOUTS:
        out = conv1d(laid_out(x, layout), weight, bias, stride=2, padding=6)
        assert torch.equal(out[..., 0], bias.expand(2, 5))
        assert torch.equal(out[..., -1], bias.expand(2, 5))
        check(laid_out(x, layout), weight, bias, 2, 6)


def test_the_output_reads_in_rows_of_channels_also_without_data() -> None:
    x, weight = random(2, 3, 9), random(16, 3, 3)
    out = conv1d(x, weight, stride=2, padding=1)
    assert out.stride() == (5 * 16, 1, 16)
    with FakeTensorMode():
        fake = torch.ops.kernl.conv1d(
            torch.empty(2, 3, 9), torch.empty(16, 3, 3), None, 2, 1, "none", None
        )
    assert (fake.shape, fake.stride()) == (out.shape, out.stride())


def test_one_behind_another_and_a_linear_layer_need_no_copy() -> None:
    first, second = random(16, 3, 3), random(32, 16, 3)
    x = random(2, 3, 24)
    inner = conv1d(x, first, None, 1, 1, "gelu")
    out = conv1d(inner, second, None, 2, 1, "gelu")
    truth = conv1d_reference(x.double(), first.double(), None, 1, 1, "gelu")
    truth = conv1d_reference(truth, second.double(), None, 2, 1, "gelu")
    assert (out.double() - truth).norm() <= 1e-5 * truth.norm()
    assert out.permute(0, 2, 1).is_contiguous()


def test_an_empty_batch_gives_an_empty_result() -> None:
    out = conv1d(torch.empty(0, 3, 9, device=DEVICE), random(16, 3, 3), padding=1)
    assert out.shape == (0, 16, 9)


CHANNELS_FIRST, TIME_MAJOR = "contiguous", "transposed"
READS = {
    # x, weight, channels: how k counts, then what is read in vectors.
    "a model's features": (CHANNELS_FIRST, "contiguous", 80, Layout(True, True, False, True)),
    "behind another": (TIME_MAJOR, "transposed", 512, Layout(False, True, True, True)),
    "a weight as PyTorch has it": (
        TIME_MAJOR,
        "contiguous",
        512,
        Layout(False, False, True, False),
    ),
    "features and rows": (CHANNELS_FIRST, "transposed", 80, Layout(False, True, False, True)),
    "odd channels": (TIME_MAJOR, "transposed", 17, Layout(False, True, False, False)),
    "one channel": (CHANNELS_FIRST, "contiguous", 1, Layout(True, True, False, False)),
    "spread": ("spread", "spread", 64, Layout(False, False, False, False)),
}


@pytest.mark.parametrize("name", READS)
def test_k_counts_as_the_operands_lie(name: str) -> None:
    x_layout, weight_layout, channels, layout = READS[name]
    x = laid_out(torch.empty(2, channels, 64, dtype=torch.half), x_layout)
    weight = laid_out(torch.empty(16, channels, 3, dtype=torch.half), weight_layout)
    assert Layout.of(x, weight) == layout


KEYS = [
    {
        "bits": bits,
        "x_vectors": x_vectors,
        "weight_vectors": weight_vectors,
        "batch": batch,
        "m": m,
        "n": n,
        "k": k,
    }
    for bits in (16, 32)
    for x_vectors in (0, 1)
    for weight_vectors in (0, 1)
    for batch, m, n, k in ((1, 1, 1, 1), (1, 1500, 512, 1536), (8, 3000, 512, 240), (64, 20, 16, 9))
]


@pytest.mark.parametrize("capability", [80, 86, 90, 100])
def test_every_choice_fits_the_gpu(capability: int) -> None:
    for entry in KEYS:
        key: dict[str, Value] = dict(entry)
        candidates = list(CONV1D_TUNABLE.candidates(capability, key))
        default = CONV1D_TUNABLE.default(capability, key)
        assert default in candidates
        for tile in candidates:
            stage = (tile.block_m + tile.block_n) * tile.block_k * entry["bits"] // 8
            assert tile.num_stages * stage <= shared_memory_limit(capability)
            assert tile.accumulators <= accumulators_limit(capability)
            assert tile.block_m <= max(16, 2 * entry["m"])
            assert tile.block_k <= max(16, 2 * entry["k"])


def test_whispers_second_convolution_fills_the_gpu() -> None:
    case = next(c for c in CONV1D.cases() if c["stride"] == 2 and c["length"] == 3000)
    (launch,) = CONV1D.plan_on_meta(case, 90).kernels
    assert launch.grid[0] >= 128


def _wrong_calls() -> dict[str, tuple[type[Exception], Callable[[], Any], str]]:
    x, weight = random(2, 3, 9), random(16, 3, 3)
    return {
        "list": (errors.ArgumentError, lambda: conv1d([1.0], weight), "x is a list"),  # type: ignore[arg-type]
        "double": (errors.DTypeError, lambda: conv1d(x.double(), weight), "torch.float64"),
        "mixed": (errors.DTypeError, lambda: conv1d(x, weight.half()), "weight is torch.float16"),
        "no batch": (errors.ShapeError, lambda: conv1d(x[0], weight), "x has shape (3, 9)"),
        "flat weight": (errors.ShapeError, lambda: conv1d(x, weight[0]), "weight has shape (3, 3)"),
        "groups": (
            errors.ShapeError,
            lambda: conv1d(x, weight[:, :1]),
            "weight has shape (16, 1, 3)",
        ),
        "no taps": (errors.ShapeError, lambda: conv1d(x, weight[..., :0]), "kernel_size has size"),
        "no channels": (errors.ShapeError, lambda: conv1d(x[:, :0], weight[:, :0]), "in_channels"),
        "no length": (errors.ShapeError, lambda: conv1d(x[..., :0], weight), "length has size 0"),
        "too many taps": (
            errors.ShapeError,
            lambda: conv1d(x[..., :1], weight),
            "kernel_size 3, length 1, padding 0",
        ),
        "bias": (errors.ShapeError, lambda: conv1d(x, weight, x[0, 0]), "bias has shape (9,)"),
        "residual": (
            errors.ShapeError,
            lambda: conv1d(x, weight, residual=random(2, 7, 16)),
            "residual has shape (2, 7, 16)",
        ),
        "stride": (errors.OptionError, lambda: conv1d(x, weight, stride=0), "stride=0"),
        "pair": (
            errors.ArgumentError,
            lambda: conv1d(x, weight, stride=(1,)),  # type: ignore[arg-type]
            "stride is a tuple",
        ),
        "padding": (errors.OptionError, lambda: conv1d(x, weight, padding=-1), "padding=-1"),
        "same": (
            errors.ArgumentError,
            lambda: conv1d(x, weight, padding="same"),  # type: ignore[arg-type]
            "padding is a str",
        ),
        "activation": (errors.OptionError, lambda: conv1d(x, weight, activation="elu"), "elu"),
    }


@pytest.mark.parametrize("name", _wrong_calls())
def test_wrong_arguments_say_what_is_allowed(name: str) -> None:
    error, call, seen = _wrong_calls()[name]
    check_refusal(error, call, seen)
