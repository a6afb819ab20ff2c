"""The check before timing: the error of an output, what it may be, and what is wrong in words."""

import math

import pytest
import torch

from benchmarks.measure import accuracy
from kernl.ops.linear_rms_norm import LINEAR_RMS_NORM
from kernl.ops.rms_norm import rms_norm_reference


def test_error_is_relative_l2_in_float64() -> None:
    ref = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert accuracy.relative_l2(torch.tensor([3.0, 4.5]), ref) == pytest.approx(0.1)
    assert accuracy.relative_l2(torch.zeros(2), torch.zeros(2)) == 0.0
    assert accuracy.relative_l2(torch.ones(2), torch.zeros(2)) == math.inf


def test_disagreement_in_words() -> None:
    ref = torch.ones(4, dtype=torch.float64)
    assert accuracy.disagreement((torch.ones(4),), (ref,), 1e-6) == (0.0, "")
    error, reason = accuracy.disagreement((torch.full((4,), 1.5),), (ref,), 0.1)
    assert error == pytest.approx(0.5)
    assert reason == "relative L2 error 0.5 against float64, allowed is 0.1"
    holes = torch.tensor([1.0, math.nan, 1.0, math.inf])
    error, reason = accuracy.disagreement((torch.ones(4), holes), (ref, ref), math.inf)
    assert error is None
    assert "2 of 8 output elements are NaN or infinite" in reason
    _, reason = accuracy.disagreement((torch.ones(2, 2),), (ref,), 1.0)
    assert reason == "outputs of shapes [(2, 2)], the reference gives [(4,)]"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_is_rounded_rightly_is_right_whatever_the_limit(dtype: torch.dtype) -> None:
    """One number may be off by more than what a limit for many allows."""
    chance = torch.Generator().manual_seed(1)
    limit = torch.finfo(dtype).eps / 4
    beyond = 0
    for _ in range(200):
        exact = torch.randn(1, 1, generator=chance, dtype=torch.float64)
        beyond += accuracy.relative_l2(exact.to(dtype), exact) > limit
        assert accuracy.disagreement((exact.to(dtype),), (exact,), limit)[1] == ""
        steps = 2 * torch.finfo(dtype).eps * exact.abs()
        assert (
            "allowed is" in accuracy.disagreement(((exact + steps).to(dtype),), (exact,), limit)[1]
        )
    assert beyond > 20


def test_few_numbers_may_be_computed_from_what_was_rounded() -> None:
    """A row of 16 that is rounded and then normalised is off by more than 5e-4 one time in 80."""
    chance = torch.Generator().manual_seed(3)
    limit, beyond = LINEAR_RMS_NORM.tolerance["fp16"], 0
    for _ in range(400):
        row, weight = torch.randn(2, 1, 16, generator=chance, dtype=torch.float64)
        (exact,) = accuracy.as_tuple(rms_norm_reference(row, weight))
        (normed,) = accuracy.as_tuple(rms_norm_reference(row.half().double(), weight))
        normed = normed.half()
        beyond += accuracy.relative_l2(normed, exact) > limit
        assert accuracy.disagreement((normed,), (exact,), limit)[1] == ""
    assert beyond > 0


@pytest.mark.parametrize(("rows", "columns", "inner"), [(1, 17, 33), (3, 129, 65)])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 5e-3), (torch.float16, 6e-4)])
def test_a_gated_product_of_few_may_round_both_factors(
    rows: int, columns: int, inner: int, dtype: torch.dtype, limit: float
) -> None:
    """Both factors are stored, and their product: some are above the limit for many."""
    chance = torch.Generator().manual_seed(4)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=chance, dtype=torch.float64).to(dtype).double()

    beyond = refused = 0
    for _ in range(1500):
        x, gates, ups = draw(rows, inner), draw(inner, columns), draw(inner, columns)
        gate, up = x @ gates / inner**0.5, x @ ups / inner**0.5
        exact = torch.nn.functional.gelu(gate, approximate="tanh") * up
        stored = torch.nn.functional.gelu(gate.to(dtype).double(), approximate="tanh")
        out = (stored * up.to(dtype).double()).to(dtype)
        beyond += accuracy.relative_l2(out, exact) > limit
        refused += accuracy.disagreement((out,), (exact,), limit)[1] != ""
    assert beyond > 10 or rows > 1
    assert refused <= 2


def test_what_a_dtype_can_hardly_hold_is_held_against_nobody() -> None:
    tiny = torch.full((8,), 3.3e-8, dtype=torch.float64)  # between nothing and fp16's least
    assert accuracy.relative_l2(tiny.half(), tiny) > 0.5
    assert accuracy.disagreement((tiny.half(),), (tiny,), 4e-4)[1] == ""
    assert accuracy.disagreement((tiny.float(),), (tiny,), 1e-6)[1] == ""
    assert accuracy.disagreement((torch.zeros(8),), (tiny,), 1e-6)[1] != ""
    wrong = torch.full((8,), 3e-7, dtype=torch.float16)
    assert "allowed is" in accuracy.disagreement((wrong,), (tiny,), 4e-4)[1]


def test_the_limit_for_many_numbers_is_as_it_was() -> None:
    exact = torch.randn(4096, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert accuracy.rounding(exact, torch.float16) < 4e-4
    off = exact * (1 + 4.2e-4)
    assert "allowed is 0.0004" in accuracy.disagreement((off.half(),), (exact,), 4e-4)[1]


def test_new_memory_is_poisoned_only_inside() -> None:
    settings = torch.are_deterministic_algorithms_enabled()
    with accuracy.poisoned():
        assert torch.isnan(torch.empty(1000)).all()
        assert torch.isnan(torch.empty_like(torch.ones(10, dtype=torch.float16))).all()
        assert torch.isnan(torch.ones(3).new_empty(10)).all()
    assert torch.are_deterministic_algorithms_enabled() == settings


def test_a_call_that_writes_to_its_inputs_is_found() -> None:
    weight = torch.ones(3)
    inputs = {"x": torch.ones(3), "weight": weight, "eps": 1e-5, "bias": None}
    pristine = accuracy.copies(inputs)
    assert accuracy.changed_inputs(inputs, pristine) == ""
    weight[1] = 2.0
    assert accuracy.changed_inputs(inputs, pristine) == "the call changed its inputs: weight"


def test_the_truth_is_computed_in_float64() -> None:
    inputs = {"x": torch.ones(3, dtype=torch.float16), "index": torch.arange(3), "flag": True}
    lifted = accuracy.upcast(inputs)
    assert lifted["x"].dtype == torch.float64
    assert lifted["index"].dtype == torch.int64
    assert lifted["flag"] is True
    (out,) = accuracy.truth(lambda x, index, flag: x[index] / 3 if flag else x, inputs)
    assert out.dtype == torch.float64
    assert out[0].item() == 1 / 3


def test_the_truth_goes_on_the_cpu_where_the_device_has_no_memory_and_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    tries: list[int] = []

    def crowded(x: torch.Tensor) -> torch.Tensor:
        tries.append(1)
        if len(tries) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x / 3

    inputs = {"x": torch.ones(3)}
    with pytest.raises(torch.OutOfMemoryError):
        accuracy.truth(crowded, inputs, on_cpu=False)
    tries.clear()
    assert accuracy.truth(crowded, inputs)[0][0].item() == 1 / 3
    assert len(tries) == 2
