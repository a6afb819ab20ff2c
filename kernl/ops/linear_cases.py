"""The cases of `linear`: the layers of models, shapes that no model has, inputs and costs."""

from collections.abc import Iterator
from typing import Any

import torch

from kernl.op import Case, Dims
from kernl.shapes import ModelShape, Workload


def linear_dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    """The layers of a model's block, of all tokens, and of one a sequence where it decodes."""
    # A step of decoding has one token of each sequence.
    for m in (workload.batch, workload.tokens) if model.causal else (workload.tokens,):
        for n, k, activation, residual in _layers(model):
            options: Dims = {"bias": model.bias, "activation": activation, "residual": residual}
            yield {"m": m, "n": n, "k": k, **options}


def _layers(model: ModelShape) -> Iterator[tuple[int, int, str, bool]]:
    """The linear layers of one block, packed where they share x: n, k, activation, residual."""
    hidden, inner = model.hidden, model.intermediate
    yield (model.heads + 2 * model.kv_heads) * model.head_dim, hidden, "none", False
    yield hidden, model.heads * model.head_dim, "none", True
    if model.gated:
        yield 2 * inner, hidden, "none", False
    else:
        yield inner, hidden, model.activation, False
    yield hidden, inner, "none", True


def linear_inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    """Arguments of a case, random and signed; the product has the size of x."""
    generator = torch.Generator(device).manual_seed(seed)

    def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
        values = torch.randn(shape, generator=generator, device=device)
        return (scale * values).to(case.torch_dtype)

    m, n, k = case["m"], case["n"], case["k"]
    return {
        "x": random(m, k),
        "weight": random(n, k, scale=k**-0.5),
        "bias": random(n) if case["bias"] else None,
        "activation": case["activation"],
        "residual": random(m, n) if case["residual"] else None,
    }


def bytes_moved(case: Case) -> int:
    """What has to be read and written at least."""
    m, n, k = case["m"], case["n"], case["k"]
    outputs = 2 * m * n if case["residual"] else m * n
    return (m * k + n * k + outputs + (n if case["bias"] else 0)) * int(case.itemsize)


EDGES: tuple[Dims, ...] = tuple(
    {"m": m, "n": n, "k": k, "bias": bias, "activation": activation, "residual": residual}
    for m, n, k, bias, activation, residual in (
        (1, 1, 1, False, "none", False),
        (1, 17, 33, True, "relu", False),
        (3, 129, 65, True, "gelu", True),
        (17, 31, 127, True, "gelu_tanh", False),
        (33, 257, 100, False, "silu", True),
        (65, 63, 129, True, "tanh", True),
        (129, 130, 257, True, "none", True),
        (16, 96, 1000, False, "gelu", False),
        (5, 48, 1100, True, "silu", True),
    )
)
