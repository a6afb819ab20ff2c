"""Gated activations of an MLP: one projection, activated, times another.

    swiglu(gate, up) = silu(gate) · up
    geglu(gate, up)  = gelu(gate) · up

Both projections may come side by side in one tensor, (…, 2 · cols), gate first: that is how one
product with a packed weight leaves them. The kernel reads each element once and writes half as
many; it is bound by memory.

Source: Shazeer, "GLU Variants Improve Transformer", 2020, https://arxiv.org/abs/2002.05202.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl

from kernl import checks, launch
from kernl.launch import Launch, Plan, cdiv, next_power_of_2
from kernl.op import Case, Dims, Op, Spelling
from kernl.ops.activation import activate, activation_reference
from kernl.ops.dependent import wait_for_inputs
from kernl.ops.linear_spellings import gelu_written_out
from kernl.ops.rows import as_rows
from kernl.shapes import ModelShape, Workload

GELUS = ("gelu", "gelu_tanh")
BLOCK_COLS = 1024
"""Columns of one program: 8 halves a thread, one load of 16 bytes each, for gate and for up."""
BLOCK_ELEMENTS = 1024


def _reference(gate: torch.Tensor, up: torch.Tensor | None, activation: str) -> torch.Tensor:
    if up is None:
        gate, up = gate.chunk(2, dim=-1)
    return activation_reference(gate, activation) * up


def swiglu_reference(gate: torch.Tensor, up: torch.Tensor | None = None) -> torch.Tensor:
    """What a PyTorch user would write."""
    return _reference(gate, up, "silu")


def geglu_reference(
    gate: torch.Tensor, up: torch.Tensor | None = None, activation: str = "gelu"
) -> torch.Tensor:
    """What a PyTorch user would write."""
    return _reference(gate, up, activation)


@triton.jit
def _gated_kernel(
    gate_ptr,
    up_ptr,
    out_ptr,
    rows,
    cols,
    stride_gate_row,
    stride_gate_col,
    stride_up_row,
    stride_up_col,
    ACTIVATION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    PDL: tl.constexpr = False,
):
    """A block of (BLOCK_ROWS, BLOCK_COLS) of gate, up and out, each (rows, cols)."""
    wait_for_inputs(PDL)
    row_offs = (tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)).to(tl.int64)[:, None]
    col_offs = (tl.program_id(1) * BLOCK_COLS + tl.arange(0, BLOCK_COLS))[None, :]
    mask = (row_offs < rows) & (col_offs < cols)
    gate = tl.load(gate_ptr + row_offs * stride_gate_row + col_offs * stride_gate_col, mask=mask)
    up = tl.load(up_ptr + row_offs * stride_up_row + col_offs * stride_up_col, mask=mask)
    out = activate(gate.to(tl.float32), ACTIVATION) * up.to(tl.float32)
    tl.store(out_ptr + row_offs * cols + col_offs, out.to(out_ptr.dtype.element_ty), mask=mask)


def _halves(gate: torch.Tensor, up: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    if up is not None:
        return gate, up
    first, second = gate.chunk(2, dim=-1)
    return first, second


def _plan(gate: torch.Tensor, up: torch.Tensor | None, activation: str) -> Plan:
    gate, up = _halves(gate, up)
    out = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    flat_gate, flat_up = as_rows(gate), as_rows(up)
    rows, cols = flat_gate.shape
    if rows == 0:
        return Plan((out,), ())
    block_cols = min(BLOCK_COLS, next_power_of_2(cols))
    block_rows = min(BLOCK_ELEMENTS // block_cols, next_power_of_2(rows))
    gated = Launch(
        kernel=_gated_kernel,
        grid=(cdiv(rows, block_rows), cdiv(cols, block_cols)),
        args={
            "gate_ptr": flat_gate,
            "up_ptr": flat_up,
            "out_ptr": out,
            "rows": rows,
            "cols": cols,
            "stride_gate_row": flat_gate.stride(0),
            "stride_gate_col": flat_gate.stride(1),
            "stride_up_row": flat_up.stride(0),
            "stride_up_col": flat_up.stride(1),
        },
        constants={
            "ACTIVATION": activation,
            "BLOCK_ROWS": block_rows,
            "BLOCK_COLS": block_cols,
        },
        num_warps=4,
    )
    return Plan((out,), (gated,))


def swiglu_plan(capability: int, gate: torch.Tensor, up: torch.Tensor | None = None) -> Plan:
    """The output, contiguous, and its one launch."""
    return _plan(gate, up, "silu")


def geglu_plan(
    capability: int, gate: torch.Tensor, up: torch.Tensor | None = None, activation: str = "gelu"
) -> Plan:
    """The output, contiguous, and its one launch."""
    return _plan(gate, up, activation)


def _empty_output(gate: torch.Tensor, up: torch.Tensor | None) -> torch.Tensor:
    shape = _halves(gate, up)[0].shape
    return torch.empty(shape, dtype=gate.dtype, device=gate.device)


@torch.library.custom_op("kernl::swiglu", mutates_args=())
def _swiglu(gate: torch.Tensor, up: torch.Tensor | None) -> torch.Tensor:
    return swiglu_plan(launch.capability(gate.device), gate, up).run()[0]


@_swiglu.register_fake
def _swiglu_fake(gate: torch.Tensor, up: torch.Tensor | None) -> torch.Tensor:
    return _empty_output(gate, up)


@torch.library.custom_op("kernl::geglu", mutates_args=())
def _geglu(gate: torch.Tensor, up: torch.Tensor | None, activation: str) -> torch.Tensor:
    return geglu_plan(launch.capability(gate.device), gate, up, activation).run()[0]


@_geglu.register_fake
def _geglu_fake(gate: torch.Tensor, up: torch.Tensor | None, activation: str) -> torch.Tensor:
    return _empty_output(gate, up)


def _check(op: str, gate: torch.Tensor, up: torch.Tensor | None) -> None:
    checks.tensors(op, _gated_kernel, gate=gate, up=up)
    checks.at_least(op, "gate", gate, 1)
    checks.positive(op, "the last dimension of gate", gate.shape[-1])
    if up is None:
        checks.even(op, "the last dimension of gate, which holds both halves,", gate.shape[-1])
    else:
        checks.shape(op, "up", up, tuple(gate.shape), "the shape of gate")


def check_swiglu(gate: torch.Tensor, up: torch.Tensor | None = None) -> None:
    """Raise a `kernl.errors.KernlError` where `swiglu` does not take these arguments."""
    _check("swiglu", gate, up)


def check_geglu(
    gate: torch.Tensor, up: torch.Tensor | None = None, activation: str = "gelu"
) -> None:
    """Raise a `kernl.errors.KernlError` where `geglu` does not take these arguments."""
    _check("geglu", gate, up)
    checks.option("geglu", "activation", activation, GELUS)


def swiglu(gate: torch.Tensor, up: torch.Tensor | None = None) -> torch.Tensor:
    """`silu(gate) * up`, computed in float32.

    Args:
        gate: (…, cols), or (…, 2 · cols) with up behind it; any strides, fp16, bf16 or fp32.
        up: (…, cols), any strides, or None where `gate` holds both.

    Returns:
        (…, cols), contiguous, in the dtype of `gate`.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError: from `kernl.errors`.
    """
    check_swiglu(gate, up)
    return _swiglu(gate, up)


def geglu(
    gate: torch.Tensor, up: torch.Tensor | None = None, activation: str = "gelu"
) -> torch.Tensor:
    """`gelu(gate) * up`, computed in float32.

    Args:
        gate: (…, cols), or (…, 2 · cols) with up behind it; any strides, fp16, bf16 or fp32.
        up: (…, cols), any strides, or None where `gate` holds both.
        activation: "gelu", by erf, or "gelu_tanh", which Gemma and T5 v1.1 use.

    Returns:
        (…, cols), contiguous, in the dtype of `gate`.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_geglu(gate, up, activation)
    return _geglu(gate, up, activation)


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    if model.gated:
        for packed in (True, False):
            yield {"rows": workload.tokens, "cols": model.intermediate, "packed": packed}


def _geglu_dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    for dims in _dims(model, workload):
        yield {**dims, "activation": "gelu_tanh"}


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(seed)

    def random(cols: int) -> torch.Tensor:
        values = torch.randn(case["rows"], cols, generator=generator, device=device)
        return (2 * values).to(case.torch_dtype)

    if case["packed"]:
        return {"gate": random(2 * case["cols"]), "up": None}
    return {"gate": random(case["cols"]), "up": random(case["cols"])}


def _geglu_inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    return {**_inputs(case, device, seed), "activation": case["activation"]}


_EDGES = (
    (1, 1, False),
    (1, 17, True),
    (3, 1021, True),
    (129, 33, False),
    (2, 4097, True),
    (257, 2, False),
)


def _op(name: str, kernel: Callable[..., torch.Tensor], **rest: Any) -> Op:
    return Op(
        name=name,
        kernel=kernel,
        bytes=lambda case: 3 * case["rows"] * case["cols"] * int(case.itemsize),
        # The activation counts as four operations, whichever it is.
        flops=lambda case: 5 * case["rows"] * case["cols"],
        tolerance={"fp32": 2e-6, "fp16": 4e-4, "bf16": 3e-3},
        **rest,
    )


_TENSORS = {"gate": (2, 3, 8), "up": (2, 3, 8)}


def _spelled_swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.silu(gate) * up


def _spelled_geglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(gate) * up


def _spelled_geglu_tanh(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(gate, approximate="tanh") * up


def _spelled_geglu_written_out(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return gelu_written_out(gate) * up


SWIGLU = _op(
    "swiglu",
    swiglu,
    reference=swiglu_reference,
    plan=swiglu_plan,
    check=check_swiglu,
    dims=_dims,
    inputs=_inputs,
    edges=tuple({"rows": rows, "cols": cols, "packed": packed} for rows, cols, packed in _EDGES),
    spellings=(Spelling(_spelled_swiglu, swiglu, _TENSORS),),
)

GEGLU = _op(
    "geglu",
    geglu,
    reference=geglu_reference,
    plan=geglu_plan,
    check=check_geglu,
    dims=_geglu_dims,
    inputs=_geglu_inputs,
    edges=tuple(
        {"rows": rows, "cols": cols, "packed": packed, "activation": GELUS[place % 2]}
        for place, (rows, cols, packed) in enumerate(_EDGES)
    ),
    spellings=(
        Spelling(_spelled_geglu, geglu, _TENSORS),
        Spelling(_spelled_geglu_tanh, partial(geglu, activation="gelu_tanh"), _TENSORS),
        Spelling(_spelled_geglu_written_out, partial(geglu, activation="gelu_tanh"), _TENSORS),
    ),
)
