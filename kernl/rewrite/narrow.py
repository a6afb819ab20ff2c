"""Compute for one query what is the same for every query.

Masks of padding are spread over the queries first, and computed with at that size. Here the steps
behind are done on the rows of keys that were spread; what takes them spreads them again.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode

from kernl.rewrite.fold import constant_value
from kernl.rewrite.nodes import arguments, aten, fill_defaults, value
from kernl.rewrite.trace import Spec

_ELEMENTWISE = frozenset(
    {
        aten.masked_fill.Scalar,
        aten.masked_fill.Tensor,
        aten.rsub.Scalar,
        aten.to.dtype,
        aten.where.self,
        aten.where.Scalar,
        aten.where.ScalarOther,
        aten.where.ScalarSelf,
    }
)
"""Beside those that PyTorch itself calls pointwise."""


class Narrow:
    """Nodes of one graph as (…, 1, keys), where their rows (…, queries, keys) are equal."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self._graph_module = graph_module
        self._known: dict[fx.Node, fx.Node | None] = {}

    def __call__(self, node: fx.Node) -> fx.Node | None:
        """A node that broadcasts to this one and has one row; None where rows may differ."""
        if node not in self._known:
            self._known[node] = self._narrow(node)
        return self._known[node]

    def _narrow(self, node: fx.Node) -> fx.Node | None:
        shape = value(node).shape
        if len(shape) < 2 or shape[-2] == 1:
            return node
        found = constant_value(self._graph_module, node)
        if found is not None:
            row = _first_of_equals(found)
            return self.constant(node, row.clone()) if row.shape[-2] == 1 else None
        if node.target is aten.expand.default:
            return self(arguments(node)[0])
        if node.op != "call_function" or not _elementwise(node.target):
            return None
        rows = {source: self(source) for source in node.all_input_nodes}
        if None in rows.values():
            return None
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), rows.__getitem__)
        return insert(node, node.target, args, kwargs)

    def constant(self, before: fx.Node, tensor: torch.Tensor) -> fx.Node:
        """A constant of the graph, in front of a node."""
        count = 0
        while hasattr(self._graph_module, f"row_{count}"):
            count += 1
        self._graph_module.register_buffer(f"row_{count}", tensor, persistent=False)
        with before.graph.inserting_before(before):
            made = before.graph.create_node("get_attr", f"row_{count}")
        with FakeTensorMode():
            made.meta["val"] = Spec.of(tensor).fake()
        made.meta["constant"] = True
        return made


def _first_of_equals(found: torch.Tensor) -> torch.Tensor:
    """A constant without the repetitions along any dimension but its last."""
    for dim in range(found.dim() - 1):
        first = found.narrow(dim, 0, 1)
        if torch.equal(found, first.expand_as(found)):
            found = first
    return found


def _elementwise(target: Any) -> bool:
    tags = getattr(target, "tags", ())
    random = torch.Tag.nondeterministic_seeded in tags
    return target in _ELEMENTWISE or (torch.Tag.pointwise in tags and not random)


def insert(
    before: fx.Node,
    target: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
) -> fx.Node:
    """A new node in front of another, with its fake value."""
    with before.graph.inserting_before(before):
        made = before.graph.call_function(target, args, dict(kwargs or {}))
    with FakeTensorMode():
        fakes, options = fx.node.map_arg(
            (made.args, made.kwargs), lambda node: Spec.of(value(node)).fake()
        )
        made.meta["val"] = target(*fakes, **options)
    fill_defaults(made)
    return made
