"""Reads the journals beside asv's result files into what the store joins to them.

A journal keeps what asv's format has no place for: why a case failed, its error against the
reference, the samples, and the machine's fingerprint (see `benchmarks.measure.journal`).
"""

import datetime
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.asv_file import (
    MAX_BYTES,
    NAN,
    ResultFileError,
    Samples,
    is_commit,
    is_number,
    to_samples,
)
from benchmarks.measure import journal, packed

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


class Point(NamedTuple):
    """What a journal knows about one case and variant. error is the relative L2, NaN unknown."""

    run: str
    status: str
    reason: str
    error: float
    samples: Samples


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
    points: dict[tuple[str, str], dict[tuple[str, str], Point]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


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
    known = {run.id for run in found.runs}
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
        group[record["case"], record["variant"]] = _point(record, known)
    if problems:
        found.notes.append(f"{len(problems)} line(s) left out, the first: {problems[0]}")
    found.notes += [f"{count} {what} left out" for what, count in left_out.items()]
    return found


def clean(text: object) -> str:
    """A string that can be written as UTF-8; "" for anything that is no string."""
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else ""


def _point(record: dict[str, Any], known_runs: set[str]) -> Point:
    return Point(
        run=record["run"] if record["run"] in known_runs else "",
        status=record["status"],
        reason=clean(record.get("reason")),
        error=_number(record.get("error")),
        samples=to_samples(record.get("samples")),
    )


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
    return float(value) if is_number(value) and value >= 0 else NAN


def _time(value: Any) -> datetime.datetime | None:
    """An ISO 8601 time, taken as UTC where it names no zone; None for anything else."""
    try:
        found = datetime.datetime.fromisoformat(value)
        zoned = found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
        return zoned.astimezone(datetime.UTC)
    except (TypeError, ValueError, OverflowError):
        return None
