"""Streams to capture graphs on that nobody else has, with workspaces that stay where they are.

A captured call of cuBLAS writes to a workspace in each replay: that of the capturing stream, which
PyTorch makes at the first call and keeps. PyTorch's own streams are 32, handed out in turns. On one
of them the workspace lies in everybody's memory, graphs that run at the same time may share it, and
`torch.compile`'s graphs let go of all workspaces, after which replays of others' graphs write into
another tensor. So a graph is captured on an `OwnStream`, whose workspaces lie in a pool that holds
nothing else and stays: one that was let go of is memory for the next workspace of that stream.

Source: CUDA Driver API, "Stream Management", cuStreamCreate; PyTorch's CUDABlas and CUDAGraph.
"""

import ctypes
import threading
import weakref

import torch

from kernl.runtime.graph_node import call_driver

_NON_BLOCKING = 1
_SIDE = 16

_free: dict[int, list["OwnStream"]] = {}
_lock = threading.Lock()


class OwnStream:
    """A stream and its workspaces, 32 MiB on Hopper for each thread that captures.

    They stay for the life of the process, for `lent` to hand out again: the handle of a stream that
    is gone may become that of another one.

    Attributes:
        stream: captured on, and never used for anything else.
        warm_up: what is to be captured runs here before. One of PyTorch's.
    """

    def __init__(self, index: int) -> None:
        device = torch.device("cuda", index)
        self.stream, self.warm_up = _stream(device), torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._first: torch.cuda.CUDAGraph | None = None

    def make_workspaces(self) -> None:
        """This thread's, where it has none yet or they were let go of. Before each capture."""
        square = torch.zeros(_SIDE, _SIDE, dtype=torch.float16, device=self.stream.device)
        _multiply(square)  # a library is loaded outside of a capture
        self.stream.wait_stream(torch.cuda.current_stream())
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self.stream):
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                _multiply(square)
            finally:
                graph.capture_end()
        self._first = self._first or graph  # a graph that lives keeps the pool


def _multiply(square: torch.Tensor) -> None:
    torch.mm(square, square)  # asks for cuBLAS' workspace
    torch.addmm(square[0], square, square)  # and for that of cublasLt


def lent(borrower: object, index: int) -> OwnStream:
    """One that is the borrower's until it is gone; for the device of that index, the current one.

    Who captures on it waits for the device first, as `torch.cuda.graph` does: replays of its last
    borrower's graphs may still write to its workspaces.
    """
    with _lock:
        free = _free.setdefault(index, [])
        found = free.pop() if free else None
    found = found or OwnStream(index)
    weakref.finalize(borrower, free.append, found).atexit = False
    return found


def _stream(device: torch.device) -> torch.cuda.Stream:
    """A new stream; one of PyTorch's where the driver makes none."""
    handle = ctypes.c_void_p()
    torch.cuda.current_stream(device)  # makes the context
    try:
        call_driver("cuStreamCreate", ctypes.byref(handle), ctypes.c_uint(_NON_BLOCKING))
    except OSError:
        return torch.cuda.Stream(device)
    return torch.cuda.ExternalStream(handle.value, device)
