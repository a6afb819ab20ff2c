"""Wall clock of one call of each model's shapes."""

import pytest

from benchmarks.by_pytest.stand import CLOCK, Run, shapes

SUITE = "models"
pytestmark = pytest.mark.benchmark(timer=CLOCK)


@shapes("bert_base")
def test_benchmark_bert_base(run: Run, shape: str, implementation: str) -> None:
    run("bert_base", shape, implementation)


@shapes("roberta_base")
def test_benchmark_roberta_base(run: Run, shape: str, implementation: str) -> None:
    run("roberta_base", shape, implementation)


@shapes("distilbert")
def test_benchmark_distilbert(run: Run, shape: str, implementation: str) -> None:
    run("distilbert", shape, implementation)


@shapes("modernbert_base")
def test_benchmark_modernbert_base(run: Run, shape: str, implementation: str) -> None:
    run("modernbert_base", shape, implementation)


@shapes("t5_base_encoder")
def test_benchmark_t5_base_encoder(run: Run, shape: str, implementation: str) -> None:
    run("t5_base_encoder", shape, implementation)


@shapes("whisper_base_encoder")
def test_benchmark_whisper_base_encoder(run: Run, shape: str, implementation: str) -> None:
    run("whisper_base_encoder", shape, implementation)


@shapes("vit_base")
def test_benchmark_vit_base(run: Run, shape: str, implementation: str) -> None:
    run("vit_base", shape, implementation)


@shapes("gpt2")
def test_benchmark_gpt2(run: Run, shape: str, implementation: str) -> None:
    run("gpt2", shape, implementation)


@shapes("tiny_llama")
def test_benchmark_tiny_llama(run: Run, shape: str, implementation: str) -> None:
    run("tiny_llama", shape, implementation)


@shapes("qwen2")
def test_benchmark_qwen2(run: Run, shape: str, implementation: str) -> None:
    run("qwen2", shape, implementation)
