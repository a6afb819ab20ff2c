"""The contract of every operator in `kernl.ops.ALL`; a new operator is tested by being listed.

Without a GPU the kernels run under Triton's interpreter, on the edges and the small model shapes.
"""

import inspect
import math
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from kernl.op import DTYPES, Case, Op, Outputs
from kernl.ops import ALL

# Bytes, multiplications and programs that the interpreter gets through in a second or three.
INTERPRETED_BYTES = 2_000_000
INTERPRETED_FLOPS = 60_000_000
INTERPRETED_PROGRAMS = 256
LOOSEST_TOLERANCE = {"fp32": 1e-5, "fp16": 2e-3, "bf16": 1e-2}
BY_NAME = {op.name: op for op in ALL}
ONE_OPERATOR = "KERNL_CONTRACT_OP"
"""Names one operator where the others need not be listed, which takes seconds."""
GPU = torch.cuda.is_available()
# Chosen for shapes too large for the interpreter: another test runs it, on shapes of its own.
TESTED_BY = {
    **dict.fromkeys(("_linear_tma_kernel", "_linear_wave_kernel"), "test_linear.py"),
    "_linear_glu_tma_kernel": "test_linear_glu.py",
    "_linear_split_tma_kernel": "test_linear_pre_norm.py",
}
# Inputs that are positive by their meaning: scales of quantised weights, uniform random numbers.
UNSIGNED = ("weight_scale", "uniform")


def _memory(value: torch.Tensor) -> int:
    """Bytes of the distinct elements of a tensor: one that is expanded repeats its own."""
    sizes = (n for n, stride in zip(value.shape, value.stride(), strict=True) if stride)
    return math.prod(sizes) * value.itemsize


@cache
def _small(op_name: str, case: Case) -> bool:
    op = BY_NAME[op_name]
    if op.bytes(case) > INTERPRETED_BYTES or op.flops(case) > INTERPRETED_FLOPS:
        return False
    launches = op.plan_on_meta(case, 80).kernels
    programs = sum(math.prod(launch.grid) for launch in launches)
    return programs <= INTERPRETED_PROGRAMS


def _runs_here(op: Op, case: Case) -> bool:
    return GPU or case in op.edge_cases() or _small(op.name, case)


def _runnable() -> Iterator[Any]:
    only = os.environ.get(ONE_OPERATOR)
    for op in ALL if only is None else [BY_NAME[only]]:
        edges = set(op.edge_cases())
        for case in op.cases():
            if _runs_here(op, case):
                marks = [pytest.mark.edge] if case in edges else []
                yield pytest.param(op, case, id=f"{op.name}-{case.name}", marks=marks)


def _seed(case: Case) -> int:
    return zlib.crc32(case.name.encode())


def _tuple(outputs: Outputs) -> tuple[torch.Tensor, ...]:
    return (outputs,) if isinstance(outputs, torch.Tensor) else outputs


def in_float64(inputs: dict[str, Any]) -> dict[str, Any]:
    """The same inputs, floating-point ones upcast, in memory of their own."""
    return {
        name: (value.double() if value.is_floating_point() else value.clone())
        if isinstance(value, torch.Tensor)
        else value
        for name, value in inputs.items()
    }


def copied(inputs: dict[str, Any]) -> dict[str, Any]:
    """The same inputs in memory of their own."""
    return {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}


def all_outputs(
    op: Op, call: Callable[..., Outputs], inputs: dict[str, Any]
) -> tuple[torch.Tensor, ...]:
    """What the call returns, then the inputs that it writes into."""
    return (*_tuple(call(**inputs)), *(inputs[name] for name in op.mutates))


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are equal; 8-bit floats by their bits: PyTorch compares none."""
    if one.is_floating_point() and one.itemsize == 1:
        return torch.equal(one.view(torch.uint8), other.view(torch.uint8))
    return torch.equal(one, other)


def relative_l2(out: torch.Tensor, truth: torch.Tensor) -> float:
    """‖out - truth‖ / ‖truth‖; NaN where any element is."""
    exact = truth.double()
    return float((out.double() - exact).norm() / exact.norm().clamp_min(1e-300))


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Every `torch.empty` inside the test is full of NaN, so an unwritten element shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(("op", "case"), list(_runnable()))
def test_kernel_against_float64(op: Op, case: Case, device: str) -> None:
    inputs = op.inputs(case, device, _seed(case))
    before = copied(inputs)

    outputs = all_outputs(op, op.kernel, inputs)
    truths = all_outputs(op, op.reference, in_float64(before))
    expected = all_outputs(op, op.reference, copied(before))

    assert len(outputs) == len(truths)
    for out, truth, as_written in zip(outputs, truths, expected, strict=True):
        assert out.shape == truth.shape
        assert out.dtype == as_written.dtype
        if out.is_floating_point():
            assert relative_l2(out, truth) <= op.tolerance[case.dtype]
        else:
            assert torch.equal(out, truth)
    for name, value in before.items():
        if isinstance(value, torch.Tensor) and name not in op.mutates:
            assert same(inputs[name], value), f"{name} was written to"


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_tolerances_are_as_tight_as_the_dtype(op: Op) -> None:
    assert set(op.tolerance) == set(DTYPES)
    loosest = LOOSEST_TOLERANCE
    if op.arithmetic == "fp8":
        loosest = {**LOOSEST_TOLERANCE, "fp32": LOOSEST_TOLERANCE["fp16"]}
    for dtype, limit in loosest.items():
        assert op.tolerance[dtype] <= limit


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_inputs_are_random_signed_and_seeded(op: Op) -> None:
    case = max((c for c in op.edge_cases() if _small(op.name, c)), key=op.bytes)
    first, again, other = (op.inputs(case, "cpu", seed) for seed in (1, 1, 2))
    tensors = [name for name, value in first.items() if isinstance(value, torch.Tensor)]
    assert tensors
    for name in tensors:
        assert same(first[name], again[name])
        if first[name].is_floating_point() and name not in op.mutates:
            values = first[name].float()
            assert not same(first[name], other[name])
            assert (values < 0).any() or name in UNSIGNED
            assert (values > 0).any()


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_cost_model_counts_inputs_and_outputs(op: Op) -> None:
    for case in op.edge_cases():
        inputs = op.inputs(case, "cpu", 0)
        read = [_memory(v) for v in inputs.values() if isinstance(v, torch.Tensor)]
        outputs = op.plan_on_meta(case, 90).outputs
        if not op.moves_part_of_its_inputs:
            assert op.bytes(case) >= sum(read) + sum(t.nbytes for t in outputs)
        assert op.bytes(case) >= sum(t.nbytes for t in outputs)
        assert op.flops(case) >= outputs[0].numel()


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_torch_compile_takes_the_whole_reference(op: Op) -> None:
    """It is the baseline that the suite compiles: one graph, no break."""
    for case in op.edge_cases()[::4]:
        torch._dynamo.reset()
        inputs = op.inputs(case, "cpu", 5)
        compiled = torch.compile(op.reference, fullgraph=True, dynamic=False, backend="eager")
        outputs = all_outputs(op, compiled, copied(inputs))
        for out, truth in zip(outputs, all_outputs(op, op.reference, inputs), strict=True):
            assert torch.equal(out, truth)


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_names_are_unique_and_safe(op: Op) -> None:
    names = [case.name for case in op.cases()]
    assert len(names) == len(set(names))
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.") for name in names)


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_edges_have_what_no_model_has(op: Op) -> None:
    sizes = {
        value
        for dims in op.edges
        for value in dims.values()
        if isinstance(value, int) and not isinstance(value, bool)
    }
    assert 1 in sizes
    assert any(size > 16 and size % 2 for size in sizes)
    assert any(size > 2 and all(size % d for d in range(2, math.isqrt(size) + 1)) for size in sizes)


def _jitted() -> dict[str, Any]:
    """Every jitted function of the modules of `kernl.ops`, by name."""
    found: dict[str, Any] = {}
    for module in [module for name, module in sys.modules.items() if name.startswith("kernl.ops.")]:
        for name, value in vars(module).items():
            if getattr(getattr(value, "fn", None), "__module__", "") == module.__name__:
                assert name not in found, f"two jitted functions are named {name}"
                found[name] = value
    return found


def _reached(names: Sequence[str], jitted: dict[str, Any]) -> set[str]:
    """The jitted functions that these call, themselves included."""
    reached: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            inner = inspect.unwrap(jitted[name].fn).__code__.co_names
            waiting += [other for other in inner if other in jitted]
    return reached


def _launched(op: Op, cases: Sequence[Case]) -> set[str]:
    plans = [op.plan_on_meta(case, 90) for case in cases]
    return {launch.kernel.__name__ for plan in plans for launch in plan.kernels}


def test_every_jitted_function_is_launched_by_some_case() -> None:
    launched = set().union(*(_launched(op, op.cases()) for op in ALL))
    jitted = _jitted()
    assert len(launched) >= len(ALL)
    assert _reached(sorted(launched), jitted) == set(jitted)


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_every_kernel_is_launched_by_a_case_that_runs_here(op: Op) -> None:
    runnable = [case for case in op.cases() if _runs_here(op, case)]
    left = _launched(op, op.cases()) - _launched(op, runnable)
    assert left <= set(TESTED_BY)
    assert all(name in (Path(__file__).parent / TESTED_BY[name]).read_text() for name in left)


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_torch_compile_and_export_hold_it(op: Op, device: str) -> None:
    case = next(c for c in op.edge_cases() if _small(op.name, c) and c.name.count("1") < 3)
    inputs = op.inputs(case, device, 3)
    expected = all_outputs(op, op.kernel, copied(inputs))

    torch._dynamo.reset()  # the operators before this one count as recompilations of the lambda
    compiled = torch.compile(lambda **kw: op.kernel(**kw), fullgraph=True, backend="aot_eager")
    for out, truth in zip(all_outputs(op, compiled, copied(inputs)), expected, strict=True):
        assert torch.equal(out, truth)

    class Module(torch.nn.Module):
        def forward(self, **kw: Any) -> Outputs:
            return op.kernel(**kw)

    exported = torch.export.export(Module(), (), copied(inputs))
    targets = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert f"kernl.{op.name}.default" in targets
    for out, truth in zip(all_outputs(op, exported.module(), inputs), expected, strict=True):
        assert torch.equal(out, truth)


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_unsupported_says_why_in_words(op: Op, device: str) -> None:
    case = op.edge_cases()[0]
    inputs = op.inputs(case, device, 0)
    assert op.unsupported(**inputs) is None
    first = next(k for k, v in inputs.items() if torch.is_tensor(v) and v.is_floating_point())
    reason = op.unsupported(**{**inputs, first: inputs[first].to(torch.int32)})
    assert reason is not None
    assert "torch.int32" in reason
    assert "allowed: torch.float16" in reason
