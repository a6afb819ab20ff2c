"""The first half of a gated MLP: two linear layers of one input, one activated, times the other.

    out = activation(x · gateᵀ + gate_bias) · (x · upᵀ + up_bias)

Both weights lie in one tensor, gate above up. On the path `fused` each program walks over k once
and computes the same (BLOCK_M, BLOCK_N) tile of both products in float32: x is read once for the
two, and neither product goes through memory. The path `tma` does so by Hopper's copy engine
(`kernl/ops/linear_glu_tma.py`). The path `two` leaves both products to `linear`, and a second
kernel activates and multiplies. `kernl/ops/linear_glu_config.py` says which is taken.

Source: Shazeer, "GLU Variants Improve Transformer", 2020, https://arxiv.org/abs/2002.05202.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl

from kernl import checks, launch
from kernl.errors import ShapeError
from kernl.launch import Launch, Plan, cdiv
from kernl.op import Case, Dims, Op
from kernl.ops.activation import activation_reference
from kernl.ops.dependent import prefetch_rows, wait_for_inputs
from kernl.ops.epilogue import Epilogue
from kernl.ops.gated import GELUS, geglu_plan, swiglu_plan
from kernl.ops.grouped import grouped_tile
from kernl.ops.linear import linear_plan
from kernl.ops.linear_glu_config import LINEAR_GLU_TUNABLE, GluConfig
from kernl.ops.linear_glu_tma import finish_gated, glu_tma_step
from kernl.ops.linear_tma import reachable
from kernl.ops.product import Product
from kernl.ops.rows import as_rows
from kernl.ops.tile import VECTOR_BYTES, rows_aligned
from kernl.shapes import ModelShape, Workload
from kernl.tuning import choose

GATES = ("silu", *GELUS)
"""The activations of `swiglu` and of `geglu`."""


def linear_glu_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "silu",
) -> torch.Tensor:
    """What a PyTorch user would write."""
    gate, up = torch.nn.functional.linear(x, weight, bias).chunk(2, dim=-1)
    return activation_reference(gate, activation) * up


@triton.jit
def _linear_glu_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    m,
    n,
    k,
    stride_x_m,
    stride_x_k,
    stride_weight_n,
    stride_weight_k,
    stride_bias,
    ACTIVATION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    EVEN_K: tl.constexpr,
    STRIDE_UNIT: tl.constexpr,
    K_UNIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    PDL: tl.constexpr = False,
):
    """The shapes: x (m, k), weight (2n, k) and bias (2n,), gate in front of up, out (m, n).

    EVEN_K: BLOCK_K divides k. Row strides count units of STRIDE_UNIT elements; K_UNIT divides k.
    """
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    tile_m, tile_n = grouped_tile(tl.program_id(0), tiles_m, tiles_n, GROUP_M)
    m_offs = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n_offs = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    k_offs = tl.arange(0, BLOCK_K)

    # Past the end the first row is read again: no load needs a mask, and no such sum is stored.
    x_rows = tl.where(m_offs < m, m_offs, 0).to(tl.int64)[:, None] * stride_x_m * STRIDE_UNIT
    weight_rows = tl.where(n_offs < n, n_offs, 0).to(tl.int64) * stride_weight_n * STRIDE_UNIT
    to_up = tl.cast(n, tl.int64) * stride_weight_n * STRIDE_UNIT
    if stride_weight_k == 1 and tile_m == 0:  # the other programs read what this one asks for
        prefetch_rows(weight_ptr + weight_rows, 0, k, PDL)
        prefetch_rows(weight_ptr + to_up + weight_rows, 0, k, PDL)
    wait_for_inputs(PDL)
    x_ptrs = x_ptr + x_rows + k_offs.to(tl.int64)[None, :] * stride_x_k
    gate_ptrs = weight_ptr + weight_rows[None, :]
    gate_ptrs += k_offs.to(tl.int64)[:, None] * stride_weight_k

    gate = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    up = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for _ in range(k // BLOCK_K):
        x = tl.load(x_ptrs)
        gate = tl.dot(x, tl.load(gate_ptrs), gate, input_precision="ieee")
        up = tl.dot(x, tl.load(gate_ptrs + to_up), up, input_precision="ieee")
        x_ptrs += BLOCK_K * stride_x_k
        gate_ptrs += BLOCK_K * stride_weight_k
    if not EVEN_K:
        # So written, Triton sees that the mask is the same for whole vectors.
        k_mask = k_offs < k % BLOCK_K // K_UNIT * K_UNIT
        x = tl.load(x_ptrs, mask=k_mask[None, :], other=0.0)
        gate_weight = tl.load(gate_ptrs, mask=k_mask[:, None], other=0.0)
        gate = tl.dot(x, gate_weight, gate, input_precision="ieee")
        up_weight = tl.load(gate_ptrs + to_up, mask=k_mask[:, None], other=0.0)
        up = tl.dot(x, up_weight, up, input_precision="ieee")

    # fmt: off
    finish_gated(
        gate, up, m_offs, n_offs, m, n, bias_ptr, out_ptr, stride_bias, ACTIVATION, HAS_BIAS,
    )
    # fmt: on


def linear_glu_plan(
    capability: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "silu",
) -> Plan:
    """The output, contiguous, and the launches of the path that `choose_config` names."""
    flat = as_rows(x)
    if flat.shape[0] == 0:
        return Plan((_empty_output(x, weight),), ())
    config = choose_config(capability, flat, weight)
    if config.path == "two":
        return _two(capability, x, weight, bias, activation)
    out = _empty_output(x, weight)
    flat_out = out.view(flat.shape[0], weight.shape[0] // 2)
    product = Product(flat, weight, flat_out, Epilogue(bias, activation, None))
    if config.path == "tma" and reachable(flat, weight):
        return Plan((out,), (glu_tma_step(product, config),))
    return Plan((out,), (_fused(product, config._replace(block_n=config.widths[0])),))


def choose_config(capability: int, x: torch.Tensor, weight: torch.Tensor) -> GluConfig:
    """How x (m, k) and the packed weight (2n, k) are multiplied: in one kernel or in two."""
    rows, k = weight.shape
    return choose(
        LINEAR_GLU_TUNABLE,
        capability,
        x.device,
        bits=8 * x.itemsize,
        aligned=int(rows_aligned(x, weight) and k * x.itemsize % VECTOR_BYTES == 0),
        m=x.shape[0],
        n=rows // 2,
        k=k,
    )


def _two(
    capability: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    activation: str,
) -> Plan:
    """Both products side by side in memory, in the dtype of x, then the gated activation."""
    packed = linear_plan(capability, x, weight, bias)
    (products,) = packed.outputs
    if activation == "silu":
        gated = swiglu_plan(capability, products)
    else:
        gated = geglu_plan(capability, products, None, activation)
    return Plan(gated.outputs, (*packed.launches, *gated.launches))


def _fused(product: Product, config: GluConfig) -> Launch:
    x, bias, out = product.x, product.epilogue.bias, product.out
    (m, k), n = x.shape, out.shape[1]
    return Launch(
        kernel=_linear_glu_kernel,
        grid=(cdiv(m, config.block_m) * cdiv(n, config.block_n),),
        args={
            **product.operands,
            "bias_ptr": x if bias is None else bias,
            "stride_bias": 1 if bias is None else bias.stride(0),
            "out_ptr": out,
            "m": m,
            "n": n,
            "k": k,
        },
        constants={
            "ACTIVATION": product.epilogue.activation,
            "HAS_BIAS": bias is not None,
            "EVEN_K": k % config.block_k == 0,
            "STRIDE_UNIT": product.stride_unit,
            "K_UNIT": math.gcd(k, VECTOR_BYTES // x.itemsize),
            "BLOCK_M": config.block_m,
            "BLOCK_N": config.block_n,
            "BLOCK_K": config.block_k,
            "GROUP_M": 8,
        },
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )


def _empty_output(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Room for (…, n) in the dtype of x (…, k), the weight having 2n rows."""
    return torch.empty((*x.shape[:-1], weight.shape[0] // 2), dtype=x.dtype, device=x.device)


@torch.library.custom_op("kernl::linear_glu", mutates_args=())
def _linear_glu(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activation: str
) -> torch.Tensor:
    return linear_glu_plan(launch.capability(x.device), x, weight, bias, activation).run()[0]


@_linear_glu.register_fake
def _linear_glu_fake(x: torch.Tensor, weight: torch.Tensor, *_: object) -> torch.Tensor:
    return _empty_output(x, weight)


def check_linear_glu(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "silu",
) -> None:
    """Raise a `kernl.errors.KernlError` where `linear_glu` does not take these arguments."""
    checks.tensors("linear_glu", _linear_glu_kernel, x=x, weight=weight)
    checks.tensors("linear_glu", _linear_glu_kernel, x=x, bias=bias)
    checks.option("linear_glu", "activation", activation, GATES)
    checks.at_least("linear_glu", "x", x, 1)
    checks.matrix("linear_glu", "weight", weight, x.shape[-1], "the last dimension of x")
    checks.positive("linear_glu", "the last dimension of x", x.shape[-1])
    rows = weight.shape[0]
    checks.positive("linear_glu", "the first dimension of weight", rows)
    if rows % 2:
        raise ShapeError(
            seen=f"linear_glu: weight has {rows} rows",
            allowed="an even number of them: those of gate, then as many of up",
            action="pack both weights by torch.cat([gate, up])",
        )
    if bias is not None:
        checks.shape("linear_glu", "bias", bias, (rows,), "the first dimension of weight")


def linear_glu(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "silu",
) -> torch.Tensor:
    """`activation(x @ gate.T + gate_bias) * (x @ up.T + up_bias)`, accumulated in float32.

    Args:
        x: (…, k), any strides, fp16, bf16 or fp32. A batch of size 0 gives an empty result.
        weight: (2n, k), the rows of gate and then those of up, any strides.
        bias: (2n,) in the same order, or None.
        activation: "silu", "gelu", by erf, or "gelu_tanh".

    Returns:
        (…, n), contiguous, in the dtype of `x`. Whether both products are rounded to that dtype
        before they are multiplied depends on the path.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_linear_glu(x, weight, bias, activation)
    return _linear_glu(x, weight, bias, activation)


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    if not model.gated:
        return
    options: Dims = {"bias": model.bias, "activation": model.activation}
    # A step of decoding has one token of each sequence.
    for m in (workload.batch, workload.tokens) if model.causal else (workload.tokens,):
        yield {"m": m, "n": model.intermediate, "k": model.hidden, **options}


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(seed)

    def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
        values = torch.randn(shape, generator=generator, device=device)
        return (scale * values).to(case.torch_dtype)

    m, n, k = case["m"], case["n"], case["k"]
    return {
        "x": random(m, k),
        "weight": random(2 * n, k, scale=k**-0.5),
        "bias": random(2 * n) if case["bias"] else None,
        "activation": case["activation"],
    }


def _bytes(case: Case) -> int:
    m, n, k = case["m"], case["n"], case["k"]
    return (m * k + 2 * n * k + m * n + (2 * n if case["bias"] else 0)) * int(case.itemsize)


LINEAR_GLU = Op(
    name="linear_glu",
    kernel=linear_glu,
    reference=linear_glu_reference,
    plan=linear_glu_plan,
    check=check_linear_glu,
    dims=_dims,
    inputs=_inputs,
    edges=tuple(
        {"m": m, "n": n, "k": k, "bias": bias, "activation": activation}
        for m, n, k, bias, activation in (
            (1, 1, 1, False, "silu"),
            (1, 17, 33, True, "gelu"),
            (3, 129, 65, True, "gelu_tanh"),
            (17, 31, 127, False, "gelu_tanh"),
            (33, 257, 100, False, "silu"),
            (65, 63, 129, True, "silu"),
            (129, 130, 257, True, "gelu"),
            (16, 96, 1000, False, "gelu"),
            (5, 48, 1100, True, "silu"),
            (9, 40, 200, True, "gelu_tanh"),
        )
    ),
    bytes=_bytes,
    # Two products, and for each element of the output the 5 of a gated activation.
    flops=lambda case: case["m"] * case["n"] * (4 * case["k"] + 5),
    tolerance={"fp32": 3e-6, "fp16": 6e-4, "bf16": 5e-3},
)
