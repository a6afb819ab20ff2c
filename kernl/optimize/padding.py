"""Many lengths by few graphs: a call is padded to the next of some lengths, its outputs are cut.

Padding goes to the right end and is masked, so a model that heeds its mask gives the same outputs
in the places that were there before. That is not taken on trust: the first call of each length is
compared with the original's.
"""

import bisect
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kernl.runtime.structure import key_of_call

LENGTHS = tuple(size for power in range(4, 15) for size in (2**power, 3 * 2 ** (power - 1)))
"""16, 24, 32, 48, 64, 96 …: at most half as much again."""

_FILLS = {"attention_mask": 0, "token_type_ids": 0}
_MASK = "attention_mask"
_PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Padded:
    """How a call of one length is made one of another.

    Attributes:
        length: before.
        padded_length: after.
        fills: what each tensor of the row is filled with.
        mask: (batch, padded length), to go behind them; None where the call has one.
    """

    length: int
    padded_length: int
    fills: tuple[int, ...]
    mask: torch.Tensor | None

    def row(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The tensors of the padded call."""
        more = (0, self.padded_length - self.length)
        row = [
            torch.nn.functional.pad(tensor, more, value=fill)
            for tensor, fill in zip(tensors, self.fills, strict=True)
        ]
        return row if self.mask is None else [*row, self.mask]

    def cut(
        self, outputs: Sequence[torch.Tensor], shapes: Sequence[torch.Size]
    ) -> list[torch.Tensor]:
        """Outputs of the padded call, in the shapes of the call. Raises ValueError if none fit."""
        return [self._cut(out, shape) for out, shape in zip(outputs, shapes, strict=True)]

    def _cut(self, output: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        if output.dim() != len(shape):
            raise ValueError(
                f"an output has {output.dim()} dimensions, the original's {len(shape)}"
            )
        for dim, size in enumerate(shape):
            if output.shape[dim] != size:
                if (output.shape[dim], size) != (self.padded_length, self.length):
                    raise ValueError(f"an output is {tuple(output.shape)}, not {tuple(shape)}")
                output = output.narrow(dim, 0, size)
        return output.contiguous()


class Padding:
    """Which calls of a model can be padded, and how.

    Args:
        model: its configuration says what fills, and how many positions there are.
        original: its forward, whose parameters name positional arguments.
        lengths: to which calls are padded, ascending.
    """

    def __init__(
        self, model: torch.nn.Module, original: Callable[..., Any], lengths: Sequence[int]
    ) -> None:
        config = getattr(model, "config", None)
        self._fills = {**_FILLS, "input_ids": getattr(config, "pad_token_id", None)}
        self._names = list(inspect.signature(original).parameters)
        most = getattr(config, "max_position_embeddings", None)
        self._lengths = [size for size in lengths if most is None or size <= most]

    def of(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Padded, dict[str, Any]] | None:
        """How this call is padded, and the arguments of the padded one; None where it is not.

        It is not where it has its length already, where other tensors than token ids, their types
        and their mask go in, or where the model has no token for padding.
        """
        named = {**dict(zip(self._names, args, strict=False)), **kwargs}
        tensors = {name: part for name, part in named.items() if isinstance(part, torch.Tensor)}
        others = [part for name, part in named.items() if name not in tensors]
        known = (self._fills.get(name) for name in tensors)
        fills = tuple(fill for fill in known if fill is not None)
        if len(named) != len(args) + len(kwargs) or len(fills) != len(tensors):
            return None
        if not all(isinstance(part, _PLAIN) for part in others):
            return None
        ids = tensors.get("input_ids")
        if ids is None or ids.dim() != 2 or any(x.shape != ids.shape for x in tensors.values()):
            return None
        padded_length = self._next(ids.shape[1])
        masked = _MASK in tensors
        if padded_length is None or not (masked or _MASK in self._names):
            return None
        mask = None if masked else _ones_then_zeros(ids, padded_length)
        padded = Padded(ids.shape[1], padded_length, fills, mask)
        named.update(zip(tensors, padded.row(list(tensors.values())), strict=False))
        if mask is not None:
            named.pop(_MASK, None)  # None stood there; behind the others, as in the row
            named[_MASK] = mask
        return padded, named

    def _next(self, length: int) -> int | None:
        """The next of the lengths; None where it is one of them, or longer than all."""
        place = bisect.bisect_left(self._lengths, length)
        if place == len(self._lengths) or self._lengths[place] == length:
            return None
        return self._lengths[place]


def _ones_then_zeros(ids: torch.Tensor, padded_length: int) -> torch.Tensor:
    batch, length = ids.shape
    mask = torch.zeros((batch, padded_length), dtype=torch.int64, device=ids.device)
    mask[:, :length] = 1
    return mask


def padded_key(arguments: Mapping[str, Any], dtype: torch.dtype | None) -> Hashable:
    """The key of a padded call, which has no positional arguments."""
    return key_of_call((), arguments, dtype, [])
