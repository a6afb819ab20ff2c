"""What runs in a Dask worker of a fleet: who it is, and one case at a time on its GPU.

Each Dask worker keeps one measuring process (`benchmarks.measure.worker`) warm across cases. It is
started with the Dask worker's own environment, so CUDA_VISIBLE_DEVICES there says which GPU it
measures on. Dask's own processes alone import this: it needs `distributed`.
"""

from __future__ import annotations

import asyncio
import fcntl
import tempfile
import threading
from pathlib import Path
from typing import Any, TextIO

import dask
from distributed import WorkerPlugin, get_worker

from benchmarks.measure import device
from benchmarks.measure.fleet_work import Identity, Outcome, Refused, Work, differences, sources
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
    worker = get_worker()
    station: Station = worker.plugins.setdefault(STATION, Station(str(worker.address)))
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

    The first case makes it and it stays, so that two runs take turns in it. As one of the worker's
    plugins it hears of the worker's end. No client registers it with the scheduler: a worker that
    joins without this code would fail half-way into its start, and hold cases that it never runs.
    Handed a case, it stops at once.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._workshop = Workshop()
        self._token = ""
        self._card: TextIO | None = None

    def teardown(self, **_: Any) -> None:
        """The Dask worker ends, and its measuring process with it."""
        self._end()

    def release(self, token: str) -> None:
        """End the measuring process where it is that run's."""
        with self._lock:
            if token == self._token:
                self._end()

    def measure(self, work: Work, subject: Subject, case: SweepCase) -> Outcome:
        """Measure a case. Raises Refused where nothing can be measured here, whatever the reason.

        Another error would cost the case, and it is this worker that cannot go on.
        """
        with self._lock:
            try:
                if work.token != self._token:
                    self._begin(work)
                return self._outcome(self._measuring_of(work, subject), case)
            except Refused:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                raise Refused(self._address, reason) from error

    def _outcome(self, measuring: Measuring, case: SweepCase) -> Outcome:
        messages: list[Message] = []
        if measuring.given_up is None:
            measuring.measure(case, messages.append)
        if measuring.given_up is not None:
            raise Refused(self._address, measuring.given_up[1])
        fingerprint = {**measuring.figures, **self._identity.fingerprint}
        return Outcome(self._address, tuple(messages), fingerprint)

    def _begin(self, work: Work) -> None:
        """Another run: nothing of the last one's process, environment or faults is left.

        Raises Refused where this worker is not what that run expects.
        """
        self._end()
        code = _code(work.commit)
        self._identity = _identity(code)
        self._card = _taken_card(self._identity)
        said = differences(self._identity, work.expected)
        if self._card is None:
            said.append("another Dask worker measures on the same GPU: set CUDA_VISIBLE_DEVICES")
        if said:
            raise Refused(self._address, "; ".join(said))
        self._environment = measuring_environment(code)
        self._measuring: dict[tuple[str, str], Measuring] = {}
        self._suite = ""
        self._token = work.token

    def _end(self) -> None:
        self._workshop.stop()
        self._token = ""
        if self._card is not None:
            self._card.close()
            self._card = None

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


def measuring_environment(code: Path | None) -> dict[str, str]:
    """The measuring process's, as a sweep without a fleet would have it.

    Dask's nanny limits the threads of what it starts, and a local sweep's are not limited.
    """
    environment = worker_environment(code)
    limits = dask.config.get("distributed.nanny.pre-spawn-environ", {})
    for name, value in limits.items():
        if environment.get(name) == str(value):
            del environment[name]
    return environment


def _identity(code: Path | None) -> Identity:
    return Identity(device.machine_name(), device.fingerprint(), sources(code))


def _taken_card(identity: Identity) -> TextIO | None:
    """A lock on this machine's card, held until the file is closed; None where another has it."""
    card = identity.fingerprint.get("gpu_id", "none")
    path = Path(tempfile.gettempdir(), f"kernl-fleet-{card}.lock")
    file = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _code(commit: str) -> Path | None:
    """The directory of that commit's kernl, taken from this checkout's repository; None for ""."""
    if not commit:
        return None
    from asv.config import Config

    from benchmarks.worktree import extract_commit

    config = Config.load(str(ROOT / "asv.conf.json"))
    return extract_commit(ROOT, commit, ROOT / config.env_dir / "commits")
