"""Nodes of a graph of ATen operators: what they compute, what they take, how they are replaced."""

from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

VIEWS = frozenset(
    {
        aten.expand.default,
        aten.permute.default,
        aten.reshape.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.transpose.int,
        aten.unsqueeze.default,
    }
)
"""In normal form these look at memory otherwise; only `reshape` copies, where it must."""

_ONE_DIM = ("dim", "dim0", "dim1", "start_dim", "end_dim")
_ADDS_A_DIMENSION = frozenset({aten.unsqueeze.default, aten.stack.default})


def value(node: fx.Node) -> torch.Tensor:
    """The fake tensor that a node computes."""
    found = node.meta["val"]
    assert isinstance(found, torch.Tensor)
    return found


def arguments(node: fx.Node) -> tuple[Any, ...]:
    """A node's arguments, whose types its operator's schema knows and no type checker does."""
    return node.args


def schema(node: fx.Node) -> Any:
    """What the node's operator takes, as PyTorch declares it."""
    assert isinstance(node.target, torch._ops.OpOverload)
    return node.target._schema.arguments


def fill_defaults(node: fx.Node) -> None:
    """Give every argument of the schema, by position where it may be, dimensions ≥ 0."""
    args, kwargs = [], {}
    for place, argument in enumerate(schema(node)):
        if place < len(node.args):
            given = node.args[place]
        else:
            given = node.kwargs.get(argument.name, argument.default_value)
        if argument.kwarg_only:
            kwargs[argument.name] = given
        else:
            args.append(given)
    node.args = tuple(args)
    node.kwargs = kwargs
    _count_from_front(node)


def _count_from_front(node: fx.Node) -> None:
    args = arguments(node)
    first = args[0] if args else None
    first = first[0] if isinstance(first, list | tuple) and first else first
    if not isinstance(first, fx.Node) or not isinstance(first.meta.get("val"), torch.Tensor):
        return
    rank = value(first).dim() + (node.target in _ADDS_A_DIMENSION)
    for place, argument in enumerate(schema(node)[: len(args)]):
        given = args[place]
        if argument.name in _ONE_DIM and isinstance(given, int) and given < 0:
            node.update_arg(place, given + rank)
        elif argument.name == "dim" and isinstance(given, list | tuple):
            node.update_arg(place, [dim + rank if dim < 0 else dim for dim in given])


def become(node: fx.Node, other: fx.Node) -> None:
    """Put another node in the place of this one."""
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)


def call(before: fx.Node, target: Any, args: tuple[Any, ...], like: fx.Node) -> fx.Node:
    """A new node in front of another, that computes what `like` does."""
    with before.graph.inserting_before(before):
        made = before.graph.call_function(target, args)
    made.meta.update(like.meta)
    fill_defaults(made)
    return made
