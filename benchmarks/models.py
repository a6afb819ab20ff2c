"""The models of the suite, their sizes and their shapes: the only place that names them.

Sizes are those of the models' own configuration files; what is a default of the configuration class
is left out.
"""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.model import (
    Model,
    ModelCase,
    picture,
    sound,
    t5_encoder,
    text,
    whisper_encoder,
    whole,
)

IMPLEMENTATIONS = (
    "eager",
    "autocast",
    "cudagraph",
    "compile",
    "compile_reduce_overhead",
    "compile_max_autotune",
    "compile_cudagraph",
    "kernl_graphs_only",
    "kernl_rewrite_only",
    "kernl",
)
"""What each case is measured in: `benchmarks.measure.model_calls` says what they are."""
LEFT_OUT = ("compile_max_autotune",)
"""Measured where KERNL_IMPLEMENTATIONS names it: it times all candidates of every product first,
minutes a case."""
QUICK_LEFT_OUT = (
    "autocast",
    "cudagraph",
    "compile",
    "compile_reduce_overhead",
    "kernl_graphs_only",
    "kernl_rewrite_only",
)
"""What the quick profile does not measure either: it has eager, kernl, and the one to beat."""


def _grid(batches: Iterable[int], seqs: Iterable[int]) -> tuple[ModelCase, ...]:
    lengths = tuple(seqs)
    return tuple(ModelCase(batch, seq) for batch in batches for seq in lengths)


_TINY_ENCODER = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 200,
}
_TINY_DECODER = {**_TINY_ENCODER, "num_key_value_heads": 2, "head_dim": 16}
_LIKE_BERT = ("attention", "embedding_layer_norm", "linear", "linear_layer_norm")
_LIKE_LLAMA = ("attention", "linear", "linear_glu", "linear_rms_norm", "rms_norm", "rotary")
_BATCHES = (1, 8, 32)
_SEQS = (16, 32, 64, 128, 256, 384, 512)

BERT_BASE = Model(
    name="bert_base",
    kind="bert",
    sizes={},
    tiny=_TINY_ENCODER,
    cases=(
        *_grid(_BATCHES, _SEQS),
        *(ModelCase(batch, seq, True) for batch, seq in ((8, 128), (32, 128), (32, 512))),
    ),
    make=whole,
    inputs=text,
    operators=_LIKE_BERT,
    quick=(
        ModelCase(1, 128),
        ModelCase(8, 128),
        ModelCase(32, 512, True),
    ),
)
ROBERTA_BASE = Model(
    name="roberta_base",
    kind="roberta",
    sizes={"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    tiny=_TINY_ENCODER,
    cases=_grid(_BATCHES, _SEQS),
    make=whole,
    inputs=text,
    operators=_LIKE_BERT,
)
DISTILBERT = Model(
    name="distilbert",
    kind="distilbert",
    sizes={},
    tiny={"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "vocab_size": 200},
    cases=_grid((1, 8), (128,)),
    make=whole,
    inputs=text,
    operators=_LIKE_BERT,
)
MODERNBERT_BASE = Model(
    name="modernbert_base",
    kind="modernbert",
    sizes={},
    tiny={
        **_TINY_ENCODER,
        "num_hidden_layers": 4,
        "local_attention": 8,
        **{f"{mark}_token_id": 0 for mark in ("pad", "bos", "eos", "cls", "sep")},
    },
    cases=(ModelCase(1, 128), ModelCase(8, 512)),
    make=whole,
    inputs=text,
    operators=(
        "attention",
        "layer_norm",
        "linear",
        "linear_glu",
        "rotary",
    ),
)
T5_BASE_ENCODER = Model(
    name="t5_base_encoder",
    kind="t5",
    sizes={"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
    tiny={
        "d_model": 64,
        "d_kv": 16,
        "d_ff": 128,
        "num_layers": 2,
        "num_heads": 4,
        "vocab_size": 200,
    },
    cases=(ModelCase(1, 128), ModelCase(8, 256)),
    make=t5_encoder,
    inputs=text,
    operators=(
        "attention",
        "linear",
        "linear_rms_norm",
        "rms_norm",
    ),
    quick=(ModelCase(8, 256),),
)
WHISPER_BASE_ENCODER = Model(
    name="whisper_base_encoder",
    kind="whisper",
    sizes={
        "d_model": 512,
        **{f"{part}_layers": 6 for part in ("encoder", "decoder")},
        **{f"{part}_attention_heads": 8 for part in ("encoder", "decoder")},
        **{f"{part}_ffn_dim": 2048 for part in ("encoder", "decoder")},
    },
    tiny={
        "d_model": 64,
        "num_mel_bins": 16,
        "max_source_positions": 30,
        **{f"{part}_layers": 2 for part in ("encoder", "decoder")},
        **{f"{part}_attention_heads": 4 for part in ("encoder", "decoder")},
        **{f"{part}_ffn_dim": 128 for part in ("encoder", "decoder")},
    },
    cases=(ModelCase(1, 3000),),
    make=whisper_encoder,
    inputs=sound,
    operators=(
        "attention",
        "conv1d",
        "layer_norm",
        "linear",
        "linear_add_layer_norm",
        "linear_layer_norm",
    ),
    quick=(ModelCase(1, 3000),),
    dry_seq=60,
)
VIT_BASE = Model(
    name="vit_base",
    kind="vit",
    sizes={},
    tiny={
        **{name: size for name, size in _TINY_ENCODER.items() if name != "vocab_size"},
        "image_size": 32,
        "patch_size": 8,
    },
    cases=(ModelCase(1, 196),),
    make=whole,
    inputs=picture,
    operators=(
        "attention",
        "layer_norm",
        "linear",
        "linear_add_layer_norm",
        "linear_layer_norm",
    ),
    dry_seq=16,
)
GPT2 = Model(
    name="gpt2",
    kind="gpt2",
    sizes={"use_cache": False},
    tiny={"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 200},
    cases=(ModelCase(1, 128),),
    make=whole,
    inputs=text,
    operators=(
        "attention",
        "layer_norm",
        "linear",
        "linear_add_layer_norm",
        "linear_layer_norm",
    ),
)
TINY_LLAMA = Model(
    name="tiny_llama",
    kind="llama",
    sizes={
        "hidden_size": 2048,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "intermediate_size": 5632,
        "vocab_size": 32000,
        "use_cache": False,
    },
    tiny=_TINY_DECODER,
    cases=_grid((1,), (128, 512)),
    make=whole,
    inputs=text,
    operators=_LIKE_LLAMA,
    quick=(ModelCase(1, 128),),
)
QWEN2 = Model(
    name="qwen2",
    kind="qwen2",
    sizes={
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "vocab_size": 151936,
        "use_cache": False,
    },
    tiny=_TINY_DECODER,
    cases=(ModelCase(1, 128),),
    make=whole,
    inputs=text,
    operators=_LIKE_LLAMA,
)

MODELS: tuple[Model, ...] = (
    BERT_BASE,
    ROBERTA_BASE,
    DISTILBERT,
    MODERNBERT_BASE,
    T5_BASE_ENCODER,
    WHISPER_BASE_ENCODER,
    VIT_BASE,
    GPT2,
    TINY_LLAMA,
    QWEN2,
)
