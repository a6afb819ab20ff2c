"""Reads asv's result files and their journals, one commit on one machine at a time.

`walk(results)` lists what lies below `<results>/<machine>/`; `read(root, files)` makes a `Record`
of the files of a commit. Each of asv's files, `<commit>-<env>.json`, is joined with the journal
beside it, `<commit>-<env>.points.jsonl`, packed or not. The file of asv is the truth for values,
intervals and status; the journal adds reasons, errors, samples, clocks, the run and
a model's details.

A file that cannot be read costs itself alone: it is left out and named in a `Problem`.
"""

import gc
import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from asv_runner.statistics import compute_stats
from numpy.typing import NDArray

from benchmarks import asv_file, sidecar
from benchmarks.asv_file import Block, ResultFile, ResultFileError, Samples
from benchmarks.cases import NOT_SELECTED
from benchmarks.measure.packed import ENDING
from benchmarks.record import NUMBERS, TEXT, Floats, Ints, Record, Words
from benchmarks.sidecar import SUFFIX, SUFFIXES, Run, Sidecar, Told, clean

MACHINE_API_VERSION = 1

_MACHINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ +-]{0,99}")


@dataclass(frozen=True)
class Problem:
    """Something in the results that was left out. The path is relative to the results directory."""

    path: str
    reason: str


@dataclass(frozen=True)
class Files:
    """The result files of a machine whose names begin with the same commit, and their journals."""

    machine: str
    results: tuple[Path, ...]
    journals: tuple[Path, ...]


@dataclass
class Walk:
    """What lies in a results directory: machines with what asv knows of them, and files."""

    root: Path
    machines: dict[str, dict[str, str]] = field(default_factory=dict)
    files: list[Files] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


@dataclass
class Read:
    """What the files of a commit hold: records (one, but for odd names) and problems.

    `runs` are those of its journals, each with the journal's path below the results directory.
    """

    records: list[Record] = field(default_factory=list)
    runs: list[tuple[str, Run]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def walk(results: Path) -> Walk:
    """What lies below a directory. It does not raise for anything that does."""
    found = Walk(results.resolve())
    if not found.root.is_dir():
        reason = "there is no such directory; `asv run` makes it"
        found.problems.append(_problem(found.root, found.root, reason))
        return found
    for directory in sorted(found.root.iterdir()):
        try:
            if directory.is_dir() and _is_inside(found.root, directory, found.problems):
                _walk_machine(found, directory)
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
            found.problems.append(_problem(found.root, directory, reason))
    return found


def _walk_machine(found: Walk, directory: Path) -> None:
    names = {path.name: path for path in sorted(directory.iterdir())}
    results = [n for n in names if n.endswith(".json") and n != "machine.json"]
    journals = {
        name.removesuffix(ENDING): name
        for name in sorted(names, reverse=True)  # a plain one after the packed, which it reads too
        if name.endswith(SUFFIXES)
    }
    if not results and not journals and "machine.json" not in names:
        return
    machine = directory.name
    try:
        found.machines[machine] = _machine(found.root, directory)
    except ResultFileError as error:
        reason = f"{error}; all of {machine} is left out"
        found.problems.append(_problem(found.root, directory / "machine.json", reason))
        return
    groups: dict[str, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
    for kind, some in enumerate((results, sorted(journals.values()))):
        for name in some:
            if _is_inside(found.root, names[name], found.problems):
                groups[name.split("-", 1)[0]][kind].append(names[name])
    found.files += [Files(machine, tuple(of[0]), tuple(of[1])) for _, of in sorted(groups.items())]


def _machine(root: Path, directory: Path) -> dict[str, str]:
    """The fields of asv's machine.json; it must name the directory that it lies in."""
    if not _MACHINE.fullmatch(directory.name):
        raise ResultFileError("its directory's name is not a plain file name")
    path = directory / "machine.json"
    if not path.resolve().is_relative_to(root):
        raise ResultFileError("a link that leads out of the results directory")
    content = asv_file.load_json(path, MACHINE_API_VERSION)
    if content.get("machine") != directory.name:
        raise ResultFileError("it names another machine than its directory")
    return {
        clean(key): clean(str(value))
        for key, value in content.items()
        if key != "version" and isinstance(value, str | int | float)
    }


def read(root: Path, files: Files) -> Read:
    """Read the files of a commit; `root` is the results directory that they lie in."""
    # Millions of objects come and none of them is part of a cycle: looking for cycles among them
    # takes longer than making them.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _read(root, files)
    finally:
        if collecting:
            gc.enable()


def _read(root: Path, files: Files) -> Read:
    found = Read()

    def report(path: Path, reason: str) -> None:
        found.problems.append(_problem(root, path, reason))

    sidecars: dict[str, Sidecar] = {}
    for path in files.journals:
        try:
            beside = sidecar.read(path)
        except ResultFileError as error:
            report(path, f"{error}; the journal is left out")
            continue
        for note in beside.notes:
            report(path, note)
        name = _problem(root, path, "").path
        found.runs += [(name, run) for run in beside.runs]
        sidecars[path.name.removesuffix(ENDING)] = beside
    by_commit: dict[str, list[tuple[Path, ResultFile]]] = {}
    for path in files.results:
        try:
            file = asv_file.read(path, files.machine)
        except ResultFileError as error:
            report(path, f"{error}; the file is left out")
            continue
        for note in file.notes:
            report(path, note)
        by_commit.setdefault(file.commit, []).append((path, file))
    for of_commit in by_commit.values():
        of_commit.sort(key=lambda item: item[1].started_at, reverse=True)
        rows = _Rows(files.machine, of_commit[0][1].commit, of_commit[0][1].committed_at_ms)
        seen: set[tuple[str, ...]] | None = set() if len(of_commit) > 1 else None
        for path, file in of_commit:
            beside = sidecars.get(path.name.removesuffix(".json") + SUFFIX, Sidecar())
            repeated = _add_file(rows, file, beside, seen)
            if repeated:
                report(
                    path,
                    f"{repeated} case(s) left out: another file of commit {file.commit[:8]} "
                    f"measured them later",
                )
        found.records.append(rows.record())
    return found


def _add_file(
    rows: "_Rows", file: ResultFile, beside: Sidecar, seen: set[tuple[str, ...]] | None
) -> int:
    """Add a file's rows without those in `seen`; returns how many those were.

    `seen` is None where the commit has no other file.
    """
    repeated = 0
    for block in file.blocks:
        if seen is not None:
            repeated += _drop_seen(block, seen)
        told = beside.told(block.suite, block.op, block.cases, block.variants)
        # A journal that tells of the block has all of it that anybody asked for.
        rows.add(block, told, NOT_SELECTED if len(told.rows) else "")
    return repeated


def _drop_seen(block: Block, seen: set[tuple[str, ...]]) -> int:
    """Remove the cases that are in `seen` from a block, add the others; returns how many went."""
    name = (block.suite, block.op, block.metric)
    keys = [(*name, *pair) for pair in zip(block.cases, block.variants, strict=True)]
    kept = [index for index, key in enumerate(keys) if key not in seen]
    seen.update(keys)
    block.keep(kept)
    return len(keys) - len(kept)


class _Rows:
    """The rows of one commit on one machine, which grow block by block."""

    def __init__(self, machine: str, commit: str, committed_at_ms: int) -> None:
        self._of = (machine, commit, committed_at_ms)
        self._words = {name: Words() for name in TEXT}
        self._codes: dict[str, list[Ints]] = {name: [] for name in TEXT}
        self._numbers: dict[str, list[Floats]] = {name: [] for name in NUMBERS}
        self._status: list[NDArray[np.uint8]] = []
        self._samples: list[Floats] = []
        self._counts: list[NDArray[np.int64]] = []

    def add(self, block: Block, told: Told, absent: str) -> None:
        """Add the rows of a block, and what the journal tells of them.

        `absent` is why a row was skipped that the journal does not have.
        """
        count = len(block.cases)
        samples, counts = _samples(block, told)
        # The samples are those of a latency; other metrics of the same call are no medians.
        low, high = block.low, block.high
        if block.metric == "time":
            low, high = _intervals(block, samples, counts)
        run, details = np.full(count, "", object), np.full(count, "", object)
        error, clock = np.full(count, asv_file.NAN), np.full(count, asv_file.NAN)
        error[told.rows], clock[told.rows] = told.error, told.clock
        run[told.rows], details[told.rows] = told.run, told.details
        once = {
            "suite": block.suite,
            "op": block.op,
            "metric": block.metric,
            "version": clean(block.version),
        }
        each = {
            "case": block.cases,
            "variant": block.variants,
            "reason": _reasons(block, told, absent),
            "run": list(run),
        }
        if details.any():
            each["details"] = list(details)
        else:
            once["details"] = ""
        for name, word in once.items():
            self._codes[name].append(np.full(count, self._words[name].code(word), np.int32))
        for name, words in each.items():
            self._codes[name].append(self._words[name].codes(words))
        numbers = {
            "value": block.values, "low": low, "high": high, "error": error, "clock": clock,
        }  # fmt: skip
        for name, column in numbers.items():
            self._numbers[name].append(column)
        self._status.append(block.status)
        self._samples.append(samples)
        self._counts.append(counts)

    def record(self) -> Record:
        """All of them."""
        counts = _joined(self._counts, np.int64)
        return Record(
            *self._of,
            words={name: words.listed() for name, words in self._words.items()},
            codes={name: _joined(parts, np.int32) for name, parts in self._codes.items()},
            numbers={name: _joined(parts, np.float64) for name, parts in self._numbers.items()},
            status=_joined(self._status, np.uint8),
            samples=_joined(self._samples, np.float64),
            ends=np.concatenate([[0], np.cumsum(counts)]),
        )


def _joined(parts: list[NDArray[Any]], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([*parts, np.empty(0, kind)]).astype(kind, copy=False)


def _samples(block: Block, told: Told) -> tuple[Floats, NDArray[np.int64]]:
    """The samples of asv, else the journal's if they can be those behind asv's value; their counts.

    They are those of all rows, one after the other.
    """
    counts = np.zeros(len(block.cases), np.int64)
    some = np.flatnonzero(told.counts)
    if not block.samples and not len(some):
        return np.empty(0), counts
    own = np.zeros(len(counts), bool)
    own[list(block.samples)] = True
    # A later sweep that was cut short has replaced the point, but not asv's value.
    begins = np.cumsum(told.counts) - told.counts
    least, most = (of.reduceat(told.samples, begins[some]) for of in (np.minimum, np.maximum))
    value = block.values[told.rows[some]]
    fits = some[(least <= value) & (value <= most) & ~own[told.rows[some]]]
    if not block.samples:
        counts[told.rows[fits]] = told.counts[fits]
        kept = np.zeros(len(told.rows), bool)
        kept[fits] = True
        return told.samples[np.repeat(kept, told.counts)], counts
    taken: dict[int, Samples] = dict(block.samples)
    for at in fits.tolist():
        ends = begins[at], begins[at] + told.counts[at]
        taken[int(told.rows[at])] = tuple(told.samples[slice(*ends)].tolist())
    for row, one in taken.items():
        counts[row] = len(one)
    joined = [sample for row in sorted(taken) for sample in taken[row]]
    return np.array(joined, float), counts


def _intervals(block: Block, samples: Floats, counts: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """What asv's file says, which may be without statistics; else what asv makes of the samples."""
    low, high = block.low.copy(), block.high.copy()
    ends = np.cumsum(counts)
    for row in np.flatnonzero(np.isnan(low) & (counts > 0)).tolist():
        _, found = compute_stats(samples[ends[row] - counts[row] : ends[row]].tolist(), 1)
        interval = (found["ci_99_a"], found["ci_99_b"])
        low[row], high[row] = (end if math.isfinite(end) else asv_file.NAN for end in interval)
    return low, high


def _reasons(block: Block, told: Told, absent: str) -> list[str]:
    """Why a row is not ok, or what to know of one that is: what was read, else the journal's.

    `absent` is why a row was skipped that the journal does not have.
    """
    found = np.where(block.status == asv_file.SKIPPED, absent, "").astype(object)
    found[told.rows] = ""
    fits = told.ok | (block.status[told.rows] != asv_file.OK)
    found[told.rows[fits]] = told.reason[fits]
    for row, reason in block.reasons.items():
        found[row] = reason
    return list(found)


def _is_inside(root: Path, path: Path, problems: list[Problem]) -> bool:
    """Whether a path stays in the results directory once its links are followed."""
    try:
        inside = path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        inside = False
    if not inside:
        reason = "a link that leads out of the results directory; it is left out"
        problems.append(_problem(root, path, reason))
    return inside


def _problem(root: Path, path: Path, reason: str) -> Problem:
    inside = path != root and path.is_relative_to(root)
    shown = path.relative_to(root) if inside else path
    return Problem(clean(shown.as_posix()), reason)
