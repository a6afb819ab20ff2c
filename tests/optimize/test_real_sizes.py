"""Models of real widths, random weights in half precision, on a GPU.

Every family that is supported, a few layers of it: each output beside the float32 model's. Threads,
streams, several models and GPUs: beside what one thread got by the same graphs, to the bit.
"""

import random
import threading
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

from kernl import optimize_model
from tests.optimize.calls import BY_GRAPH, distance, evaluated, forward_of, twice
from tests.tiny_models import CONFIGURATIONS, tensors_of

pytestmark = pytest.mark.gpu

LAYERS = 3
WORSE = 1.5
"""An error may be so many times that of eager in half precision."""
ROUNDING = 2e-5
"""Both may be right to the last bit of some outputs, such as a first layer's keys."""

# Sizes of published models, where those of transformers' configuration class are others.
SIZES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"max_position_embeddings": 514, "type_vocab_size": 1},
    "camembert": {"vocab_size": 32005, "max_position_embeddings": 514, "type_vocab_size": 1},
    "electra": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    "mpnet": {"max_position_embeddings": 514},
    "xlm-roberta": {"vocab_size": 250002, "max_position_embeddings": 514, "type_vocab_size": 1},
    "distilbert": {},
    "modernbert": {},
    "t5": {"d_model": 768, "d_ff": 3072, "num_heads": 12},
    "bart": {},
    "whisper": {
        "d_model": 512,
        **{f"{part}_attention_heads": 8 for part in ("encoder", "decoder")},
        **{f"{part}_ffn_dim": 2048 for part in ("encoder", "decoder")},
    },
    "vit": {},
    "gpt2": {},
    "llama": {
        "hidden_size": 2048,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 8192,
    },
    "mistral": {"sliding_window": 64},
    "qwen2": {
        "hidden_size": 896,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
    },
    "qwen3": {
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
    },
    "gemma": {
        "hidden_size": 2048,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "intermediate_size": 16384,
    },
    "gemma2": {"sliding_window": 64},
    "gemma3_text": {
        "hidden_size": 1152,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "intermediate_size": 6912,
        "sliding_window": 64,
    },
    "phi": {"hidden_size": 2560, "intermediate_size": 10240, "num_attention_heads": 32},
    "phi3": {},
}
_FEWER: dict[str, dict[str, int]] = {
    "distilbert": {"n_layers": LAYERS},
    "gpt2": {"n_layer": LAYERS},
    "t5": {"num_layers": LAYERS, "num_decoder_layers": LAYERS},
    "bart": {"encoder_layers": LAYERS, "decoder_layers": LAYERS},
    "whisper": {"encoder_layers": LAYERS, "decoder_layers": LAYERS},
}
BATCH, SEQ, SHORTER = 2, 128, 77

SHAPES = ((1, 16), (2, 128), (8, 128))
THREADS, CALLS = 4, 60


def built(kind: str, device: str, whole: bool = False) -> Any:
    """A model in float32; `whole`: with all of its layers."""
    fewer = {} if whole else _FEWER.get(kind, {"num_hidden_layers": LAYERS})
    torch.manual_seed(0)
    build: Any = AutoModel.from_config
    with torch.device(device):
        return evaluated(build(AutoConfig.for_model(kind, **{**SIZES[kind], **fewer})))


def inputs(kind: str, config: Any) -> dict[str, torch.Tensor]:
    """One full sequence and one that is padded."""
    generator = torch.Generator("cuda").manual_seed(1)
    mask = torch.ones(BATCH, SEQ, dtype=torch.int64, device="cuda")
    mask[1, SHORTER:] = 0

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device="cuda")

    def ids() -> torch.Tensor:
        shape = (BATCH, SEQ)
        return torch.randint(5, config.vocab_size, shape, generator=generator, device="cuda")

    if kind == "vit":
        return {"pixel_values": random(BATCH, 3, config.image_size, config.image_size)}
    if kind == "whisper":
        frames = 2 * config.max_source_positions
        features = random(BATCH, config.num_mel_bins, frames)
        return {"input_features": features, "decoder_input_ids": ids()}
    given = {"input_ids": ids(), "attention_mask": mask}
    if kind in ("t5", "bart"):
        given["decoder_input_ids"] = ids()
    return given


def halved(given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: x.half() if x.is_floating_point() else x for name, x in given.items()}


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_every_output_is_as_near_to_float32_as_eagers(kind: str) -> None:
    model = built(kind, "cuda")
    given = inputs(kind, model.config)
    with torch.inference_mode():
        truth = [x.clone() for x in tensors_of(model(**given))]
        model.half()
        eager = [x.clone() for x in tensors_of(model(**halved(given)))]
    outputs = tensors_of(twice(optimize_model(model), **halved(given)))
    assert forward_of(model).calls[BY_GRAPH] == 1, forward_of(model).calls
    assert [(x.shape, x.dtype) for x in outputs] == [(x.shape, x.dtype) for x in eager]
    errors = [
        (distance(x, t), distance(e, t)) for x, e, t in zip(outputs, eager, truth, strict=True)
    ]
    assert [pair for pair in errors if not pair[0] <= WORSE * pair[1] + ROUNDING] == []  # NaN too


def optimized(kind: str, device: str) -> Any:
    return optimize_model(built(kind, device, whole=True).half())


def tokens(shape: tuple[int, int], seed: int, device: str) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randint(5, 30000, shape, generator=generator, device=device)


def run(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        hidden: torch.Tensor = model(input_ids=ids)[0]
    return hidden


def test_threads_on_streams_of_their_own_get_what_one_thread_gets() -> None:
    models = {kind: optimized(kind, "cuda") for kind in ("bert", "gpt2")}
    inputs = [
        (name, tokens(shape, seed, "cuda"))
        for name in models
        for shape in SHAPES
        for seed in range(2)
    ]
    for name, ids in inputs:
        with torch.inference_mode():
            forward_of(models[name]).prepare(input_ids=ids)
    expected = [run(models[name], ids) for name, ids in inputs]
    torch.cuda.synchronize()
    before = {name: forward_of(model).calls[BY_GRAPH] for name, model in models.items()}
    wrong: list[str] = []

    def work(number: int) -> None:
        chance, kept = random.Random(number), []
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(CALLS):
                place = chance.randrange(len(inputs))
                name, ids = inputs[place]
                kept.append((place, run(models[name], ids)))
            torch.cuda.current_stream().synchronize()
            # Compared at the end: what a user holds must not be overwritten by later calls.
            wrong.extend(
                f"{inputs[place][0]} {tuple(inputs[place][1].shape)}"
                for place, out in kept
                if not torch.equal(out, expected[place])
            )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    made = {
        name: forward_of(model).calls[BY_GRAPH] - before[name] for name, model in models.items()
    }
    assert sum(made.values()) == THREADS * CALLS


def test_models_on_two_gpus_take_turns_and_need_not_be_on_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    devices = ["cuda:0", "cuda:1"]
    models = [optimized("bert", device) for device in devices]
    models[1].load_state_dict(models[0].state_dict())
    calls = [
        (model, tokens((2, 128), 0, "cpu").to(device))
        for model, device in zip(models, devices, strict=True)
    ]
    for model, ids in calls:
        with torch.inference_mode():
            forward_of(model).prepare(input_ids=ids)
    for _ in range(10):
        outputs = [run(model, ids) for model, ids in calls]  # cuda:0 is the current one
        assert [out.device for out in outputs] == [torch.device(device) for device in devices]
        assert torch.equal(outputs[0].cpu(), outputs[1].cpu())
    assert all(forward_of(model).calls[BY_GRAPH] >= 10 for model in models)
