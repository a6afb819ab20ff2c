"""cross_entropy beside its contract: targets, infinities, programs that share a row, arguments."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernl import errors, tuning
from kernl.op import DTYPES
from kernl.ops import cross_entropy
from kernl.ops.chunks import cut, programs_a_row
from kernl.ops.cross_entropy import (
    CROSS_ENTROPY_TUNABLE,
    CrossEntropyConfig,
    cross_entropy_plan,
    cross_entropy_reference,
)
from tests.ops.refusals import check_refusal

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHARED = CrossEntropyConfig(programs=4, block_cols=64, num_warps=1)
WHOLE = CrossEntropyConfig(programs=1, block_cols=64, num_warps=1)


def close(out: torch.Tensor, truth: torch.Tensor) -> bool:
    """Relative L2 against float64; NaN and infinity at the same places."""
    assert out.dtype == torch.float32
    assert out.shape == truth.shape
    finite = truth.isfinite()
    same = torch.equal(out[~finite].double().nan_to_num(0.5), truth[~finite].nan_to_num(0.5))
    return same and bool(
        (out[finite].double() - truth[finite]).norm() <= 1e-6 * truth[finite].norm() + 1e-12
    )


def random(device: str, *shape: int) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(sum(shape))
    return 4 * torch.randn(shape, generator=generator, device=device)


def check(
    logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0, ignore: int = -100
) -> None:
    truth = cross_entropy_reference(logits.double(), targets, ignore, smoothing)
    for config in (SHARED, WHOLE):
        with tuning.forcing(CROSS_ENTROPY_TUNABLE, config):
            assert close(cross_entropy(logits, targets, ignore, smoothing), truth)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_rows_and_label_smoothing(rows: int, smoothing: float, device: str) -> None:
    check(random(device, rows, 321), torch.arange(rows, device=device) * 64, smoothing)


@pytest.mark.parametrize("cols", [1, 2, 63, 64, 65, 255, 256, 257])
def test_vocabularies_around_the_block(cols: int, device: str) -> None:
    """All logits are negative: a column beyond the end read as 0 would be the largest by far."""
    logits = -50 - random(device, 3, cols).abs()
    check(logits, torch.tensor([0, cols // 2, cols - 1], device=device), 0.1)


def test_strides_and_offsets(device: str) -> None:
    targets = torch.tensor([[5, 0], [69, 0], [-100, 0]], dtype=torch.int32, device=device)[:, 0]
    layouts = (
        random(device, 70, 3).t(),
        random(device, 3, 140)[:, ::2],
        random(device, 6, 90)[::2, 7:77],
        random(device, 1, 70).expand(3, 70),
        random(device, 3, 1).expand(3, 70),
        random(device, 211)[1:].view(3, 70),
    )
    for logits in layouts:
        check(logits, targets, 0.2)
    check(layouts[0], targets[:1].expand(3))


def test_infinities_are_those_of_pytorch(device: str) -> None:
    logits = random(device, 6, 300)
    logits[0, 1:] = float("-inf")
    logits[1, :299] = float("-inf")
    logits[2] = float("-inf")
    logits[3, 7] = float("inf")
    logits[4, 9] = float("nan")
    logits[5, ::2] = float("-inf")
    for targets in ([0, 299, 4, 4, 4, 3], [3, 299, 4, 7, 9, 4]):
        check(logits, torch.tensor(targets, device=device))
        check(logits, torch.tensor(targets, device=device), 0.1)


def test_one_hot_logits_lose_nothing(device: str) -> None:
    logits = torch.zeros(2, 200, device=device)
    logits[:, 150] = 1e4
    loss = cross_entropy(logits, torch.tensor([150, 3], device=device))
    assert loss.tolist() == [0.0, 1e4]


@pytest.mark.parametrize("ignore", [-100, 0, 1, 7, -(2**40)])
def test_ignored_rows_are_zero_and_not_read(ignore: int, device: str) -> None:
    logits = random(device, 4, 130)
    logits[1] = float("nan")
    targets = torch.tensor([2, ignore, 129, ignore], device=device)
    check(logits, targets, 0.0, ignore)
    check(logits, targets, 0.1, ignore)
    assert cross_entropy(logits, targets, ignore)[[1, 3]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_a_target_out_of_range_gives_nan_in_its_row_alone(smoothing: float, device: str) -> None:
    logits = random(device, 4, 130)
    targets = torch.tensor([130, 5, -1, 2**40], device=device)
    for config in (SHARED, WHOLE):
        with tuning.forcing(CROSS_ENTROPY_TUNABLE, config):
            loss = cross_entropy(logits, targets, label_smoothing=smoothing)
        assert loss.isnan().tolist() == [True, False, True, True]


def test_empty_batch(device: str) -> None:
    targets = torch.empty(0, dtype=torch.int64, device=device)
    loss = cross_entropy(torch.empty(0, 8, device=device), targets)
    assert loss.shape == (0,)
    assert loss.dtype == torch.float32


@pytest.mark.parametrize(
    ("rows", "cols", "kernels"),
    [
        (1, 128256, ["_cross_entropy_kernel", "_cross_entropy_merge_kernel"]),
        (32, 151936, ["_cross_entropy_kernel", "_cross_entropy_merge_kernel"]),
        (512, 128256, ["_cross_entropy_kernel"]),
        (1, 4096, ["_cross_entropy_kernel"]),
    ],
)
def test_few_wide_rows_are_shared(rows: int, cols: int, kernels: list[str]) -> None:
    """By the rule, which decides where no table does."""
    logits = torch.empty(rows, cols, dtype=torch.float16, device="meta")
    targets = torch.empty(rows, dtype=torch.int64, device="meta")
    rule = CROSS_ENTROPY_TUNABLE.default(90, {"bits": 16, "rows": rows, "cols": cols})
    with tuning.forcing(CROSS_ENTROPY_TUNABLE, rule):
        plan = cross_entropy_plan(90, logits, targets)
    assert [launch.kernel.__name__ for launch in plan.kernels] == kernels


@given(st.integers(1, 2**20), st.integers(1, 2**20), st.sampled_from([32, 1024, 4096]))
def test_chunks_cover_the_row_once(rows: int, cols: int, block: int) -> None:
    programs = programs_a_row(rows, cols, block, 64)
    chunks = cut(cols, programs, block)
    assert chunks.cols % block == 0
    assert chunks.programs <= programs <= 64
    assert (chunks.programs - 1) * chunks.cols < cols <= chunks.programs * chunks.cols


@given(
    st.integers(1, 4),
    st.integers(1, 200),
    st.sampled_from(sorted(DTYPES)),
    st.sampled_from([0.0, 0.1]),
    st.integers(0, 2**31),
)
def test_any_shape(rows: int, cols: int, dtype: str, smoothing: float, seed: int) -> None:
    generator = torch.Generator(DEVICE).manual_seed(seed)
    logits = 5 * torch.randn(rows, cols, generator=generator, device=DEVICE)
    targets = torch.randint(cols, (rows,), generator=generator, device=DEVICE)
    check(logits.to(DTYPES[dtype]), targets, smoothing)


def _wrong_calls(device: str) -> dict[str, tuple[type[Exception], Callable[[], Any], str]]:
    x, t = random(device, 4, 8), torch.zeros(4, dtype=torch.int64, device=device)
    return {
        "list": (errors.ArgumentError, lambda: cross_entropy([1.0], t), "logits is a list"),  # type: ignore[arg-type]
        "targets": (errors.ArgumentError, lambda: cross_entropy(x, 3), "targets is a int"),  # type: ignore[arg-type]
        "float targets": (errors.DTypeError, lambda: cross_entropy(x, t.float()), "torch.float32"),
        "double": (errors.DTypeError, lambda: cross_entropy(x.double(), t), "torch.float64"),
        "devices": (errors.DeviceError, lambda: cross_entropy(x, t.to("meta")), "is on meta"),
        "three": (errors.ShapeError, lambda: cross_entropy(x[None], t), "logits has shape"),
        "one": (errors.ShapeError, lambda: cross_entropy(x[0], t), "logits has shape (8,)"),
        "no columns": (errors.ShapeError, lambda: cross_entropy(x[:, :0], t), "has size 0"),
        "rows": (errors.ShapeError, lambda: cross_entropy(x, t[:3]), "targets has shape (3,)"),
        "ignore": (errors.ArgumentError, lambda: cross_entropy(x, t, 1.5), "ignore_index is a"),  # type: ignore[arg-type]
        "smoothing": (errors.OptionError, lambda: cross_entropy(x, t, -100, 1.5), "=1.5"),
        "negative": (errors.OptionError, lambda: cross_entropy(x, t, -100, -0.1), "=-0.1"),
    }


@pytest.mark.parametrize("name", _wrong_calls("cpu"))
def test_wrong_arguments_say_what_is_allowed(name: str, device: str) -> None:
    error, call, seen = _wrong_calls(device)[name]
    check_refusal(error, call, seen)
