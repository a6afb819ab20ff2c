"""linear_rms_norm and linear_add_layer_norm beside their contract: paths, shapes, arguments."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernl import errors, tuning
from kernl.launch import LibraryCall, Plan
from kernl.op import DTYPES, Op
from kernl.ops import linear_add_layer_norm, linear_rms_norm, rms_norm
from kernl.ops.layer_norm import layer_norm_plan
from kernl.ops.linear_add_layer_norm import LINEAR_ADD_LAYER_NORM, LINEAR_ADD_LAYER_NORM_TUNABLE
from kernl.ops.linear_config import LinearConfig
from kernl.ops.linear_norm_config import LATE, TWO
from kernl.ops.linear_rms_norm import LINEAR_RMS_NORM, LINEAR_RMS_NORM_TUNABLE
from kernl.tables import Tunable
from tests.ops.refusals import check_refusal

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SPLIT = LinearConfig("split", 16, 16, 16, 3, 4, 2)
SPLIT_TMA = LinearConfig("split_tma", 16, 32, 16, 3, 4, 2)
PATHS = (TWO, LATE, SPLIT, SPLIT_TMA)


class Kind(NamedTuple):
    """One of the two operators, its tunable, and what its norm's kernels are called."""

    op: Op
    tunable: Tunable[LinearConfig]
    norm: str


KINDS = (
    Kind(LINEAR_RMS_NORM, LINEAR_RMS_NORM_TUNABLE, "_rms_norm"),
    Kind(LINEAR_ADD_LAYER_NORM, LINEAR_ADD_LAYER_NORM_TUNABLE, "_layer_norm"),
)
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.op.name)


def random(device: str, *shape: int) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, device=device)


def check(kind: Kind, dtype: str, *tensors: torch.Tensor | None, **options: Any) -> None:
    """Both outputs of every path against float64."""
    exact = [None if tensor is None else tensor.double() for tensor in tensors]
    truths = kind.op.reference(*exact, **options)
    for config in PATHS:
        with tuning.forcing(kind.tunable, config):
            outputs = kind.op.kernel(*tensors, **options)
        for out, truth in zip(outputs, truths, strict=True):
            assert out.shape == truth.shape
            assert out.dtype == DTYPES[dtype]
            assert out.is_contiguous()
            # One element has no norm to average its rounding over.
            limit = kind.op.tolerance[dtype] * max(1.0, 30 / truth.numel())
            assert (out.double() - truth).norm() <= limit * truth.norm() + 1e-6


def names(plan: Plan) -> list[str]:
    """What a plan runs, kernels and library calls."""
    return [
        step.function.__name__ if isinstance(step, LibraryCall) else step.kernel.__name__
        for step in plan.launches
    ]


@each_kind
@pytest.mark.parametrize("m", [1, 2, 17, 33])
@pytest.mark.parametrize(("n", "k"), [(16, 1), (17, 31), (33, 32), (100, 65)])
def test_sizes_around_the_blocks(kind: Kind, m: int, n: int, k: int, device: str) -> None:
    """k and n past the end of a block: what is read there must count for nothing."""
    x, weight, residual = random(device, m, k), random(device, n, k), random(device, m, n)
    check(kind, "fp32", x, weight, None, residual + 5, random(device, n))


@each_kind
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 33, 16), (17, 16, 40), (5, 100, 64), (33, 7, 136)])
def test_a_shared_inner_dimension(
    kind: Kind, dtype: str, m: int, n: int, k: int, device: str
) -> None:
    """Programs whose share ends inside a block, and what adds their sums up and norms."""
    shapes = ((m, k), (n, k), (n,), (m, n), (n,))
    tensors = [random(device, *shape).to(DTYPES[dtype]) for shape in shapes]
    with tuning.forcing(kind.tunable, SPLIT):
        plan = kind.op.plan(90, *tensors)
    assert names(plan) == ["_linear_kernel", "finish_norm_kernel"]
    assert [tuple(out.shape) for out in plan.outputs] == [(m, n), (m, n)]
    check(kind, dtype, *tensors)


@each_kind
@pytest.mark.parametrize("config", [TWO, LATE], ids=["two", "late"])
def test_where_the_residual_is_added(kind: Kind, config: LinearConfig) -> None:
    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.float32, device="meta")

    m, n, k = 16, 768, 768
    with tuning.forcing(kind.tunable, config):
        plan = kind.op.plan(90, empty(m, k), empty(n, k), empty(n), empty(m, n), empty(n))
    assert [tuple(out.shape) for out in plan.outputs] == [(m, n), (m, n)]
    norm = plan.kernels[-1]
    assert norm.kernel.__name__.startswith(kind.norm)
    assert norm.constants["HAS_RESIDUAL"] is (config == LATE)
    if config == LATE:
        assert norm.args["summed_ptr"] is plan.outputs[1]


@each_kind
@pytest.mark.parametrize(("m", "n", "k"), [(1, 16, 8), (37, 40, 72), (17, 128, 200), (33, 96, 16)])
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_the_copy_engine_cuts_what_lies_outside(
    kind: Kind, dtype: str, m: int, n: int, k: int, device: str
) -> None:
    """Also where the last share of k is a part of a block, and where x is a part of a tensor."""
    wide = random(device, m, k + 8).to(DTYPES[dtype])
    for x in (wide[:, :k], wide[:, 8:], wide[:, :k].contiguous()):
        tensors = [
            random(device, *shape).to(DTYPES[dtype]) for shape in ((n, k), (n,), (m, n), (n,))
        ]
        with tuning.forcing(kind.tunable, SPLIT_TMA):
            plan = kind.op.plan(90, x, *tensors)
        assert names(plan) == ["_linear_split_tma_kernel", "finish_norm_kernel"]
        check(kind, dtype, x, *tensors)


@each_kind
@pytest.mark.parametrize("which", [0, 1])
def test_what_the_copy_engine_cannot_reach_is_read_by_address(
    kind: Kind, which: int, device: str
) -> None:
    m, n, k = 20, 32, 48
    tensors = [random(device, *shape).half() for shape in ((m, k), (n, k), (n,), (m, n), (n,))]
    tensors[which] = tensors[which].t().contiguous().t()
    with tuning.forcing(kind.tunable, SPLIT_TMA):
        plan = kind.op.plan(90, *tensors)
    assert "_linear_split_tma_kernel" not in names(plan)
    check(kind, "fp16", *tensors)


@each_kind
def test_rows_that_start_anywhere_are_not_split(kind: Kind, device: str) -> None:
    x, weight = random(device, 5, 25).half(), random(device, 16, 25).half()
    residual, vector = random(device, 5, 16).half(), random(device, 16).half()
    with tuning.forcing(kind.tunable, SPLIT):
        plan = kind.op.plan(90, x, weight, None, residual, vector)
    assert "finish_norm_kernel" not in names(plan)
    assert plan.kernels[-1].constants["HAS_RESIDUAL"] is True  # late: the norm adds it
    check(kind, "fp16", x, weight, None, residual, vector)


@each_kind
def test_any_strides(kind: Kind, device: str) -> None:
    n, k = 33, 20
    weight, bias = random(device, k, n).t(), random(device, 2 * n)[::2]
    norm_weight, residual = random(device, 3 * n)[1::3], random(device, n, 9).t()
    for x in (
        random(device, k, 9).t(),
        random(device, 9, 3 * k)[:, ::3],
        random(device, 9 * k + 1)[1:].view(9, k),
        random(device, 1, k).expand(9, k),
    ):
        check(kind, "fp32", x, weight, bias, residual, norm_weight)


@each_kind
@pytest.mark.parametrize("batch", [(), (3,), (2, 1, 3)])
def test_any_number_of_dimensions(kind: Kind, batch: tuple[int, ...], device: str) -> None:
    x, weight, vector = random(device, *batch, 8), random(device, 20, 8), random(device, 20)
    check(kind, "fp32", x, weight, vector, random(device, *batch, 20), vector)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_offset_is_added_to_the_weight(dtype: str, device: str) -> None:
    shapes = ((17, 40), (33, 40), (33,), (17, 33), (33,))
    tensors = [random(device, *shape).to(DTYPES[dtype]) for shape in shapes]
    check(KINDS[0], dtype, *tensors, eps=1e-3, offset=1.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_shift_is_added_to_the_layer_norm(dtype: str, device: str) -> None:
    shapes = ((17, 40), (33, 40), (33,), (17, 33), (33,), (33,))
    tensors = [random(device, *shape).to(DTYPES[dtype]) for shape in shapes]
    check(KINDS[1], dtype, *tensors, eps=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_limit_comes_before_the_layer_norm(dtype: str, device: str) -> None:
    """On every path; NaN stays."""
    shapes = ((3, 40), (33, 40), (33,), (3, 33), (33,), (33,))
    tensors = [random(device, *shape).to(DTYPES[dtype]) for shape in shapes]
    check(KINDS[1], dtype, *tensors, limit=0.5)
    tensors[3][1, 5] = float("nan")
    for config in PATHS:
        with tuning.forcing(LINEAR_ADD_LAYER_NORM_TUNABLE, config):
            normed, summed = LINEAR_ADD_LAYER_NORM.kernel(*tensors, limit=0.5)
        assert normed[1].isnan().all()
        assert summed[1].isnan().sum() == 1
        assert summed[::2].abs().max() == 0.5


@pytest.mark.parametrize("cols", [33, 16384, 16385, 20011])
def test_a_limit_in_rows_that_are_walked_twice_too(cols: int, device: str) -> None:
    x, residual = random(device, 2, cols), random(device, 2, cols)
    weight, bias = random(device, cols), random(device, cols)
    plan = layer_norm_plan(80, x, weight, bias, residual, limit=0.5)
    (step,) = plan.kernels
    assert ("loop" in step.kernel.__name__) == (cols > 16384)
    normed, summed = plan.run()
    truth = (x.double() + residual.double()).clamp(-0.5, 0.5)
    assert torch.equal(summed, truth.float())
    truth = torch.nn.functional.layer_norm(truth, (cols,), weight.double(), bias.double(), 1e-5)
    assert (normed.double() - truth).norm() <= 2e-6 * truth.norm()


def test_a_limit_saves_what_would_overflow(device: str) -> None:
    """65,504 - 1,000 is no half; PyTorch rounds it as the kernels do."""
    x = torch.full((3, 16), 200.0, device=device).half()
    weight = torch.full((8, 16), 200.0, device=device).half()
    residual, vector = random(device, 3, 8).half(), random(device, 8).half()
    for config in PATHS:
        with tuning.forcing(LINEAR_ADD_LAYER_NORM_TUNABLE, config):
            normed, summed = linear_add_layer_norm(
                x, weight, None, residual, vector, vector, limit=64504.0
            )
        assert torch.equal(summed, (residual + x @ weight.t()).clamp(max=64504))
        assert torch.equal(normed, vector.expand(3, 8))


def test_the_norm_is_that_of_rms_norm_with_a_residual(device: str) -> None:
    """Of the float32 sum: rounded first, every element would be off by a half of its last place."""
    x, weight = torch.zeros(1, 16, device=device).half(), torch.zeros(64, 16, device=device).half()
    residual = random(device, 1, 64).half()
    bias = (random(device, 64) / 4096).half()
    scale = torch.ones(64, device=device).half()
    alone = bias.expand(1, 64).contiguous()
    expected = rms_norm(alone, scale, residual=residual)
    with tuning.forcing(LINEAR_RMS_NORM_TUNABLE, SPLIT):
        outputs = linear_rms_norm(x, weight, bias, residual, scale)
    assert torch.equal(outputs[1], expected[1])
    torch.testing.assert_close(outputs[0], expected[0], rtol=1e-3, atol=0)


@each_kind
def test_empty_batch(kind: Kind, device: str) -> None:
    x, weight = torch.empty(2, 0, 8, device=device), random(device, 20, 8)
    residual = torch.empty(2, 0, 20, device=device)
    outputs = kind.op.kernel(x, weight, None, residual, weight[:, 0])
    assert [tuple(out.shape) for out in outputs] == [(2, 0, 20), (2, 0, 20)]


RULES = [
    # m, n, k, bits, path, block_m, split_k
    (1, 2048, 5632, 16, "two", 16, 1),
    (16, 2048, 5632, 16, "split", 16, 4),
    (32, 4096, 4096, 16, "split", 16, 1),
    (128, 2048, 2048, 16, "split", 64, 2),
    (128, 2048, 5632, 16, "split", 64, 2),
    (128, 512, 512, 16, "split", 64, 2),
    (256, 8192, 8192, 16, "split", 64, 1),
    (257, 2048, 2048, 16, "late", 16, 1),
    (128, 8193, 2048, 16, "late", 16, 1),
    (128, 2048, 511, 16, "late", 16, 1),
    (128, 2048, 2048, 32, "late", 16, 1),
]


@each_kind
@pytest.mark.parametrize(("m", "n", "k", "bits", "path", "block_m", "split_k"), RULES)
def test_the_rule_where_no_table_speaks(
    kind: Kind, m: int, n: int, k: int, bits: int, path: str, block_m: int, split_k: int
) -> None:
    for capability in (80, 86, 90, 100):
        key = {"bits": bits, "m": m, "n": n, "k": k}
        config = kind.tunable.default(capability, key)
        assert (config.path, config.block_m, config.split_k) == (path, block_m, split_k)
        assert kind.tunable.fits(capability, key, config)
        if path == "split":
            assert split_k == 1 or k // split_k >= 2 * config.block_k
    assert kind.tunable.default(75, key).path in ("two", "late")


@each_kind
def test_the_tuner_tries_every_path_that_fits(kind: Kind) -> None:
    key = {"bits": 16, "m": 128, "n": 2048, "k": 5632}
    candidates = set(kind.tunable.candidates(90, key))
    assert {config.path for config in candidates} == {"two", "late", "split", "split_tma"}
    tma = [config for config in candidates if config.path == "split_tma"]
    assert any(kind.tunable.fits(90, key, config) for config in tma)
    assert not any(kind.tunable.fits(89, key, config) for config in tma)
    assert kind.tunable.default(90, key) in candidates
    assert not any(
        kind.tunable.fits(90, {**key, "bits": 32}, config)
        for config in candidates
        if config.path in ("split", "split_tma")
    )


@given(
    st.sampled_from(KINDS),
    st.integers(1, 40),
    st.integers(16, 70),
    st.integers(1, 70),
    st.sampled_from(sorted(DTYPES)),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_any_shape(kind: Kind, m: int, n: int, k: int, dtype: str, bias: bool, seed: int) -> None:
    generator = torch.Generator(DEVICE).manual_seed(seed)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=DEVICE).to(DTYPES[dtype])

    vector = tensor(n) if bias else None
    weight = (tensor(n, k) * k**-0.5).to(DTYPES[dtype])
    check(kind, dtype, tensor(m, k), weight, vector, tensor(m, n), tensor(n))


def _wrong_calls(device: str) -> dict[str, tuple[type[Exception], Callable[[], Any], str]]:
    x, w, r, g = (random(device, *s) for s in ((4, 8), (16, 8), (4, 16), (16,)))
    call, shifted = linear_rms_norm, linear_add_layer_norm
    return {
        "list": (errors.ArgumentError, lambda: call([1.0], w, None, r, g), "x is a list"),  # type: ignore[arg-type]
        "residual": (errors.ArgumentError, lambda: call(x, w, None, None, g), "residual is a None"),  # type: ignore[arg-type]
        "gamma": (errors.ArgumentError, lambda: call(x, w, None, r, 1.0), "norm_weight is a float"),  # type: ignore[arg-type]
        "mixed": (errors.DTypeError, lambda: call(x, w.half(), None, r, g), "weight is torch.f"),
        "mixed bias": (errors.DTypeError, lambda: call(x, w, g.half(), r, g), "bias is torch.f"),
        "devices": (errors.DeviceError, lambda: call(x, w, None, r.to("meta"), g), "is on meta"),
        "inner": (errors.ShapeError, lambda: call(x, w[:, :7], None, r, g), "weight has shape"),
        "bias": (errors.ShapeError, lambda: call(x, w, g[:7], r, g), "bias has shape (7,)"),
        "wrong sum": (errors.ShapeError, lambda: call(x, w, g, r[:3], g), "residual has shape"),
        "scale": (errors.ShapeError, lambda: call(x, w, g, r, g[:3]), "norm_weight has shape"),
        "eps": (errors.OptionError, lambda: call(x, w, g, r, g, -1.0), "eps=-1.0"),
        "offset": (errors.OptionError, lambda: call(x, w, g, r, g, 0.0, -1.0), "offset=-1.0"),
        "shift": (errors.ShapeError, lambda: shifted(x, w, g, r, g, g[:3]), "norm_bias has shape"),
        "shifted eps": (errors.OptionError, lambda: shifted(x, w, g, r, g, g, -1.0), "eps=-1.0"),
        "limit": (errors.OptionError, lambda: shifted(x, w, g, r, g, g, limit=-1.0), "limit=-1.0"),
    }


@pytest.mark.parametrize("name", _wrong_calls("cpu"))
def test_wrong_arguments_say_what_is_allowed(name: str, device: str) -> None:
    error, call, seen = _wrong_calls(device)[name]
    check_refusal(error, call, seen)
