"""What changes in a model after its graphs were built is never left out without a word."""

import copy
import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from kernl import optimize_model, restore_model
from kernl.optimize import changes
from tests.optimize.calls import BY_GRAPH, forward_of, furthest, twice
from tests.tiny_models import DEVICE, inputs, tiny


class Pair:
    """A model and a plain one of the same weights, to which the same is done."""

    def __init__(self) -> None:
        self.given = inputs("bert")
        self.plain: Any = tiny("bert")
        model: Any = copy.deepcopy(self.plain)
        self.model: Any = optimize_model(model)
        twice(self.model, **self.given)
        assert self.calls == 1

    @property
    def calls(self) -> int:
        return forward_of(self.model).calls[BY_GRAPH]

    def error(self) -> float:
        with torch.inference_mode():
            return furthest(self.model(**self.given), self.plain(**self.given))


@pytest.fixture
def pair() -> Pair:
    return Pair()


def dense(model: Any) -> Any:
    return model.encoder.layer[1].attention.output.dense


def replace_module(model: Any) -> None:
    torch.manual_seed(1)
    model.encoder.layer[1].attention.output.dense = torch.nn.Linear(64, 64)


def replace_module_without_parameters(model: Any) -> None:
    model.encoder.layer[1].intermediate.intermediate_act_fn = torch.nn.ReLU()


def replace_parameter(model: Any) -> None:
    torch.manual_seed(1)
    dense(model).weight = torch.nn.Parameter(torch.randn(64, 64))


def replace_first_module(model: Any) -> None:
    torch.manual_seed(1)
    model.set_input_embeddings(torch.nn.Embedding(200, 64))


def load_others(model: Any) -> None:
    torch.manual_seed(1)
    others = {name: 0.1 * torch.randn_like(x) if x.is_floating_point() else x.clone()
              for name, x in model.state_dict().items()}  # fmt: skip
    model.load_state_dict(others, assign=True)


def replace_buffer(model: Any) -> None:
    ids = model.embeddings.position_ids
    model.embeddings.position_ids = ids.flip(1).contiguous()


def parametrize_first(model: Any) -> None:
    class Doubled(torch.nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return 2 * weight

    torch.nn.utils.parametrize.register_parametrization(
        model.get_input_embeddings(), "weight", Doubled()
    )


def inject_adapters(model: Any) -> None:
    class Adapted(torch.nn.Module):
        def __init__(self, base: torch.nn.Module) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.base, self.down, self.up = base, torch.nn.Linear(64, 4), torch.nn.Linear(4, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.base(x) + self.up(self.down(x))

    for layer in model.encoder.layer:
        layer.attention.self.value = Adapted(layer.attention.self.value)


@pytest.mark.parametrize(
    "change",
    [
        parametrize_first,
        inject_adapters,
        replace_module,
        replace_module_without_parameters,
        replace_parameter,
        replace_first_module,
        load_others,
        replace_buffer,
    ],
)
def test_what_was_replaced_is_seen_by_the_next_call(
    pair: Pair, change: Callable[[Any], None]
) -> None:
    with torch.inference_mode():
        before = pair.model(**pair.given)
    change(pair.model)
    change(pair.plain)
    assert pair.error() < 1e-5
    assert pair.error() < 1e-5
    assert pair.calls >= 3  # the last one by a new graph
    with torch.inference_mode():
        assert furthest(pair.model(**pair.given), before) > 1e-3


def test_weights_that_get_inference_memory_after_they_were_traced(pair: Pair) -> None:
    """So `resize_token_embeddings` does, called in inference mode."""
    with torch.inference_mode():
        for model in (pair.model, pair.plain):
            torch.manual_seed(1)
            model.get_input_embeddings().weight.data = torch.randn(200, 64)
    assert pair.model.get_input_embeddings().weight.is_inference()
    assert pair.error() < 1e-5
    assert pair.error() < 1e-5
    assert pair.calls == 2


def test_a_model_that_cannot_be_copied_runs_and_says_why(pair: Pair) -> None:
    with torch.inference_mode():
        made = torch.nn.Parameter(torch.randn(64, 64))
    dense(pair.model).weight = dense(pair.plain).weight = made
    held = weakref.ref(made)
    assert pair.error() == 0.0
    assert pair.error() == 0.0
    assert held() is made
    (reason,) = [said for said in forward_of(pair.model).calls if "no graph" in said]
    assert "was made in inference mode and has weak references" in reason


def double(_module: object, _args: object, out: Any) -> Any:
    return (2 * out[0], *out[1:]) if isinstance(out, tuple) else 2 * out


def test_a_hook_is_called_and_told_of_and_graphs_come_back_after_it(pair: Pair) -> None:
    handles = [dense(model).register_forward_hook(double) for model in (pair.model, pair.plain)]
    assert pair.error() == 0.0
    assert pair.error() == 0.0
    reason = (
        "by PyTorch: a hook of the module encoder.layer.1.attention.output.dense is to be called"
    )
    assert forward_of(pair.model).calls[reason] == 2
    for handle in handles:
        handle.remove()
    before = pair.calls
    assert pair.error() < 1e-5
    assert pair.calls == before + 1


def test_a_hook_before_a_module_counts_too(pair: Pair) -> None:
    seen: list[int] = []
    dense(pair.model).register_forward_pre_hook(lambda *_: seen.append(1))
    pair.error()
    assert seen == [1]


def test_a_hook_of_all_modules_is_called(pair: Pair) -> None:
    seen: list[int] = []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: seen.append(1))
    try:
        with torch.inference_mode():
            pair.model(**pair.given)
    finally:
        handle.remove()
    assert len(seen) > 20
    reason = "by PyTorch: a hook of all modules is to be called"
    assert forward_of(pair.model).calls[reason] == 1


def test_hooks_of_the_model_itself_and_of_transformers_leave_its_graphs(pair: Pair) -> None:
    seen: list[int] = []
    pair.model.register_forward_hook(lambda *_: seen.append(1))
    # transformers hangs hooks of its own on submodules to gather these.
    assert furthest(
        twice(pair.model, **pair.given, output_hidden_states=True),
        pair.plain(**pair.given, output_hidden_states=True),
    ) < 1e-5  # fmt: skip
    assert pair.calls == 2
    assert len(seen) == 2


def test_a_call_looks_at_the_model_only_where_something_was_registered(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.error()  # looks once more after its graph was built
    looks: list[int] = []
    parts = changes._parts

    def counted(model: torch.nn.Module) -> list[Any]:
        looks.append(1)
        return parts(model)

    monkeypatch.setattr(changes, "_parts", counted)
    with torch.inference_mode():
        for _ in range(5):
            pair.model(**pair.given)
        assert looks == []
        torch.nn.Linear(2, 2)  # of another model
        for _ in range(5):
            pair.model(**pair.given)
    assert looks == [1]
    assert pair.calls == 12


def copied(model: Any) -> Any:
    return copy.deepcopy(model)


def pickled(model: Any) -> Any:
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("how", [copied, pickled])
def test_a_copy_is_optimised_and_goes_its_own_way(pair: Pair, how: Callable[[Any], Any]) -> None:
    other = how(pair.model)
    original: Any = forward_of(other).original
    assert original.__self__ is other
    assert furthest(twice(other, **pair.given), pair.plain(**pair.given)) < 1e-5
    assert forward_of(other).calls[BY_GRAPH] == 1
    with torch.no_grad():
        dense(other).weight.zero_()
    assert pair.error() < 1e-5
    with torch.inference_mode():
        assert furthest(other(**pair.given), pair.plain(**pair.given)) > 1e-3
    assert pair.calls == 2


def test_threads_that_call_a_copy_first_begin_it_once(pair: Pair) -> None:
    other, wrong = copy.deepcopy(pair.model), list[str]()

    def work() -> None:
        try:
            with torch.device(DEVICE), torch.inference_mode():
                other(**pair.given)
        except AttributeError as error:
            wrong.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert forward_of(other).calls.total() == 8
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = forward_of(other).nothing


def test_a_copy_is_restored(pair: Pair) -> None:
    other = restore_model(copy.deepcopy(pair.model))
    assert "forward" not in other.__dict__
    assert furthest(other(**pair.given), pair.plain(**pair.given)) == 0.0
