"""Where the device's time of a model's call goes: `python -m benchmarks.measure.parts bert`.

    python -m benchmarks.measure.parts bert --match 'batch8_seq128*'
    python -m benchmarks.measure.parts whisper --implementations compile_cudagraph,kernl --rows 20

For each case and implementation: the kernels of one call by name, the longest first, with how often
they run, their microseconds, and their share. Then what they add up to, how long the device was
busy, which is less where kernels overlap, and how long a call took from its first kernel to its
last. What lies between busy and span are gaps between kernels.

Times are the profiler's, which has its own cost: they compare kernels with each other, and are no
latency. That is what `python -m benchmarks.measure.models` measures. Needs a GPU.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.measure import device
from benchmarks.measure.models import (
    cases_named,
    implementations_named,
    models_named,
    name_cases,
)
from benchmarks.models import IMPLEMENTATIONS

if TYPE_CHECKING:
    from benchmarks.measure.model_calls import Weights
    from benchmarks.model import Sample

CALLS = 10
_WIDEST_NAME = 72


class Span(NamedTuple):
    """One kernel or copy on the device, in microseconds."""

    name: str
    start: float
    end: float


class Part(NamedTuple):
    """All runs of one kernel in one call: how many, and their microseconds together."""

    name: str
    times: float
    taken: float


class Anatomy(NamedTuple):
    """One call, in microseconds.

    Attributes:
        parts: by kernel, the longest first.
        busy: how long at least one kernel ran.
        span: from the first kernel to the end of the last.
    """

    parts: tuple[Part, ...]
    busy: float
    span: float


def anatomy(calls: Sequence[Sequence[Span]]) -> Anatomy:
    """What several calls took, on average; the span is their median.

    Raises:
        ValueError: no call ran anything on the device.
    """
    runs = [span for call in calls for span in call]
    if not runs:
        raise ValueError("nothing ran on the device")
    taken: dict[str, list[float]] = defaultdict(list)
    for span in runs:
        taken[span.name].append(span.end - span.start)
    parts = (
        Part(name, len(each) / len(calls), sum(each) / len(calls)) for name, each in taken.items()
    )
    spans = [max(s.end for s in call) - min(s.start for s in call) for call in calls if call]
    return Anatomy(
        tuple(sorted(parts, key=lambda part: -part.taken)),
        sum(map(_busy, calls)) / len(calls),
        statistics.median(spans),
    )


def _busy(call: Sequence[Span]) -> float:
    """The length of the union of all intervals."""
    total, until = 0.0, float("-inf")
    for span in sorted(call, key=lambda span: span.start):
        total += max(0.0, span.end - max(span.start, until))
        until = max(until, span.end)
    return total


def table(title: str, found: Anatomy, rows: int) -> list[str]:
    """The lines for one implementation; parts beyond `rows` are one line."""
    whole = sum(part.taken for part in found.parts)
    shown, rest = list(found.parts[:rows]), found.parts[rows:]
    if rest:
        names = f"{len(rest)} others"
        shown.append(Part(names, sum(p.times for p in rest), sum(p.taken for p in rest)))
    lines = [f"{title}, µs of one call"]
    lines += [
        f"{part.taken:9.2f}  {100 * part.taken / whole:5.1f} %  {part.times:6g} ×  "
        f"{_printable(part.name)}"
        for part in shown
    ]
    kernels = sum(part.times for part in found.parts)
    lines.append(f"{whole:9.2f}  in {kernels:g} kernels and copies")
    lines.append(f"{found.busy:9.2f}  busy; {found.span:.2f} from the first to the last")
    return lines


def _printable(name: str) -> str:
    shown = "".join(letter if letter.isprintable() else "?" for letter in name)
    return shown if len(shown) <= _WIDEST_NAME else shown[: _WIDEST_NAME - 1] + "…"


def profiled(name: str, weights: Weights, sample: Sample) -> Anatomy:
    """Build one implementation for calls like `sample` and look at a few of them. Needs a GPU."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from benchmarks.measure.model_calls import WARM_UPS, build

    running = build(name, weights, sample)
    calls: list[list[Span]] = []
    with torch.inference_mode():
        for _ in range(WARM_UPS):
            running.call(sample)
        for _ in range(CALLS):
            torch.cuda.synchronize()
            with profile(activities=[ProfilerActivity.CUDA]) as seen:
                running.call(sample)
                torch.cuda.synchronize()
            calls.append(
                [
                    Span(event.name, event.time_range.start, event.time_range.end)
                    for event in seen.events() or ()
                    if event.device_type.name == "CUDA"
                ]
            )
    return anatomy(calls)


def main(arguments: Sequence[str] | None = None) -> None:
    """Profile and print; exits with 2 and a message where nothing fits or there is no GPU."""
    parser = _parser()
    options = parser.parse_args(arguments)
    models = models_named(parser, options.models)
    chosen = [(model, case) for model in models for case in cases_named(model, options)]
    if not chosen:
        parser.error(f"no case of {', '.join(options.models)} matches {options.match!r}")
    names = implementations_named(parser, options)
    if device.gpu() is None:
        parser.error("no NVIDIA GPU on this machine, and only one has such a profile")
    from benchmarks.measure.model_measurement import Shelf

    shelf = Shelf()
    for model, case in chosen:
        weights = shelf.weights(model, "cuda")
        (sample,) = model.samples(case, [0], "cuda")
        for name in names:
            title = f"{model.name} {case.name} {name}"
            try:
                lines = table(title, profiled(name, weights, sample), options.rows)
            except Exception as error:  # the other implementations still have their tables
                lines = [f"{title}: {type(error).__name__}: {error}"]
            print("\n".join(lines), end="\n\n", flush=True)
        weights.forget_compiled()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measure.parts", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    name_cases(parser)
    parser.add_argument(
        "--implementations",
        metavar="A,B",
        default="compile_cudagraph,kernl",
        help=f"of: {', '.join(IMPLEMENTATIONS)} (%(default)s)",
    )
    parser.add_argument("--rows", type=int, default=12, help="kernels by name (%(default)s)")
    return parser


if __name__ == "__main__":
    main()
