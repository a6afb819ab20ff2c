"""Rules of the normal form: what one operator's node becomes (`kernl.rewrite.normal`)."""

import math
from collections.abc import Callable
from typing import Any

from torch import fx

from kernl.rewrite.nodes import arguments, aten, become, call, value

_SAME = frozenset(
    {
        aten.alias.default,
        aten.clone.default,
        aten.contiguous.default,
        aten.detach.default,
        aten.detach_.default,
        aten.lift_fresh.default,
        aten.lift_fresh_copy.default,
    }
)
_CASTS = frozenset(
    {
        aten._to_copy.default,
        aten.to.dtype,
        aten.to.dtype_layout,
        aten.to.device,
        aten.to.other,
        aten.type_as.default,
    }
)
_RESHAPES = frozenset(
    {
        aten.view.default,
        aten._unsafe_view.default,
        aten.reshape.default,
        aten.flatten.using_ints,
        aten.unflatten.int,
    }
)

Value = Any


def _same(node: fx.Node) -> None:
    become(node, arguments(node)[0])


def _cast(node: fx.Node) -> None:
    (source, *_) = arguments(node)
    before, after = value(source), value(node)
    if before.device != after.device:
        return
    if before.dtype == after.dtype:
        become(node, source)
    else:
        become(node, call(node, aten.to.dtype, (source, after.dtype), node))


def _reshape(node: fx.Node) -> None:
    (source, *_) = arguments(node)
    while source.target is aten.reshape.default:
        (source, *_) = arguments(source)
    sizes = list(value(node).shape)
    if list(value(source).shape) == sizes:
        become(node, source)
        return
    become(node, call(node, aten.reshape.default, (source, sizes), node))


def _expand(node: fx.Node) -> None:
    (source, *_) = arguments(node)
    if value(source).shape == value(node).shape:
        become(node, source)
    else:
        node.update_arg(1, list(value(node).shape))


def _dropout(node: fx.Node) -> None:
    _, probability, training = arguments(node)
    if not training or probability == 0:
        _same(node)


def _slice(node: fx.Node) -> None:
    source, dim, start, end, step = arguments(node)
    size = value(source).shape[dim]
    start, end = (_inside(start, size, 0), _inside(end, size, size))
    if (start, end, step) == (0, size, 1):
        become(node, source)
    else:
        node.args = (source, dim, start, end, step)


def _inside(place: Value, size: int, default: int) -> int:
    if place is None:
        return default
    return int(min(max(place + size if place < 0 else place, 0), size))


def _permute(node: fx.Node) -> None:
    source, order = arguments(node)
    moved = [place for place, dim in enumerate(order) if dim % len(order) != place]
    if not moved:
        _same(node)
    elif len(moved) == 2:
        become(node, call(node, aten.transpose.int, (source, *moved), node))


def _swap_last(node: fx.Node) -> None:
    rank = value(node).dim()
    if rank < 2:
        _same(node)
    else:
        become(node, call(node, aten.transpose.int, (arguments(node)[0], rank - 2, rank - 1), node))


def _swap(node: fx.Node) -> None:
    source, first, second = arguments(node)
    if first == second:
        _same(node)
    elif first > second:
        node.args = (source, second, first)


def _cat(node: fx.Node) -> None:
    parts, dim = arguments(node)
    full = [part for part in parts if value(part).numel()]
    if len(full) == 1:
        become(node, full[0])
    elif full:
        node.args = (full, dim)


def _scaled(node: fx.Node) -> None:
    """Multiplied by one, or zero added: nothing, where the dtype stays."""
    source, number = arguments(node)
    neutral = 1 if node.target is aten.mul.Tensor else 0
    if (
        isinstance(source, fx.Node)
        and isinstance(number, int | float)
        and number == neutral
        and value(source).dtype == value(node).dtype
    ):
        become(node, source)


def _and(node: fx.Node) -> None:
    become(node, call(node, aten.bitwise_and.Tensor, node.args, node))


def _addmm(node: fx.Node) -> None:
    """`addmm(bias, x, w)` is a linear layer whose weight lies transposed."""
    bias, x, weight = arguments(node)
    if node.kwargs != {"beta": 1, "alpha": 1} or value(bias).dim() != 1:
        return
    _as_linear(node, x, weight, bias)


def _mm(node: fx.Node) -> None:
    x, weight = arguments(node)
    _as_linear(node, x, weight, None)


def _as_linear(node: fx.Node, x: Value, weight: Value, bias: Value) -> None:
    with node.graph.inserting_before(node):
        turned = node.graph.call_function(aten.transpose.int, (weight, 0, 1))
    turned.meta["val"] = value(weight).t()
    if weight.target is aten.transpose.int:
        node.graph.erase_node(turned)
        (turned, *_) = arguments(weight)
    become(node, call(node, aten.linear.default, (x, turned, bias), node))


def _softmax(node: fx.Node) -> None:
    """A cast in front of it is its own `dtype`."""
    source, dim, dtype = arguments(node)
    dtype = value(node).dtype if dtype is not None else None
    if source.target is aten.to.dtype and dtype in (None, value(source).dtype):
        node.args = (arguments(source)[0], dim, value(node).dtype)
    elif dtype == value(source).dtype:
        node.args = (source, dim, None)


def _attention(node: fx.Node) -> None:
    """The scale is a number; no dropout outside of training; grouped only where heads differ."""
    q, k, *_ = arguments(node)
    kwargs = dict(node.kwargs)
    if kwargs.get("scale") is None:
        kwargs["scale"] = 1 / math.sqrt(value(q).shape[-1])
    if value(q).shape[-3] == value(k).shape[-3]:
        kwargs["enable_gqa"] = False
    node.kwargs = kwargs


def _embedding(node: fx.Node) -> None:
    """What is padding matters to gradients alone."""
    node.args = (*node.args[:2], -1, False, False)


RULES: dict[Any, Callable[[fx.Node], None]] = {
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(_CASTS, _cast),
    **dict.fromkeys(_RESHAPES, _reshape),
    aten.expand.default: _expand,
    aten.dropout.default: _dropout,
    aten.slice.Tensor: _slice,
    aten.permute.default: _permute,
    aten.t.default: _swap_last,
    aten.numpy_T.default: _swap_last,
    aten.mT.default: _swap_last,
    aten.transpose.int: _swap,
    aten.cat.default: _cat,
    aten.mul.Tensor: _scaled,
    aten.add.Tensor: _scaled,
    aten.__and__.Tensor: _and,
    aten.addmm.default: _addmm,
    aten.mm.default: _mm,
    aten.softmax.int: _softmax,
    aten.scaled_dot_product_attention.default: _attention,
    aten.embedding.default: _embedding,
}
"""By operator; a rule changes or replaces its node, or leaves it."""


def unfold_linear(node: fx.Node) -> None:
    """reshape(linear(reshape(x))) that only folds and unfolds the leading dimensions is linear."""
    (inner, *_) = arguments(node)
    while inner.target is aten.reshape.default:
        (inner, *_) = arguments(inner)
    if inner.target is not aten.linear.default:
        return
    folded, *rest = arguments(inner)
    if folded.target is not aten.reshape.default:
        return
    (x, *_) = arguments(folded)
    unfolds = value(node).shape[:-1] == value(x).shape[:-1]
    if unfolds and value(x).shape[-1] == value(folded).shape[-1]:
        become(node, call(node, aten.linear.default, (x, *rest), node))


def part_as_slice(node: fx.Node) -> None:
    """Parts of `split`, `chunk` and `unbind` are slices."""
    source, place = arguments(node)
    if source.target in (aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default):
        whole, _, dim = arguments(source)
        parts = source.meta["val"]
        start = sum(part.shape[dim] for part in parts[:place])
        end = start + parts[place].shape[dim]
        become(node, call(node, aten.slice.Tensor, (whole, dim, start, end, 1), node))
    elif source.target is aten.unbind.int:
        become(node, call(node, aten.select.int, (*arguments(source), place), node))
