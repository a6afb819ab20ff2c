"""Each row of `kernl.shapes` against the configuration class of transformers."""

from typing import Any

import pytest
import transformers

from kernl import shapes
from kernl.shapes import ModelShape
from tests.tiny_models import tiny


def bert(hidden: int, heads: int, inner: int) -> Any:
    return transformers.BertConfig(
        hidden_size=hidden, num_attention_heads=heads, intermediate_size=inner
    )


def t5(hidden: int, heads: int, inner: int) -> Any:
    return transformers.T5Config(d_model=hidden, num_heads=heads, d_ff=inner)


def whisper(hidden: int, heads: int, **more: Any) -> Any:
    inner = 4 * hidden
    return transformers.WhisperConfig(
        d_model=hidden, encoder_attention_heads=heads, encoder_ffn_dim=inner, **more
    )


def llama(hidden: int, heads: int, inner: int, vocabulary: int, kv_heads: int) -> Any:
    return transformers.LlamaConfig(
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=inner,
        vocab_size=vocabulary,
        num_key_value_heads=kv_heads,
    )


def qwen2_small() -> Any:
    return transformers.Qwen2Config(
        hidden_size=896, num_attention_heads=14, num_key_value_heads=2, intermediate_size=4864
    )


# A model that is the default of its class is compared with that; others with what their own
# configuration sets.
CONFIGS: dict[str, Any] = {
    "bert-base-uncased": transformers.BertConfig(),
    "bert-large-uncased": bert(1024, 16, 4096),
    "all-MiniLM-L6-v2": bert(384, 12, 1536),
    "roberta-base": transformers.RobertaConfig(),
    "distilbert-base-uncased": transformers.DistilBertConfig(),
    "gpt2": transformers.GPT2Config(),
    "t5-small": transformers.T5Config(),
    "t5-base": t5(768, 12, 3072),
    "t5-large": t5(1024, 16, 4096),
    "whisper-tiny": transformers.WhisperConfig(),
    "whisper-base": whisper(512, 8),
    "whisper-small": whisper(768, 12),
    "whisper-medium": whisper(1024, 16),
    "whisper-large-v3": whisper(1280, 20, vocab_size=51866, num_mel_bins=128),
    "TinyLlama-1.1B": llama(2048, 32, 5632, 32000, 4),
    "Llama-3.2-1B": llama(2048, 32, 8192, 128256, 8),
    "Llama-2-7b-hf": transformers.LlamaConfig(),
    "Meta-Llama-3-8B": llama(4096, 32, 14336, 128256, 8),
    "Mistral-7B-v0.1": transformers.MistralConfig(),
    "Qwen2-0.5B": qwen2_small(),
    "gemma-2-2b": transformers.Gemma2Config(),
}
ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}


def first_of(config: Any, *names: str, default: Any = None) -> Any:
    """The first of these that the configuration has: each class has names of its own."""
    found = [getattr(config, name, None) for name in names]
    return next((value for value in found if value is not None), default)


@pytest.mark.parametrize("model", shapes.MODELS, ids=lambda model: model.name)
def test_sizes_are_those_of_the_configuration(model: ModelShape) -> None:
    config = CONFIGS[model.name]
    heads = first_of(config, "encoder_attention_heads", "num_attention_heads")
    activation = first_of(
        config, "hidden_activation", "activation_function", "activation", "dense_act_fn"
    )
    activation = activation or config.hidden_act
    inner = first_of(config, "d_ff", "encoder_ffn_dim", "hidden_dim", "intermediate_size")
    kv_heads = heads if model.frames else first_of(config, "num_key_value_heads", default=heads)
    assert (model.hidden, model.heads, model.vocabulary) == (
        config.hidden_size,
        heads,
        config.vocab_size,
    )
    assert model.activation == ACTIVATIONS.get(activation, activation)
    assert model.intermediate == (inner or 4 * config.hidden_size)
    assert model.kv_heads == kv_heads
    head_dim = first_of(config, "d_kv", "head_dim", default=config.hidden_size // heads)
    assert model.head_dim == head_dim


def test_names_are_unique_and_each_is_compared() -> None:
    names = [model.name for model in shapes.MODELS]
    assert len(names) == len(set(names))
    assert set(names) == set(CONFIGS)


def test_gpt2_keeps_its_weights_transposed() -> None:
    inner = tiny("gpt2").get_parameter("h.0.mlp.c_fc.weight")
    assert shapes.GPT2.transposed == (inner.shape[0] < inner.shape[1])


@pytest.mark.parametrize("model", [m for m in shapes.MODELS if m.frames], ids=lambda m: m.name)
def test_whisper_hears_as_many_frames_as_its_class(model: ModelShape) -> None:
    config = CONFIGS[model.name]
    assert (model.frames, model.mel_bins) == (config.max_source_positions, config.num_mel_bins)
    assert shapes.Workload(1, 1500) in shapes.workloads(model)


def test_a_model_like_another_is_measured_with_few_calls() -> None:
    assert shapes.workloads(shapes.BERT_BASE) == shapes.WORKLOADS
    assert shapes.workloads(shapes.T5_LARGE) == shapes.FEW_WORKLOADS
    assert set(shapes.FEW_WORKLOADS) < set(shapes.WORKLOADS)
    assert shapes.workloads(shapes.WHISPER_LARGE) == (shapes.Workload(1, 1500),)


def test_workloads_count_tokens() -> None:
    assert shapes.Workload(8, 128).tokens == 1024
