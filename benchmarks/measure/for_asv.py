"""What the suite's `setup_cache` calls: one op swept in the commit that asv has checked out.

The environment plugin says what to measure and where to write, by KERNL_COMMIT, KERNL_CODE,
KERNL_RESULTS and KERNL_ENV_NAME. Without them (asv's `existing` environment) this checkout is
measured, and the journal lies beside the points in asv's own cache directory.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from benchmarks import cases as frozen_cases
from benchmarks.measure import device, resume
from benchmarks.measure.compile_ahead import compile_ahead, tasks
from benchmarks.measure.journal import Journal, journal_path, read
from benchmarks.measure.lifetime import die_with_parent
from benchmarks.measure.points import write_point
from benchmarks.measure.sweep import (
    SUITE,
    Settings,
    Subject,
    SweepCase,
    sweep,
    worker_environment,
)

NO_GPU = "no NVIDIA GPU on this machine: kernels are timed on a GPU alone"


def measure_op(op: str, directory: Path, settings: Settings | None = None) -> str:
    """Sweep all frozen cases of `op`; each point becomes a file under `directory`.

    Returns why nothing was measured, in words, or an empty string. Points of a sweep that was
    killed are taken from the journal; those that asv has saved already are measured again.
    """
    die_with_parent()
    settings = settings or Settings()
    if settings.device == "cuda" and device.gpu() is None:
        return NO_GPU
    subject = _subject(op)
    environment = os.environ.get("KERNL_ENV_NAME", "")
    results = os.environ.get("KERNL_RESULTS")
    path = directory / "points.jsonl"
    saved = None
    if results and subject.commit:
        path = journal_path(Path(results), subject.machine, subject.commit, environment)
        asv_result = path.with_name(path.name.removesuffix(".points.jsonl") + ".json")
        saved = resume.saved_at(asv_result, subject.machine, SUITE, op)
    code = os.environ.get("KERNL_CODE")
    worker = worker_environment(Path(code) if code else None)
    op_cases = _cases(op)
    with Journal(path) as journal:
        reusable = partial(
            resume.reusable,
            read(path)[0],
            suite=SUITE,
            op=op,
            version=subject.version,
            variants=subject.implementations,
            commit=subject.commit,
            fingerprint=subject.fingerprint,
        )
        # What is left out now keeps what an earlier, larger run found.
        left_out = {case.name for case in op_cases if not case.selected}
        earlier = {
            name: points for name, points in reusable(after=None).items() if name in left_out
        }
        reuse = {**earlier, **reusable(after=saved)}
        if settings.device == "cuda":
            waiting = [case for case in op_cases if case.selected and case.name not in reuse]
            compile_ahead(op, tasks(waiting), worker)
        points = sweep(
            subject, op_cases, journal, settings=settings, reuse=reuse, environment=worker
        )
        journal.compact()
    for point in points:
        write_point(directory, point["case"], point["variant"], point)
    return ""


def _subject(op: str) -> Subject:
    frozen = frozen_cases.load()
    return Subject(
        op=op,
        version=frozen.version(op),
        commit=os.environ.get("KERNL_COMMIT", ""),
        machine=device.machine_name(),
        implementations=frozen.implementations(op),
        fingerprint=device.fingerprint(SUITE),
    )


def _cases(op: str) -> list[SweepCase]:
    frozen = frozen_cases.load()
    selected = frozen.selected_kernel_cases(op)
    return [
        SweepCase(name, frozen.dims(op, name), frozen.dtype(op, name), name in selected)
        for name in frozen.kernel_cases(op)
    ]
