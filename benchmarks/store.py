"""The measurements that lie in asv's result files, as one table: what the readers of results get.

`load(results_dir)` reads all of `<results_dir>/<machine>/` through `benchmarks.reading`.

A file that cannot be read costs itself alone: it is left out, named in `Store.problems` and warned
about through `logging`.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks import asv_file, reading
from benchmarks.reading import Problem
from benchmarks.sidecar import NUMBER_KEYS, TEXT_KEYS, Run

KEY = ["machine", "commit", "suite", "op", "metric", "case", "variant"]
"""Columns that name a row of `Store.rows`; no two rows share them."""

ROW_TYPES = {
    "machine": "str",
    "commit": "str",
    "committed_at": "datetime64[ns, UTC]",
    "suite": "str",
    "op": "str",
    "metric": "str",
    "case": "str",
    "variant": "str",
    "value": "float64",
    "low": "float64",
    "high": "float64",
    "samples": "object",
    "version": "str",
    "status": "str",
    "reason": "str",
    "error": "float64",
    "run": "str",
    "details": "str",
}

RUN_TYPES = {
    "run": "str",
    "machine": "str",
    "commit": "str",
    "started_at": "datetime64[ns, UTC]",
    **dict.fromkeys(TEXT_KEYS, "str"),
    **dict.fromkeys(NUMBER_KEYS, "float64"),
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """Everything that is known about the measured commits.

    rows: one row per machine, commit, suite, op, metric, case and variant (implementation or
        architecture), with the columns of `ROW_TYPES`. value, low and high are in the metric's unit
        (seconds, a count, a fraction): value is NaN unless the status is "ok", low and high are
        asv's 99 % interval, from its file or from the samples, and NaN where there is neither.
        samples is a tuple of seconds, error the relative L2 against the reference, run names a row
        of `runs`, details is a word of `benchmarks.details`; each is empty where unknown.
    runs: one row per sweep, with the columns of `RUN_TYPES` and any further fingerprint keys.
    machines: what asv's machine.json says, by machine.
    problems: what was left out, and why.
    """

    rows: pd.DataFrame
    runs: pd.DataFrame
    machines: dict[str, dict[str, str]]
    problems: list[Problem]


def load(results_dir: Path) -> Store:
    """Read all results below a directory. It does not raise for anything that lies in there."""
    found = reading.walk(results_dir)
    records, runs, problems = [], Runs(), found.problems
    for files in found.files:
        read = reading.read(found.root, files)
        problems += [*read.problems, *runs.add(files.machine, read.runs)]
        records += read.records
    for problem in problems:
        _log.warning("%s: %s", problem.path, problem.reason)
    frames = [record.frame() for record in records]
    rows = pd.concat([no_rows(), *frames], ignore_index=True).astype(ROW_TYPES)
    return Store(rows, runs.frame(), found.machines, problems)


def no_rows() -> pd.DataFrame:
    """The table without a row."""
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in ROW_TYPES.items()})


class Runs:
    """The sweeps that journals tell of, each once."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, Run]] = {}

    def add(self, machine: str, runs: Iterable[tuple[str, Run]]) -> list[Problem]:
        """Add those of a machine, each with its journal; returns which were there before."""
        return [
            Problem(path, f"run {run.id[:8]} left out: another journal has it too")
            for path, run in runs
            if self._found.setdefault(run.id, (machine, run)) != (machine, run)
        ]

    def frame(self) -> pd.DataFrame:
        """One row per run, in the order of their start."""
        runs = self._found
        further = {
            key for _, run in runs.values() for key in run.fingerprint if key not in RUN_TYPES
        }
        table: dict[str, pd.Series] = {
            "run": pd.Series(list(runs), dtype="str"),
            "machine": pd.Series([machine for machine, _ in runs.values()], dtype="str"),
            "commit": pd.Series([run.commit for _, run in runs.values()], dtype="str"),
        }
        started = pd.Series([run.started_at for _, run in runs.values()], dtype="object")
        table["started_at"] = pd.to_datetime(started, utc=True).astype(RUN_TYPES["started_at"])
        for name in [*TEXT_KEYS, *NUMBER_KEYS, *sorted(further)]:
            dtype = RUN_TYPES.get(name, "str")
            missing = asv_file.NAN if dtype == "float64" else ""
            values = [run.fingerprint.get(name, missing) for _, run in runs.values()]
            table[name] = pd.Series(values, dtype=dtype)
        return pd.DataFrame(table).sort_values("started_at", ignore_index=True)
