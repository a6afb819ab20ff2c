"""What runs one kind of call: the graph, how it is run, and how its outputs are put together."""

import copy
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import fx

from kernl.errors import KernlError
from kernl.optimize.captured import captured
from kernl.optimize.copies import Shell
from kernl.optimize.kept import Kept
from kernl.optimize.options import Options
from kernl.optimize.padding import Padded
from kernl.optimize.verdict import disagreement, narrowest, slower
from kernl.rewrite import Report, rewrite, trace
from kernl.rewrite.fold import fold_constants
from kernl.rewrite.report import left_to_pytorch
from kernl.runtime.runner import Arena, Direct, Runner
from kernl.runtime.structure import Rebuild, rebuilder

Forward = Callable[..., Any]


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
        runner: None where calls go to PyTorch, or where `base` runs them.
        rebuild: puts its outputs together.
        report: what rewriting did; None where there was no graph.
        note: why calls go to PyTorch, in words; empty where they do not.
        remark: why the graph is the one as written, with PyTorch's kernels; else empty.
        precision: the narrowest dtype of the computation.
        base: the key of the engine that runs them, padded; None where it is this one.
        take: makes the row of tensors for `base` from that of a call.
    """

    runner: Runner | None
    rebuild: Rebuild
    report: Report | None
    note: str
    precision: torch.dtype = torch.float32
    base: Hashable = None
    take: Callable[[Sequence[torch.Tensor]], list[torch.Tensor]] | None = None
    remark: str = ""


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
) -> tuple[fx.GraphModule, Rebuild, Report, fx.GraphModule]:
    """The graph of one call, rewritten where the options say so; last the same as it was written.

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
        as_written = fx.GraphModule(graph, copy.deepcopy(graph.graph))
        if options.rewrite:
            report = rewrite(graph)
        else:
            fold_constants(graph)
            report = Report(left=left_to_pytorch(graph.graph))
    return graph, flat.found.rebuild, report, as_written


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
    kept: Kept | None = None,
) -> Engine:
    """The engine for calls like this one; never raises for what a model does.

    Args:
        shell: the copy of the model that is traced.
        call: which call; its outputs are compared and timed.
        options: of the user.
        dtype: in which it computes; None for that of the weights.
        original: makes the same call without kernl; its outputs are what counts as right.
        arena: of the model's CUDA graphs; None runs the graph without one.
        kept: what earlier processes found out, and what this one does.
    """
    with kept.compiling() if kept else nullcontext():
        return _build(shell, call, options, dtype, original, arena, kept)


def _build(
    shell: Shell,
    call: Call,
    options: Options,
    dtype: torch.dtype | None,
    original: Callable[[], Any],
    arena: Arena | None,
    kept: Kept | None,
) -> Engine:
    try:
        graph, rebuild, report, as_written = traced(shell, call, options, dtype)
    except Exception as error:  # a fault of rewriting must not take the user's call down
        return without_graph(error)
    if kept is not None:
        kept.save_spellings()
    truth: list[torch.Tensor] = []
    rebuilder(original(), truth)
    function_of = partial(_function, dtype=dtype, dtypes=[tensor.dtype for tensor in truth])
    runner: Runner
    remark = ""
    try:
        with torch.autocast(call.tensors[0].device.type, enabled=False):
            if arena is None:
                runner = Direct(function_of(graph), _borrowed(graph))
            else:
                other = as_written if options.check and options.rewrite else None
                ahead = options.weights_ahead
                runner, remark = captured(
                    graph, other, function_of, call.tensors, arena, ahead, kept
                )
            outputs = runner(call.tensors)
    except Exception as error:  # a kernel that does not compile must not take the user's call down
        return Engine(None, rebuild, report, f"the graph did not run: {_spoken(error)}")
    note, precision = "", narrowest(graph, truth)
    if options.check:
        note = disagreement(outputs, truth, precision)
        if not note and arena is not None:
            note = slower(lambda: runner(call.tensors), original)
    runs = None if note else runner
    return Engine(runs, rebuild, report, note, precision, remark="" if note else remark)


def build_padded(
    base: Engine,
    key: Hashable,
    padded: Padded,
    call: Call,
    options: Options,
    original: Callable[[], Any],
) -> Engine:
    """The engine for calls like this one, by that for padded ones; never raises.

    Args:
        base: the engine for padded calls.
        key: its key.
        padded: how this call becomes such a one.
        call: which call; its outputs are compared and timed.
        options: of the user.
        original: makes the same call without kernl.
    """
    if base.runner is None:
        return replace(base, base=key)
    truth: list[torch.Tensor] = []
    rebuild = rebuilder(original(), truth)
    shapes = [tensor.shape for tensor in truth]
    run = base.runner

    def cut(row: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return padded.cut(row, shapes)

    try:
        outputs = cut(run(padded.row(call.tensors)))
        note = disagreement(outputs, truth, base.precision) if options.check else ""
    except ValueError as error:
        note = str(error)
    if not note and options.check and options.cuda_graphs and call.tensors[0].is_cuda:
        note = slower(lambda: cut(run(padded.row(call.tensors))), original)
    if note:
        note = f"padded to {padded.padded_length}: {note}"
    return Engine(
        runner=None,
        rebuild=lambda row: rebuild(cut(row)),
        report=base.report,
        note=note,
        precision=base.precision,
        base=key,
        take=padded.row,
        remark=base.remark,
    )


def without_graph(error: Exception) -> Engine:
    """The engine of calls for which there is no graph, and why not."""
    said = str(error) if isinstance(error, KernlError) else _spoken(error)
    return Engine(None, _nothing, None, f"no graph: {said}")


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
