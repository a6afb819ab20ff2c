"""Calls of many lengths that share graphs by padding."""

import itertools
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from kernl import optimize_model
from kernl.errors import OptionError
from kernl.optimize.padding import LENGTHS
from tests.optimize.calls import BY_GRAPH, evaluated, forward_of, furthest, twice
from tests.tiny_models import CONFIGURATIONS, DEVICE, VOCABULARY, tiny


def ids(length: int, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(3, VOCABULARY, (batch, length), generator=generator, device="cpu").to(
        DEVICE
    )


def mask(length: int, hidden: int = 0, batch: int = 2) -> torch.Tensor:
    made = torch.ones(batch, length, dtype=torch.int64)
    made[-1, length - hidden :] = 0
    return made


def padded(kind: str, *lengths: int, **options: Any) -> Any:
    model: Any = tiny(kind, **options)
    model.config.pad_token_id = 0
    return optimize_model(model, padding=lengths)


def right(model: Any, **given: Any) -> None:
    """The second call is by graph, and both are as the original's."""
    before = forward_of(model).calls[BY_GRAPH]
    out = twice(model, **given)
    with torch.inference_mode():
        truth = forward_of(model).original(**given)
    assert furthest(out, truth) < 1e-5
    assert forward_of(model).calls[BY_GRAPH] > before, forward_of(model).calls


def graphs(model: Any) -> int:
    return len(forward_of(model)._engines.values())


def test_lengths_share_graphs() -> None:
    model = padded("bert", 8, 16)
    for length in (3, 5, 7, 8):
        right(model, input_ids=ids(length), attention_mask=mask(length, hidden=1))
    assert graphs(model) == 1
    right(model, input_ids=ids(11), attention_mask=mask(11), token_type_ids=mask(11, hidden=4))
    right(model, input_ids=ids(12), attention_mask=mask(12))
    assert graphs(model) == 3


def test_what_is_not_a_length_of_these_has_a_graph_of_its_own() -> None:
    model = padded("bert", 8)
    right(model, input_ids=ids(9), attention_mask=mask(9))
    right(model, inputs_embeds=torch.randn(2, 3, model.config.hidden_size))
    assert not forward_of(model)._cuts.values()
    model.config.pad_token_id = None
    optimize_model(model, padding=(8,))
    right(model, input_ids=ids(5), attention_mask=mask(5))
    assert not forward_of(model)._cuts.values()


@pytest.mark.parametrize("kind", ["bert", "roberta", "t5"])
def test_a_mask_is_made_where_there_is_none(kind: str) -> None:
    model = padded(kind, 16)
    model = model.get_encoder() if kind == "t5" else model
    if kind == "t5":
        optimize_model(model, padding=(16,))
    right(model, input_ids=ids(5))
    right(model, input_ids=ids(6), attention_mask=None)
    with torch.inference_mode():
        assert furthest(model(ids(6)), model(input_ids=ids(6))) < 1e-5
        model(ids(6))
    assert graphs(model) == 1


def test_every_field_is_cut() -> None:
    model = padded("bert", 16, attn_implementation="eager")
    right(
        model,
        input_ids=ids(5),
        attention_mask=mask(5, hidden=2),
        output_attentions=True,
        output_hidden_states=True,
    )
    assert twice(model, input_ids=ids(6), output_attentions=True).attentions[0].shape[-2:] == (6, 6)


def test_a_cache_is_cut_too_and_goes_on() -> None:
    model = padded("llama", 16)
    with torch.inference_mode():
        original = forward_of(model).original
        given = {"input_ids": ids(5), "attention_mask": mask(5)}
        right(model, **given, use_cache=True)
        more = {"input_ids": ids(1), "attention_mask": mask(6)}
        caches = [call(**given, use_cache=True).past_key_values for call in (model, original)]
        assert caches[0].get_seq_length() == 5
        outs = [original(**more, past_key_values=cache).last_hidden_state for cache in caches]
    assert furthest(outs[0], outs[1]) < 1e-5


class Mean(BertModel):  # type: ignore[no-untyped-call]
    """Heeds no mask at its end."""

    def forward(self, **given: Any) -> Any:
        out = super().forward(**given)
        return out.last_hidden_state.mean(dim=1)


def test_where_padding_changes_the_answer_the_original_gives_it() -> None:
    model: Any = evaluated(Mean(BertConfig(**CONFIGURATIONS["bert"]))).to(DEVICE)
    given = {"input_ids": ids(5), "attention_mask": mask(5)}
    optimize_model(model, padding=(16,))
    out = twice(model, **given)
    with torch.inference_mode():
        assert torch.equal(out, forward_of(model).original(**given))
    assert any("away from the original's" in reason for reason in forward_of(model).calls)


def test_a_graph_that_went_is_made_again() -> None:
    model: Any = tiny("bert")
    optimize_model(model, padding=(8, 16), max_graphs=1)
    for length in (5, 12, 5, 6):
        right(model, input_ids=ids(length), attention_mask=mask(length))
        assert graphs(model) == 1


def test_true_means_lengths_half_as_much_again_at_most() -> None:
    model: Any = tiny("bert")
    optimize_model(model, padding=True)
    right(model, input_ids=ids(3), attention_mask=mask(3))
    steps = itertools.pairwise(LENGTHS)
    assert all(less < more <= 1.5 * less for less, more in steps)
    assert LENGTHS[0] == 16


@pytest.mark.parametrize("wrong", [(), (0,), (8, "16"), (2.5,)])
def test_lengths_that_are_none(wrong: Any) -> None:
    with pytest.raises(OptionError, match="padding="):
        optimize_model(tiny("bert"), padding=wrong)  # type: ignore[arg-type]
