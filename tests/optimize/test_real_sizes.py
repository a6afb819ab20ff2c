"""Models of real size, random weights in half precision: threads, streams, several models and GPUs.

Everything is compared with what one thread got by the same graphs, to the bit.
"""

import random
import threading
from typing import Any

import pytest
import torch
from transformers import AutoModel, BertConfig, GPT2Config

from kernl import optimize_model
from tests.optimize.calls import BY_GRAPH, evaluated, forward_of

pytestmark = pytest.mark.gpu

CONFIGS: dict[str, Any] = {"bert": BertConfig(), "gpt2": GPT2Config(use_cache=False)}
SHAPES = ((1, 16), (2, 128), (8, 128))
THREADS, CALLS = 4, 60


def optimized(name: str, device: str) -> Any:
    build: Any = AutoModel.from_config
    model: Any = evaluated(build(CONFIGS[name])).half().to(device)
    return optimize_model(model)


def tokens(shape: tuple[int, int], seed: int, device: str) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randint(5, 30000, shape, generator=generator, device=device)


def run(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        hidden: torch.Tensor = model(input_ids=ids)[0]
    return hidden


def test_threads_on_streams_of_their_own_get_what_one_thread_gets() -> None:
    models = {name: optimized(name, "cuda") for name in CONFIGS}
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
