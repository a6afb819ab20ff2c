"""8-bit floats beside the contract: rounding as PyTorch rounds, paths, extremes, wrong calls."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernl import errors
from kernl.launch import LibraryCall
from kernl.op import DTYPES
from kernl.ops import fp8_linear, quantize_fp8
from kernl.ops.fp8_linear import FP8_LINEAR, fp8_linear_plan, fp8_linear_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = FP8_LINEAR.tolerance


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator(DEVICE).manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, device=DEVICE).to(dtype)


def rounded_by_the_kernel(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the first of the two launches leaves."""
    weight, scale = quantize_fp8(random(4, x.shape[1]))
    plan = fp8_linear_plan(90, x, weight, scale)
    first = plan.kernels[0]
    first.run()
    return first.args["out_ptr"], first.args["scale_ptr"]


@pytest.mark.gpu
def test_on_this_gpu_the_kernel_runs() -> None:
    x, (weight, scale) = random(5, 64), quantize_fp8(random(8, 64))
    capability = 10 * torch.cuda.get_device_capability()[0]
    names = [type(step).__name__ for step in fp8_linear_plan(capability, x, weight, scale).launches]
    assert names == ["Launch", "Launch"]


@pytest.mark.parametrize("dtype", list(DTYPES.values()), ids=str)
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e4])
def test_rounding_is_that_of_pytorch(dtype: torch.dtype, size: float) -> None:
    x = (size * random(9, 5000)).to(dtype)
    x[3, ::7] *= 1e-3  # subnormal numbers of e4m3
    ours, scale = rounded_by_the_kernel(x)
    theirs, expected = quantize_fp8(x)
    assert torch.equal(scale, expected)
    assert torch.equal(ours.float(), theirs.float())


def test_every_value_of_e4m3_survives() -> None:
    bits = torch.arange(256, device=DEVICE).to(torch.uint8)
    values = bits.view(torch.float8_e4m3fn).float()
    values = values[values.isfinite()][None]
    ours, scale = rounded_by_the_kernel(values)
    assert scale.item() == 1.0
    assert torch.equal(ours.float(), values)


def test_halfway_rounds_to_even_also_over_a_power_of_two() -> None:
    x = torch.tensor([[448.0, 127.0, 125.3, 17.0, 19.0, 0.4977, -127.2]], device=DEVICE)
    ours, _ = rounded_by_the_kernel(x)
    assert ours.float().tolist() == [[448.0, 128.0, 128.0, 16.0, 20.0, 0.5, -128.0]]


def test_rows_of_zeros_give_the_bias() -> None:
    weight, scale = quantize_fp8(random(6, 40))
    bias = random(6)
    out = fp8_linear(torch.zeros(3, 40, device=DEVICE), weight, scale, bias)
    assert torch.equal(out, bias.expand(3, 6))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_stays_in_its_row(value: float) -> None:
    weight, scale = quantize_fp8(random(6, 40))
    x = random(3, 40)
    x[1, 7] = value
    out = fp8_linear(x, weight, scale)
    assert out[1].isnan().all()
    assert out[[0, 2]].isfinite().all()


def test_rows_of_any_size_keep_their_accuracy() -> None:
    """Each row has its own scale: a large one does not drown a small one."""
    weight, scale = quantize_fp8(random(64, 256))
    x = random(4, 256) * torch.tensor([[1e-6], [1.0], [1e4], [1e-20]], device=DEVICE)
    truth = x.double() @ (weight.double() * scale.double()[:, None]).t()
    out = fp8_linear(x, weight, scale)
    for mine, exact in zip(out.double(), truth, strict=True):
        assert (mine - exact).norm() <= 0.06 * exact.norm()


def test_gpus_without_8_bit_tensor_cores_compute_by_pytorch() -> None:
    x, (weight, scale) = random(5, 64), quantize_fp8(random(8, 64))
    meta = (x.to("meta"), weight.to("meta"), scale.to("meta"))
    for capability in (80, 86):
        assert fp8_linear_plan(capability, *meta).kernels == ()
    for capability in (89, 90, 100):
        assert len(fp8_linear_plan(capability, *meta).kernels) == 2
    (call,) = fp8_linear_plan(80, *meta).launches
    assert isinstance(call, LibraryCall)
    out = torch.empty(5, 8, device=DEVICE)
    call.function(out, x, weight, scale)
    assert torch.equal(out, fp8_linear_reference(x, weight, scale))


def test_any_strides_and_batches() -> None:
    weight, scale = quantize_fp8(random(8, 64))
    spread = torch.empty(64, 24, device=DEVICE, dtype=torch.uint8)[:, ::3].t()
    spread = spread.copy_(weight.view(torch.uint8)).view(torch.float8_e4m3fn)
    x = random(64, 3, 2).permute(1, 2, 0)
    truth = fp8_linear_reference(x.double(), weight.double(), scale.double())
    out = fp8_linear(x, spread, scale.repeat_interleave(3)[::3])
    assert out.shape == (3, 2, 8)
    assert (out.double() - truth).norm() <= TOLERANCE["fp32"] * truth.norm()
    assert fp8_linear(x[:0], weight, scale).shape == (0, 2, 8)
    assert fp8_linear(x[0, 0], weight, scale).shape == (8,)


def _wrong_calls() -> dict[str, tuple[type[Exception], Callable[[], Any], str]]:
    x, (weight, scale) = random(3, 64), quantize_fp8(random(8, 64))
    return {
        "weight": (errors.DTypeError, lambda: fp8_linear(x, x, scale), "torch.float8_e4m3fn"),
        "k": (errors.ShapeError, lambda: fp8_linear(x[:, :5], weight, scale), "(n, 5)"),
        "scale": (errors.ShapeError, lambda: fp8_linear(x, weight, scale[:3]), "weight_scale"),
        "dtype of scale": (
            errors.DTypeError,
            lambda: fp8_linear(x, weight, scale.half()),
            "torch.float32",
        ),
        "activation": (
            errors.OptionError,
            lambda: fp8_linear(x, weight, scale, None, "swish"),
            "'silu'",
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
    m, n, k = (data.draw(st.integers(1, 150)) for _ in range(3))
    weight, scale = quantize_fp8(random(n, k))
    x = random(m, k, dtype=DTYPES[dtype])
    truth = fp8_linear_reference(x.double(), weight.double(), scale.double())
    out = fp8_linear(x, weight, scale)
    assert (out.double() - truth).norm() <= TOLERANCE[dtype] * truth.norm()
