"""Device time of each operator's shapes, with L2 cold."""

import pytest

from benchmarks.by_pytest.stand import CLOCK, Run, shapes

SUITE = "kernels"
pytestmark = pytest.mark.benchmark(timer=CLOCK)


@shapes("softmax")
def test_benchmark_softmax(run: Run, shape: str, implementation: str) -> None:
    run("softmax", shape, implementation)


@shapes("layer_norm")
def test_benchmark_layer_norm(run: Run, shape: str, implementation: str) -> None:
    run("layer_norm", shape, implementation)


@shapes("rms_norm")
def test_benchmark_rms_norm(run: Run, shape: str, implementation: str) -> None:
    run("rms_norm", shape, implementation)


@shapes("linear")
def test_benchmark_linear(run: Run, shape: str, implementation: str) -> None:
    run("linear", shape, implementation)


@shapes("linear_layer_norm")
def test_benchmark_linear_layer_norm(run: Run, shape: str, implementation: str) -> None:
    run("linear_layer_norm", shape, implementation)


@shapes("linear_add_layer_norm")
def test_benchmark_linear_add_layer_norm(run: Run, shape: str, implementation: str) -> None:
    run("linear_add_layer_norm", shape, implementation)


@shapes("linear_rms_norm")
def test_benchmark_linear_rms_norm(run: Run, shape: str, implementation: str) -> None:
    run("linear_rms_norm", shape, implementation)


@shapes("quantized_linear")
def test_benchmark_quantized_linear(run: Run, shape: str, implementation: str) -> None:
    run("quantized_linear", shape, implementation)


@shapes("fp8_linear")
def test_benchmark_fp8_linear(run: Run, shape: str, implementation: str) -> None:
    run("fp8_linear", shape, implementation)


@shapes("stream_k_matmul")
def test_benchmark_stream_k_matmul(run: Run, shape: str, implementation: str) -> None:
    run("stream_k_matmul", shape, implementation)


@shapes("batched_matmul")
def test_benchmark_batched_matmul(run: Run, shape: str, implementation: str) -> None:
    run("batched_matmul", shape, implementation)


@shapes("attention")
def test_benchmark_attention(run: Run, shape: str, implementation: str) -> None:
    run("attention", shape, implementation)


@shapes("attention_varlen")
def test_benchmark_attention_varlen(run: Run, shape: str, implementation: str) -> None:
    run("attention_varlen", shape, implementation)


@shapes("decode_attention")
def test_benchmark_decode_attention(run: Run, shape: str, implementation: str) -> None:
    run("decode_attention", shape, implementation)


@shapes("swiglu")
def test_benchmark_swiglu(run: Run, shape: str, implementation: str) -> None:
    run("swiglu", shape, implementation)


@shapes("geglu")
def test_benchmark_geglu(run: Run, shape: str, implementation: str) -> None:
    run("geglu", shape, implementation)


@shapes("linear_glu")
def test_benchmark_linear_glu(run: Run, shape: str, implementation: str) -> None:
    run("linear_glu", shape, implementation)


@shapes("rotary")
def test_benchmark_rotary(run: Run, shape: str, implementation: str) -> None:
    run("rotary", shape, implementation)


@shapes("rotary_cache")
def test_benchmark_rotary_cache(run: Run, shape: str, implementation: str) -> None:
    run("rotary_cache", shape, implementation)


@shapes("embedding_layer_norm")
def test_benchmark_embedding_layer_norm(run: Run, shape: str, implementation: str) -> None:
    run("embedding_layer_norm", shape, implementation)


@shapes("clamp_overflow")
def test_benchmark_clamp_overflow(run: Run, shape: str, implementation: str) -> None:
    run("clamp_overflow", shape, implementation)


@shapes("conv1d")
def test_benchmark_conv1d(run: Run, shape: str, implementation: str) -> None:
    run("conv1d", shape, implementation)


@shapes("cross_entropy")
def test_benchmark_cross_entropy(run: Run, shape: str, implementation: str) -> None:
    run("cross_entropy", shape, implementation)


@shapes("argmax_sample")
def test_benchmark_argmax_sample(run: Run, shape: str, implementation: str) -> None:
    run("argmax_sample", shape, implementation)
