"""What a model takes and returns, as tensors in a row and back.

A call's arguments become a key, which says all that a graph depends on but the data, and a row of
tensors. A model's outputs (tuples, dicts, `ModelOutput`, caches) become a row of tensors and a
function that builds them anew from another row.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.utils.generic import ModelOutput

from kernl.errors import KernlError

Row = Sequence[torch.Tensor]
Rebuild = Callable[[Row], Any]

_PLAIN = (type(None), bool, int, float, str, torch.dtype)


class UnknownValue(KernlError, TypeError):
    """A value that is neither tensor nor plain nor a container of these."""

    def __init__(self, seen: str) -> None:
        super().__init__(
            seen=seen,
            allowed="tensors, numbers, strings, tuples, lists, dicts; as outputs caches too",
            action="leave this call to PyTorch",
        )


def key_of_call(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    dtype: torch.dtype | None,
    tensors: list[torch.Tensor],
) -> Hashable:
    """What a graph depends on of a call; its tensors are appended to `tensors`.

    It is made anew in each call, so it is flat. A tensor takes three places, of which the first is
    a torch.Size, another argument one, which is no torch.Size: no two kinds of calls share a key.

    Args:
        args: of the call, by position.
        kwargs: of the call, by name.
        dtype: in which it computes; None for that of the weights.
        tensors: a list, to be filled.

    Raises:
        UnknownValue: a graph cannot take such an argument.
    """
    parts: list[Hashable] = [dtype, tuple(kwargs)]
    for value in (*args, *kwargs.values()) if args else kwargs.values():
        if isinstance(value, torch.Tensor):
            tensors.append(value)
            parts.append(value.shape)
            parts.append(value.dtype)
            parts.append(value.device)
        else:
            parts.append(key_of(value, tensors))
    return tuple(parts)


def key_of(value: Any, tensors: list[torch.Tensor]) -> Hashable:
    """What a graph depends on of an argument; its tensors are appended to `tensors`.

    Raises:
        UnknownValue: a graph cannot take such a value.
    """
    kind = type(value)
    if kind is torch.Tensor or isinstance(value, torch.Tensor):
        tensors.append(value)
        return value.shape, value.dtype, value.device
    if isinstance(value, _PLAIN):
        return kind, value
    if kind in (tuple, list):
        return kind, tuple([key_of(part, tensors) for part in value])
    if kind is dict or isinstance(value, ModelOutput):
        return kind, tuple([(name, key_of(part, tensors)) for name, part in value.items()])
    raise UnknownValue(f"an argument of type {type(value).__name__}")


def rebuilder(value: Any, tensors: list[torch.Tensor], once: bool = True) -> Rebuild:
    """How to build such a value from other tensors; its own are appended to `tensors`.

    With `once` a tensor that is there several times is one tensor of the row; without, the row is
    that of `key_of` and `key_of_call`.

    Raises:
        UnknownValue: it holds something that cannot be built anew.
    """
    if isinstance(value, torch.Tensor):
        for place, tensor in enumerate(tensors):
            if once and tensor is value:
                return itemgetter(place)
        tensors.append(value)
        return itemgetter(len(tensors) - 1)
    if isinstance(value, _PLAIN):
        return lambda _: value
    if type(value) in (tuple, list):
        kind, parts = type(value), [rebuilder(part, tensors, once) for part in value]
        return lambda row: kind(part(row) for part in parts)
    if isinstance(value, ModelOutput):
        return _model_output(value, tensors, once)
    if type(value) is dict:
        named = {name: rebuilder(part, tensors, once) for name, part in value.items()}
        return lambda row: {name: part(row) for name, part in named.items()}
    if isinstance(value, EncoderDecoderCache):
        return _with_parts(value, ("self_attention_cache", "cross_attention_cache"), tensors)
    if isinstance(value, Cache):
        return _cache(value, tensors)
    raise UnknownValue(f"an output of type {type(value).__name__}")


def _model_output(value: ModelOutput, tensors: list[torch.Tensor], once: bool) -> Rebuild:
    """Its own constructor checks every field on every call; this sets what is known to be right."""
    kind, new, put = type(value), type(value).__new__, OrderedDict.__setitem__
    named = [(name, rebuilder(part, tensors, once)) for name, part in value.items()]
    nothing = dict.fromkeys(vars(value))

    def rebuild(row: Row) -> Any:
        out = new(kind)
        fields = out.__dict__
        fields.update(nothing)
        for name, part in named:
            fields[name] = found = part(row)
            put(out, name, found)
        return out

    return rebuild


def _with_parts(value: Any, names: Sequence[str], tensors: list[torch.Tensor]) -> Rebuild:
    """A copy of an object with these attributes, and all that are tensors, built anew."""
    held = [name for name, part in vars(value).items() if isinstance(part, torch.Tensor)]
    parts = dict.fromkeys((*names, *held))
    named = {name: rebuilder(getattr(value, name), tensors) for name in parts}
    template = _bare_copy(value)
    template.__dict__.update(dict.fromkeys(named))
    changing = [name for name, part in vars(template).items() if isinstance(part, dict | list)]

    def rebuild(row: Row) -> Any:
        out = _bare_copy(template)
        fields = out.__dict__
        for name in changing:
            fields[name] = copy.copy(fields[name])
        for name, built in named.items():
            fields[name] = built(row)
        return out

    return rebuild


def _bare_copy(value: Any) -> Any:
    """As `copy.copy` of an object that says nothing of how to copy it, in a quarter of the time."""
    out = object.__new__(type(value))
    out.__dict__.update(value.__dict__)
    return out


def _cache(value: Cache, tensors: list[torch.Tensor]) -> Rebuild:
    layers = [_with_parts(layer, ("keys", "values"), tensors) for layer in value.layers]
    template = _bare_copy(value)
    template.layers = []

    def rebuild(row: Row) -> Any:
        out = _bare_copy(template)
        out.layers = [layer(row) for layer in layers]
        return out

    return rebuild
