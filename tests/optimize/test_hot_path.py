"""What each call by graph goes through: what it must notice, and what it may not cost in truth."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

from kernl import optimize_model
from kernl.optimize.engine import Engine
from kernl.optimize.forward import FIRST_SIGHT, OptimizedForward
from kernl.optimize.options import Options
from kernl.runtime.runner import CudaGraph, Direct
from kernl.runtime.structure import key_of_call, rebuilder
from tests.optimize.calls import BY_GRAPH, forward_of, furthest, twice
from tests.tiny_models import inputs, tiny


class Prepared:
    """A forward whose one engine runs nothing: what is left is the way to it and back."""

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        self.model: Any = tiny("bert")
        self.given = inputs("bert")
        self.forward = OptimizedForward(self.model, Options())
        with torch.inference_mode():
            truth = self.model(**self.given)
        self.row: list[torch.Tensor] = []
        rebuild = rebuilder(truth, self.row)
        key = key_of_call((), self.given, dtype, [])
        runner = Direct(lambda *_: self.row, [False] * len(self.row))
        self.forward._engines.put(key, Engine(runner, rebuild, None, ""))

    def __call__(self, **more: Any) -> Any:
        with torch.inference_mode():
            return self.forward(**self.given, **more)


def test_the_outputs_are_those_of_the_class() -> None:
    prepared = Prepared()
    out = prepared()
    assert type(out) is BaseModelOutputWithPoolingAndCrossAttentions
    assert list(out.items()) == [
        ("last_hidden_state", prepared.row[0]),
        ("pooler_output", prepared.row[1]),
    ]
    assert out[0] is out.last_hidden_state is out["last_hidden_state"] is prepared.row[0]
    assert out.hidden_states is None
    out.hidden_states = (prepared.row[0],)
    again = prepared()
    assert again.hidden_states is None
    assert list(again) == ["last_hidden_state", "pooler_output"]
    assert prepared.forward.calls == {BY_GRAPH: 2}


def training(prepared: Prepared) -> None:
    prepared.model.train()


def moved(prepared: Prepared) -> None:
    first = next(prepared.model.parameters())
    first.data = first.data.clone()


def another_object(prepared: Prepared) -> None:
    embeddings = prepared.model.embeddings.word_embeddings
    embeddings.weight = torch.nn.Parameter(embeddings.weight.detach().clone())


def cast(prepared: Prepared) -> None:
    prepared.model.to(torch.bfloat16)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (training, "the model is in training mode"),
        (moved, FIRST_SIGHT),
        (another_object, FIRST_SIGHT),
        (cast, FIRST_SIGHT),
    ],
)
def test_what_changes_between_calls_is_noticed(
    change: Callable[[Prepared], None], reason: str
) -> None:
    prepared = Prepared()
    prepared()
    change(prepared)
    prepared()
    assert prepared.forward.calls == {BY_GRAPH: 1, f"by PyTorch: {reason}": 1}


def test_gradients_and_other_arguments_are_noticed() -> None:
    prepared = Prepared()
    prepared()
    prepared.forward(**prepared.given)
    prepared(output_attentions=False)
    with torch.autocast(prepared.row[0].device.type, dtype=torch.bfloat16):
        prepared()
    reordered = dict(reversed(prepared.given.items()))
    with torch.inference_mode():
        prepared.forward(**reordered)
        prepared.forward(*prepared.given.values())
    assert prepared.forward.calls[BY_GRAPH] == 1
    assert prepared.forward.calls[f"by PyTorch: {FIRST_SIGHT}"] == 4
    assert prepared.forward.calls.total() == 6


def test_calls_of_many_threads_are_all_counted_however_often_one_looks() -> None:
    prepared = Prepared()

    def work() -> None:
        for _ in range(500):
            prepared()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    seen = [prepared.forward.calls[BY_GRAPH] for _ in range(50)]
    for thread in threads:
        thread.join()
    assert seen == sorted(seen)
    assert [prepared.forward.calls for _ in range(2)] == [{BY_GRAPH: 2000}] * 2


@pytest.mark.gpu
def test_a_models_inputs_and_outputs_are_copied_by_its_graph() -> None:
    model: Any = tiny("bert")
    optimize_model(model)
    held = [twice(model, **inputs("bert", seed=seed)) for seed in range(3)]
    with torch.inference_mode():
        runner = forward_of(model).prepare(**inputs("bert")).runner
        truths = [forward_of(model).original(**inputs("bert", seed=seed)) for seed in range(3)]
    assert isinstance(runner, CudaGraph)
    for copies in (runner.copies_in, runner.copies_out):
        assert len(copies._groups) == 1
        assert copies.left_to_pytorch == 0
    assert max(map(furthest, held, truths)) < 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("autocast", [False, True])
def test_a_call_can_be_a_part_of_somebodys_graph(autocast: bool) -> None:
    model: Any = tiny("bert")
    optimize_model(model)
    given, other = inputs("bert"), inputs("bert", seed=1)
    place = {name: tensor.clone() for name, tensor in given.items()}
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.autocast("cuda", dtype=torch.float16, enabled=autocast):
        truths = [forward_of(model).original(**tensors) for tensors in (given, other)]
        twice(model, **given)
        with torch.cuda.graph(graph):
            out = model(**place)
        for tensors, truth in zip((given, other, given), (*truths, truths[0]), strict=True):
            for name, tensor in tensors.items():
                place[name].copy_(tensor)
            graph.replay()
            assert furthest(out, truth) < (1e-2 if autocast else 1e-5)
        assert furthest(model(**other), truths[1]) < (1e-2 if autocast else 1e-5)
    assert forward_of(model).calls[BY_GRAPH] == 3
