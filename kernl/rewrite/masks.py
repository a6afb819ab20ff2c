"""Masks of `attention` as its kernel takes them best.

Models write all that a query sees, and all that is added to its scores, into one tensor of
(batch, heads, queries, keys). Here it is taken apart:

    causality and a window    a constant that is equal to one becomes flags of the call
    T5's relative positions   a constant that is equal to their buckets: the call takes the table
    what depends on keys      padding: a mask (batch, 1, 1, keys), computed at that size
    everything else           stays as it was

A query that sees a key gets what it got. One that sees none, such as padding in front of a causal
sequence, gets zeros from a boolean mask, as before. An additive mask of finite numbers gives it
the mean of all values, those behind it among them, which a causal call never reads: an additive
mask by which inputs and causality both hide keys keeps its size, and only T5's positions leave it.
"""

from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import fx

from kernl.errors import KernlError
from kernl.ops.attention_check import check_attention
from kernl.rewrite.bands import Bounds, Buckets, bounds_of
from kernl.rewrite.fold import constant_value, drop_unused_constants
from kernl.rewrite.narrow import Narrow, insert
from kernl.rewrite.nodes import arguments, aten, value
from kernl.rewrite.positions import Positions, positions_of
from kernl.rewrite.report import Refusal, Report

_HIDES = -1e4
"""Added to a score, this or less hides its key."""
_WHOLLY = float("-inf")


@dataclass
class _Parts:
    """What a mask is made of: of a boolean one all have to be true, of an additive one the sum.

    Attributes:
        seen: constants that are False where a key is hidden.
        hides: the largest number by which they hide it.
        keys: nodes that are the same for every query.
        rest: nodes that are not.
        positions: T5's.
    """

    seen: list[torch.Tensor] = field(default_factory=list)
    hides: float = _WHOLLY
    keys: list[fx.Node] = field(default_factory=list)
    rest: list[fx.Node] = field(default_factory=list)
    positions: list[Positions] = field(default_factory=list)

    def __add__(self, other: "_Parts") -> "_Parts":
        return _Parts(
            self.seen + other.seen,
            max(self.hides, other.hides),
            self.keys + other.keys,
            self.rest + other.rest,
            self.positions + other.positions,
        )


@dataclass(frozen=True)
class _Placed:
    """What a call takes in the place of a mask."""

    bounds: Bounds
    positions: Positions | None
    mask: fx.Node | None


def place_masks(graph_module: fx.GraphModule, report: Report) -> None:
    """Give every call of `kernl.attention` the arguments that say what its mask says, in place."""
    reader = _Reader(graph_module)
    for node in list(graph_module.graph.nodes):
        if node.op == "call_function" and node.target is torch.ops.kernl.attention.default:
            _place(node, reader, report)
    graph_module.graph.eliminate_dead_code()
    drop_unused_constants(graph_module, "folded_", "row_")
    graph_module.graph.lint()
    graph_module.recompile()


def _place(node: fx.Node, reader: "_Reader", report: Report) -> None:
    q, k, v, mask, causal, scale, lengths, window, softcap, slopes, bias, *_ = arguments(node)
    if mask is None or window is not None or bias is not None:
        return
    placed = reader.placed(mask, value(q).shape[2], value(k).shape[2])
    if placed is None:
        return
    options = Buckets(True, 128)
    if placed.positions is not None:
        bias, options = placed.positions.table, placed.positions.buckets
    bounds = Bounds(causal or placed.bounds.causal, placed.bounds.window)
    masks = (placed.mask, bounds.causal, scale, lengths, bounds.window, softcap)
    args: tuple[Any, ...] = (q, k, v, *masks, slopes, bias, *options)
    try:
        check_attention(*fx.node.map_arg(args, value))
    except KernlError as error:
        report.refused.append(Refusal("attention", node.name, str(error)))
        return
    node.args = args
    report.masks[_spoken(mask, bounds, bias, placed.mask)] += 1


def _spoken(mask: fx.Node, bounds: Bounds, bias: fx.Node | None, left: fx.Node | None) -> str:
    words = ["causality"] if bounds.causal else []
    words += [f"a window of {bounds.window}"] if bounds.window is not None else []
    words += ["relative positions"] if bias is not None else []
    words += [f"a mask {tuple(value(left).shape)}"] if left is not None else []
    return f"{tuple(value(mask).shape)} became {', '.join(words) or 'none'}"


class _Reader:
    """Takes the masks of one graph apart, each once."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self._graph_module = graph_module
        self._narrow = Narrow(graph_module)
        self._known: dict[tuple[fx.Node, int, int], _Placed | None] = {}

    def placed(self, mask: fx.Node, queries: int, keys: int) -> _Placed | None:
        """What stands for a mask over so many queries and keys; None where the mask stays."""
        key = (mask, queries, keys)
        if key not in self._known:
            self._known[key] = self._place(*key)
        return self._known[key]

    def _place(self, mask: fx.Node, queries: int, keys: int) -> _Placed | None:
        boolean = value(mask).dtype == torch.bool
        parts = self._seen(mask) if boolean else self._added(mask)
        if parts is None:
            return None
        bounds = _bounds(parts, queries, keys)
        left = [*parts.keys, *parts.rest]
        if bounds is None or left == [mask] or len(parts.positions) > 1:
            return None
        positions = parts.positions[0] if parts.positions else None
        if positions is not None and (positions.queries, positions.keys) != (queries, keys):
            return None
        behind = mask.next
        joins = aten.bitwise_and.Tensor if boolean else aten.add.Tensor
        joined = left[0] if left else None
        for part in left[1:]:
            joined = insert(behind, joins, (joined, part))
        return _Placed(bounds, positions, joined)

    def _seen(self, node: fx.Node) -> _Parts | None:
        """The parts of a boolean mask; None where one is not the same for every query."""
        found = constant_value(self._graph_module, node)
        if found is not None and bool(found.all()):
            return _Parts()
        row = self._narrow(node)
        if row is not None:
            return _Parts(keys=[row])
        if found is not None:
            return _one_matrix(found)
        if node.target is aten.expand.default:
            return self._seen(arguments(node)[0])
        if node.target is aten.bitwise_and.Tensor:
            one, other = (self._seen(part) for part in arguments(node))
            return None if one is None or other is None else one + other
        return None

    def _added(self, node: fx.Node) -> _Parts:
        """The parts of an additive mask."""
        found = constant_value(self._graph_module, node)
        if found is not None and not bool(found.any()):
            return _Parts()
        row = self._narrow(node)
        if row is not None:
            return _Parts(keys=[row])
        if found is not None:
            return _hidden_in(found) or _Parts(rest=[node])
        positions = positions_of(self._graph_module, node)
        if positions is not None:
            return _Parts(positions=[positions])
        if node.target is aten.expand.default:
            return self._added(arguments(node)[0])
        if node.target is aten.add.Tensor and _of_two_tensors(node):
            one, other = (self._added(part) for part in arguments(node))
            return one + other
        if node.target is aten.where.ScalarOther:
            return self._chosen(node) or _Parts(rest=[node])
        return _Parts(rest=[node])

    def _chosen(self, node: fx.Node) -> _Parts | None:
        """Those of where(seen, scores, a number that hides): what is seen, and the scores' own."""
        condition, source, hides = arguments(node)
        if hides > _HIDES:
            return None
        added, seen = self._added(source), self._seen(condition)
        if added.rest:
            return None
        if seen is not None and not seen.keys:
            return added + _Parts(seen=seen.seen, hides=hides)
        if seen is not None and (not seen.seen or hides == _WHOLLY):
            rows = [self._hiding(node, row, hides) for row in seen.keys]
            return added + _Parts(seen=seen.seen, keys=rows)
        if not added.positions:
            return None
        return added + _Parts(rest=[self._hiding(node, condition, hides)])

    def _hiding(self, node: fx.Node, seen: fx.Node, hides: float) -> fx.Node:
        """0 where a key is seen, in the dtype of a mask."""
        like = value(node)
        zero = self._narrow.constant(node, torch.zeros((), dtype=like.dtype, device=like.device))
        return insert(node, aten.where.ScalarOther, (seen, zero, hides))


def _of_two_tensors(node: fx.Node) -> bool:
    return len(node.all_input_nodes) == 2 and bool(node.kwargs["alpha"] == 1)


def _bounds(parts: _Parts, queries: int, keys: int) -> Bounds | None:
    """Those that its constants are; None where they are none, or hide what inputs hide too."""
    if not parts.seen:
        return Bounds(False, None)
    seen = reduce(torch.logical_and, parts.seen).expand(queries, keys)
    if parts.hides != _WHOLLY:
        blind = not bool(seen.any(-1).all())
        if blind or parts.keys or parts.rest:
            return None
    return bounds_of(seen)


def _one_matrix(seen: torch.Tensor) -> _Parts | None:
    """A constant (…, queries, keys) that says the same for each sequence and head."""
    matrix = seen.reshape(-1, *seen.shape[-2:])
    return _Parts(seen=[matrix[0]]) if bool((matrix == matrix[:1]).all()) else None


def _hidden_in(added: torch.Tensor) -> _Parts | None:
    """An additive constant that is 0 where a key is seen and hides it elsewhere."""
    hidden = added <= _HIDES
    parts = _one_matrix(~hidden)
    if parts is None or bool(added[~hidden].any()):
        return None
    parts.hides = float(added[hidden].max())
    return parts
