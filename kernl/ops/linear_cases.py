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
            yield {"m": m, "n": n, "k": k, **options, "transposed": model.transposed}


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
    transposed = dict(case.dims).get("transposed", False)
    return {
        "x": random(m, k),
        "weight": random(k, n, scale=k**-0.5).t() if transposed else random(n, k, scale=k**-0.5),
        "bias": random(n) if case["bias"] else None,
        "activation": case["activation"],
        "residual": random(m, n) if case["residual"] else None,
    }


def bytes_moved(case: Case) -> int:
    """What has to be read and written at least."""
    m, n, k = case["m"], case["n"], case["k"]
    outputs = 2 * m * n if case["residual"] else m * n
    return (m * k + n * k + outputs + (n if case["bias"] else 0)) * int(case.itemsize)


def _edge(
    m: int,
    n: int,
    k: int,
    bias: bool,
    activation: str = "none",
    residual: bool = False,
    transposed: bool = False,
) -> Dims:
    options: Dims = {"bias": bias, "activation": activation, "residual": residual}
    return {"m": m, "n": n, "k": k, **options, "transposed": transposed}


EDGES: tuple[Dims, ...] = (
    _edge(1, 1, 1, False),
    _edge(1, 17, 33, True, "relu"),
    _edge(3, 129, 65, True, "gelu", residual=True),
    _edge(17, 31, 127, True, "gelu_tanh"),
    _edge(33, 257, 100, False, "silu", residual=True),
    _edge(65, 63, 129, True, "tanh", residual=True),
    _edge(129, 130, 257, True, residual=True),
    _edge(16, 96, 1000, False, "gelu"),
    _edge(5, 48, 1100, True, "silu", residual=True),
    _edge(3, 40, 65, True, transposed=True),
    _edge(33, 130, 100, True, "gelu_tanh", transposed=True),
    _edge(70, 112, 129, True, residual=True, transposed=True),
)
