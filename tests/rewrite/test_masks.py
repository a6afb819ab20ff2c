"""What the masks of attention become, what they must not become, and that the answers stay."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import fx
from transformers.models.t5.modeling_t5 import T5Attention

from kernl import explain
from kernl.rewrite import Report, rewrite, trace
from kernl.rewrite.nodes import value
from tests.tiny_models import BATCH, DEVICE, SEQ, Flat, inputs, tensors_of, tiny

LOWEST = torch.finfo(torch.float32).min
sdpa = torch.nn.functional.scaled_dot_product_attention


class Call(NamedTuple):
    """The arguments of a call of `kernl.attention` that stand for masks."""

    mask: tuple[int, ...] | None = None
    causal: bool = False
    window: int | None = None
    positions: tuple[bool, int] | None = None


def calls_of(graph: fx.GraphModule) -> list[Call]:
    found = []
    for node in graph.graph.nodes:
        if node.target is torch.ops.kernl.attention.default:
            _, _, _, mask, causal, _, _, window, _, _, table, *options = node.args
            shape = None if mask is None else tuple(value(mask).shape)
            found.append(Call(shape, causal, window, tuple(options) if table else None))
    return found


def rewritten(function: Callable[..., Any], *tensors: torch.Tensor) -> tuple[Any, Report]:
    graph = trace(function, tensors)
    return graph, rewrite(graph)


def padded(kind: str, left: bool, seed: int) -> dict[str, torch.Tensor]:
    """Sequences of two lengths, padded at one side."""
    given = inputs(kind, seed=seed)
    mask = torch.ones(BATCH, SEQ, dtype=torch.int64)
    mask[1, slice(0, 6) if left else slice(11, None)] = 0
    return {**given, "attention_mask": mask}


def error(out: torch.Tensor, truth: torch.Tensor) -> float:
    return float((out.double() - truth.double()).norm() / truth.double().norm())


KEYS = (BATCH, 1, 1, SEQ)
QUERIES = (BATCH, 1, SEQ, SEQ)
MODELS: dict[str, list[Call]] = {
    "bert": 2 * [Call(KEYS)],
    "mpnet": 2 * [Call(KEYS, positions=(True, 128))],
    "modernbert": [Call(KEYS), Call(KEYS, window=5), Call(KEYS, window=5), Call(KEYS)],
    "t5": [
        *(2 * [Call(KEYS, positions=(True, 128))]),
        *(2 * [Call(causal=True, positions=(False, 128)), Call(KEYS)]),
    ],
    "bart": [*(2 * [Call(KEYS)]), *(2 * [Call(causal=True), Call(KEYS)])],
    "gpt2": 2 * [Call(KEYS, causal=True)],
    "llama": 2 * [Call(KEYS, causal=True)],
    "mistral": 2 * [Call(KEYS, causal=True, window=8)],
    "gemma": 2 * [Call(KEYS, causal=True)],
    "gemma3_text": 2 * [Call(KEYS, causal=True, window=8)],
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_s_masks_become_arguments(kind: str) -> None:
    model, given = tiny(kind), padded(kind, left=False, seed=0)
    graph, report = rewritten(Flat(model, list(given)), *given.values())
    assert calls_of(graph) == MODELS[kind], report
    for call in (given, padded(kind, left=True, seed=1)):
        with torch.no_grad():
            outputs, truth = graph(*call.values()), tensors_of(model(**call))
        # What padding itself computes is read by nobody. A decoder's tokens are all real.
        real = call["attention_mask"].bool()
        if kind in ("t5", "bart"):
            real = torch.ones_like(real)
        for out, true in zip(outputs, truth, strict=True):
            if out.shape[:2] == real.shape:
                out, true = out[real], true[real]
            elif out.dim() == 4:  # a cache, of the last keys where there is a window
                kept = real[:, -out.shape[2] :]
                out, true = out.transpose(1, 2)[kept], true.transpose(1, 2)[kept]
            assert error(out, true) < 1e-5


@pytest.mark.parametrize("kind", ["vit", "whisper"])
def test_a_model_without_padding_has_no_mask(kind: str) -> None:
    model, given = tiny(kind), inputs(kind)
    graph, _ = rewritten(Flat(model, list(given)), *given.values())
    assert {call.mask for call in calls_of(graph)} == {None}


def test_what_was_folded_and_is_not_read_is_let_go() -> None:
    model, given = tiny("t5"), inputs("t5")
    graph, _ = rewritten(Flat(model, list(given)), *given.values())
    assert not [b for b in graph.buffers(recurse=False) if b.shape[-2:] == (SEQ, SEQ)]


def test_a_decoder_s_padding_leaves_positions_to_the_kernel() -> None:
    """Its mask is additive: causality and inputs both hide keys in it, so it stays as wide."""
    model = tiny("t5")
    for left in (False, True):
        given = inputs("t5")
        given["decoder_attention_mask"] = padded("t5", left, seed=0)["attention_mask"]
        graph, _ = rewritten(Flat(model, list(given)), *given.values())
        assert calls_of(graph)[2] == Call(QUERIES, positions=(False, 128))
        with torch.no_grad():
            outputs, truth = graph(*given.values()), tensors_of(model(**given))
        assert max(map(error, outputs, truth)) < 1e-5


@pytest.mark.parametrize("kind", ["llama", "modernbert"])
def test_a_query_that_sees_no_key_gets_what_it_got(kind: str) -> None:
    """Padding in front: zeros from boolean masks, the mean of all values from additive ones."""
    given = padded(kind, left=True, seed=0)
    for implementation in ("sdpa", "eager"):
        model = tiny(kind, attn_implementation=implementation)
        graph, _ = rewritten(Flat(model, list(given)), *given.values())
        with torch.no_grad():
            outputs, truth = graph(*given.values()), tensors_of(model(**given))
        assert max(map(error, outputs, truth)) < 1e-5
        assert QUERIES not in [call.mask for call in calls_of(graph)] or implementation == "eager"


def test_one_bucket_that_differs_is_not_t5(monkeypatch: pytest.MonkeyPatch) -> None:
    original: Any = T5Attention._relative_position_bucket

    def altered(distance: torch.Tensor, **options: Any) -> torch.Tensor:
        buckets = original(distance, **options)
        rows = torch.arange(SEQ)[:, None] == 9
        return torch.where(rows & (torch.arange(SEQ) == 5), 0, buckets)

    monkeypatch.setattr(T5Attention, "_relative_position_bucket", staticmethod(altered))
    model, given = tiny("t5"), inputs("t5")
    graph, _ = rewritten(Flat(model, list(given)), *given.values())
    assert [call.positions for call in calls_of(graph)] == 6 * [None]
    with torch.no_grad():
        outputs, truth = graph(*given.values()), tensors_of(model(**given))
    assert max(map(error, outputs, truth)) < 1e-5


Q = torch.randn(2, 3, 7, 16, generator=torch.Generator().manual_seed(0)).to(DEVICE)
K = torch.randn(2, 3, 9, 16, generator=torch.Generator().manual_seed(1)).to(DEVICE)
PADDING = torch.tensor([[1] * 9, [1] * 5 + [0] * 4], device=DEVICE)


def attended(mask_of: Callable[[torch.Tensor], torch.Tensor]) -> list[Call]:
    """The calls that attention under this mask becomes; its values must stay."""

    def function(q: torch.Tensor, k: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        return sdpa(q, k, k, mask_of(padding))

    graph, report = rewritten(function, Q, K, PADDING)
    assert report.fused["attention"] == 1, report
    out, truth = graph(Q, K, PADDING)[0], function(Q, K, PADDING)
    torch.testing.assert_close(out, truth, rtol=1e-5, atol=1e-5)
    return calls_of(graph)


def place() -> torch.Tensor:
    """Keys minus queries, the last of both at one place."""
    return torch.arange(9)[None] - torch.arange(7)[:, None] - 2


def spread(padding: torch.Tensor) -> torch.Tensor:
    return padding[:, None, None, :].expand(2, 1, 7, 9)


def additive(seen: torch.Tensor, hides: float = LOWEST) -> torch.Tensor:
    return torch.where(seen, torch.tensor(0.0), hides)


ROW = (2, 1, 1, 9)
MASKS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], Call]] = {
    "causality": (lambda p: place() <= 0, Call(causal=True)),
    "a causal window": (lambda p: (place() <= 0) & (place() > -3), Call(causal=True, window=3)),
    "a window": (lambda p: place().abs() < 4, Call(window=4)),
    "a wide window": (lambda p: place().abs() < 40, Call()),
    "additive causality": (lambda p: additive(place() <= 0), Call(causal=True)),
    "causality of each sequence": (
        lambda p: (place() <= 0).expand(2, 1, 7, 9),
        Call(causal=True),
    ),
    "causality and padding": (
        lambda p: (place() <= 0) & p.bool()[:, None, None],
        Call(ROW, causal=True),
    ),
    "padding, causality and padding": (
        lambda p: p.bool()[:, None, None] & (place() <= 0) & (p[:, None, None] > 0),
        Call(ROW, causal=True),
    ),
    "additive causality and padding": (
        lambda p: additive((place() <= 0) & p.bool()[:, None, None]),
        Call((2, 1, 7, 9)),
    ),
    "a sum of causality and padding": (
        lambda p: additive(place() <= 0, -3e4) + additive(p.bool()[:, None, None], -3e4),
        Call((2, 1, 7, 9)),
    ),
    "infinite causality and padding": (
        lambda p: additive((place() <= 0) & p.bool()[:, None, None], float("-inf")),
        Call(ROW, causal=True),
    ),
    "padding that was spread": (lambda p: spread(p).bool(), Call(ROW)),
    "steps behind the spread": (lambda p: (1.0 - spread(p).float()) * LOWEST, Call(ROW)),
    "a choice behind the spread": (lambda p: additive(spread(p) > 0), Call(ROW)),
    "a constant row": (lambda p: (torch.arange(9) < 6).expand(7, 9), Call((1, 9))),
    "one element more than causality": (
        lambda p: (place() <= 0) | (place() == 6),
        Call((7, 9)),
    ),
    "one element less than causality": (
        lambda p: (place() <= 0) & ((place() != -1) | (torch.arange(9) != 4)),
        Call((7, 9)),
    ),
    "causality from the first key": (
        lambda p: torch.arange(9)[None] <= torch.arange(7)[:, None],
        Call((7, 9)),
    ),
    "a bias that hides nothing": (lambda p: place().float(), Call((7, 9))),
    "causality of one sequence": (
        lambda p: ((place() <= 0) | (torch.arange(2) == 1)[:, None, None])[:, None],
        Call((2, 1, 7, 9)),
    ),
    "queries that are padding": (
        lambda p: p.bool()[:, None, :7, None] | (place() <= 0),
        Call((2, 1, 7, 9)),
    ),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_becomes(name: str) -> None:
    mask_of, call = MASKS[name]
    assert attended(mask_of) == [call]


def test_a_query_that_sees_no_key_gives_zeros() -> None:
    def function(q: torch.Tensor, k: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        return sdpa(q, k, k, (place() <= 0) & padding.bool()[:, None, None])

    graph, _ = rewritten(function, Q, K, PADDING)
    assert calls_of(graph) == [Call(ROW, causal=True)]
    (out,) = graph(Q, K, PADDING.flip(1))
    assert torch.equal(out[1, :, :2], torch.zeros(3, 2, 16))


class Biased(torch.nn.Module):
    """Attention with T5's biases, read in another way than T5 reads them."""

    buckets: torch.Tensor

    def __init__(self, buckets: torch.Tensor, count: int) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(count, 3, device=DEVICE))
        self.register_buffer("buckets", buckets, persistent=False)

    def forward(self, q: torch.Tensor, k: torch.Tensor, padding: torch.Tensor) -> Any:
        bias = self.table[self.buckets].transpose(1, 2).transpose(0, 1)
        mask = additive(padding.bool()[:, None, None]) + bias.expand(2, 3, 7, 9)
        return sdpa(q, k, k, mask), mask


def test_a_sum_that_is_returned_too_is_still_not_read() -> None:
    near = place().clamp(-3, 3)
    model = Biased(near.clamp_max(0).abs() + 4 * (near > 0), 8)  # neither exact nor logarithmic
    graph, _ = rewritten(model, Q, K, PADDING)
    assert calls_of(graph) == [Call((2, 3, 7, 9))]
    exact = torch.where(place() > 0, 16, 0) + place().abs()
    model = Biased(exact, 32)
    graph, _ = rewritten(model, Q, K, PADDING)
    assert calls_of(graph) == [Call(ROW, positions=(True, 128))]
    with torch.no_grad():
        model.table.mul_(2)
        for out, true in zip(graph(Q, K, PADDING), model(Q, K, PADDING), strict=True):
            torch.testing.assert_close(out, true, rtol=1e-5, atol=1e-5)


def test_explain_says_what_masks_became(capsys: pytest.CaptureFixture[str]) -> None:
    model: Any = tiny("mistral")
    explain(model, **inputs("mistral"))
    printed = capsys.readouterr().out
    assert "masks of attention:" in printed
    became = "causality, a window of 8, a mask (2, 1, 1, 17)"
    assert f"   2 × (2, 1, 17, 17) became {became}" in printed
