"""Linear layers of one input become one: queries, keys and values; gate and up.

The weights move into one tensor, and the parameters become views of it: a parameter that is
changed in place is still seen, and no weight is there twice. A parameter that an earlier graph
reads where it lies is never moved.

Weights of convolutions move too, each for itself, to where they are read in rows.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.weak import WeakIdKeyDictionary

from kernl.rewrite.nodes import arguments, aten, value
from kernl.rewrite.trace import Spec

_read_in_place: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""The parameters of all graphs so far."""
_moved: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Those that are views of a packed tensor, or of one in another order."""

Part = torch.nn.Parameter | None


def pack_linears(graph_module: fx.GraphModule) -> int:
    """Pack what can be, in place; how many layers went into others.

    Args:
        graph_module: after `kernl.linear` was put in.
    """
    count = 0
    for layers in _groups(graph_module):
        weights = [_parameter(graph_module, arguments(layer)[1]) for layer in layers]
        biases = [_parameter(graph_module, arguments(layer)[2]) for layer in layers]
        rows = [value(layer).shape[-1] for layer in layers]
        weight = _joined(weights, rows)
        if weight is None:
            continue
        bias = None
        if any(one is not None for one in biases):
            bias = _joined(biases, rows)
            if bias is None:
                continue
        _replace(graph_module, layers, rows, weight, bias)
        count += len(layers) - 1
    for parameter in graph_module.parameters():
        _read_in_place[parameter] = True
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.recompile()
    return count


def lay_out_convolutions(graph_module: fx.GraphModule) -> int:
    """Let weights lie in rows of channels where the inputs do, in place; how many were moved.

    A weight (out_channels, in_channels, kernel_size) becomes a view of memory (out_channels,
    kernel_size, in_channels), which `kernl.conv1d` reads as its inner dimension counts.

    Args:
        graph_module: after `kernl.conv1d` was put in, before `pack_linears`.
    """
    count = 0
    for node in graph_module.graph.nodes:
        if node.target is not torch.ops.kernl.conv1d.default:
            continue
        x, weight, *_ = arguments(node)
        own = _parameter(graph_module, weight)
        if own is None or value(x).stride(1) != 1 or not own.is_contiguous():
            continue
        if own.transpose(1, 2).is_contiguous() or own in _read_in_place or own.is_inference():
            continue
        with torch.inference_mode(False), torch.no_grad():
            own.data = own.transpose(1, 2).contiguous().transpose(1, 2)
        _moved[own] = True
        count += 1
    return count


def unpack_linears(module: torch.nn.Module) -> None:
    """Give every parameter memory of its own again. Graphs that read the packed ones are void."""
    _unpack(list(module.parameters()))


@contextmanager
def undone(module: torch.nn.Module) -> Iterator[None]:
    """Take back what graphs made inside pack of a module's parameters; these graphs are void."""
    fresh = [parameter for parameter in module.parameters() if parameter not in _read_in_place]
    try:
        yield
    finally:
        _unpack(fresh)


def _unpack(parameters: Sequence[torch.nn.Parameter]) -> None:
    with torch.inference_mode(False), torch.no_grad():
        for parameter in parameters:
            _read_in_place.pop(parameter, None)
            if _moved.pop(parameter, None):
                parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)


def _groups(graph_module: fx.GraphModule) -> list[list[fx.Node]]:
    """Bare linear layers by their input, two or more with parameters of their own."""
    found: dict[fx.Node, list[fx.Node]] = {}
    for node in graph_module.graph.nodes:
        if node.target is not torch.ops.kernl.linear.default:
            continue
        x, weight, bias, activation, *after = arguments(node)
        own = _parameter(graph_module, weight)
        plain = own is not None and own.dim() == 2 and own.is_contiguous()
        bias_is_own = bias is None or _parameter(graph_module, bias) is not None
        if plain and bias_is_own and activation == "none" and after == [None, None]:
            found.setdefault(x, []).append(node)
    return [
        layers
        for layers in found.values()
        if len(layers) > 1 and len({arguments(layer)[1] for layer in layers}) == len(layers)
    ]


def _parameter(graph_module: fx.GraphModule, node: object) -> Part:
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    owner, _, name = str(node.target).rpartition(".")
    found = getattr(graph_module.get_submodule(owner), name)
    return found if isinstance(found, torch.nn.Parameter) else None


def _joined(parts: Sequence[Part], rows: Sequence[int]) -> torch.Tensor | None:
    """One tensor of all the parts' rows, of which they are views; zeros where there is no part.

    None where a part may not be moved.
    """
    starts = [sum(rows[:place]) for place in range(len(rows))]
    there = [(part, start) for part, start in zip(parts, starts, strict=True) if part is not None]
    known = _joined_already(there, starts[-1] + rows[-1], len(there) == len(parts))
    if known is not None:
        return known
    first = there[0][0]
    for part, _ in there:
        if part in _read_in_place or part.is_inference() or part.dtype != first.dtype:
            return None
    with torch.inference_mode(False), torch.no_grad():
        whole = first.new_zeros((starts[-1] + rows[-1], *first.shape[1:]))
        for part, start in there:
            own = whole[start : start + part.shape[0]]
            own.copy_(part)
            part.data = own
            _moved[part] = True
    return whole


def _joined_already(
    there: Sequence[tuple[torch.nn.Parameter, int]], rows: int, complete: bool
) -> torch.Tensor | None:
    """The tensor of which the parts are views since an earlier graph; None where they are not."""
    first, start = there[0]
    row = first.stride(0)
    storage = first.untyped_storage()
    begin = first.storage_offset() - start * row
    for part, place in there:
        same = part.untyped_storage().data_ptr() == storage.data_ptr()
        if not same or part.storage_offset() != begin + place * row or part.dtype != first.dtype:
            return None
    if begin != 0 or storage.nbytes() != rows * row * first.element_size():
        return None
    with torch.inference_mode(False), torch.no_grad():
        whole = first.data.as_strided((rows, *first.shape[1:]), first.stride(), 0)
        if not complete:
            gaps = whole.clone()
            for part, place in there:
                gaps[place : place + part.shape[0]] = 0
            if bool(gaps.any()):
                return None
    return whole


def _replace(
    graph_module: fx.GraphModule,
    layers: Sequence[fx.Node],
    rows: Sequence[int],
    weight: torch.Tensor,
    bias: torch.Tensor | None,
) -> None:
    """One layer where the first stood, and a slice of it for each."""
    graph = graph_module.graph
    first = layers[0]
    x = arguments(first)[0]
    name = f"packed_{first.name}"
    shape = (*value(x).shape[:-1], sum(rows))
    with graph.inserting_before(first):
        operands = []
        for kind, tensor in (("weight", weight), ("bias", bias)):
            operand = None
            if tensor is not None:
                graph_module.register_buffer(f"{name}_{kind}", tensor, persistent=False)
                operand = graph.create_node("get_attr", f"{name}_{kind}")
                operand.meta["val"] = _fake(tuple(tensor.shape), tensor.dtype, tensor.device)
            operands.append(operand)
        packed = graph.call_function(
            torch.ops.kernl.linear.default, (x, *operands, "none", None, None)
        )
        packed.meta["val"] = _fake(shape, value(first).dtype, value(first).device)
        for place, layer in enumerate(layers):
            start = sum(rows[:place])
            part = graph.call_function(
                aten.slice.Tensor, (packed, len(shape) - 1, start, start + rows[place], 1)
            )
            part.meta["val"] = value(packed)[..., start : start + rows[place]]
            layer.replace_all_uses_with(part)
    for layer in layers:
        graph.erase_node(layer)


def _fake(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    stride = torch.empty(shape, device="meta").stride()
    with FakeTensorMode():
        return Spec(shape, stride, dtype, device).fake()
