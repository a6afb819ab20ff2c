"""What a user may choose."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from kernl.errors import OptionError, ShapeError
from kernl.optimize.padding import LENGTHS

WarmupShape = tuple[int, ...] | Mapping[str, tuple[int, ...]]

_DTYPES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Options:
    """How a model is optimised; each field is an argument of `kernl.optimize_model`."""

    rewrite: bool = True
    cuda_graphs: bool = True
    dtype: torch.dtype | None = None
    warmup_shapes: tuple[WarmupShape, ...] = ()
    check: bool = True
    max_graphs: int = 64
    padding: bool | tuple[int, ...] = False
    cache_dir: Path | None = None
    weights_ahead: bool = False

    @property
    def padded_lengths(self) -> tuple[int, ...]:
        """To which lengths calls are padded; none where they are not."""
        if isinstance(self.padding, bool):
            return LENGTHS if self.padding else ()
        return tuple(sorted(self.padding))

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in _DTYPES:
            raise OptionError(
                seen=f"dtype={self.dtype}",
                allowed="None, torch.float16, torch.bfloat16",
                action="leave it out to keep the dtype of the weights",
            )
        if self.max_graphs < 1:
            raise OptionError(
                seen=f"max_graphs={self.max_graphs}",
                allowed="1 or more",
                action="raise it, or pass cuda_graphs=False and rewrite=False",
            )
        if not isinstance(self.padding, bool) and not (
            self.padding and all(type(size) is int and size > 0 for size in self.padding)
        ):
            raise OptionError(
                seen=f"padding={self.padding!r}",
                allowed="True, False, or lengths of 1 or more, such as (64, 128, 256)",
                action="leave it out to give each length a graph of its own",
            )
        for shape in self.warmup_shapes:
            sizes = list(shape.values()) if isinstance(shape, Mapping) else [shape]
            if not sizes or not all(one and all(size > 0 for size in one) for one in sizes):
                raise ShapeError(
                    seen=f"the warm-up shape {shape}",
                    allowed="(batch, sequence), or a shape for each input by its name",
                    action="write sizes of 1 or more",
                )
