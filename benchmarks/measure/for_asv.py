"""What the suite's `setup_cache` calls: one op measured in the commit that asv has checked out.

An op is an operator, in the suite `kernels`, or a model, in the suite `models`.

The environment plugin says what to measure and where to write, by KERNL_COMMIT, KERNL_CODE,
KERNL_RESULTS and KERNL_ENV_NAME. Without them (asv's `existing` environment) this checkout is
measured, and the journal lies beside the points in asv's own cache directory.

asv gives each operator a process of its own. Run before it, `measure_commits` measures many by
workers that share the device, and asv's processes then find every point in the journal. Where
KERNL_FLEET names a Dask scheduler, what waits is measured by its workers (`fleet`) and not by this
machine. What a run leaves out is written nowhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import cases as frozen_cases
from benchmarks.measure import device, fleet, resume
from benchmarks.measure.device import Fingerprint
from benchmarks.measure.journal import Journal, Record, journal_path, read
from benchmarks.measure.lifetime import die_with_parent
from benchmarks.measure.measuring import (
    SUITE,
    Lot,
    Settings,
    Subject,
    SweepCase,
    worker_environment,
)
from benchmarks.measure.points import write_point
from benchmarks.measure.pool import Batch, measure_batches
from benchmarks.measure.progress import say

MODELS = Settings(
    budget_s=0.5,
    case_timeout_s=1200.0,
    faults_in_a_row=3,
    tell_stages=True,
    workers=6,
    cases_a_worker=1,
    case_bytes=10 << 30,
)
"""Compiling a model, and timing all that may compute its products, takes minutes; what is compiled
of it holds gigabytes until it is timed."""


@dataclass(frozen=True)
class Checkout:
    """A commit that is measured, the directory of its `kernl/`, and where its results go.

    Without a commit it is this checkout; its journal then lies beside the points.
    """

    commit: str = ""
    code: Path | None = None
    results: Path | None = None
    environment: str = ""

    @classmethod
    def of_asv(cls) -> Checkout:
        """What asv has checked out, by what the environment plugin says."""
        code, results = (os.environ.get(name) for name in ("KERNL_CODE", "KERNL_RESULTS"))
        return cls(
            os.environ.get("KERNL_COMMIT", ""),
            Path(code) if code else None,
            Path(results) if results else None,
            os.environ.get("KERNL_ENV_NAME", ""),
        )


@dataclass(frozen=True)
class _Prepared:
    """One op before it is measured: in what, where to, and what is known already."""

    subject: Subject
    cases: Sequence[SweepCase]
    path: Path
    reuse: Mapping[str, list[Record]]

    @property
    def waiting(self) -> list[SweepCase]:
        return [case for case in self.cases if case.selected and case.name not in self.reuse]


def measure_op(op: str, directory: Path, suite: str = SUITE) -> str:
    """Measure the frozen cases of `op`; each point becomes a file under `directory`.

    Returns why nothing was measured, in words, or an empty string. Points of a run that was killed
    are taken from the journal; those that asv has saved already are measured again.
    """
    die_with_parent()
    here = device.fingerprint(suite)
    if "gpu" not in here:
        return no_gpu(suite)
    checkout = Checkout.of_asv()
    prepared = _prepare(op, directory, here, checkout)
    if prepared.waiting:
        _measure({checkout: {suite: [prepared]}})
        prepared = _prepare(op, directory, here, checkout)
    for points in prepared.reuse.values():
        for point in points:
            write_point(directory, point["case"], point["variant"], point)
    return ""


def measure_commits(asked: Mapping[Checkout, Mapping[str, Sequence[str]]], directory: Path) -> str:
    """Measure ops of each suite, of each commit, by workers that share the device.

    Their points go into the commits' journals. Returns why nothing was measured, in words, or an
    empty string.
    """
    here = device.fingerprint()
    suites = dict.fromkeys(suite for ops in asked.values() for suite in ops)
    if suites and "gpu" not in here:
        return no_gpu(" and ".join(suites))
    waiting: dict[Checkout, dict[str, list[_Prepared]]] = {}
    for checkout, by_suite in asked.items():
        for suite, ops in by_suite.items():
            prepared = [_prepare(op, directory, {**here, "suite": suite}, checkout) for op in ops]
            if found := [one for one in prepared if one.waiting]:
                waiting.setdefault(checkout, {})[suite] = found
    if waiting:
        _measure(waiting)
    return ""


def _measure(waiting: Mapping[Checkout, Mapping[str, Sequence[_Prepared]]]) -> None:
    """What waits of each commit and suite, here or by KERNL_FLEET. Raises FleetError."""
    address = fleet.scheduler_address()
    with ExitStack() as stack:
        batches: list[Batch] = []
        journals: list[Journal] = []
        for checkout, by_suite in waiting.items():
            (path,) = {one.path for prepared in by_suite.values() for one in prepared}
            journals.append(stack.enter_context(Journal(path)))
            for suite, prepared in by_suite.items():
                lots = [Lot(one.subject, one.waiting) for one in prepared]
                environment = worker_environment(checkout.code)
                batch = Batch(lots, settings_of(suite), journals[-1], environment)
                if address:
                    _by_fleet(address, batch, checkout)
                else:
                    batches.append(batch)
        if batches:
            measure_batches(batches)
        for journal in journals:
            for problem in journal.compact():
                say(problem)


def _by_fleet(address: str, batch: Batch, checkout: Checkout) -> None:
    fleet.measure(
        address,
        batch.lots,
        batch.journal,
        settings=batch.settings,
        commit=checkout.commit if checkout.code else "",
        code=checkout.code,
    )


def no_gpu(suite: str) -> str:
    """Why nothing of this suite is measured without a GPU."""
    return f"no NVIDIA GPU on this machine: {suite} are timed on a GPU alone"


def settings_of(suite: str) -> Settings:
    """How a suite's cases are measured, in every profile."""
    return Settings() if suite == SUITE else MODELS


def _prepare(op: str, directory: Path, here: Fingerprint, checkout: Checkout) -> _Prepared:
    subject = _subject(op, here, checkout.commit)
    path = directory / "points.jsonl"
    saved = None
    if checkout.results and checkout.commit:
        path = journal_path(
            checkout.results, subject.machine, checkout.commit, checkout.environment
        )
        asv_result = path.with_name(path.name.removesuffix(".points.jsonl") + ".json")
        saved = resume.saved_at(asv_result, subject.machine, subject.suite, op)
    op_cases = _cases(op)
    reusable = partial(
        resume.reusable,
        read(path)[0],
        suite=subject.suite,
        op=op,
        version=subject.version,
        variants=subject.implementations,
        commit=subject.commit,
        fingerprint=subject.fingerprint,
    )
    # What is left out now keeps what an earlier run found, in whichever implementations that was.
    left_out = {case.name for case in op_cases if not case.selected}
    found = reusable(after=None, left_out=subject.implementations)
    earlier = {name: points for name, points in found.items() if name in left_out}
    again = reusable(after=saved, left_out=subject.left_out)
    return _Prepared(subject, op_cases, path, {**again, **earlier})


def _subject(op: str, here: Fingerprint, commit: str) -> Subject:
    frozen = frozen_cases.load()
    return Subject(
        op=op,
        version=frozen.version(op),
        commit=commit,
        machine=device.machine_named(here),
        implementations=frozen.implementations(op),
        fingerprint=here,
        suite=str(here["suite"]),
        left_out=frozenset(frozen.implementations(op)) - frozen.selected_implementations(op),
    )


def _cases(op: str) -> list[SweepCase]:
    frozen = frozen_cases.load()
    selected = frozen.selected_kernel_cases(op)

    def bytes_of(name: str) -> int:
        cost = frozen.cost(op, name)
        return cost.bytes if cost is not None else 0

    return [
        SweepCase(
            name,
            frozen.dims(op, name),
            frozen.dtype(op, name),
            selected=name in selected,
            bytes=bytes_of(name),
        )
        for name in frozen.kernel_cases(op)
    ]
