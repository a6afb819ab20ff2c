"""What a model takes and returns, as tensors in a row and back.

A call's arguments become a key, which says all that a graph depends on but the data, and a row of
tensors. A model's outputs (tuples, dicts, `ModelOutput`, caches) become a row of tensors and a
function that builds them anew from another row.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
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
    that of `key_of`.

    Raises:
        UnknownValue: it holds something that cannot be built anew.
    """
    if isinstance(value, torch.Tensor):
        for place, tensor in enumerate(tensors):
            if once and tensor is value:
                return lambda row: row[place]
        tensors.append(value)
        own = len(tensors) - 1
        return lambda row: row[own]
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
    kind = type(value)
    named = {name: rebuilder(part, tensors, once) for name, part in value.items()}
    absent = {name: None for name in vars(value) if name not in named}

    def rebuild(row: Row) -> Any:
        out = kind.__new__(kind)
        OrderedDict.__init__(out)
        vars(out).update(absent)
        for name, part in named.items():
            found = part(row)
            OrderedDict.__setitem__(out, name, found)
            vars(out)[name] = found
        return out

    return rebuild


def _with_parts(value: Any, names: Sequence[str], tensors: list[torch.Tensor]) -> Rebuild:
    """A copy of an object with these attributes, and all that are tensors, built anew."""
    held = [name for name, part in vars(value).items() if isinstance(part, torch.Tensor)]
    parts = dict.fromkeys((*names, *held))
    named = {name: rebuilder(getattr(value, name), tensors) for name in parts}
    template = copy.copy(value)
    for name in named:
        setattr(template, name, None)

    def rebuild(row: Row) -> Any:
        out = copy.copy(template)
        for name, part in vars(template).items():
            if isinstance(part, dict | list):
                vars(out)[name] = copy.copy(part)
        for name, built in named.items():
            setattr(out, name, built(row))
        return out

    return rebuild


def _cache(value: Cache, tensors: list[torch.Tensor]) -> Rebuild:
    layers = [_with_parts(layer, ("keys", "values"), tensors) for layer in value.layers]
    template = copy.copy(value)
    template.layers = []

    def rebuild(row: Row) -> Any:
        out = copy.copy(template)
        out.layers = [layer(row) for layer in layers]
        return out

    return rebuild
