"""More than 2^31 elements: whatever a kernel counts in 32 bits would reach the wrong memory.

What lies behind the 2^31st element is compared with float64, so the operands are one and a bit.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from kernl import ops, tuning
from kernl.op import Op
from kernl.ops import ALL, quantize_fp8
from kernl.ops.linear_glu_config import LINEAR_GLU_TUNABLE, GluConfig

BY_NAME = {op.name: op for op in ALL}
ROWS, COLS = 2**16 + 1, 2**15 + 1
TOKENS, WIDTH = 2**21 + 1, 2**10
LAST = slice(-3, None)
Outcome = tuple[torch.Tensor, torch.Tensor]
"""What the kernel gives at the end of its memory, and the same in float64."""


def random(*shape: int) -> torch.Tensor:
    generator = torch.Generator("cuda").manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, device="cuda", dtype=torch.float16)


def _rowwise(op: Op, *others: torch.Tensor) -> Outcome:
    x = random(ROWS, COLS)
    out = op.kernel(x, *others)
    assert isinstance(out, torch.Tensor)
    truth = op.reference(x[LAST].double(), *(other.double() for other in others))
    assert isinstance(truth, torch.Tensor)
    return out[LAST], truth


def _gated() -> Outcome:
    gate, up = random(ROWS, COLS), random(ROWS, COLS)
    out = ops.swiglu(gate, up)[LAST]
    return out, torch.nn.functional.silu(gate[LAST].double()) * up[LAST].double()


def _geglu() -> Outcome:
    packed = random(ROWS, 2 * COLS)
    gate, up = packed[LAST].double().chunk(2, dim=-1)
    return ops.geglu(packed)[LAST], torch.nn.functional.gelu(gate) * up


def _linear_of_many_rows() -> Outcome:
    x, weight = random(TOKENS, WIDTH), random(17, WIDTH)
    return ops.linear(x, weight)[LAST], x[LAST].double() @ weight.double().t()


def _linear_with_a_wide_result() -> Outcome:
    x, weight = random(ROWS, 16), random(COLS, 16)
    return ops.linear(x, weight)[LAST], x[LAST].double() @ weight.double().t()


def _linear_of_one_row() -> Outcome:
    x, weight = random(1, WIDTH), random(TOKENS, WIDTH)
    return ops.linear(x, weight)[:, LAST], x.double() @ weight[LAST].double().t()


def _linear_layer_norm() -> Outcome:
    x, weight, residual = random(TOKENS, WIDTH), random(32, WIDTH), random(TOKENS, 32)
    norm = random(32)
    out = ops.linear_layer_norm(x, weight, None, residual, norm)[LAST]
    summed = x[LAST].double() @ weight.double().t() + residual[LAST].double()
    return out, torch.nn.functional.layer_norm(summed, (32,), norm.double())


def _linear_rms_norm() -> Outcome:
    x, weight, residual = random(TOKENS, WIDTH), random(32, WIDTH), random(TOKENS, 32)
    norm = random(32)
    out = ops.linear_rms_norm(x, weight, None, residual, norm)[0][LAST]
    summed = x[LAST].double() @ weight.double().t() + residual[LAST].double()
    return out, torch.nn.functional.rms_norm(summed, (32,), norm.double(), 1e-6)


def _linear_add_layer_norm() -> Outcome:
    x, weight, residual = random(TOKENS, WIDTH), random(32, WIDTH), random(TOKENS, 32)
    norm = random(32)
    out, kept = ops.linear_add_layer_norm(x, weight, None, residual, norm)
    summed = x[LAST].double() @ weight.double().t() + residual[LAST].double()
    normed = torch.nn.functional.layer_norm(summed, (32,), norm.double())
    return torch.cat([out[LAST], kept[LAST]]), torch.cat([normed, summed])


def _linear_glu() -> Outcome:
    x, weight = random(TOKENS, WIDTH), random(64, WIDTH) / 32
    gate, up = (x[LAST].double() @ weight.double().t()).chunk(2, dim=-1)
    return ops.linear_glu(x, weight)[LAST], torch.nn.functional.silu(gate) * up


def _linear_glu_with_a_wide_result() -> Outcome:
    x, weight = random(ROWS, 16), random(2 * COLS, 16)
    with tuning.forcing(LINEAR_GLU_TUNABLE, GluConfig("fused", 64, 64, 16, 4, 3)):
        out = ops.linear_glu(x, weight)[LAST]
    gate, up = (x[LAST].double() @ weight.double().t()).chunk(2, dim=-1)
    return out, torch.nn.functional.silu(gate) * up


def _linear_glu_of_one_row() -> Outcome:
    x, weight = random(1, WIDTH), random(2 * TOKENS, WIDTH) / 32
    with tuning.forcing(LINEAR_GLU_TUNABLE, GluConfig("fused", 16, 64, 64, 4, 3)):
        out = ops.linear_glu(x, weight)[:, LAST]
    gate, up = (
        x.double() @ weight[half].double().t() for half in (slice(TOKENS - 3, TOKENS), LAST)
    )
    return out, torch.nn.functional.silu(gate) * up


def _stream_k_matmul() -> Outcome:
    a, b = random(ROWS, 64), random(64, COLS)
    return ops.stream_k_matmul(a, b)[LAST], a[LAST].double() @ b.double()


def _batched_matmul() -> Outcome:
    a, b = random(2**15 + 1, 256, 256), random(256, 16)
    return ops.batched_matmul(a, b)[LAST], a[LAST].double() @ b.double()


def _quantized_linear() -> Outcome:
    # Made row by row in parts: in float32 the whole weight would not fit beside itself.
    x, scale = random(1, WIDTH), random(TOKENS, 1).abs() + 0.1
    generator = torch.Generator("cuda").manual_seed(0)
    shape = (TOKENS, WIDTH)
    weight = torch.randint(-127, 128, shape, generator=generator, device="cuda", dtype=torch.int8)
    truth = x.double() @ (weight[LAST].double() * scale[LAST].double()).t()
    return ops.quantized_linear(x, weight, scale)[:, LAST], truth


def _fp8_linear() -> Outcome:
    x, scale = random(16, WIDTH), torch.rand(TOKENS, device="cuda")
    weight = random(TOKENS, WIDTH).to(torch.float8_e4m3fn)
    x8, x_scale = quantize_fp8(x)
    truth = (x8.double() @ weight[LAST].double().t()) * x_scale[:, None].double()
    return ops.fp8_linear(x, weight, scale)[:, LAST], truth * scale[LAST].double()


def _attention() -> Outcome:
    q, k, v = (random(2**12 + 1, 8, 1024, 64) for _ in range(3))
    out = ops.attention(q, k, v, causal=True)[LAST]
    return out, BY_NAME["attention"].reference(  # type: ignore[return-value]
        q[LAST].double(), k[LAST].double(), v[LAST].double(), causal=True
    )


def _attention_varlen() -> Outcome:
    sequences, length = 2**12 + 1, 1024
    q, k, v = (random(sequences * length, 8, 64) for _ in range(3))
    starts = torch.arange(sequences + 1, device="cuda") * length
    out = ops.attention_varlen(q, k, v, starts, length)[-length:]
    heads_first = (x[-length:].double().transpose(0, 1)[None] for x in (q, k, v))
    truth = BY_NAME["attention"].reference(*heads_first)
    assert isinstance(truth, torch.Tensor)
    return out, truth[0].transpose(0, 1)


def _decode_attention() -> Outcome:
    q, window = random(1, 8, 1, 128), 100
    k, v = (random(1, 8, TOKENS, 128) for _ in range(2))
    out = ops.decode_attention(q, k, v, window=window)
    seen = (x[:, :, -window:].double() for x in (k, v))
    return out, BY_NAME["attention"].reference(q.double(), *seen)  # type: ignore[return-value]


def _rotary() -> Outcome:
    q, k = random(2**12 + 1, 8, 1024, 64), random(2**12 + 1, 1, 1024, 64)
    cos, sin = random(1, 1024, 64), random(1, 1024, 64)
    out = ops.rotary(q, k, cos, sin)[0][LAST]
    doubled = (x.double() for x in (q[LAST], k[LAST], cos, sin))
    return out, BY_NAME["rotary"].reference(*doubled)[0]


def _rotary_cache() -> Outcome:
    q, k, v = random(1, 8, 3, 128), random(1, 8, 3, 128), random(1, 8, 3, 128)
    k_cache, v_cache = random(1, 8, TOKENS, 128), random(1, 8, TOKENS, 128)
    cos, sin = random(1, 3, 128), random(1, 3, 128)
    slots = torch.arange(TOKENS - 3, TOKENS, device="cuda")
    ops.rotary_cache(q, k, v, cos, sin, k_cache, v_cache, slots)
    doubled = (x.double() for x in (q, k, cos, sin))
    truth = BY_NAME["rotary"].reference(*doubled)[1]
    written = torch.cat([k_cache[:, :, LAST], v_cache[:, :, LAST]])
    return written, torch.cat([truth, v.double()])


def _embedding_layer_norm() -> Outcome:
    word, position = random(2**25 + 1, 64), random(8, 64)
    weight, bias = random(64), random(64)
    ids = torch.arange(2**25 - 7, 2**25 + 1, device="cuda")[None]
    out = ops.embedding_layer_norm(word, position, weight, bias, ids)
    summed = word[ids].double() + position.double()
    wide = (weight.double(), bias.double(), 1e-12)
    return out, torch.nn.functional.layer_norm(summed, (64,), *wide)


def _conv1d() -> Outcome:
    """Of one long sequence."""
    x, weight = random(1, 1, 2**31 + 9), random(1, 1, 3)
    out = ops.conv1d(x, weight, padding=1)[..., LAST]
    end = torch.nn.functional.conv1d(x[..., -4:].double(), weight.double(), padding=1)
    return out, end[..., LAST]


def _clamp_overflow() -> Outcome:
    x = random(ROWS, COLS)
    x[0, 0] = float("inf")
    out = ops.clamp_overflow(x, 2.0, 0.5)[LAST]
    return out, x[LAST].double().clamp(-0.5, 0.5)


def _cross_entropy() -> Outcome:
    logits, targets = random(ROWS, COLS), torch.arange(ROWS, device="cuda") % COLS
    out = ops.cross_entropy(logits, targets)[LAST]
    truth = torch.nn.functional.cross_entropy(
        logits[LAST].double(), targets[LAST], reduction="none"
    )
    return out, truth


def _argmax_sample() -> Outcome:
    logits = random(ROWS, COLS)
    logits[-1, -1], logits[-2, 5] = 30.0, 30.0
    greedy = ops.argmax_sample(logits)[LAST]
    uniform = torch.rand(ROWS, device="cuda")
    sampled = ops.argmax_sample(logits, uniform, top_k=1)[LAST]
    assert torch.equal(greedy, sampled)
    return greedy.double(), logits[LAST].double().argmax(-1).double()


CALLS: dict[str, Callable[[], Outcome]] = {
    "softmax": lambda: _rowwise(BY_NAME["softmax"]),
    "layer_norm": lambda: _rowwise(BY_NAME["layer_norm"], random(COLS), random(COLS)),
    "rms_norm": lambda: _rowwise(BY_NAME["rms_norm"], random(COLS)),
    "linear": _linear_of_many_rows,
    "linear, wide result": _linear_with_a_wide_result,
    "linear, one row": _linear_of_one_row,
    "linear_glu": _linear_glu,
    "linear_glu, wide result": _linear_glu_with_a_wide_result,
    "linear_glu, one row": _linear_glu_of_one_row,
    "linear_layer_norm": _linear_layer_norm,
    "linear_add_layer_norm": _linear_add_layer_norm,
    "linear_rms_norm": _linear_rms_norm,
    "quantized_linear": _quantized_linear,
    "fp8_linear": _fp8_linear,
    "stream_k_matmul": _stream_k_matmul,
    "batched_matmul": _batched_matmul,
    "attention": _attention,
    "attention_varlen": _attention_varlen,
    "decode_attention": _decode_attention,
    "swiglu": _gated,
    "geglu": _geglu,
    "rotary": _rotary,
    "rotary_cache": _rotary_cache,
    "embedding_layer_norm": _embedding_layer_norm,
    "clamp_overflow": _clamp_overflow,
    "conv1d": _conv1d,
    "cross_entropy": _cross_entropy,
    "argmax_sample": _argmax_sample,
}


@pytest.fixture
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One such test at a time, however many workers there are; skip where the GPU is too small."""
    base = tmp_path_factory.getbasetemp()
    # Each worker's folder lies in one of the whole run.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (shared / "large.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        torch.cuda.empty_cache()
        free: Any = torch.cuda.mem_get_info()[0]
        if free < 40 << 30:
            pytest.skip(f"needs 40 GiB of GPU memory, {free >> 30} are free")
        yield
        torch.cuda.empty_cache()


@pytest.mark.gpu
@pytest.mark.usefixtures("room")
@pytest.mark.parametrize("name", CALLS)
def test_behind_the_last_32_bit_offset(name: str) -> None:
    op = BY_NAME[name.split(",")[0]]
    out, truth = CALLS[name]()
    distance = (out.double() - truth).norm() / truth.norm()
    assert float(distance) <= op.tolerance["fp16"]


def test_every_operator_has_such_a_call() -> None:
    assert {name.split(",")[0] for name in CALLS} == set(BY_NAME)
