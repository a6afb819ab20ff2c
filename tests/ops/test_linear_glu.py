"""linear_glu beside its contract: both paths, ragged ends, strides, the choice, arguments."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernl import errors, tuning
from kernl.launch import LibraryCall, Plan
from kernl.op import DTYPES, Case
from kernl.ops import geglu, linear, linear_glu, swiglu
from kernl.ops.linear_glu import GATES, LINEAR_GLU, linear_glu_plan
from kernl.ops.linear_glu_config import LINEAR_GLU_TUNABLE, TWO, GluConfig
from kernl.ops.tile import accumulators_limit, shared_memory_limit
from kernl.tables import Value
from tests.ops.refusals import check_refusal

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FUSED = GluConfig("fused", 16, 32, 32, 4, 2)
BY_TMA = {
    "tma": GluConfig("tma", 16, 32, 32, 4, 2),
    "tma, one and a half wide": GluConfig("tma", 16, 48, 32, 4, 2),
}
PATHS = {"fused": FUSED, "two": TWO, **BY_TMA}
each_path = pytest.mark.parametrize("path", PATHS)


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Every `torch.empty` inside the test is full of NaN, so an unwritten element shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def random(device: str, *shape: int) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, device=device)


def names(plan: Plan) -> list[str]:
    """What a plan runs, kernels and library calls."""
    return [
        step.function.__name__ if isinstance(step, LibraryCall) else step.kernel.__name__
        for step in plan.launches
    ]


def check(
    config: GluConfig,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "silu",
) -> None:
    """One path against float64."""
    exact = (x.double(), weight.double(), None if bias is None else bias.double())
    truth = LINEAR_GLU.reference(*exact, activation)
    assert isinstance(truth, torch.Tensor)
    with tuning.forcing(LINEAR_GLU_TUNABLE, config):
        out = linear_glu(x, weight, bias, activation)
    assert out.shape == (*x.shape[:-1], weight.shape[0] // 2)
    assert out.dtype == x.dtype
    assert out.is_contiguous()
    name = next(name for name, dtype in DTYPES.items() if dtype == x.dtype)
    # A few elements have no norm to average their rounding over, and the products may cancel.
    limit = LINEAR_GLU.tolerance[name] * max(2.0, 30 / truth.numel())
    assert (out.double() - truth).norm() <= limit * truth.norm() + 1e-6


@pytest.mark.usefixtures("poisoned")
@each_path
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 31, 32, 64, 97, 200])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (3, 37), (17, 32), (33, 65)])
def test_sizes_around_the_blocks(path: str, dtype: str, k: int, m: int, n: int) -> None:
    """m, n and k past the end of a block: what is read there must count for nothing."""
    case = Case.of(dtype, m=m, n=n, k=k, bias=True, activation="silu")
    inputs = LINEAR_GLU.inputs(case, DEVICE, m * n * k)
    check(PATHS[path], **inputs)


@pytest.mark.usefixtures("poisoned")
@each_path
@pytest.mark.parametrize("activation", GATES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_activation_with_and_without_bias(
    path: str, activation: str, bias: bool, dtype: str
) -> None:
    case = Case.of(dtype, m=20, n=40, k=72, bias=bias, activation=activation)
    check(PATHS[path], **LINEAR_GLU.inputs(case, DEVICE, 5))


@each_path
@pytest.mark.parametrize("activation", GATES)
def test_a_path_runs_its_own_steps(path: str, activation: str) -> None:
    x, weight = (torch.empty(rows, 40, device="meta", dtype=torch.half) for rows in (3, 64))
    with tuning.forcing(LINEAR_GLU_TUNABLE, PATHS[path]):
        plan = linear_glu_plan(90, x, weight, None, activation)
    assert [tuple(out.shape) for out in plan.outputs] == [(3, 32)]
    if path == "fused":
        assert names(plan) == ["_linear_glu_kernel"]
    elif path in BY_TMA:
        assert names(plan) == ["_linear_glu_tma_kernel"]
        assert plan.kernels[0].grid == (1,)
    else:
        assert names(plan) == [*names(Plan((x,), plan.launches[:-1])), "_gated_kernel"]
        assert names(plan)[0].startswith(("_linear", "mm"))
        assert plan.kernels[-1].constants["ACTIVATION"] == activation


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("path", BY_TMA)
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 8, 8), (37, 40, 72), (70, 104, 200), (16, 49, 32)])
@pytest.mark.parametrize("activation", GATES)
def test_the_copy_engine_cuts_what_lies_outside(
    path: str, dtype: str, m: int, n: int, k: int, activation: str
) -> None:
    """Rows are multiples of 16 bytes; a block past the last row of gate must not read up's."""
    inputs = LINEAR_GLU.inputs(Case.of(dtype, m=m, n=n, k=k, bias=True, activation=activation),
                               DEVICE, 7)  # fmt: skip
    with tuning.forcing(LINEAR_GLU_TUNABLE, PATHS[path]):
        (launch,) = linear_glu_plan(90, **inputs).kernels
    assert launch.kernel.__name__ == "_linear_glu_tma_kernel"
    assert launch.grid == (-(-m // 16) * -(-n // PATHS[path].block_n),)
    check(PATHS[path], **inputs)


@pytest.mark.parametrize("path", BY_TMA)
@pytest.mark.parametrize("which", ["x", "weight"])
@pytest.mark.parametrize("how", ["shifted", "transposed", "wider by one"])
def test_what_the_copy_engine_cannot_reach_is_read_by_address(
    path: str, which: str, how: str
) -> None:
    case = Case.of("fp16", m=48, n=64, k=80, bias=False, activation="silu")
    inputs = LINEAR_GLU.inputs(case, DEVICE, 0)
    value = inputs[which]
    inputs[which] = {
        "shifted": torch.cat([value.flatten()[:1], value.flatten()])[1:].view(value.shape),
        "transposed": value.t().contiguous().t(),
        "wider by one": torch.cat([value, value[:, :1]], 1)[:, :-1],
    }[how]
    with tuning.forcing(LINEAR_GLU_TUNABLE, PATHS[path]):
        assert names(linear_glu_plan(90, **inputs)) == ["_linear_glu_kernel"]
    check(PATHS[path], **inputs)


def test_two_are_linear_and_the_gated_activation(device: str) -> None:
    x, weight, bias = random(device, 9, 40), random(device, 64, 40), random(device, 64)
    with tuning.forcing(LINEAR_GLU_TUNABLE, TWO):
        silu, gelu = linear_glu(x, weight, bias), linear_glu(x, weight, bias, "gelu_tanh")
    both = linear(x, weight, bias)
    assert torch.equal(silu, swiglu(both))
    assert torch.equal(gelu, geglu(both, None, "gelu_tanh"))


def test_gate_comes_first(device: str) -> None:
    x = torch.eye(2, device=device)
    weight = torch.tensor([[1.0, -1.0], [2.0, 3.0]], device=device)
    bias = torch.tensor([0.5, 7.0], device=device)
    truth = torch.nn.functional.silu(torch.tensor([1.5, -0.5])) * torch.tensor([9.0, 10.0])
    for config in PATHS.values():
        with tuning.forcing(LINEAR_GLU_TUNABLE, config):
            out = linear_glu(x, weight, bias)
        torch.testing.assert_close(out[:, 0].cpu(), truth)


@pytest.mark.usefixtures("poisoned")
@each_path
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_strides(path: str, dtype: str, device: str) -> None:
    n, k = 33, 40
    weights = (random(device, k, 2 * n).t(), random(device, 2 * n + 1, 3 * k)[1:, ::3])
    biases = (random(device, 4 * n)[::2], random(device, 1).expand(2 * n))
    xs = (
        random(device, k, 9).t(),
        random(device, 9, 3 * k)[:, ::3],
        random(device, 9 * k + 1)[1:].view(9, k),
        random(device, 1, k).expand(9, k),
        random(device, 2, 3, k, 5).movedim(2, 3),
        random(device, k),
    )
    for x in xs:
        for weight, bias in zip(weights, biases, strict=True):
            small, added = (weight * k**-0.5).to(DTYPES[dtype]), bias.to(DTYPES[dtype])
            check(PATHS[path], x.to(DTYPES[dtype]), small, added, "gelu")


def test_rows_of_1000_halves_are_known_to_be_aligned() -> None:
    def launch(k: int) -> dict[str, Any]:
        x, weight = (torch.empty(rows, k, dtype=torch.half, device="meta") for rows in (4, 16))
        with tuning.asked() as questions, tuning.forcing(LINEAR_GLU_TUNABLE, FUSED):
            (fused,) = linear_glu_plan(90, x, weight).kernels
        return {**fused.args, **fused.constants, **questions[0][1]}

    thousand, odd = launch(1000), launch(1001)
    assert (thousand["STRIDE_UNIT"], thousand["stride_x_m"], thousand["aligned"]) == (8, 125, 1)
    assert (odd["STRIDE_UNIT"], odd["stride_weight_n"], odd["aligned"]) == (1, 1001, 0)
    assert (thousand["K_UNIT"], odd["K_UNIT"]) == (8, 1)


@pytest.mark.usefixtures("poisoned")
@each_path
@pytest.mark.parametrize("activation", GATES)
def test_nan_and_infinity_go_where_pytorch_sends_them(
    path: str, activation: str, device: str
) -> None:
    # Gate is what the first column of x holds, up what the second does, and its negative.
    x = torch.zeros(6, 16, device=device)
    special = (float("nan"), float("inf"), 200.0, -200.0, 0.0, 1.0)
    x[:, 0], x[:, 1] = torch.tensor(special), torch.tensor(special).flip(0)
    weight = torch.zeros(4, 16, device=device)
    weight[:2, 0], weight[2:, 1] = 1.0, torch.tensor([1.0, -1.0])
    with tuning.forcing(LINEAR_GLU_TUNABLE, PATHS[path]):
        out = linear_glu(x, weight, None, activation)
    truth = LINEAR_GLU.reference(x, weight, None, activation)
    assert isinstance(truth, torch.Tensor)
    assert out.isnan().any(dim=1).tolist() == truth.isnan().any(dim=1).tolist()
    torch.testing.assert_close(out, truth, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("activation", GATES)
def test_products_beyond_half_precision_overflow_only_in_two(activation: str, device: str) -> None:
    """300 · 300 is no half; times a small one it is again, where it was not rounded on the way."""
    x = torch.tensor([[300.0, 1e-3]], device=device, dtype=torch.half)
    weight = torch.tensor([[300.0, 0.0], [0.0, 10.0]], device=device, dtype=torch.half)
    outputs = []
    for config in (FUSED, TWO):
        with tuning.forcing(LINEAR_GLU_TUNABLE, config):
            outputs.append(linear_glu(x, weight, None, activation).item())
    assert abs(outputs[0] - 900) < 2
    assert outputs[1] == float("inf")


@each_path
def test_empty_batches_give_empty_results(path: str, device: str) -> None:
    with tuning.forcing(LINEAR_GLU_TUNABLE, PATHS[path]):
        out = linear_glu(torch.empty(2, 0, 8, device=device), random(device, 10, 8))
    assert out.shape == (2, 0, 5)


KEYS: list[dict[str, Value]] = [
    {"bits": bits, "aligned": aligned, "m": m, "n": n, "k": k}
    for bits in (16, 32)
    for aligned in (0, 1)
    for m in (1, 16, 17, 64, 128, 512, 4096)
    for n, k in ((1, 1), (100, 64), (5632, 2048), (14336, 4096))
]


@pytest.mark.parametrize("capability", [80, 86, 89, 90, 100, 120])
def test_the_tuner_tries_what_fits(capability: int) -> None:
    for key in KEYS:
        first, *fused = LINEAR_GLU_TUNABLE.candidates(capability, key)
        assert first == TWO
        assert fused
        assert len(set(fused)) == len(fused)
        for config in fused:
            assert config.path in ("fused", "tma")
            if config.path == "tma":
                assert (capability >= 90, key["bits"], key["aligned"]) == (True, 16, 1)
            assert LINEAR_GLU_TUNABLE.fits(capability, key, config)
            stage = (config.block_m + 2 * config.block_n) * config.block_k * int(key["bits"]) // 8
            assert config.num_stages * stage <= shared_memory_limit(capability)
            sums = 2 * config.block_m * config.block_n // (32 * config.num_warps)
            assert sums <= accumulators_limit(capability)
            assert config.block_m <= max(16, 2 * int(key["m"]))


def test_the_copy_engine_is_for_hopper_and_newer() -> None:
    key: dict[str, Value] = {"bits": 16, "aligned": 1, "m": 128, "n": 5632, "k": 2048}
    config = GluConfig("tma", 128, 48, 64, 4, 8)
    fits = LINEAR_GLU_TUNABLE.fits
    assert [fits(capability, key, config) for capability in (80, 89, 90)] == [False, False, True]
    assert not fits(90, {**key, "bits": 32}, config)
    assert not fits(90, {**key, "aligned": 0}, config)
    assert not fits(90, key, config._replace(num_stages=9))
    tried = list(LINEAR_GLU_TUNABLE.candidates(90, key))
    assert config in tried
    assert {one.widths for one in tried if one.path == "tma"} >= {(32, 16), (64, 0), (64, 32)}


def test_blocks_too_large_do_not_fit() -> None:
    key: dict[str, Value] = {"bits": 16, "aligned": 1, "m": 128, "n": 5632, "k": 2048}
    tall = GluConfig("fused", 128, 128, 64, 8, 3)
    fits = LINEAR_GLU_TUNABLE.fits
    assert [fits(capability, key, tall) for capability in (80, 86, 90, 100)] == [0, 0, 1, 0]
    assert not fits(90, key, tall._replace(num_stages=5))
    assert not fits(90, {**key, "m": 64}, tall)
    assert not fits(90, {**key, "aligned": 0}, tall)
    assert fits(86, {**key, "aligned": 0}, TWO)


@pytest.mark.parametrize("capability", [80, 86, 90, 100])
@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("m", [1, 16, 128, 4096])
def test_the_rule_where_no_table_speaks(capability: int, bits: int, aligned: int, m: int) -> None:
    """One kernel where rows are few and whole vectors can be read, two of them elsewhere."""
    key: dict[str, Value] = {"bits": bits, "aligned": aligned, "m": m, "n": 5632, "k": 2048}
    config = LINEAR_GLU_TUNABLE.default(capability, key)
    assert config.path == ("fused" if bits == 16 and aligned and m == 16 else "two")
    assert LINEAR_GLU_TUNABLE.fits(capability, key, config)


@given(
    st.sampled_from(sorted(PATHS)),
    st.integers(1, 40),
    st.integers(1, 70),
    st.integers(1, 200),
    st.sampled_from(sorted(DTYPES)),
    st.booleans(),
    st.sampled_from(GATES),
    st.integers(0, 2**31),
)
def test_any_shape_on_any_path(
    path: str, m: int, n: int, k: int, dtype: str, bias: bool, activation: str, seed: int
) -> None:
    case = Case.of(dtype, m=m, n=n, k=k, bias=bias, activation=activation)
    check(PATHS[path], **LINEAR_GLU.inputs(case, DEVICE, seed))


def _wrong_calls(device: str) -> dict[str, tuple[type[Exception], Callable[[], Any], str]]:
    x, w, b = random(device, 4, 8), random(device, 10, 8), random(device, 10)
    call = linear_glu
    return {
        "list": (errors.ArgumentError, lambda: call([1.0], w), "x is a list"),  # type: ignore[arg-type]
        "weight": (errors.ArgumentError, lambda: call(x, 1.0), "weight is a float"),  # type: ignore[arg-type]
        "int": (errors.DTypeError, lambda: call(x.int(), w), "torch.int32"),
        "mixed": (errors.DTypeError, lambda: call(x, w.half()), "weight is torch.float16"),
        "mixed bias": (errors.DTypeError, lambda: call(x, w, b.half()), "bias is torch.float16"),
        "devices": (errors.DeviceError, lambda: call(x, w.to("meta")), "weight is on meta"),
        "scalar": (errors.ShapeError, lambda: call(x[0, 0], w), "()"),
        "inner": (errors.ShapeError, lambda: call(x, w[:, :7]), "weight has shape (10, 7)"),
        "no inner": (errors.ShapeError, lambda: call(x[:, :0], w[:, :0]), "has size 0"),
        "no outer": (errors.ShapeError, lambda: call(x, w[:0]), "has size 0"),
        "odd": (errors.ShapeError, lambda: call(x, w[:9]), "weight has 9 rows"),
        "bias": (errors.ShapeError, lambda: call(x, w, b[:5]), "bias has shape (5,)"),
        "gate": (errors.OptionError, lambda: call(x, w, b, "relu"), "activation='relu'"),
    }


@pytest.mark.parametrize("name", _wrong_calls("cpu"))
def test_wrong_arguments_say_what_is_allowed(name: str, device: str) -> None:
    error, call, seen = _wrong_calls(device)[name]
    check_refusal(error, call, seen)
