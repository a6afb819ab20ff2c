"""What linear layers with a residual and a norm behind them share: arguments, cases, paths.

| path | what runs |
| --- | --- |
| `two` | `linear` with its residual, then the norm; `summed` is rounded in between |
| `late` | `linear` without, then the norm with the residual; the product is rounded |
| `split` | several programs share a product's inner dimension; what adds up norms too |
| `split_tma` | the same by Hopper's copy engine, where rows start at multiples of 16 bytes |

`late` leaves the product to cuBLAS alone where that is fastest. `split` is for few rows: a product
that fills the GPU only when it is shared out needs a pass that adds up, and that pass norms.
"""

from typing import Any

import torch

from kernl import checks, tuning
from kernl.launch import Plan
from kernl.op import Case, Dims
from kernl.ops.layer_norm import layer_norm_plan
from kernl.ops.linear import empty_output, linear_plan
from kernl.ops.linear_config import LinearConfig
from kernl.ops.linear_layer_norm_finish import Norm, split_norm_plan
from kernl.ops.linear_norm_config import SPLITS
from kernl.ops.rms_norm import rms_norm_plan
from kernl.ops.rows import as_rows
from kernl.ops.tile import rows_aligned
from kernl.tables import Tunable

PRE_NORM_EDGES: tuple[Dims, ...] = tuple(
    {"m": m, "n": n, "k": k, "bias": bias}
    for m, n, k, bias in (
        (1, 16, 1, True),
        (3, 33, 65, False),
        (5, 33, 512, False),
        (17, 127, 31, True),
        (17, 97, 520, True),
        (65, 130, 776, True),
        (129, 130, 257, True),
    )
)
"""Some of them are split in half precision."""


def pre_norm_plan(
    tunable: Tunable[LinearConfig],
    capability: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm: Norm,
) -> Plan:
    """The normed tensor and the sum, contiguous, and the launches of the path chosen."""
    n, k = weight.shape
    m = residual.numel() // n
    if m == 0:
        return Plan(pre_norm_outputs(x, weight), ())
    config = tuning.choose(tunable, capability, x.device, bits=8 * x.itemsize, m=m, n=n, k=k)
    return linear_norm_plan(config, capability, x, weight, bias, residual, norm, keep_sum=True)


def linear_norm_plan(
    config: LinearConfig,
    capability: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm: Norm,
    keep_sum: bool,
) -> Plan:
    """The same on a path that was chosen; `late` where that is `split` and rows are not aligned.

    Without `keep_sum` there is the normed tensor alone.
    """
    if config.path in SPLITS and rows_aligned(as_rows(x), weight):
        return split_norm_plan(x, weight, bias, residual, norm, config, keep_sum)
    late = config.path != "two"
    if late:
        product = linear_plan(capability, x, weight, bias)
        normed = _norm_plan(capability, product.outputs[0], residual, norm, keep_sum)
    else:
        product = linear_plan(capability, x, weight, bias, "none", residual, norm.limit)
        normed = _norm_plan(capability, product.outputs[0], None, norm, keep_sum)
    outputs = normed.outputs if late or not keep_sum else (*normed.outputs, *product.outputs)
    return Plan(outputs, (*product.launches, *normed.launches))


def _norm_plan(
    capability: int, x: torch.Tensor, residual: torch.Tensor | None, norm: Norm, keep_sum: bool
) -> Plan:
    tensors = (x, norm.weight, norm.bias, residual)
    if norm.rms:
        return rms_norm_plan(capability, *tensors, norm.eps, norm.offset)
    limit = None if residual is None else norm.limit
    return layer_norm_plan(capability, *tensors, norm.eps, keep_sum, limit)


def pre_norm_outputs(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Room for the normed tensor and the sum."""
    return empty_output(x, weight), empty_output(x, weight)


def check_linear_norm(
    op: str,
    kernel: object,
    x: torch.Tensor,
    weight: torch.Tensor,
    residual: torch.Tensor,
    eps: float,
    **vectors: torch.Tensor | None,
) -> None:
    """Raise a `kernl.errors.KernlError` where the operator does not take these.

    `vectors` are those of size n by their names; `norm_weight` is one and may not be None.
    """
    checks.tensors(op, kernel, x=x)
    needed = {"weight": weight, "residual": residual, "norm_weight": vectors["norm_weight"]}
    for name, value in needed.items():
        checks.typed(op, name, value, x, (x.dtype,))
    checks.tensors(op, kernel, x=x, **vectors)
    checks.at_least(op, "x", x, 1)
    checks.matrix(op, "weight", weight, x.shape[-1], "the last dimension of x")
    n = weight.shape[0]
    checks.positive(op, "the last dimension of x", x.shape[-1])
    checks.positive(op, "the first dimension of weight", n)
    checks.shape(op, "residual", residual, (*x.shape[:-1], n), "the shape of the output")
    for name, vector in vectors.items():
        if vector is not None:
            checks.shape(op, name, vector, (n,), "the first dimension of weight")
    checks.number(op, "eps", eps)


def linear_norm_inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    """Arguments of a case; those of a layer norm, whose bias is there where the layer's is."""
    generator = torch.Generator(device).manual_seed(seed)

    def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
        values = torch.randn(shape, generator=generator, device=device)
        return (scale * values).to(case.torch_dtype)

    m, n, k, bias = case["m"], case["n"], case["k"], case["bias"]
    return {
        "x": random(m, k),
        "weight": random(n, k, scale=k**-0.5),
        "bias": random(n) if bias else None,
        "residual": random(m, n),
        "norm_weight": random(n),
        "norm_bias": random(n) if bias else None,
        "eps": 1e-5,
    }
