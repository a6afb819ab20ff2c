"""Every operator's spellings, in order, over one graph."""

from functools import cache

import torch
from torch import fx

from kernl.op import Spelling
from kernl.ops import ALL
from kernl.rewrite.fold import fold_constants
from kernl.rewrite.masks import place_masks
from kernl.rewrite.match import example_graph
from kernl.rewrite.pack import pack_linears
from kernl.rewrite.replace import apply_spelling
from kernl.rewrite.report import Report, left_to_pytorch
from kernl.rewrite.scale import fold_scales

_GATED = ("swiglu", "geglu")
"""Before `linear`, which would take the activation away from the product with it."""


def rewrite(graph_module: fx.GraphModule) -> Report:
    """Put kernl's operators into a graph, in place; what was done comes back.

    Spellings of more nodes go first, so that a linear layer with its activation is found before
    the linear layer alone; equals go in the order of `kernl.ops.ALL`, gated activations in front.

    Args:
        graph_module: as `trace` returns it.
    """
    report = Report()
    fold_constants(graph_module)
    for name, spelling in _ordered():
        apply_spelling(graph_module, name, spelling, report)
    fold_scales(graph_module)
    place_masks(graph_module, report)
    report.packed = pack_linears(graph_module)
    report.left = left_to_pytorch(graph_module.graph)
    return report


@cache
def _ordered() -> tuple[tuple[str, Spelling], ...]:
    found = [(op.name, spelling) for op in ALL if not op.opt_in for spelling in op.spellings]
    return tuple(sorted(found, key=lambda pair: (-_size(pair[1]), pair[0] not in _GATED)))


def _size(spelling: Spelling) -> int:
    """How many nodes a spelling has in half precision, in which casts are nodes too."""
    graph = example_graph(spelling, torch.float16, torch.device("cpu"))
    return sum(node.op == "call_function" for node in graph.nodes)
