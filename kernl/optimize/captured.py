"""The CUDA graph of a call: of the graph as it was rewritten, or as it was written.

Rewriting is meant to be faster, and nearly always is. Where it is not, on a GPU or for a size that
no table knows, a model would pay for having been optimised: so the graph of PyTorch's own kernels
is captured too, once, both are timed, and the faster one stays.
"""

from collections.abc import Callable, Sequence

import torch
from torch import fx

from kernl.optimize.kept import Choice, Kept, name_of
from kernl.optimize.weights_ahead import ask_ahead
from kernl.rewrite.fold import fold_constants
from kernl.runtime.runner import Arena, Capture, CudaGraph, device_times

Row = Sequence[torch.Tensor]
Function = Callable[..., list[torch.Tensor]]
FunctionOf = Callable[[fx.GraphModule], Function]

_GAIN = 0.02
"""A part of the time of the rewritten graph; less than that is noise."""
_PLAIN = Capture(early=False, ahead=False)
"""PyTorch's kernels do not begin early, and nothing asks for their weights."""


def captured(
    graph: fx.GraphModule,
    as_written: fx.GraphModule | None,
    function_of: FunctionOf,
    example: Row,
    arena: Arena,
    weights_ahead: bool,
    kept: Kept | None,
) -> tuple[CudaGraph, str]:
    """The faster CUDA graph, and why that is the one as written, in words; else an empty string.

    Args:
        graph: as it was rewritten.
        as_written: the same before, nothing folded; None where it is not to be compared.
        function_of: what is captured of either.
        example: the tensors of a call.
        arena: of the model's CUDA graphs.
        weights_ahead: whether a branch that asks for weights is tried.
        kept: what earlier processes found out, and what this one does.
    """
    ahead = weights_ahead and ask_ahead(graph) > 0
    name = name_of(graph, example) if kept else ""
    known = kept.choice(name) if kept else None
    plain: Function | None = None
    if as_written is not None and (known is None or known.as_written is not False):
        fold_constants(as_written)
        plain = function_of(as_written)
        if known and known.as_written:
            return CudaGraph(plain, example, arena, _PLAIN), "as an earlier process found out"
    ours = CudaGraph(function_of(graph), example, arena, known.capture if known else None, ahead)
    remark = _slower(ours, plain, example) if plain else ""
    if kept and (plain or known is None):
        kept.note(name, Choice(*ours.capture, as_written=bool(remark) if plain else None))
    if plain and remark:
        return CudaGraph(plain, example, arena, _PLAIN), remark
    return ours, ""


def _slower(ours: CudaGraph, plain: Function, example: Row) -> str:
    """In words, that the rewritten graph takes more time; empty where it does not."""
    try:
        # In memory of its own, which is given back: most are captured to be thrown away.
        theirs = CudaGraph(plain, example, Arena(example[0].device), _PLAIN)
    except Exception:  # what cannot be captured, or finds no memory, is no alternative
        return ""
    taken, other = device_times([lambda: ours(example), lambda: theirs(example)])
    if other >= (1 - _GAIN) * taken:
        return ""
    return f"{other:.3f} ms by PyTorch's kernels in a CUDA graph, {taken:.3f} ms rewritten"
