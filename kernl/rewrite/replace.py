"""Put a call in the place of a pattern."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import fx
from torch.fx.passes.tools_common import stable_topological_sort

from kernl.errors import KernlError
from kernl.op import Outputs, Spelling
from kernl.rewrite.match import Match, anchor_of, exact_match, example_graph, loose_matches
from kernl.rewrite.nodes import value
from kernl.rewrite.report import Refusal, Report
from kernl.rewrite.trace import Spec, trace_specs

_FLOATS = (torch.float16, torch.bfloat16, torch.float32)

Kind = tuple[torch.dtype, torch.device]


def replace_pattern(
    graph_module: fx.GraphModule,
    pattern: Callable[..., Outputs] | torch.nn.Module,
    replacement: Callable[..., Outputs],
    tensors: Mapping[str, tuple[int, ...]],
    constants: Mapping[str, float] | None = None,
) -> Report:
    """Replace every place where a graph computes `pattern` by a call of `replacement`.

    Args:
        graph_module: as `kernl.rewrite.trace` returns it; changed in place.
        pattern: a function, or a module in eval mode, written as the model writes it. Its
            parameters are tensors, but for those that `constants` names. A module's own
            parameters are tensors too, by their names with `_` for `.`, behind those of forward.
        replacement: takes the same arguments by name and returns the same tensors.
        tensors: an example of each tensor's shape. The shapes in the graph may differ from it.
        constants: the parameters that are numbers, each with a value as odd as 0.7310585, by
            which it is found in the pattern; it takes the value that the graph has.

    Returns:
        What was replaced, and what was refused, with the reason.

    Raises:
        UntraceableError: the pattern cannot be traced on the example.
    """
    if isinstance(pattern, torch.nn.Module):
        pattern, tensors = _of_module(pattern, tensors)
    spelling = Spelling(pattern, replacement, tensors, constants or {})
    name = getattr(replacement, "__name__", "replacement")
    report = Report()
    apply_spelling(graph_module, name, spelling, report)
    return report


def apply_spelling(
    graph_module: fx.GraphModule,
    name: str,
    spelling: Spelling,
    report: Report,
    among: Sequence[Kind] | None = None,
) -> None:
    """Replace every place of one spelling.

    Args:
        graph_module: changed in place.
        name: what the report calls it.
        spelling: of one operator.
        report: takes what was done.
        among: in which types it is looked for; None for all that the graph has.
    """
    graph = graph_module.graph
    changed = False
    for dtype, device in kinds(graph) if among is None else among:
        example = example_graph(spelling, dtype, device)
        target = anchor_of(example).target
        for node in list(graph.nodes):
            if node.op != "call_function" or node.target != target or node._erased:
                continue
            found = node.meta.get("val")
            if isinstance(found, torch.Tensor) and found.dtype == dtype:
                changed |= _replace_at(graph, name, spelling, example, node, report)
    if changed:
        # A call stands where its first output stood, which may be before its last input.
        stable_topological_sort(graph_module)
        graph_module.graph.eliminate_dead_code()
        graph_module.graph.lint()
        graph_module.recompile()


def kinds(graph: fx.Graph) -> list[Kind]:
    """The floating types in a graph, each with the device of the first tensor of it."""
    found: dict[torch.dtype, torch.device] = {}
    for node in graph.nodes:
        if _is_tensor(node):
            found.setdefault(value(node).dtype, value(node).device)
    return [(dtype, found[dtype]) for dtype in _FLOATS if dtype in found]


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def _replace_at(
    graph: fx.Graph,
    name: str,
    spelling: Spelling,
    example: fx.Graph,
    anchor: fx.Node,
    report: Report,
) -> bool:
    """Whether a pattern that ends at `anchor` was replaced."""
    for loose in loose_matches(spelling, example, anchor):
        match = exact_match(spelling, example, loose)
        if match is None or _in_a_circle(match):
            continue
        reason = _why_not(match)
        if reason is None:
            try:
                call = _replacement_graph(spelling, match)
            except KernlError as error:
                reason = str(error)
            else:
                reason = _misfit(match, call)
        if reason is not None:
            report.refused.append(Refusal(name, anchor.name, reason))
            return False
        _insert(graph, match, call)
        report.note_fused(name, anchor.name)
        return True
    return False


def _why_not(match: Match) -> str | None:
    leak = match.leak()
    if leak is not None:
        return f"what {_spoken(leak)} computes on the way is needed elsewhere too"
    return None


def _in_a_circle(match: Match) -> bool:
    """Whether one of its inputs depends on one of its outputs: parts of two places, not one."""
    behind = _descendants(match.outputs)
    return any(node in behind for node in match.tensors)


def _descendants(nodes: Sequence[fx.Node]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        for user in waiting.pop().users:
            if user not in found:
                found.add(user)
                waiting.append(user)
    return found


def _spoken(node: fx.Node) -> str:
    return str(node.target).removeprefix("aten.").partition(".")[0]


def _replacement_graph(spelling: Spelling, match: Match) -> fx.Graph:
    specs = tuple(Spec.of(value(node)) for node in match.tensors)
    return _traced(spelling, specs, tuple(match.constants.items()))


@lru_cache(maxsize=4096)
def _traced(
    spelling: Spelling, specs: tuple[Spec, ...], constants: tuple[tuple[str, float], ...]
) -> fx.Graph:
    """A model's layers are alike: one trace for all of them."""
    named = dict(zip(spelling.tensors, specs, strict=True))
    return trace_specs(spelling.replacement, named, dict(constants)).graph


def _misfit(match: Match, call: fx.Graph) -> str | None:
    """Why the call's results cannot stand for the pattern's."""
    (outputs,) = call.output_node().args
    assert isinstance(outputs, list | tuple)
    if len(outputs) != len(match.outputs):
        return f"the call returns {len(outputs)} tensors, the pattern {len(match.outputs)}"
    for ours, theirs in zip(outputs, match.outputs, strict=True):
        assert isinstance(ours, fx.Node)
        here, there = value(ours), value(theirs)
        if (here.shape, here.dtype) != (there.shape, there.dtype):
            return (
                f"the call returns {here.dtype} {tuple(here.shape)}, "
                f"the pattern {there.dtype} {tuple(there.shape)}"
            )
    return None


def _insert(graph: fx.Graph, match: Match, call: fx.Graph) -> None:
    placeholders = [node for node in call.nodes if node.op == "placeholder"]
    known: dict[fx.Node, fx.Node] = dict(zip(placeholders, match.tensors, strict=True))
    with graph.inserting_before(match.outputs[0]):
        outputs = graph.graph_copy(call, known)
    assert isinstance(outputs, list | tuple)
    for old, new in zip(match.outputs, outputs, strict=True):
        assert isinstance(new, fx.Node)
        old.replace_all_uses_with(new)
    for node in reversed(match.inside):
        if not node.users:
            graph.erase_node(node)


def _of_module(
    module: torch.nn.Module, tensors: Mapping[str, tuple[int, ...]]
) -> tuple[Callable[..., Outputs], dict[str, tuple[int, ...]]]:
    """A module as a function of its inputs and its parameters."""
    inputs = list(inspect.signature(module.forward).parameters)
    weights = {name.replace(".", "_"): name for name, _ in module.named_parameters()}
    parameters = [*inputs, *weights]

    def function(**given: torch.Tensor) -> Any:
        values = {full: given[short] for short, full in weights.items()}
        args = tuple(given[name] for name in inputs)
        return torch.func.functional_call(module, values, args)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind) for name in parameters]
    )
    shapes = {name: tuple(module.get_parameter(full).shape) for name, full in weights.items()}
    return function, {**{name: tensors[name] for name in inputs}, **shapes}
