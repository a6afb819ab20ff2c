"""Choose configurations by what a whole model takes: `python -m benchmarks.tune_model bert_base`.

    python -m benchmarks.tune_model bert_base --match 'batch8_seq128*'
    python -m benchmarks.tune_model bert whisper --quick

`python -m benchmarks.tune` times each class of shapes by itself. In a model's CUDA graph it may end
otherwise: kernels of kernl's own begin while those before them end, which a library's do not, and
find in L2 what was just written. So for each class that a case of the model asks for, those of its
candidates that come near the fastest one, and the best of each path, are timed as part of the
model's graph, with everything else as it was chosen so far. What makes the graph fastest becomes
the class's row in `kernl/tuned`; one that gains nothing leaves it to the fastest by itself.

Classes go in the order of the time they take, each once. They start from the fastest by itself of
each class, or, where the graph takes less time so, from the fastest that is no library's call: one
such call in a chain of kernels that begin early keeps its neighbours from it, so that changing one
class at a time would not get there. Review the tables like code; `make freeze` follows.

Needs a GPU.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.measure import device
from benchmarks.measure.models import cases_named, models_named, name_cases
from benchmarks.model import Model, ModelCase
from kernl import tuning
from kernl.shapes import (
    BERT_BASE,
    DISTILBERT,
    GPT2,
    QWEN2_SMALL,
    ROBERTA_BASE,
    T5_BASE,
    TINY_LLAMA,
    WHISPER_BASE,
    ModelShape,
    Workload,
)
from kernl.tables import Row, Tunable, Value

if TYPE_CHECKING:
    from benchmarks.measure.candidates import Question
    from benchmarks.measure.model_calls import Weights
    from benchmarks.measure.model_measurement import Shelf
    from benchmarks.model import Sample

SHAPES: Mapping[str, ModelShape] = {
    "bert_base": BERT_BASE,
    "roberta_base": ROBERTA_BASE,
    "distilbert": DISTILBERT,
    "t5_base_encoder": T5_BASE,
    "whisper_base_encoder": WHISPER_BASE,
    "gpt2": GPT2,
    "tiny_llama": TINY_LLAMA,
    "qwen2": QWEN2_SMALL,
}
"""The models whose sizes `kernl.shapes` knows, so that an operator's cases are theirs."""

NEAR = 1.25
"""A candidate that takes so many times the fastest one's time by itself is tried no further."""
NEARER = 2.0
"""So much may the best of a path take: a library's call against a kernel of kernl's own."""
MOST_TRIED = 6
GAIN = 0.002
"""A part of the whole graph's time; less than that is noise."""
_REPLAYS = 40
LIBRARY_PATH = "library"

Config = tuple[Any, ...]
Class = tuple[str, tuple[tuple[str, Value], ...]]
"""A tunable's name, and a key of it."""


class Forced(NamedTuple):
    """A class, and the configuration that it is to have."""

    tunable: Tunable[Any]
    key: dict[str, Value]
    config: Config


class Choice(NamedTuple):
    """One class, what was chosen for it, and its seconds by itself."""

    tunable: Tunable[Any]
    key: dict[str, Value]
    config: Config
    seconds: float


def shortlist(seconds: Mapping[Config, float]) -> list[Config]:
    """What is worth a trial in the model, the fastest by itself first."""
    ordered = sorted(seconds, key=lambda config: seconds[config])
    fastest = seconds[ordered[0]]
    near = [config for config in ordered if seconds[config] <= NEAR * fastest]
    best: dict[str, Config] = {}
    for config in ordered:
        if isinstance(config[0], str) and seconds[config] <= NEARER * fastest:
            best.setdefault(config[0], config)
    return list(dict.fromkeys([ordered[0], *best.values(), *near]))[:MOST_TRIED]


def settle(configs: Sequence[Config], taken: Mapping[Config, float]) -> Config:
    """The fastest in the model; the first where no other gains anything. `taken`: seconds."""
    fastest = min(configs, key=lambda config: taken[config])
    return fastest if taken[fastest] < (1 - GAIN) * taken[configs[0]] else configs[0]


def by_itself(seconds: Mapping[Config, float]) -> Config:
    """The fastest by itself."""
    return min(seconds, key=lambda config: seconds[config])


def own(seconds: Mapping[Config, float]) -> Config:
    """The fastest by itself that is no library's call; the fastest of all where there is none."""
    ours = {config: taken for config, taken in seconds.items() if config[0] != LIBRARY_PATH}
    return by_itself(ours or seconds)


class InModel:
    """A model's rewritten graph for calls like one sample, to be captured again and again."""

    def __init__(self, weights: Weights, sample: Sample) -> None:
        import torch

        from kernl.optimize.copies import Shell
        from kernl.optimize.engine import Call, traced
        from kernl.optimize.options import Options
        from kernl.runtime.structure import key_of_call

        module = copy.deepcopy(weights.half)
        tensors: list[torch.Tensor] = []
        key_of_call((), sample.half, None, tensors)
        call = Call((), dict(sample.half), tensors)
        with torch.no_grad():
            self._graph, *_ = traced(Shell(module, module.forward), call, Options(), None)
        self._tensors = tensors

    def asked(self) -> Counter[Class]:
        """How often each class is asked for in a call."""
        import torch

        with tuning.asked() as asked, torch.no_grad():
            self._graph(*self._tensors)
        return Counter((tunable.name, tuple(key.items())) for tunable, key in asked)

    def times(self, ways: Sequence[Sequence[Forced]]) -> list[float]:
        """Seconds of the whole graph, each way some classes are forced, timed in turns."""
        import torch

        from kernl.runtime.runner import Arena, CudaGraph

        arena = Arena(self._tensors[0].device)
        captured: list[CudaGraph] = []
        for way in ways:
            with forcing(way):
                captured.append(CudaGraph(self._graph, self._tensors, arena))
        # A replay by itself writes to the outputs of the last call: they must live as long.
        outputs = [graph(self._tensors) for graph in captured]
        taken: list[list[float]] = [[] for _ in captured]
        for _ in range(_REPLAYS):
            for graph, each in zip(captured, taken, strict=True):
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                graph.graph.replay()  # each finds the caches as its own last call left them
                start.record()
                graph.graph.replay()
                end.record()
                end.synchronize()
                each.append(start.elapsed_time(end) / 1e3)
        del outputs
        return [statistics.median(each) for each in taken]


@contextmanager
def forcing(way: Iterable[Forced]) -> Iterator[None]:
    """Inside, these classes have these configurations; of one class the last counts."""
    with ExitStack() as stack:
        for one in way:
            stack.enter_context(tuning.forcing(one.tunable, one.config, one.key))
        yield


def classes_of(
    model: Model, case: ModelCase, asked: Mapping[Class, int], capability: int
) -> list[Question]:
    """The classes that this case asks for, each with a case of an operator that asks for it too.

    The operator of the class's own table comes before others that run its kernels.
    """
    from benchmarks.measure.candidates import questions
    from kernl.op import Case
    from kernl.ops import ALL

    shape = SHAPES[model.name]
    call = Workload(case.batch, shape.frames or case.seq)
    found: dict[Class, Question] = {}
    for op in ALL:
        cases = [Case.of("fp16", **dims) for dims in op.dims(shape, call)]
        for question in questions(op, cases, capability):
            name = (question.tunable.name, tuple(question.key.items()))
            if name in asked and (name not in found or question.tunable.name == op.name):
                found[name] = question
    return list(found.values())


def tune_case(
    in_model: InModel,
    classes: Sequence[Question],
    asked: Mapping[Class, int],
    timed: Callable[[Question], Mapping[Config, float]],
    say: Callable[[str], object],
) -> list[Choice]:
    """What to choose for each class.

    Args:
        in_model: the model.
        classes: what it asks for.
        asked: how often.
        timed: seconds of a class's candidates by themselves; empty where none is right.
        say: takes a line for each class.
    """
    alone = [(question.tunable, dict(question.key), timed(question)) for question in classes]
    for tunable, key, seconds in alone:
        if not seconds:
            say(f"{_spoken(tunable, key)}: no candidate is right")
    alone = [one for one in alone if one[2]]
    if not alone:
        return []
    alone.sort(key=lambda one: -asked[one[0].name, tuple(one[1].items())] * min(one[2].values()))
    starts = [
        [Forced(tunable, key, start(seconds)) for tunable, key, seconds in alone]
        for start in (by_itself, own)
    ]
    with_library, without = in_model.times(starts)
    chosen = starts[int(without < (1 - GAIN) * with_library)]
    say(
        f"{1e6 * with_library:.1f} µs of the model with the fastest of each class by itself, "
        f"{1e6 * without:.1f} µs without a library's calls"
    )
    choices: list[Choice] = []
    for place, (tunable, key, seconds) in enumerate(alone):
        first = chosen[place].config
        configs = list(dict.fromkeys([first, *shortlist(seconds)]))
        ways = [[*chosen, Forced(tunable, key, config)] for config in configs]
        taken = dict(zip(configs, in_model.times(ways), strict=True))
        config = settle(configs, taken)
        chosen[place] = Forced(tunable, key, config)
        choices.append(Choice(tunable, key, config, seconds[config]))
        say(
            f"{_spoken(tunable, key)}: {tuple(config)}, {1e6 * seconds[config]:.2f} µs by itself, "
            f"{1e6 * taken[config]:.1f} µs of the model; before {tuple(first)}, "
            f"{1e6 * seconds[first]:.2f} and {1e6 * taken[first]:.1f} µs; "
            f"{len(configs)} of {len(seconds)} tried"
        )
    return choices


def _spoken(tunable: Tunable[Any], key: Mapping[str, Value]) -> str:
    return f"{tunable.name}: {', '.join(f'{name}={value}' for name, value in key.items())}"


def write(choices: Iterable[Choice], capability: int, folder: Path) -> None:
    """Put the choices into their tables."""
    from benchmarks.tune import Table

    for choice in choices:
        row = Row(capability, choice.key, choice.config)
        Table(choice.tunable, folder).put(row, choice.seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Time and write; exits with 2 and a message where nothing fits or there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune_model", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    name_cases(parser)
    parser.add_argument("--tables", type=Path, default=tuning.TABLES, help="where the tables lie")
    options = parser.parse_args(arguments)
    models = models_named(parser, options.models)
    for model in models:
        if model.name not in SHAPES:
            parser.error(f"no sizes of {model.name} are known; allowed: {', '.join(SHAPES)}")
    chosen = [(model, case) for model in models for case in cases_named(model, options)]
    if not chosen:
        parser.error(f"no case of {', '.join(options.models)} matches {options.match!r}")
    if device.gpu() is None:
        parser.error("no NVIDIA GPU on this machine: there is nothing to time on")
    os.environ["KERNL_CACHE_DIR"] = ""  # what a user tuned must not pass for a default
    from benchmarks.measure.model_measurement import Shelf

    shelf = Shelf()
    try:
        for model, case in chosen:
            _tune(model, case, shelf, options.tables)
    except KeyboardInterrupt:
        print("tune_model: interrupted; cases that are done are kept", file=sys.stderr)
        return 130
    return 0


def _tune(model: Model, case: ModelCase, shelf: Shelf, folder: Path) -> None:
    import torch

    from benchmarks.measure.candidates import candidates, timed
    from benchmarks.measure.laboratory import Laboratory
    from benchmarks.tune import compile_classes
    from kernl import launch

    capability, lab = launch.capability(torch.device("cuda")), Laboratory("cuda")
    (sample,) = model.samples(case, [0], "cuda")
    in_model = InModel(shelf.weights(model, "cuda"), sample)
    asked = in_model.asked()
    classes = classes_of(model, case, asked, capability)
    compile_classes(classes, capability)

    def say(line: str) -> None:
        print(f"{model.name} {case.name} {line}", flush=True)

    def alone(question: Question) -> Mapping[Config, float]:
        return timed(question, lab, candidates(question, capability))[0]

    write(tune_case(in_model, classes, asked, alone, say), capability, folder)
    tuning.forget()


if __name__ == "__main__":
    sys.exit(main())
