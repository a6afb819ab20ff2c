"""What runs in a Dask worker of a fleet: who it is, and one case at a time on its GPU.

Each Dask worker keeps one measuring process (`benchmarks.measure.worker`) warm across cases. It is
started with the Dask worker's own environment, so CUDA_VISIBLE_DEVICES there says which GPU it
measures on. Dask's own processes alone import this: it needs `distributed`.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import dask
from distributed import WorkerPlugin, get_worker

from benchmarks.measure import device
from benchmarks.measure.fleet_work import Identity, Outcome, Work, differences, sources
from benchmarks.measure.measuring import (
    ROOT,
    Measuring,
    Subject,
    SweepCase,
    Workshop,
    worker_command,
    worker_environment,
)
from benchmarks.measure.process import Message

STATION = "kernl-station"


async def introduce(commit: str) -> Identity:
    """Who this Dask worker is. Raises CommitUnavailable where it cannot have the commit's kernl."""
    # The driver takes seconds to answer, and the worker's heartbeat must not wait for it.
    return await asyncio.to_thread(lambda: _identity(_code(commit)))


def measure_case(work: Work, subject: Subject, case: SweepCase) -> Outcome:
    """The Dask task: one case in all its implementations, side by side in this worker."""
    station: Station = get_worker().plugins[STATION]
    return station.measure(work, subject, case)


async def release(token: str, dask_worker: Any = None) -> None:
    """End the measuring process of a run that is over."""
    station: Station | None = dask_worker.plugins.get(STATION)
    if station is not None:
        await asyncio.to_thread(station.release, token)


async def leave(reason: str, dask_worker: Any = None) -> None:
    """End this Dask worker, and the nanny that would start it again."""
    await dask_worker.close(nanny=True, reason=reason)


class Station(WorkerPlugin):
    """The one place of a Dask worker where cases are measured.

    A run registers it; one that is there already stays, so that two runs take turns in it.
    """

    idempotent = True

    def setup(self, worker: Any) -> None:
        """Called by Dask in the worker: what a client sends is empty."""
        self._address = str(worker.address)
        self._lock = threading.Lock()
        self._workshop = Workshop()
        self._token = ""

    def teardown(self, worker: Any) -> None:  # noqa: ARG002 (Dask calls it with the worker)
        """The Dask worker ends, and its measuring process with it."""
        self._workshop.stop()

    def release(self, token: str) -> None:
        """End the measuring process where it is that run's."""
        with self._lock:
            if token == self._token:
                self._workshop.stop()
                self._token = ""

    def measure(self, work: Work, subject: Subject, case: SweepCase) -> Outcome:
        """Measure a case, or say why nothing can be measured here."""
        with self._lock:
            try:
                if work.token != self._token:
                    self._begin(work)
                return self._outcome(work, subject, case)
            except Exception as error:
                # Raised, it would cost the case; it is this worker that cannot go on.
                self._refusal = f"{type(error).__name__}: {error}"
                return Outcome(self._address, refusal=self._refusal)

    def _outcome(self, work: Work, subject: Subject, case: SweepCase) -> Outcome:
        messages: list[Message] = []
        if not self._refusal:
            measuring = self._measuring_of(work, subject)
            measuring.measure(case, messages.append)
            if measuring.given_up is not None:
                self._refusal = measuring.given_up[1]
        if self._refusal:
            return Outcome(self._address, refusal=self._refusal)
        fingerprint = {**measuring.figures, **self._identity.fingerprint}
        return Outcome(self._address, tuple(messages), fingerprint)

    def _begin(self, work: Work) -> None:
        """Another run: nothing of the last one's process, environment or faults is left."""
        self._workshop.stop()
        code = _code(work.commit)
        self._identity = _identity(code)
        self._refusal = "; ".join(differences(self._identity, work.expected))
        self._environment = _environment(code)
        self._measuring: dict[tuple[str, str], Measuring] = {}
        self._suite = ""
        self._token = work.token

    def _measuring_of(self, work: Work, subject: Subject) -> Measuring:
        if subject.suite != self._suite:
            # A measuring process serves one suite alone.
            self._workshop.stop()
            self._suite = subject.suite
        key = (subject.suite, subject.op)
        if key not in self._measuring:
            command = work.command or worker_command(work.settings.device, subject.suite)
            self._measuring[key] = Measuring(
                subject, work.settings, command, self._environment, self._workshop
            )
        return self._measuring[key]


def _identity(code: Path | None) -> Identity:
    return Identity(device.machine_name(), device.fingerprint(), sources(code))


def _code(commit: str) -> Path | None:
    """The directory of that commit's kernl, taken from this checkout's repository; None for ""."""
    if not commit:
        return None
    from asv.config import Config

    from benchmarks.worktree import extract_commit

    config = Config.load(str(ROOT / "asv.conf.json"))
    return extract_commit(ROOT, commit, ROOT / config.env_dir / "commits")


def _environment(code: Path | None) -> dict[str, str]:
    """The measuring process's, as a sweep without a fleet would have it.

    Dask's nanny limits the threads of what it starts, and a local sweep's are not limited.
    """
    environment = worker_environment(code)
    limits = dask.config.get("distributed.nanny.pre-spawn-environ", {})
    for name, value in limits.items():
        if environment.get(name) == str(value):
            del environment[name]
    return environment
