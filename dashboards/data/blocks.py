"""How a cube is made: a block of commits after the other, each kept in the cache.

What a commit measured does not change, so that a new commit changes one block, the last.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import asv_file, cases, record
from benchmarks.asv_file import OK, SKIPPED
from benchmarks.cases import was_left_out
from benchmarks.record import Words
from dashboards.data import cache as caching
from dashboards.data import cube, points
from dashboards.data.cache import Cache
from dashboards.data.cube import ABSENT, ARRAYS, UNASKED, Cube
from dashboards.data.gather import Kept, in_processes
from dashboards.data.measured import Measured
from dashboards.data.points import Points

COMMITS = 32
"""In a block: twenty megabytes of thirty thousand points."""
_LARGE = 256 * 2**20
"""Blocks of so many bytes are made by several processes: to start them takes a second."""
_MAKERS = (
    Path(__file__),
    *(Path(str(one.__file__)) for one in (asv_file, cases, cube, points, record)),
)
"""What a block depends on besides what it is made from."""
_KINDS = {
    "value": ("<f8", np.nan),
    "low": ("<f4", np.nan),
    "high": ("<f4", np.nan),
    "status": ("u1", ABSENT),
    "version": ("<u2", 0),
    "run": ("<i4", 0),
}
"""Array → its type, and what stands where a commit says nothing: of words the first."""
_BYTES = sum(np.dtype(kind).itemsize for kind, _ in _KINDS.values())
"""Of a point, in all arrays."""
_CODED = ("version", "run")
"""Arrays of places of words; those of a block count among its own words."""
_Words = dict[str, list[str]]


def cube_of(machine: str, names: Points, kept: Sequence[Kept], cache: Cache | None = None) -> Cube:
    """The cube of what some commits measured of a suite on one machine, oldest first.

    Args:
        machine: its name.
        names: of the suite's points.
        kept: what was measured, a commit each.
        cache: where blocks are kept, if what was measured is.
    """
    arrays = _empty(names, len(kept))
    words = {name: Words() for name in _CODED}
    each = [kept[first : first + COMMITS] for first in range(0, len(kept), COMMITS)]
    paths = [_path(names, some, cache) for some in each]
    _make(names, each, paths)
    for number, (some, path) in enumerate(zip(each, paths, strict=True)):
        first = number * COMMITS
        block = {name: array[first : first + len(some)] for name, array in arrays.items()}
        own = _read(path, block) if path is not None else None
        if own is None:
            own = _fill(block, names, some)
            if path is not None:
                _write(path, block, own)
        for name, known in words.items():
            codes = known.codes(own[name])
            if codes.tolist() != list(range(len(codes))):
                block[name][:] = codes[block[name]]
    return Cube(
        machine,
        names,
        tuple(one.commit for one in kept),
        **{name: arrays[name].reshape(len(kept), *names.shape) for name in ARRAYS},
        versions=words["version"].listed(),
        runs=words["run"].listed(),
    )


def _empty(names: Points, commits: int) -> dict[str, NDArray[Any]]:
    """Arrays of a row a commit."""
    shape = (commits, int(np.prod(names.shape)))
    return {name: np.empty(shape, kind) for name, (kind, _) in _KINDS.items()}


def _make(names: Points, each: Sequence[Sequence[Kept]], paths: Sequence[Path | None]) -> None:
    """Puts the blocks that the cache lacks there by all cores, where they are many."""
    asked = [
        (names, kept, path)
        for kept, path in zip(each, paths, strict=True)
        if path is not None and not path.exists()
    ]
    points = sum(len(kept) for _, kept, _ in asked) * int(np.prod(names.shape))
    if points * _BYTES >= _LARGE:
        for _ in in_processes(_keep, asked):
            pass


def _keep(names: Points, kept: Sequence[Kept], path: Path) -> None:
    block = _empty(names, len(kept))
    _write(path, block, _fill(block, names, kept))


def _path(names: Points, kept: Sequence[Kept], cache: Cache | None) -> Path | None:
    """Where the cache has a block; None where it cannot have it."""
    files = [one.place.name for one in kept if isinstance(one.place, Path)]
    if cache is None or len(files) < len(kept):
        return None
    made_from = (caching.code(_MAKERS), names.suite, names.digest, *files)
    return cache.use(f"{caching.digest('block', *made_from)}.block")


def _fill(block: dict[str, NDArray[Any]], names: Points, kept: Sequence[Kept]) -> _Words:
    """Puts what commits measured into the rows of a block; returns its words."""
    for name, (_, nothing) in _KINDS.items():
        block[name][:] = nothing
    words = {name: Words() for name in _CODED}
    for place, one in enumerate(kept):
        row = {name: array[place] for name, array in block.items()}
        _add(row, words, names, one.load(samples=False))
    return {name: of.listed() or [""] for name, of in words.items()}


def _add(
    row: dict[str, NDArray[Any]], words: dict[str, Words], names: Points, measured: Measured
) -> None:
    """Puts what a commit measured into its row."""
    found = measured.record
    rows, numbers = names.numbers(measured)
    asked = np.array([bool(why) and not was_left_out(why) for why in found.words["reason"]])
    status = found.status[rows].copy()
    status[(status == SKIPPED) & ~asked[found.codes["reason"][rows]]] = UNASKED
    good = status == OK
    row["status"][numbers] = status
    for name in ("value", "low", "high"):
        known = np.where(good, found.numbers[name][rows], np.nan)
        with np.errstate(over="ignore"):
            row[name][numbers] = known
    for name, of in words.items():
        codes = of.codes(found.words[name])
        row[name][numbers] = codes[found.codes[name][rows]]


def _write(path: Path, block: dict[str, NDArray[Any]], words: _Words) -> None:
    """Keeps a block: its words and the sum of its arrays in a line, then those arrays."""
    about = json.dumps({"words": words, "sum": _sum(block, words)}).encode()

    def write(draft: Path) -> None:
        with draft.open("wb") as file:
            file.write(about + b"\n")
            for array in block.values():
                file.write(array.data.cast("B"))

    caching.replace(path, write)


def _read(path: Path, block: dict[str, NDArray[Any]]) -> _Words | None:
    """Fills a block from its file and returns its words; None without the file, or half of it."""
    try:
        with path.open("rb") as file:
            about = json.loads(file.readline())
            sizes = [file.readinto(array.data.cast("B")) for array in block.values()]
        words: _Words = about["words"]
        whole = sizes == [array.nbytes for array in block.values()]
        return words if whole and about["sum"] == _sum(block, words) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sum(block: dict[str, NDArray[Any]], words: _Words) -> int:
    found = zlib.crc32(json.dumps(words).encode())
    for array in block.values():
        found = zlib.crc32(array.data.cast("B"), found)
    return found
