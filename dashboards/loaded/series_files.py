"""The files of `data/of`: some cases over all commits, and what was said of each point last."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.asv_file import STATUSES
from benchmarks.gate.findings import TIMED
from dashboards import text
from dashboards.data.cube import ABSENT, UNASKED, Cube
from dashboards.data.measured import Measured
from dashboards.data.source import Source
from dashboards.loaded.columns import packed, script
from dashboards.plots.figures import Marks

POINTS_A_PART = 60_000
"""How many times a file holds at most: it is loaded to show one case."""
_SAMPLES_SHOWN = 200
_HIDDEN = ("run", "machine", "commit")


@dataclass(frozen=True)
class SeriesFiles:
    """Where the times of an operator's or model's cases over all commits lie.

    Attributes:
        files: what the names of the files begin with, below `data/`.
        machine: the folder of the machine.
        suite: the suite.
        name: the operator or model.
    """

    files: str
    machine: str
    suite: str
    name: str

    @classmethod
    def of(cls, machine: str, suite: str, name: str) -> "SeriesFiles":
        """Those of an operator or model on a machine."""
        folder = text.slugs([machine])[machine]
        return cls(f"of/{folder}/{suite}-{text.slugs([name])[name]}", folder, suite, name)


def files(
    source: Source, cube: Cube, marks: Callable[[str, str], Marks]
) -> Iterator[tuple[str, bytes]]:
    """The files of a suite on a machine.

    Args:
        source: what the pages are made from.
        cube: of the suite and machine.
        marks: of a machine and an operator or model, where its cases moved.
    """
    place = {commit.id: number for number, commit in enumerate(source.commits)}
    words = LastWords.of(source, cube)
    for name in cube.points.names:
        part, first = cube.part(name), cube.points.slices[name].start
        there = part.status != ABSENT
        cases = np.flatnonzero(there.any(axis=(0, 2, 3)))
        if not cases.size:
            continue
        order = np.flatnonzero(there.any(axis=(1, 2, 3)))
        variants = np.flatnonzero(there.any(axis=(0, 1, 3)))
        each = max(1, len(order) * len(variants) * len(part.points.metrics))
        size = max(1, POINTS_A_PART // each)
        title = SeriesFiles.of(cube.machine, cube.points.suite, name).files
        for at, begin in enumerate(range(0, len(cases), size)):
            some = cases[begin : begin + size]
            content = {
                "cases": [text.short(part.points.cases[case][1]) for case in some],
                "variants": [text.short(part.points.variants[one]) for one in variants],
                "metrics": list(part.points.metrics),
                "commits": [place[part.commits[one]] for one in order],
                **_packed_series(part, some, variants, order),
                **words.of_cases([first + case for case in some.tolist()], variants.tolist()),
            }
            yield f"data/{title}-{at}.js", script(f"{title}-{at}", content)
        moved = marks(cube.machine, name)
        names = [part.points.cases[case][1] for case in cases.tolist()]
        listed = {
            "cases": [text.short(case) for case in names],
            "size": size,
            "moves": [
                [[place[one], text.short(said)] for one, said in moved.get(case, {}).items()]
                for case in names
            ],
        }
        yield f"data/{title}.js", script(title, listed)


def _packed_series(
    part: Cube, cases: NDArray[Any], variants: NDArray[Any], order: NDArray[Any]
) -> dict[str, Any]:
    """Columns of case × implementation × metric × commit."""
    at = np.ix_(order, cases, variants, np.arange(len(part.points.metrics)))
    names = ("value", "low", "high") if part.points.suite in TIMED else ("value",)
    return {name: packed(np.moveaxis(getattr(part, name)[at], 0, -1), "f32") for name in names}


@dataclass(frozen=True)
class LastWords:
    """What is known of each point of a suite on a machine where it was measured last.

    Attributes:
        said: by case, then by implementation.
        facts: run → its fingerprint in words.
    """

    said: Mapping[tuple[int, int], Mapping[str, Any]]
    facts: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, source: Source, cube: Cube) -> "LastWords":
        """Those of a suite's cube; none of a suite that takes no times."""
        if cube.points.suite not in TIMED or "time" not in cube.points.metrics:
            return cls({}, {})
        time = cube.points.metrics.index("time")
        status = cube.status[..., time]
        told = (status != ABSENT) & (status != UNASKED)
        last = len(told) - 1 - told[::-1].argmax(axis=0)
        places: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for case, variant in np.argwhere(told.any(axis=0)).tolist():
            places[int(last[case, variant])].append((case, variant))
        said: dict[tuple[int, int], Mapping[str, Any]] = {}
        number = {commit.id: place for place, commit in enumerate(source.commits)}
        for at, some in places.items():
            commit = cube.commits[at]
            measured = source.kept[cube.machine, commit].load()
            rows, numbers = cube.points.numbers(measured)
            _, variants, metrics = cube.points.shape
            wanted = [(case * variants + variant) * metrics + time for case, variant in some]
            found = rows[np.searchsorted(numbers, wanted)].tolist()
            for key, row in zip(some, found, strict=True):
                said[key] = {"commit": number[commit], **_last_word(measured, row)}
        used = {str(one["run"]) for one in said.values()}
        runs = source.runs[source.runs["run"].isin(used)].to_dict("records")
        facts = {
            str(run["run"]): {
                text.short(key, 40): told
                for key, value in run.items()
                if key not in _HIDDEN and (told := text.fact(value))
            }
            for run in runs
        }
        return cls(said, facts)

    def of_cases(self, cases: Sequence[int], variants: Sequence[int]) -> dict[str, Any]:
        """Those of some cases as a file holds them, each run's facts once."""
        runs: dict[str, int] = {}
        last: list[list[dict[str, Any] | None]] = []
        for case in cases:
            words = []
            for variant in variants:
                one = self.said.get((case, variant))
                run = runs.setdefault(one["run"], len(runs)) if one is not None else 0
                words.append({**one, "run": run} if one is not None else None)
            last.append(words)
        return {"last": last, "runs": [self.facts.get(run, {}) for run in runs]}


def _last_word(measured: Measured, row: int) -> dict[str, Any]:
    """All that is known of a row."""
    record = measured.record
    words = {
        name: record.words[name][record.codes[name][row]] for name in ("reason", "version", "run")
    }
    error, clock = (float(record.numbers[name][row]) for name in ("error", "clock"))
    return {
        "status": STATUSES[record.status[row]],
        "reason": text.short(words["reason"], 400),
        "error": error if math.isfinite(error) else None,
        "clock": round(clock) if math.isfinite(clock) else None,
        "version": text.short(words["version"], 40),
        "samples": [float(f"{one:.5g}") for one in record.samples_of(row)[:_SAMPLES_SHOWN]],
        "run": words["run"],
    }
