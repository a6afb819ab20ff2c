"""Run a graph: as it is, or as a CUDA graph that is captured once and replayed.

A graph reads static inputs and writes static outputs. Its first kernel copies a call's inputs in
and its last one the outputs out, so what a user holds is never overwritten; weights are read where
they are, so what changes in place is seen. All graphs of one `Arena` share one pool of memory: a
replay may use what another graph left, which is why it copies its outputs before the next begins.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple, Protocol

import torch

from kernl.errors import DeviceError
from kernl.launch import FIRST_DEPENDENT, capability, dependent_launches
from kernl.runtime.ahead import asking
from kernl.runtime.copy_kernel import Inputs, Outputs
from kernl.runtime.own_stream import lent

Row = Sequence[torch.Tensor]
Function = Callable[..., Row]

_WARM_UPS = 2
_TIMED_REPLAYS = 10


class Runner(Protocol):
    """Runs a graph on tensors of the shapes and dtypes that it was made for."""

    def __call__(self, tensors: Row) -> list[torch.Tensor]:
        """New output tensors."""
        ...

    def replay(self, tensors: Row) -> list[torch.Tensor]:
        """The same, where the caller knows that nobody captures the current stream."""
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

    def replay(self, tensors: Row) -> list[torch.Tensor]:
        """New output tensors."""
        return self(tensors)


class Arena:
    """What the graphs of one model on one device share: memory, a lock, the order of streams.

    While all replays are on one stream, that is their order, and no event is recorded. The first
    replay on another stream waits for all that the old one was given until then; from that call on
    each replay is followed by an event, and a change of streams waits for no more than the replay.

    Attributes:
        device: with its index.
        lock: held by whoever captures or replays.
        pool: the memory of all graphs.
        captures: the stream that they are captured on, which no other arena has.
    """

    def __init__(self, device: torch.device) -> None:
        self.index = torch.cuda.current_device() if device.index is None else device.index
        self.device = torch.device("cuda", self.index)
        self.lock = threading.Lock()
        with torch.cuda.device(device):
            self.pool = torch.cuda.graph_pool_handle()
            self._done = torch.cuda.Event()
            self.captures = lent(self, self.index)
        self._stream: torch.cuda.Stream | None = None
        self._handle = -1
        self._records = False

    @contextmanager
    def current(self) -> Iterator[None]:
        """Hold the lock, with this device as the current one."""
        with self.lock, torch.cuda.device(self.device):
            yield

    def enter(self) -> None:
        """Let the current stream wait for the last replay, where that was on another one."""
        # The handle alone tells whether it is the same stream, and costs a tenth of the object.
        handle = torch._C._cuda_getCurrentRawStream(self.index)
        if handle != self._handle:
            self._change_to(torch.cuda.current_stream(self.device))

    def leave(self) -> None:
        """The current stream has all of this replay's work."""
        if self._records and self._stream is not None:
            self._done.record(self._stream)

    def _change_to(self, stream: torch.cuda.Stream) -> None:
        if self._stream is not None:
            if not self._records:
                self._record_late(self._stream)
            stream.wait_event(self._done)
        # PyTorch keeps its own streams for good. One from elsewhere may be gone when an event is
        # wanted, and its handle then be another's: it is asked about anew in each call.
        kept = _is_pytorchs(stream)
        self._records = self._stream is not None or not kept
        self._stream, self._handle = stream, stream.cuda_stream if kept else -1

    def _record_late(self, old: torch.cuda.Stream) -> None:
        """While somebody captures that stream, the event would become a part of the capture."""
        with torch.cuda.stream(old):
            if torch.cuda.is_current_stream_capturing():
                raise DeviceError(
                    seen=f"a first call on another stream while {old} is being captured, the "
                    "stream of the calls so far",
                    allowed="another stream before that capture or after it",
                    action="call the model once on each stream before capturing one",
                )
        self._done.record(old)


def _is_pytorchs(stream: torch.cuda.Stream) -> bool:
    """Whether it is the default stream or of PyTorch's pool; the id of any other is a pointer."""
    return stream.stream_id == 0 or stream.stream_id % 2 == 1


class Capture(NamedTuple):
    """How a graph is captured.

    Attributes:
        early: its kernels begin while the ones before them end; nothing before Hopper.
        ahead: a branch of the graph asks for weights before the kernels that read them.
    """

    early: bool
    ahead: bool


class _Captured(NamedTuple):
    """A graph, and the copies into it and out of it, which are its first and last kernels."""

    graph: torch.cuda.CUDAGraph
    copies_in: Inputs
    copies_out: Outputs

    def replay(self, tensors: Row) -> list[torch.Tensor]:
        """New output tensors, in the order of the current stream."""
        outputs = self.copies_out.give()
        self.copies_in.take(tensors)
        self.graph.replay()
        self.copies_out.rest(outputs)
        return outputs


class CudaGraph:
    """A function captured once for inputs like `example`, replayed on each call.

    Attributes:
        graph: the CUDA graph. A replay by itself writes to the outputs of the last call.
        copies_in: from a call's tensors to where the graph reads them.
        copies_out: from what the graph wrote to new tensors.
        capture: how. Where the caller does not say, each way is tried, and the fastest stays;
            with `ahead` that of asking for weights too, for which the function calls `ask`.
    """

    def __init__(
        self,
        function: Function,
        example: Row,
        arena: Arena,
        capture: Capture | None = None,
        ahead: bool = False,
    ) -> None:
        self._arena = arena
        self._function = function  # a replay reads its constants, whose memory it must keep
        with arena.current(), torch.inference_mode(False), torch.no_grad():
            self._inputs = [x.clone(memory_format=torch.contiguous_format) for x in example]
            ways = self._ways(ahead) if capture is None else iter([capture])
            self.capture = next(ways)
            captured = self._capture(function, self.capture)
            for way in ways:
                other = self._capture(function, way)
                if self._is_faster(other, captured):
                    self.capture, captured = way, other
            self._captured = captured
            self.graph, self.copies_in, self.copies_out = captured

    def _ways(self, ahead: bool) -> Iterator[Capture]:
        """What to try; how the second question is asked depends on the answer to the first."""
        yield Capture(early=False, ahead=False)
        if capability(self._arena.device) >= FIRST_DEPENDENT:
            yield Capture(early=True, ahead=False)
        if ahead:
            yield Capture(self.capture.early, ahead=True)

    def _capture(self, function: Function, way: Capture) -> _Captured:
        device = self._arena.device

        def asked() -> AbstractContextManager[None]:
            return asking(device) if way.ahead else nullcontext()

        own = self._arena.captures
        stream = own.warm_up
        stream.wait_stream(torch.cuda.current_stream(device))
        graph = torch.cuda.CUDAGraph(keep_graph=True)
        recorded = torch.cuda.graph(
            graph, pool=self._arena.pool, stream=own.stream, capture_error_mode="thread_local"
        )
        with dependent_launches(device) if way.early else nullcontext():
            # Kernels are compiled and libraries take workspaces before anything is recorded.
            with torch.cuda.stream(stream), asked():
                copies_in = Inputs(self._inputs)
                copies_in.record()
                for _ in range(_WARM_UPS):
                    outputs = function(*self._inputs)
                Outputs(outputs).record()
                own.make_workspaces()
            stream.synchronize()
            with recorded, asked():
                copies_in.record()
                copies_out = Outputs(function(*self._inputs))
                copies_out.record()
        graph.instantiate()
        copies_in.bind(graph)
        copies_out.bind(graph)
        return _Captured(graph, copies_in, copies_out)

    def _is_faster(self, one: _Captured, other: _Captured) -> bool:
        self._arena.enter()
        calls = [lambda: one.replay(self._inputs), lambda: other.replay(self._inputs)]
        taken = device_times(calls)
        self._arena.leave()
        return taken[0] < taken[1]

    def __call__(self, tensors: Row) -> list[torch.Tensor]:
        """New output tensors, in the order of the current stream."""
        with self._arena.current():
            if torch._C._cuda_isCurrentStreamCapturing():
                return self._recorded(tensors)
            return self._replay(tensors)

    def replay(self, tensors: Row) -> list[torch.Tensor]:
        """The same, where the caller knows that nobody captures the current stream."""
        arena = self._arena
        # A replay goes to the current device, which need not be that of the model.
        if torch._C._cuda_getDevice() != arena.index:
            return self(tensors)
        with arena.lock:
            return self._replay(tensors)

    def _replay(self, tensors: Row) -> list[torch.Tensor]:
        self._arena.enter()
        try:
            return self._captured.replay(tensors)
        finally:
            self._arena.leave()

    def _recorded(self, tensors: Row) -> list[torch.Tensor]:
        """In somebody's capture: the kernels become part of that graph, which we do not replay."""
        with torch.no_grad():
            outputs = self._function(*[tensor.contiguous() for tensor in tensors])
            return [output.clone() for output in outputs]


def device_times(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Milliseconds of the device: the least of several calls of each, in turns."""
    least = [float("inf")] * len(calls)
    for _ in range(_TIMED_REPLAYS):
        for place, call in enumerate(calls):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            least[place] = min(least[place], start.elapsed_time(end))
    return least
