"""Linear layer with its weight in 8 or 4 bits: half or a quarter of the bytes to read.

    out = activation(x · (scale · q)ᵀ + bias) + residual

One token against a weight is bound by reading the weight, so fewer bits are proportionally faster;
many tokens are bound by the tensor cores, and gain nothing. x stays in its dtype. The result is not
that of `linear`: rounding a weight to few bits changes it, so nothing chooses this but the user.

Sources: Dettmers, Lewis, Belkada and Zettlemoyer, "LLM.int8()", 2022,
https://arxiv.org/abs/2208.07339; Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ", 2022,
https://arxiv.org/abs/2210.17323 (groups).
"""

from collections.abc import Iterator
from typing import Any

import torch

from kernl import checks, launch
from kernl.errors import ShapeError
from kernl.launch import Plan
from kernl.op import Case, Dims, Op
from kernl.ops.activation import ACTIVATIONS
from kernl.ops.epilogue import Epilogue
from kernl.ops.linear import empty_output, linear_reference
from kernl.ops.product import Product
from kernl.ops.quantize import GROUP_SIZES, dequantize_weight, quantize_weight
from kernl.ops.quantized_linear_config import QUANTIZED_TUNABLE, QuantizedConfig
from kernl.ops.quantized_linear_kernels import quantized_tile_kernel
from kernl.ops.quantized_linear_steps import (
    Quantized,
    dequantized_steps,
    gemv_steps,
    split_steps,
    tile_steps,
)
from kernl.ops.rows import as_rows
from kernl.shapes import ModelShape, Workload
from kernl.tuning import choose

_GROUP = 128


def quantized_linear_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """What a PyTorch user would write."""
    dense = dequantize_weight(weight, weight_scale.to(x.dtype))
    return linear_reference(x, dense, bias, activation, residual)


def _quantized(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> Quantized:
    return Quantized(
        weight, scale, 8 if weight.dtype == torch.int8 else 4, x.shape[-1] // scale.shape[1]
    )


def quantized_linear_plan(
    capability: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
) -> Plan:
    """The output, contiguous, and the steps on the path that the configuration names."""
    flat = as_rows(x)
    out = empty_output(x, weight)
    if flat.shape[0] == 0:
        return Plan((out,), ())
    flat_residual = None if residual is None else as_rows(residual)
    epilogue = Epilogue(bias, activation, flat_residual)
    product = Product(flat, weight, out.view(flat.shape[0], weight.shape[0]), epilogue)
    quantized = _quantized(x, weight, weight_scale)
    config = choose_config(capability, product, quantized)
    steps = {
        "tile": tile_steps,
        "split": split_steps,
        "gemv": gemv_steps,
        "library": dequantized_steps,
    }
    return Plan((out,), steps[config.path](product, quantized, config))


def choose_config(capability: int, product: Product, quantized: Quantized) -> QuantizedConfig:
    """How this product is computed: on which path, with which blocks."""
    m, n, k = product.sizes
    return choose(
        QUANTIZED_TUNABLE,
        capability,
        product.x.device,
        bits=8 * product.x.itemsize,
        weight=quantized.bits,
        grouped=int(quantized.group < k),
        m=m,
        n=n,
        k=k,
        group=quantized.group,
    )


@torch.library.custom_op("kernl::quantized_linear", mutates_args=())
def _quantized_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None,
    activation: str,
    residual: torch.Tensor | None,
) -> torch.Tensor:
    after = (bias, activation, residual)
    capability = launch.capability(x.device)
    return quantized_linear_plan(capability, x, weight, weight_scale, *after).run()[0]


@_quantized_linear.register_fake
def _quantized_linear_fake(x: torch.Tensor, weight: torch.Tensor, *_: object) -> torch.Tensor:
    return empty_output(x, weight)


def check_quantized_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
) -> None:
    """Raise a `kernl.errors.KernlError` where `quantized_linear` does not take these arguments."""
    op = "quantized_linear"
    checks.tensors(op, quantized_tile_kernel, x=x, bias=bias, residual=residual)
    checks.typed(op, "weight", weight, x, (torch.int8, torch.uint8))
    checks.typed(op, "weight_scale", weight_scale, x, (x.dtype, torch.float32))
    checks.option(op, "activation", activation, ACTIVATIONS)
    checks.at_least(op, "x", x, 1)
    k = x.shape[-1]
    checks.positive(op, "the last dimension of x", k)
    if weight.dtype == torch.int8:
        checks.matrix(op, "weight", weight, k, "the last dimension of x")
    else:
        checks.even(op, "the last dimension of x", k)
        checks.matrix(op, "weight", weight, k // 2, "half the last dimension of x: two in a byte")
    n = weight.shape[0]
    checks.positive(op, "the first dimension of weight", n)
    _check_groups(op, k, weight, weight_scale)
    if bias is not None:
        checks.shape(op, "bias", bias, (n,), "the first dimension of weight")
    if residual is not None:
        checks.shape(op, "residual", residual, (*x.shape[:-1], n), "the shape of the output")


def _check_groups(op: str, k: int, weight: torch.Tensor, scale: torch.Tensor) -> None:
    checks.ndim(op, "weight_scale", scale, 2, "(n, groups)")
    groups = scale.shape[1]
    whole_row = groups == 1 and weight.dtype == torch.int8
    divides = groups > 0 and k % groups == 0 and k // groups in GROUP_SIZES
    if scale.shape[0] != weight.shape[0] or not (whole_row or divides):
        raise ShapeError(
            seen=f"{op}: weight_scale has shape {tuple(scale.shape)} for {weight.shape[0]} rows "
            f"of {k} columns",
            allowed=f"(n, groups), a group being {', '.join(map(str, GROUP_SIZES))} columns, or "
            "with int8 the whole row",
            action="make both by kernl.ops.quantize_weight",
        )


def quantized_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """`activation(x @ dequantized(weight).T + bias) + residual`, accumulated in float32.

    Args:
        x: (…, k), any strides, fp16, bf16 or fp32. A batch of size 0 gives an empty result.
        weight: (n, k) int8, or (n, k / 2) uint8 with two 4-bit integers in a byte, as
            `kernl.ops.quantize_weight` makes them; any strides.
        weight_scale: (n, groups), in the dtype of `x` or float32; a group is 32, 64, 128 or 256
            columns, or with int8 the whole row.
        bias: (n,) or None.
        activation: one of `ACTIVATIONS` of `kernl.ops.activation`.
        residual: (…, n), added last, or None.

    Returns:
        (…, n), contiguous, in the dtype of `x`.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_quantized_linear(x, weight, weight_scale, bias, activation, residual)
    return _quantized_linear(x, weight, weight_scale, bias, activation, residual)


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    if not model.causal or model.hidden < 1024:
        return
    plain: Dims = {"group": _GROUP, "bias": False, "activation": "none"}
    # A step of decoding has one token of each sequence: what few bits are for.
    for m in (workload.batch, workload.tokens):
        for bits in (8, 4):
            for n in (model.hidden, model.intermediate):
                yield {"m": m, "n": n, "k": model.hidden, "int": bits, **plain}


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(seed)

    def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
        values = torch.randn(shape, generator=generator, device=device)
        return (scale * values).to(case.torch_dtype)

    m, n, k = case["m"], case["n"], case["k"]
    group = None if case["group"] == k and case["int"] == 8 else case["group"]
    weight, scale = quantize_weight(random(n, k, scale=k**-0.5), case["int"], group)
    return {
        "x": random(m, k),
        "weight": weight,
        "weight_scale": scale,
        "bias": random(n) if case["bias"] else None,
        "activation": case["activation"],
        "residual": None,
    }


def _bytes(case: Case) -> int:
    m, n, k = case["m"], case["n"], case["k"]
    scales = n * (k // case["group"])
    floats = m * k + m * n + scales + (n if case["bias"] else 0)
    return int(floats * case.itemsize + n * k * case["int"] // 8)


QUANTIZED_LINEAR = Op(
    name="quantized_linear",
    kernel=quantized_linear,
    reference=quantized_linear_reference,
    plan=quantized_linear_plan,
    check=check_quantized_linear,
    dims=_dims,
    inputs=_inputs,
    edges=tuple(
        {"m": m, "n": n, "k": k, "int": bits, "group": group, "bias": bias, "activation": name}
        for m, n, k, bits, group, bias, name in (
            (1, 1, 1, 8, 1, False, "none"),
            (1, 17, 33, 8, 33, True, "relu"),
            (3, 67, 128, 8, 64, True, "gelu"),
            (2, 31, 192, 4, 32, False, "silu"),
            (1, 130, 512, 4, 256, True, "none"),
            (17, 31, 127, 8, 127, False, "tanh"),
            (33, 65, 256, 8, 32, True, "gelu_tanh"),
            (67, 48, 384, 4, 128, True, "none"),
            (5, 32, 2048, 4, 128, True, "silu"),
            (700, 33, 64, 8, 64, True, "gelu"),
            (700, 37, 128, 4, 64, False, "none"),
        )
    ),
    bytes=_bytes,
    flops=lambda case: 2 * case["m"] * case["n"] * case["k"],
    tolerance={"fp32": 3e-6, "fp16": 1e-3, "bf16": 6e-3},
    opt_in=True,
)
