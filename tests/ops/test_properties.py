"""Random shapes, strides and dtypes: whatever a user can pass gives what float64 gives."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from kernl.op import DTYPES, Case, Op
from kernl.ops.activation import ACTIVATIONS
from kernl.ops.layer_norm import LAYER_NORM
from kernl.ops.linear import LINEAR
from kernl.ops.rms_norm import RMS_NORM
from kernl.ops.softmax import SOFTMAX
from kernl.ops.tile import (
    FLOAT_TILES,
    HALF_TILES,
    MOST_UNALIGNED_ELEMENTS,
    UNALIGNED_TILES,
    choose_tile,
    shared_memory_limit,
)

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"

sizes = st.integers(1, 70)
widths = st.one_of(sizes, st.integers(1000, 1100), st.sampled_from([4096, 16383, 16384, 16385]))
dtypes = st.sampled_from(sorted(DTYPES))


@st.composite
def restrided(draw: st.DrawFn, x: torch.Tensor) -> torch.Tensor:
    """The same values with other strides: transposed, spread out, or behind an odd offset."""
    rows, cols = x.shape
    layout = draw(st.sampled_from(["contiguous", "transposed", "spread", "offset"]))
    if layout == "transposed":
        return x.t().contiguous().t()
    if layout == "spread":
        room = x.new_full((rows, 3 * cols + 1), float("nan"))
        view = room[:, 1::3]
        return view.copy_(x)
    if layout == "offset":
        room = x.new_full((rows * cols + 3,), float("nan"))
        view = room[3:].view(rows, cols)
        return view.copy_(x)
    return x


def _check(op: Op, case: Case, data: st.DataObject) -> None:
    inputs = op.inputs(case, DEVICE, data.draw(st.integers(0, 2**31)))
    given_inputs = {
        name: data.draw(restrided(value))
        if isinstance(value, torch.Tensor) and value.dim() == 2
        else value
        for name, value in inputs.items()
    }
    upcast = {
        k: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v
        for k, v in inputs.items()
    }
    outputs, truths = op.kernel(**given_inputs), op.reference(**upcast)
    if isinstance(outputs, torch.Tensor) or isinstance(truths, torch.Tensor):
        assert isinstance(outputs, torch.Tensor)
        assert isinstance(truths, torch.Tensor)
        outputs, truths = (outputs,), (truths,)
    for out, truth in zip(outputs, truths, strict=True):
        assert out.dtype == case.torch_dtype
        assert out.is_contiguous()
        # One element has no norm to average its rounding over.
        limit = op.tolerance[case.dtype] * max(1.0, 30 / truth.numel())
        assert (out.double() - truth).norm() <= limit * truth.norm() + 1e-6


masks = st.sampled_from(["none", "additive", "boolean"])


@given(st.data(), sizes, widths, dtypes, masks, st.booleans())
def test_softmax(
    data: st.DataObject, rows: int, cols: int, dtype: str, mask: str, causal: bool
) -> None:
    rows = min(rows, 3) if cols > 100 else rows
    _check(SOFTMAX, Case.of(dtype, rows=rows, cols=cols, mask=mask, causal=causal), data)


@given(st.data(), sizes, widths, dtypes, st.booleans(), st.booleans())
def test_rms_norm(
    data: st.DataObject, rows: int, cols: int, dtype: str, bias: bool, residual: bool
) -> None:
    rows = min(rows, 3) if cols > 100 else rows
    _check(RMS_NORM, Case.of(dtype, rows=rows, cols=cols, bias=bias, residual=residual), data)


@given(st.data(), sizes, widths, dtypes, st.booleans(), st.booleans())
def test_layer_norm(
    data: st.DataObject, rows: int, cols: int, dtype: str, bias: bool, residual: bool
) -> None:
    rows = min(rows, 3) if cols > 100 else rows
    # A row of two values has a variance that may be near zero: the quotient amplifies rounding.
    cols = max(cols, 16)
    _check(LAYER_NORM, Case.of(dtype, rows=rows, cols=cols, bias=bias, residual=residual), data)


@given(
    st.data(),
    sizes,
    sizes,
    sizes,
    dtypes,
    st.booleans(),
    st.sampled_from(ACTIVATIONS),
    st.booleans(),
)
def test_linear(
    data: st.DataObject,
    m: int,
    n: int,
    k: int,
    dtype: str,
    bias: bool,
    activation: str,
    residual: bool,
) -> None:
    case = Case.of(dtype, m=m, n=n, k=k, bias=bias, activation=activation, residual=residual)
    _check(LINEAR, case, data)


@given(
    st.integers(1, 2**20),
    st.integers(1, 2**20),
    st.sampled_from(sorted(DTYPES)),
    st.sampled_from([80, 86, 89, 90, 100, 120]),
    st.booleans(),
)
def test_every_shape_has_a_tile_that_fits(
    m: int, n: int, dtype: str, capability: int, aligned: bool
) -> None:
    tile = choose_tile(m, n, DTYPES[dtype], capability, aligned)
    stage = (tile.block_m + tile.block_n) * tile.block_k * DTYPES[dtype].itemsize
    assert stage * tile.num_stages <= shared_memory_limit(capability)
    halves = HALF_TILES if aligned else UNALIGNED_TILES
    tiles = FLOAT_TILES if dtype == "fp32" else halves
    assert aligned or dtype == "fp32" or tile.elements <= MOST_UNALIGNED_ELEMENTS
    assert tile._replace(num_stages=0) in {one._replace(num_stages=0) for one in tiles}
    assert tile.block_m <= max(16, 2 * m)
