"""The files of `data/at`: all that one commit measured of a suite on a machine, point by point."""

import json
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.asv_file import OK
from benchmarks.gate import findings
from benchmarks.gate.findings import SAME, TIMED
from dashboards import order, text
from dashboards.data import cache as caching
from dashboards.data import evidence, points
from dashboards.data.cache import Cache, digest, replace
from dashboards.data.gather import Kept, in_processes
from dashboards.data.measured import Measured
from dashboards.data.points import Points
from dashboards.data.source import Source
from dashboards.loaded import columns
from dashboards.loaded.columns import numbered, packed, script

ALL_SAME = tuple(sorted({key for keys in SAME.values() for key in keys}))
"""All that has to be the same of two runs, in whatever suite."""
_EVIDENCE = tuple(
    re.sub(r"_(.)", lambda found: found[1].upper(), field.name)
    for field in fields(evidence.Evidence)
)
"""Its fields, as scripts name them."""
_MAKERS = (
    Path(__file__),
    *(Path(str(one.__file__)) for one in (columns, findings, order, points, text)),
)
"""What a file depends on besides what it is made from."""
_ALONE = 24
"""So many files one process writes faster than others are started."""


def files(
    source: Source, folders: Mapping[str, str], cache: Cache | None
) -> Iterator[tuple[str, bytes | Path]]:
    """The files of `data/at`, or where the cache holds them.

    Args:
        source: what the pages are made from.
        folders: machine → the folder of its files.
        cache: where the files are kept, as what a commit measured does not change.
    """
    place = {commit.id: number for number, commit in enumerate(source.commits)}
    prints = _prints(source.runs)
    asked: list[tuple[Kept, str, str]] = []
    for (suite, machine), cube in source.cubes.items():
        for commit in cube.measured:
            name = f"at/{folders[machine]}/{suite}-{place[commit]}"
            asked.append((source.kept[machine, commit], suite, name))
    if cache is None:
        for kept, suite, name in asked:
            measured = kept.load(samples=False)
            yield f"data/{name}.js", script(name, at_commit(measured, source.points[suite], prints))
        return
    names = {suite: points.digest for suite, points in source.points.items()}
    missing = []
    paths = {}
    for kept, suite, name in asked:
        own = {run: prints[run] for run in kept.runs if run in prints}
        assert isinstance(kept.place, Path)
        key = digest(caching.code(_MAKERS), kept.place.name, names[suite], name, json.dumps(own))
        paths[name] = cache.use(f"{key}.js")
        if not (paths[name].is_file() and paths[name].stat().st_size):
            missing.append((kept, suite, name, own, paths[name]))
    points = cache.use(f"points-{digest(*names.values())}.json")
    replace(points, lambda draft: draft.write_text(json.dumps(_told(source.points))))
    work = [(points, *one) for one in missing]
    for _ in in_processes(_write_commit, work, alone=len(work) < _ALONE):
        pass
    for name, path in paths.items():
        yield f"data/{name}.js", path


def _write_commit(
    points: Path, kept: Kept, suite: str, name: str, prints: Mapping[str, list[str]], path: Path
) -> None:
    """Writes the file of a commit into the cache."""
    content = at_commit(kept.load(samples=False), _points_in(points)[suite], prints)
    replace(path, lambda draft: draft.write_bytes(script(name, content)))


@lru_cache(maxsize=1)
def _points_in(path: Path) -> Mapping[str, Points]:
    """The points of all suites, which the process that asks for files wrote down."""
    found = json.loads(path.read_text())
    return {
        suite: Points(
            suite,
            tuple(of["names"]),
            tuple((op, case) for op, case in of["cases"]),
            tuple(of["variants"]),
            tuple(of["metrics"]),
        )
        for suite, of in found.items()
    }


def _told(found: Mapping[str, Points]) -> dict[str, dict[str, Any]]:
    """What `_points_in` reads."""
    return {
        suite: {name: getattr(of, name) for name in ("names", "cases", "variants", "metrics")}
        for suite, of in found.items()
    }


def at_commit(
    measured: Measured, points: Points, prints: Mapping[str, list[str]]
) -> dict[str, Any]:
    """What one commit measured of a suite on a machine, and what a verdict needs besides.

    `prints` holds what a run was on, in the order of `ALL_SAME`.
    """
    record = measured.record
    rows, numbers = points.numbers(measured)
    own = [ALL_SAME.index(key) for key in SAME[points.suite]]
    unknown = [""] * len(ALL_SAME)
    run_prints = [
        tuple(prints.get(run, unknown)[place] for place in own) for run in record.words["run"]
    ]
    said, print_of = _numbered(run_prints, record.codes["run"][rows])
    versions, version_of = _numbered(record.words["version"], record.codes["version"][rows])
    reasons, reason_of = _numbered(
        [text.short(one) for one in record.words["reason"]], record.codes["reason"][rows]
    )
    good = record.status[rows] == OK
    value, low, high = (
        np.where(good, record.numbers[name][rows], np.nan) for name in ("value", "low", "high")
    )
    found = {
        "point": packed(numbers, "u32"),
        "status": packed(record.status[rows], "u8"),
        "value": packed(value, "f64"),
        "print": packed(print_of, "u16"),
        "prints": [dict(zip(SAME[points.suite], one, strict=True)) for one in said],
        "version": packed(version_of, "u16"),
        "versions": [text.short(one, 40) for one in versions],
        "reason": packed(reason_of, "u16"),
        "reasons": reasons,
    }
    if points.suite in TIMED:
        found["low"] = packed(low, "f32")
        found["high"] = packed(high, "f32")
        found["evidence"] = _evidence(measured, rows, numbers)
    return found


def _numbered(words: Sequence[Hashable], codes: NDArray[Any]) -> tuple[list[Any], NDArray[Any]]:
    """The different words that codes stand for, in the order of their first, and their places."""
    at, used = pd.factorize(codes)
    different, place = numbered(words[code] for code in used.tolist())
    return different, place[at]


def _evidence(measured: Measured, rows: NDArray[Any], numbers: NDArray[Any]) -> dict[str, Any]:
    """Of kernl's points, what `static/verdicts.js` judges by, column by column."""
    place = np.full(len(measured.record), -1)
    place[rows] = numbers
    mine = place[measured.judged] >= 0
    order = np.argsort(place[measured.judged][mine], kind="stable")
    found = measured.evidence[mine][order]
    return {
        "point": packed(place[measured.judged][mine][order], "u32"),
        **{name: packed(found[:, at], "f64") for at, name in enumerate(_EVIDENCE)},
    }


def _prints(runs: pd.DataFrame) -> dict[str, list[str]]:
    """Run → what it was on, in the order of `ALL_SAME`; empty where that is unknown."""
    known = runs.drop_duplicates("run").reindex(columns=["run", *ALL_SAME])
    return {run: [text.fact(one) for one in of] for run, *of in known.itertuples(index=False)}
