"""Every supported family at a size that the interpreter runs in seconds, with random weights."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModel

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
VOCABULARY = 200
BATCH, SEQ = 2, 17

_COMMON = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_ENCODER = dict(_COMMON)
_DECODER = {**_COMMON, "num_key_value_heads": 2, "head_dim": 16}
_SEQ2SEQ = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "vocab_size": VOCABULARY,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "bert": _ENCODER,
    "roberta": _ENCODER,
    "camembert": _ENCODER,
    "electra": _ENCODER,
    "mpnet": _ENCODER,
    "xlm-roberta": _ENCODER,
    "distilbert": {
        "dim": 64,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 128,
        "vocab_size": VOCABULARY,
    },
    "modernbert": {
        **_ENCODER,
        "num_hidden_layers": 4,
        "local_attention": 8,
        "cls_token_id": 0,
        "sep_token_id": 2,
    },
    "t5": {
        "d_model": 64,
        "d_kv": 16,
        "d_ff": 128,
        "num_layers": 2,
        "num_heads": 4,
        "vocab_size": VOCABULARY,
    },
    "bart": _SEQ2SEQ,
    "whisper": {
        **_SEQ2SEQ,
        "num_mel_bins": 16,
        "max_source_positions": 30,
        "decoder_start_token_id": 3,
    },
    "vit": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "image_size": 32,
        "patch_size": 8,
    },
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": VOCABULARY},
    "llama": _DECODER,
    "mistral": {**_DECODER, "sliding_window": 8},
    "qwen2": _DECODER,
    "qwen3": _DECODER,
    "gemma": _DECODER,
    "gemma2": {**_DECODER, "sliding_window": 8},
    "gemma3_text": {**_DECODER, "sliding_window": 8},
    "phi": _DECODER,
    "phi3": _DECODER,
}


def tiny(kind: str, dtype: torch.dtype = torch.float32, **options: Any) -> torch.nn.Module:
    """A model of this family in eval mode; biases and norms are random too, so that all count."""
    torch.manual_seed(0)
    configuration = AutoConfig.for_model(kind, **CONFIGURATIONS[kind])
    build: Any = AutoModel.from_config
    model: Any = build(configuration, **options)
    for name, parameter in model.named_parameters():
        if "bias" in name or parameter.dim() == 1:
            parameter.data += 0.3 * torch.randn_like(parameter)
    changed: torch.nn.Module = model.to(DEVICE, dtype).eval()
    return changed


def inputs(kind: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, torch.Tensor]:
    """What its forward takes: one full sequence and one that is padded."""
    with torch.device("cpu"):
        made = _inputs(kind, dtype, seed)
    return {name: tensor.to(DEVICE) for name, tensor in made.items()}


def _inputs(kind: str, dtype: torch.dtype, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def ids() -> torch.Tensor:
        return torch.randint(3, VOCABULARY, (BATCH, SEQ), generator=generator)

    mask = torch.ones(BATCH, SEQ, dtype=torch.int64)
    mask[1, 11:] = 0
    if kind == "vit":
        return {"pixel_values": torch.randn(BATCH, 3, 32, 32, generator=generator).to(dtype)}
    if kind == "whisper":
        features = torch.randn(BATCH, 16, 60, generator=generator).to(dtype)
        return {"input_features": features, "decoder_input_ids": ids()}
    given = {"input_ids": ids(), "attention_mask": mask}
    if kind in ("t5", "bart"):
        given["decoder_input_ids"] = ids()
    return given


def tensors_of(outputs: Any) -> list[torch.Tensor]:
    """Every tensor in what a model returns, caches included, in order."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if isinstance(outputs, tuple | list):
        return [tensor for part in outputs for tensor in tensors_of(part)]
    caches = ("self_attention_cache", "cross_attention_cache")
    if all(hasattr(outputs, name) for name in caches):
        return tensors_of([getattr(outputs, name) for name in caches])
    if hasattr(outputs, "layers"):
        return tensors_of([(layer.keys, layer.values) for layer in outputs.layers])
    assert outputs is None or isinstance(outputs, int | float | str), type(outputs)
    return []


class Flat(torch.nn.Module):
    """A model as a function of tensors in a row, returning tensors in a row."""

    def __init__(self, model: torch.nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        return tensors_of(self.model(**dict(zip(self.names, tensors, strict=True))))
