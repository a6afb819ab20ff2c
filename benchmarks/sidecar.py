"""Reads the journals beside asv's result files into what the store joins to them.

A journal keeps what asv's format has no place for: why a case failed, its error against the
reference, the samples, and the machine's fingerprint (see `benchmarks.measure.journal`).
"""

import datetime
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import journal_points
from benchmarks.asv_file import (
    MAX_BYTES,
    NAN,
    Floats,
    ResultFileError,
    is_commit,
    is_number,
)
from benchmarks.journal_points import Points
from benchmarks.measure import journal, packed
from benchmarks.measure.journal import Key

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
        details: a word of `benchmarks.details` each.
    """

    rows: NDArray[np.intp]
    run: NDArray[np.object_]
    ok: NDArray[np.bool_]
    reason: NDArray[np.object_]
    error: Floats
    clock: Floats
    samples: Floats
    counts: NDArray[np.int64]
    details: NDArray[np.object_]

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Where the samples of each row end."""
        return np.cumsum(self.counts)

    def take(self, rows: NDArray[np.intp], places: NDArray[np.intp]) -> "Told":
        """What it tells of the points at some places, as that of other rows."""
        at: NDArray[np.intp] | slice = places
        if len(places) and (np.diff(places) == 1).all():  # a copy takes longer than a look
            at = slice(int(places[0]), int(places[-1]) + 1)
        counts = self.counts[at]
        return Told(
            rows=rows,
            run=self.run[at],
            ok=self.ok[at],
            reason=self.reason[at],
            error=self.error[at],
            clock=self.clock[at],
            samples=self._samples(at, counts),
            counts=counts,
            details=self.details[at],
        )

    def _samples(self, at: NDArray[np.intp] | slice, counts: NDArray[np.int64]) -> Floats:
        ends = self.ends[at]
        if isinstance(at, slice):
            return self.samples[ends[0] - counts[0] : ends[-1]]
        begins = np.cumsum(counts) - counts
        return self.samples[np.arange(counts.sum()) + np.repeat(ends - counts - begins, counts)]


@dataclass
class Sidecar:
    """One journal: its runs, what its points tell, and the place of the last of each by its key."""

    runs: list[Run] = field(default_factory=list)
    points: Told = field(default_factory=lambda: _told(Points(), []))
    places: Mapping[Key, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def told(self, suite: str, op: str, cases: list[str], variants: list[str]) -> Told:
        """What it tells of several cases and variants."""
        keys = zip(repeat(suite), repeat(op), cases, variants, strict=False)
        found = np.fromiter(map(self.places.get, keys, repeat(-1)), np.intp, len(cases))
        rows = np.flatnonzero(found >= 0)
        return self.points.take(rows, found[rows])


def read(path: Path) -> Sidecar:
    """Read a journal; what cannot be used is left out and said in `notes`.

    Errors: `ResultFileError` where the file cannot be read at all.
    """
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise ResultFileError(f"not a regular file of at most {MAX_BYTES >> 20} MiB")
        points = journal_points.read(path)
    except OSError as error:
        raise ResultFileError(f"cannot be read: {error.strerror or error}") from error
    except (RecursionError, UnicodeError) as error:
        raise ResultFileError(f"a line cannot be decoded: {error}") from error
    found = Sidecar()
    left_out: Counter[str] = Counter()
    foreign = set()
    for record in points.runs:
        if is_commit(record.get("commit")) and path.name.startswith(f"{record['commit'][:8]}-"):
            found.runs.append(_run(record))
        else:
            foreign.add(record["id"])
            left_out["run(s) of a commit that is not the one in the file's name"] += 1
    own = _own(points, foreign, left_out)
    found.points = _told(points, found.runs)
    found.places = _places(points, own)
    problems = points.problems
    if problems:
        found.notes.append(f"{len(problems)} line(s) left out, the first: {problems[0]}")
    found.notes += [f"{count} {what} left out" for what, count in left_out.items()]
    return found


def _own(points: Points, foreign: set[str], left_out: Counter[str]) -> list[int] | None:
    """The places of the points that count, None for all; the others are counted in `left_out`."""
    run, status = points.columns["run"], points.columns["status"]
    if foreign.isdisjoint(run) and set(status) <= set(journal.STATUSES):
        return None
    own = []
    for place, (one, word) in enumerate(zip(run, status, strict=True)):
        if one in foreign:
            left_out["point(s) of such runs"] += 1
        elif word not in journal.STATUSES:
            left_out[f"point(s) whose status is not one of {', '.join(journal.STATUSES)}"] += 1
        else:
            own.append(place)
    return own


def _places(points: Points, own: Sequence[int] | None) -> Mapping[Key, int]:
    """The place of the last of each point."""
    columns = points.columns
    keys = list(zip(*(columns[name] for name in ("suite", "op", "case", "variant")), strict=True))
    if own is None:
        every = dict(zip(keys, range(len(keys)), strict=True))
        if len(every) == len(keys):
            return every
        own = range(len(keys))
    told = [(columns["reason"][place], columns["version"][place]) for place in own]
    found = journal.latest_places((keys[place] for place in own), told)
    return {key: own[place] for key, place in found.items()}


def _told(points: Points, runs: list[Run]) -> Told:
    """What all points tell, in their order."""
    column = points.columns
    known = dict(zip(ids := {run.id for run in runs}, ids, strict=True))
    details = np.full(len(points.clock), "", object)
    for place, word in points.details.items():
        details[place] = clean(word)
    return Told(
        rows=np.arange(len(points.clock)),
        run=_objects(map(known.get, column["run"], repeat(""))),
        ok=np.fromiter(map("ok".__eq__, column["status"]), bool, len(points.clock)),
        reason=_objects(_cleaned(column["reason"])),
        error=_numbers(column["error"]),
        clock=_numbers(points.clock),
        samples=points.samples,
        counts=points.counts,
        details=details,
    )


def _objects(words: Iterable[str]) -> NDArray[np.object_]:
    return np.array(list(words), object)


def _cleaned(words: list[Any]) -> list[str]:
    """`clean` of each."""
    try:
        good = "".join(words).isascii()
    except TypeError:
        good = False
    return words if good else list(map(clean, words))


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


def _numbers(values: list[Any]) -> Floats:
    """The same as `_number` of each."""
    if set(map(type, values)) <= {float, type(None)}:
        found = np.array(values, float)
        return np.where((found >= 0) & (found < math.inf), found, NAN)
    return np.array([_number(value) for value in values], float)


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
