"""Wrong calls and failures on the way: the original's error, and a model that goes on as before."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kernl import explain, optimize_model, restore_model
from kernl.errors import ArgumentError, DeviceError, OptionError
from kernl.optimize import engine as engines
from kernl.rewrite import Report, rewrite
from tests.optimize.calls import BY_GRAPH, distance, forward_of, furthest, twice
from tests.tiny_models import DEVICE, inputs, tiny

ELSEWHERE = "meta" if DEVICE == "cpu" else "cpu"
LONG = torch.ones(1, 65, dtype=torch.int64, device="cpu")


class OnAGpu(torch.nn.Parameter):
    """Says that it lies on a GPU."""

    device = torch.device("cuda", 0)


def state(model: torch.nn.Module) -> tuple[dict[str, Any], dict[str, tuple[int, list[int]]]]:
    """What a model holds: its attributes, its parameters, how each lies in its own memory."""
    placed = {
        name: (id(tensor), [tensor.untyped_storage().nbytes(), *tensor.stride()])
        for name, tensor in model.named_parameters()
    }
    return dict(model.__dict__), placed


def outcome(model: Any, given: dict[str, Any]) -> Any:
    """What a call returns, or its error."""
    with torch.inference_mode():
        try:
            return model(**given)
        except Exception as error:
            return type(error), str(error)


def moved(given: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    return {**given, **{name: given[name].to(ELSEWHERE) for name in names}}


WRONG: dict[str, Callable[[], dict[str, Any]]] = {
    "longer than its positions": lambda: {"input_ids": LONG.to(DEVICE)},
    "on another device": lambda: moved(inputs("bert"), "input_ids", "attention_mask"),
    "types of another length": lambda: {**inputs("bert"), "token_type_ids": LONG.to(DEVICE)},
    "ids that are no integers": lambda: {"input_ids": torch.rand(2, 17)},
    "no argument": dict,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_call_fails_as_it_did_and_later_ones_work(wrong: str) -> None:
    model: Any = tiny("bert")
    given, bad = inputs("bert"), WRONG[wrong]()
    truth, error = outcome(model, given), outcome(model, bad)
    assert issubclass(error[0], Exception)
    before = state(model)
    optimize_model(model)
    assert [outcome(model, bad) for _ in range(3)] == 3 * [error]
    assert furthest(twice(model, **given), truth) < 1e-5
    assert [outcome(model, bad) for _ in range(2)] == 2 * [error]
    assert furthest(outcome(model, given), truth) < 1e-5
    assert forward_of(model).calls[BY_GRAPH] == 2
    restore_model(model)
    assert state(model) == before


@pytest.mark.gpu
def test_a_mask_in_the_memory_of_the_cpu_does_what_it_did() -> None:
    """The model itself moves it, so that such a call works."""
    model: Any = tiny("bert")
    given = inputs("bert")
    mixed = moved(given, "attention_mask")
    truth, before = outcome(model, mixed), outcome(model, given)
    optimize_model(model)
    for _ in range(3):
        out = outcome(model, mixed)
        assert out == truth if isinstance(truth, tuple) else furthest(out, truth) < 1e-5
    assert furthest(twice(model, **given), before) < 1e-5
    assert forward_of(model).calls[BY_GRAPH] >= 1


@pytest.mark.parametrize("name", ["input_ids", "position_ids", "token_type_ids"])
def test_an_id_that_a_graph_does_not_know_gives_no_number(name: str) -> None:
    """The original raises on a CPU, and ends the process's use of a GPU. A graph cannot raise."""
    model: Any = tiny("bert")
    ids = inputs("bert")["input_ids"]
    given = {
        "input_ids": ids,
        "position_ids": torch.arange(17)[None].expand(2, 17).contiguous(),
        "token_type_ids": torch.zeros_like(ids),
    }
    optimize_model(model)
    truth = twice(model, **given).last_hidden_state
    bad = {**given, name: given[name].clone()}
    bad[name][1, 3] = 1000
    with torch.inference_mode():
        out = model(**bad).last_hidden_state
        again = model(**given).last_hidden_state
    assert forward_of(model).calls[BY_GRAPH] == 3
    assert out[1].isnan().all()
    assert distance(out[0], truth[0]) < 1e-5
    assert distance(again, truth) < 1e-5


def _fails(*_: object) -> Any:
    raise RuntimeError("planted")


def _fails_at_its_end(graph: torch.fx.GraphModule) -> Report:
    """Weights are packed by then."""
    rewrite(graph)
    raise RuntimeError("planted")


@pytest.mark.parametrize(
    ("step", "fault"), [("trace", _fails), ("rewrite", _fails), ("rewrite", _fails_at_its_end)]
)
def test_a_failure_on_the_way_leaves_the_model_as_it_was(
    monkeypatch: pytest.MonkeyPatch, step: str, fault: Callable[..., Any]
) -> None:
    model: Any = tiny("bert")
    given = inputs("bert")
    with torch.inference_mode():
        truth = model(**given)
    before = state(model)
    monkeypatch.setattr(engines, step, fault)
    optimize_model(model)
    for _ in range(2):
        assert furthest(twice(model, **given), truth) == 0
    assert forward_of(model).calls["by PyTorch: no graph: RuntimeError: planted"] == 3
    restore_model(model)
    assert state(model) == before
    monkeypatch.undo()
    optimize_model(model)
    assert furthest(twice(model, **given), truth) < 1e-5
    assert forward_of(model).calls[BY_GRAPH] == 1


def test_a_forward_that_fails_while_it_is_traced_leaves_the_model_as_it_was() -> None:
    """Tracing stands fake tensors in for the parameters; after a failure the real ones are back."""
    model: Any = tiny("bert")
    given = inputs("bert")
    with torch.inference_mode():
        truth = model(**given)
    original = model.forward

    def fickle(**arguments: Any) -> Any:
        outputs = original(**arguments)
        assert float(outputs.last_hidden_state.sum()) != 0
        return outputs

    model.forward = fickle
    before = state(model)
    optimize_model(model)
    assert furthest(twice(model, **given), truth) == 0
    assert any("no graph: " in reason for reason in forward_of(model).calls)
    restore_model(model)
    assert state(model) == before
    assert model.forward is fickle


def test_a_gpu_older_than_ampere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = tiny("bert")
    if DEVICE == "cpu":
        embedding = model.embeddings.word_embeddings
        embedding.weight = OnAGpu(embedding.weight.data)
    before = state(model)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))
    with pytest.raises(DeviceError, match=r"compute capability 7\.5; allowed: 8\.0 \(Ampere\)"):
        optimize_model(model)
    assert state(model) == before


@pytest.mark.parametrize("reason", ["an option", "training mode"])
def test_what_is_refused_the_second_time_leaves_the_first_in_place(reason: str) -> None:
    model: Any = tiny("bert")
    optimize_model(model)
    twice(model, **inputs("bert"))
    before = state(model)
    model.train(reason == "training mode")
    with pytest.raises(OptionError):
        optimize_model(model, max_graphs=0 if reason == "an option" else 1)
    model.eval()
    assert state(model) == before
    twice(model, **inputs("bert"))
    assert forward_of(model).calls[BY_GRAPH] == 3


QUERY = "encoder.layer.0.attention.self.query.weight"


def has_its_own_memory(model: torch.nn.Module) -> bool:
    query = model.get_parameter(QUERY)
    return query.untyped_storage().nbytes() == query.numel() * query.element_size()


def test_a_warm_up_that_raises_leaves_the_model_as_it_was() -> None:
    model = tiny("bert")
    with pytest.raises(RuntimeError):
        optimize_model(model, warmup_shapes=[(1, 5), {"input_ids": (1, 2**45)}])  # type: ignore[arg-type]
    assert "forward" not in model.__dict__
    assert has_its_own_memory(model)


@pytest.mark.parametrize("shape", [(1, 65), {"pixel_values": (1, 3)}])
def test_a_warm_up_shape_that_the_model_does_not_take_is_told(shape: Any) -> None:
    with pytest.warns(UserWarning, match="warm-up shape .* stay with PyTorch: no graph"):
        optimize_model(tiny("bert"), warmup_shapes=[shape])  # type: ignore[arg-type]


def test_to_explain_changes_nothing() -> None:
    model: Any = tiny("bert")
    report = explain(model, **inputs("bert"))
    assert report.packed > 0
    assert has_its_own_memory(model)
    optimize_model(model)
    with torch.inference_mode():
        truth = forward_of(model).original(**inputs("bert"))
    assert furthest(twice(model, **inputs("bert")), truth) < 1e-5
    assert not has_its_own_memory(model)
    explain(model, **inputs("bert"))
    assert not has_its_own_memory(model)
    assert furthest(twice(model, **inputs("bert")), truth) < 1e-5


def test_to_explain_nothing_is_refused() -> None:
    with pytest.raises(ArgumentError, match="none of them a tensor"):
        explain(tiny("bert"))  # type: ignore[arg-type]
