"""Every spelling of every operator is found where it stands, and means what it says."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from kernl.op import DTYPES, Op, Spelling
from kernl.ops import ALL
from kernl.rewrite import trace
from kernl.rewrite.replace import apply_spelling
from kernl.rewrite.report import Report
from kernl.rewrite.trace import Spec, trace_specs
from tests.tiny_models import DEVICE

SPELLED = [(op, spelling) for op in ALL for spelling in op.spellings]
# Other values than the marks by which they are found.
CONSTANTS = {
    "eps": 1e-3,
    "scale": 0.4,
    "softcap": 3.0,
    "divisor": 2.5,
    "limit": 1.5,
    "overflow_limit": 0.5,
    "padding_idx": 2,
    "stride": 2,
    "padding": 1,
}
FUNCTIONS = (
    *("attention", "linear", "layer_norm", "rms_norm", "softmax", "swiglu", "geglu"),
    "conv1d",
)


def cases() -> Iterator[Any]:
    for op, spelling in SPELLED:
        place = op.spellings.index(spelling)
        for dtype in DTYPES:
            yield pytest.param(op, spelling, dtype, id=f"{op.name}-{place}-{dtype}")


def random_tensors(spelling: Spelling, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator(DEVICE).manual_seed(5)
    return {
        name: torch.randint(0, 2, shape, generator=generator)
        if name in spelling.integers
        else torch.randn(shape, generator=generator).to(dtype)
        for name, shape in spelling.tensors.items()
    }


def as_tuple(outputs: Any) -> tuple[torch.Tensor, ...]:
    return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)


@pytest.mark.parametrize(("op", "spelling", "dtype"), list(cases()))
def test_a_spelling_is_found_and_its_call_means_the_same(
    op: Op, spelling: Spelling, dtype: str
) -> None:
    tensors = random_tensors(spelling, DTYPES[dtype])
    constants = {name: CONSTANTS[name] for name in spelling.constants}
    specs = {name: Spec.of(tensor) for name, tensor in tensors.items()}
    graph = trace_specs(spelling.pattern, specs, constants)
    report = Report()
    apply_spelling(graph, op.name, spelling, report)
    assert (report.fused[op.name], report.refused) == (1, [])
    assert not any(str(node.target).startswith("aten.linear") for node in graph.graph.nodes)
    outputs = as_tuple(graph(*tensors.values()))
    wide = {k: v.double() if v.is_floating_point() else v for k, v in tensors.items()}
    truth = as_tuple(spelling.pattern(**wide, **constants))
    assert len(outputs) == len(truth)
    for out, true in zip(outputs, truth, strict=True):
        assert out.dtype == DTYPES[dtype] or op.name == "cross_entropy"
        assert (out.double() - true.double()).norm() <= op.tolerance[dtype] * true.double().norm()


def test_operators_that_models_write_have_spellings() -> None:
    spelled = {op.name for op, _ in SPELLED}
    assert spelled >= {*FUNCTIONS, "rotary", "embedding_layer_norm", "batched_matmul"}
    # These round more than their dtype does, so that nothing but the user chooses them.
    assert not any(op.spellings for op in ALL if op.opt_in)


@pytest.mark.parametrize(("op", "spelling"), SPELLED, ids=lambda one: getattr(one, "name", ""))
def test_a_spelling_names_each_of_its_arguments(op: Op, spelling: Spelling) -> None:
    parameters = set(inspect.signature(spelling.pattern).parameters)
    assert parameters == {*spelling.tensors, *spelling.constants}
    assert set(spelling.integers) <= set(spelling.tensors)


def test_a_model_of_one_module_is_found_by_the_module_tracer() -> None:
    layer = torch.nn.Linear(8, 16).eval()
    graph = trace(layer, [torch.randn(2, 3, 8)])
    report = Report()
    linear = next(op for op in ALL if op.name == "linear")
    for spelling in linear.spellings:
        apply_spelling(graph, "linear", spelling, report)
    assert report.fused == {"linear": 1}
