"""What a call by CUDA graph costs the host: `python -m benchmarks.measure.host [MODEL]`.

    python -m benchmarks.measure.host
    python -m benchmarks.measure.host tiny_llama --cache

Prints microseconds of a whole `model.forward`, of the replay alone, and of the pieces between them,
for BERT-base, or another of the suite's models, with random weights in fp16, batch 1, length 128.
With `--cache` a decoder returns its keys and values too, as it does unless told otherwise. Each is
the least of many medians; the device's work is waited for outside of what is timed. Takes about a
minute on a GPU.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.measure import device
from benchmarks.model import Model, ModelCase
from benchmarks.models import BERT_BASE, MODELS

CASE = ModelCase(1, 128)
_CALLS = 16  # so few that the device's queue is never full, which would hold the host up


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; exits with 2 and a message where there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measure.host", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    named = {model.name: model for model in MODELS if CASE in model.cases}
    parser.add_argument(
        "model",
        nargs="?",
        default=BERT_BASE.name,
        choices=named,
        metavar="MODEL",
        help=f"of: {', '.join(named)} ({BERT_BASE.name})",
    )
    parser.add_argument("--cache", action="store_true", help="return keys and values too")
    parser.add_argument("--rounds", type=int, default=200, help="of 16 calls each (200)")
    options = parser.parse_args(arguments)
    if device.gpu() is None:
        parser.error("no NVIDIA GPU on this machine, and only calls on one can be timed")
    found = measured(options.rounds, named[options.model], cache=options.cache)
    print("\n".join(table(found)))


def table(pieces: dict[str, float]) -> list[str]:
    """Lines: microseconds of the forward, of the replay, of what lies between, of its pieces."""
    rest = dict(pieces)
    forward, replay = rest.pop("forward"), rest.pop("replay")
    beyond = forward - replay
    rows = [("forward", forward), ("replay", replay), ("beyond the replay", beyond)]
    rows += [(f"  {name}", taken) for name, taken in rest.items()]
    rows.append(("  all else", beyond - sum(rest.values())))
    return [f"{'host, µs a call':24}"] + [f"{name:16} {taken:7.2f}" for name, taken in rows]


def measured(rounds: int, of: Model = BERT_BASE, *, cache: bool = False) -> dict[str, float]:
    """Microseconds of each piece of a call, by name. Needs a GPU."""
    import torch

    from benchmarks.measure.model_calls import in_half
    from kernl import optimize_model
    from kernl.runtime.runner import CudaGraph
    from kernl.runtime.structure import key_of_call

    (sample,) = of.samples(CASE, [0], "cuda")
    given: dict[str, torch.Tensor] = sample.half
    model: Any = in_half(of.build().cuda())
    if cache:
        model.config.use_cache = True
    forward: Any = optimize_model(model).forward
    with torch.inference_mode():
        engine = forward.prepare(**given)
        runner = engine.runner
        if not isinstance(runner, CudaGraph):
            sys.exit(f"this call is left to PyTorch: {engine.note}")
        row = list(given.values())
        outputs = runner(row)
        # A replay by itself writes to the outputs of the call before, so these are held.
        held: deque[Any] = deque(maxlen=1)
        pieces: dict[str, Callable[[], object]] = {
            "forward": lambda: held.append(forward(**given)),
            "replay": runner.graph.replay,
            "key": lambda: key_of_call((), given, None, []),
            "take": lambda: runner.copies_in.take(row),
            "outputs": lambda: held.append(runner.copies_out.give()),
            "rebuild": lambda: engine.rebuild(outputs),
        }
        found = _least(pieces, rounds, torch.cuda.synchronize)
    left = runner.copies_in.left_to_pytorch + runner.copies_out.left_to_pytorch
    if left:
        print(f"PyTorch made {left} of the copies", file=sys.stderr)
    return found


def _least(
    pieces: dict[str, Callable[[], object]], rounds: int, synchronize: Callable[[], None]
) -> dict[str, float]:
    """In turns, so that what else the machine does meets all of them alike."""
    taken: dict[str, list[float]] = {name: [] for name in pieces}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, call in pieces.items():
                taken[name].append(_median(call))
                synchronize()
    finally:
        gc.enable()
    return {name: 1e6 * min(times) for name, times in taken.items()}


def _median(call: Callable[[], object]) -> float:
    times = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
