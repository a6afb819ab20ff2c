"""The contract of every operator in `kernl.ops.ALL`; a new operator is tested by being listed.

Without a GPU the kernels run under Triton's interpreter, on the edges and the small model shapes.
"""

import inspect
import math
import sys
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from kernl.op import DTYPES, Case, Op, Outputs
from kernl.ops import ALL

# Elements and multiplications that the interpreter gets through in about a second.
INTERPRETED_BYTES = 2_000_000
INTERPRETED_FLOPS = 60_000_000
LOOSEST_TOLERANCE = {"fp32": 1e-5, "fp16": 2e-3, "bf16": 1e-2}
GPU = torch.cuda.is_available()


def _small(op: Op, case: Case) -> bool:
    return op.bytes(case) <= INTERPRETED_BYTES and op.flops(case) <= INTERPRETED_FLOPS


def _runnable() -> Iterator[Any]:
    for op in ALL:
        for case in op.cases():
            if GPU or _small(op, case):
                yield pytest.param(op, case, id=f"{op.name}-{case.name}")


def _seed(case: Case) -> int:
    return zlib.crc32(case.name.encode())


def _tuple(outputs: Outputs) -> tuple[torch.Tensor, ...]:
    return (outputs,) if isinstance(outputs, torch.Tensor) else outputs


def in_float64(inputs: dict[str, Any]) -> dict[str, Any]:
    """The same inputs, upcast."""
    return {
        name: value.double() if isinstance(value, torch.Tensor) else value
        for name, value in inputs.items()
    }


def relative_l2(out: torch.Tensor, truth: torch.Tensor) -> float:
    """‖out - truth‖ / ‖truth‖; NaN where any element is."""
    return float((out.double() - truth).norm() / truth.norm().clamp_min(1e-300))


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
    before = {k: v.clone() for k, v in inputs.items() if isinstance(v, torch.Tensor)}

    outputs = _tuple(op.kernel(**inputs))
    truths = _tuple(op.reference(**in_float64(inputs)))

    assert len(outputs) == len(truths)
    for out, truth in zip(outputs, truths, strict=True):
        assert out.shape == truth.shape
        assert out.dtype == case.torch_dtype
        assert relative_l2(out, truth) <= op.tolerance[case.dtype]
    for name, value in before.items():
        assert torch.equal(inputs[name], value), f"{name} was written to"


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_tolerances_are_as_tight_as_the_dtype(op: Op) -> None:
    assert set(op.tolerance) == set(DTYPES)
    for dtype, limit in LOOSEST_TOLERANCE.items():
        assert op.tolerance[dtype] <= limit


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_inputs_are_random_signed_and_seeded(op: Op) -> None:
    case = max((c for c in op.edge_cases() if _small(op, c)), key=op.bytes)
    first, again, other = (op.inputs(case, "cpu", seed) for seed in (1, 1, 2))
    tensors = [name for name, value in first.items() if isinstance(value, torch.Tensor)]
    for name in tensors:
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])
        assert (first[name] < 0).any()
        assert (first[name] > 0).any()


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_cost_model_counts_inputs_and_outputs(op: Op) -> None:
    for case in op.edge_cases():
        inputs = [v for v in op.inputs(case, "cpu", 0).values() if isinstance(v, torch.Tensor)]
        outputs = op.plan_on_meta(case, 90).outputs
        assert op.bytes(case) >= sum(t.nbytes for t in (*inputs, *outputs))
        assert op.flops(case) >= outputs[0].numel()


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_torch_compile_takes_the_whole_reference(op: Op) -> None:
    """It is the baseline that the suite compiles: one graph, no break."""
    for case in op.edge_cases()[::4]:
        torch._dynamo.reset()
        inputs = op.inputs(case, "cpu", 5)
        compiled = torch.compile(op.reference, fullgraph=True, dynamic=False, backend="eager")
        for out, truth in zip(
            _tuple(compiled(**inputs)), _tuple(op.reference(**inputs)), strict=True
        ):
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
    return {launch.kernel.__name__ for plan in plans for launch in plan.launches}


def test_every_jitted_function_is_launched_by_some_case() -> None:
    launched = set().union(*(_launched(op, op.cases()) for op in ALL))
    jitted = _jitted()
    assert len(launched) >= len(ALL)
    assert _reached(sorted(launched), jitted) == set(jitted)


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_every_kernel_is_launched_by_a_case_that_runs_here(op: Op) -> None:
    runnable = [case for case in op.cases() if GPU or _small(op, case)]
    assert _launched(op, runnable) == _launched(op, op.cases())


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_torch_compile_and_export_hold_it(op: Op, device: str) -> None:
    case = next(c for c in op.edge_cases() if _small(op, c) and c.name.count("1") < 3)
    inputs = op.inputs(case, device, 3)
    expected = _tuple(op.kernel(**inputs))

    compiled = torch.compile(lambda **kw: op.kernel(**kw), fullgraph=True, backend="aot_eager")
    for out, truth in zip(_tuple(compiled(**inputs)), expected, strict=True):
        assert torch.equal(out, truth)

    class Module(torch.nn.Module):
        def forward(self, **kw: Any) -> Outputs:
            return op.kernel(**kw)

    exported = torch.export.export(Module(), (), inputs)
    targets = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert f"kernl.{op.name}.default" in targets
    for out, truth in zip(_tuple(exported.module()(**inputs)), expected, strict=True):
        assert torch.equal(out, truth)


@pytest.mark.parametrize("op", ALL, ids=lambda op: op.name)
def test_unsupported_says_why_in_words(op: Op, device: str) -> None:
    case = op.edge_cases()[0]
    inputs = op.inputs(case, device, 0)
    assert op.unsupported(**inputs) is None
    first = next(iter(inputs))
    reason = op.unsupported(**{**inputs, first: inputs[first].to(torch.int32)})
    assert reason is not None
    assert "torch.int32" in reason
    assert "allowed: torch.float16" in reason
