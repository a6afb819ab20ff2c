"""`optimize_model`: the same answers, of the same kinds, and the model as it was afterwards."""

from typing import Any

import pytest
import torch

from kernl import explain, optimize_model, restore_model
from kernl.optimize.forward import FIRST_SIGHT
from tests.optimize.calls import BY_GRAPH, distance, evaluated, forward_of, furthest, twice
from tests.tiny_models import CONFIGURATIONS, DEVICE, inputs, tiny


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_a_model_answers_as_before(kind: str) -> None:
    model: Any = tiny(kind)
    given, other = inputs(kind), inputs(kind, seed=1)
    with torch.inference_mode():
        truth = model(**other)
    assert optimize_model(model) is model
    twice(model, **given)
    with torch.inference_mode():
        out = model(**other)
    assert furthest(out, truth) < 1e-5
    assert forward_of(model).calls == {BY_GRAPH: 2, f"by PyTorch: {FIRST_SIGHT}": 1}
    restore_model(model)
    assert "forward" not in model.__dict__


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("bert", {"output_hidden_states": True, "output_attentions": True}),
        ("bert", {"return_dict": False}),
        ("llama", {"output_hidden_states": True, "use_cache": False}),
        ("t5", {"output_hidden_states": True, "output_attentions": True}),
    ],
)
def test_every_field_that_is_asked_for_is_there(kind: str, flags: dict[str, bool]) -> None:
    options: dict[str, Any] = {}
    if "output_attentions" in flags:
        options["attn_implementation"] = "eager"
    model: Any = tiny(kind, **options)
    given = {**inputs(kind), **flags}
    with torch.inference_mode():
        truth = model(**given)
    optimize_model(model)
    out = twice(model, **given)
    assert furthest(out, truth) < 1e-5
    if hasattr(truth, "keys"):
        assert list(out.keys()) == list(truth.keys())
        assert {name: value is None for name, value in vars(out).items()} == {
            name: value is None for name, value in vars(truth).items()
        }
    assert forward_of(model).calls[BY_GRAPH] == 1


def test_a_cache_that_comes_back_is_one_to_go_on_with() -> None:
    model: Any = tiny("llama")
    given = inputs("llama")
    step = {"input_ids": torch.tensor([[5], [6]])}
    mask = torch.cat((given["attention_mask"], torch.ones(2, 1, dtype=torch.int64)), dim=1)
    with torch.inference_mode():
        truth = model(**step, past_key_values=model(**given).past_key_values, attention_mask=mask)
    optimize_model(model)
    cache = twice(model, **given).past_key_values
    assert cache.get_seq_length() == 17
    with torch.inference_mode():
        out = model(**step, past_key_values=cache, attention_mask=mask)
    assert distance(out.last_hidden_state, truth.last_hidden_state) < 1e-5
    assert "by PyTorch: an argument of type DynamicCache" in forward_of(model).calls


def test_outputs_may_be_kept_and_written_into() -> None:
    model: Any = tiny("bert")
    optimize_model(model)
    first = twice(model, **inputs("bert")).last_hidden_state
    copy = first.clone()
    with torch.inference_mode():
        second = model(**inputs("bert", seed=1)).last_hidden_state
    assert torch.equal(first, copy)
    assert not torch.equal(first, second)
    with torch.inference_mode():
        first.zero_()
        assert torch.equal(model(**inputs("bert")).last_hidden_state, copy)


def test_weights_changed_in_place_are_seen() -> None:
    model: Any = tiny("bert")
    given = inputs("bert")
    optimize_model(model)
    before = twice(model, **given).last_hidden_state
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.2)
    with torch.inference_mode():
        after = model(**given).last_hidden_state
        truth = forward_of(model).original(**given).last_hidden_state
    assert distance(after, truth) < 1e-5
    assert distance(after, before) > 1e-2


def test_weights_made_in_inference_mode_run_by_graph_and_are_followed() -> None:
    with torch.inference_mode():
        model: Any = tiny("bert").bfloat16().float()
        for name, buffer in model.named_buffers():
            owner, _, own = name.rpartition(".")
            model.get_submodule(owner)._buffers[own] = buffer.clone()
    assert all(x.is_inference() for x in (*model.parameters(), *model.buffers()))
    held, given = dict(model.named_parameters()), inputs("bert")
    optimize_model(model, dtype=torch.bfloat16)
    before = twice(model, **given).last_hidden_state
    assert forward_of(model).calls[BY_GRAPH] == 1
    assert all(held[name] is parameter for name, parameter in model.named_parameters())
    with torch.no_grad():
        for parameter in held.values():
            parameter.mul_(1.2)
    with torch.inference_mode():
        after = model(**given).last_hidden_state
        truth = forward_of(model).original(**given).last_hidden_state
    assert forward_of(model).calls[BY_GRAPH] == 2
    assert distance(after, truth) < 2e-2
    assert distance(after, before) > 5e-2


def test_weights_that_moved_are_found_again() -> None:
    model: Any = tiny("bert")
    given = inputs("bert")
    optimize_model(model)
    twice(model, **given)
    model.to(torch.bfloat16)
    out = twice(model, **given).last_hidden_state
    assert out.dtype == torch.bfloat16
    assert forward_of(model).calls[BY_GRAPH] == 2


@pytest.mark.parametrize("by", ["option", "autocast"])
def test_half_precision_of_float_weights(by: str) -> None:
    model: Any = tiny("bert")
    given = inputs("bert")
    with torch.inference_mode():
        truth = model(**given).last_hidden_state
    optimize_model(model, dtype=torch.bfloat16 if by == "option" else None)
    with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=by == "autocast"):
        out = twice(model, **given).last_hidden_state
    assert forward_of(model).calls[BY_GRAPH] == 1, explain(model, **given)
    assert out.dtype == torch.float32
    assert 1e-4 < distance(out, truth) < 3e-2
    assert all(p.dtype == torch.float32 for p in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.2)
    with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=by == "autocast"):
        changed = twice(model, **given).last_hidden_state
    with torch.inference_mode():
        truth = forward_of(model).original(**given).last_hidden_state
    assert distance(changed, truth) < 3e-2


@pytest.mark.parametrize("option", ["rewrite", "cuda_graphs", "check"])
def test_each_part_can_be_left_out(option: str) -> None:
    model: Any = tiny("bert")
    given = inputs("bert")
    with torch.inference_mode():
        truth = model(**given)
    left_out: dict[str, Any] = {option: False}
    optimize_model(model, **left_out)
    assert furthest(twice(model, **given), truth) < 1e-5
    assert (sum(explain(model, **given).fused.values()) == 0) == (option == "rewrite")


def test_shapes_to_be_ready_for_need_no_second_call() -> None:
    model: Any = tiny("bert")
    optimize_model(model, warmup_shapes=[(2, 17), {"input_ids": (1, 3)}])
    with torch.inference_mode():
        model(**inputs("bert"))
        model(input_ids=torch.ones(1, 3, dtype=torch.int64))
    assert forward_of(model).calls == {BY_GRAPH: 2}


def test_a_bound_on_graphs_holds() -> None:
    model: Any = tiny("bert")
    optimize_model(model, max_graphs=2)
    for length in (3, 4, 5):
        twice(model, input_ids=torch.ones(1, length, dtype=torch.int64))
    assert len(forward_of(model)._engines.values()) == 2


def test_training_and_gradients_stay_with_pytorch() -> None:
    model: Any = tiny("bert")
    given = inputs("bert")
    optimize_model(model)
    model(**given).last_hidden_state.sum().backward()
    assert model.embeddings.word_embeddings.weight.grad is not None
    model.train()
    with torch.inference_mode():
        model(**given)
    words = " ".join(forward_of(model).calls)
    assert "gradients are recorded" in words
    assert "training mode" in words


def test_generation_gives_the_same_tokens() -> None:
    from transformers import LlamaForCausalLM

    configuration: Any = tiny("llama").config
    torch.manual_seed(0)
    model: Any = evaluated(LlamaForCausalLM(configuration))
    ids = torch.randint(3, 200, (2, 7))
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 1}
    truth = model.generate(ids, **settings)
    optimize_model(model)
    for _ in range(3):
        assert torch.equal(model.generate(ids, **settings), truth)
