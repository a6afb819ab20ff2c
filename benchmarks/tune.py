"""Write the tables of configurations, `kernl/tuned/NAME.csv`, from times on this machine's GPU.

    python -m benchmarks.tune                    every operator that lets something be tuned
    python -m benchmarks.tune linear softmax     these operators
    python -m benchmarks.tune linear --match 'm1_*' --match 'm8_*'    these cases of it
    python -m benchmarks.tune linear --check     write nothing: is a library's call ever faster?
    python -m benchmarks.tune --untimed          which classes take another one's row; needs no GPU
    python -m benchmarks.tune --model bert-base-uncased --call 8x256    what such calls ask for

Each class of shapes of an operator's cases is timed in every candidate configuration; the fastest
right one becomes a row. Rows of other architectures and of classes not timed are kept. A table is
written anew after each operator's class, so an interrupted run keeps what it has; `--continue`
passes over the classes that have a row for this architecture. Review the change like code.

The suite measures every model in a few calls; `--model` and `--call` (batch x tokens) name others,
whose classes are timed instead of the suite's.

Where an operator runs another one's kernels, as linear_layer_norm does linear's, the other's rows
stay: they were timed by themselves. Its classes that have no row get one.
"""

import argparse
import csv
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from benchmarks.freeze import ARCHITECTURES, signature
from benchmarks.measure.candidates import (
    Question,
    answer,
    beside_the_library,
    candidates,
    questions,
    run_once,
)
from benchmarks.measure.lifetime import die_with_parent
from kernl import tuning
from kernl.op import Case, Op
from kernl.ops import ALL
from kernl.shapes import MODELS, ModelShape, Workload
from kernl.tables import Key, Row, Tunable

MOST_PROCESSES = 14
_NOISE = 0.03
"""A choice that takes so much longer than the library's call has lost."""
_FP32_FLOPS = 2e10
"""Model shapes up to this many operations are tuned in float32 too."""


def cases_to_tune(
    op: Op,
    half_only: bool = False,
    match: Sequence[str] = ("*",),
    calls: Sequence[tuple[ModelShape, Workload]] = (),
) -> list[Case]:
    """Every case, and the models' smaller ones in float32, which share no class with fp16.

    `match` are patterns of the cases' names, as the shell writes them. Where there are `calls`,
    their cases take the place of the suite's.
    """
    called = (Case.of("fp16", **dims) for call in calls for dims in op.dims(*call))
    unique = {case.name: case for case in (called if calls else op.cases())}
    named = (case for case in unique.values() if any(fnmatchcase(case.name, one) for one in match))
    halves = [case for case in named if case.dtype == "fp16"]
    if half_only:
        return halves
    floats = [Case(case.dims, "fp32") for case in halves if op.flops(case) <= _FP32_FLOPS]
    return [*halves, *floats]


class Table:
    """One operator's table on disk, in the order of its columns."""

    def __init__(self, tunable: Tunable[Any], folder: Path) -> None:
        self._tunable = tunable
        self._path = folder / f"{tunable.name}.csv"
        self._columns = ("architecture", *tunable.key_names, *tunable.fields, "microseconds")
        self._rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        if self._path.exists():
            with self._path.open(newline="", encoding="utf-8") as file:
                for line in csv.DictReader(file):
                    self._rows[self._place(line)] = line

    def _place(self, line: dict[str, Any]) -> tuple[Any, ...]:
        values = (str(line[name]) for name in ("architecture", *self._tunable.key_names))
        return tuple(int(v) if v.lstrip("-").isdigit() else v for v in values)

    def has(self, architecture: int, key: Key) -> bool:
        """Whether this class has a row."""
        return self._place({"architecture": architecture, **key}) in self._rows

    def put(self, row: Row, seconds: float) -> None:
        """Add or replace one row, and write the file whole."""
        config = dict(zip(self._tunable.fields, row.config, strict=True))
        line = {
            "architecture": row.architecture,
            **row.key,
            **config,
            "microseconds": f"{1e6 * seconds:.2f}",
        }
        self._rows[self._place(line)] = line
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".tmp")
        with draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows[place] for place in sorted(self._rows, key=_order))
        draft.replace(self._path)


def _order(place: tuple[Any, ...]) -> tuple[Any, ...]:
    """Numbers by size, words by letter, side by side."""
    return tuple((isinstance(part, str), part) for part in place)


def tune(op: Op, cases: Sequence[Case], folder: Path, skip_known: bool, limit: int | None) -> int:
    """Time the classes that `cases` of one operator ask for; returns how many were timed."""
    import torch

    from benchmarks.measure.laboratory import Laboratory
    from kernl import launch

    capability = launch.capability(torch.device("cuda"))
    asked = questions(op, cases, capability)
    tables = {q.tunable.name: Table(q.tunable, folder) for q in asked}
    asked = classes_to_time(op, asked, tables, capability, skip_known)[:limit]
    if not asked:
        return 0
    compile_classes(asked, capability)
    lab = Laboratory("cuda")
    start = time.monotonic()
    for number, question in enumerate(asked, 1):
        found = answer(question, capability, lab)
        words = _words(question)
        if found is None:
            print(f"{op.name} {number}/{len(asked)}: {words}: no candidate is right", flush=True)
            continue
        row = Row(capability, question.key, found.config)
        tables[question.tunable.name].put(row, found.seconds)
        gain = f"{found.before / found.seconds:.2f}×" if found.before else "new"
        left = (time.monotonic() - start) / number * (len(asked) - number)
        print(
            f"{op.name} {number}/{len(asked)}, {left:.0f} s left: {words}: "
            f"{1e6 * found.seconds:.2f} µs ({gain}) by {tuple(found.config)}, "
            f"{found.tried} timed, {found.failed} failed",
            flush=True,
        )
        for reason in found.reasons[:2]:
            print(f"    {reason[:200]}", flush=True)
    return len(asked)


def check(op: Op, cases: Sequence[Case]) -> list[str]:
    """Time what each class takes today beside the library's call; returns the losses, in words."""
    import torch

    from benchmarks.measure.laboratory import Laboratory
    from kernl import launch

    capability = launch.capability(torch.device("cuda"))
    lab = Laboratory("cuda")
    asked = [q for q in questions(op, cases, capability) if q.tunable.name == op.name]
    losses, slowest, own = [], 1.0, 0
    for number, question in enumerate(asked, 1):
        configs = beside_the_library(question, capability)
        if len(configs) < 2:
            continue
        found = answer(question, capability, lab, configs)
        words = _words(question)
        if found is None or not found.before:
            losses.append(f"{words}: not timed: {'; '.join(found.reasons) if found else 'wrong'}")
            continue
        own += 1
        ratio = found.before / found.seconds
        slowest = max(slowest, ratio)
        line = f"{words}: {1e6 * found.before:.2f} µs, {ratio:.3f} of the faster one"
        print(f"{op.name} {number}/{len(asked)}: {line}", flush=True)
        if ratio > 1 + _NOISE:
            losses.append(line)
    print(
        f"{op.name}: {len(asked)} classes, {own} of them by a kernel of its own; beside the "
        f"library's call {len(losses)} are slower by more than {_NOISE:.0%}, the worst takes "
        f"{slowest:.3f} times as long"
    )
    return losses


def classes_to_time(
    op: Op,
    asked: Sequence[Question],
    tables: Mapping[str, Table],
    capability: int,
    skip_known: bool,
) -> list[Question]:
    """All classes of the operator's own table; of others' tables those that have no row."""
    return [
        question
        for question in asked
        if not tables[question.tunable.name].has(capability, question.key)
        or (question.tunable.name == op.name and not skip_known)
    ]


def untimed(op: Op, cases: Sequence[Case], capability: int, folder: Path) -> list[str]:
    """Name the classes of the operator's own table that have no row; the last line counts them.

    Empty for an operator that lets nothing be tuned.
    """
    asked = [q for q in questions(op, cases, capability) if q.tunable.name == op.name]
    if not asked:
        return []
    table = Table(asked[0].tunable, folder)
    left = [q for q in asked if not table.has(capability, q.key)]
    lines = [f"{op.name}: {_words(q)} ({q.case.name})" for q in left]
    count = f"{len(left)} of {len(asked)} classes have no row for sm_{capability}"
    return [*lines, f"{op.name}: {count}"]


def _words(question: Question) -> str:
    return ", ".join(f"{name}={value}" for name, value in question.key.items())


def compile_classes(classes: Sequence[Question], capability: int) -> None:
    """Run every candidate once on many processes: compiled kernels stay in Triton's cache."""
    processes = min(MOST_PROCESSES, (os.cpu_count() or 2) - 1, len(classes))
    if processes < 2:
        return
    start = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin) as pool:
        jobs = [(q.op.name, q.case, q.tunable.name, dict(q.key), capability) for q in classes]
        done = sum(pool.map(_compile_class, jobs, chunksize=1))
    names = ", ".join(dict.fromkeys(q.op.name for q in classes))
    print(f"{names}: {done} kernels compiled in {time.monotonic() - start:.0f} s", flush=True)


def _begin() -> None:
    """A worker leaves an interrupt to the process that started it, and ends with that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()


_compiled: set[tuple[Any, ...]] = set()


def _compile_class(job: tuple[str, Case, str, dict[str, Any], int]) -> int:
    """In a worker: run what has not run here yet, by the signature of its launches."""
    name, case, tunable, key, capability = job
    op = next(one for one in ALL if one.name == name)
    count = 0
    for question in questions(op, [case], capability):
        if (question.tunable.name, question.key) != (tunable, key):
            continue
        for config in candidates(question, capability):
            try:
                with tuning.forcing(question.tunable, config):
                    plan = op.plan_on_meta(case, capability)
                signatures = tuple(signature(launch) for launch in plan.kernels)
                if signatures and signatures not in _compiled:
                    run_once(question, config, "cuda")
                    count += 1
                    _compiled.add(signatures)
            except Exception:  # the timing meets it again, and says why
                continue
    return count


def main(argv: Sequence[str] | None = None) -> int:
    """Tune the operators named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("ops", nargs="*", metavar="OP", help="operators; all unless named")
    parser.add_argument("--tables", type=Path, default=tuning.TABLES, help="where the tables lie")
    parser.add_argument("--continue", action="store_true", dest="skip", help="only missing rows")
    parser.add_argument("--limit", type=int, help="at most so many classes of each operator")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--check",
        action="store_true",
        help="write nothing: time what is chosen beside the library's call; exits with 1 on a loss",
    )
    instead.add_argument(
        "--untimed",
        action="store_true",
        help="time nothing: name the classes without a row of their own; needs no GPU",
    )
    parser.add_argument(
        "--architecture",
        choices=ARCHITECTURES,
        default="sm_90",
        help="for --untimed: whose rows (%(default)s)",
    )
    parser.add_argument("--half-only", action="store_true", help="no classes of float32")
    parser.add_argument(
        "--match",
        action="append",
        metavar="CASE",
        help="only the classes of cases with such names, as `m1_*`; may be given again",
    )
    parser.add_argument(
        "--model", action="append", metavar="NAME", help="a model of kernl.shapes; with --call"
    )
    parser.add_argument(
        "--call", action="append", type=_call, metavar="BATCHxTOKENS", help="such as 8x256"
    )
    options = parser.parse_args(argv)
    chosen = _named(options.ops, parser)
    if bool(options.model) != bool(options.call):
        parser.error("--model and --call go together: --model bert-base-uncased --call 8x256")
    models = [_model(name, parser) for name in options.model or ()]
    calls = [(model, call) for model in models for call in options.call]
    selected = [
        (op, cases_to_tune(op, options.half_only, options.match or ["*"], calls)) for op in chosen
    ]

    if options.untimed:
        for op, cases in selected:
            capability = int(options.architecture.removeprefix("sm_"))
            for line in untimed(op, cases, capability, options.tables):
                print(line, flush=True)
        return 0

    import torch

    if not torch.cuda.is_available():
        print("tune: no NVIDIA GPU answers here: there is nothing to time on", file=sys.stderr)
        return 2
    os.environ["KERNL_CACHE_DIR"] = ""  # what a user tuned must not pass for a default
    lost: list[str] = []
    try:
        for op, cases in selected:
            if options.check:
                lost += check(op, cases)
            else:
                tune(op, cases, options.tables, options.skip, options.limit)
    except KeyboardInterrupt:
        print("tune: interrupted; what was timed is kept, --continue goes on", file=sys.stderr)
        return 130
    for line in lost:
        print(f"slower than the library: {line}", file=sys.stderr)
    return 1 if lost else 0


def _call(text: str) -> Workload:
    sizes = text.split("x")
    if len(sizes) != 2 or not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} is no call; allowed: such as 8x256")
    return Workload(*map(int, sizes))


def _model(name: str, parser: argparse.ArgumentParser) -> ModelShape:
    known = {model.name: model for model in MODELS}
    if name not in known:
        parser.error(f"no model {name!r}; allowed: {', '.join(known)}")
    return known[name]


def _named(names: Iterable[str], parser: argparse.ArgumentParser) -> list[Op]:
    known = {op.name: op for op in ALL}
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"no operator {', '.join(unknown)}; allowed: {', '.join(known)}")
    return [known[name] for name in names] or list(ALL)


if __name__ == "__main__":
    sys.exit(main())
