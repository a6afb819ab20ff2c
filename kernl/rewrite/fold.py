"""Compute once what depends on no input and on no weight: positions, masks of causality, tables.

Parameters and buffers that a checkpoint holds may be changed in place, so nothing that depends on
them is folded. Buffers that no checkpoint holds, as positions and rotary frequencies, count as
constants.

A constant then shows more: an `and` with a mask that is true everywhere, or a gather whose indices
count up, or whose source holds one value alone, computes nothing.
"""

from typing import Any, cast

import torch
from torch import fx

from kernl.rewrite.nodes import VIEWS, arguments, aten, value
from kernl.rewrite.normal import normalize

MOST_BYTES = 256 << 20
"""A constant larger than this is computed on every call instead."""


def fold_constants(graph_module: fx.GraphModule) -> int:
    """Fold in place; how many constants the graph has got. Constants are computed on their device.

    Args:
        graph_module: as `kernl.rewrite.trace` returns it for a real module.
    """
    graph = graph_module.graph
    known = _known_values(graph_module)
    for node in reversed(list(known)):  # a view of a constant stays a view, as patterns have it
        if node.target in VIEWS and any(user not in known for user in node.users):
            del known[node]
    count = 0
    for node, found in known.items():
        if node.op == "get_attr" or all(user in known for user in node.users):
            continue
        name = f"folded_{count}"
        graph_module.register_buffer(name, found, persistent=False)
        with graph.inserting_before(node):
            constant = graph.create_node("get_attr", name)
        constant.meta.update(node.meta)
        constant.meta["constant"] = True
        node.replace_all_uses_with(constant)
        count += 1
    graph.eliminate_dead_code()
    for node in list(graph.nodes):
        if node.target is aten.bitwise_and.Tensor:
            _and_with_everything(graph_module, node)
        elif node.target is aten.index.Tensor:
            _index_in_order(graph_module, node)
        elif node.target is aten.gather.default:
            _gather_of_one_value(graph_module, node)
    normalize(graph_module)
    return count


def _known_values(graph_module: fx.GraphModule) -> dict[fx.Node, torch.Tensor]:
    """The nodes whose values no input and no weight can change, with these values."""
    known: dict[fx.Node, torch.Tensor] = {}
    for node in graph_module.graph.nodes:
        if node.op == "get_attr" and node.meta.get("constant"):
            known[node] = graph_module.get_buffer(str(node.target))
        elif node.op == "call_function" and _foldable(node, known):
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
            with torch.no_grad():
                known[node] = node.target(*args, **kwargs)
    return known


def _foldable(node: fx.Node, known: dict[fx.Node, torch.Tensor]) -> bool:
    found = node.meta.get("val")
    if not isinstance(found, torch.Tensor) or not all(n in known for n in node.all_input_nodes):
        return False
    tags = getattr(node.target, "tags", ())
    size = found.numel() * found.element_size()
    return torch.Tag.nondeterministic_seeded not in tags and size <= MOST_BYTES


def constant_value(graph_module: fx.GraphModule, node: object) -> torch.Tensor | None:
    """The value of a constant or of a view of one; None for anything else."""
    if not isinstance(node, fx.Node):
        return None
    if node.op == "get_attr" and node.meta.get("constant"):
        return graph_module.get_buffer(str(node.target))
    if node.op == "call_function" and node.target in VIEWS:
        source = constant_value(graph_module, node.args[0])
        if source is not None:
            return cast(torch.Tensor, node.target(source, *node.args[1:]))
    return None


def drop_unused_constants(graph_module: fx.GraphModule, *kinds: str) -> None:
    """Let go of constants that nothing in the graph reads any more, whose names begin so."""
    read = {node.target for node in graph_module.graph.nodes if node.op == "get_attr"}
    for name, _ in list(graph_module.named_buffers(recurse=False)):
        if name.startswith(kinds) and name not in read:
            delattr(graph_module, name)


def _and_with_everything(graph_module: fx.GraphModule, node: fx.Node) -> None:
    for mask, other in (node.args[:2], node.args[1::-1]):
        found = constant_value(graph_module, mask)
        if found is None or not isinstance(other, fx.Node):
            continue
        if value(other).dtype == found.dtype == torch.bool and bool(found.all()):
            _put(node, aten.expand.default, (other, list(value(node).shape)))
            return


def _index_in_order(graph_module: fx.GraphModule, node: fx.Node) -> None:
    """x[rows, cols] with all rows and all columns in order is x, seen with more dimensions."""
    source, indices = node.args
    assert isinstance(source, fx.Node)
    assert isinstance(indices, list | tuple)
    if len(indices) != value(source).dim():
        return
    place = 0
    for index, size in zip(indices, value(source).shape, strict=True):
        found = constant_value(graph_module, index)
        if found is None or found.numel() != size:
            return
        if not torch.equal(found.flatten(), torch.arange(size, device=found.device)):
            return
        # Each index has its numbers in one dimension, behind that of the index before.
        wide = [dim for dim, length in enumerate(found.shape) if length != 1]
        own = (wide[0] if wide else place) + value(node).dim() - found.dim()
        if len(wide) > 1 or own < place:
            return
        place = own + 1 if wide else place
    _put(node, aten.reshape.default, (source, list(value(node).shape)))


def _gather_of_one_value(graph_module: fx.GraphModule, node: fx.Node) -> None:
    """Whatever is taken of a constant that is the same everywhere, as RoBERTa's token types."""
    found = constant_value(graph_module, node.args[0])
    if (
        found is None
        or not found.numel()
        or not torch.equal(found, found.flatten()[0].expand_as(found))
    ):
        return
    name = f"alike_{node.name}"
    graph_module.register_buffer(name, found.flatten()[:1].clone(), persistent=False)
    with node.graph.inserting_before(node):
        constant = node.graph.create_node("get_attr", name)
    constant.meta.update(node.meta, constant=True)
    constant.meta["val"] = value(node).new_empty((1,))
    _put(node, aten.expand.default, (constant, list(value(node).shape)))


def look_at_tables(graph_module: fx.GraphModule) -> None:
    """Rows of a table that follow each other, as all positions do, are looked at where they lie.

    Args:
        graph_module: after spellings were found, some of which look rows up; changed in place.
    """
    for node in list(graph_module.graph.nodes):
        if node.target not in (aten.embedding.default, aten.index.Tensor):
            continue
        table, rows = arguments(node)[:2]
        if isinstance(rows, list | tuple):
            if len(rows) != 1:
                continue
            (rows,) = rows
        found = constant_value(graph_module, rows)
        if found is None or found.dtype != torch.int64 or found.numel() == 0:
            continue
        start, count = int(found.flatten()[0]), found.numel()
        end, size = start + count, value(table).shape[0]
        in_order = torch.arange(start, end, device=found.device)
        if start < 0 or end > size or not torch.equal(found.flatten(), in_order):
            continue
        if count < size:
            with graph_module.graph.inserting_before(node):
                part = graph_module.graph.call_function(
                    aten.slice.Tensor, (table, 0, start, end, 1)
                )
            part.meta["val"] = value(table)[start:end]
            table = part
        _put(node, aten.reshape.default, (table, list(value(node).shape)))
    normalize(graph_module)


def _put(node: fx.Node, target: Any, args: tuple[Any, ...]) -> None:
    with node.graph.inserting_before(node):
        made = node.graph.call_function(target, args)
    made.meta.update(node.meta)
    node.replace_all_uses_with(made)
    node.graph.erase_node(node)
