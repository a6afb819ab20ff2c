"""Each row of `kernl.shapes` against the configuration class of transformers."""

import transformers

from kernl import shapes
from tests.tiny_models import tiny


def test_names_are_unique() -> None:
    names = [model.name for model in shapes.MODELS]
    assert len(names) == len(set(names))
    assert all(model.hidden % model.heads == 0 for model in shapes.MODELS)


def test_bert_base_is_the_default_of_its_class() -> None:
    config = transformers.BertConfig()
    bert = shapes.BERT_BASE
    assert (bert.hidden, bert.heads, bert.intermediate, bert.vocabulary, bert.activation) == (
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
        config.vocab_size,
        config.hidden_act,
    )
    assert bert.head_dim == 64


def test_gpt2_is_the_default_of_its_class() -> None:
    config = transformers.GPT2Config()
    assert config.activation_function == "gelu_new"  # the tanh form
    gpt2 = shapes.GPT2
    assert (gpt2.hidden, gpt2.heads, gpt2.vocabulary) == (
        config.n_embd,
        config.n_head,
        config.vocab_size,
    )
    inner = tiny("gpt2").get_parameter("h.0.mlp.c_fc.weight")
    assert gpt2.transposed == (inner.shape[0] < inner.shape[1])
    assert config.n_inner is None
    assert gpt2.intermediate == 4 * gpt2.hidden


def test_t5_small_is_the_default_of_its_class() -> None:
    config = transformers.T5Config()
    t5 = shapes.T5_SMALL
    assert (t5.hidden, t5.heads, t5.intermediate, t5.vocabulary, t5.activation) == (
        config.d_model,
        config.num_heads,
        config.d_ff,
        config.vocab_size,
        config.dense_act_fn,
    )
    assert t5.head_dim == config.d_kv


def test_whisper_hears_as_many_frames_as_its_class() -> None:
    whisper = shapes.WHISPER_BASE
    assert whisper.frames == transformers.WhisperConfig().max_source_positions
    assert whisper.mel_bins == transformers.WhisperConfig().num_mel_bins
    assert shapes.Workload(1, 1500) in shapes.workloads(whisper)
    assert shapes.workloads(shapes.BERT_BASE) == shapes.WORKLOADS


def test_workloads_count_tokens() -> None:
    assert shapes.Workload(8, 128).tokens == 1024
