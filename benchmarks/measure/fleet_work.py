"""What a fleet's client and its workers say to each other; needs the standard library alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure.device import IDENTITY, Fingerprint, same_device
from benchmarks.measure.measuring import ROOT, Settings
from benchmarks.measure.process import Message

_ALIKE = (*IDENTITY, "transformers")
"""Times of models are compared only where transformers is the same too."""
_KINDS = (".csv", ".json", ".py", ".toml")
_WRITTEN = ("__pycache__", "results")


@dataclass(frozen=True)
class Identity:
    """Who measures: asv's name of the machine, its fingerprint, the digest of its code."""

    machine: str
    fingerprint: Fingerprint
    sources: str


@dataclass(frozen=True)
class Work:
    """What the cases of one run of a fleet share.

    Attributes:
        token: the run's own, by which a worker tells it from another run.
        commit: whose kernl is measured; "" for the one that stands in each worker's checkout.
        expected: who a worker has to be.
        command: the measuring process's command line, empty for the real one.
    """

    token: str
    commit: str
    settings: Settings
    expected: Identity
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """The points of a case, and the fingerprint and address of the Dask worker they come from."""

    address: str
    messages: tuple[Message, ...]
    fingerprint: Fingerprint


class Refused(Exception):
    """This Dask worker measures nothing: its address, and why in words.

    It is raised, for a result would have to be kept alive on the very worker that goes.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason


def differences(found: Identity, expected: Identity) -> list[str]:
    """In words, what keeps the two from measuring for one machine entry; empty where nothing does.

    That is the machine's name, what `device.same_device` compares, transformers and the code.
    """
    said = []
    if found.machine != expected.machine:
        said.append(f"machine is {found.machine}, not {expected.machine}")
    here, there = found.fingerprint, expected.fingerprint
    if not same_device(here, there) or here.get("transformers") != there.get("transformers"):
        said += [
            f"{key} is {here.get(key, 'absent')}, not {there.get(key, 'absent')}"
            for key in _ALIKE
            if here.get(key) != there.get(key)
        ]
    if found.sources != expected.sources:
        said.append(
            f"the sources of benchmarks/ and kernl/ differ (digest {found.sources}, "
            f"not {expected.sources})"
        )
    return said


def sources(code: Path | None) -> str:
    """Digest of the code that measures and is measured, 12 hexadecimal digits.

    `code` holds the `kernl/` to be measured, None for this checkout's; benchmarks are this
    checkout's. Results and caches do not count.
    """
    found = hashlib.sha256()
    for tree in (ROOT / "benchmarks", (code or ROOT) / "kernl"):
        for path in sorted(tree.rglob("*")):
            part = path.relative_to(tree)
            if path.suffix in _KINDS and not set(part.parts) & set(_WRITTEN):
                found.update(f"{tree.name}/{part.as_posix()}\0".encode())
                found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:12]
