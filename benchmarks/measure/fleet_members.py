"""The workers of a fleet, seen from its client: reach them, refuse unlike ones, miss lost ones.

All workers of a fleet are one machine to asv, so each has to be what the journal will say it is.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from benchmarks.measure.fleet_work import Identity, differences
from benchmarks.measure.progress import say

_LOOK_S = 1.0
_POLL_S = 0.2


class FleetError(Exception):
    """A fleet cannot measure; says what was seen, what is allowed and what to do.

    ├── NoDistributed   its engine is not installed
    ├── NoScheduler     nothing answers at the scheduler's address
    ├── NoWorkers       no worker has been there for too long
    └── UnlikeWorkers   workers differ from what they measure for, or share a GPU
    """


class NoDistributed(FleetError):
    """The package `distributed`, a fleet's engine, is not installed."""


class NoScheduler(FleetError):
    """No Dask scheduler answers at the address."""


class NoWorkers(FleetError):
    """The scheduler has had no worker that measures for too long."""


class UnlikeWorkers(FleetError):
    """Workers cannot stand under one machine's name: they differ, or share a GPU."""


def distributed() -> ModuleType:
    """The package. Raises NoDistributed."""
    try:
        import distributed
    except ImportError as error:
        raise NoDistributed(
            f"KERNL_FLEET names a Dask scheduler, and `distributed` cannot be imported here "
            f"({error}). Install it with `pip install 'kernl[fleet]'`, or in a checkout with "
            "`pip install -c constraints.txt distributed`; without KERNL_FLEET this machine "
            "measures by itself."
        ) from error
    return distributed


@contextmanager
def connected(scheduler: str, patience_s: float) -> Iterator[Any]:
    """A client of the scheduler until the block ends. Raises NoScheduler."""
    dask = distributed()
    try:
        client = dask.Client(scheduler, timeout=patience_s, set_as_default=False)
    except (OSError, ValueError) as error:
        raise NoScheduler(_unreachable(scheduler, f"{type(error).__name__}: {error}")) from error
    try:
        yield client
    finally:
        with suppress(Exception):
            client.close()


def lost(scheduler: str) -> NoScheduler:
    """The error where a scheduler that was there is gone."""
    return NoScheduler(_unreachable(scheduler, "it was there when the run began, and is gone"))


def admit(client: Any, commit: str, expected: Identity, patience_s: float) -> None:
    """Ask every worker who it is, once the first is there. Raises NoWorkers or UnlikeWorkers.

    Nothing is measured before all of them are what is expected.
    """
    roster = Roster(client, patience_s)
    while not roster.present:
        roster.look("nothing is measured yet")
        time.sleep(_POLL_S)

    from benchmarks.measure.fleet_worker import introduce

    answers = client.run(introduce, commit, on_error="return")
    still_there = client.nthreads()
    answers = {address: answer for address, answer in answers.items() if address in still_there}
    refused = refusals(answers, expected)
    if refused:
        raise UnlikeWorkers(
            "These Dask workers cannot measure here:\n  "
            + "\n  ".join(refused)
            + f"\nAllowed are workers of one kind ({expected.machine}) with the same driver, "
            "versions and code as the process that writes the journal, each with a GPU of its own. "
            "Stop those workers, or start them anew from a checkout and an environment like this "
            "one's; measure other hardware in a run of its own."
        )
    say(f"Dask workers that measure for {expected.machine}: {', '.join(sorted(answers))}")


def refusals(answers: Mapping[str, Any], expected: Identity) -> list[str]:
    """A line for each reason why a worker, by its address, cannot be taken.

    An answer is an `Identity`, or the error with which the worker could not say who it is.
    """
    said = []
    cards: dict[object, list[str]] = defaultdict(list)
    for address, answer in sorted(answers.items()):
        if isinstance(answer, Identity):
            said += [f"{address}: {word}" for word in differences(answer, expected)]
            if "gpu_id" in answer.fingerprint:
                cards[answer.fingerprint["gpu_id"]].append(address)
        else:
            said.append(f"{address}: cannot say who it is: {type(answer).__name__}: {answer}")
    for sharing in cards.values():
        if len(sharing) > 1:
            said.append(f"{', '.join(sharing)}: share one GPU; set CUDA_VISIBLE_DEVICES for each")
    return said


class Roster:
    """Which workers are there: says who comes and goes, and how long there has been none."""

    def __init__(self, client: Any, patience_s: float) -> None:
        self.present: frozenset[str] = frozenset()
        self._client = client
        self._patience_s = patience_s
        self._dismissed: dict[str, str] = {}
        self._seen_at = time.monotonic()
        self._looked_at = float("-inf")

    def dismiss(self, address: str, reason: str) -> None:
        """Send a worker away that cannot measure; its case goes to another."""
        if address in self._dismissed:
            return
        from benchmarks.measure.fleet_worker import leave

        self._dismissed[address] = reason
        say(f"the Dask worker {address} is sent away: {reason}")
        # Dask's own retiring is refused where no other worker is left to take the results over.
        self._client.run(leave, reason, workers=[address], wait=False, on_error="ignore")

    def look(self, standing: str) -> None:
        """Ask the scheduler, once a second. Raises NoWorkers, or NoScheduler where it is gone.

        `standing` says what is done so far.
        """
        now = time.monotonic()
        if now - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        try:
            present = frozenset(self._client.nthreads())
        except Exception as error:
            raise lost(self._address) from error
        for address in sorted(self.present - present - set(self._dismissed)):
            say(f"the Dask worker {address} is gone: its case goes to another")
        for address in sorted(present - self.present) if self.present else ():
            say(f"the Dask worker {address} has joined")
        self.present = present
        if present:
            self._seen_at = now
        elif now - self._seen_at > self._patience_s:
            raise NoWorkers(self._nobody(standing))

    @property
    def _address(self) -> str:
        return str(self._client.scheduler.address)

    def _nobody(self, standing: str) -> str:
        sent = "".join(f"\n  {who} was sent away: {why}" for who, why in self._dismissed.items())
        return (
            f"The Dask scheduler at {self._address} has had no worker for {self._patience_s:g} s; "
            f"{standing}.{sent}\nAllowed is one worker or more, each with one GPU. Start one, "
            "from a checkout of the same commit:\n"
            f"  CUDA_VISIBLE_DEVICES=0 python -m dask worker {self._address} --nthreads 1 "
            "--memory-limit 0\nThen run the same command again: it goes on where this one stopped."
        )


def _unreachable(scheduler: str, seen: str) -> str:
    return (
        f"No Dask scheduler answers at {scheduler!r}: {seen}. Allowed is the address of one that "
        "runs, such as tcp://host:8786. Start it with `python -m dask scheduler` from a checkout, "
        "and run the same command again: what is in the journal is not measured again."
    )
