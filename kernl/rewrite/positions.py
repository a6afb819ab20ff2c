"""T5's relative positions in a graph: a table of biases, read at a constant matrix of buckets."""

from typing import NamedTuple

from torch import fx

from kernl.rewrite.bands import Buckets, buckets_of
from kernl.rewrite.fold import constant_value
from kernl.rewrite.nodes import arguments, aten, value

_Dims = list[str | None]


class Positions(NamedTuple):
    """Biases by distance.

    Attributes:
        table: (buckets, heads).
        buckets: which distances share a bucket.
        queries: how many there are; the last stands at the last key.
        keys: how many there are.
    """

    table: fx.Node
    buckets: Buckets
    queries: int
    keys: int


def positions_of(graph_module: fx.GraphModule, node: fx.Node) -> Positions | None:
    """What a node (…, heads, queries, keys) is, if it is T5's biases; None where it is not."""
    read, dims = _read_of(node)
    if read is None or [dim for dim in dims if dim] != ["heads", "queries", "keys"]:
        return None
    if None in dims[-3:]:
        return None
    table, index = arguments(read)[:2]
    if isinstance(index, list | tuple):
        (index,) = index
    matrix = constant_value(graph_module, index)
    if matrix is None:
        return None
    buckets = buckets_of(matrix, value(table).shape[0])
    return None if buckets is None else Positions(table, buckets, *matrix.shape)


def _read_of(node: fx.Node) -> tuple[fx.Node | None, _Dims]:
    """The read of the table that a node is a view of, and what each dimension of the node is."""
    if _reads(node):
        return node, ["queries", "keys", "heads"]
    if node.op != "call_function" or not node.args or not isinstance(node.args[0], fx.Node):
        return None, []
    source, *rest = arguments(node)
    if node.target is aten.to.dtype and value(source).is_floating_point():
        return _read_of(source)
    read, dims = _read_of(source)
    if read is None:
        return None, []
    if node.target is aten.permute.default:
        return read, [dims[place] for place in rest[0]]
    if node.target is aten.transpose.int:
        first, second = rest
        dims[first], dims[second] = dims[second], dims[first]
        return read, dims
    if node.target is aten.unsqueeze.default:
        return read, [*dims[: rest[0]], None, *dims[rest[0] :]]
    if node.target is aten.expand.default:
        return read, [*[None] * (value(node).dim() - len(dims)), *dims]
    if node.target is aten.reshape.default:
        return read, _with_ones(dims, value(source).shape, value(node).shape)
    return None, []


def _reads(node: fx.Node) -> bool:
    if node.target is aten.embedding.default:
        table, index = node.args[:2]
    elif node.target is aten.index.Tensor:
        table, indices = node.args
        if not isinstance(indices, list | tuple) or len(indices) != 1:
            return False
        index = indices[0]
    else:
        return False
    two = isinstance(table, fx.Node) and value(table).dim() == 2
    return two and isinstance(index, fx.Node) and value(index).dim() == 2


def _with_ones(dims: _Dims, before: tuple[int, ...], after: tuple[int, ...]) -> _Dims:
    """The dimensions behind a reshape that adds or takes away ones; empty for any other."""
    kept = [(dim, size) for dim, size in zip(dims, before, strict=True) if dim]
    if [size for _, size in kept] != [size for size in after if size != 1]:
        return []
    names = iter(dim for dim, _ in kept)
    return [None if size == 1 else next(names) for size in after]
