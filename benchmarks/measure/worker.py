"""The measuring process: reads tasks, answers with points, stays warm between them.

`python -m benchmarks.measure.worker --device cuda|cpu --suite kernels|models` reads one JSON object
a line on standard input and writes one JSON object a line to the standard output it was started
with. Anything that a library prints goes to standard error instead.

    → {"op": …, "case": …, "dims": …, "dtype": …, "version": …, "implementations": …, …}
    ← {"kind": "ready", "fingerprint": {…}}      once, or {"kind": "refused", "status", "reason"}
    ← {"kind": "stage", "stage": …, "implementation": …}   before each step: who is to blame
    ← {"kind": "alone", "what": …, "quiet": …}   it wants the device for itself; it waits for a line
    ← {"kind": "rested"}             it has it, and what others had given it to do is done
    ← {"kind": "together"}           it had it, and waits for a line before it uses it again
    ← {"kind": "aside"}              it uses no device from now on; it begins so
    ← {"kind": "back"}               it is about to use it again, and waits for a line
    ← {"kind": "figures", "figures": {…}}        what it found out of the device since
    ← {"kind": "point", "variant": …, "status": …, "reason": …, …}   one an implementation
    ← {"kind": "done", "worn": …}    after the last point of a task; "worn": start another worker,
                                     as this one keeps memory that it cannot give back
    ← {"kind": "fault", "reason": …}             the device is lost; the process ends

With `--paired` a case is held ready and timed in blocks, as it is asked. See
`benchmarks.measure.blocks` for the messages. With `--fork` it is no worker, but what workers are
forked from (`benchmarks.measure.fork_server`).

`--device cpu` runs the kernels under Triton's interpreter with wall-clock time: a dry run of the
machinery, whose points carry `"dry": true`.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from benchmarks import cases
from benchmarks.measure import fork_server
from benchmarks.measure.asking import Asking, send
from benchmarks.measure.choosing import (
    Alone,
    aside_while_compiling,
    aside_while_triton_compiles,
    choose_alone,
    choose_anew,
)
from benchmarks.measure.lifetime import die_with_parent

if TYPE_CHECKING:
    from benchmarks.measure.blocks import Converse

_FAULT_STATUS = 70

Measure = Callable[[Any, Callable[[str, str], None]], Iterator[Mapping[str, Any]]]
"""Points of a task; the second argument is told each step before it begins."""
Tell = Callable[[Mapping[str, float]], None]
"""Called with figures of the device, as they stand in its fingerprint."""
_MOST_KEPT_BYTES = {"kernels": 1 << 30, "models": 8 << 30}
"""Of the device's memory, between cases: of a model its weights stay. What is more than that has
leaked: a capture that fails keeps what it had allocated for as long as its process lives."""


class Refusal(Exception):
    """This process cannot measure anything; status (failed or skipped) and reason in words."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve tasks until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measure.worker")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--suite", choices=("kernels", "models"), default="kernels")
    parser.add_argument("--paired", action="store_true", help="hold cases ready")
    parser.add_argument(
        "--fork", type=int, metavar="FD", help="fork workers for who asks by this socket"
    )
    options = parser.parse_args(arguments)
    die_with_parent()
    prepare_environment(options.device, options.suite)
    # An operator's two commits are compared in `eager` and `kernl`: nobody else's code is wanted,
    # and none is imported, which takes longer than a case.
    others = not options.paired or options.suite != "kernels"
    if options.fork is not None:
        if others:
            parser.error("--fork is for --paired --suite kernels: others may import what uses CUDA")
        import_to_be_forked(options.device)
        if not fork_server.serve(options.fork):
            return
    out = _take_standard_output()
    asking = Asking(out, sys.stdin, options.device)
    try:
        import_all(options.device, others=others)
        asking.back()
        (aside_while_compiling if others else aside_while_triton_compiles)(asking.compiling)
        if others and options.device == "cuda":
            # Its candidates differ by little, and it times each for a moment.
            choose_alone(partial(asking.alone, quiet=True))
        measure, figures = prepare(
            options.device,
            options.suite,
            asking.alone,
            lambda found: send(out, {"kind": "figures", "figures": found}),
            partial(_converse, out) if options.paired else None,
        )
    except Refusal as refusal:
        send(out, {"kind": "refused", "status": refusal.status, "reason": str(refusal)})
        return
    send(out, {"kind": "ready", "fingerprint": figures})
    served = 0
    while line := sys.stdin.readline():
        _serve(json.loads(line), measure, out, _MOST_KEPT_BYTES[options.suite])
        served += 1
        if served.bit_count() == 1:
            # What the first cases imported, torch.compile's modules above all, stays. Looked
            # through for garbage in each case, it took longer than a case's timing. Some garbage is
            # kept with it, so it is done after 1, 2, 4, 8, … cases.
            gc.collect()
            gc.freeze()


def prepare(
    device: str,
    suite: str,
    alone: Alone = lambda _: nullcontext(),
    tell: Tell = lambda _: None,
    converse: Converse | None = None,
) -> tuple[Measure, dict[str, Any]]:
    """(what measures a case of this suite, fingerprint). Raises Refusal.

    `tell` is told what is found out later. With `converse` a case is held ready, and timed in
    blocks as the answers say.
    """
    if suite == "models":
        return _prepare_models(device, alone, converse)
    return _prepare_kernels(device, alone, tell, converse)


def prepare_environment(device: str, suite: str = "kernels") -> None:
    """Set what Triton and Inductor read once; call it before torch or kernl is imported."""
    # Triton reads this when a kernel is declared: it has to stand before kernl is imported.
    if device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    else:
        os.environ.pop("TRITON_INTERPRET", None)
    if suite == "kernels":
        # One kernel at a time is compiled: a pool of compilers would only have to be started.
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


def import_all(device: str, *, others: bool = True) -> None:
    """Import what takes seconds, while others may time. Raises Refusal.

    `others`: `torch.compile` and the alternatives too. What one lacks is said where it is used.
    """
    if others:
        choose_anew()
    load_ops(os.environ.get("KERNL_CODE"))
    if others and device == "cuda":
        from benchmarks.measure.alternatives import ALTERNATIVES, unusable

        frozen = cases.load()
        wanted = {name for op in frozen.ops for name in frozen.selected_implementations(op)}
        for alternative in ALTERNATIVES:
            if alternative.name in wanted:
                unusable(alternative.module)


def import_to_be_forked(device: str) -> None:
    """Import what workers use that are forked from this process. What fails, fails in them again.

    It must not use the device: a process that is forked after that cannot.
    """
    with suppress(Refusal):
        import_all(device, others=False)
    # The first call of an operator imports Dynamo, which takes as long as all the rest.
    later = ("torch._dynamo", *(f"benchmarks.measure.{n}" for n in ("device", "paired_case")))
    for module in later:
        importlib.import_module(module)


def _serve(message: Mapping[str, Any], measure: Measure, out: TextIO, most_kept: int) -> None:
    from benchmarks.measure.laboratory import DeviceFault, Task, describe

    def stage(name: str, implementation: str) -> None:
        send(out, {"kind": "stage", "stage": name, "implementation": implementation})

    try:
        for point in measure(Task.of(message), stage):
            send(out, {"kind": "point", **point})
    except DeviceFault as fault:
        send(out, {"kind": "fault", "reason": f"the device is lost after: {fault}"})
        # The interpreter's own shutdown may hang on a context that is broken.
        os._exit(_FAULT_STATUS)
    except Exception as error:
        send(out, {"kind": "fault", "reason": describe(error)})
        os._exit(_FAULT_STATUS)
    send(out, {"kind": "done", "worn": _keeps_more_than(most_kept)})


def _keeps_more_than(most_kept: int) -> bool:
    """Whether this process has more bytes of the device than that, and cannot give them back."""
    import torch

    if not torch.cuda.is_initialized() or torch.cuda.memory_reserved() <= most_kept:
        return False
    # What the case held until its last point was sent is free now, but still this process'.
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved() > most_kept


def _converse(out: TextIO, message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Send, and wait for the answer."""
    send(out, message)
    line = sys.stdin.readline()
    if not line:
        raise SystemExit  # nobody is there any more
    answer: Mapping[str, Any] = json.loads(line)
    return answer


def _prepare_kernels(
    device: str, alone: Alone, tell: Tell, converse: Converse | None
) -> tuple[Measure, dict[str, Any]]:
    """(what measures an operator's case, fingerprint). Raises Refusal."""
    ops = _prepared_ops(device, others=converse is None)

    from benchmarks.measure.laboratory import Laboratory, describe
    from benchmarks.measure.measurement import measure
    from benchmarks.measure.paired_case import serve
    from benchmarks.measure.timing import Ceilings

    def measuring(lab: Laboratory) -> Measure:
        if converse is not None:
            return lambda task, stage: serve(task, ops, lab, stage, converse)
        return lambda task, stage: measure(task, ops, lab, stage)

    figures = _figures(device, "kernels")
    if device == "cpu":
        return measuring(Laboratory("cpu", alone=alone)), figures
    from benchmarks.measure.graphs import Flush, ceilings

    def find_ceilings() -> Ceilings:
        found, rates = ceilings(os.environ.get("KERNL_CEILINGS"))
        tell(rates)
        return found

    try:
        flush = Flush()
    except Exception as error:
        raise Refusal("failed", f"the device gives no memory: {describe(error)}") from error
    lab = Laboratory("cuda", None, flush, _telemetry(), alone, find_ceilings)
    return measuring(lab), figures


def _prepare_models(
    device: str, alone: Alone, converse: Converse | None
) -> tuple[Measure, dict[str, Any]]:
    """(what measures a model's case, fingerprint). Raises Refusal."""
    _prepared_ops(device)

    from benchmarks.measure.laboratory import Laboratory
    from benchmarks.measure.model_measurement import Shelf, measure

    telemetry = {} if device == "cpu" else {"telemetry": _telemetry()}
    lab = Laboratory(device, **telemetry, alone=alone)
    shelf = Shelf()
    figures = _figures(device, "models")
    return lambda task, stage: measure(task, shelf, lab, stage, converse), figures


def _prepared_ops(device: str, *, others: bool = True) -> dict[str, Any]:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise Refusal("skipped", f"torch {torch.__version__} sees no CUDA device")
    if others:
        choose_anew()
    return load_ops(os.environ.get("KERNL_CODE"))


def _figures(device: str, suite: str) -> dict[str, Any]:
    import torch

    from benchmarks.measure.device import fingerprint

    figures: dict[str, Any] = {**fingerprint(suite)}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        figures["capability"] = f"{properties.major}.{properties.minor}"
        figures["sm_count"] = properties.multi_processor_count
        figures["l2_bytes"] = properties.L2_cache_size
    return figures


def _telemetry() -> Any:
    from benchmarks.measure.device import gpu
    from benchmarks.measure.telemetry import Telemetry

    card = gpu()
    return Telemetry(card.uuid if card else "")


def load_ops(code: str | None) -> dict[str, Any]:
    """The ops of the commit under test by name. Raises Refusal where they are not that commit's."""
    try:
        import kernl
        from kernl.ops import ALL
    except ImportError as error:
        raise Refusal("skipped", f"this commit has no kernl.ops to measure: {error}") from error
    found = Path(kernl.__file__ or "").resolve()
    if code and not found.is_relative_to(Path(code).resolve()):
        raise Refusal("failed", f"kernl comes from {found.parent}, not from KERNL_CODE = {code}")
    return {op.name: op for op in ALL}


def _take_standard_output() -> TextIO:
    """A private stream to the standard output; the public one now leads to standard error."""
    private = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(private, "w", encoding="utf-8")


if __name__ == "__main__":
    main()
