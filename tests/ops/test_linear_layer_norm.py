"""linear_layer_norm beside its contract: every path on every shape, strides, arguments."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernl import errors, tuning
from kernl.op import DTYPES
from kernl.ops import linear_layer_norm
from kernl.ops.linear_config import LinearConfig
from kernl.ops.linear_layer_norm import (
    LINEAR_LAYER_NORM,
    linear_layer_norm_plan,
    linear_layer_norm_reference,
)
from kernl.ops.linear_layer_norm_config import LINEAR_LAYER_NORM_TUNABLE
from kernl.ops.linear_norm_config import LATE, TWO
from tests.ops.refusals import check_refusal

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FUSED = LinearConfig("fused", 16, 16, 32, 1, 4, 2)
SPLIT = LinearConfig("split", 16, 16, 16, 3, 4, 2)


def random(device: str, *shape: int) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, device=device)


def check(dtype: str, *tensors: torch.Tensor | None) -> None:
    """Every path against float64."""
    exact = [None if tensor is None else tensor.double() for tensor in tensors]
    truth = linear_layer_norm_reference(*exact)  # type: ignore[arg-type]
    for config in (FUSED, TWO, LATE, SPLIT):
        with tuning.forcing(LINEAR_LAYER_NORM_TUNABLE, config):
            out = linear_layer_norm(*tensors)  # type: ignore[arg-type]
        assert out.shape == truth.shape
        assert out.dtype == DTYPES[dtype]
        assert out.is_contiguous()
        # One element has no norm to average its rounding over.
        limit = LINEAR_LAYER_NORM.tolerance[dtype] * max(1.0, 30 / truth.numel())
        assert (out.double() - truth).norm() <= limit * truth.norm() + 1e-6


@pytest.mark.parametrize("m", [1, 2, 16, 17, 33])
@pytest.mark.parametrize(("n", "k"), [(16, 1), (17, 31), (33, 32), (64, 33), (100, 65)])
def test_sizes_around_the_blocks(m: int, n: int, k: int, device: str) -> None:
    """k and n past the end of a block: what is read there must count for nothing."""
    x, weight, residual = random(device, m, k), random(device, n, k), random(device, m, n)
    # A sum far from 0: columns beyond n would change the variance if they took the mean away.
    check("fp32", x, weight, None, residual + 5, random(device, n))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 33, 16), (17, 16, 40), (5, 100, 64), (33, 7, 136)])
def test_a_shared_inner_dimension(dtype: str, m: int, n: int, k: int, device: str) -> None:
    """Programs whose share ends inside a block, and what adds their sums up and norms."""
    tensors = [
        random(device, *shape).to(DTYPES[dtype])
        for shape in ((m, k), (n, k), (n,), (m, n), (n,), (n,))
    ]
    with tuning.forcing(LINEAR_LAYER_NORM_TUNABLE, SPLIT):
        x, weight, bias, residual, scale, shift = tensors
        plan = linear_layer_norm_plan(90, x, weight, bias, residual, scale, shift)
    names = [step.kernel.__name__ for step in plan.kernels]
    assert names == ["_linear_kernel", "finish_norm_kernel"]
    check(dtype, *tensors)


def test_any_strides(device: str) -> None:
    n, k = 33, 20
    weight, bias = random(device, k, n).t(), random(device, 2 * n)[::2]
    norm_weight, norm_bias = random(device, 3 * n)[1::3], random(device, 1).expand(n)
    residual = random(device, n, 9).t()
    for x in (
        random(device, k, 9).t(),
        random(device, 9, 3 * k)[:, ::3],
        random(device, 18, 50)[::2, 7 : 7 + k],
        random(device, 9 * k + 1)[1:].view(9, k),
        random(device, 1, k).expand(9, k),
        random(device, 9, 1).expand(9, k),
    ):
        check("fp32", x, weight, bias, residual, norm_weight, norm_bias)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (2, 1, 3)])
def test_any_number_of_dimensions(batch: tuple[int, ...], device: str) -> None:
    x, weight = random(device, *batch, 8), random(device, 20, 8)
    check("fp32", x, weight, random(device, 20), random(device, *batch, 20), random(device, 20))


def test_rows_keep_their_digits_far_from_zero(device: str) -> None:
    x, weight = random(device, 3, 16), random(device, 64, 16)
    residual = 1000 + random(device, 3, 64)
    ones = torch.ones(64, device=device)
    truth = linear_layer_norm_reference(
        x.double(), weight.double(), None, residual.double(), ones.double()
    )
    for config in (FUSED, TWO, LATE, SPLIT):
        with tuning.forcing(LINEAR_LAYER_NORM_TUNABLE, config):
            out = linear_layer_norm(x, weight, None, residual, ones)
        assert (out.double() - truth).norm() <= 1e-4 * truth.norm()


def test_constant_rows_have_no_variance(device: str) -> None:
    zeros, ones = torch.zeros(4, 24, device=device), torch.ones(24, device=device)
    shift = random(device, 24)
    for config in (FUSED, TWO, LATE, SPLIT):
        with tuning.forcing(LINEAR_LAYER_NORM_TUNABLE, config):
            out = linear_layer_norm(zeros, zeros[:1].expand(24, 24), ones, zeros, ones, shift)
        # The mean of ones may be off by one in the last place: a division on a GPU is.
        assert torch.allclose(out, shift.expand(4, 24), atol=1e-4, rtol=0)


def test_empty_batch(device: str) -> None:
    x, weight = torch.empty(2, 0, 8, device=device), random(device, 20, 8)
    residual = torch.empty(2, 0, 20, device=device)
    assert linear_layer_norm(x, weight, None, residual, weight[:, 0]).shape == (2, 0, 20)


@pytest.mark.parametrize(
    ("m", "n", "k", "dtype", "path"),
    [
        (16, 768, 768, torch.float16, "late"),
        (16384, 768, 3072, torch.float16, "late"),
        (128, 384, 384, torch.float16, "late"),
        (4096, 384, 384, torch.float32, "late"),
        (4, 64, 64, torch.float32, "fused"),
    ],
)
def test_the_rule_where_no_table_speaks(
    m: int, n: int, k: int, dtype: torch.dtype, path: str
) -> None:
    for capability in (80, 86, 90, 100):
        key = {"bits": 8 * dtype.itemsize, "m": m, "n": n, "k": k}
        assert LINEAR_LAYER_NORM_TUNABLE.default(capability, key).path == path


@pytest.mark.parametrize("config", [LATE, TWO, None], ids=["late", "two", "fused"])
def test_paths(config: LinearConfig | None) -> None:
    m, n, k = (4, 64, 64) if config is None else (16, 768, 768)
    config = config or LINEAR_LAYER_NORM_TUNABLE.default(80, {"bits": 32, "m": m, "n": n, "k": k})

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.float32, device="meta")

    with tuning.forcing(LINEAR_LAYER_NORM_TUNABLE, config):
        plan = linear_layer_norm_plan(
            90, empty(m, k), empty(n, k), empty(n), empty(m, n), empty(n), empty(n)
        )
    assert [tuple(out.shape) for out in plan.outputs] == [(m, n)]
    names = [launch.kernel.__name__ for launch in plan.kernels]
    if config.path == "fused":
        assert names == ["_linear_layer_norm_kernel"]
        return
    norm = plan.kernels[-1]
    assert len(plan.launches) >= 2
    assert norm.kernel.__name__.startswith("_layer_norm")
    assert norm.constants["HAS_RESIDUAL"] is (config.path == "late")
    if config.path == "late":
        assert norm.constants["KEEP_SUM"] is False


@given(
    st.integers(1, 40),
    st.integers(16, 70),
    st.integers(1, 70),
    st.sampled_from(sorted(DTYPES)),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_any_shape(m: int, n: int, k: int, dtype: str, bias: bool, seed: int) -> None:
    generator = torch.Generator(DEVICE).manual_seed(seed)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=DEVICE).to(DTYPES[dtype])

    vector = tensor(n) if bias else None
    weight = (tensor(n, k) * k**-0.5).to(DTYPES[dtype])
    check(dtype, tensor(m, k), weight, vector, tensor(m, n), tensor(n), vector)


def _wrong_calls(device: str) -> dict[str, tuple[type[Exception], Callable[[], Any], str]]:
    x, w, r, g = (random(device, *s) for s in ((4, 8), (16, 8), (4, 16), (16,)))
    call = linear_layer_norm
    return {
        "list": (errors.ArgumentError, lambda: call([1.0], w, None, r, g), "x is a list"),  # type: ignore[arg-type]
        "residual": (errors.ArgumentError, lambda: call(x, w, None, None, g), "residual is a None"),  # type: ignore[arg-type]
        "gamma": (errors.ArgumentError, lambda: call(x, w, None, r, 1.0), "norm_weight is a float"),  # type: ignore[arg-type]
        "double": (errors.DTypeError, lambda: call(x.double(), w, None, r, g), "torch.float64"),
        "mixed": (errors.DTypeError, lambda: call(x, w.half(), None, r, g), "weight is torch.f"),
        "mixed bias": (errors.DTypeError, lambda: call(x, w, g.half(), r, g), "bias is torch.f"),
        "devices": (errors.DeviceError, lambda: call(x, w, None, r.to("meta"), g), "is on meta"),
        "scalar": (errors.ShapeError, lambda: call(x[0, 0], w, None, r, g), "x has shape ()"),
        "inner": (errors.ShapeError, lambda: call(x, w[:, :7], None, r, g), "weight has shape"),
        "no inner": (errors.ShapeError, lambda: call(x[:, :0], w[:, :0], None, r, g), "has size 0"),
        "no outer": (errors.ShapeError, lambda: call(x, w[:0], None, r, g), "has size 0"),
        "bias": (errors.ShapeError, lambda: call(x, w, g[:7], r, g), "bias has shape (7,)"),
        "wrong sum": (errors.ShapeError, lambda: call(x, w, g, r[:3], g), "residual has shape"),
        "scale": (errors.ShapeError, lambda: call(x, w, g, r, g[:3]), "norm_weight has shape"),
        "shift": (errors.ShapeError, lambda: call(x, w, g, r, g, g[:3]), "norm_bias has shape"),
        "eps": (errors.OptionError, lambda: call(x, w, g, r, g, g, -1.0), "eps=-1.0"),
    }


@pytest.mark.parametrize("name", _wrong_calls("cpu"))
def test_wrong_arguments_say_what_is_allowed(name: str, device: str) -> None:
    error, call, seen = _wrong_calls(device)[name]
    check_refusal(error, call, seen)
