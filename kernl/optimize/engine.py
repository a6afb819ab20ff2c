"""What runs one kind of call: the graph, how it is run, and how its outputs are put together."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from kernl.errors import KernlError
from kernl.optimize.copies import Shell
from kernl.optimize.options import Options
from kernl.rewrite import Report, rewrite, trace
from kernl.rewrite.fold import fold_constants
from kernl.rewrite.report import left_to_pytorch
from kernl.runtime.runner import Arena, CudaGraph, Direct, Runner
from kernl.runtime.structure import Rebuild, rebuilder

Forward = Callable[..., Any]

LARGEST_ERROR = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Relative L2 distance from the original's output, by the narrower dtype of the computation."""
_TIMED_CALLS = 5


@dataclass(frozen=True)
class Call:
    """One call of a model: its arguments, and their tensors in a row."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tensors: list[torch.Tensor]


@dataclass(frozen=True)
class Engine:
    """Runs calls of one key.

    Attributes:
        runner: None where calls go to PyTorch.
        rebuild: puts its outputs together.
        report: what rewriting did; None where there was no graph.
        note: why calls go to PyTorch, in words; empty where they do not.
    """

    runner: Runner | None
    rebuild: Rebuild
    report: Report | None
    note: str


class _Found:
    """What a traced forward leaves behind; tracing puts back lists and dicts, and not this."""

    rebuild: Rebuild


class _Positional(torch.nn.Module):
    """A model's forward as a function of tensors in a row."""

    def __init__(self, shell: Shell, call: Call) -> None:
        super().__init__()
        self.model = shell.module
        self._forward = shell.forward
        self._arguments = rebuilder((call.args, call.kwargs), [], once=False)
        self.found = _Found()

    def forward(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        args, kwargs = self._arguments(tensors)
        row: list[torch.Tensor] = []
        self.found.rebuild = rebuilder(self._forward(*args, **kwargs), row)
        return row


def traced(
    shell: Shell, call: Call, options: Options, dtype: torch.dtype | None
) -> tuple[fx.GraphModule, Rebuild, Report]:
    """The graph of one call, rewritten where the options say so.

    Args:
        shell: the copy of the model that is traced; the graph holds its parameters.
        call: its tensors give shapes.
        options: of the user.
        dtype: to which floating inputs are cast; None leaves them.

    Raises:
        KernlError: there is no such graph, in words.
    """
    flat = _Positional(shell, call)
    with torch.autocast(call.tensors[0].device.type, enabled=False):
        graph = trace(flat, cast(call.tensors, dtype))
        if options.rewrite:
            report = rewrite(graph)
        else:
            fold_constants(graph)
            report = Report(left=left_to_pytorch(graph.graph))
    return graph, flat.found.rebuild, report


def cast(tensors: Sequence[torch.Tensor], dtype: torch.dtype | None) -> list[torch.Tensor]:
    """Floating tensors in this dtype."""
    if dtype is None:
        return list(tensors)
    return [x.to(dtype) if x.is_floating_point() else x for x in tensors]


def build(
    shell: Shell,
    call: Call,
    options: Options,
    dtype: torch.dtype | None,
    original: Callable[[], Any],
    arena: Arena | None,
) -> Engine:
    """The engine for calls like this one; never raises for what a model does.

    Args:
        shell: the copy of the model that is traced.
        call: which call; its outputs are compared and timed.
        options: of the user.
        dtype: in which it computes; None for that of the weights.
        original: makes the same call without kernl; its outputs are what counts as right.
        arena: of the model's CUDA graphs; None runs the graph without one.
    """
    try:
        graph, rebuild, report = traced(shell, call, options, dtype)
    except KernlError as error:
        return Engine(None, _nothing, None, f"no graph: {error}")
    except Exception as error:  # a fault of rewriting must not take the user's call down
        return Engine(None, _nothing, None, f"no graph: {_spoken(error)}")
    truth: list[torch.Tensor] = []
    rebuilder(original(), truth)
    function = _function(graph, dtype, [tensor.dtype for tensor in truth])
    try:
        with torch.autocast(call.tensors[0].device.type, enabled=False):
            runner: Runner = (
                Direct(function, _borrowed(graph))
                if arena is None
                else CudaGraph(function, call.tensors, arena)
            )
            outputs = runner(call.tensors)
    except Exception as error:  # a kernel that does not compile must not take the user's call down
        return Engine(None, rebuild, report, f"the graph did not run: {_spoken(error)}")
    note = ""
    if options.check:
        note = disagreement(outputs, truth, _narrowest(graph, truth))
        if not note and arena is not None:
            note = _slower(lambda: runner(call.tensors), original)
    return Engine(None if note else runner, rebuild, report, note)


def _spoken(error: Exception) -> str:
    first_line = (str(error).strip().splitlines() or ["no message"])[0]
    return f"{type(error).__name__}: {first_line}"


def _nothing(_: Any) -> Any:
    raise AssertionError("an engine without a graph builds nothing")


def _function(
    graph: fx.GraphModule, dtype: torch.dtype | None, dtypes: Sequence[torch.dtype]
) -> Callable[..., list[torch.Tensor]]:
    """The graph with its inputs cast, and its outputs in the dtypes of the original's."""
    if dtype is None:
        return graph

    def function(*tensors: torch.Tensor) -> list[torch.Tensor]:
        outputs = graph(*cast(tensors, dtype))
        return [out.to(kind) for out, kind in zip(outputs, dtypes, strict=True)]

    return function


def _borrowed(graph: fx.GraphModule) -> list[bool]:
    """Which outputs are, or look at, inputs and constants of the graph."""
    (outputs,) = graph.graph.output_node().args
    assert isinstance(outputs, list | tuple)
    return [_is_borrowed(node) for node in outputs]


def _is_borrowed(node: Any) -> bool:
    while node.op == "call_function" and len(node.all_input_nodes) == 1:
        if not str(node.target).startswith("aten."):
            return False
        (node,) = node.all_input_nodes
    return bool(node.op != "call_function")


def _narrowest(graph: fx.GraphModule, truth: Sequence[torch.Tensor]) -> torch.dtype:
    kinds = {p.dtype for p in graph.parameters()} | {tensor.dtype for tensor in truth}
    for kind in (torch.bfloat16, torch.float16):
        if kind in kinds:
            return kind
    return torch.float32


def disagreement(
    outputs: Sequence[torch.Tensor], truth: Sequence[torch.Tensor], dtype: torch.dtype
) -> str:
    """Why outputs cannot stand for the original's, in words; empty where they can."""
    if len(outputs) != len(truth):
        return f"{len(outputs)} outputs, the original has {len(truth)}"
    for place, (out, true) in enumerate(zip(outputs, truth, strict=True)):
        if out.shape != true.shape or out.dtype != true.dtype:
            return (
                f"output {place} is {out.dtype} {tuple(out.shape)}, "
                f"the original's {true.dtype} {tuple(true.shape)}"
            )
        if not out.is_floating_point():
            if not torch.equal(out, true):
                return f"output {place} differs from the original's"
            continue
        here, there = out.double(), true.double()
        if not torch.equal(here.isfinite(), there.isfinite()):
            return f"output {place} is finite elsewhere than the original's"
        here, there = (x.nan_to_num(0.0, 0.0, 0.0) for x in (here, there))
        error = float((here - there).norm() / there.norm().clamp_min(1e-12))
        if error > LARGEST_ERROR[dtype]:
            return (
                f"output {place} is {error:.1e} away from the original's, "
                f"more than {LARGEST_ERROR[dtype]:.0e}"
            )
    return ""


def _slower(ours: Callable[[], object], original: Callable[[], object]) -> str:
    """In words, that the graph is slower than the original; empty where it is not."""
    times = {ours: float("inf"), original: float("inf")}
    for _ in range(_TIMED_CALLS):
        for function in times:
            torch.cuda.synchronize()
            start = time.perf_counter()
            function()
            torch.cuda.synchronize()
            times[function] = min(times[function], time.perf_counter() - start)
    if times[ours] <= times[original]:
        return ""
    return f"slower than the original: {1e3 * times[ours]:.2f} ms, not {1e3 * times[original]:.2f}"
