"""Wide rows that start anywhere in memory: cut into a head, an aligned inner part and a tail."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from kernl import tuning
from kernl.launch import Plan
from kernl.op import DTYPES, Op
from kernl.ops.layer_norm import LAYER_NORM, LAYER_NORM_TUNABLE
from kernl.ops.rms_norm import RMS_NORM, RMS_NORM_TUNABLE
from kernl.ops.rows import RowConfig
from kernl.ops.softmax import SOFTMAX, SOFTMAX_TUNABLE
from kernl.tables import Tunable

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BLOCK = 64
LOOP = RowConfig("loop", 1, BLOCK, 4)
TUNABLES: dict[str, Tunable[RowConfig]] = {
    "softmax": SOFTMAX_TUNABLE,
    "layer_norm": LAYER_NORM_TUNABLE,
    "rms_norm": RMS_NORM_TUNABLE,
}
NORMS = (LAYER_NORM, RMS_NORM)
OPS = (SOFTMAX, *NORMS)
VECTORS = {"fp16": 8, "bf16": 8, "fp32": 4}
# More rows than there are places in 16 bytes for one to start at.
ROWS = 9


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator(DEVICE).manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, device=DEVICE)


def _inputs(op: Op, x: torch.Tensor, residual: bool = False, bias: bool = True) -> dict[str, Any]:
    if op is SOFTMAX:
        return {"x": x}
    cols = x.shape[-1]
    return {
        "x": x,
        "weight": _random(cols, seed=1).to(x.dtype),
        "bias": _random(cols, seed=2).to(x.dtype) if bias else None,
        "residual": _random(*x.shape, seed=3).to(x.dtype) if residual else None,
    }


def _plan(op: Op, inputs: dict[str, Any]) -> Plan:
    with tuning.forcing(TUNABLES[op.name], LOOP):
        plan = op.plan(90, **inputs)
    assert [launch.kernel.__name__ for launch in plan.kernels] == [f"_{op.name}_loop_kernel"]
    return plan


def _vector(op: Op, inputs: dict[str, Any]) -> int:
    return int(_plan(op, inputs).kernels[0].constants["VECTOR"])


def _error(op: Op, inputs: dict[str, Any]) -> float:
    """The largest error of an output relative to float64; infinite where one is NaN."""
    outputs = _plan(op, inputs).run()
    lifted = {
        name: value.double()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
        else value
        for name, value in inputs.items()
    }
    truths = op.reference(**lifted)
    truths = (truths,) if isinstance(truths, torch.Tensor) else truths
    errors = [
        float((out.double() - truth).norm() / truth.norm())
        for out, truth in zip(outputs, truths, strict=True)
    ]
    return max(float("inf") if error != error else error for error in errors)


def _starts(x: torch.Tensor) -> set[int]:
    """Bytes from the last multiple of 16 to the start of each row."""
    return {row.data_ptr() % 16 for row in x}


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.parametrize("dtype", VECTORS)
@pytest.mark.parametrize("cols", [9, 15, 17, 63, 65, 71, 73, 120, 127, 129, 136, 143, 1021])
def test_widths_around_vectors_and_blocks(op: Op, dtype: str, cols: int) -> None:
    x = (3 * _random(ROWS, cols)).to(DTYPES[dtype])
    if cols % 2:
        assert len(_starts(x)) == VECTORS[dtype]
    for residual in (False, True) if op in NORMS else (False,):
        inputs = _inputs(op, x, residual, bias=not residual)
        assert _vector(op, inputs) == VECTORS[dtype]
        assert _error(op, inputs) <= op.tolerance[dtype]


@pytest.mark.parametrize("op", NORMS, ids=lambda op: op.name)
def test_a_residual_with_a_bias_and_vectors_of_any_stride(op: Op) -> None:
    inputs = _inputs(op, _random(ROWS, 131), residual=True)
    inputs["weight"] = _random(131, 3)[:, 1]
    inputs["bias"] = _random(131, 2)[:, 0]
    assert _vector(op, inputs) == 4
    assert _error(op, inputs) <= op.tolerance["fp32"]


def _laid_out(dtype: str, layout: str) -> torch.Tensor:
    """x (9, 133), NaN before, between and behind its rows."""
    cols, vector = 133, VECTORS[dtype]
    row, col, first = {
        "padded alike": (cols + 2 * vector, 1, 16),
        "padded otherwise": (cols + 1, 1, 16),
        "behind one element": (cols, 1, 1),
        "spread": (cols + 144, 2, 16),
        "contiguous": (cols, 1, 16),
    }[layout]
    room = torch.full((2 * (ROWS + 1) * cols + 200,), float("nan"), device=DEVICE)
    x = room.to(DTYPES[dtype]).as_strided((ROWS, cols), (row, col), first)
    return x.copy_(_random(ROWS, cols))


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.parametrize("dtype", VECTORS)
@pytest.mark.parametrize(
    ("layout", "cut"),
    [
        ("contiguous", True),
        ("padded alike", True),
        ("padded otherwise", False),
        ("behind one element", False),
        ("spread", False),
    ],
)
def test_what_lies_beside_a_row_does_not_count(op: Op, dtype: str, layout: str, cut: bool) -> None:
    inputs = _inputs(op, _laid_out(dtype, layout))
    assert _vector(op, inputs) == (VECTORS[dtype] if cut else 1)
    assert _error(op, inputs) <= op.tolerance[dtype]
    if op in NORMS:
        # Both kinds of residual beside the same x.
        inputs = _inputs(op, _laid_out(dtype, "contiguous"))
        inputs["residual"] = _laid_out(dtype, layout)
        assert _vector(op, inputs) == (VECTORS[dtype] if cut else 1)
        assert _error(op, inputs) <= op.tolerance[dtype]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.parametrize(
    ("cols", "dtype", "vector"),
    [
        (128, "fp16", 1),
        (131072, "bf16", 1),
        (131071, "bf16", 8),
        (16, "fp32", 1),
        # Multiples of 16 bytes, of which Triton does not know: it asks for 16 elements.
        (136, "fp16", 8),
        (132, "fp32", 4),
        # Not one vector.
        (7, "fp16", 1),
        (3, "fp32", 1),
    ],
)
def test_which_rows_are_cut(op: Op, cols: int, dtype: str, vector: int) -> None:
    x = torch.ones(2, cols, dtype=DTYPES[dtype], device=DEVICE)
    assert _vector(op, _inputs(op, x)) == vector


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.parametrize("dtype", VECTORS)
@pytest.mark.parametrize("rows", range(1, ROWS + 1))
def test_nothing_is_written_beside_the_rows(op: Op, dtype: str, rows: int) -> None:
    """The last of `rows` rows ends at another place each time."""
    cols, around = 133, 32
    plan = _plan(op, _inputs(op, _random(rows, cols).to(DTYPES[dtype]), residual=True))
    names = ["out_ptr", "summed_ptr"] if op in NORMS else ["out_ptr"]
    rooms = [out.new_full((2 * around + out.numel(),), 7.0) for out in plan.outputs]
    inner = [room[around:-around].view(rows, cols) for room in rooms]
    launch = plan.kernels[0]
    moved = replace(launch, args={**launch.args, **dict(zip(names, inner, strict=True))})
    Plan(tuple(inner), (moved,)).run()
    for room, out in zip(rooms, plan.run(), strict=True):
        assert (room[:around] == 7.0).all()
        assert (room[-around:] == 7.0).all()
        assert torch.equal(room[around:-around].view(rows, cols), out)


@pytest.mark.parametrize("cols", [133, 1021])
def test_a_mean_far_from_zero(cols: int) -> None:
    """A variance taken as E[x²] - E[x]² would be wrong in its second digit."""
    inputs = _inputs(LAYER_NORM, 1000 + _random(ROWS, cols))
    assert _vector(LAYER_NORM, inputs) == 4
    assert _error(LAYER_NORM, inputs) <= 2e-4


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.parametrize("column", [0, 1, -2, -1])
def test_one_large_element_at_either_end(op: Op, column: int) -> None:
    x = _random(ROWS, 133)
    x[:, column] = 300.0
    inputs = _inputs(op, x)
    assert _vector(op, inputs) == 4
    assert _error(op, inputs) <= 4 * op.tolerance["fp32"]


@pytest.mark.parametrize("kind", ["additive", "boolean", "none"])
@pytest.mark.parametrize("causal", [False, True])
def test_scores_that_are_masked(kind: str, causal: bool) -> None:
    x, mask = 3 * _random(2, 3, 5, 133), _random(2, 1, 5, 133)
    masks = {"additive": mask, "boolean": mask > 0, "none": None}
    inputs = {"x": x, "scale": 0.3, "mask": masks[kind], "causal": causal}
    assert _vector(SOFTMAX, inputs) == 4
    assert _error(SOFTMAX, inputs) <= SOFTMAX.tolerance["fp32"]


def test_rows_of_which_little_or_nothing_is_seen() -> None:
    x = torch.full((ROWS, 133), float("-inf"), device=DEVICE)
    x[1, 0] = x[2, -1] = x[3, 66] = 0.5
    out = _plan(SOFTMAX, {"x": x}).run()[0]
    assert out.isnan().all(1).tolist() == [row not in (1, 2, 3) for row in range(ROWS)]
    assert [out[1, 0], out[2, -1], out[3, 66]] == [1.0, 1.0, 1.0]
    seen = x > 0
    masked = _plan(SOFTMAX, {"x": _random(ROWS, 133), "mask": seen}).run()[0]
    assert torch.equal(masked, seen.float())
