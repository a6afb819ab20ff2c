"""Run a graph: as it is, or as a CUDA graph that is captured once and replayed.

A replay reads static inputs and writes static outputs. Each call copies its inputs in and the
outputs out, so what a user holds is never overwritten; weights are read where they are, so what
changes in place is seen. All graphs of one `Arena` share one pool of memory: a replay may use what
another graph left, which is why its outputs are copied before the next begins.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch

from kernl.launch import FIRST_DEPENDENT, capability, dependent_launches

Row = Sequence[torch.Tensor]
Function = Callable[..., Row]

_WARM_UPS = 2
_TIMED_REPLAYS = 10
_SMALL = 1 << 15


class Runner(Protocol):
    """Runs a graph on tensors of the shapes and dtypes that it was made for."""

    def __call__(self, tensors: Row) -> list[torch.Tensor]:
        """New output tensors."""
        ...


class Direct:
    """Calls the function; outputs that are inputs or constants of it are copied."""

    def __init__(self, function: Function, borrowed: Sequence[bool]) -> None:
        self._function = function
        self._borrowed = borrowed

    def __call__(self, tensors: Row) -> list[torch.Tensor]:
        """New output tensors."""
        outputs = self._function(*tensors)
        return [
            out.clone() if borrowed else out
            for out, borrowed in zip(outputs, self._borrowed, strict=True)
        ]


class Arena:
    """What the graphs of one model on one device share: memory, a lock, the order of streams."""

    def __init__(self, device: torch.device) -> None:
        index = torch.cuda.current_device() if device.index is None else device.index
        self.device = torch.device("cuda", index)
        self.lock = threading.Lock()
        with torch.cuda.device(device):
            self.pool = torch.cuda.graph_pool_handle()
            self._done = torch.cuda.Event()
        self._stream: torch.cuda.Stream | None = None

    @contextmanager
    def current(self) -> Iterator[None]:
        """Hold the lock, with this device as the current one."""
        with self.lock:
            if torch.cuda.current_device() == self.device.index:
                yield
            else:
                with torch.cuda.device(self.device):
                    yield

    def enter(self) -> None:
        """Let the current stream wait for the last replay, where that was on another one."""
        # The handle alone tells whether it is the same stream, and costs a tenth of the object.
        handle = torch._C._cuda_getCurrentRawStream(self.device.index)
        if self._stream is None or handle != self._stream.cuda_stream:
            stream = torch.cuda.current_stream(self.device)
            if self._stream is not None:
                stream.wait_event(self._done)
            self._stream = stream

    def leave(self) -> None:
        """The current stream has all of this replay's work."""
        assert self._stream is not None
        self._done.record(self._stream)


class CudaGraph:
    """A function captured once for inputs like `example`, replayed on each call.

    Attributes:
        early: whether its kernels begin while the ones before them end. Where the caller does not
            say, both are captured, and the faster one stays. False before Hopper.
    """

    def __init__(
        self, function: Function, example: Row, arena: Arena, early: bool | None = None
    ) -> None:
        self._arena = arena
        self._function = function  # a replay reads its constants, whose memory it must keep
        with arena.current(), torch.inference_mode(False), torch.no_grad():
            self._inputs = [x.clone(memory_format=torch.contiguous_format) for x in example]
            able = capability(arena.device) >= FIRST_DEPENDENT
            self.early = able and early is not False
            if not self.early or early is None:
                self._graph, self._outputs = self._capture(function)
            if self.early:
                with dependent_launches(arena.device):
                    graph, outputs = self._capture(function)
                self.early = early is True or self._is_faster(graph)
                if self.early:
                    self._graph, self._outputs = graph, outputs

    def _capture(self, function: Function) -> tuple[torch.cuda.CUDAGraph, list[torch.Tensor]]:
        stream = torch.cuda.Stream(self._arena.device)
        stream.wait_stream(torch.cuda.current_stream(self._arena.device))
        # Kernels are compiled and libraries take their workspaces before anything is recorded.
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                function(*self._inputs)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self._arena.pool, stream=stream, capture_error_mode="thread_local"
        ):
            outputs = list(function(*self._inputs))
        return graph, outputs

    def _is_faster(self, graph: torch.cuda.CUDAGraph) -> bool:
        self._arena.enter()
        faster = _faster(graph, self._graph)
        self._arena.leave()
        return faster

    def _take(self, tensors: Row) -> None:
        """Copy the inputs: small ones in one launch, which is slow for large ones."""
        if all(static.numel() <= _SMALL for static in self._inputs):
            torch._foreach_copy_(self._inputs, list(tensors))
        else:
            for static, given in zip(self._inputs, tensors, strict=True):
                static.copy_(given)

    def __call__(self, tensors: Row) -> list[torch.Tensor]:
        """New output tensors, in the order of the current stream."""
        arena = self._arena
        # A replay goes to the current device, which need not be that of the model.
        with arena.current():
            arena.enter()
            self._take(tensors)
            self._graph.replay()
            outputs = [out.clone() for out in self._outputs]
            arena.leave()
        return outputs


def _faster(graph: torch.cuda.CUDAGraph, other: torch.cuda.CUDAGraph) -> bool:
    """Whether the first takes less time: the least of several replays of each, in turns."""
    times: dict[torch.cuda.CUDAGraph, list[float]] = {graph: [], other: []}
    for _ in range(_TIMED_REPLAYS):
        for one in times:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            one.replay()
            end.record()
            end.synchronize()
            times[one].append(start.elapsed_time(end))
    return min(times[graph]) < min(times[other])
