"""Which points of a journal need not be measured again.

A sweep that was killed goes on where it stopped. A sweep whose figures asv has already saved is
over: running asv again measures again.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from benchmarks import asv_file
from benchmarks.cases import was_left_out
from benchmarks.measure.device import Fingerprint, same_device
from benchmarks.measure.journal import Record, latest


def saved_at(result: Path, machine: str, suite: str, op: str) -> datetime.datetime | None:
    """When asv began to read the points of `op` that stand in its result file.

    None where there is no such file, or nothing of this op in it. The time comes from the file's
    contents: its modification time does not survive a checkout or a copy.
    """
    try:
        blocks = asv_file.read(result, machine).blocks
    except asv_file.ResultFileError:
        return None
    started = [block.started_at for block in blocks if (block.suite, block.op) == (suite, op)]
    return datetime.datetime.fromtimestamp(max(started) / 1e3, datetime.UTC) if started else None


def reusable(
    records: Sequence[Record],
    *,
    suite: str,
    op: str,
    version: int,
    variants: Sequence[str],
    commit: str,
    fingerprint: Fingerprint,
    after: datetime.datetime | None,
    left_out: Collection[str] = (),
) -> dict[str, list[Record]]:
    """Points by case that still count: one for each variant, in the order of `variants`.

    They come from runs of this commit on an equal device (GPU, driver, torch, triton) that began
    later than `after`. A case that lacks a variant does not count at all, nor does one whose
    variants come from several runs: implementations are measured side by side or not. The variants
    in `left_out`, which this run does not measure, may be missing.
    """
    runs = {
        record["id"]: record
        for record in records
        if record["kind"] == "run"
        and record.get("commit") == commit
        and same_device(record.get("fingerprint") or {}, fingerprint)
        and (after is None or _started_at(record) > after)
    }
    asked = [variant for variant in variants if variant not in left_out]
    found: dict[str, dict[str, Record]] = {}
    for point in latest(records):
        same = (point["suite"], point["op"], point.get("version")) == (suite, op, version)
        if same and point["run"] in runs and not was_left_out(point.get("reason")):
            found.setdefault(point["case"], {})[point["variant"]] = point
    return {
        case: [points[variant] for variant in variants if variant in points]
        for case, points in found.items()
        if all(variant in points for variant in asked)
        and len({points[variant]["run"] for variant in asked}) <= 1
    }


def _started_at(run: Mapping[str, object]) -> datetime.datetime:
    """When a run began; a run that does not say so counts as the oldest."""
    try:
        moment = datetime.datetime.fromisoformat(str(run.get("started_at")))
    except ValueError:
        return datetime.datetime.min.replace(tzinfo=datetime.UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
