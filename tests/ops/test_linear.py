"""The paths of `linear`: each gives what float64 gives, and the choice of one is seen."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernl import tuning
from kernl.launch import Launch, LibraryCall
from kernl.op import Case
from kernl.ops.epilogue import Epilogue
from kernl.ops.linear import LINEAR, linear, linear_plan
from kernl.ops.linear_config import BY_TMA, GEMV_MOST_ROWS, LIBRARY, LINEAR_TUNABLE, LinearConfig
from kernl.ops.product import Product
from kernl.tables import Row

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

PATHS = {
    "tile": LinearConfig("tile", 16, 32, 32, 1, 4, 2),
    "split": LinearConfig("split", 16, 32, 32, 3, 4, 2),
    "gemv": LinearConfig("gemv", 1, 4, 64, 1, 4, 1),
    "tma": LinearConfig("tma", 16, 32, 32, 1, 4, 2),
    "wave": LinearConfig("wave", 16, 48, 32, 1, 4, 2),
    "library": LIBRARY,
}
STEPS = {
    "tile": ["_linear_kernel"],
    "split": ["_linear_kernel", "_finish_kernel"],
    "gemv": ["_linear_gemv_kernel"],
    "tma": ["_linear_tma_kernel"],
    "wave": ["_linear_wave_kernel"],
    "library": ["addmm", "_finish_kernel"],
}


def _case(m: int, n: int, k: int, dtype: str = "fp16") -> Case:
    return Case.of(dtype, m=m, n=n, k=k, bias=True, activation="gelu", residual=True)


def _error(case: Case, config: LinearConfig, seed: int = 0) -> float:
    inputs = LINEAR.inputs(case, DEVICE, seed)
    with tuning.forcing(LINEAR_TUNABLE, config):
        out = linear(**inputs)
    upcast = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
    truth = LINEAR.reference(**upcast)
    assert isinstance(truth, torch.Tensor)
    return float((out.double() - truth).norm() / truth.norm())


def _names(steps: tuple[Launch | LibraryCall, ...]) -> list[str]:
    return [
        step.kernel.__name__ if isinstance(step, Launch) else step.function.__name__
        for step in steps
    ]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("k", [1, 31, 32, 64, 97, 200])
def test_every_path_gives_what_float64_gives(path: str, dtype: str, k: int) -> None:
    case = _case(3, 37, k, dtype)
    # One product has no sum to average its rounding over, and the library rounds twice.
    assert _error(case, PATHS[path]) <= 2 * LINEAR.tolerance[dtype]


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 8, 8), (37, 40, 72), (70, 104, 200), (16, 32, 32)])
@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("path", BY_TMA)
def test_the_copy_engine_cuts_what_lies_outside(
    path: str, dtype: str, m: int, n: int, k: int, activation: str, residual: bool
) -> None:
    """Rows are multiples of 16 bytes, tiles and steps end anywhere."""
    case = Case.of(dtype, m=m, n=n, k=k, bias=True, activation=activation, residual=residual)
    inputs = LINEAR.inputs(case, DEVICE, 7)
    with tuning.forcing(LINEAR_TUNABLE, PATHS[path]):
        assert _names(linear_plan(90, **inputs).launches) == STEPS[path]
    assert _error(case, PATHS[path]) <= 2 * LINEAR.tolerance[dtype]


def _shifted(x: torch.Tensor) -> torch.Tensor:
    """The same values, two bytes behind a multiple of 16."""
    return torch.cat([x.flatten()[:1], x.flatten()])[1:].view(x.shape)


@pytest.mark.parametrize("which", ["x", "weight", "residual"])
@pytest.mark.parametrize("how", ["shifted", "transposed", "wider by one"])
@pytest.mark.parametrize("path", BY_TMA)
def test_what_the_copy_engine_cannot_reach_takes_the_tile_path(
    path: str, which: str, how: str
) -> None:
    inputs = LINEAR.inputs(_case(48, 64, 80), DEVICE, 0)
    value = inputs[which]
    inputs[which] = {
        "shifted": _shifted(value),
        "transposed": value.t().contiguous().t(),
        "wider by one": torch.cat([value, value[:, :1]], 1)[:, :-1],
    }[how]
    with tuning.forcing(LINEAR_TUNABLE, PATHS[path]):
        assert _names(linear_plan(90, **inputs).launches) == STEPS["tile"]
        out = linear(**inputs)
    upcast = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
    truth = LINEAR.reference(**upcast)
    assert isinstance(truth, torch.Tensor)
    assert (out.double() - truth).norm() <= 2 * LINEAR.tolerance["fp16"] * truth.norm()


def test_the_copy_engine_is_for_hopper_and_newer() -> None:
    config = LinearConfig("tma", 128, 256, 64, 1, 8, 3)
    key = {"bits": 16, "aligned": 1, "extra_pass": 1, "m": 16384, "n": 768, "k": 768}
    fits = {capability: LINEAR_TUNABLE.fits(capability, key, config) for capability in (80, 89, 90)}
    assert fits == {80: False, 89: False, 90: True}
    assert not LINEAR_TUNABLE.fits(90, {**key, "bits": 32}, config)
    assert not LINEAR_TUNABLE.fits(90, {**key, "aligned": 0}, config)
    assert LINEAR_TUNABLE.fits(90, key, config._replace(num_stages=4))
    assert not LINEAR_TUNABLE.fits(90, key, config._replace(num_stages=5))
    wave = LinearConfig("wave", 128, 96, 64, 1, 4, 4)
    assert [LINEAR_TUNABLE.fits(one, key, wave) for one in (80, 89, 90)] == [False, False, True]


def test_a_wave_is_not_taken_for_sizes_that_are_more_than_one() -> None:
    """A row of others' sizes may be the nearest one, and yet not be for these."""
    wave = LinearConfig("wave", 128, 96, 64, 1, 4, 4)
    key: dict[str, Any] = {"bits": 16, "aligned": 1, "extra_pass": 1, "n": 3072, "k": 768}
    tile = wave._replace(path="tile", block_n=64)
    rows = [Row(90, {**key, "m": 1024}, wave), Row(90, {**key, "m": 512}, tile)]
    chosen = {
        m: tuning.nearest(LINEAR_TUNABLE, 90, {**key, "m": m}, rows) for m in (900, 1024, 1100)
    }
    assert chosen == {900: wave, 1024: wave, 1100: tile}


@pytest.mark.parametrize("path", PATHS)
def test_a_path_runs_its_own_steps(path: str) -> None:
    inputs = LINEAR.inputs(_case(3, 40, 200), DEVICE, 0)
    with tuning.forcing(LINEAR_TUNABLE, PATHS[path]):
        plan = linear_plan(90, **inputs)
    assert _names(plan.launches) == STEPS[path]


@given(
    st.sampled_from(sorted(PATHS)),
    st.integers(1, GEMV_MOST_ROWS),
    st.integers(1, 40),
    st.integers(1, 300),
    st.booleans(),
    st.sampled_from(["none", "silu"]),
    st.booleans(),
)
def test_any_shape_on_any_path(
    path: str, m: int, n: int, k: int, bias: bool, activation: str, residual: bool
) -> None:
    case = Case.of("fp32", m=m, n=n, k=k, bias=bias, activation=activation, residual=residual)
    assert _error(case, PATHS[path], seed=m * n * k) <= 1e-5


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_a_limit_comes_last_on_every_path(
    path: str, bias: bool, residual: bool, activation: str
) -> None:
    case = Case.of("fp16", m=3, n=40, k=200, bias=bias, activation=activation, residual=residual)
    inputs = LINEAR.inputs(case, DEVICE, 2)
    inputs["x"][1, 5] = float("nan")
    inputs["x"][2] *= 30000
    with tuning.forcing(LINEAR_TUNABLE, PATHS[path]):
        out, free = linear(**inputs, limit=0.5), linear(**inputs)
        steps = linear_plan(90, **inputs, limit=0.5).launches
    truth = free.clamp(-0.5, 0.5)
    assert out[1].isnan().all()
    assert out[0].abs().max() == 0.5
    torch.testing.assert_close(out, truth, rtol=0, atol=0, equal_nan=True)
    assert len(steps) == (2 if path in ("split", "library") else 1)


def test_a_limit_saves_what_would_overflow() -> None:
    """65,504 - 1,000 is no half; PyTorch rounds it as the kernels do."""
    x = torch.full((3, 16), 200.0, device=DEVICE, dtype=torch.float16)
    weight = torch.full((8, 16), 200.0, device=DEVICE, dtype=torch.float16)
    for config in PATHS.values():
        with tuning.forcing(LINEAR_TUNABLE, config):
            assert torch.equal(linear(x, weight, limit=64504.0), (x @ weight.t()).clamp(max=64504))


def test_no_program_of_a_split_is_idle() -> None:
    """Nine blocks for eight programs are five times two: an idle program would add rubbish."""
    inputs = LINEAR.inputs(_case(3, 8, 9 * 32), DEVICE, 0)
    with tuning.forcing(LINEAR_TUNABLE, PATHS["split"]._replace(split_k=8)):
        products, finish = linear_plan(80, **inputs).kernels
    assert products.grid[1] == 5
    assert finish.constants["SPLIT_K"] == 5


def test_what_cublas_adds_and_what_it_leaves() -> None:
    bias, residual = torch.randn(4), torch.randn(2, 4)
    assert Epilogue(None, "none", None).left_by_library is None
    assert Epilogue(bias, "none", None).left_by_library is None
    alone = Epilogue(None, "none", residual)
    assert alone.added_by_library is residual
    assert alone.left_by_library is None
    both = Epilogue(bias, "none", residual)
    assert both.added_by_library is bias
    assert both.left_by_library == Epilogue(None, "none", residual)
    activated = Epilogue(None, "relu", residual)
    assert activated.added_by_library is None
    assert activated.left_by_library == activated
    limited = Epilogue(None, "none", residual, 2.0)
    assert limited.added_by_library is residual
    assert limited.left_by_library == Epilogue(None, "none", None, 2.0)


@pytest.mark.parametrize(
    ("k", "unit", "aligned"), [(64, 1, True), (1000, 8, True), (1001, 1, False), (24, 8, True)]
)
def test_rows_of_1000_halves_are_known_to_be_aligned(k: int, unit: int, aligned: bool) -> None:
    x, weight = torch.empty(4, k, dtype=torch.half), torch.empty(8, k, dtype=torch.half)
    product = Product(x, weight, torch.empty(4, 8), Epilogue(None, "none", None))
    assert product.stride_unit == unit
    assert product.aligned == aligned


def _transposed(m: int, n: int, k: int, dtype: str = "fp16") -> Case:
    flags = {"bias": True, "residual": False, "transposed": True}
    return Case.of(dtype, m=m, n=n, k=k, activation="none", **flags)


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("n", [1, 2, 6, 8, 36, 48, 80])
@pytest.mark.parametrize("path", ["tile", "split"])
def test_a_transposed_weight_is_read_by_vectors(path: str, n: int, dtype: str) -> None:
    """Columns that end anywhere in a block: what a vector holds is inside or outside as a whole."""
    case = _transposed(19, n, 100, dtype)
    inputs = LINEAR.inputs(case, DEVICE, 0)
    with tuning.forcing(LINEAR_TUNABLE, PATHS[path]):
        (first, *_) = linear_plan(90, **inputs).launches
    assert isinstance(first, Launch)
    assert first.constants["BESIDE"] == {1: 1, 2: 2, 6: 2, 8: 8, 36: 4, 48: 16, 80: 16}[n]
    assert _error(case, PATHS[path]) <= 2 * LINEAR.tolerance[dtype]


def test_few_rows_of_a_transposed_weight_are_left_to_cublas() -> None:
    inputs = LINEAR.inputs(_transposed(3, 48, 64), DEVICE, 0)
    with tuning.forcing(LINEAR_TUNABLE, PATHS["gemv"]):
        assert _names(linear_plan(90, **inputs).launches) == ["addmm"]
        inputs["weight"] = inputs["weight"].contiguous()
        assert _names(linear_plan(90, **inputs).launches) == STEPS["gemv"]
        one_column = LINEAR.inputs(_case(3, 48, 1), DEVICE, 0)
        assert _names(linear_plan(90, **one_column).launches) == STEPS["gemv"]


def test_transposed_operands_on_every_path() -> None:
    x = torch.randn(40, 4, device=DEVICE).t()
    weight = torch.randn(40, 9, device=DEVICE).t()
    truth = x.double() @ weight.double().t()
    for config in PATHS.values():
        with tuning.forcing(LINEAR_TUNABLE, config):
            assert (linear(x, weight).double() - truth).norm() <= 3e-6 * truth.norm()
