"""The normal form of a graph: one way to write what models write in several.

    casts          `to`, `float`, `_to_copy`, `type_as`      → aten.to.dtype, or nothing
    shapes         `view`, `reshape`, `flatten`              → aten.reshape with all sizes
    swaps          `t`, `mT`, `permute` of two dimensions    → aten.transpose
    copies         `contiguous`, `clone`, `detach`, dropout in eval mode           → nothing
    products       `addmm`, `mm`                             → aten.linear
    defaults       every argument is there, dimensions count from the front
    attention      the scale is a number
    equal nodes    are one node

A graph in normal form is functional: no node writes into a tensor. Strides of what it returns may
differ from those of the original.
"""

import operator
from typing import Any

import torch
from torch import fx

from kernl.rewrite.nodes import aten, become, fill_defaults
from kernl.rewrite.rules import RULES, part_as_slice, unfold_linear


def normalize(graph_module: fx.GraphModule) -> None:
    """Bring a graph of ATen operators, each node with its fake value, into the normal form."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(node)
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        fill_defaults(node)
        rule = RULES.get(node.target)
        if rule is not None:
            rule(node)
    _merge_equal(graph)
    graph.eliminate_dead_code()
    graph.lint()
    graph_module.recompile()


def _merge_equal(graph: fx.Graph) -> None:
    """Nodes with one target and the same arguments become one; random ones stay apart."""
    seen: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is operator.getitem:
            part_as_slice(node)
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is aten.reshape.default:
            unfold_linear(node)
    for node in list(graph.nodes):
        if node.op == "get_attr":
            key: Any = ("get_attr", node.target)
        elif node.op == "call_function" and _repeatable(node):
            key = (node.target, _hashable(node.args), _hashable(node.kwargs))
        else:
            continue
        first = seen.setdefault(key, node)
        if first is not node:
            become(node, first)


def _repeatable(node: fx.Node) -> bool:
    tags = getattr(node.target, "tags", ())
    return torch.Tag.nondeterministic_seeded not in tags


def _hashable(tree: Any) -> Any:
    if isinstance(tree, list | tuple):
        return tuple(_hashable(one) for one in tree)
    if isinstance(tree, dict):
        return tuple((key, _hashable(one)) for key, one in tree.items())
    # 1, 1.0 and True are equal to Python and not to PyTorch.
    return (type(tree), tree)
