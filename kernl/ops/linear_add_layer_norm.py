"""The joint of layers that normalise first: linear layer, residual, layer norm of the next layer.

    summed = x · weightᵀ + bias + residual           clamped to ±limit where there is one
    normed = (summed - mean) / sqrt(var + eps) · norm_weight + norm_bias

mean and var are those of one row of `summed`, var divided by its n columns. Both are returned:
`normed` goes into the next layer, `summed` past it. `linear_layer_norm` is for layers that
normalise last and need no sum. `kernl/ops/linear_norm.py` shows the paths.

Sources: Ba, Kiros and Hinton, "Layer Normalization", 2016, https://arxiv.org/abs/1607.06450;
Radford et al., "Language Models are Unsupervised Multitask Learners" (GPT-2), 2019.
"""

from collections.abc import Iterator

import torch

from kernl import checks, launch
from kernl.launch import Plan
from kernl.op import Case, Dims, Op
from kernl.ops.linear_layer_norm_finish import Norm, finish_norm_kernel
from kernl.ops.linear_norm import (
    PRE_NORM_EDGES,
    check_linear_norm,
    linear_norm_inputs,
    pre_norm_outputs,
    pre_norm_plan,
)
from kernl.ops.linear_pre_norm_config import pre_norm_tunable
from kernl.ops.linear_spellings import linear_add_layer_norm_spellings
from kernl.shapes import ModelShape, Workload

LINEAR_ADD_LAYER_NORM_TUNABLE = pre_norm_tunable("linear_add_layer_norm")


def linear_add_layer_norm_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    limit: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a PyTorch user would write."""
    summed = residual + torch.nn.functional.linear(x, weight, bias)
    summed = summed if limit is None else summed.clamp(-limit, limit)
    size = summed.shape[-1:]
    return torch.nn.functional.layer_norm(summed, size, norm_weight, norm_bias, eps), summed


def linear_add_layer_norm_plan(
    capability: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    limit: float | None = None,
) -> Plan:
    """`normed` and `summed`, contiguous, and the launches of the path chosen."""
    norm = Norm(norm_weight, norm_bias, eps, limit=limit)
    tunable = LINEAR_ADD_LAYER_NORM_TUNABLE
    return pre_norm_plan(tunable, capability, x, weight, bias, residual, norm)


@torch.library.custom_op("kernl::linear_add_layer_norm", mutates_args=())
def _linear_add_layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor | None,
    eps: float,
    limit: float | None,
) -> list[torch.Tensor]:
    plan = linear_add_layer_norm_plan(
        launch.capability(x.device), x, weight, bias, residual, norm_weight, norm_bias, eps, limit
    )
    return list(plan.run())


@_linear_add_layer_norm.register_fake
def _linear_add_layer_norm_fake(
    x: torch.Tensor, weight: torch.Tensor, *_: object
) -> list[torch.Tensor]:
    return list(pre_norm_outputs(x, weight))


def check_linear_add_layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    limit: float | None = None,
) -> None:
    """Raise a `kernl.errors.KernlError` where `linear_add_layer_norm` does not take these."""
    vectors = {"bias": bias, "norm_weight": norm_weight, "norm_bias": norm_bias}
    check_linear_norm(
        "linear_add_layer_norm", finish_norm_kernel, x, weight, residual, eps, **vectors
    )
    if limit is not None:
        checks.number("linear_add_layer_norm", "limit", limit)


def linear_add_layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    limit: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`x @ weight.T + bias + residual` behind its layer norm, accumulated in float32.

    Args:
        x: (…, k), any strides, fp16, bf16 or fp32. A batch of size 0 gives empty results.
        weight: (n, k), as `torch.nn.Linear` keeps it, any strides.
        bias: (n,) or None.
        residual: (…, n), any strides.
        norm_weight: (n,), the scale of the normalised rows.
        norm_bias: (n,), their shift, or None.
        eps: added to the variance, 0 or more.
        limit: what the sum is clamped to before it is normed, ±limit, 0 or more, or None; NaN
            stays NaN.

    Returns:
        The normed tensor and the sum, each (…, n), contiguous, in the dtype of `x`. Whether the sum
        is rounded to that dtype before it is normalised depends on the path.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    vectors = (norm_weight, norm_bias)
    check_linear_add_layer_norm(x, weight, bias, residual, *vectors, eps, limit)
    numbers = (float(eps), None if limit is None else float(limit))
    normed, summed = _linear_add_layer_norm(x, weight, bias, residual, *vectors, *numbers)
    return normed, summed


_PRE_NORM = ("gpt2", "whisper-base")
"""Of the models with layer norms, those that normalise first."""


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    if model.name not in _PRE_NORM:
        return
    # A step of decoding has one token of each sequence.
    for m in (workload.batch, workload.tokens) if model.causal else (workload.tokens,):
        for k in (model.hidden, model.intermediate):
            yield {"m": m, "n": model.hidden, "k": k, "bias": model.bias}


def _bytes(case: Case) -> int:
    m, n, k = case["m"], case["n"], case["k"]
    return (m * k + n * k + 3 * m * n + (3 if case["bias"] else 1) * n) * int(case.itemsize)


LINEAR_ADD_LAYER_NORM = Op(
    name="linear_add_layer_norm",
    kernel=linear_add_layer_norm,
    reference=linear_add_layer_norm_reference,
    plan=linear_add_layer_norm_plan,
    check=check_linear_add_layer_norm,
    dims=_dims,
    inputs=linear_norm_inputs,
    edges=PRE_NORM_EDGES,
    bytes=_bytes,
    # A product, and for each element the 9 of a residual and a norm.
    flops=lambda case: case["m"] * case["n"] * (2 * case["k"] + 9),
    tolerance={"fp32": 3e-6, "fp16": 5e-4, "bf16": 4e-3},
    spellings=linear_add_layer_norm_spellings(linear_add_layer_norm),
)
