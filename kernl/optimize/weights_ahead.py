"""Where in a graph weights are asked for ahead of the kernels that read them."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import fx

from kernl.rewrite.nodes import VIEWS
from kernl.runtime.ahead import ask

MOST_AHEAD = 16 << 20
"""Bytes asked for and not read yet: well inside the L2 of an H100 (50 MB), activations beside."""
_LEAST = 256 << 10
"""A weight of fewer bytes is read before it could be asked for."""
_GATHERS = ("embedding", "index", "gather")
"""Operators with such names read a few rows of a weight."""


@dataclass
class _Weight:
    """A weight's name, the node that reads it first, and how much of it has been asked for."""

    name: str
    reader: fx.Node
    tensor: torch.Tensor
    asked: int = 0


def ask_ahead(graph_module: fx.GraphModule, most: int = MOST_AHEAD) -> int:
    """Put calls of `ask` in front of the nodes that read weights, in place.

    Each asks for what comes next, in order, so that about `most` bytes are on their way or in L2
    and not read yet. The graph computes what it did.

    Returns:
        How many bytes are asked for.
    """
    waiting, ahead = deque(_weights(graph_module)), deque[_Weight]()
    readers = dict.fromkeys(weight.reader for weight in waiting)
    calls = [node for node in graph_module.graph.nodes if node.op == "call_function"]
    total = 0
    for place in dict.fromkeys([*calls[:1], *readers]):
        # What it reads itself is no longer asked for, and what it read makes room.
        while waiting and waiting[0].reader is place:
            waiting.popleft()
        while ahead and ahead[0].reader is place:
            ahead.popleft()
        parts = list(_parts(waiting, ahead, most))
        total += sum(end - first for _, first, end in parts)
        if parts:
            _put(graph_module.graph, place, parts)
    graph_module.recompile()
    return total


def _parts(
    waiting: deque[_Weight], ahead: deque[_Weight], most: int
) -> Iterator[tuple[str, int, int]]:
    """The next weights' names and bytes, until there is no more room."""
    while waiting:
        weight = waiting[0]
        room = most - weight.asked - sum(one.asked for one in ahead)
        left = weight.tensor.nbytes - weight.asked
        first, weight.asked = weight.asked, weight.asked + min(left, max(room, 0))
        if weight.asked - first < min(left, _LEAST):
            weight.asked = first
            return
        yield weight.name, first, weight.asked
        if weight.asked < weight.tensor.nbytes:
            return
        ahead.append(waiting.popleft())


def _put(graph: fx.Graph, place: fx.Node, parts: list[tuple[str, int, int]]) -> None:
    with graph.inserting_before(place):
        arguments = [
            argument
            for name, first, end in parts
            for argument in (graph.create_node("get_attr", name), first, end)
        ]
        graph.call_function(ask, tuple(arguments))


def _weights(graph_module: fx.GraphModule) -> Iterator[_Weight]:
    """Weights in the order in which they are read first."""
    seen = set()
    for node in graph_module.graph.nodes:
        if node.op != "call_function" or node.target in VIEWS:
            continue
        if any(word in str(node.target) for word in _GATHERS):
            continue
        for source in node.all_input_nodes:
            while source.op == "call_function" and source.target in VIEWS:
                source = source.all_input_nodes[0]
            if source.op != "get_attr" or source in seen:
                continue
            seen.add(source)
            tensor: torch.Tensor = attrgetter(str(source.target))(graph_module)
            if tensor.is_contiguous() and tensor.nbytes >= _LEAST:
                yield _Weight(str(source.target), node, tensor)
