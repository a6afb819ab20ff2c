"""Find a pattern in a graph: the same operators, joined in the same way, with the same constants.

A pattern is found in two looks. The first compares operators and how they are joined; numbers are
taken as they come, and those that stand for the pattern's constants are noted. The second traces
the pattern anew, on the shapes and with the constants that were found, and compares everything:
sizes, dimensions, flags, dtypes, numbers. So a pattern needs no wildcards, and what it finds is
what its function computes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import fx

from kernl.op import Spelling
from kernl.rewrite.nodes import VIEWS, aten, value
from kernl.rewrite.trace import Spec, trace_specs

_CHEAP = VIEWS | {aten.to.dtype}
COMMUTATIVE = frozenset({aten.add.Tensor, aten.mul.Tensor, aten.bitwise_and.Tensor})


@dataclass
class Match:
    """Where a pattern stands in a graph.

    Attributes:
        tensors: the nodes that are its tensors, in the order of its parameters.
        constants: its constants as they stand there.
        outputs: the nodes that compute its results, in order.
        inside: all nodes that it covers, those outputs among them.
    """

    tensors: list[fx.Node]
    constants: dict[str, float]
    outputs: list[fx.Node]
    inside: list[fx.Node]

    def leak(self) -> fx.Node | None:
        """A covered node, no output, that something else needs too; None where there is none.

        A cast or a view that others need stays for them, and costs nothing here.
        """
        covered = set(self.inside)
        for node in self.inside:
            shared = not covered.issuperset(node.users)
            if shared and node not in self.outputs and node.target not in _CHEAP:
                return node
        return None


@dataclass
class _Binding:
    """Which node of the graph each node of the pattern is, and what its constants are."""

    nodes: dict[fx.Node, fx.Node] = field(default_factory=dict)
    constants: dict[str, float] = field(default_factory=dict)

    def copy(self) -> "_Binding":
        return _Binding(dict(self.nodes), dict(self.constants))


@lru_cache(maxsize=4096)
def _pattern_graph(
    spelling: Spelling, specs: tuple[Spec, ...], constants: tuple[tuple[str, float], ...]
) -> fx.Graph:
    named = dict(zip(spelling.tensors, specs, strict=True))
    return trace_specs(spelling.pattern, named, dict(constants)).graph


def example_graph(spelling: Spelling, dtype: torch.dtype, device: torch.device) -> fx.Graph:
    """The pattern on its example shapes, in which numbers that stand for constants are marks."""
    specs = []
    for name, shape in spelling.tensors.items():
        example = torch.empty(shape, device="meta")
        kind = torch.int64 if name in spelling.integers else dtype
        specs.append(Spec.of(example)._replace(dtype=kind, device=device))
    return _pattern_graph(spelling, tuple(specs), tuple(spelling.constants.items()))


def anchor_of(graph: fx.Graph) -> fx.Node:
    """The node from which a pattern is looked for: its first output."""
    return _outputs(graph)[0]


def loose_matches(spelling: Spelling, example: fx.Graph, anchor: fx.Node) -> Iterator[_Binding]:
    """Ways in which the pattern may end at `anchor`, numbers aside."""
    marks = {number: name for name, number in spelling.constants.items()}
    yield from _unify_outputs(_outputs(example), anchor, _Binding(), marks)


def _unify_outputs(
    outputs: Sequence[fx.Node],
    anchor: fx.Node,
    binding: _Binding,
    marks: Mapping[float, str] | None,
) -> Iterator[_Binding]:
    """The first output stands at `anchor`. One that does not lie on its way, as the keys beside
    the queries, is the next node behind that computes it.
    """
    for bound in _unify(outputs[0], anchor, binding, marks):
        yield from _unify_rest(outputs[1:], anchor, bound, marks)


def _unify_rest(
    outputs: Sequence[fx.Node],
    anchor: fx.Node,
    binding: _Binding,
    marks: Mapping[float, str] | None,
) -> Iterator[_Binding]:
    if not outputs:
        yield binding
    elif outputs[0] in binding.nodes:
        yield from _unify_rest(outputs[1:], anchor, binding, marks)
    else:
        node = anchor.next
        while node.op != "output":
            for bound in _unify(outputs[0], node, binding, marks):
                yield from _unify_rest(outputs[1:], anchor, bound, marks)
            node = node.next


def exact_match(spelling: Spelling, example: fx.Graph, loose: _Binding) -> Match | None:
    """What a loose match is once shapes and constants count too; None where it is nothing."""
    placeholders = [node for node in example.nodes if node.op == "placeholder"]
    if not all(node in loose.nodes for node in placeholders):
        return None
    tensors = [loose.nodes[node] for node in placeholders]
    specs = tuple(Spec.of(value(node)) for node in tensors)
    names = list(spelling.constants)
    if set(loose.constants) != set(names):
        return None
    constants = {name: loose.constants[name] for name in names}
    graph = _traced_or_none(spelling, specs, constants)
    if graph is None:
        return None
    fixed = [node for node in graph.nodes if node.op == "placeholder"]
    anchor = loose.nodes[anchor_of(example)]
    start = _Binding(dict(zip(fixed, tensors, strict=True)))
    outputs = _outputs(graph)
    for found in _unify_outputs(outputs, anchor, start, None):
        if all(output in found.nodes for output in outputs):
            inside = [
                found.nodes[node]
                for node in graph.nodes
                if node.op == "call_function" and node in found.nodes
            ]
            return Match(tensors, constants, [found.nodes[node] for node in outputs], inside)
    return None


def _traced_or_none(
    spelling: Spelling, specs: tuple[Spec, ...], constants: Mapping[str, float]
) -> fx.Graph | None:
    try:
        return _pattern_graph(spelling, specs, tuple(constants.items()))
    except Exception:  # the function does not take such shapes: then it is not what stands there
        return None


def _outputs(graph: fx.Graph) -> list[fx.Node]:
    (outputs,) = graph.output_node().args
    assert isinstance(outputs, list | tuple)
    return [node for node in outputs if isinstance(node, fx.Node)]


def _unify(
    pattern: Any, found: Any, binding: _Binding, marks: Mapping[float, str] | None
) -> Iterator[_Binding]:
    """Bindings under which a part of the pattern is a part of the graph.

    `marks` are the pattern's constants by their value in the example; None compares exactly.
    """
    if isinstance(pattern, fx.Node):
        if isinstance(found, fx.Node):
            yield from _unify_nodes(pattern, found, binding, marks)
    elif isinstance(found, fx.Node):
        return
    elif isinstance(pattern, list | tuple):
        if isinstance(found, list | tuple) and len(pattern) == len(found):
            yield from _unify_all(pattern, found, binding, marks)
    elif _same_literal(pattern, found, marks):
        name = _constant_at(pattern, marks)
        if name is None:
            yield binding
        # A constant that is an int, such as a stride, stands for ints alone.
        elif isinstance(pattern, float) or isinstance(found, int):
            number = type(pattern)(found)
            if binding.constants.get(name, number) == number:
                bound = binding.copy()
                bound.constants[name] = number
                yield bound


def _constant_at(pattern: Any, marks: Mapping[float, str] | None) -> str | None:
    """Which constant's mark this literal of the pattern is."""
    if isinstance(pattern, bool) or not isinstance(pattern, int | float):
        return None
    return (marks or {}).get(pattern)


def _same_literal(pattern: Any, found: Any, marks: Mapping[float, str] | None) -> bool:
    numbers = (int, float)
    if marks is not None and isinstance(pattern, numbers) and isinstance(found, numbers):
        # Sizes and constants are for the second look; flags are not.
        return isinstance(pattern, bool) == isinstance(found, bool) and (
            pattern == found or not isinstance(pattern, bool)
        )
    if isinstance(pattern, numbers) and isinstance(found, numbers):
        return isinstance(pattern, bool) == isinstance(found, bool) and pattern == found
    return bool(pattern == found)


def _unify_nodes(
    pattern: fx.Node, found: fx.Node, binding: _Binding, marks: Mapping[float, str] | None
) -> Iterator[_Binding]:
    known = binding.nodes.get(pattern)
    if known is not None:
        if known is found:
            yield binding
        return
    if pattern.op != "placeholder" and (
        found.op != pattern.op or found.target != pattern.target or pattern.op != "call_function"
    ):
        return
    bound = binding.copy()
    bound.nodes[pattern] = found
    if pattern.op == "placeholder":
        if isinstance(found.meta.get("val"), torch.Tensor):
            yield bound
        return
    args = list(pattern.args)
    orders = [args]
    if pattern.target in COMMUTATIVE and isinstance(args[1], fx.Node):
        orders.append([args[1], args[0], *args[2:]])
    keywords = sorted(pattern.kwargs)
    if keywords != sorted(found.kwargs):
        return
    there = [*found.args, *(found.kwargs[name] for name in keywords)]
    for order in orders:
        here = [*order, *(pattern.kwargs[name] for name in keywords)]
        if len(here) == len(there):
            yield from _unify_all(here, there, bound, marks)


def _unify_all(
    pattern: Sequence[Any], found: Sequence[Any], binding: _Binding, marks: Any
) -> Iterator[_Binding]:
    if not pattern:
        yield binding
        return
    for bound in _unify(pattern[0], found[0], binding, marks):
        yield from _unify_all(pattern[1:], found[1:], bound, marks)
