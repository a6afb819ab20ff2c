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
from benchmarks.record import Record
from dashboards import text
from dashboards.data.cube import ABSENT, UNASKED, Cube
from dashboards.data.frames import records
from dashboards.data.measured import Measured
from dashboards.data.source import Source
from dashboards.loaded.columns import DIGITS_WIDE, Written, five_digits, packed, script
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


@dataclass(frozen=True)
class _Shown:
    """What the files of an operator or model hold: places in `part`, its own of the cube.

    Attributes:
        title: what the names of the files begin with.
        part: of the cube.
        cases: those with any point.
        variants: the implementations that have one.
        order: the commits that do.
    """

    title: str
    part: Cube
    cases: NDArray[Any]
    variants: NDArray[Any]
    order: NDArray[Any]

    @property
    def size(self) -> int:
        """How many cases a file has at most."""
        each = len(self.order) * len(self.variants) * len(self.part.points.metrics)
        return max(1, POINTS_A_PART // max(1, each))

    @classmethod
    def each(cls, cube: Cube) -> Iterator["_Shown"]:
        """That of each operator or model of a cube that has any point."""
        for name in cube.points.names:
            part = cube.part(name)
            there = part.status != ABSENT
            places = (
                np.flatnonzero(there.any(axis=axes)) for axes in ((0, 2, 3), (0, 1, 3), (1, 2, 3))
            )
            found = cls(SeriesFiles.of(cube.machine, cube.points.suite, name).files, part, *places)
            if found.cases.size:
                yield found


def files(source: Source, cube: Cube) -> Iterator[tuple[str, bytes]]:
    """The files of a suite on a machine that hold series."""
    place = {commit.id: number for number, commit in enumerate(source.commits)}
    words = LastWords.of(source, cube)
    for shown in _Shown.each(cube):
        part, variants = shown.part, shown.variants
        first = cube.points.slices[part.points.names[0]].start
        for at, begin in enumerate(range(0, len(shown.cases), shown.size)):
            some = shown.cases[begin : begin + shown.size]
            content = {
                "cases": [text.short(part.points.cases[case][1]) for case in some],
                "variants": [text.short(part.points.variants[one]) for one in variants],
                "metrics": list(part.points.metrics),
                "commits": [place[part.commits[one]] for one in shown.order],
                **_packed_series(part, some, variants, shown.order),
                **words.of_cases([first + case for case in some.tolist()], variants.tolist()),
            }
            yield f"data/{shown.title}-{at}.js", script(f"{shown.title}-{at}", content)


def lists(
    source: Source, cube: Cube, marks: Callable[[str, str], Marks]
) -> Iterator[tuple[str, bytes]]:
    """The files that say where a case's series is, and where it moved.

    `marks` says of a machine and an operator or model where its cases moved.
    """
    place = {commit.id: number for number, commit in enumerate(source.commits)}
    for shown in _Shown.each(cube):
        (name,) = shown.part.points.names
        moved = marks(cube.machine, name)
        names = [shown.part.points.cases[case][1] for case in shown.cases.tolist()]
        listed = {
            "cases": [text.short(case) for case in names],
            "size": shown.size,
            "moves": [
                [[place[one], text.short(said)] for one, said in moved.get(case, {}).items()]
                for case in names
            ],
        }
        yield f"data/{shown.title}.js", script(shown.title, listed)


def _packed_series(
    part: Cube, cases: NDArray[Any], variants: NDArray[Any], order: NDArray[Any]
) -> dict[str, Any]:
    """Columns of case × implementation × metric × commit."""
    names = ("value", "low", "high") if part.points.suite in TIMED else ("value",)
    found = {}
    for name in names:
        some = getattr(part, name)[_span(order)][:, _span(cases)][:, :, _span(variants)]
        found[name] = packed(np.moveaxis(some, 0, -1), "f32")
    return found


def _span(places: NDArray[Any]) -> NDArray[Any] | slice:
    """Places that follow each other as a slice, which takes them without a copy."""
    first, end = int(places[0]), int(places[-1]) + 1
    return slice(first, end) if end - first == len(places) else places


@dataclass(frozen=True)
class LastWords:
    """What is known of each point of a suite on a machine where it was measured last.

    Attributes:
        said: by case and implementation, the run and the JSON up to the run's number.
        facts: run → its fingerprint in words.
    """

    said: Mapping[tuple[int, int], tuple[str, str]]
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
        said: dict[tuple[int, int], tuple[str, str]] = {}
        number = {commit.id: place for place, commit in enumerate(source.commits)}
        for at, some in places.items():
            commit = cube.commits[at]
            measured = source.kept[cube.machine, commit].load()
            rows, numbers = cube.points.numbers(measured)
            _, variants, metrics = cube.points.shape
            wanted = [(case * variants + variant) * metrics + time for case, variant in some]
            found = rows[np.searchsorted(numbers, wanted)]
            said.update(zip(some, _last_words(measured, found, number[commit]), strict=True))
        used = {run for run, _ in said.values()}
        runs = records(source.runs[source.runs["run"].isin(used)])
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
        last = []
        for case in cases:
            words = []
            for variant in variants:
                run, begin = self.said.get((case, variant), ("", ""))
                words.append(f"{begin}{runs.setdefault(run, len(runs))}}}" if begin else "null")
            last.append(f"[{','.join(words)}]")
        written = Written(f"[{','.join(last)}]".encode())
        return {"last": written, "runs": [self.facts.get(run, {}) for run in runs]}


def _last_words(measured: Measured, rows: NDArray[Any], commit: int) -> Iterator[tuple[str, str]]:
    """The run of each of some rows, and all that is known of the row as JSON up to that run."""
    record = measured.record
    reasons = [text.script_json(text.short(one, 400)) for one in record.words["reason"]]
    versions = [text.script_json(text.short(one, 40)) for one in record.words["version"]]
    codes = (record.codes[name][rows].tolist() for name in ("reason", "version", "run"))
    numbers = (record.numbers[name][rows].tolist() for name in ("error", "clock"))
    each = zip(record.status[rows].tolist(), *codes, *numbers, _samples(record, rows), strict=True)
    for status, reason, version, run, error, clock, samples in each:
        told = (
            f'{{"commit":{commit},"status":"{STATUSES[status]}","reason":{reasons[reason]}'
            f',"error":{error if math.isfinite(error) else "null"}'
            f',"clock":{round(clock) if math.isfinite(clock) else "null"}'
            f',"version":{versions[version]},"samples":[{samples}],"run":'
        )
        yield record.words["run"][run], told


def _samples(record: Record, rows: NDArray[Any]) -> Iterator[str]:
    """The first samples of each of some rows, with five digits."""
    first = record.ends[rows]
    counts = np.minimum(record.ends[rows + 1] - first, _SAMPLES_SHOWN)
    ends = np.cumsum(counts)
    at = np.arange(counts.sum()) + np.repeat(first - ends + counts, counts)
    written = five_digits(record.samples[at]).decode()
    places = zip((ends - counts).tolist(), ends.tolist(), strict=True)
    for begin, end in places:
        yield written[begin * DIGITS_WIDE : end * DIGITS_WIDE].rstrip(",")
