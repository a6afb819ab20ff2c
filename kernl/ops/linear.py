"""Linear layer with its epilogue: bias, activation, residual and limit in the same kernel.

    out = clamp(activation(x · weightᵀ + bias) + residual, -limit, limit)

Each program computes one (BLOCK_M, BLOCK_N) tile of the output in float32. Programs are numbered
in groups of GROUP_M rows of tiles, so that those that run together read the same blocks of weight
and x while they are in L2. float32 inputs are multiplied in float32 (no tf32).

Source: the order of the tiles is the grouped ordering of Triton's matrix multiplication tutorial,
https://triton-lang.org/main/getting-started/tutorials/03-matrix-multiplication.html.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl

from kernl import checks, launch
from kernl.launch import Launch, LibraryCall, Plan, cdiv
from kernl.op import Op
from kernl.ops.activation import ACTIVATIONS, activation_reference
from kernl.ops.dependent import prefetch_rows, wait_for_inputs
from kernl.ops.epilogue import Epilogue, finish, finish_launch
from kernl.ops.grouped import grouped_tile
from kernl.ops.linear_cases import EDGES, bytes_moved, linear_dims, linear_inputs
from kernl.ops.linear_config import BY_TMA, LIBRARY, LINEAR_TUNABLE, LinearConfig
from kernl.ops.linear_gemv import gemv_steps
from kernl.ops.linear_spellings import linear_spellings
from kernl.ops.linear_split_tma import split_tma_launch
from kernl.ops.linear_tma import describable, reachable, tma_steps
from kernl.ops.linear_wave import wave_steps
from kernl.ops.product import Product
from kernl.ops.rows import as_rows
from kernl.ops.tile import multiprocessors
from kernl.tuning import choose


def linear_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
    limit: float | None = None,
) -> torch.Tensor:
    """What a PyTorch user would write."""
    out = torch.nn.functional.linear(x, weight, bias)
    out = activation_reference(out, activation)
    out = out if residual is None else out + residual
    return out if limit is None else out.clamp(-limit, limit)


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
    k_per_split,
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
    STRIDE_UNIT: tl.constexpr,
    BESIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    LIMIT: tl.constexpr = None,
    PDL: tl.constexpr = False,
):
    """The shapes: x (m, k), weight (n, k), residual (m, n), out (splits, m, n).

    EVEN_K: BLOCK_K divides k. Row strides count units of STRIDE_UNIT elements. The rows of a
    transposed weight lie side by side, BESIDE of them without a gap.
    """
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    tile_m, tile_n = grouped_tile(tl.program_id(0), tiles_m, tiles_n, GROUP_M)
    m_offs = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n_offs = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    k_offs = tl.arange(0, BLOCK_K)

    split = tl.program_id(1)
    k_first = split * k_per_split
    k_last = tl.minimum(k_first + k_per_split, k)
    # Past the end the first row is read again: no load needs a mask, and no such sum is stored.
    x_rows = tl.where(m_offs < m, m_offs, 0).to(tl.int64)[:, None] * stride_x_m * STRIDE_UNIT
    weight_rows = tl.where(n_offs < n, n_offs, 0)
    if BESIDE > 1:  # which the compiler cannot see through `where`: it would load one by one
        weight_rows = tl.max_contiguous(tl.multiple_of(weight_rows, BESIDE), BESIDE)
    weight_rows = weight_rows.to(tl.int64) * stride_weight_n * STRIDE_UNIT
    if stride_weight_k == 1 and tile_m == 0:  # the other programs read what this one asks for
        prefetch_rows(weight_ptr + weight_rows, k_first, k_last, PDL)
    wait_for_inputs(PDL)
    x_ptrs = x_ptr + x_rows + (k_first + k_offs).to(tl.int64)[None, :] * stride_x_k
    weight_ptrs = weight_ptr + weight_rows[None, :]
    weight_ptrs += (k_first + k_offs).to(tl.int64)[:, None] * stride_weight_k

    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for _ in range((k_last - k_first) // BLOCK_K):
        x, weight = tl.load(x_ptrs), tl.load(weight_ptrs)
        acc = tl.dot(x, weight, acc, input_precision="ieee")
        x_ptrs += BLOCK_K * stride_x_k
        weight_ptrs += BLOCK_K * stride_weight_k
    if not EVEN_K:
        k_mask = k_offs < (k_last - k_first) % BLOCK_K
        x = tl.load(x_ptrs, mask=k_mask[None, :], other=0.0)
        weight = tl.load(weight_ptrs, mask=k_mask[:, None], other=0.0)
        acc = tl.dot(x, weight, acc, input_precision="ieee")

    finish(
        acc,
        m_offs,
        n_offs,
        m,
        n,
        bias_ptr,
        residual_ptr,
        out_ptr + split.to(tl.int64) * m * n,
        stride_bias,
        stride_residual_m,
        stride_residual_n,
        ACTIVATION,
        HAS_BIAS,
        HAS_RESIDUAL,
        LIMIT,
    )


def linear_plan(
    capability: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
    limit: float | None = None,
) -> Plan:
    """The output, contiguous, and the steps on the path that `choose_config` names."""
    flat = as_rows(x)
    out = empty_output(x, weight)
    if flat.shape[0] == 0:
        return Plan((out,), ())
    flat_residual = None if residual is None else as_rows(residual)
    flat_out = out.view(flat.shape[0], weight.shape[0])
    product = Product(flat, weight, flat_out, Epilogue(bias, activation, flat_residual, limit))
    config = choose_config(capability, product)
    if config.path == "tma":
        return Plan((out,), tma_steps(product, config, multiprocessors(capability)))
    return Plan((out,), _STEPS[config.path](product, config))


def choose_config(capability: int, product: Product) -> LinearConfig:
    """How this product is computed: on which path, with which blocks."""
    m, n, k = product.sizes
    config = choose(
        LINEAR_TUNABLE,
        capability,
        product.x.device,
        bits=8 * product.x.itemsize,
        aligned=int(product.aligned),
        extra_pass=int(product.epilogue.left_by_library is not None),
        m=m,
        n=n,
        k=k,
    )
    # The same blocks without the TMA, where it cannot reach the operands as they lie.
    if config.path in BY_TMA and not describable(product):
        # Blocks of a tile are powers of two wide.
        block_n = 1 << (config.block_n.bit_length() - 1)
        return config._replace(path="tile", block_n=block_n)
    # A row of a transposed weight lies in pieces of one element, and this path reads rows.
    return LIBRARY if config.path == "gemv" and product.beside > 1 else config


def _tile(product: Product, config: LinearConfig) -> tuple[Launch, ...]:
    return (_products(product, config, product.out, product.epilogue, splits=1),)


def _split(product: Product, config: LinearConfig) -> tuple[Launch, ...]:
    partial, products = split_products(product, config)
    return (products, finish_launch(product.out, partial, product.epilogue))


def split_products(product: Product, config: LinearConfig) -> tuple[torch.Tensor, Launch]:
    """(splits, m, n) in float32, whose sum is the product, and the launch that fills it."""
    m, n, k = product.sizes
    blocks = cdiv(k, config.block_k)
    # As many programs as have work: 5 blocks for 4 programs are 2 + 2 + 1.
    splits = cdiv(blocks, cdiv(blocks, config.split_k))
    partial = product.x.new_empty((splits, m, n), dtype=torch.float32)
    if config.path == "split_tma" and reachable(product.x, product.weight):
        return partial, split_tma_launch(product, config, partial)
    return partial, _products(product, config, partial, Epilogue(None, "none", None), splits)


_STEPS: dict[str, Callable[[Product, LinearConfig], tuple[Launch | LibraryCall, ...]]] = {
    "tile": _tile,
    "split": _split,
    "gemv": gemv_steps,
    "wave": wave_steps,
    "library": lambda product, _: library_steps(product),
}


def library_steps(product: Product) -> tuple[Launch | LibraryCall, ...]:
    """cuBLAS adds a bias or a residual itself; a second pass does what it leaves over."""
    epilogue, weight = product.epilogue, product.weight.t()
    added = epilogue.added_by_library
    out = {"out": product.out}
    if added is None:
        call = LibraryCall(torch.mm, (product.x, weight), out)
    else:
        call = LibraryCall(torch.addmm, (added, product.x, weight), out)
    left = epilogue.left_by_library
    return (call,) if left is None else (call, finish_launch(product.out, product.out, left))


def _products(
    product: Product, config: LinearConfig, out: torch.Tensor, epilogue: Epilogue, splits: int
) -> Launch:
    m, n, k = product.sizes
    k_per_split = cdiv(cdiv(k, config.block_k), splits) * config.block_k
    return Launch(
        kernel=_linear_kernel,
        grid=(cdiv(m, config.block_m) * cdiv(n, config.block_n), splits),
        args={
            **product.operands,
            **epilogue.args(product.x),
            "out_ptr": out,
            "m": m,
            "n": n,
            "k": k,
            "k_per_split": k_per_split,
        },
        constants={
            **epilogue.constants,
            "EVEN_K": k % config.block_k == 0,
            "STRIDE_UNIT": product.stride_unit,
            "BESIDE": product.beside,
            "BLOCK_M": config.block_m,
            "BLOCK_N": config.block_n,
            "BLOCK_K": config.block_k,
            "GROUP_M": 8,
        },
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )


def empty_output(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Room for (…, n) in the dtype of x (…, k), n being the rows of the weight."""
    return torch.empty((*x.shape[:-1], weight.shape[0]), dtype=x.dtype, device=x.device)


@torch.library.custom_op("kernl::linear", mutates_args=())
def _linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    activation: str,
    residual: torch.Tensor | None,
    limit: float | None,
) -> torch.Tensor:
    plan = linear_plan(launch.capability(x.device), x, weight, bias, activation, residual, limit)
    return plan.run()[0]


@_linear.register_fake
def _linear_fake(x: torch.Tensor, weight: torch.Tensor, *_: object) -> torch.Tensor:
    return empty_output(x, weight)


def check_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
    limit: float | None = None,
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
    if limit is not None:
        checks.number("linear", "limit", limit)


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
    residual: torch.Tensor | None = None,
    limit: float | None = None,
) -> torch.Tensor:
    """`activation(x @ weight.T + bias) + residual`, accumulated in float32.

    Args:
        x: (…, k), any strides, fp16, bf16 or fp32. A batch of size 0 gives an empty result.
        weight: (n, k), as `torch.nn.Linear` keeps it, any strides.
        bias: (n,) or None.
        activation: one of `ACTIVATIONS`; `gelu` is the exact one, by erf.
        residual: (…, n), added last, or None.
        limit: what the result is clamped to, ±limit, 0 or more, or None; NaN stays NaN.

    Returns:
        (…, n), contiguous, in the dtype of `x`.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_linear(x, weight, bias, activation, residual, limit)
    return _linear(x, weight, bias, activation, residual, None if limit is None else float(limit))


LINEAR = Op(
    name="linear",
    kernel=linear,
    reference=linear_reference,
    plan=linear_plan,
    check=check_linear,
    dims=linear_dims,
    inputs=linear_inputs,
    edges=EDGES,
    bytes=bytes_moved,
    flops=lambda case: 2 * case["m"] * case["n"] * case["k"],
    tolerance={"fp32": 3e-6, "fp16": 5e-4, "bf16": 4e-3},
    spellings=linear_spellings(linear),
)
