"""Whether a model is still what its graphs were traced from.

A graph knows no modules. What stands in the place of one since, or of a parameter, would be left
out without a word, and so would a hook, a function that is to be called at a module. PyTorch calls
those who ask at each registration of a module, a parameter or a buffer, and numbers hooks as they
come. So a call compares two numbers, and the model is looked at where one has changed.

Not noticed: `parameter.data = …` of single parameters other than the first, which no registration
goes with. `model.to`, `model.half` and their like change the first one too.
"""

import functools
import operator
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.modules import module as torch_modules
from torch.utils.hooks import RemovableHandle

_TRACED = ("torch.", "transformers.")
"""Hooks of these packages are part of a model, such as weight norm, and are traced with it."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class _Registrations:
    """How many modules, parameters and buffers were registered in this process."""

    count = 0
    _listening = False

    @classmethod
    def listen(cls) -> None:
        """Count from now on; once is enough."""
        if not cls._listening:
            cls._listening = True
            torch_modules.register_module_module_registration_hook(cls._note)
            torch_modules.register_module_parameter_registration_hook(cls._note)
            torch_modules.register_module_buffer_registration_hook(cls._note)

    @classmethod
    def _note(cls, *_: object) -> None:
        cls.count += 1


class Watch:
    """Looks after one model.

    Attributes:
        hooked: why its calls cannot go by graph: which module has a hook; empty where none has.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        _Registrations.listen()
        self.hooked = ""
        self._model = model
        self._parts = _parts(model)
        self._registered = self._hooks = -1
        self._looking = threading.Lock()

    def quiet(self) -> bool:
        """Whether nothing can have changed since the last look. Each call by graph pays for it."""
        return self._registered == _Registrations.count and self._hooks == RemovableHandle.next_id

    def look(self, forget: Callable[[], object]) -> str:
        """Look at the model; `forget` is called where it is made of other parts than it was.

        Returns:
            `hooked`.
        """
        with self._looking:
            registered, hooks = _Registrations.count, RemovableHandle.next_id
            parts, self.hooked = _parts(self._model), _hooked(self._model)
            if not _same(parts, self._parts):
                self._parts = parts
                forget()
            # Last, so that no other thread takes a graph that is to be forgotten. That a hook is
            # taken away is not told: while there is one, each call looks.
            self._registered, self._hooks = registered, -1 if self.hooked else hooks
            return self.hooked


def _parts(model: torch.nn.Module) -> list[Any]:
    """Modules, their own forwards, parameters and buffers. The objects: a number may come again."""
    found: list[Any] = []
    for module in model.modules():
        found += (module, *module._parameters.values(), *module._buffers.values())
        if module is not model:
            found.append(module.__dict__.get("forward"))
    return found


def _same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))


def _hooked(model: torch.nn.Module) -> str:
    """A hook of somebody else's that a graph would leave out, in words; empty without one.

    Those of the model itself are called around its forward, by graph or not.
    """
    if any(map(_foreign, _values(torch_modules, "_global"))):
        return "a hook of all modules is to be called"
    for name, module in model.named_modules():
        if module is not model and any(map(_foreign, _values(module, ""))):
            return f"a hook of the module {name} is to be called"
    return ""


def _values(owner: Any, prefix: str) -> Iterator[Any]:
    for name in _HOOKS:
        yield from list(getattr(owner, f"{prefix}{name}").values())


def _foreign(hook: Any) -> bool:
    while isinstance(hook, functools.partial):
        hook = hook.func
    where = getattr(hook, "__module__", None) or type(hook).__module__
    return not f"{where}.".startswith(_TRACED)
