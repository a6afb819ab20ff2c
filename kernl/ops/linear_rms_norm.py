"""The joint of a decoder that normalises first: linear layer, residual, norm of the next layer.

    summed = x · weightᵀ + bias + residual
    normed = summed / sqrt(mean(summed²) + eps) · (offset + norm_weight)

The mean is that of one row. Both are returned: `normed` goes into the next layer, `summed` past it.
`kernl/ops/linear_norm.py` shows the paths.

Sources: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019,
https://arxiv.org/abs/1910.07467; Touvron et al., "LLaMA", 2023, https://arxiv.org/abs/2302.13971.
"""

from collections.abc import Iterator
from typing import Any

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
from kernl.ops.linear_spellings import linear_rms_norm_spellings
from kernl.ops.rms_norm import rms_norm_reference
from kernl.shapes import ModelShape, Workload

LINEAR_RMS_NORM_TUNABLE = pre_norm_tunable("linear_rms_norm")


def linear_rms_norm_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    eps: float = 1e-6,
    offset: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a PyTorch user would write."""
    summed = residual + torch.nn.functional.linear(x, weight, bias)
    normed = rms_norm_reference(summed, norm_weight, eps=eps, offset=offset)
    assert isinstance(normed, torch.Tensor)
    return normed, summed


def linear_rms_norm_plan(
    capability: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    eps: float = 1e-6,
    offset: float = 0.0,
) -> Plan:
    """`normed` and `summed`, contiguous, and the launches of the path chosen."""
    norm = Norm(norm_weight, None, eps, offset, rms=True)
    return pre_norm_plan(LINEAR_RMS_NORM_TUNABLE, capability, x, weight, bias, residual, norm)


@torch.library.custom_op("kernl::linear_rms_norm", mutates_args=())
def _linear_rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    eps: float,
    offset: float,
) -> list[torch.Tensor]:
    plan = linear_rms_norm_plan(
        launch.capability(x.device), x, weight, bias, residual, norm_weight, eps, offset
    )
    return list(plan.run())


@_linear_rms_norm.register_fake
def _linear_rms_norm_fake(x: torch.Tensor, weight: torch.Tensor, *_: object) -> list[torch.Tensor]:
    return list(pre_norm_outputs(x, weight))


def check_linear_rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    eps: float = 1e-6,
    offset: float = 0.0,
) -> None:
    """Raise a `kernl.errors.KernlError` where `linear_rms_norm` does not take these."""
    vectors = {"bias": bias, "norm_weight": norm_weight}
    check_linear_norm("linear_rms_norm", finish_norm_kernel, x, weight, residual, eps, **vectors)
    checks.number("linear_rms_norm", "offset", offset)


def linear_rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    eps: float = 1e-6,
    offset: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`x @ weight.T + bias + residual` behind its RMS norm, accumulated in float32.

    Args:
        x: (…, k), any strides, fp16, bf16 or fp32. A batch of size 0 gives empty results.
        weight: (n, k), as `torch.nn.Linear` keeps it, any strides.
        bias: (n,) or None.
        residual: (…, n), any strides.
        norm_weight: (n,), the scale of the normalised rows.
        eps: added to the mean of squares, 0 or more.
        offset: added to `norm_weight`, 0 or more: 1 for Gemma.

    Returns:
        The normed tensor and the sum, each (…, n), contiguous, in the dtype of `x`. Whether the sum
        is rounded to that dtype before it is normalised depends on the path.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_linear_rms_norm(x, weight, bias, residual, norm_weight, eps, offset)
    numbers = (float(eps), float(offset))
    normed, summed = _linear_rms_norm(x, weight, bias, residual, norm_weight, *numbers)
    return normed, summed


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    if model.norm != "rms":
        return
    # A step of decoding has one token of each sequence.
    for m in (workload.batch, workload.tokens) if model.causal else (workload.tokens,):
        for k in (model.heads * model.head_dim, model.intermediate):
            yield {"m": m, "n": model.hidden, "k": k, "bias": model.bias}


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    inputs = linear_norm_inputs(case, device, seed)
    del inputs["norm_bias"]
    return inputs


def _bytes(case: Case) -> int:
    m, n, k = case["m"], case["n"], case["k"]
    return (m * k + n * k + 3 * m * n + (2 if case["bias"] else 1) * n) * int(case.itemsize)


LINEAR_RMS_NORM = Op(
    name="linear_rms_norm",
    kernel=linear_rms_norm,
    reference=linear_rms_norm_reference,
    plan=linear_rms_norm_plan,
    check=check_linear_rms_norm,
    dims=_dims,
    inputs=_inputs,
    edges=PRE_NORM_EDGES,
    bytes=_bytes,
    # A product, and for each element the 5 of a residual and a norm.
    flops=lambda case: case["m"] * case["n"] * (2 * case["k"] + 5),
    tolerance={"fp32": 3e-6, "fp16": 5e-4, "bf16": 4e-3},
    spellings=linear_rms_norm_spellings(linear_rms_norm),
)
