"""Embeddings and norm: ids at the edges of their tables, options, strides, wrong arguments."""

from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, RobertaConfig
from transformers.models.bert.modeling_bert import BertEmbeddings
from transformers.models.roberta.modeling_roberta import RobertaEmbeddings

from kernl import errors
from kernl.ops.embedding_layer_norm import (
    MAX_HIDDEN,
    embedding_layer_norm,
    embedding_layer_norm_reference,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(
        shape, generator=torch.Generator(DEVICE).manual_seed(sum(shape)), device=DEVICE
    )


def _call(hidden: int = 33, /, **change: Any) -> dict[str, Any]:
    base = {
        "word": _random(11, hidden),
        "position": _random(9, hidden),
        "weight": _random(hidden),
        "bias": _random(hidden) + 1,
        "input_ids": torch.tensor([[0, 10, 3, 3], [7, 1, 0, 10]], device=DEVICE),
        "token_type": _random(2, hidden),
        "token_type_ids": torch.tensor([[0, 0, 1, 1], [1, 0, 0, 1]], device=DEVICE),
    }
    return {**base, **change}


def _moved(change: dict[str, Any]) -> dict[str, Any]:
    return {k: v.to(DEVICE) if torch.is_tensor(v) else v for k, v in change.items()}


def _close(inputs: dict[str, Any]) -> bool:
    upcast: dict[str, Any] = {
        name: value.double() if torch.is_tensor(value) and value.is_floating_point() else value
        for name, value in inputs.items()
    }
    out, truth = embedding_layer_norm(**inputs), embedding_layer_norm_reference(**upcast)
    assert out.shape == truth.shape
    return bool((out.double() - truth).norm() <= 1e-6 * truth.norm())


OPTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "int32 ids": {"input_ids": torch.tensor([[0, 10], [3, 3]], dtype=torch.int32)},
    "no types": {"token_type": None, "token_type_ids": None},
    "types without ids": {"token_type_ids": None},
    "an offset": {"position_offset": 5},
    "own positions": {"position_ids": torch.tensor([[3, 0, 8, 2], [0, 1, 2, 3]])},
    "counted positions": {"padding_idx": 3},
    "counted positions of strided ids": {
        "input_ids": torch.tensor([[0, 3], [3, 3], [4, 5], [3, 7]]).t(),
        "padding_idx": 3,
    },
    "positions for all": {"position_ids": torch.tensor([[8, 7, 6, 5]])},
    "strided tables": {"word": _random(33, 11).t(), "weight": _random(66)[::2]},
    "strided ids": {"input_ids": torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7]]).t()},
    "one word for all": {"word": _random(1, 33).expand(11, 33)},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str) -> None:
    change = _moved(OPTIONS[name])
    inputs = _call(**change)
    if name == "int32 ids":
        inputs["token_type_ids"] = inputs["input_ids"] % 2
    assert _close(inputs)


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 70), st.integers(1, 20), st.booleans())
def test_any_shape(batch: int, seq: int, hidden: int, words: int, types: bool) -> None:
    generator = torch.Generator(DEVICE).manual_seed(hidden)
    ids = torch.randint(words, (batch, seq), generator=generator, device=DEVICE)
    # A row of two values may have a variance near zero, which amplifies rounding.
    hidden = max(hidden, 16)
    kinds: dict[str, Any] = {} if types else {"token_type": None}
    inputs = _call(hidden, word=_random(words, hidden), input_ids=ids, **kinds)
    inputs["token_type_ids"] = ids % 2 if types else None
    assert _close(inputs)


@given(st.integers(1, 3), st.integers(1, 40), st.integers(0, 3), st.integers(0, 1000))
def test_positions_count_what_is_no_padding(batch: int, seq: int, padding: int, seed: int) -> None:
    generator = torch.Generator(DEVICE).manual_seed(seed)
    ids = torch.randint(4, (batch, seq), generator=generator, device=DEVICE)
    inputs = _call(input_ids=ids, token_type=None, token_type_ids=None, padding_idx=padding)
    assert _close({**inputs, "position": _random(45, 33)})


@pytest.mark.parametrize("seq", [512, 513, 1100])
def test_more_tokens_than_are_counted_at_once(seq: int) -> None:
    generator = torch.Generator(DEVICE).manual_seed(seq)
    ids = torch.randint(3, (2, seq), generator=generator, device=DEVICE)
    ids[1, seq // 2 :] = 1  # padding to the end
    inputs = _call(input_ids=ids, token_type=None, token_type_ids=None, padding_idx=1)
    assert _close({**inputs, "position": _random(seq + 2, 33)})


@pytest.mark.parametrize("wrong", [-1, 11, 1 << 40])
def test_an_unknown_word_is_a_row_of_nan_and_no_other(wrong: int) -> None:
    inputs = _call()
    inputs["input_ids"][1, 2] = wrong
    bad = embedding_layer_norm(**inputs).isnan()
    assert bad[1, 2].all()
    assert bad.sum() == 33


def test_unknown_positions_and_types_are_nan_too() -> None:
    late = embedding_layer_norm(**_call(position_offset=6)).isnan()
    assert late[:, 3].all()
    assert not late[:, :3].any()
    kinds = _call()
    kinds["token_type_ids"][0, 1] = 2
    assert embedding_layer_norm(**kinds).isnan().sum() == 33


def _as_module(module: Any, ids: torch.Tensor, **options: Any) -> bool:
    """Whether it is what a model's own embeddings give."""
    module = module.eval().to(DEVICE)
    with torch.no_grad():
        out = embedding_layer_norm(
            module.word_embeddings.weight,
            module.position_embeddings.weight,
            module.LayerNorm.weight,
            module.LayerNorm.bias,
            ids,
            token_type=module.token_type_embeddings.weight,
            eps=module.LayerNorm.eps,
            **options,
        )
        return torch.allclose(out, module(input_ids=ids), atol=1e-5)


def test_it_is_what_bert_does() -> None:
    config, embeddings = BertConfig(vocab_size=40, hidden_size=32), cast(Any, BertEmbeddings)
    assert _as_module(embeddings(config), torch.tensor([[5, 39, 0, 7]], device=DEVICE))


def test_with_padding_it_is_what_roberta_does() -> None:
    config = RobertaConfig(vocab_size=40, hidden_size=32, max_position_embeddings=20)
    ids = torch.tensor([[0, 39, 1, 7, 2], [0, 5, 2, 1, 1]], device=DEVICE)
    embeddings = cast(Any, RobertaEmbeddings)
    assert _as_module(embeddings(config), ids, padding_idx=config.pad_token_id)
    without = torch.tensor([[0, 39, 7, 2]], device=DEVICE)
    assert _as_module(embeddings(config), without, position_offset=2)


def test_empty_batches_give_empty_results() -> None:
    empty = torch.empty(0, 4, dtype=torch.int64, device=DEVICE)
    out = embedding_layer_norm(**_call(input_ids=empty, token_type_ids=empty))
    assert out.shape == (0, 4, 33)


@pytest.mark.parametrize(
    ("change", "error", "seen"),
    [
        ({"input_ids": torch.ones(2, 4)}, errors.DTypeError, "input_ids is torch.float32"),
        ({"input_ids": torch.ones(4).long()}, errors.ShapeError, "input_ids has shape (4,)"),
        ({"position": _random(9, 32)}, errors.ShapeError, "position has shape (9, 32)"),
        ({"weight": _random(32)}, errors.ShapeError, "weight has shape (32,)"),
        ({"token_type": _random(0, 33)}, errors.ShapeError, "has size 0"),
        ({"token_type_ids": torch.ones(2, 3).long()}, errors.ShapeError, "token_type_ids"),
        ({"position_ids": torch.ones(3, 4).long()}, errors.ShapeError, "position_ids has"),
        ({"position_offset": -1}, errors.OptionError, "position_offset=-1"),
        ({"word": torch.ones(2, MAX_HIDDEN + 1)}, errors.ShapeError, "position has shape"),
        ({"word": torch.ones(2, 3, 4)}, errors.ShapeError, "word has shape (2, 3, 4)"),
        ({"eps": -1.0}, errors.OptionError, "eps=-1.0"),
        ({"padding_idx": -1}, errors.OptionError, "padding_idx=-1"),
        ({"padding_idx": 1, "position_offset": 2}, errors.OptionError, "or a position_offset"),
        (
            {"padding_idx": 1, "position_ids": torch.ones(2, 4).long()},
            errors.OptionError,
            "padding_idx with position_ids",
        ),
    ],
)
def test_wrong_arguments(change: dict[str, Any], error: type[errors.KernlError], seen: str) -> None:
    moved = _moved(change)
    with pytest.raises(error) as caught:
        embedding_layer_norm(**_call(**moved))
    assert seen in caught.value.seen
