"""When `optimize_model` leaves a call to PyTorch or refuses a model, and what it says."""

import threading
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, PreTrainedModel

import kernl
from kernl import explain, optimize_model, restore_model
from kernl.errors import ArgumentError, DeviceError, OptionError, ShapeError, UntraceableError
from kernl.optimize import captured, forward
from kernl.optimize import engine as engines
from kernl.rewrite import Report, rewrite
from tests.optimize.calls import BY_GRAPH, distance, evaluated, forward_of, furthest, twice
from tests.tiny_models import CONFIGURATIONS, DEVICE, inputs, tiny


class Fickle(BertModel):  # type: ignore[no-untyped-call]
    """Its steps depend on data."""

    def forward(self, input_ids: torch.Tensor, **rest: Any) -> Any:
        rest["output_hidden_states"] = bool(input_ids.sum() > 1000)
        return super().forward(input_ids, **rest)


def test_a_model_that_no_graph_can_hold_runs_and_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configuration = BertConfig(**CONFIGURATIONS["bert"])
    model: Any = evaluated(Fickle(configuration)).to(DEVICE)
    given = {"input_ids": torch.ones(1, 5, dtype=torch.int64)}
    optimize_model(model)
    assert twice(model, **given).hidden_states is None
    assert twice(model, input_ids=torch.full((1, 9), 150)).hidden_states is not None
    assert any("no graph: " in reason for reason in forward_of(model).calls)
    with pytest.raises(UntraceableError, match="depend on shapes and options"):
        explain(model, **given)


def test_a_wrong_graph_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: rewriting that adds a little to the first sum it finds."""
    right = rewrite

    def wrong(graph: torch.fx.GraphModule) -> Report:
        report = right(graph)
        node = next(n for n in graph.graph.nodes if "linear_layer_norm" in str(n.target))
        with graph.graph.inserting_after(node):
            more = graph.graph.call_function(torch.ops.aten.mul.Tensor, (node, 1.01))
        node.replace_all_uses_with(more, lambda user: user is not more)
        graph.recompile()
        return report

    monkeypatch.setattr(engines, "rewrite", wrong)
    model: Any = tiny("bert")
    given = inputs("bert")
    with torch.inference_mode():
        truth = model(**given)
    optimize_model(model)
    assert furthest(twice(model, **given), truth) == 0
    assert any("away from the original's" in reason for reason in forward_of(model).calls)


def test_a_graph_that_does_not_run_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel")

    model: Any = tiny("bert")
    optimize_model(model)
    monkeypatch.setattr(engines, "Direct", broken)
    monkeypatch.setattr(captured, "CudaGraph", broken)
    twice(model, **inputs("bert"))
    calls = forward_of(model).calls
    assert any("no such kernel" in reason for reason in calls), calls


def test_threads_and_models_do_not_disturb_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "PATIENCE", 300)  # the interpreter is slow
    models: list[Any] = [tiny("bert"), tiny("distilbert")]
    lengths = (3, 5)
    calls = [
        (model, {"input_ids": torch.randint(3, 200, (1, length))})
        for model in models
        for length in lengths
    ]
    with torch.inference_mode():
        truths = [model(**given).last_hidden_state for model, given in calls]
    for model in models:
        optimize_model(model)
    found: dict[int, list[float]] = {}

    def work(place: int) -> None:
        model, given = calls[place]
        with torch.inference_mode():
            outs = [model(**given).last_hidden_state for _ in range(4)]
        found[place] = [distance(out, truths[place]) for out in outs]

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(calls)
    assert max(max(errors) for errors in found.values()) < 1e-5
    counts = [dict(forward_of(model).calls) for model in models]
    assert [count[BY_GRAPH] for count in counts] == [6, 6], counts


def test_explain_prints_what_it_returns(capsys: pytest.CaptureFixture[str]) -> None:
    model: Any = tiny("bert")
    report = explain(model, **inputs("bert"))
    printed = capsys.readouterr().out
    assert report.fused["attention"] == 2
    assert "2 × attention" in printed
    assert "forward" not in model.__dict__
    optimize_model(model)
    twice(model, **inputs("bert"))
    explain(model, **inputs("bert"))
    assert "1 × by graph" in capsys.readouterr().out


def test_restoring_leaves_no_trace() -> None:
    model: Any = tiny("bert")
    before = dict(model.__dict__)
    state = {name: id(tensor) for name, tensor in model.named_parameters()}
    optimize_model(model)
    optimize_model(model)  # again: with other options, say
    twice(model, **inputs("bert"))
    assert restore_model(model) is model
    assert model.__dict__ == before
    assert {name: id(tensor) for name, tensor in model.named_parameters()} == state
    assert restore_model(model) is model


def test_an_optimised_model_can_be_copied_and_saved(tmp_path: Any) -> None:
    model: Any = tiny("bert")
    optimize_model(model)
    twice(model, **inputs("bert"))  # packs queries, keys and values
    model.save_pretrained(tmp_path)
    again: Any = evaluated(BertModel.from_pretrained(tmp_path)).to(DEVICE)
    given = inputs("bert")
    with torch.inference_mode():
        assert furthest(forward_of(model).original(**given), again(**given)) == 0


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"a Linear; allowed: a transformers\.PreTrainedModel"):
        optimize_model(torch.nn.Linear(3, 3))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError):
        explain(object())  # type: ignore[arg-type]


def test_a_model_in_training_mode_is_refused() -> None:
    model: Any = tiny("bert")
    model.train()
    with pytest.raises(OptionError, match=r"call model.eval\(\) first"):
        optimize_model(model)
    assert "forward" not in model.__dict__


def test_a_model_on_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(DeviceError, match=r"model.cuda\(\)"):
        optimize_model(tiny("bert").cpu())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"dtype": torch.float64}, OptionError),
        ({"max_graphs": 0}, OptionError),
        ({"warmup_shapes": [()]}, ShapeError),
        ({"warmup_shapes": [(1, 0)]}, ShapeError),
        ({"warmup_shapes": [{}]}, ShapeError),
    ],
)
def test_bad_options_are_refused_and_change_nothing(
    options: dict[str, Any], error: type[Exception]
) -> None:
    model: Any = tiny("bert")
    with pytest.raises(error):
        optimize_model(model, **options)
    assert "forward" not in model.__dict__


def test_a_call_beyond_the_positions_fails_as_it_did() -> None:
    model: Any = tiny("bert")
    optimize_model(model)
    long = {"input_ids": torch.ones(1, 65, dtype=torch.int64)}
    with torch.inference_mode():
        for call in (forward_of(model).original, model, model):
            with pytest.raises((RuntimeError, IndexError)):
                call(**long)


def test_the_older_way_to_import_it() -> None:
    from kernl.model_optimization import optimize_model as older

    assert older is optimize_model is kernl.optimize_model
    assert issubclass(BertModel, PreTrainedModel)
    with pytest.raises(AttributeError, match="no attribute 'optimise'"):
        kernl.optimise  # noqa: B018
