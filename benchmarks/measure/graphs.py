"""Device time of one call, by CUDA-graph replay. Runs in the measuring process alone.

One graph holds a call on each of several distinct input sets, so no call finds its own inputs in
L2, and the cost of starting the graph is shared by all of them. Before each timed replay a buffer
of at least twice the size of L2 is read; a second graph, with one set again and again, gives the
time with L2 hot where that is asked for. Implementations take turns, sample by sample, so that
drift of the clocks cancels in their ratio.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure.accuracy import Inputs, Outputs, as_tuple, disagreement
from benchmarks.measure.telemetry import Telemetry
from benchmarks.measure.timing import Ceilings, Samples, choose_calls, choose_rounds, interleaved

_LEAST_FLUSH_BYTES = 256 << 20  # long enough to read for the host to queue the next replay
_ROUNDS_AT_ONCE = 8
_WARM_UP_S = 0.015  # idle clocks are a fraction of the working ones
_CEILING_WARM_UP_S = 0.1
_CALM_CALLS, _CALM_CALL_S, _CALM_LIMIT_S = 10, 5e-4, 30.0
_HOT_SHARE = 3
_LEAD_IN = 2

# How each of `timing.PRODUCTS` is computed.
_PRODUCTS = {
    "fp16": (torch.float16, "highest"),
    "bf16": (torch.bfloat16, "highest"),
    "fp32": (torch.float32, "highest"),
    "tf32": (torch.float32, "high"),
}

Sets = Sequence[Inputs]


@dataclass
class Captured:
    """One implementation as two graphs; `outputs` are those of `cold`, one tuple an input set.

    `hot` is None where nobody asked for it.
    """

    cold: torch.cuda.CUDAGraph
    hot: torch.cuda.CUDAGraph | None
    outputs: list[Outputs]


class Flush:
    """Leaves nothing else in L2, by reading a buffer of at least twice its size.

    Written instead, the buffer's own lines would have to go to memory later, while a call is timed.
    """

    def __init__(self) -> None:
        l2_bytes = torch.cuda.get_device_properties(0).L2_cache_size
        self.nbytes = max(2 * l2_bytes, _LEAST_FLUSH_BYTES)
        self._buffer = torch.zeros(self.nbytes // 4, dtype=torch.float32, device="cuda")
        self._sum = torch.zeros((), dtype=torch.float32, device="cuda")

    def __call__(self) -> None:
        """Queue the read on the current stream."""
        torch.sum(self._buffer, 0, out=self._sum)


def wait_for_calm(limit_s: float = _CALM_LIMIT_S) -> bool:
    """Wait until the device does nothing for other processes; returns whether it came to that.

    Work of two processes takes turns on it, in slices of milliseconds: a kernel that takes
    microseconds waits for the other's slice.
    """
    word = torch.zeros(1, device="cuda")
    end = time.perf_counter() + limit_s
    calm = 0
    while calm < _CALM_CALLS and time.perf_counter() < end:
        begun = time.perf_counter()
        word.add_(1.0)
        torch.cuda.synchronize()
        calm = calm + 1 if time.perf_counter() - begun < _CALM_CALL_S else 0
    return calm >= _CALM_CALLS


def capture(call: Callable[..., Any], sets: Sets, *, hot: bool = False) -> Captured:
    """Capture `call` over the input sets, or as many as make a graph of half a millisecond.

    `hot`: also a graph with the first of them alone. Raises what the call or the capture raises.

    The warm-up on a side stream compiles kernels and makes library handles, which a capture may
    not; the outputs of the cold graph are kept, so that each call writes memory of its own.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for inputs in (sets[0], sets[-1], sets[0]):
            call(**inputs)
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()

    sets = sets[: choose_calls(_call_seconds(call, sets[0]), len(sets))]
    outputs: list[Outputs] = []
    cold = torch.cuda.CUDAGraph()
    with torch.cuda.graph(cold, capture_error_mode="thread_local"):
        for inputs in sets:
            outputs.append(as_tuple(call(**inputs)))
    again = torch.cuda.CUDAGraph() if hot else None
    if again is not None:
        with torch.cuda.graph(again, capture_error_mode="thread_local"):
            for _ in outputs:
                call(**sets[0])
    return Captured(cold, again, outputs)


def _call_seconds(call: Callable[..., Any], inputs: Inputs) -> float:
    """Of the device, roughly: a graph of one call, replayed. Others may share the device meanwhile:
    kernels of two processes take turns, so the shortest replay met no other's.
    """
    once = torch.cuda.CUDAGraph()
    with torch.cuda.graph(once, capture_error_mode="thread_local"):
        call(**inputs)
    return _best_seconds(once.replay, repeats=8, warm_up_s=0.0)


def replay_disagreement(
    captured: Captured, call: Callable[..., Any], sets: Sets, limit: float
) -> str:
    """What differs between a replay and a direct call, in words; empty where nothing does.

    Outputs are filled with NaN first: a graph that leaves work out, or that another stream did part
    of, leaves NaN behind.
    """
    ends = sorted({0, len(captured.outputs) - 1})
    expected = [as_tuple(call(**sets[index])) for index in ends]
    for index in ends:
        owned = {_storage(value) for value in sets[index].values() if torch.is_tensor(value)}
        for out in captured.outputs[index]:
            if out.is_floating_point() and _storage(out) not in owned:
                out.fill_(float("nan"))
    captured.cold.replay()
    torch.cuda.synchronize()
    for index, direct in zip(ends, expected, strict=True):
        _, reason = disagreement(captured.outputs[index], direct, limit)
        if reason:
            return f"the captured graph differs from a direct call: {reason}"
    return ""


def _storage(value: torch.Tensor) -> int:
    return value.untyped_storage().data_ptr()


def time_graphs(
    captured: Mapping[str, Captured],
    flush: Flush,
    samples: int,
    budget_s: float,
    seed: int,
    telemetry: Telemetry,
) -> dict[str, Samples]:
    """Seconds a call, for each implementation: at least `samples` cold ones, a third as many hot
    where all have a graph for these.

    More cold samples are taken while all of them fit `budget_s` seconds.
    """
    _warm_up(captured, flush)
    trial = _sample(captured, [tuple(captured)], flush, telemetry)
    # The flushes take as long as short graphs do: they are part of what a round costs.
    flush_s = len(captured) * flush.nbytes / 2e12
    round_s = sum(seconds[0] for seconds in trial.values()) + flush_s
    rounds = choose_rounds(round_s, samples, budget_s)
    telemetry.clear()
    cold = _sample(captured, interleaved(list(captured), rounds, seed), flush, telemetry)
    asked = all(one.hot is not None for one in captured.values())
    hot_rounds = max(samples // _HOT_SHARE, 1) if asked else 0
    hot = _sample(captured, interleaved(list(captured), hot_rounds, seed + 1), None, telemetry)
    return {
        name: Samples(
            cold=tuple(seconds / len(one.outputs) for seconds in cold[name]),
            hot=tuple(seconds / len(one.outputs) for seconds in hot[name]),
        )
        for name, one in captured.items()
    }


def time_block(
    captured: Mapping[str, Captured], flush: Flush, rounds: int, seed: int, telemetry: Telemetry
) -> dict[str, list[float]]:
    """Seconds a call in so many rounds, L2 cold, after rounds that are not told.

    Another process may have used the device right before: the first replays find its clocks, and
    what it left in the caches of the graph's own nodes.
    """
    _sample(captured, interleaved(list(captured), _LEAD_IN, seed), flush, telemetry)
    found = _sample(captured, interleaved(list(captured), rounds, seed + 1), flush, telemetry)
    return {
        name: [one / len(captured[name].outputs) for one in seconds]
        for name, seconds in found.items()
    }


def _warm_up(captured: Mapping[str, Captured], flush: Flush) -> None:
    end = time.perf_counter() + _WARM_UP_S
    while time.perf_counter() < end:
        for one in captured.values():
            flush()
            one.cold.replay()
        torch.cuda.synchronize()


def _sample(
    captured: Mapping[str, Captured],
    orders: Iterator[tuple[str, ...]] | Sequence[tuple[str, ...]],
    flush: Flush | None,
    telemetry: Telemetry,
) -> dict[str, list[float]]:
    """Seconds of whole replays in the given orders: cold with a flush, hot with None."""
    taken: dict[str, list[float]] = {name: [] for name in captured}
    remaining = iter(orders)
    while batch := list(islice(remaining, _ROUNDS_AT_ONCE)):
        pending = [_enqueue(captured[name], name, flush) for order in batch for name in order]
        telemetry.sample()  # the device is busy with the batch
        torch.cuda.synchronize()
        for name, start, end in pending:
            taken[name].append(start.elapsed_time(end) / 1e3)
    return taken


def _enqueue(
    one: Captured, name: str, flush: Flush | None
) -> tuple[str, torch.cuda.Event, torch.cuda.Event]:
    start = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
    if flush is None:
        assert one.hot is not None
        graph = one.hot
        graph.replay()
    else:
        graph = one.cold
        flush()
    start.record()
    graph.replay()
    end.record()
    return name, start, end


def ceilings(shared: str | None = None) -> tuple[Ceilings, dict[str, float]]:
    """(ceilings, their figures for the fingerprint): a large copy and large matrix products.

    `shared` is a file of workers that share the device: the first one measures for all.
    """
    file = Path(shared) if shared else None
    if file and file.exists():
        figures: dict[str, float] = json.loads(file.read_text())
    else:
        figures = _measured_ceilings()
        if file:
            file.write_text(json.dumps(figures))
    return Ceilings.of(figures), figures


def _measured_ceilings() -> dict[str, float]:
    rates = {f"{dtype}_flops_per_s": _product_flops_per_s(dtype) for dtype in _PRODUCTS}
    figures = {"copy_bytes_per_s": _copy_bytes_per_s(), **rates}
    torch.cuda.empty_cache()
    return figures


def _copy_bytes_per_s() -> float:
    """Bytes read plus bytes written a second by the best of a number of large copies."""
    free, _ = torch.cuda.mem_get_info()
    elements = min(1 << 30, free // 8) // 4
    source = torch.empty(elements, dtype=torch.int32, device="cuda").random_()
    target = torch.empty_like(source)
    return 2 * 4 * elements / _best_seconds(lambda: target.copy_(source), 20)


def _product_flops_per_s(dtype: str) -> float:
    """The best rate of two sizes of square products: the larger may run into the power limit."""
    torch_dtype, precision = _PRODUCTS[dtype]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        return max(_square_product_flops_per_s(size, torch_dtype) for size in (4096, 8192))
    finally:
        torch.set_float32_matmul_precision(before)


def _square_product_flops_per_s(size: int, dtype: torch.dtype) -> float:
    left = torch.randn(size, size, device="cuda", dtype=dtype)
    right = torch.randn(size, size, device="cuda", dtype=dtype)
    out = torch.empty_like(left)
    return 2 * size**3 / _best_seconds(lambda: torch.mm(left, right, out=out), 10)


def _best_seconds(
    call: Callable[[], object], repeats: int, warm_up_s: float = _CEILING_WARM_UP_S
) -> float:
    """The shortest of `repeats` calls, after a warm-up long enough for the clocks to rise."""
    end = time.perf_counter() + warm_up_s
    while time.perf_counter() < end:
        call()
        torch.cuda.synchronize()
    events = []
    for _ in range(repeats):
        start = torch.cuda.Event(enable_timing=True)
        stop = torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        stop.record()
        events.append((start, stop))
    torch.cuda.synchronize()
    return min(start.elapsed_time(stop) for start, stop in events) / 1e3
