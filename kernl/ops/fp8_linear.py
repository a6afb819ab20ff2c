"""Linear layer in 8-bit floats: weight and activations in e4m3, at twice the rate of fp16.

    out = activation(x_scale_m · weight_scale_n · Σ_k x8_mk · w8_nk + bias_n) + residual
    x8  = x / x_scale rounded to e4m3, x_scale = the largest |x| of the row / 448

The first launch rounds x, row by row; the second multiplies. Hopper's tensor cores add up products
of 8-bit floats in fewer bits than float32 has, so each block of k is summed there and added to a
float32 sum outside. GPUs before 8.9 have no such tensor cores and compute the same by PyTorch.

The result is not that of `linear`: 3 bits of mantissa are few. Nothing chooses this but the user.

Source: Micikevicius et al., "FP8 Formats for Deep Learning", 2022,
https://arxiv.org/abs/2209.05433.
"""

from collections.abc import Iterator
from typing import Any

import torch

from kernl import checks, launch
from kernl.launch import Launch, LibraryCall, Plan, cdiv, next_power_of_2
from kernl.op import Case, Dims, Op
from kernl.ops.activation import ACTIVATIONS, activation_reference
from kernl.ops.epilogue import Epilogue
from kernl.ops.fp8_linear_config import FP8_TUNABLE
from kernl.ops.fp8_linear_kernels import (
    LARGEST,
    SMALLEST_SCALE,
    fp8_linear_kernel,
    quantize_kernel,
)
from kernl.ops.linear import empty_output
from kernl.ops.rows import as_rows
from kernl.ops.tile import rows_aligned
from kernl.shapes import ModelShape, Workload
from kernl.tuning import choose


def quantize_fp8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, cols) in e4m3 and (rows,) float32 scales, by each row's largest absolute value."""
    exact = x.float()
    largest = exact.abs().amax(-1)
    # By a tensor: on a GPU PyTorch multiplies by the reciprocal of a number, which rounds twice.
    scale = (largest / torch.full_like(largest, LARGEST.value)).clamp_min(SMALLEST_SCALE.value)
    rounded = (exact / scale[:, None]).clamp(-LARGEST.value, LARGEST.value)
    return rounded.to(torch.float8_e4m3fn), scale


def fp8_linear_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """What a PyTorch user would write: 8-bit operands are multiplied in the dtype of x."""
    x8, x_scale = quantize_fp8(x.flatten(0, -2) if x.dim() > 1 else x[None])
    scaled = x8.to(x.dtype) * x_scale[:, None].to(x.dtype)
    dense = weight.to(x.dtype) * weight_scale[:, None].to(x.dtype)
    out = torch.nn.functional.linear(scaled, dense, bias).view(*x.shape[:-1], -1)
    out = activation_reference(out, activation)
    return out if residual is None else out + residual


def fp8_linear_library(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """PyTorch's product of 8-bit floats with a scale for each row, cuBLAS or CUTLASS inside."""
    if x.dtype not in (torch.bfloat16, torch.float16):
        raise NotImplementedError("torch._scaled_mm with scales of rows writes 16 bits")
    if any(size % 16 for size in weight.shape):
        raise NotImplementedError("torch._scaled_mm takes multiples of 16")
    x8, x_scale = quantize_fp8(x)
    out = torch._scaled_mm(
        x8, weight.t(), x_scale[:, None], weight_scale[None].float(), out_dtype=torch.bfloat16
    ).to(x.dtype)
    out = activation_reference(out if bias is None else out + bias, activation)
    return out if residual is None else out + residual


def has_fp8(capability: int, device: torch.device) -> bool:
    """Whether the tensor cores multiply 8-bit floats; Triton's interpreter does."""
    return capability >= 89 or device.type == "cpu"


def fp8_linear_plan(
    capability: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
) -> Plan:
    """The output and two launches, or PyTorch's calls where tensor cores have no 8-bit floats."""
    flat = as_rows(x)
    out = empty_output(x, weight)
    (m, k), n = flat.shape, weight.shape[0]
    if m == 0:
        return Plan((out,), ())
    if not has_fp8(capability, x.device):
        after = (bias, activation, residual)
        return Plan((out,), (LibraryCall(_by_pytorch, (out, x, weight, weight_scale, *after)),))
    epilogue = Epilogue(bias, activation, None if residual is None else as_rows(residual))
    x8 = flat.new_empty((m, k), dtype=torch.float8_e4m3fn)
    aligned = int(rows_aligned(x8, weight))
    config = choose(FP8_TUNABLE, capability, x.device, aligned=aligned, m=m, n=n, k=k)
    x_scale = flat.new_empty((m,), dtype=torch.float32)
    block_cols = min(4096, next_power_of_2(k))
    quantize = Launch(
        kernel=quantize_kernel,
        grid=(m,),
        args={
            "x_ptr": flat,
            "out_ptr": x8,
            "scale_ptr": x_scale,
            "cols": k,
            "stride_x_row": flat.stride(0),
            "stride_x_col": flat.stride(1),
        },
        constants={"BLOCK_COLS": block_cols},
        num_warps=max(1, min(8, block_cols // 256)),
    )
    product = Launch(
        kernel=fp8_linear_kernel,
        grid=(cdiv(m, config.block_m) * cdiv(n, config.block_n),),
        args={
            "x_ptr": x8,
            "weight_ptr": weight,
            "x_scale_ptr": x_scale,
            "weight_scale_ptr": weight_scale,
            **epilogue.args(flat),
            "out_ptr": out,
            "m": m,
            "n": n,
            "k": k,
            "stride_weight_n": weight.stride(0),
            "stride_weight_k": weight.stride(1),
            "stride_weight_scale": weight_scale.stride(0),
        },
        constants={
            **epilogue.constants,
            "EVEN_K": k % config.block_k == 0,
            "BLOCK_M": config.block_m,
            "BLOCK_N": config.block_n,
            "BLOCK_K": config.block_k,
            "GROUP_M": 8,
        },
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    return Plan((out,), (quantize, product))


def _by_pytorch(out: torch.Tensor, *inputs: Any) -> None:
    out.copy_(fp8_linear_reference(*inputs))


@torch.library.custom_op("kernl::fp8_linear", mutates_args=())
def _fp8_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None,
    activation: str,
    residual: torch.Tensor | None,
) -> torch.Tensor:
    after = (bias, activation, residual)
    return fp8_linear_plan(launch.capability(x.device), x, weight, weight_scale, *after).run()[0]


@_fp8_linear.register_fake
def _fp8_linear_fake(x: torch.Tensor, weight: torch.Tensor, *_: object) -> torch.Tensor:
    return empty_output(x, weight)


def check_fp8_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
) -> None:
    """Raise a `kernl.errors.KernlError` where `fp8_linear` does not take these arguments."""
    op = "fp8_linear"
    checks.tensors(op, fp8_linear_kernel, x=x, bias=bias, residual=residual)
    checks.typed(op, "weight", weight, x, (torch.float8_e4m3fn,))
    checks.typed(op, "weight_scale", weight_scale, x, (torch.float32,))
    checks.option(op, "activation", activation, ACTIVATIONS)
    checks.at_least(op, "x", x, 1)
    checks.matrix(op, "weight", weight, x.shape[-1], "the last dimension of x")
    n = weight.shape[0]
    checks.positive(op, "the last dimension of x", x.shape[-1])
    checks.positive(op, "the first dimension of weight", n)
    checks.shape(op, "weight_scale", weight_scale, (n,), "the first dimension of weight")
    if bias is not None:
        checks.shape(op, "bias", bias, (n,), "the first dimension of weight")
    if residual is not None:
        checks.shape(op, "residual", residual, (*x.shape[:-1], n), "the shape of the output")


def fp8_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """`activation(x8 @ weight.T · scales + bias) + residual`, x rounded to e4m3 row by row.

    Args:
        x: (…, k), any strides, fp16, bf16 or fp32. A batch of size 0 gives an empty result.
        weight: (n, k), torch.float8_e4m3fn, any strides, as `quantize_fp8` makes it.
        weight_scale: (n,), float32.
        bias: (n,) or None, in the dtype of `x`.
        activation: one of `ACTIVATIONS` of `kernl.ops.activation`.
        residual: (…, n), added last, or None.

    Returns:
        (…, n), contiguous, in the dtype of `x`. A row of x with NaN or infinity gives NaN.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_fp8_linear(x, weight, weight_scale, bias, activation, residual)
    return _fp8_linear(x, weight, weight_scale, bias, activation, residual)


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    if model.causal and model.hidden >= 1024:
        plain: Dims = {"bias": False, "activation": "none"}
        yield {"m": workload.tokens, "n": model.hidden, "k": model.hidden, **plain}
        yield {"m": workload.tokens, "n": model.intermediate, "k": model.hidden, **plain}


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    m, n, k = case["m"], case["n"], case["k"]
    weight, scale = quantize_fp8(random(n, k) * k**-0.5)
    return {
        "x": random(m, k).to(case.torch_dtype),
        "weight": weight,
        "weight_scale": scale,
        "bias": random(n).to(case.torch_dtype) if case["bias"] else None,
        "activation": case["activation"],
        "residual": None,
    }


def _bytes(case: Case) -> int:
    m, n, k = case["m"], case["n"], case["k"]
    floats = m * k + m * n + (n if case["bias"] else 0)
    return int(floats * case.itemsize + n * k + 4 * n)


FP8_LINEAR = Op(
    name="fp8_linear",
    kernel=fp8_linear,
    reference=fp8_linear_reference,
    plan=fp8_linear_plan,
    check=check_fp8_linear,
    dims=_dims,
    inputs=_inputs,
    edges=tuple(
        {"m": m, "n": n, "k": k, "bias": bias, "activation": activation}
        for m, n, k, bias, activation in (
            (1, 1, 1, False, "none"),
            (3, 17, 33, True, "gelu"),
            (17, 31, 256, False, "silu"),
            (70, 67, 300, True, "relu"),
            (129, 130, 257, True, "none"),
        )
    ),
    bytes=_bytes,
    flops=lambda case: 2 * case["m"] * case["n"] * case["k"],
    # Hopper's tensor cores add up 8-bit products in about 14 bits: float32 outside does not help.
    tolerance={"fp32": 3e-4, "fp16": 1e-3, "bf16": 6e-3},
    library=fp8_linear_library,
    arithmetic="fp8",
    opt_in=True,
)
