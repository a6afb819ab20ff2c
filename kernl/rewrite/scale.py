"""Numbers that multiply queries or keys become part of attention's scale.

    attention(q · s, k, v, scale)  =  attention(q, k, v, scale · s)

Whisper, OPT and others write it in the first way: a kernel of its own, which reads and writes all
queries, for what attention does anyway. In half precision q · s is rounded and scale · s is not, so
the second is as exact or more.
"""

import math

import torch
from torch import fx

from kernl.rewrite.nodes import VIEWS, arguments, aten, become, value

_PLACES = tuple(argument.name for argument in torch.ops.kernl.attention.default._schema.arguments)
_QUERIES_AND_KEYS = (_PLACES.index("q"), _PLACES.index("k"))
_SCALE = _PLACES.index("scale")


def fold_scales(graph_module: fx.GraphModule) -> int:
    """Fold in place; how many multiplications are gone.

    Views may stand between the multiplication and attention. Where anything else needs its result,
    it stays.

    Args:
        graph_module: after `kernl.attention` was put in.
    """
    count = 0
    for node in list(graph_module.graph.nodes):
        if node.op == "call_function" and node.target is torch.ops.kernl.attention.default:
            count += sum(_fold(node, place) for place in _QUERIES_AND_KEYS)
    if count:
        graph_module.graph.lint()
        graph_module.recompile()
    return count


def _fold(attention: fx.Node, place: int) -> bool:
    operands = arguments(attention)
    source = operands[place]
    if operands.count(source) > 1:
        return False
    while source.target in VIEWS and len(source.users) == 1:
        (source, *_) = arguments(source)
    factor = _factor(source)
    if factor is None or len(source.users) > 1:
        return False
    scale = operands[_SCALE]
    if scale is None:
        scale = 1 / math.sqrt(value(operands[0]).shape[-1])
    attention.update_arg(_SCALE, scale * factor)
    become(source, arguments(source)[0])
    return True


def _factor(node: fx.Node) -> float | None:
    """By which number above 0 a node multiplies a tensor of its own dtype; None where it does not.

    Attention takes no other scales.
    """
    if node.target not in (aten.mul.Tensor, aten.div.Tensor):
        return None
    source, number = arguments(node)
    if not isinstance(number, int | float) or value(source).dtype != value(node).dtype:
        return None
    if not 0 < number < math.inf:
        return None
    return float(number) if node.target is aten.mul.Tensor else 1 / number
