"""Reads the journals beside asv's result files into what the store joins to them.

A journal keeps what asv's format has no place for: why a case failed, its error against the
reference, the samples, and the machine's fingerprint (see `benchmarks.measure.journal`).
"""

import datetime
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.asv_file import (
    MAX_BYTES,
    NAN,
    Floats,
    ResultFileError,
    is_commit,
    is_number,
    to_samples,
)
from benchmarks.measure import journal, packed
from benchmarks.measure.journal import Record

SUFFIX = ".points.jsonl"
SUFFIXES = (SUFFIX, SUFFIX + packed.ENDING)
"""Of journals as they are written, and packed."""

TEXT_KEYS = (
    "suite",
    "gpu",
    "gpu_id",
    "driver",
    "cuda",
    "capability",
    "torch",
    "triton",
    "transformers",
    "ptxas",
    "python",
    "os",
)
NUMBER_KEYS = (
    "memory_bytes",
    "sm_count",
    "l2_bytes",
    "copy_bytes_per_s",
    "fp16_flops_per_s",
    "bf16_flops_per_s",
    "fp32_flops_per_s",
    "tf32_flops_per_s",
)
"""Keys of a fingerprint; a run that lacks one has "" or NaN for it."""

_KEY = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True)
class Run:
    """One sweep: when it started (None unknown) and the fingerprint of its machine."""

    id: str
    commit: str
    started_at: datetime.datetime | None
    fingerprint: dict[str, str | float]


@dataclass
class Sidecar:
    """One journal: its runs, and the last point by (suite, op), then by (case, variant)."""

    runs: list[Run] = field(default_factory=list)
    points: dict[tuple[str, str], dict[tuple[str, str], Record]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def told(self, suite: str, op: str, keys: Iterable[tuple[str, str]]) -> "Told":
        """What it tells of several cases and variants."""
        known = self.points.get((suite, op), {})
        found = [known.get(key) for key in keys]
        records = [record for record in found if record is not None]
        runs = {run.id for run in self.runs}
        clocks = (record.get("telemetry") for record in records)
        return Told(
            rows=np.flatnonzero([record is not None for record in found]),
            run=[record["run"] if record["run"] in runs else "" for record in records],
            ok=np.array([record["status"] == "ok" for record in records], bool),
            reason=[clean(record.get("reason")) for record in records],
            error=np.array([_number(record.get("error")) for record in records], float),
            clock=np.array(
                [
                    _number(said.get("sm_clock_mhz")) if isinstance(said, dict) else NAN
                    for said in clocks
                ],
                float,
            ),
            **_samples([record.get("samples") for record in records])._asdict(),
        )


@dataclass(frozen=True)
class Told:
    """What a journal tells of some rows, column by column.

    Attributes:
        rows: their places among what was asked for; the columns are aligned with them.
        run: the run that measured each, "" where the journal does not know it.
        ok: whether it was measured.
        reason: why not, or what to know of it.
        error: the relative L2 against the reference, NaN where unknown.
        clock: the GPU's in MHz, NaN where unknown.
        samples: of all rows, one after the other, in seconds.
        counts: how many of them are of each row.
    """

    rows: NDArray[np.intp]
    run: list[str]
    ok: NDArray[np.bool_]
    reason: list[str]
    error: Floats
    clock: Floats
    samples: Floats
    counts: NDArray[np.int64]


class _Flat(NamedTuple):
    samples: Floats
    counts: NDArray[np.int64]


def _samples(given: list[Any]) -> _Flat:
    """The samples of rows; none of a row that holds anything but positive, finite numbers."""
    lists = [some if isinstance(some, list) else [] for some in given]
    counts = np.fromiter(map(len, lists), np.int64, len(lists))
    if set(map(type, chain.from_iterable(lists))) <= {float}:
        flat = np.fromiter(chain.from_iterable(lists), float, int(counts.sum()))
        some = np.flatnonzero(counts)
        begins = (np.cumsum(counts) - counts)[some]
        if not len(some) or (np.isfinite(np.add.reduceat(flat, begins)) & (flat.min() > 0)).all():
            return _Flat(flat, counts)
    taken = [to_samples(one) for one in lists]
    counts = np.fromiter(map(len, taken), np.int64, len(taken))
    return _Flat(np.fromiter(chain.from_iterable(taken), float, int(counts.sum())), counts)


def read(path: Path) -> Sidecar:
    """Read a journal; what cannot be used is left out and said in `notes`.

    Errors: `ResultFileError` where the file cannot be read at all.
    """
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise ResultFileError(f"not a regular file of at most {MAX_BYTES >> 20} MiB")
        records, problems = journal.read(path)
    except OSError as error:
        raise ResultFileError(f"cannot be read: {error.strerror or error}") from error
    except (RecursionError, UnicodeError) as error:
        raise ResultFileError(f"a line cannot be decoded: {error}") from error
    found = Sidecar()
    left_out: Counter[str] = Counter()
    foreign = set()
    for record in records:
        if record["kind"] != "run":
            continue
        if is_commit(record.get("commit")) and path.name.startswith(f"{record['commit'][:8]}-"):
            found.runs.append(_run(record))
        else:
            foreign.add(record["id"])
            left_out["run(s) of a commit that is not the one in the file's name"] += 1
    own = []
    for record in records:
        if record["kind"] != "point":
            continue
        if record["run"] in foreign:
            left_out["point(s) of such runs"] += 1
        elif record["status"] not in journal.STATUSES:
            left_out[f"point(s) whose status is not one of {', '.join(journal.STATUSES)}"] += 1
        else:
            own.append(record)
    for record in journal.latest(own):
        group = found.points.setdefault((record["suite"], record["op"]), {})
        group[record["case"], record["variant"]] = record
    if problems:
        found.notes.append(f"{len(problems)} line(s) left out, the first: {problems[0]}")
    found.notes += [f"{count} {what} left out" for what, count in left_out.items()]
    return found


def clean(text: object) -> str:
    """A string that can be written as UTF-8; "" for anything that is no string."""
    if not isinstance(text, str):
        return ""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _run(record: dict[str, Any]) -> Run:
    fingerprint = record.get("fingerprint")
    known: dict[str, str | float] = {}
    for key, value in fingerprint.items() if isinstance(fingerprint, dict) else ():
        if key in TEXT_KEYS:
            known[key] = clean(value)
        elif key in NUMBER_KEYS:
            known[key] = _number(value)
        elif _KEY.fullmatch(key) and isinstance(value, str | int | float):
            known[key] = clean(str(value))
    return Run(clean(record["id"]), record["commit"], _time(record.get("started_at")), known)


def _number(value: Any) -> float:
    """A finite number that is not negative, NaN for anything else."""
    if type(value) is float:
        return value if 0 <= value < math.inf else NAN
    return float(value) if is_number(value) and value >= 0 else NAN


def _time(value: Any) -> datetime.datetime | None:
    """An ISO 8601 time, taken as UTC where it names no zone; None for anything else."""
    try:
        found = datetime.datetime.fromisoformat(value)
        zoned = found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
        return zoned.astimezone(datetime.UTC)
    except (TypeError, ValueError, OverflowError):
        return None
