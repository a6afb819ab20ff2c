"""A model whose weights of convolutions are laid out anew: they are the model's own throughout."""

from typing import Any

import pytest
import torch

from kernl import explain, optimize_model, restore_model
from tests.optimize.calls import BY_GRAPH, distance, forward_of, furthest, twice
from tests.tiny_models import inputs, tiny

NATURAL, IN_ROWS = (192, 3, 1), (192, 1, 64)


def optimized(**options: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """A tiny Whisper, and its parameters as they were."""
    model: Any = tiny("whisper")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimize_model(model, **options)
    return model, before


def second(model: Any) -> torch.nn.Parameter:
    weight = model.encoder.conv2.weight
    assert isinstance(weight, torch.nn.Parameter)
    return weight


def test_a_weight_changed_in_place_is_seen() -> None:
    model, _ = optimized()
    given = inputs("whisper")
    before = twice(model, **given)
    assert second(model).stride() == IN_ROWS
    with torch.no_grad():
        for convolution in (model.encoder.conv1, model.encoder.conv2):
            convolution.weight.mul_(1.3)
        model.encoder.embed_positions.weight.mul_(1.3)
    with torch.inference_mode():
        after, truth = model(**given), forward_of(model).original(**given)
    assert forward_of(model).calls[BY_GRAPH] == 2
    assert furthest(after, truth) < 1e-5
    assert distance(after.last_hidden_state, before.last_hidden_state) > 1e-3


def test_a_restored_model_is_what_it_was_to_the_bit() -> None:
    model, before = optimized()
    given = inputs("whisper")
    with torch.inference_mode():
        truth = model(**given)
    twice(model, **given)
    restore_model(model)
    assert second(model).stride() == NATURAL
    for name, parameter in model.named_parameters():
        assert parameter.is_contiguous()
        assert torch.equal(parameter, before[name])
    with torch.inference_mode():
        assert furthest(model(**given), truth) == 0.0


def test_explaining_moves_nothing() -> None:
    model: Any = tiny("whisper")
    memory = second(model).detach()  # kept, so that nothing else can lie there
    assert explain(model, **inputs("whisper")).fused["conv1d"] == 2
    assert second(model).stride() == NATURAL
    optimize_model(model)
    twice(model, **inputs("whisper"))
    moved = second(model).data_ptr()
    assert moved != memory.data_ptr()
    explain(model, **inputs("whisper"))
    assert (second(model).data_ptr(), second(model).stride()) == (moved, IN_ROWS)


def test_another_batch_reads_the_same_memory() -> None:
    model, _ = optimized()
    given = inputs("whisper")
    twice(model, **given)
    place = second(model).data_ptr()
    one = {name: tensor[:1].contiguous() for name, tensor in given.items()}
    out = twice(model, **one)
    with torch.inference_mode():
        truth = forward_of(model).original(**one)
    assert forward_of(model).calls[BY_GRAPH] == 2
    assert second(model).data_ptr() == place
    assert furthest(out, truth) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_copy_in_half_precision_follows(dtype: torch.dtype) -> None:
    model, _ = optimized(dtype=dtype)
    given = inputs("whisper")
    twice(model, **given)
    assert second(model).stride() == NATURAL  # the copy's own weight lies in rows
    with torch.no_grad():
        second(model).mul_(1.5)
    with torch.inference_mode():
        out, truth = model(**given), forward_of(model).original(**given)
    assert forward_of(model).calls[BY_GRAPH] == 2
    assert distance(out.last_hidden_state, truth.last_hidden_state) < 2e-2


def test_a_saved_model_is_the_model(tmp_path: Any) -> None:
    model, before = optimized()
    twice(model, **inputs("whisper"))
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter.to(before[name].device), before[name])
