"""Every error a user of kernl can meet.

    KernlError
    ├── ArgumentError   (TypeError)   not a tensor, or not the Python type that is asked for
    ├── ShapeError      (ValueError)  dimensions that do not fit together, or a size below 1
    ├── DTypeError      (TypeError)   an element type that no kernel takes, or a mixture of them
    ├── DeviceError     (ValueError)  tensors on a device that cannot run the kernel, or on several
    ├── OptionError     (ValueError)  an option outside its list of allowed values
    └── UntraceableError (RuntimeError)  a forward that no graph can hold: it depends on data

Each says what was seen, what is allowed and what to do, and each is also the built-in error that
PyTorch users expect, so `except TypeError` and `except ValueError` keep working.
"""

__all__ = [
    "ArgumentError",
    "DTypeError",
    "DeviceError",
    "KernlError",
    "OptionError",
    "ShapeError",
    "UntraceableError",
]


class KernlError(Exception):
    """The root of the tree: `seen` what came in, `allowed` what may come in, `action` the mend."""

    def __init__(self, *, seen: str, allowed: str, action: str) -> None:
        super().__init__(f"{seen}; allowed: {allowed}; {action}.")
        self.seen = seen
        self.allowed = allowed
        self.action = action

    def __reduce__(self) -> tuple[object, ...]:
        """Keyword-only arguments need help to cross a process boundary."""
        return _rebuild, (type(self), self.seen, self.allowed, self.action)


class ArgumentError(KernlError, TypeError):
    """An argument is not a tensor, or not of the Python type that is asked for."""


class ShapeError(KernlError, ValueError):
    """Dimensions do not fit together, or a size is below 1."""


class DTypeError(KernlError, TypeError):
    """An element type that no kernel takes, or several types in one call."""


class DeviceError(KernlError, ValueError):
    """Tensors on a device that cannot run the kernel, or on several devices."""


class OptionError(KernlError, ValueError):
    """An option outside its list of allowed values."""


class UntraceableError(KernlError, RuntimeError):
    """A forward that no graph can hold: its steps depend on data, or it writes into its inputs."""


def _rebuild(error: type[KernlError], seen: str, allowed: str, action: str) -> KernlError:
    return error(seen=seen, allowed=allowed, action=action)
