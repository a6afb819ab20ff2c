"""A packed linear layer and the gated activation behind it become one call.

    both = linear(x, weight, bias)
    swiglu(both[..., :n], both[..., n:])  =  linear_glu(x, weight, bias, "silu")

Gate and up of an MLP are packed into such a layer (`kernl.rewrite.pack`); some models pack them
themselves. The weight stays where it lies.
"""

import torch
from torch import fx

from kernl.rewrite.nodes import arguments, aten, become, value
from kernl.rewrite.report import Report

_OURS = torch.ops.kernl
_GATED = {_OURS.swiglu.default: "swiglu", _OURS.geglu.default: "geglu"}


def join_glus(graph_module: fx.GraphModule, report: Report) -> None:
    """Put `kernl.linear_glu` in the place of both, where nothing else needs the layer's output.

    Args:
        graph_module: after its linear layers were packed; changed in place.
        report: takes what was done.
    """
    graph = graph_module.graph
    for gated in list(graph.nodes):
        if gated.op != "call_function" or gated.target not in _GATED:
            continue
        layer = _layer(gated)
        if layer is None:
            continue
        x, weight, bias, *_ = arguments(layer)
        _, _, activation = (*arguments(gated), "silu")[:3]
        with graph.inserting_before(gated):
            joined = graph.call_function(_OURS.linear_glu.default, (x, weight, bias, activation))
        joined.meta.update(gated.meta)
        become(gated, joined)
        report.note_joined("linear_glu", _GATED[gated.target], "linear")
    graph.eliminate_dead_code()
    graph.lint()
    graph_module.recompile()


def _layer(gated: fx.Node) -> fx.Node | None:
    """The bare linear layer of whose output gate is the first half and up the second.

    None where there is none, or where something else needs its output too.
    """
    gate, up, *_ = arguments(gated)
    layer, parts = gate, {gated}
    if up is not None:
        if not gate.target is up.target is aten.slice.Tensor:
            return None
        layer, parts = arguments(gate)[0], {gate, up}
        dim, cols = value(layer).dim() - 1, value(layer).shape[-1]
        first, second = (layer, dim, 0, cols // 2, 1), (layer, dim, cols // 2, cols, 1)
        if (gate.args, up.args) != (first, second):
            return None
        if any(set(half.users) != {gated} for half in parts):
            return None
    if layer.target is not _OURS.linear.default or set(layer.users) != parts:
        return None
    return layer if arguments(layer)[3:] == ("none", None, None) else None
