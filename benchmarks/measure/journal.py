"""The journal of a sweep: one JSON object a line, appended and flushed to disk point by point.

It is what a killed sweep resumes from, and the sidecar of asv's result file: it keeps what asv has
no place for (the reason of a failure, the error against the reference, samples, the fingerprint of
the machine). Records of kind `run` describe one sweep; records of kind `point` name their run.
A later record of the same suite, op, case and variant replaces an earlier one.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import math
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import orjson

from benchmarks.cases import was_left_out
from benchmarks.measure import packed

STATUSES = ("ok", "failed", "skipped")

REQUIRED = {
    "run": ("id",),
    "point": ("run", "suite", "op", "case", "variant", "status"),
}
"""Kind of record → what it must have, as a string."""
Record = dict[str, Any]
Key = tuple[str, str, str, str]
Told = tuple[Any, Any]
"""Reason and version of a point."""

_KEY_OF = itemgetter("suite", "op", "case", "variant")


class JournalError(Exception):
    """A journal cannot be written: another writer holds it, or a record is not valid."""


def journal_path(results: Path, machine: str, commit: str, env_name: str) -> Path:
    """Path of the journal beside asv's own `<commit[:8]>-<env_name>.json`.

    asv reads only files that end in `.json`, so the two never meet.
    """
    return results / machine / f"{commit[:8]}-{env_name}.points.jsonl"


def point_key(record: Mapping[str, Any]) -> Key:
    """(suite, op, case, variant) of a point: what makes two records the same point."""
    suite, op, case, variant = _KEY_OF(record)
    return str(suite), str(op), str(case), str(variant)


def read(path: Path) -> tuple[list[Record], list[str]]:
    """All readable records of a journal in the order of writing, and what was wrong, in words.

    A missing file is an empty journal; what is packed beside it comes first. A truncated or corrupt
    line costs itself alone.
    """
    try:
        data, damage = packed.contents(path)
    except FileNotFoundError:
        return [], []
    records: list[Record] = []
    problems = [f"{path.name}: {damage}"] if damage else []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line or line.isspace():
            continue
        record = parsed(line)
        if isinstance(record, str):
            problems.append(f"{path.name} line {number}: {record}; the line is left out")
        else:
            records.append(record)
    return records, problems


def parsed(line: bytes) -> Record | str:
    """The record in one line, or in words why it is none."""
    try:
        record = orjson.loads(line)
    except ValueError:
        try:
            record = json.loads(line)  # takes NaN and integers of any size
        except ValueError:
            return f"not a JSON object: {line[:60]!r}"
    if not isinstance(record, dict):
        return f"not a JSON object: {line[:60]!r}"
    kind = record.get("kind")
    if not isinstance(kind, str) or kind not in REQUIRED:
        return f"kind is {kind!r}, allowed are 'run' and 'point'"
    if {type(record.get(name)) for name in REQUIRED[kind]} != {str}:
        missing = (name for name in REQUIRED[kind] if not isinstance(record.get(name), str))
        return f"a {kind} record without {', '.join(missing)}"
    return record


def latest(records: Sequence[Record]) -> list[Record]:
    """The last record of every point, in the order in which the points were last written.

    That a later run did not ask for a point takes nothing away from what an earlier one found.
    """
    points = [record for record in records if record["kind"] == "point"]
    told = [(record.get("reason"), record.get("version")) for record in points]
    return [points[place] for place in latest_places(map(_KEY_OF, points), told).values()]


def latest_places(keys: Iterable[Key], told: Sequence[Told]) -> dict[Key, int]:
    """The same of points by their keys and what they tell: the place of each."""
    found: dict[Key, int] = {}
    for place, key in enumerate(keys):
        if key in found and _says_nothing(told[place], told[found[key]]):
            continue
        found.pop(key, None)
        found[key] = place
    return found


def _says_nothing(told: Told, before: Told) -> bool:
    """Whether nobody asked for a point that was decided before, in the same version of its op."""
    left_out, decided = (isinstance(one, str) and was_left_out(one) for one, _ in (told, before))
    return left_out and not decided and told[1] == before[1]


def finite(value: Any) -> Any:
    """`value` with every NaN and infinity, at any depth, replaced by None: JSON has neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


class Journal:
    """Append-only writer of one journal file; one writer at a time.

    The lock is taken at the first write and held until `close()` or the end of the `with` block.
    A second writer, in this process or another, gets a JournalError.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file: TextIO | None = None

    def __enter__(self) -> Journal:
        self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start_run(
        self, commit: str, machine: str, fingerprint: Mapping[str, str | int | float]
    ) -> str:
        """Append a run record; returns its id, 32 hexadecimal digits."""
        run = uuid.uuid4().hex
        self._append(
            {
                "kind": "run",
                "id": run,
                "commit": commit,
                "machine": machine,
                "started_at": datetime.datetime.now(datetime.UTC).isoformat(),
                "fingerprint": dict(fingerprint),
            }
        )
        return run

    def append_point(
        self,
        *,
        run: str,
        suite: str,
        op: str,
        case: str,
        variant: str,
        version: int,
        status: str,
        reason: str = "",
        values: Mapping[str, float | int | None] | None = None,
        samples: Sequence[float] = (),
        hot_samples: Sequence[float] = (),
        error: float | None = None,
        telemetry: Mapping[str, Any] | None = None,
        rewrite: Mapping[str, Mapping[str, int]] | None = None,
        dry: bool = False,
    ) -> Record:
        """Append one point and return it as written. Samples are seconds, `error` relative L2.

        `rewrite` is what a model's graph became (`benchmarks.measure.model_calls.rewriting`).

        `dry` marks a point of a dry run, whose times mean nothing.

        Raises JournalError where the status is unknown or a point that is not ok has no reason.
        """
        if status not in STATUSES:
            raise JournalError(
                f"status of {op} {case} {variant} is {status!r}, allowed are {', '.join(STATUSES)}"
            )
        if status != "ok" and not reason:
            raise JournalError(f"{op} {case} {variant} is {status} without a reason: say why")
        record: Record = {
            "kind": "point",
            "run": run,
            "suite": suite,
            "op": op,
            "case": case,
            "variant": variant,
            "version": version,
            "status": status,
            "reason": reason,
            "values": dict(values or {}),
            "samples": list(samples),
            "hot_samples": list(hot_samples),
            "error": error,
            "telemetry": dict(telemetry or {}),
        }
        if rewrite is not None:
            record["rewrite"] = dict(rewrite)
        if dry:
            record["dry"] = True
        return self._append(record)

    def points(self) -> list[Record]:
        """The last record of every point in the file."""
        return latest(read(self.path)[0])

    def runs(self) -> dict[str, Record]:
        """Run records by id."""
        return {r["id"]: r for r in read(self.path)[0] if r["kind"] == "run"}

    def compact(self) -> list[str]:
        """Rewrite the file without replaced points, corrupt lines and runs that no point names.

        The new file takes the old one's place in one step: a crash leaves one of the two, whole.
        Returns what was corrupt, in words.
        """
        self._open()
        records, problems = read(self.path)
        points = latest(records)
        used = {point["run"] for point in points}
        runs = [r for r in records if r["kind"] == "run" and r["id"] in used]
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        file = draft.open("w", encoding="utf-8")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.writelines(_line(record) for record in [*runs, *points])
        file.flush()
        os.fsync(file.fileno())
        draft.replace(self.path)
        self.close()
        self._file = file
        return problems

    def pack(self) -> list[str]:
        """Compact the file and leave it packed, for the repository; returns what was corrupt.

        Raises JournalError where what is packed already is damaged: it would be lost.
        """
        earlier = packed.packed(self.path)
        damage = packed.contents(earlier)[1] if earlier.exists() else ""
        if damage:
            raise JournalError(
                f"{earlier} is damaged: {damage}. Restore it, or move it away to do without it"
            )
        problems = self.compact()
        packed.pack(self.path)
        self.path.unlink()
        self.close()
        return problems

    def close(self) -> None:
        """Release the lock. Writing again takes it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, record: Record) -> Record:
        file = self._open()
        written: Record = finite(record)
        file.write(_line(written))
        file.flush()
        os.fsync(file.fileno())
        return written

    def _open(self) -> TextIO:
        while self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a+", encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                raise JournalError(
                    f"{self.path} is being written by another process; wait for it to end, "
                    "or write to another results directory"
                ) from None
            # compact() may have put a new file at this path between the open and the lock, and
            # pack() may have taken it away.
            if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                _end_last_line(file)
                self._file = file
            else:
                file.close()
        return self._file


def _line(record: Record) -> str:
    return json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n"


def _end_last_line(file: TextIO) -> None:
    """A writer killed inside a line leaves no newline; without one it would cost two records."""
    size = os.fstat(file.fileno()).st_size
    if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
        file.write("\n")
        file.flush()
