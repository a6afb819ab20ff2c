"""Reads what lies in a results directory, once: what was read before comes from the cache.

Each commit's files become a `Measured`. Those that the cache does not have are read by as many
processes as there are cores.
"""

from __future__ import annotations

import datetime
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import (
    asv_file,
    cases,
    compare,
    details,
    journal_points,
    reading,
    record,
    sidecar,
    store,
)
from benchmarks.gate import findings
from benchmarks.measure import journal, packed
from benchmarks.reading import Files, Problem
from benchmarks.sidecar import Run
from dashboards import text
from dashboards.data import cache as caching
from dashboards.data import evidence, measured
from dashboards.data.cache import Cache
from dashboards.data.measured import Measured

_READERS = (
    *(
        Path(str(module.__file__))
        for module in (
            asv_file, cases, compare, details, journal_points, reading, record, sidecar, journal,
            packed, findings, evidence, measured, text,
        )
    ),
    Path(journal_points.__file__).with_name("journal_lines.py"),  # may not be there to import
)  # fmt: skip
"""What a `Measured` depends on besides the files that it is read from."""
_ALONE = 16 * 2**20
"""Bytes of files that one process reads faster than others are started."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Kept:
    """What one commit measured on one machine, in memory or in the cache.

    Attributes:
        machine: its name.
        commit: the full hash.
        committed_at_ms: when it was made, milliseconds since 1970.
        suites: those that it says something of.
        runs: those that it was measured in.
        layout: that of the `Measured`.
        place: it, or its file.
    """

    machine: str
    commit: str
    committed_at_ms: int
    suites: tuple[str, ...]
    runs: tuple[str, ...]
    layout: str
    place: Measured | Path

    @classmethod
    def of(cls, found: Measured, place: Path | None = None) -> Kept:
        """That of a `Measured`, which is in memory or in a file."""
        record = found.record
        suites, runs = (tuple(sorted(record.words[name])) for name in ("suite", "run"))
        about = (record.machine, record.commit, record.committed_at_ms, suites, runs, found.layout)
        return cls(*about, found if place is None else place)

    def load(self, *, samples: bool = True) -> Measured:
        """It; from a file without samples where those are not wanted."""
        if isinstance(self.place, Measured):
            return self.place
        return Measured.load(self.place, samples=samples)


@dataclass(frozen=True)
class Gathered:
    """All that lies in a results directory."""

    kept: tuple[Kept, ...]
    runs: pd.DataFrame
    machines: Mapping[str, Mapping[str, str]]
    problems: tuple[Problem, ...]


def of_frames(
    rows: pd.DataFrame,
    runs: pd.DataFrame,
    machines: Mapping[str, Mapping[str, str]],
    problems: Iterable[Any],
) -> Gathered:
    """What a store holds."""
    kept = tuple(Kept.of(Measured.of(one)) for one in record.of_frame(rows))
    return Gathered(kept, runs, machines, tuple(problems))


def _silent(_done: int, _of: int) -> None:
    """Nothing is said of how far the reading is."""


def gather(results: Path, cache: Cache | None = None, progress: Progress = _silent) -> Gathered:
    """Reads a results directory; nothing that lies in there raises.

    Args:
        results: the directory.
        cache: where it is kept what was read; without one all of it stays in memory.
        progress: is told how many of how many commits were read.
    """
    found = reading.walk(results)
    problems, runs, kept = list(found.problems), store.Runs(), []
    every = _read(found, progress) if cache is None else _cached(found, cache, progress)
    for files, (some, of_files, told) in zip(found.files, every, strict=True):
        problems += [*told, *runs.add(files.machine, of_files)]
        kept += some
    return Gathered(tuple(kept), runs.frame(), found.machines, tuple(problems))


_Found = tuple[list[Kept], list[tuple[str, Run]], list[Problem]]


def _read(found: reading.Walk, progress: Progress) -> Iterator[_Found]:
    for done, files in enumerate(found.files):
        progress(done, len(found.files))
        read = reading.read(found.root, files)
        kept = [Kept.of(Measured.of(one)) for one in read.records if len(one)]
        yield kept, read.runs, read.problems


def _cached(found: reading.Walk, cache: Cache, progress: Progress) -> Iterator[_Found]:
    contents = [
        {path: cache.known_content(path) for path in _parts(files)} for files in found.files
    ]
    names = [_name(files, of) for files, of in zip(found.files, contents, strict=True)]
    missing = [
        place
        for place, name in enumerate(names)
        if name is None or _about(cache.folder / f"{name}.json") is None
    ]
    states = [{path: caching.state_of(path) for path in contents[place]} for place in missing]
    asked = [(found.root, found.files[place], contents[place], cache.folder) for place in missing]
    size = sum(state[0] for each in states for state in each.values())
    done = in_processes(_keep, asked, alone=size < _ALONE)
    for number, (place, state, of) in enumerate(zip(missing, states, done, strict=True)):
        names[place] = _name(found.files[place], of)
        for path, content in of.items():
            cache.learn(path, state[path], content)
        progress(number, len(missing))
    for name in names:
        about = None if name is None else _about(cache.use(f"{name}.json"))
        if about is None:
            raise OSError(f"{cache.folder / str(name)}.json was written and cannot be read")
        for one in about[0]:
            if isinstance(one.place, Path):
                cache.use(one.place.name)
        yield about


def in_processes(
    work: Callable[..., Any], asked: list[tuple[Any, ...]], *, alone: bool = False
) -> Iterator[Any]:
    """What a function says of each of several arguments, in their order, by all cores.

    `alone` says that this process does all of it.
    """
    cores = len(os.sched_getaffinity(0))
    if alone or cores < 2 or len(asked) < 2:
        yield from (work(*arguments) for arguments in asked)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores, mp_context=context) as pool:
        yield from pool.map(work, *zip(*asked, strict=True), chunksize=1)


def _parts(files: Files) -> list[Path]:
    """All files that are read for some files: a plain journal with the packed one beside it."""
    return [
        one
        for path in (*files.results, *files.journals)
        for one in (path, packed.packed(path))
        if one.exists()
    ]


def _name(files: Files, contents: Mapping[Path, str | None]) -> str | None:
    """The name in the cache of what some files hold; None where a digest is not known yet."""
    parts = [caching.code(_READERS), files.machine]
    for path, content in contents.items():
        if content is None:
            return None
        parts += [path.name, content]
    return caching.digest(*parts)


def _keep(
    root: Path, files: Files, known: Mapping[Path, str | None], folder: Path
) -> dict[Path, str]:
    """Reads files into a cache's folder, unless it has what they hold; returns their digests."""
    contents = {path: of or caching.digest_of(path) for path, of in known.items()}
    about = folder / f"{_name(files, contents)}.json"
    if _about(about) is None:
        _write(reading.read(root, files), about)
    return contents


def _write(read: reading.Read, about: Path) -> None:
    """Writes what was read beside `about`, which comes last."""
    kept = []
    for number, one in enumerate(one for one in read.records if len(one)):
        found, place = Measured.of(one), about.with_name(f"{about.stem}-{number}.columns")
        caching.replace(place, found.save)
        each = Kept.of(found)
        named = (each.machine, each.commit, each.committed_at_ms, each.suites, each.runs)
        kept.append([*named, each.layout, place.name, place.stat().st_size])
    content = {
        "kept": kept,
        "runs": [[path, _told(run)] for path, run in read.runs],
        "problems": [[problem.path, problem.reason] for problem in read.problems],
    }
    caching.replace(about, lambda draft: draft.write_text(json.dumps(content)))


def _about(path: Path) -> _Found | None:
    """What a file in a cache tells of what was read; None where not all of it is there."""
    try:
        content = json.loads(path.read_text())
        kept = []
        for machine, commit, date, suites, runs, layout, file, size in content["kept"]:
            place = path.with_name(file)
            if place.stat().st_size != size:
                return None
            kept.append(Kept(machine, commit, date, tuple(suites), tuple(runs), layout, place))
        found = [(journal, _run(told)) for journal, told in content["runs"]]
        return kept, found, [Problem(*one) for one in content["problems"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _told(run: Run) -> list[Any]:
    started = run.started_at.isoformat() if run.started_at is not None else None
    return [run.id, run.commit, started, run.fingerprint]


def _run(told: list[Any]) -> Run:
    id_, commit, started, fingerprint = told
    moment = datetime.datetime.fromisoformat(started) if started is not None else None
    return Run(id_, commit, moment, fingerprint)
