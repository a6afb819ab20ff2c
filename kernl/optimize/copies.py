"""Copies of a model to trace: one with the model's own weights, one with them in half precision.

Tracing puts fake tensors into a module for as long as it lasts. It does so to a copy, so that
other threads may use the model meanwhile.
"""

import copy
import weakref
from collections.abc import Callable
from typing import Any

import torch

from kernl.errors import ArgumentError


class Shell:
    """A copy of a model's modules around the very tensors of the model.

    Attributes:
        module: the copy.
        forward: its forward.
    """

    module: torch.nn.Module
    forward: Callable[..., Any]

    def __init__(self, model: torch.nn.Module, original: Callable[..., Any]) -> None:
        tensors = [*model.parameters(), *model.buffers()]
        self._copy(model, original, {id(tensor): tensor for tensor in tensors})

    def _copy(
        self, model: torch.nn.Module, original: Callable[..., Any], known: dict[int, Any]
    ) -> None:
        _leave_inference_mode(model)
        stand_in = model.__dict__.get("forward")
        if stand_in is not None and stand_in is not original:
            known[id(stand_in)] = None
        with torch.inference_mode(False), torch.no_grad():
            self.module = copy.deepcopy(model, known)
            if self.module.__dict__.get("forward", self) is None:
                del self.module.__dict__["forward"]
            # A bound method is bound to the copy, which `known` now holds.
            self.forward = copy.deepcopy(original, known)


def _leave_inference_mode(model: torch.nn.Module) -> None:
    """Make ordinary tensors, around the same memory, of those made in inference mode.

    A model that is moved or cast in inference mode has such weights. They count no changes, and
    cannot be traced. The objects stay the same ones.
    """
    with torch.inference_mode(False), torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_inference():
                ordinary = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
                ordinary.set_(
                    tensor.untyped_storage(),
                    tensor.storage_offset(),
                    tensor.size(),
                    tensor.stride(),
                )
                if weakref.getweakrefs(tensor):
                    # Traced before, and given such memory since: it cannot be swapped any more.
                    if not _counts_changes(tensor):
                        raise ArgumentError(
                            seen="a weight that was made in inference mode and has weak references",
                            allowed="weights that PyTorch counts the changes of",
                            action="make or load the model outside of torch.inference_mode()",
                        )
                    tensor.data = ordinary
                    continue
                if isinstance(tensor, torch.nn.Parameter):
                    ordinary = torch.nn.Parameter(ordinary, tensor.requires_grad)
                torch.utils.swap_tensors(tensor, ordinary)


def _counts_changes(tensor: torch.Tensor) -> bool:
    """Not where it was made in inference mode. Memory that it was given since changes nothing."""
    try:
        return tensor._version >= 0
    except RuntimeError:
        return False


class Twin(Shell):
    """A copy with parameters in half precision, which follows where the model's are changed.

    Buffers stay as they are.

    Args:
        model: its weights are float32.
        original: its forward.
        dtype: of the copy's parameters.
    """

    def __init__(
        self, model: torch.nn.Module, original: Callable[..., Any], dtype: torch.dtype
    ) -> None:
        self._copy(model, original, {})
        for parameter in self.module.parameters():
            parameter.requires_grad_(False)
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
        self._sources: list[torch.Tensor] = list(model.parameters())
        self._own: list[torch.Tensor] = list(self.module.parameters())
        self._versions = self._read()

    def _read(self) -> list[int]:
        return [source._version for source in self._sources]

    def refresh(self) -> None:
        """Copy the weights again where one was written into since."""
        versions = self._read()
        if versions != self._versions:
            with torch.inference_mode(False), torch.no_grad():
                torch._foreach_copy_(self._own, self._sources)
            self._versions = versions
