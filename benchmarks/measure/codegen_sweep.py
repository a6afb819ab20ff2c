"""Compile the frozen cases of operators for every architecture, on all cores, resumably.

The compiler runs in worker processes: a crash inside it costs the point it was compiling. Each
point goes into the journal as it comes, so that a sweep killed half way finishes where it stopped;
the same commit compiled by the same toolchain is never compiled twice.
"""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.asv_file import METRICS as ALL_METRICS
from benchmarks.cases import NOT_SELECTED, Frozen, was_left_out
from benchmarks.measure.device import Fingerprint, fingerprint
from benchmarks.measure.journal import Journal, Record
from benchmarks.measure.lifetime import die_with_parent
from benchmarks.measure.points import write_point
from benchmarks.measure.progress import Progress

SUITE = "codegen"
TOOLCHAIN = ("triton", "ptxas")
"""Fingerprint keys that decide what the compiler makes of a kernel."""
METRICS = frozenset(ALL_METRICS[SUITE])
"""What a point has; one of an older suite may have less, and is compiled again."""


class Task(NamedTuple):
    """One point: an operator's case compiled for one architecture."""

    op: str
    case: str
    architecture: str
    dtype: str
    dims: tuple[tuple[str, int | bool | str], ...]


class Outcome(NamedTuple):
    """What became of one point: its status, why where it is not ok, and its metrics by name."""

    status: str
    reason: str
    values: dict[str, float]


def tasks(frozen: Frozen, op: str) -> list[Task]:
    """Every point of one operator."""
    return [
        Task(op, case, architecture, frozen.dtype(op, case), tuple(frozen.dims(op, case).items()))
        for case in frozen.codegen_cases(op)
        for architecture in frozen.architectures
    ]


def sweep(
    frozen: Frozen,
    ops: Sequence[str],
    journal: Journal,
    commit: str,
    machine: str,
    into: Path | None,
) -> None:
    """Put every point of `ops` into the journal and, as small files, into the directory `into`."""
    current = fingerprint(SUITE)
    known: list[tuple[Task, Record]] = []
    waiting: list[Task] = []
    left_out: list[Task] = []
    for op in ops:
        selected = frozen.selected_codegen_cases(op)
        measured = _measured(journal, op, current, frozen.version(op))
        for task in tasks(frozen, op):
            wanted = task.case in selected and task.architecture in frozen.selected_architectures()
            record = measured.get((task.case, task.architecture))
            if record is not None and not (wanted and was_left_out(record["reason"])):
                known.append((task, record))
            else:
                (waiting if wanted else left_out).append(task)
    if into is not None:
        for task, record in known:
            write_point(into, task.case, task.architecture, record)
    if not waiting and not left_out:
        return

    progress = Progress(len(waiting))
    run = journal.start_run(commit, machine, current)

    def settled() -> Iterator[tuple[Task, Outcome]]:
        yield from ((task, Outcome("skipped", NOT_SELECTED, {})) for task in left_out)
        if waiting:
            yield from compile_all(waiting)

    for task, outcome in settled():
        record = journal.append_point(
            run=run,
            suite=SUITE,
            op=task.op,
            case=task.case,
            variant=task.architecture,
            version=frozen.version(task.op),
            status=outcome.status,
            reason=outcome.reason,
            values=outcome.values,
        )
        if into is not None:
            write_point(into, task.case, task.architecture, record)
        if not was_left_out(outcome.reason):
            progress.step(f"{task.op} {task.case} {task.architecture}")


def _measured(
    journal: Journal, op: str, current: Fingerprint, version: int
) -> dict[tuple[str, str], dict[str, Any]]:
    """Points by (case, architecture) that this toolchain has compiled; failed ones are retried."""
    runs = journal.runs()

    def counts(point: dict[str, Any]) -> bool:
        then = runs.get(point["run"], {}).get("fingerprint", {})
        return (
            (point["suite"], point["op"], point["version"]) == (SUITE, op, version)
            and point["status"] != "failed"
            and (point["status"] != "ok" or point["values"].keys() >= METRICS)
            and all(then.get(key) == current.get(key) for key in TOOLCHAIN)
        )

    return {(p["case"], p["variant"]): p for p in journal.points() if counts(p)}


def compile_all(waiting: list[Task], workers: int | None = None) -> Iterator[tuple[Task, Outcome]]:
    """Compile tasks on `workers` processes (all cores where None), in the order they finish.

    When the compiler takes its process down, every point in flight is compiled again alone, so
    that the one at fault is known and the others keep their values.
    """
    left = dict.fromkeys(waiting)
    with _pool(workers or os.cpu_count() or 1) as pool:
        futures: dict[Future[Outcome], Task] = {
            pool.submit(compile_point, task): task for task in waiting
        }
        for future in as_completed(futures):
            task = futures[future]
            try:
                outcome = future.result()
            except BrokenProcessPool:
                continue
            del left[task]
            yield task, outcome
    for task in left:
        yield task, _compile_alone(task)


def _compile_alone(task: Task) -> Outcome:
    with _pool(1) as pool:
        try:
            return pool.submit(compile_point, task).result()
        except BrokenProcessPool:
            return Outcome("failed", "the compiler took its process down", {})


def _pool(workers: int) -> ProcessPoolExecutor:
    # Spawned, not forked: the interpreter that imports kernl must be free of threads.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start_compiler)


def _start_compiler() -> None:
    die_with_parent()
    os.environ.pop("TRITON_INTERPRET", None)


def compile_point(task: Task) -> Outcome:
    """Compile one point with the kernl that is importable here; every failure is told in words."""
    try:
        from benchmarks.measure import codegen
        from kernl.op import Case
        from kernl.ops import ALL
    except ImportError as error:
        return Outcome("skipped", f"today's suite cannot compile this commit: {error}", {})
    op = next((op for op in ALL if op.name == task.op), None)
    if op is None:
        return Outcome("skipped", f"this commit has no operator {task.op}", {})
    unknown = [name for name, _ in task.dims if name not in op.edges[0]]
    if unknown:
        return Outcome("skipped", f"this commit's {task.op} has no {', '.join(unknown)}", {})
    try:
        case = Case.of(task.dtype, **dict(task.dims))
        metrics = codegen.measure(op, case, task.architecture)
    except codegen.NotCompiled as error:
        return Outcome("skipped", str(error), {})
    except Exception as error:  # the compiler raises what it likes
        return Outcome("failed", f"{type(error).__name__}: {error}"[:2000], {})
    return Outcome("ok", "", codegen.as_values(metrics))
