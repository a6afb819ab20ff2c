"""`optimize_model`: one line that makes a transformer faster, and the two that go with it."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from kernl.errors import ArgumentError, DeviceError, OptionError
from kernl.optimize.copies import Shell
from kernl.optimize.engine import Call, traced
from kernl.optimize.forward import OptimizedForward
from kernl.optimize.options import Options, WarmupShape
from kernl.optimize.traffic import TRAFFIC
from kernl.rewrite import Report
from kernl.rewrite.pack import undone, unpack_linears
from kernl.runtime.structure import key_of

__all__ = ["explain", "optimize_model", "restore_model"]

_OLDEST = (8, 0)


def optimize_model(
    model: PreTrainedModel,
    *,
    rewrite: bool = True,
    cuda_graphs: bool = True,
    dtype: torch.dtype | None = None,
    warmup_shapes: Sequence[WarmupShape] = (),
    check: bool = True,
    max_graphs: int = 64,
    padding: bool | Sequence[int] = False,
    cache_dir: str | os.PathLike[str] | None = None,
    weights_ahead: bool = False,
) -> PreTrainedModel:
    """Make a model's forward faster, in place.

    A call of shapes that were not seen before runs as it did. The second such call traces the
    model, puts kernl's kernels into its graph, captures a CUDA graph, and compares its outputs and
    its time with the original's; where they are off or slower, calls of these shapes stay with the
    original. Where PyTorch's kernels are faster in a CUDA graph, the graph stays as it was written.
    `explain` says what was done. Calls outside of `torch.inference_mode()` or
    `torch.no_grad()`, calls in training mode and calls with a cache as argument stay with the
    original too, and so do all while a submodule has a hook of somebody else's. Where a submodule,
    a parameter or a buffer was replaced, graphs are built anew. A copy of the model, by deepcopy or
    from a file, is optimised like it and builds its own graphs. Token ids and positions outside of
    their tables, for which PyTorch fails, give NaN for their sequence.

    Args:
        model: in eval mode, on an NVIDIA GPU from Ampere on.
        rewrite: put kernl's kernels into the graph.
        cuda_graphs: capture the graph once for each combination of shapes, and replay it.
        dtype: compute in torch.float16 or torch.bfloat16 though the weights are float32, as under
            `torch.autocast`, which does the same for the calls inside it. Parameters are copied
            once; a change in place is seen. Outputs keep the original's dtypes.
        warmup_shapes: shapes to be ready for at once, each (batch, sequence), or a mapping of the
            inputs' names to their shapes.
        check: compare each kind of call with the original when it is built, and the rewritten graph
            with the one as it was written.
        max_graphs: how many kinds of calls are kept; the one that was not used for longest goes.
        padding: True, or lengths: calls of token ids, shape (batch, sequence), are padded on the
            right to the next of 16, 24, 32, 48, 64, 96 …, or of these lengths, masked there, and
            their outputs cut. So many lengths share few graphs.
        cache_dir: a folder for compiled kernels and for choices, so that the next process is ready
            sooner. Without it Triton keeps compiled kernels where it always does.
        weights_ahead: capture each graph a third time, with a branch that asks for weights to be in
            L2 before the layers that read them; it stays where that is faster.

    Returns:
        The same model.

    Raises:
        ArgumentError: `model` is no PreTrainedModel.
        OptionError: it is in training mode, or an option is outside of what is allowed.
        DeviceError: it is on the CPU, or on a GPU older than Ampere.
        ShapeError: a warm-up shape without sizes.
    """
    options = Options(
        rewrite=rewrite,
        cuda_graphs=cuda_graphs,
        dtype=dtype,
        warmup_shapes=tuple(warmup_shapes),
        check=check,
        max_graphs=max_graphs,
        padding=padding if isinstance(padding, bool) else tuple(padding),
        cache_dir=None if cache_dir is None else Path(cache_dir),
        weights_ahead=weights_ahead,
    )
    _check_model(model)
    restore_model(model)
    forward = OptimizedForward(model, options)
    try:
        _warm_up(forward, model, options)
    except BaseException:
        unpack_linears(model)
        raise
    model.forward = forward
    return model


def _warm_up(forward: OptimizedForward, model: PreTrainedModel, options: Options) -> None:
    with torch.inference_mode():
        for shape in options.warmup_shapes:
            engine = forward.prepare(**_dummy_inputs(model, shape))
            if engine.note:
                said = f"calls of the warm-up shape {shape} stay with PyTorch: {engine.note}"
                warnings.warn(said, stacklevel=3)


def restore_model(model: PreTrainedModel) -> PreTrainedModel:
    """Undo `optimize_model`: the model is as it was, and its graphs are gone.

    Args:
        model: optimised or not.

    Returns:
        The same model.
    """
    forward = model.__dict__.get("forward")
    if isinstance(forward, OptimizedForward):
        del model.__dict__["forward"]
        unpack_linears(model)
        if model.forward != forward.original:  # a forward that somebody had put there before
            model.forward = forward.original
    return model


def explain(model: PreTrainedModel, **inputs: Any) -> Report:
    """Print, and return, what kernl does with a call: what it replaces, refuses and leaves.

    Args:
        model: optimised or not; it is not changed.
        inputs: of its forward, by name.

    Raises:
        ArgumentError: `model` is no PreTrainedModel, or there is no tensor among the inputs.
        UntraceableError: no graph can hold this call; the message says why.
    """
    _check_kind(model)
    forward = model.__dict__.get("forward")
    optimized = forward if isinstance(forward, OptimizedForward) else None
    options = optimized.options if optimized else Options()
    tensors: list[torch.Tensor] = []
    key_of(inputs, tensors)
    if not tensors:
        raise ArgumentError(
            seen=f"explain: a call with {len(inputs)} arguments, none of them a tensor",
            allowed="the inputs of the model's forward, by name",
            action="pass them as to the model, such as input_ids=…",
        )
    original = optimized.original if optimized else model.forward
    with torch.no_grad(), TRAFFIC.tracing(), undone(model):
        shell = Shell(model, original)
        _, _, report, _ = traced(shell, Call((), inputs, tensors), options, None)
    print(report)
    if optimized and optimized.calls:
        print("calls so far:")
        for reason, count in optimized.calls.most_common():
            print(f"  {count:4d} × {reason}")
    for remark in optimized.remarks if optimized else ():
        print(f"not rewritten, as that is slower for one kind of calls: {remark}")
    return report


def _check_kind(model: object) -> None:
    if not isinstance(model, PreTrainedModel):
        raise ArgumentError(
            seen=f"a {type(model).__name__}",
            allowed="a transformers.PreTrainedModel",
            action="pass the model that from_pretrained returns; kernl.rewrite takes any module",
        )


def _check_model(model: PreTrainedModel) -> None:
    _check_kind(model)
    if model.training:
        raise OptionError(
            seen="a model in training mode",
            allowed="a model in eval mode: the kernels have no backward",
            action="call model.eval() first",
        )
    device = next(model.parameters()).device
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < _OLDEST:
            raise DeviceError(
                seen=f"a GPU of compute capability {capability[0]}.{capability[1]}",
                allowed="8.0 (Ampere) or newer",
                action="run it on a newer GPU, or leave the model as it is",
            )
    elif os.environ.get("TRITON_INTERPRET") != "1":
        raise DeviceError(
            seen=f"a model on {device}",
            allowed="an NVIDIA GPU, or the CPU under Triton's interpreter",
            action="move it by model.cuda(), or set TRITON_INTERPRET=1 before kernl is imported",
        )


def _dummy_inputs(model: PreTrainedModel, shape: WarmupShape) -> dict[str, torch.Tensor]:
    """Inputs of a warm-up shape: identifiers and masks of ones, random floating-point values."""
    named = (
        dict(shape) if isinstance(shape, Mapping) else {"input_ids": shape, "attention_mask": shape}
    )
    first = next(model.parameters())
    return {
        name: torch.ones(sizes, dtype=torch.int64, device=first.device)
        if name.endswith(("_ids", "_mask"))
        else torch.randn(sizes, dtype=first.dtype, device=first.device)
        for name, sizes in named.items()
    }
