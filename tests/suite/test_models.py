"""The models of the suite: sizes of the real ones, inputs that they take, equal weights."""

import re

import pytest
import torch

from benchmarks import asv_file
from benchmarks.measure.selection import class_name
from benchmarks.model import Model, ModelCase
from benchmarks.models import BERT_BASE, IMPLEMENTATIONS, LEFT_OUT, MODELS, ROBERTA_BASE

PARAMETERS = {
    "bert_base": 109.5,
    "roberta_base": 124.6,
    "distilbert": 66.4,
    "modernbert_base": 149.0,
    "t5_base_encoder": 109.6,
    "whisper_base_encoder": 20.6,
    "vit_base": 86.4,
    "gpt2": 124.4,
    "tiny_llama": 1034.5,  # without the head over the vocabulary
    "qwen2": 494.0,
}
"""Millions, as the models' authors count them."""

each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)


@each_model
def test_sizes_are_those_of_the_real_model(model: Model) -> None:
    with torch.device("meta"):
        module = model.make(model.configuration())
    millions = sum(parameter.numel() for parameter in module.parameters()) / 1e6
    assert millions == pytest.approx(PARAMETERS[model.name], abs=0.1)


@each_model
def test_names_are_such_as_asv_and_the_store_take(model: Model) -> None:
    name = f"models.{class_name(model.name)}.track_time"
    found = asv_file._BENCHMARK.fullmatch(name)
    assert found is not None
    assert re.sub(r"(?<!^)(?=[A-Z])", "_", found["op"]).lower() == model.name
    names = [case.name for case in model.cases]
    assert len(set(names)) == len(names)
    assert all(asv_file._CASE.fullmatch(repr(case)) for case in names)
    assert set(model.quick) <= set(model.cases)


def test_implementations_are_named_once_and_known() -> None:
    from benchmarks.measure.model_calls import IMPLEMENTATIONS as BUILT

    assert tuple(BUILT) == IMPLEMENTATIONS
    assert all(asv_file._VARIANT.fullmatch(repr(name)) for name in IMPLEMENTATIONS)
    assert set(LEFT_OUT) < set(IMPLEMENTATIONS)


def test_the_headline_cases_are_there() -> None:
    grid = {(batch, seq) for batch in (1, 8, 32) for seq in (16, 32, 64, 128, 256, 384, 512)}
    for model in (BERT_BASE, ROBERTA_BASE):
        assert {(case.batch, case.seq) for case in model.cases if not case.ragged} == grid
    assert sum(case.ragged for case in BERT_BASE.cases) == 3
    assert ModelCase(8, 128, True).name == "batch8_seq128_ragged.fp16"


@each_model
def test_inputs_fit_vocabulary_and_positions(model: Model) -> None:
    config = model.configuration()
    for case in model.cases:
        given = model.inputs(config, case, torch.Generator().manual_seed(0))
        if "input_ids" not in given:
            assert all(tensor.std() > 0.5 for tensor in given.values())
            continue
        ids, mask = given["input_ids"], given["attention_mask"]
        assert ids.shape == mask.shape == (case.batch, case.seq)
        real = ids[mask.bool()]
        assert int(real.min()) >= 3
        assert int(real.max()) < config.vocab_size
        positions = getattr(config, "max_position_embeddings", None) or 10**6
        taken = 2 if model.kind == "roberta" else 0  # its positions begin behind the padding's
        assert case.seq + taken <= positions
        assert bool(mask.all()) != case.ragged


def test_ragged_lengths_lie_between_a_quarter_and_all_and_are_seeded() -> None:
    case = ModelCase(32, 128, ragged=True)
    first, again, other = BERT_BASE.samples(case, [1, 1, 2], "cpu")
    mask = first.half["attention_mask"]
    lengths = mask.sum(1)
    assert int(lengths.min()) >= 32
    assert int(lengths.max()) <= 128
    assert len(set(lengths.tolist())) > 10
    assert torch.equal(mask, (torch.arange(128) < lengths[:, None]).long())
    assert first.valid is not None
    assert torch.equal(first.valid, mask.bool())
    assert torch.equal(first.half["input_ids"], again.half["input_ids"])
    assert not torch.equal(first.half["input_ids"], other.half["input_ids"])
    assert not torch.equal(mask, other.half["attention_mask"])


def test_dense_cases_count_every_place() -> None:
    (sample,) = BERT_BASE.samples(ModelCase(2, 16), [0], "cpu")
    assert sample.valid is None
    assert bool(sample.half["attention_mask"].all())


@each_model
def test_a_dry_model_takes_its_dry_inputs_and_is_the_same_each_time(model: Model) -> None:
    case = model.case_of(model.cases[-1].dims, dry=True)
    (sample,) = model.samples(case, [3], "cpu", dry=True)
    before = torch.random.get_rng_state()
    first, second = model.build(dry=True), model.build(dry=True)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not first.training
    with torch.inference_mode():
        out, again = first(**sample.full)[0], second(**sample.full)[0]
    assert out.dtype == torch.float32
    assert out.shape[0] == case.batch
    assert torch.equal(out, again)
    flat = [name for name, p in first.named_parameters() if p.dim() == 1 and p.std() == 0]
    assert flat == []


def test_features_have_equal_values_in_both_precisions() -> None:
    whisper = next(model for model in MODELS if model.kind == "whisper")
    (sample,) = whisper.samples(ModelCase(1, 60), [0], "cpu", dry=True)
    half, full = sample.half["input_features"], sample.full["input_features"]
    assert (half.dtype, full.dtype) == (torch.float16, torch.float32)
    assert torch.equal(half.float(), full)
