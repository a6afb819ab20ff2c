"""Weights in 8 and 4 bits beside the contract: rounding, packing, paths, strides, wrong calls."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernl import errors, tuning
from kernl.op import DTYPES
from kernl.ops import quantize_weight, quantized_linear
from kernl.ops.quantize import GROUP_SIZES, dequantize_weight
from kernl.ops.quantized_linear import (
    QUANTIZED_LINEAR,
    quantized_linear_plan,
    quantized_linear_reference,
)
from kernl.ops.quantized_linear_config import LIBRARY, QUANTIZED_TUNABLE, QuantizedConfig
from kernl.ops.tile import shared_memory_limit

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = QUANTIZED_LINEAR.tolerance
TILE = QuantizedConfig("tile", 16, 16, 32, 1, 4, 2)
PATHS = {
    "tile": TILE,
    "split": TILE._replace(path="split", split_k=3),
    "gemv": QuantizedConfig("gemv", 1, 4, 64, 1, 4, 1),
    "library": LIBRARY,
}
KERNELS = {
    "tile": ["quantized_tile_kernel"],
    "split": ["quantized_tile_kernel", "_finish_kernel"],
    "gemv": ["quantized_gemv_kernel"],
    "library": ["dequantize_kernel", "_finish_kernel"],
}


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator(DEVICE).manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, device=DEVICE).to(dtype)


def error(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, **options: Any) -> float:
    """Relative L2 against float64."""
    exact: dict[str, Any] = {k: v.double() if torch.is_tensor(v) else v for k, v in options.items()}
    truth = quantized_linear_reference(x.double(), weight, scale.double(), **exact)
    out = quantized_linear(x, weight, scale, **options)
    assert out.dtype == x.dtype
    assert out.is_contiguous()
    return float((out.double() - truth).norm() / truth.norm())


@pytest.mark.parametrize("bits", [8, 4])
def test_many_rows_go_to_the_library_though_the_nearest_that_were_timed_are_few(bits: int) -> None:
    key = {"bits": 16, "weight": bits, "grouped": 1, "n": 2048, "k": 2048, "group": 128}
    for m, path in ((128, "split"), (256, "library"), (512, "library")):
        chosen = tuning.choose(QUANTIZED_TUNABLE, 90, torch.device("cpu"), m=m, **key)
        assert chosen.path == path


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("bits", "group"), [(8, None), (8, 32), (8, 128), (4, 32), (4, 128)])
@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_every_path(path: str, bits: int, group: int | None, dtype: str) -> None:
    weight, scale = quantize_weight(random(21, 384, dtype=DTYPES[dtype]), bits, group)
    x, bias, residual = (random(*s, dtype=DTYPES[dtype]) for s in ((3, 384), (21,), (3, 21)))
    with tuning.forcing(QUANTIZED_TUNABLE, PATHS[path]):
        found = error(x, weight, scale, bias=bias, activation="gelu", residual=residual)
        plan = quantized_linear_plan(90, x, weight, scale, bias, "gelu", residual)
    assert found <= TOLERANCE[dtype]
    assert [launch.kernel.__name__ for launch in plan.kernels] == KERNELS[path]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("group", GROUP_SIZES)
def test_rounding_is_within_half_a_step(bits: int, group: int) -> None:
    weight = random(7, 512)
    packed, scale = quantize_weight(weight, bits, group)
    back = dequantize_weight(packed, scale)
    step = scale.repeat_interleave(group, dim=1)
    assert ((back - weight).abs() <= 0.5001 * step).all()
    assert packed.nelement() * packed.itemsize == 7 * 512 * bits // 8
    assert scale.shape == (7, 512 // group)


@pytest.mark.parametrize("group", GROUP_SIZES)
def test_integers_survive_packing(group: int) -> None:
    """Each value at each place: a nibble too far would change another column."""
    integers = torch.arange(512, device=DEVICE).remainder(15) - 7
    weight = torch.stack([integers, integers.flip(0)]).float()
    packed, scale = quantize_weight(weight, 4, group)
    assert torch.equal(scale, torch.ones_like(scale))
    assert torch.equal(dequantize_weight(packed, scale), weight)
    eye = torch.eye(512, device=DEVICE)
    for config in (TILE, PATHS["gemv"]):
        with tuning.forcing(QUANTIZED_TUNABLE, config):
            rows = torch.cat([quantized_linear(x, packed, scale) for x in eye.split(4)])
        assert torch.equal(rows.t(), weight)


def test_a_group_of_zeros_stays_zero() -> None:
    weight = random(4, 64)
    weight[2, 32:] = 0
    for bits in (8, 4):
        packed, scale = quantize_weight(weight, bits, 32)
        back = dequantize_weight(packed, scale)
        assert back.isfinite().all()
        assert torch.equal(back[2, 32:], torch.zeros(32, device=DEVICE))


def test_more_bits_and_smaller_groups_are_nearer() -> None:
    weight, x = random(64, 1024), random(5, 1024)
    truth = x @ weight.t()
    found = []
    for bits, group in ((8, 32), (8, 256), (8, None), (4, 32), (4, 256)):
        out = quantized_linear(x, *quantize_weight(weight, bits, group))
        found.append(float((out - truth).norm() / truth.norm()))
    assert found == sorted(found)
    assert found[0] < 0.01
    assert found[-1] < 0.2


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transposed": lambda x: x.t().contiguous().t(),
    "every third column": lambda x: x.repeat_interleave(3, dim=1)[:, ::3],
    "one row for all": lambda x: x[:1].expand(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("path", PATHS)
def test_any_strides(layout: str, bits: int, path: str) -> None:
    weight, scale = quantize_weight(random(21, 192), bits, 64)
    change = LAYOUTS[layout]
    with tuning.forcing(QUANTIZED_TUNABLE, PATHS[path]):
        found = error(change(random(4, 192)), change(weight), change(scale))
    assert found <= TOLERANCE["fp32"]


def test_scales_in_float32() -> None:
    weight, scale = quantize_weight(random(21, 192), 8, 64)
    assert error(random(3, 192, dtype=torch.float16), weight, scale) <= TOLERANCE["fp16"]


def test_batches() -> None:
    packed = quantize_weight(random(21, 64), 8, 32)
    assert quantized_linear(random(2, 0, 64), *packed).shape == (2, 0, 21)
    assert quantized_linear(random(2, 3, 64), *packed).shape == (2, 3, 21)
    assert quantized_linear(random(64), *packed).shape == (21,)


@pytest.mark.parametrize("capability", [80, 86, 89, 90, 100])
@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("weight", [8, 4])
def test_every_class_has_configurations_that_fit(bits: int, weight: int, capability: int) -> None:
    for m in (1, 4, 5, 16, 17, 100, 511, 512, 5000):
        for group in (32, 256):
            key = {"bits": bits, "weight": weight, "grouped": 1, "group": group}
            key |= {"m": m, "n": 4096, "k": 4096}
            default = QUANTIZED_TUNABLE.default(capability, key)
            assert QUANTIZED_TUNABLE.fits(capability, key, default), default
            assert shared_memory_limit(capability) >= default.block_m * default.block_k


def _wrong_calls() -> dict[str, tuple[type[Exception], Callable[[], Any], str]]:
    x = random(3, 128)
    weight, scale = quantize_weight(random(8, 128), 8, 64)
    packed, _ = quantize_weight(random(8, 128), 4, 64)
    return {
        "dtype of weight": (
            errors.DTypeError,
            lambda: quantized_linear(x, random(8, 128), scale),
            "torch.int8",
        ),
        "k": (errors.ShapeError, lambda: quantized_linear(x[:, :64], weight, scale), "(n, 64)"),
        "packed k": (
            errors.ShapeError,
            lambda: quantized_linear(x[:, :64], packed, scale),
            "two in a byte",
        ),
        "groups": (
            errors.ShapeError,
            lambda: quantized_linear(x, weight, random(8, 3)),
            "kernl.ops.quantize_weight",
        ),
        "rows of scale": (
            errors.ShapeError,
            lambda: quantized_linear(x, weight, scale[:3]),
            "kernl.ops.quantize_weight",
        ),
        "a whole row of 4 bits": (
            errors.ShapeError,
            lambda: quantized_linear(random(3, 64), packed[:, :32], scale[:, :0]),
            "a group being",
        ),
        "bits": (errors.OptionError, lambda: quantize_weight(x, 3), "bits=3"),
        "group": (errors.OptionError, lambda: quantize_weight(x, 8, 48), "group_size=48"),
        "no group": (errors.OptionError, lambda: quantize_weight(x, 4, None), "with 4 bits"),
        "columns": (
            errors.ShapeError,
            lambda: quantize_weight(x[:, :100], 8, 64),
            "100 columns in groups of 64",
        ),
        "integers": (errors.DTypeError, lambda: quantize_weight(weight, 8), "torch.int8"),
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
    bits = data.draw(st.sampled_from([8, 4]))
    group = data.draw(st.sampled_from([32, 64, 128, *([None] if bits == 8 else [])]))
    k = data.draw(st.integers(1, 200)) if group is None else group * data.draw(st.integers(1, 4))
    m, n = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    weight, scale = quantize_weight(random(n, k, dtype=DTYPES[dtype]), bits, group)
    assert error(random(m, k, dtype=DTYPES[dtype]), weight, scale) <= TOLERANCE[dtype]
