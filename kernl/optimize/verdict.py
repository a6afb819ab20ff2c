"""Whether a graph's outputs can stand for the original's, and whether it takes less time."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import fx

LARGEST_ERROR = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Relative L2 distance from the original's output, by the narrower dtype of the computation."""
_TIMED_CALLS = 5


def narrowest(graph: fx.GraphModule, truth: Sequence[torch.Tensor]) -> torch.dtype:
    """The narrowest floating type among a graph's parameters and outputs."""
    kinds = {p.dtype for p in graph.parameters()} | {tensor.dtype for tensor in truth}
    for kind in (torch.bfloat16, torch.float16):
        if kind in kinds:
            return kind
    return torch.float32


def disagreement(
    outputs: Sequence[torch.Tensor], truth: Sequence[torch.Tensor], dtype: torch.dtype
) -> str:
    """Why outputs cannot stand for the original's, in words; empty where they can."""
    if len(outputs) != len(truth):
        return f"{len(outputs)} outputs, the original has {len(truth)}"
    for place, (out, true) in enumerate(zip(outputs, truth, strict=True)):
        if out.shape != true.shape or out.dtype != true.dtype:
            return (
                f"output {place} is {out.dtype} {tuple(out.shape)}, "
                f"the original's {true.dtype} {tuple(true.shape)}"
            )
        if not out.is_floating_point():
            if not torch.equal(out, true):
                return f"output {place} differs from the original's"
            continue
        here, there = out.double(), true.double()
        if not torch.equal(here.isfinite(), there.isfinite()):
            return f"output {place} is finite elsewhere than the original's"
        here, there = (x.nan_to_num(0.0, 0.0, 0.0) for x in (here, there))
        error = float((here - there).norm() / there.norm().clamp_min(1e-12))
        if error > LARGEST_ERROR[dtype]:
            return (
                f"output {place} is {error:.1e} away from the original's, "
                f"more than {LARGEST_ERROR[dtype]:.0e}"
            )
    return ""


def slower(ours: Callable[[], object], original: Callable[[], object]) -> str:
    """In words, that the graph is slower than the original; empty where it is not."""
    times = {ours: float("inf"), original: float("inf")}
    for _ in range(_TIMED_CALLS):
        for function in times:
            torch.cuda.synchronize()
            start = time.perf_counter()
            function()
            torch.cuda.synchronize()
            times[function] = min(times[function], time.perf_counter() - start)
    if times[ours] <= times[original]:
        return ""
    return f"slower than the original: {1e3 * times[ours]:.2f} ms, not {1e3 * times[original]:.2f}"
