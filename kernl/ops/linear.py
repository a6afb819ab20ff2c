"""Linear layer with its epilogue: bias, activation and residual in the same kernel.

    out = activation(x · weightᵀ + bias) + residual

Each program computes one (BLOCK_M, BLOCK_N) tile of the output in float32. Programs are numbered
in groups of GROUP_M rows of tiles, so that those that run together read the same blocks of weight
and x while they are in L2. float32 inputs are multiplied in float32 (no tf32).

Source: the order of the tiles is the grouped ordering of Triton's matrix multiplication tutorial,
https://triton-lang.org/main/getting-started/tutorials/03-matrix-multiplication.html.
"""

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl

from kernl import checks, launch
from kernl.launch import Launch, Plan, cdiv
from kernl.op import Case, Dims, Op
from kernl.ops.activation import ACTIVATIONS, activate, activation_reference
from kernl.ops.rows import as_rows
from kernl.ops.tile import choose_tile
from kernl.shapes import ModelShape, Workload


def linear_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """What a PyTorch user would write."""
    out = torch.nn.functional.linear(x, weight, bias)
    out = activation_reference(out, activation)
    return out if residual is None else out + residual


@triton.jit
def _grouped_tile(program, tiles_m, tiles_n, GROUP_M: tl.constexpr):
    """Which tile (row, column) this program takes, in groups of GROUP_M rows of tiles."""
    group_size = GROUP_M * tiles_n
    first_m = (program // group_size) * GROUP_M
    rows_in_group = tl.minimum(tiles_m - first_m, GROUP_M)
    tile_m = first_m + (program % group_size) % rows_in_group
    tile_n = (program % group_size) // rows_in_group
    return tile_m, tile_n


@triton.jit
def _linear_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    residual_ptr,
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
    ACTIVATION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """The shapes: x (m, k), weight (n, k), residual and out (m, n); EVEN_K: BLOCK_K divides k."""
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    tile_m, tile_n = _grouped_tile(tl.program_id(0), tiles_m, tiles_n, GROUP_M)
    m_offs = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n_offs = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    k_offs = tl.arange(0, BLOCK_K)
    m_mask, n_mask = m_offs < m, n_offs < n

    x_rows = m_offs.to(tl.int64)[:, None] * stride_x_m
    weight_rows = n_offs.to(tl.int64)[None, :] * stride_weight_n
    x_ptrs = x_ptr + x_rows + k_offs[None, :] * stride_x_k
    weight_ptrs = weight_ptr + weight_rows + k_offs[:, None] * stride_weight_k

    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        if EVEN_K:
            x = tl.load(x_ptrs, mask=m_mask[:, None], other=0.0)
            weight = tl.load(weight_ptrs, mask=n_mask[None, :], other=0.0)
        else:
            k_mask = k_offs < k - start
            x = tl.load(x_ptrs, mask=m_mask[:, None] & k_mask[None, :], other=0.0)
            weight = tl.load(weight_ptrs, mask=k_mask[:, None] & n_mask[None, :], other=0.0)
        acc = tl.dot(x, weight, acc, input_precision="ieee")
        x_ptrs += BLOCK_K * stride_x_k
        weight_ptrs += BLOCK_K * stride_weight_k

    if HAS_BIAS:
        bias = tl.load(bias_ptr + n_offs.to(tl.int64) * stride_bias, mask=n_mask, other=0.0)
        acc += bias.to(tl.float32)[None, :]
    acc = activate(acc, ACTIVATION)

    out_mask = m_mask[:, None] & n_mask[None, :]
    if HAS_RESIDUAL:
        residual_rows = m_offs.to(tl.int64)[:, None] * stride_residual_m
        residual_ptrs = residual_ptr + residual_rows + n_offs[None, :] * stride_residual_n
        acc += tl.load(residual_ptrs, mask=out_mask, other=0.0).to(tl.float32)
    out_ptrs = out_ptr + m_offs.to(tl.int64)[:, None] * n + n_offs[None, :]
    tl.store(out_ptrs, acc.to(out_ptr.dtype.element_ty), mask=out_mask)


def linear_plan(
    capability: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
) -> Plan:
    """The output, contiguous, and its one launch."""
    flat = as_rows(x)
    m, k = flat.shape
    n = weight.shape[0]
    out = _empty_output(x, weight)
    if m == 0:
        return Plan((out,), ())

    # Absent tensors are stood in for by x: their pointers are never read.
    flat_residual = flat if residual is None else as_rows(residual)
    tile = choose_tile(m, n, x.dtype, capability)
    linear_launch = Launch(
        kernel=_linear_kernel,
        grid=(cdiv(m, tile.block_m) * cdiv(n, tile.block_n),),
        args={
            "x_ptr": flat,
            "weight_ptr": weight,
            "bias_ptr": flat if bias is None else bias,
            "residual_ptr": flat_residual,
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
        },
        constants={
            "ACTIVATION": activation,
            "HAS_BIAS": bias is not None,
            "HAS_RESIDUAL": residual is not None,
            "EVEN_K": k % tile.block_k == 0,
            "BLOCK_M": tile.block_m,
            "BLOCK_N": tile.block_n,
            "BLOCK_K": tile.block_k,
            "GROUP_M": 8,
        },
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return Plan((out,), (linear_launch,))


def _empty_output(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.empty((*x.shape[:-1], weight.shape[0]), dtype=x.dtype, device=x.device)


@torch.library.custom_op("kernl::linear", mutates_args=())
def _linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    activation: str,
    residual: torch.Tensor | None,
) -> torch.Tensor:
    plan = linear_plan(launch.capability(x.device), x, weight, bias, activation, residual)
    return plan.run()[0]


@_linear.register_fake
def _linear_fake(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    activation: str,
    residual: torch.Tensor | None,
) -> torch.Tensor:
    return _empty_output(x, weight)


def check_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
) -> None:
    """Raise a `kernl.errors.KernlError` where `linear` does not take these arguments."""
    checks.tensors("linear", _linear_kernel, x=x, weight=weight)
    checks.tensors("linear", _linear_kernel, x=x, bias=bias, residual=residual)
    checks.option("linear", "activation", activation, ACTIVATIONS)
    checks.at_least("linear", "x", x, 1)
    checks.matrix("linear", "weight", weight, x.shape[-1], "the last dimension of x")
    checks.positive("linear", "the last dimension of x", x.shape[-1])
    checks.positive("linear", "the first dimension of weight", weight.shape[0])
    if bias is not None:
        checks.shape("linear", "bias", bias, (weight.shape[0],), "the first dimension of weight")
    if residual is not None:
        out_shape = (*x.shape[:-1], weight.shape[0])
        checks.shape("linear", "residual", residual, out_shape, "the shape of the output")


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """`activation(x @ weight.T + bias) + residual`, accumulated in float32.

    Args:
        x: (…, k), any strides, fp16, bf16 or fp32. A batch of size 0 gives an empty result.
        weight: (n, k), as `torch.nn.Linear` keeps it, any strides.
        bias: (n,) or None.
        activation: one of `ACTIVATIONS`; `gelu` is the exact one, by erf.
        residual: (…, n), added last, or None.

    Returns:
        (…, n), contiguous, in the dtype of `x`.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_linear(x, weight, bias, activation, residual)
    return _linear(x, weight, bias, activation, residual)


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    m, hidden, inner, bias = workload.tokens, model.hidden, model.intermediate, model.bias
    plain: Dims = {"bias": bias, "activation": "none", "residual": False}
    activated = {**plain, "activation": model.activation}
    added = {**plain, "residual": True}
    yield {"m": m, "n": hidden, "k": hidden, **plain}
    yield {"m": m, "n": hidden, "k": hidden, **added}
    yield {"m": m, "n": inner, "k": hidden, **activated}
    yield {"m": m, "n": hidden, "k": inner, **added}


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
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


def _bytes(case: Case) -> int:
    m, n, k = case["m"], case["n"], case["k"]
    outputs = 2 * m * n if case["residual"] else m * n
    return (m * k + n * k + outputs + (n if case["bias"] else 0)) * int(case.itemsize)


def _spelled_functional(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.linear(x, weight, bias)


def _spelled_gelu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(torch.nn.functional.linear(x, weight, bias))


LINEAR = Op(
    name="linear",
    kernel=linear,
    reference=linear_reference,
    plan=linear_plan,
    check=check_linear,
    dims=_dims,
    inputs=_inputs,
    edges=tuple(
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
        )
    ),
    bytes=_bytes,
    flops=lambda case: 2 * case["m"] * case["n"] * case["k"],
    tolerance={"fp32": 3e-6, "fp16": 5e-4, "bf16": 4e-3},
    spellings=(_spelled_functional, _spelled_gelu),
)
