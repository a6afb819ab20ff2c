"""Half precision kept from overflowing, as T5 and Whisper do it."""

from collections.abc import Callable

import pytest
import torch

from kernl.rewrite import rewrite, trace
from tests.tiny_models import DEVICE, Flat, inputs, tiny

functional = torch.nn.functional
HALF = torch.finfo(torch.float16)
GENERATOR = torch.Generator().manual_seed(3)
X, WEIGHT, BIAS, RESIDUAL = (
    torch.randn(shape, generator=GENERATOR).half().to(DEVICE)
    for shape in ((2, 3, 8), (16, 8), (16,), (2, 3, 16))
)

Bound = Callable[[torch.Tensor], torch.Tensor]


def guarded(overflow: Callable[[torch.Tensor], torch.Tensor]) -> Bound:
    def clamped(x: torch.Tensor) -> torch.Tensor:
        bound = torch.where(overflow(x), HALF.max - 1000, HALF.max)
        return torch.clamp(x, min=-bound, max=bound)

    return clamped


@pytest.mark.parametrize("infinity", [None, float("inf"), float("-inf")])
def test_a_guard_behind_a_sublayer(infinity: float | None) -> None:
    guard = guarded(lambda x: torch.isinf(x).any())

    def sublayer(x: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return guard(residual + functional.linear(x, weight))

    graph = trace(sublayer, [X, WEIGHT, RESIDUAL])
    report = rewrite(graph)
    assert report.fused == {"linear": 1, "clamp_overflow": 1}
    assert report.left == {}
    # Nothing but the residual counts: a sum of products is rounded in another order.
    residual = (RESIDUAL.float() * HALF.max).clamp(HALF.min, HALF.max).half()
    if infinity is not None:
        residual[1, 2, 3] = infinity
    given = [torch.zeros_like(X), WEIGHT, residual]
    out = graph(*given)[0]
    assert torch.equal(out, sublayer(*given))
    assert out.abs().max() == (HALF.max if infinity is None else 64512)


OTHER_GUARDS = {
    "for NaN": guarded(lambda x: torch.isnan(x).any()),
    "row by row": guarded(lambda x: torch.isinf(x).any(dim=-1, keepdim=True)),
    "where all overflowed": guarded(lambda x: torch.isinf(x).all()),
    "on one side": lambda x: torch.clamp(
        x, max=torch.where(torch.isinf(x).any(), HALF.max - 1000, HALF.max)
    ),
}


@pytest.mark.parametrize("name", OTHER_GUARDS)
def test_another_guard_is_left_alone(name: str) -> None:
    graph = trace(OTHER_GUARDS[name], [X])
    assert "clamp_overflow" not in rewrite(graph).fused


def test_a_guard_whose_limits_are_the_wrong_way_round_is_refused() -> None:
    def widened(x: torch.Tensor) -> torch.Tensor:
        bound = torch.where(torch.isinf(x).any(), 2.0, 1.0)
        return torch.clamp(x, min=-bound, max=bound)

    graph = trace(widened, [X])
    report = rewrite(graph)
    assert report.fused == {}
    assert "overflow_limit ≤ limit" in report.refused[0].reason
    assert torch.equal(graph(X)[0], widened(X))


def test_a_limit_behind_a_residual_goes_into_the_linear_layer() -> None:
    def sublayer(
        x: torch.Tensor, w: torch.Tensor, b: torch.Tensor, r: torch.Tensor
    ) -> torch.Tensor:
        return torch.clamp(r + functional.linear(x, w, b), min=-1.5, max=1.5)

    given = [X, WEIGHT, BIAS, RESIDUAL]
    graph = trace(sublayer, given)
    report = rewrite(graph)
    assert (report.fused, report.left) == ({"linear": 1}, {})
    torch.testing.assert_close(graph(*given)[0], sublayer(*given), rtol=2e-3, atol=2e-3)
    assert graph(*given)[0].abs().max() == 1.5


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (None, 2.0), (1.0, 2.0)])
def test_a_clamp_that_is_not_even_stays(low: float | None, high: float) -> None:
    def sublayer(*given: torch.Tensor) -> torch.Tensor:
        x, weight, bias, residual = given
        return torch.clamp(residual + functional.linear(x, weight, bias), min=low, max=high)

    given = [X, WEIGHT, BIAS, RESIDUAL]
    graph = trace(sublayer, given)
    report = rewrite(graph)
    assert (report.fused, report.left) == ({"linear": 1}, {"clamp": 1})
    torch.testing.assert_close(graph(*given)[0], sublayer(*given), rtol=2e-3, atol=2e-3)


# One in each encoder layer's two sublayers, three in each decoder layer.
@pytest.mark.parametrize(("kind", "guards"), [("t5", 2 * 2 + 2 * 3), ("whisper", 0)])
def test_models_in_half_precision_leave_no_clamp_to_pytorch(kind: str, guards: int) -> None:
    model, given = tiny(kind, torch.float16), inputs(kind, torch.float16)
    report = rewrite(trace(Flat(model, list(given)), list(given.values())))
    assert report.fused["clamp_overflow"] == guards
    assert not {"clamp", "isinf", "any", "neg"} & set(report.left)
