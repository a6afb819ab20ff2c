"""Arguments of a kernel in a CUDA graph, changed between two replays.

The driver takes new arguments for one kernel of an instantiated graph in about 1.4 µs on the H200
runner, a third of what a launch costs the host. They hold for replays to come and leave those under
way alone. PyTorch has no call for it, so the driver's own is made here.

Source: CUDA Driver API, "Graph Management", cuGraphExecKernelNodeSetParams; "Stream Management",
cuStreamGetCaptureInfo.
"""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch

_CAPTURING = 1
_MOST_PARAMETERS = 64


class _Parameters(ctypes.Structure):
    """The driver's CUDA_KERNEL_NODE_PARAMS_v2."""

    _fields_ = (
        ("function", ctypes.c_void_p),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_memory", ctypes.c_uint),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("extra", ctypes.c_void_p),
        ("kernel", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
    )


def captured_last(stream: int) -> int | None:
    """The handle of the node that was captured last; None where the driver does not tell it.

    Args:
        stream: the handle of one that is being captured.
    """
    status, count = ctypes.c_int(), ctypes.c_size_t()
    number, graph = ctypes.c_uint64(), ctypes.c_void_p()
    nodes = ctypes.POINTER(ctypes.c_void_p)()
    try:
        call_driver(
            "cuStreamGetCaptureInfo_v2",
            ctypes.c_void_p(stream),
            *(ctypes.byref(one) for one in (status, number, graph, nodes, count)),
        )
    except OSError:
        return None
    return nodes[0] if status.value == _CAPTURING and count.value == 1 else None


class KernelNode:
    """One kernel of a graph. For one thread at a time.

    Args:
        graph: captured with `keep_graph` and instantiated.
        node: its handle, by `captured_last`.
        varying: which of the kernel's arguments change, each an integer of 8 bytes.

    Raises:
        OSError: the driver or PyTorch has no such call, or an argument has another size.
    """

    def __init__(self, graph: torch.cuda.CUDAGraph, node: int, varying: Sequence[int]) -> None:
        executable = getattr(graph, "raw_cuda_graph_exec", None)
        if executable is None:
            raise OSError("this PyTorch does not tell the handle of a graph")
        self._graph = graph  # the driver reads from its nodes
        self._values = (ctypes.c_int64 * len(varying))()
        self._parameters, handle = _Parameters(), ctypes.c_void_p(node)
        call_driver("cuGraphKernelNodeGetParams_v2", handle, ctypes.byref(self._parameters))
        sizes = _sizes(self._parameters.function)
        if any(sizes[place] != 8 for place in varying):
            raise OSError(f"the kernel's arguments have {sizes} bytes, and 8 are wanted")
        places = [self._parameters.arguments[place] for place in range(len(sizes))]
        for index, place in enumerate(varying):
            places[place] = ctypes.addressof(self._values) + 8 * index
        self._places = (ctypes.c_void_p * len(places))(*places)
        self._parameters.arguments = ctypes.cast(self._places, ctypes.POINTER(ctypes.c_void_p))
        self._set = _named("cuGraphExecKernelNodeSetParams_v2")
        self._told = (ctypes.c_void_p(executable()), handle, ctypes.byref(self._parameters))

    def set(self, values: Sequence[int]) -> None:
        """The varying arguments of replays to come."""
        self._values[:] = list(values)
        code = self._set(*self._told)
        if code:
            raise RuntimeError(f"the CUDA driver took no new arguments for a graph: error {code}")


def _sizes(function: int) -> list[int]:
    """Bytes of each of a kernel's parameters."""
    offset, size = ctypes.c_size_t(), ctypes.c_size_t()
    sizes: list[int] = []
    ask = _named("cuFuncGetParamInfo")
    for index in range(_MOST_PARAMETERS):
        place = ctypes.c_size_t(index)
        if ask(ctypes.c_void_p(function), place, ctypes.byref(offset), ctypes.byref(size)):
            return sizes
        sizes.append(size.value)
    raise OSError(f"the kernel has more than {_MOST_PARAMETERS} parameters")


def call_driver(name: str, *arguments: Any) -> None:
    """Call a function of the CUDA driver; an `OSError` where it has none or the call fails."""
    code = _named(name)(*arguments)
    if code:
        raise OSError(f"the CUDA driver's {name} failed: error {code}")


def _named(name: str) -> Any:
    found = getattr(_driver(), name, None)
    if found is None:
        raise OSError(f"this CUDA driver has no {name}")
    return found


@functools.cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")
