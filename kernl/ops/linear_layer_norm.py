"""The end of an encoder's block that normalises last: linear layer, residual, layer norm.

    summed = x · weightᵀ + bias + residual
    out    = (summed - mean) / sqrt(var + eps) · norm_weight + norm_bias

mean and var are those of one row of `summed`, var divided by its n columns.

| path | what runs |
| --- | --- |
| `fused` | one launch; a program keeps whole rows of `summed` in registers, in float32 |
| `two`, `late`, `split` | two launches or more, as `kernl/ops/linear_norm.py` says |

A fused program holds all n columns, so few rows fit it, and each program reads the whole weight:
what it saves is one pass over `summed` and one launch, what it pays is the weight read again for
every block_m rows, and idle multiprocessors where there are few rows. It is for layers so small
that the launch is what counts.

Sources: Devlin et al., "BERT", 2018, https://arxiv.org/abs/1810.04805; Ba, Kiros and Hinton,
"Layer Normalization", 2016, https://arxiv.org/abs/1607.06450.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from kernl import launch, tuning
from kernl.launch import Launch, Plan, cdiv, next_power_of_2
from kernl.op import Case, Dims, Op
from kernl.ops.linear import empty_output
from kernl.ops.linear_config import LinearConfig
from kernl.ops.linear_layer_norm_config import LINEAR_LAYER_NORM_TUNABLE
from kernl.ops.linear_layer_norm_finish import Norm
from kernl.ops.linear_norm import check_linear_norm, linear_norm_inputs, linear_norm_plan
from kernl.ops.linear_spellings import linear_layer_norm_spellings
from kernl.ops.rows import as_rows
from kernl.shapes import ModelShape, Workload


def linear_layer_norm_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    """What a PyTorch user would write."""
    summed = torch.nn.functional.linear(x, weight, bias) + residual
    return torch.nn.functional.layer_norm(summed, summed.shape[-1:], norm_weight, norm_bias, eps)


@triton.jit
def _linear_layer_norm_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    residual_ptr,
    norm_weight_ptr,
    norm_bias_ptr,
    out_ptr,
    m,
    n,
    k,
    stride_x_m,
    stride_x_k,
    stride_weight_n,
    stride_weight_k,
    stride_bias,
    stride_residual_m,
    stride_residual_n,
    stride_norm_weight,
    stride_norm_bias,
    eps,
    HAS_BIAS: tl.constexpr,
    HAS_NORM_BIAS: tl.constexpr,
    EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """(BLOCK_M, BLOCK_N) covers BLOCK_M whole rows of the output."""
    m_offs = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    n_offs = tl.arange(0, BLOCK_N)
    k_offs = tl.arange(0, BLOCK_K)
    m_mask, n_mask = m_offs < m, n_offs < n
    wide_n_offs = n_offs.to(tl.int64)
    x_ptrs = x_ptr + m_offs[:, None] * stride_x_m + k_offs[None, :] * stride_x_k
    weight_ptrs = weight_ptr + wide_n_offs[None, :] * stride_weight_n
    weight_ptrs += k_offs[:, None] * stride_weight_k

    summed = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        if EVEN_K:
            x = tl.load(x_ptrs, mask=m_mask[:, None], other=0.0)
            weight = tl.load(weight_ptrs, mask=n_mask[None, :], other=0.0)
        else:
            k_mask = k_offs < k - start
            x = tl.load(x_ptrs, mask=m_mask[:, None] & k_mask[None, :], other=0.0)
            weight = tl.load(weight_ptrs, mask=k_mask[:, None] & n_mask[None, :], other=0.0)
        summed = tl.dot(x, weight, summed, input_precision="ieee")
        x_ptrs += BLOCK_K * stride_x_k
        weight_ptrs += BLOCK_K * stride_weight_k

    mask = m_mask[:, None] & n_mask[None, :]
    residual_ptrs = residual_ptr + m_offs[:, None] * stride_residual_m
    residual_ptrs += n_offs[None, :] * stride_residual_n
    summed += tl.load(residual_ptrs, mask=mask, other=0.0).to(tl.float32)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + wide_n_offs * stride_bias, mask=n_mask, other=0.0)
        summed += bias.to(tl.float32)[None, :]

    # Columns beyond n are 0 here: they add nothing to the sum.
    mean = tl.sum(summed, axis=1)[:, None] / n
    deviation = tl.where(n_mask[None, :], summed - mean, 0.0)
    variance = tl.sum(deviation * deviation, axis=1)[:, None] / n
    norm_weight_ptrs = norm_weight_ptr + wide_n_offs * stride_norm_weight
    norm_weight = tl.load(norm_weight_ptrs, mask=n_mask, other=0.0).to(tl.float32)
    out = deviation / tl.sqrt(variance + eps) * norm_weight[None, :]
    if HAS_NORM_BIAS:
        norm_bias_ptrs = norm_bias_ptr + wide_n_offs * stride_norm_bias
        out += tl.load(norm_bias_ptrs, mask=n_mask, other=0.0).to(tl.float32)[None, :]
    out_ptrs = out_ptr + m_offs[:, None] * n + n_offs[None, :]
    tl.store(out_ptrs, out.to(out_ptr.dtype.element_ty), mask=mask)


def linear_layer_norm_plan(
    capability: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Plan:
    """The output, contiguous, and its one launch on the path `fused`, or those of another path."""
    n, k = weight.shape
    m = residual.numel() // n
    if m == 0:
        return Plan((empty_output(x, weight),), ())
    config = tuning.choose(
        LINEAR_LAYER_NORM_TUNABLE, capability, x.device, bits=8 * x.itemsize, m=m, n=n, k=k
    )
    if config.path == "fused":
        return _fused_plan(config, x, weight, bias, residual, norm_weight, norm_bias, eps)
    norm = Norm(norm_weight, norm_bias, eps)
    return linear_norm_plan(config, capability, x, weight, bias, residual, norm, keep_sum=False)


def _fused_plan(
    config: LinearConfig,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor | None,
    eps: float,
) -> Plan:
    flat, flat_residual = as_rows(x), as_rows(residual)
    (m, k), n = flat.shape, weight.shape[0]
    out = empty_output(x, weight)
    fused = Launch(
        kernel=_linear_layer_norm_kernel,
        grid=(cdiv(m, config.block_m),),
        # Absent tensors are stood in for by x: their pointers are never read.
        args={
            "x_ptr": flat,
            "weight_ptr": weight,
            "bias_ptr": flat if bias is None else bias,
            "residual_ptr": flat_residual,
            "norm_weight_ptr": norm_weight,
            "norm_bias_ptr": flat if norm_bias is None else norm_bias,
            "out_ptr": out,
            "m": m,
            "n": n,
            "k": k,
            "stride_x_m": flat.stride(0),
            "stride_x_k": flat.stride(1),
            "stride_weight_n": weight.stride(0),
            "stride_weight_k": weight.stride(1),
            "stride_bias": 1 if bias is None else bias.stride(0),
            "stride_residual_m": flat_residual.stride(0),
            "stride_residual_n": flat_residual.stride(1),
            "stride_norm_weight": norm_weight.stride(0),
            "stride_norm_bias": 1 if norm_bias is None else norm_bias.stride(0),
            "eps": float(eps),
        },
        constants={
            "HAS_BIAS": bias is not None,
            "HAS_NORM_BIAS": norm_bias is not None,
            "EVEN_K": k % config.block_k == 0,
            "BLOCK_M": config.block_m,
            "BLOCK_N": max(16, next_power_of_2(n)),
            "BLOCK_K": config.block_k,
        },
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    return Plan((out,), (fused,))


@torch.library.custom_op("kernl::linear_layer_norm", mutates_args=())
def _linear_layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor | None,
    eps: float,
) -> torch.Tensor:
    plan = linear_layer_norm_plan(
        launch.capability(x.device), x, weight, bias, residual, norm_weight, norm_bias, eps
    )
    return plan.run()[0]


@_linear_layer_norm.register_fake
def _linear_layer_norm_fake(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor | None,
    eps: float,
) -> torch.Tensor:
    return empty_output(x, weight)


def check_linear_layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> None:
    """Raise a `kernl.errors.KernlError` where `linear_layer_norm` does not take these."""
    vectors = {"bias": bias, "norm_weight": norm_weight, "norm_bias": norm_bias}
    check_linear_norm(
        "linear_layer_norm", _linear_layer_norm_kernel, x, weight, residual, eps, **vectors
    )


def linear_layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    """`layer_norm(x @ weight.T + bias + residual)`, accumulated in float32.

    Args:
        x: (…, k), any strides, fp16, bf16 or fp32. A batch of size 0 gives an empty result.
        weight: (n, k), as `torch.nn.Linear` keeps it, any strides.
        bias: (n,) or None.
        residual: (…, n), any strides.
        norm_weight: (n,), the scale of the normalised rows.
        norm_bias: (n,), their shift, or None.
        eps: added to the variance, 0 or more.

    Returns:
        (…, n), contiguous, in the dtype of `x`. Whether the sum is rounded to that dtype before it
        is normalised depends on the path.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_linear_layer_norm(x, weight, bias, residual, norm_weight, norm_bias, eps)
    return _linear_layer_norm(x, weight, bias, residual, norm_weight, norm_bias, float(eps))


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    if model.norm == "layer" and not model.causal:
        for k in (model.hidden, model.intermediate):
            yield {"m": workload.tokens, "n": model.hidden, "k": k, "bias": model.bias}


def _bytes(case: Case) -> int:
    m, n, k = case["m"], case["n"], case["k"]
    return (m * k + n * k + 2 * m * n + (3 if case["bias"] else 1) * n) * int(case.itemsize)


LINEAR_LAYER_NORM = Op(
    name="linear_layer_norm",
    kernel=linear_layer_norm,
    reference=linear_layer_norm_reference,
    plan=linear_layer_norm_plan,
    check=check_linear_layer_norm,
    dims=_dims,
    inputs=linear_norm_inputs,
    edges=tuple(
        {"m": m, "n": n, "k": k, "bias": bias}
        for m, n, k, bias in (
            (1, 16, 1, True),
            (3, 33, 65, False),
            (17, 127, 31, True),
            (67, 129, 100, True),
            (5, 513, 64, True),
            (33, 640, 129, False),
            (129, 130, 257, True),
        )
    ),
    bytes=_bytes,
    # A product, and for each output the 9 of a residual and a norm.
    flops=lambda case: case["m"] * case["n"] * (2 * case["k"] + 9),
    tolerance={"fp32": 3e-6, "fp16": 5e-4, "bf16": 4e-3},
    spellings=linear_layer_norm_spellings(linear_layer_norm),
)
