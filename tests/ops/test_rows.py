"""Row-wise operators: masks, causality, widths on both paths, and which path a row takes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kernl import errors, tuning
from kernl.op import Op
from kernl.ops import softmax
from kernl.ops.layer_norm import LAYER_NORM, LAYER_NORM_TUNABLE
from kernl.ops.rms_norm import RMS_NORM, RMS_NORM_TUNABLE, rms_norm, rms_norm_reference
from kernl.ops.rows import MAX_TILE_COLS, RowConfig
from kernl.ops.softmax import SOFTMAX, SOFTMAX_TUNABLE, softmax_plan, softmax_reference
from kernl.tables import Tunable

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LOOP = RowConfig("loop", 1, 32, 4)
SPLIT = RowConfig("split", 1, 16, 1)


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(
        shape, generator=torch.Generator(DEVICE).manual_seed(sum(shape)), device=DEVICE
    )


def _close(out: torch.Tensor, truth: torch.Tensor) -> bool:
    assert out.shape == truth.shape
    return bool((out.double() - truth).norm() <= 1e-6 * truth.norm() + 1e-12)


MASKS: dict[str, Callable[[], torch.Tensor]] = {
    "whole": lambda: _random(2, 3, 5, 37),
    "keys of each sequence": lambda: _random(2, 1, 1, 37),
    "heads": lambda: _random(3, 5, 37),
    "one row": lambda: _random(37),
    "a query's own": lambda: _random(5, 1),
    "transposed": lambda: _random(37, 5).t(),
    "boolean": lambda: _random(2, 1, 5, 37) > 0,
    "boolean keys": lambda: _random(37) > 0,
    "with infinities": lambda: _random(2, 1, 5, 37).masked_fill(
        _random(2, 1, 5, 37) > 0.5, float("-inf")
    ),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("config", [RowConfig("tile", 2, 32, 1), LOOP, SPLIT])
def test_softmax_masks_broadcast(name: str, causal: bool, config: RowConfig) -> None:
    x, mask = 3 * _random(2, 3, 5, 37).transpose(1, 2).transpose(1, 2), MASKS[name]()
    lifted = mask.double() if mask.is_floating_point() else mask
    with tuning.forcing(SOFTMAX_TUNABLE, config):
        out = softmax(x, scale=0.3, mask=mask, causal=causal)
    assert _close(out, softmax_reference(x.double(), -1, 0.3, lifted, causal))


@pytest.mark.parametrize("config", [RowConfig("tile", 2, 32, 1), LOOP, SPLIT])
def test_a_row_that_is_masked_whole_is_zero(config: RowConfig) -> None:
    x = _random(3, 70)
    mask = torch.zeros(3, 70, device=DEVICE)
    mask[1] = float("-inf")
    with tuning.forcing(SOFTMAX_TUNABLE, config):
        for one in (mask, mask == 0):
            out = softmax(x, mask=one)
            assert out[1].tolist() == [0.0] * 70
            assert torch.allclose(out.sum(-1), torch.tensor([1.0, 0.0, 1.0], device=DEVICE))
        # More queries than keys: the first see nothing.
        out = softmax(x.t(), causal=True)
        assert out[:67].abs().sum() == 0
        assert torch.allclose(out[67:].sum(-1), torch.ones(3, device=DEVICE))


@pytest.mark.parametrize(("queries", "keys"), [(1, 9), (5, 9), (9, 9), (9, 5), (1, 1)])
def test_softmax_is_causal_from_the_last_key(queries: int, keys: int) -> None:
    x = _random(2, queries, keys)
    out = softmax(x, causal=True)
    for query in range(queries):
        seen = max(0, query + 1 + keys - queries)
        assert (out[:, query, :seen] > 0).all()
        assert (out[:, query, seen:] == 0).all()
    assert _close(out, softmax_reference(x.double(), causal=True))


TUNED: list[tuple[Op, Tunable[RowConfig]]] = [
    (SOFTMAX, SOFTMAX_TUNABLE),
    (LAYER_NORM, LAYER_NORM_TUNABLE),
    (RMS_NORM, RMS_NORM_TUNABLE),
]


@pytest.mark.parametrize(("op", "tunable"), TUNED, ids=lambda one: getattr(one, "name", ""))
@pytest.mark.parametrize("cols", [1, 2, 31, 32, 33, 127, 1000])
def test_a_loop_of_any_number_of_blocks(op: Op, tunable: Tunable[RowConfig], cols: int) -> None:
    x, weight = 100 + _random(3, cols), _random(cols)
    arguments: dict[str, Any] = {"x": x} if op is SOFTMAX else {"x": x, "weight": weight}
    upcast = {name: value.double() for name, value in arguments.items()}
    with tuning.forcing(tunable, LOOP):
        out = op.kernel(**arguments)
    truth = op.reference(**upcast)
    assert isinstance(out, torch.Tensor)
    assert isinstance(truth, torch.Tensor)
    # Around 100 a float32 keeps five digits of a deviation.
    assert (out.double() - truth).norm() <= 2e-5 * truth.norm() + 1e-4 * (cols < 3)


@pytest.mark.parametrize("cols", [1, 2, 15, 16, 17, 127, 1000])
def test_programs_that_share_a_row(cols: int) -> None:
    x = 100 + _random(3, cols)
    x[1, : cols // 2] = float("-inf")
    with tuning.forcing(SOFTMAX_TUNABLE, SPLIT):
        names = [launch.kernel.__name__ for launch in softmax_plan(90, x).kernels]
        assert names == ["_softmax_partial_kernel", "_softmax_spread_kernel"]
        assert _close(softmax(x), softmax_reference(x.double()))
        nothing = softmax(torch.full((2, cols), float("-inf"), device=DEVICE))
    assert nothing.isnan().all()


def test_norms_have_no_such_path() -> None:
    key = {"bits": 16, "variant": 0, "rows": 1, "cols": 131072}
    assert SOFTMAX_TUNABLE.default(90, key).path == "split"
    assert SOFTMAX_TUNABLE.default(90, {**key, "rows": 4096}).path == "loop"
    assert SOFTMAX_TUNABLE.default(90, {**key, "cols": 2**23}).path == "loop"
    assert RMS_NORM_TUNABLE.default(90, key).path == "loop"
    assert not RMS_NORM_TUNABLE.fits(90, key, SPLIT)


@pytest.mark.parametrize(("cols", "path"), [(131072, "split"), (32768, "tile"), (16384, "tile")])
def test_few_rows_are_not_walked_because_many_were_timed(cols: int, path: str) -> None:
    """The table's nearest rows of these widths have 128 to 1,024 rows, and most of them loop."""
    key = {"bits": 16, "variant": 0, "cols": cols}
    for rows in (16, 64):
        chosen = tuning.choose(SOFTMAX_TUNABLE, 90, torch.device("cpu"), rows=rows, **key)
        assert chosen.path == path
        norm = tuning.choose(RMS_NORM_TUNABLE, 90, torch.device("cpu"), rows=rows, **key)
        assert norm.path == ("tile" if cols <= MAX_TILE_COLS // 2 else "loop")


@pytest.mark.parametrize("cols", [8192, 32769, 131073])
def test_wide_rows(cols: int) -> None:
    x, weight = _random(1, cols), _random(cols)
    assert _close(softmax(x), softmax_reference(x.double()))
    truth = rms_norm_reference(x.double(), weight.double())
    assert isinstance(truth, torch.Tensor)
    assert _close(rms_norm(x, weight), truth)


@pytest.mark.parametrize(
    ("cols", "kernel"),
    [(MAX_TILE_COLS, "_softmax_tile_kernel"), (MAX_TILE_COLS + 1, "_softmax_loop_kernel")],
)
def test_which_path_a_row_takes_without_a_table(cols: int, kernel: str) -> None:
    plan = softmax_plan(80, torch.empty(1000, 1).expand(1000, cols))
    assert [launch.kernel.__name__ for launch in plan.kernels] == [kernel]


def test_gemma_keeps_its_weight_as_a_distance_from_one() -> None:
    x, weight = _random(4, 40), 0.1 * _random(40)
    assert torch.allclose(rms_norm(x, weight, offset=1.0), rms_norm(x, 1.0 + weight))


@pytest.mark.parametrize(
    ("error", "call", "seen"),
    [
        (errors.ShapeError, lambda x: softmax(x, mask=x[:3]), "mask has shape (3, 8)"),
        (errors.ShapeError, lambda x: softmax(x[0], causal=True), "has shape (8,)"),
        (errors.ShapeError, lambda x: softmax(x[None, None, None], mask=x), "(1, 1, 1, 4, 8)"),
        (errors.DTypeError, lambda x: softmax(x, mask=x.int()), "mask is torch.int32"),
        (errors.OptionError, lambda x: softmax(x, 0, mask=x), "dim=0 with a mask"),
        (errors.OptionError, lambda x: softmax(x, scale=-1.0), "scale=-1.0"),
        (errors.OptionError, lambda x: rms_norm(x, x[0], offset=-1.0), "offset=-1.0"),
        (errors.ShapeError, lambda x: rms_norm(x, x[0, :7]), "weight has shape (7,)"),
        (errors.ShapeError, lambda x: rms_norm(x, x[0], x[0, :3]), "bias has shape (3,)"),
    ],
)
def test_wrong_arguments(
    error: type[errors.KernlError], call: Callable[[torch.Tensor], Any], seen: str
) -> None:
    with pytest.raises(error) as caught:
        call(_random(4, 8))
    assert seen in caught.value.seen
