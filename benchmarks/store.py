"""The measurements that lie in asv's result files, as one table: the only reader of those files.

`load(results_dir)` walks `<results_dir>/<machine>/`. Each of asv's files, `<commit>-<env>.json`, is
joined with the journal beside it, `<commit>-<env>.points.jsonl`, packed or not. The file of asv is
the truth for values, intervals and status; the journal adds reasons, errors, samples and the run.

A file that cannot be read costs itself alone: it is left out, named in `Store.problems` and warned
about through `logging`.
"""

import logging
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

import pandas as pd
from asv_runner.statistics import compute_stats

from benchmarks import asv_file, sidecar
from benchmarks.asv_file import Block, ResultFile, ResultFileError
from benchmarks.cases import NOT_SELECTED
from benchmarks.measure.packed import ENDING
from benchmarks.sidecar import NUMBER_KEYS, SUFFIX, SUFFIXES, TEXT_KEYS, Point, Run, Sidecar, clean

MACHINE_API_VERSION = 1

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
}

RUN_TYPES = {
    "run": "str",
    "machine": "str",
    "commit": "str",
    "started_at": "datetime64[ns, UTC]",
    **dict.fromkeys(TEXT_KEYS, "str"),
    **dict.fromkeys(NUMBER_KEYS, "float64"),
}

_MACHINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ +-]{0,99}")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """Something in the results that was left out. The path is relative to the results directory."""

    path: str
    reason: str


@dataclass(frozen=True)
class Store:
    """Everything that is known about the measured commits.

    rows: one row per machine, commit, suite, op, metric, case and variant (implementation or
        architecture), with the columns of `ROW_TYPES`. value, low and high are in the metric's unit
        (seconds, a count, a fraction): value is NaN unless the status is "ok", low and high are
        asv's 99 % interval, from its file or from the samples, and NaN where there is neither.
        samples is a tuple of seconds, error the relative L2 against the reference, run names a row
        of `runs`; each is empty where unknown.
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
    reader = _Reader(results_dir.resolve())
    reader.read()
    for problem in reader.problems:
        _log.warning("%s: %s", problem.path, problem.reason)
    return Store(reader.rows.frame(), _runs_frame(reader.runs), reader.machines, reader.problems)


@dataclass
class _Rows:
    """The columns of `Store.rows`, as lists that grow together."""

    columns: dict[str, list[object]] = field(
        default_factory=lambda: {name: [] for name in ROW_TYPES}
    )

    def add(self, machine: str, file: ResultFile, block: Block, points: list[Point | None]) -> None:
        """Add the rows of a block; `points` is aligned with its cases."""
        count = len(block.cases)
        constant = {
            "machine": machine,
            "commit": file.commit,
            "committed_at": file.committed_at_ms,
            "suite": block.suite,
            "op": block.op,
            "metric": block.metric,
            "version": clean(block.version),
        }
        for name, value in constant.items():
            self.columns[name].extend([value] * count)
        self.columns["case"].extend(block.cases)
        self.columns["variant"].extend(block.variants)
        self.columns["value"].extend(block.values)
        self.columns["status"].extend(block.statuses)
        samples = list(map(_samples, block.samples, points, block.values))
        self.columns["samples"].extend(samples)
        # The samples are those of a latency; other metrics of the same call are no medians.
        known = samples if block.metric == "time" else [()] * count
        intervals = list(map(_interval, block.low, block.high, known))
        self.columns["low"].extend(low for low, _ in intervals)
        self.columns["high"].extend(high for _, high in intervals)
        # A journal that tells of the block has all of it that anybody asked for.
        absent = NOT_SELECTED if any(points) else ""
        reasons = map(_reason, block.reasons, points, block.statuses, repeat(absent))
        self.columns["reason"].extend(reasons)
        self.columns["error"].extend(p.error if p else asv_file.NAN for p in points)
        self.columns["run"].extend(p.run if p else "" for p in points)

    def frame(self) -> pd.DataFrame:
        """The table, with a time where the columns hold milliseconds."""
        columns = {
            name: pd.Series(values, dtype=ROW_TYPES[name])
            for name, values in self.columns.items()
            if name != "committed_at"
        }
        milliseconds = pd.Series(self.columns["committed_at"], dtype="int64")
        columns["committed_at"] = pd.to_datetime(milliseconds, unit="ms", utc=True).astype(
            ROW_TYPES["committed_at"]
        )
        return pd.DataFrame({name: columns[name] for name in ROW_TYPES})


def _samples(own: tuple[float, ...], point: Point | None, value: float) -> tuple[float, ...]:
    """The samples of asv, else the journal's if they can be those behind asv's value."""
    if own or point is None or not point.samples:
        return own
    # A later sweep that was cut short has replaced the point, but not asv's value.
    return point.samples if min(point.samples) <= value <= max(point.samples) else ()


def _interval(low: float, high: float, samples: tuple[float, ...]) -> tuple[float, float]:
    """What asv's file says, which may be without statistics; else what asv makes of the samples."""
    if not math.isnan(low) or not samples:
        return low, high
    _, found = compute_stats(list(samples), 1)
    ends = [found["ci_99_a"], found["ci_99_b"]]
    first, last = (end if math.isfinite(end) else asv_file.NAN for end in ends)
    return first, last


def _reason(own: str, point: Point | None, status: str, absent: str) -> str:
    """Why a row is not ok, or what to know of one that is: what was read, else the journal's.

    `absent` is why a row was skipped that the journal does not have.
    """
    if point is None and status == "skipped":
        return own or absent
    told = point is not None and (status != "ok" or point.status == "ok")
    return own or (point.reason if point is not None and told else "")


class _Reader:
    """Walks the results directory and collects what it holds."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.rows = _Rows()
        self.runs: dict[str, tuple[str, Run]] = {}
        self.machines: dict[str, dict[str, str]] = {}
        self.problems: list[Problem] = []

    def read(self) -> None:
        """Read every machine's directory."""
        if not self._root.is_dir():
            self._report(self._root, "there is no such directory; `asv run` makes it")
            return
        for directory in sorted(self._root.iterdir()):
            try:
                if directory.is_dir() and self._is_inside(directory):
                    self._read_machine(directory)
            except OSError as error:
                self._report(directory, f"cannot be read: {error.strerror or error}")

    def _read_machine(self, directory: Path) -> None:
        names = {path.name: path for path in sorted(directory.iterdir())}
        results = [
            path
            for name, path in names.items()
            if name.endswith(".json") and name != "machine.json"
        ]
        journals = {
            name.removesuffix(ENDING): path
            for name, path in sorted(names.items(), reverse=True)  # a plain one after the packed
            if name.endswith(SUFFIXES)
        }
        if not results and not journals and "machine.json" not in names:
            return
        machine = directory.name
        try:
            self.machines[machine] = self._machine(directory)
        except ResultFileError as error:
            self._report(directory / "machine.json", f"{error}; all of {machine} is left out")
            return
        sidecars = {name: self._read_journal(journals[name], machine) for name in sorted(journals)}
        for files in self._by_commit(results, machine):
            seen: set[tuple[str, ...]] = set()
            for path, file in files:
                self._add_file(path, machine, file, sidecars, seen if len(files) > 1 else None)

    def _machine(self, directory: Path) -> dict[str, str]:
        """The fields of asv's machine.json; it must name the directory that it lies in."""
        if not _MACHINE.fullmatch(directory.name):
            raise ResultFileError("its directory's name is not a plain file name")
        path = directory / "machine.json"
        if not path.resolve().is_relative_to(self._root):
            raise ResultFileError("a link that leads out of the results directory")
        content = asv_file.load_json(path, MACHINE_API_VERSION)
        if content.get("machine") != directory.name:
            raise ResultFileError("it names another machine than its directory")
        return {
            clean(key): clean(str(value))
            for key, value in content.items()
            if key != "version" and isinstance(value, str | int | float)
        }

    def _by_commit(
        self, paths: Iterable[Path], machine: str
    ) -> Iterator[list[tuple[Path, ResultFile]]]:
        """Readable files grouped by commit, in each group the one measured last first."""
        groups: dict[str, list[tuple[Path, ResultFile]]] = {}
        for path in paths:
            if not self._is_inside(path):
                continue
            try:
                file = asv_file.read(path, machine)
            except ResultFileError as error:
                self._report(path, f"{error}; the file is left out")
                continue
            for note in file.notes:
                self._report(path, note)
            groups.setdefault(file.commit, []).append((path, file))
        for group in groups.values():
            yield sorted(group, key=lambda item: item[1].started_at, reverse=True)

    def _add_file(
        self,
        path: Path,
        machine: str,
        file: ResultFile,
        sidecars: dict[str, Sidecar],
        seen: set[tuple[str, ...]] | None,
    ) -> None:
        """Add a file's rows without those in `seen`; None where the commit has no other file."""
        beside = sidecars.get(path.name.removesuffix(".json") + SUFFIX, Sidecar())
        repeated = 0
        for block in file.blocks:
            if seen is not None:
                repeated += _drop_seen(block, seen)
            points = beside.points.get((block.suite, block.op), {})
            keys = zip(block.cases, block.variants, strict=True)
            self.rows.add(machine, file, block, [points.get(key) for key in keys])
        if repeated:
            self._report(
                path,
                f"{repeated} case(s) left out: another file of commit {file.commit[:8]} "
                f"measured them later",
            )

    def _read_journal(self, path: Path, machine: str) -> Sidecar:
        if not self._is_inside(path):
            return Sidecar()
        try:
            found = sidecar.read(path)
        except ResultFileError as error:
            self._report(path, f"{error}; the journal is left out")
            return Sidecar()
        for note in found.notes:
            self._report(path, note)
        for run in found.runs:
            if self.runs.setdefault(run.id, (machine, run)) != (machine, run):
                self._report(path, f"run {run.id[:8]} left out: another journal has it too")
        return found

    def _is_inside(self, path: Path) -> bool:
        """Whether a path stays in the results directory once its links are followed."""
        try:
            inside = path.resolve().is_relative_to(self._root)
        except (OSError, RuntimeError):
            inside = False
        if not inside:
            self._report(path, "a link that leads out of the results directory; it is left out")
        return inside

    def _report(self, path: Path, reason: str) -> None:
        inside = path != self._root and path.is_relative_to(self._root)
        shown = path.relative_to(self._root) if inside else path
        self.problems.append(Problem(clean(shown.as_posix()), reason))


def _drop_seen(block: Block, seen: set[tuple[str, ...]]) -> int:
    """Remove the cases that are in `seen` from a block, add the others; returns how many went."""
    name = (block.suite, block.op, block.metric)
    keys = [(*name, *pair) for pair in zip(block.cases, block.variants, strict=True)]
    kept = [index for index, key in enumerate(keys) if key not in seen]
    seen.update(keys)
    block.keep(kept)
    return len(keys) - len(kept)


def _runs_frame(runs: dict[str, tuple[str, Run]]) -> pd.DataFrame:
    """One row per run, in the order of their start."""
    further = {key for _, run in runs.values() for key in run.fingerprint if key not in RUN_TYPES}
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
