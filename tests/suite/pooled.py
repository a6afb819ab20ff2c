"""Cases measured by several fake workers that share a device: what tests of the pool share."""

import sys
from typing import Any

from benchmarks.measure.journal import Record, read
from benchmarks.measure.measuring import Lot, Settings, SweepCase
from benchmarks.measure.pool import Batch, measure_batches
from benchmarks.measure.room import Memory
from tests.suite.fake_worker import Bench, subject

PATIENT = {"case_timeout_s": 5.0, "start_timeout_s": 20.0}
SOUND = dict.fromkeys(("eager", "compile", "kernl"), "ok")


def measured(
    bench: Bench,
    *names: str,
    workers: int = 3,
    mode: str = "share",
    memory: Memory | None = None,
    **settings: Any,
) -> dict[str, dict[str, Record]]:
    cases = [a_case(name) for name in names]
    with bench.journal as journal:
        timing = Settings(**{**PATIENT, **settings})
        measure_batches(
            [Batch([Lot(subject(), cases)], timing, journal, {})],
            command=[sys.executable, "-S", str(bench.script), str(bench.log), mode],
            workers=workers,
            memory=memory,
        )
    found: dict[str, dict[str, Record]] = {name: {} for name in names}
    for record in read(bench.journal.path)[0]:
        if record["kind"] == "point":
            found[record["case"].split(".")[0]][record["variant"]] = record
    return found


def a_case(name: str) -> SweepCase:
    return SweepCase(f"{name}.fp16", {"rows": 1}, "fp16")


def progress(bench: Bench) -> list[str]:
    return (bench.directory / "progress").read_text().splitlines()
