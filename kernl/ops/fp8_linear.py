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
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from kernl import checks, launch
from kernl.launch import Launch, LibraryCall, Plan, cdiv, next_power_of_2
from kernl.op import Case, Dims, Op
from kernl.ops.activation import ACTIVATIONS, activation_reference
from kernl.ops.epilogue import Epilogue, finish
from kernl.ops.grouped import grouped_tile
from kernl.ops.linear import empty_output
from kernl.ops.rows import as_rows
from kernl.ops.tile import (
    MOST_UNALIGNED_ELEMENTS,
    accumulators_limit,
    rows_aligned,
    shared_memory_limit,
)
from kernl.shapes import ModelShape, Workload
from kernl.tuning import Key, Tunable, choose

LARGEST = tl.constexpr(448.0)
"""The largest number of e4m3."""
_SMALLEST_SCALE = tl.constexpr(1e-30)


def quantize_fp8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, cols) in e4m3 and (rows,) float32 scales, by each row's largest absolute value."""
    exact = x.float()
    largest = exact.abs().amax(-1)
    # By a tensor: on a GPU PyTorch multiplies by the reciprocal of a number, which rounds twice.
    scale = (largest / torch.full_like(largest, LARGEST.value)).clamp_min(_SMALLEST_SCALE.value)
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


@triton.jit
def _quantize_kernel(
    x_ptr,
    out_ptr,
    scale_ptr,
    cols,
    stride_x_row,
    stride_x_col,
    BLOCK_COLS: tl.constexpr,
):
    """One row of x (rows, cols) as e4m3, and its scale; walked twice, then from cache."""
    row = tl.program_id(0).to(tl.int64)
    x_row_ptr = x_ptr + row * stride_x_row
    lane_max = tl.zeros((BLOCK_COLS,), tl.float32)
    for start in range(0, cols, BLOCK_COLS):
        col_offs = start + tl.arange(0, BLOCK_COLS)
        x = tl.load(x_row_ptr + col_offs * stride_x_col, mask=col_offs < cols, other=0.0)
        lane_max = tl.maximum(lane_max, tl.abs(x.to(tl.float32)))
    scale = tl.maximum(tl.div_rn(tl.max(lane_max, axis=0), LARGEST), _SMALLEST_SCALE)
    tl.store(scale_ptr + row, scale)
    for start in range(0, cols, BLOCK_COLS):
        col_offs = start + tl.arange(0, BLOCK_COLS)
        mask = col_offs < cols
        x = tl.load(x_row_ptr + col_offs * stride_x_col, mask=mask, other=0.0).to(tl.float32)
        x = tl.div_rn(x, tl.broadcast_to(scale, (BLOCK_COLS,)))
        # The largest may end up a little above 448. e4m3 has no infinity: it becomes NaN.
        held = tl.minimum(tl.maximum(x, -LARGEST), LARGEST)
        x = tl.where(tl.abs(x) < float("inf"), held, float("nan"))
        tl.store(out_ptr + row * cols + col_offs, x.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _fp8_linear_kernel(
    x_ptr,
    weight_ptr,
    x_scale_ptr,
    weight_scale_ptr,
    bias_ptr,
    residual_ptr,
    out_ptr,
    m,
    n,
    k,
    stride_weight_n,
    stride_weight_k,
    stride_weight_scale,
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
    """x (m, k) contiguous, weight (n, k), x_scale (m,), weight_scale (n,), out (m, n)."""
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    tile_m, tile_n = grouped_tile(tl.program_id(0), tiles_m, tiles_n, GROUP_M)
    m_offs = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n_offs = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    k_offs = tl.arange(0, BLOCK_K)
    # Past the end the first row is read again: only k needs a mask, and no such sum is stored.
    rows = tl.where(m_offs < m, m_offs, 0)
    columns = tl.where(n_offs < n, n_offs, 0)
    x_ptrs = x_ptr + rows.to(tl.int64)[:, None] * k + k_offs[None, :]
    weight_ptrs = weight_ptr + columns.to(tl.int64)[None, :] * stride_weight_n
    weight_ptrs += k_offs.to(tl.int64)[:, None] * stride_weight_k

    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        if EVEN_K:
            x, weight = tl.load(x_ptrs), tl.load(weight_ptrs)
        else:
            mask = start + k_offs < k
            x = tl.load(x_ptrs, mask=mask[None, :], other=0.0)
            weight = tl.load(weight_ptrs, mask=mask[:, None], other=0.0)
        acc += tl.dot(x, weight)
        x_ptrs += BLOCK_K
        weight_ptrs += BLOCK_K * stride_weight_k

    x_scale = tl.load(x_scale_ptr + rows)
    weight_scale = tl.load(weight_scale_ptr + columns.to(tl.int64) * stride_weight_scale)
    acc *= x_scale[:, None] * weight_scale.to(tl.float32)[None, :]
    # fmt: off
    finish(
        acc, m_offs, n_offs, m, n, bias_ptr, residual_ptr, out_ptr,
        stride_bias, stride_residual_m, stride_residual_n, ACTIVATION, HAS_BIAS, HAS_RESIDUAL,
    )
    # fmt: on


class Fp8Config(NamedTuple):
    """A block of (block_m, block_n) outputs, block_k of k at a time."""

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int


_LARGE = (Fp8Config(128, 128, 128, 8, 3), Fp8Config(128, 256, 128, 8, 3))
_SMALL = (
    Fp8Config(64, 128, 128, 4, 3),
    Fp8Config(64, 64, 128, 4, 3),
    Fp8Config(64, 64, 256, 4, 3),
    Fp8Config(32, 64, 128, 4, 3),
    Fp8Config(16, 64, 256, 4, 3),
    Fp8Config(16, 32, 256, 4, 3),
)


_UNALIGNED = (Fp8Config(32, 32, 64, 4, 2), Fp8Config(16, 32, 64, 4, 2))


def _default(capability: int, key: Key) -> Fp8Config:
    m, n = int(key["m"]), int(key["n"])
    if not key["aligned"]:
        return _UNALIGNED[0 if m > 16 else 1]
    if m > 64 and cdiv(m, 128) * cdiv(n, 128) >= 128 and capability >= 90:
        return _LARGE[0]
    block_m = min(64, max(16, next_power_of_2(m)))
    return Fp8Config(block_m, 64, 128, 4, 3 if capability >= 90 else 2)


def _candidates(capability: int, key: Key) -> Iterator[Fp8Config]:
    tallest = max(16, next_power_of_2(int(key["m"])))
    blocks = (*_LARGE, *_SMALL) if key["aligned"] else _UNALIGNED
    yield from (config for config in blocks if config.block_m <= tallest)


def _fits(capability: int, key: Key, config: Fp8Config) -> bool:
    stage = (config.block_m + config.block_n) * config.block_k
    threads = 32 * config.num_warps
    sums = config.block_m * config.block_n // threads
    return (
        stage * config.num_stages <= shared_memory_limit(capability)
        and sums <= accumulators_limit(capability)
        and (bool(key["aligned"]) or stage // threads <= MOST_UNALIGNED_ELEMENTS)
    )


FP8_TUNABLE: Tunable[Fp8Config] = Tunable(
    name="fp8_linear",
    exact=("aligned",),
    sizes=("m", "n", "k"),
    config=Fp8Config,
    default=_default,
    candidates=_candidates,
    fits=_fits,
)


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
        kernel=_quantize_kernel,
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
        kernel=_fp8_linear_kernel,
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
    checks.tensors(op, _fp8_linear_kernel, x=x, bias=bias, residual=residual)
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


def _spelled_scaled(
    x: torch.Tensor, weight: torch.Tensor, weight_scale: torch.Tensor
) -> torch.Tensor:
    return torch.nn.functional.linear(x, weight.to(x.dtype) * weight_scale[:, None].to(x.dtype))


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
    spellings=(_spelled_scaled,),
    library=fp8_linear_library,
    arithmetic="fp8",
)
