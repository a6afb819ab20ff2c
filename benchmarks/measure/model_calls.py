"""The implementations that every model is measured in: what each of them calls.

All of them share one set of weights, and each returns the first output, the last hidden state:

- `eager`: weights in fp16, the forward of transformers as it is;
- `autocast`: weights in float32 under `torch.autocast` to fp16;
- `cudagraph`: `eager`'s forward in one CUDA graph, captured by hand;
- `compile`: `torch.compile` in its default mode;
- `compile_reduce_overhead`, `compile_max_autotune`: `torch.compile` in the modes so named;
- `compile_cudagraph`: what `compile` calls in one CUDA graph, captured by hand: no guards and no
  Dynamo in the call, which makes it the hardest to beat;
- `kernl_graphs_only`, `kernl_rewrite_only`: `optimize_model` with `rewrite=False`, and with
  `cuda_graphs=False`;
- `kernl`: `optimize_model`.

A graph captured by hand gets its inputs by a copy, and all tensors of its output are cloned, as a
user needs it who keeps them.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.model import Model, Sample

WARM_UPS = 3
_BY_GRAPH = "by graph"
_NEEDS_CUDA = "is measured on a GPU alone; a dry run leaves it out"

Forward = Callable[..., Any]
Call = Callable[[Sample], torch.Tensor]
Rewrite = Mapping[str, Mapping[str, int]]


class Unavailable(Exception):
    """This implementation does not run this case; the reason is in words."""


def _nothing_wrong() -> str:
    return ""


@dataclass(frozen=True)
class Running:
    """An implementation that is ready to be called.

    Attributes:
        call: returns the last hidden state.
        complaint: after calls: why their time does not count, in words; empty where it does.
        remark: what a reader of the time has to know, in words.
        rewrite: what rewriting made of the graph; None where nothing was rewritten.
    """

    call: Call
    complaint: Callable[[], str] = _nothing_wrong
    remark: str = ""
    rewrite: Rewrite | None = None


class Weights:
    """One model on one device, for all implementations.

    Attributes:
        device: `cuda` or `cpu`.
        full: with weights in float32.
        half: with the same weights in fp16. Nobody may change them: kernl gets copies.
    """

    def __init__(self, model: Model, device: str) -> None:
        self.device = device
        self.full = model.build(dry=device == "cpu").to(device)
        self.half = in_half(self.full)
        self._compiled: dict[str, Forward] = {}

    def compiled(self, mode: str) -> Forward:
        """`half` compiled in a mode, once."""
        if mode not in self._compiled:
            self._compiled[mode] = torch.compile(self.half, dynamic=False, mode=mode)
        return self._compiled[mode]

    def forget_compiled(self) -> None:
        """Drop what was compiled: no case may inherit another's guards or count of recompilations.

        It would drop what other implementations hold too, so it is done between cases alone.
        """
        if self._compiled:
            self._compiled.clear()
            torch._dynamo.reset()


def in_half(full: torch.nn.Module) -> torch.nn.Module:
    """A copy with parameters in fp16; buffers, such as rotary frequencies, stay as they are.

    So does `from_pretrained(dtype=torch.float16)`.
    """
    half = copy.deepcopy(full)
    for parameter in half.parameters():
        parameter.data = parameter.data.half()
    return half


def build(name: str, weights: Weights, example: Sample) -> Running:
    """Make one implementation ready for calls of the shapes of `example`. Raises Unavailable."""
    return IMPLEMENTATIONS[name](weights, example)


def _eager(weights: Weights, _example: Sample) -> Running:
    return Running(lambda sample: weights.half(**sample.half)[0])


def _autocast(weights: Weights, _example: Sample) -> Running:
    def call(sample: Sample) -> torch.Tensor:
        with torch.autocast(weights.device, dtype=torch.float16):
            return weights.full(**sample.full)[0]

    return Running(call)


def _cudagraph(weights: Weights, example: Sample) -> Running:
    _require_cuda(weights, "a CUDA graph")
    return Running(captured(weights.half, example))


def _compile(weights: Weights, _example: Sample) -> Running:
    _require_cuda(weights, "torch.compile")
    forward = weights.compiled("default")
    return Running(lambda sample: forward(**sample.half)[0])


def _compile_with_graphs(weights: Weights, mode: str) -> Running:
    _require_cuda(weights, "torch.compile")
    forward = weights.compiled(mode)

    def call(sample: Sample) -> torch.Tensor:
        # Outputs of the call before lie in the graph's own memory and may be overwritten from here.
        torch.compiler.cudagraph_mark_step_begin()
        return forward(**sample.half)[0]

    return Running(call)


def _compile_reduce_overhead(weights: Weights, _example: Sample) -> Running:
    return _compile_with_graphs(weights, "reduce-overhead")


def _compile_max_autotune(weights: Weights, _example: Sample) -> Running:
    return _compile_with_graphs(weights, "max-autotune")


def _compile_cudagraph(weights: Weights, example: Sample) -> Running:
    _require_cuda(weights, "torch.compile")
    return Running(captured(weights.compiled("default"), example))


def _kernl(weights: Weights, example: Sample) -> Running:
    return optimized(weights, example)


def _kernl_graphs_only(weights: Weights, example: Sample) -> Running:
    _require_cuda(weights, "a CUDA graph")
    return optimized(weights, example, rewrite=False)


def _kernl_rewrite_only(weights: Weights, example: Sample) -> Running:
    return optimized(weights, example, cuda_graphs=False)


IMPLEMENTATIONS: Mapping[str, Callable[[Weights, Sample], Running]] = {
    "eager": _eager,
    "autocast": _autocast,
    "cudagraph": _cudagraph,
    "compile": _compile,
    "compile_reduce_overhead": _compile_reduce_overhead,
    "compile_max_autotune": _compile_max_autotune,
    "compile_cudagraph": _compile_cudagraph,
    "kernl_graphs_only": _kernl_graphs_only,
    "kernl_rewrite_only": _kernl_rewrite_only,
    "kernl": _kernl,
}


CHOOSING = frozenset({"compile_max_autotune"})
"""It times candidates on the device all the time while it is built. `kernl` does so at the end, and
Inductor in its other modes kernel by kernel: `benchmarks.measure.choosing` sees to these."""
BY_HOST = frozenset({"eager", "autocast", "compile", "kernl_rewrite_only"})
"""Python launches each of their kernels: their time is the host's as much as the device's. Where
the host is noisy, a second attempt a second later meets the same noise."""


def _require_cuda(weights: Weights, what: str) -> None:
    if weights.device != "cuda":
        raise Unavailable(f"{what} {_NEEDS_CUDA}")


def optimized(
    weights: Weights, example: Sample, *, rewrite: bool = True, cuda_graphs: bool = True
) -> Running:
    """kernl on a copy of its own. Raises Unavailable where it leaves such calls to PyTorch.

    kernl lays packed weights together in the model that it is given, hence the copy.
    """
    try:
        from kernl import optimize_model
    except ImportError as error:
        raise Unavailable(f"this commit has no optimize_model: {error}") from error
    module: Any = copy.deepcopy(weights.half)
    optimize_model(module, rewrite=rewrite, cuda_graphs=cuda_graphs)
    forward = module.forward
    with torch.inference_mode():
        engine = forward.prepare(**example.half)
    if engine.runner is None:
        raise Unavailable(f"left to PyTorch: {engine.note}")

    def complaint() -> str:
        others = {what: count for what, count in forward.calls.items() if what != _BY_GRAPH}
        if not others:
            return ""
        said = ", ".join(f"{count} {what}" for what, count in others.items())
        return f"{sum(others.values())} of {forward.calls.total()} calls not by graph: {said}"

    remark = getattr(engine, "remark", "")  # which older commits do not have
    said = f"not rewritten: {remark}" if remark else ""
    rewritten = rewriting(getattr(engine, "report", None)) if rewrite else None
    return Running(lambda sample: module(**sample.half)[0], complaint, said, rewritten)


def rewriting(report: Any) -> Rewrite | None:
    """What a report of kernl's says, in figures; None of one that an older commit makes otherwise.

    `replaced`: kernl's operators in the graph; `left`: PyTorch's that compute; `refused`: what
    looks like one of kernl's and stays PyTorch's, with the reason. Each by name, with its count.
    """
    try:
        refused = Counter(f"{one.op}: {one.reason}" for one in report.refused)
        return {
            "replaced": dict(report.fused),
            "left": dict(report.left),
            "refused": dict(refused),
        }
    except AttributeError:
        return None


def captured(forward: Forward, example: Sample) -> Call:
    """A forward in one CUDA graph. Raises what the forward or the capture raises.

    Called on a side stream first: kernels are compiled and libraries take their workspaces, which
    a capture may not do.
    """
    # Tensors made in inference mode are of another kind, for which torch.compile compiles anew.
    static = {name: tensor.clone() for name, tensor in example.half.items()}
    with torch.inference_mode():
        forward(**static)  # torch.compile works on the stream that it is timed on
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                forward(**static)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        # A workspace of cuBLAS belongs to a stream, and lies in the memory of the graph in whose
        # capture it was made. torch.compile's own graphs clear it: this graph would then write to
        # memory that a graph of an earlier case has given back. So this capture makes its own.
        torch._C._cuda_clearCublasWorkspaces()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = tensors_of(forward(**static))

    targets = list(static.values())

    def call(sample: Sample) -> torch.Tensor:
        torch._foreach_copy_(targets, [sample.half[name] for name in static])
        graph.replay()
        kept = [out.clone() for out in outputs]
        return kept[0]

    return call


def tensors_of(outputs: Mapping[str, Any]) -> list[torch.Tensor]:
    """The tensors of a model's output, in order; the first is the last hidden state."""
    return [value for value in outputs.values() if isinstance(value, torch.Tensor)]
