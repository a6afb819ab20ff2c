"""What the pages Compare and Case load: what every commit measured, by commit and by case.

| file | what it holds |
| --- | --- |
| `data/commits.js` | all commits, oldest first, and which of them each machine has, by suite |
| `data/points-SUITE.js` | operators or models, cases, implementations and metrics of a suite |
| `data/at/MACHINE/SUITE-COMMIT.js` | all that one commit measured there, a number a point |
| `data/of/MACHINE/SUITE-NAME-PART.js` | the times of some cases over all commits |

A point's number is (case · implementations + implementation) · metrics + metric.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.gate.findings import CONTROL, GATED, SAME, TIMED
from dashboards import evidence, summary, text
from dashboards.columns import numbered, packed, places, script
from dashboards.figures import Marks, natural, ordered_variants
from dashboards.history import environment_changes
from dashboards.source import Source

SUITES = ("kernels", "models", "codegen")
STATUSES = ("ok", "failed", "skipped")
POINTS_A_PART = 60_000
"""How many times a file of `data/of` holds at most: it is loaded to show one case."""
_EVIDENCE = tuple(
    re.sub(r"_(.)", lambda found: found[1].upper(), field.name)
    for field in fields(evidence.Evidence)
)
"""Its fields, as scripts name them."""
_SAMPLES_SHOWN = 200


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
class Points:
    """The names that a suite's points are numbered by.

    Attributes:
        names: operators or models.
        cases: (operator or model, case), in the order of pages.
        variants: implementations or architectures.
        metrics: what is measured.
    """

    suite: str
    names: tuple[str, ...]
    cases: tuple[tuple[str, str], ...]
    variants: tuple[str, ...]
    metrics: tuple[str, ...]

    @classmethod
    def of(cls, rows: pd.DataFrame, suite: str) -> "Points":
        """Those of a suite's rows."""
        keys = rows[["op", "case"]].drop_duplicates().itertuples(index=False, name=None)
        cases = sorted(((str(op), str(case)) for op, case in keys), key=_in_order)
        names = tuple(dict.fromkeys(op for op, _ in cases))
        variants = tuple(ordered_variants(rows["variant"].unique()))
        return cls(suite, names, tuple(cases), variants, tuple(sorted(rows["metric"].unique())))

    def numbers(self, rows: pd.DataFrame) -> Any:
        """The number of each row's point."""
        case = places(zip(rows["op"], rows["case"], strict=True), self.cases)
        variant = places(rows["variant"], self.variants)
        metric = places(rows["metric"], self.metrics)
        return (case * len(self.variants) + variant) * len(self.metrics) + metric

    def file(self, hrefs: Mapping[str, str]) -> bytes:
        """`data/points-SUITE.js`."""
        at = {name: place for place, name in enumerate(self.names)}
        slugs = text.slugs(self.names)
        return script(
            f"points-{self.suite}",
            {
                "names": [text.short(name) for name in self.names],
                "hrefs": [hrefs.get(name, "") for name in self.names],
                "slugs": [slugs[name] for name in self.names],
                "cases": [text.short(case) for _, case in self.cases],
                "of": packed([at[op] for op, _ in self.cases], "u16"),
                "variants": [text.short(name) for name in self.variants],
                "metrics": [text.short(name) for name in self.metrics],
            },
        )


def _in_order(key: tuple[str, str]) -> Any:
    return key[0], natural(key[1])


def files(
    source: Source, hrefs: Mapping[str, str], marks: Callable[[str, str], Marks]
) -> Iterator[tuple[str, bytes]]:
    """All of them, as relative path and content.

    Args:
        source: what the pages are made from.
        hrefs: operator or model → its page.
        marks: of a machine and an operator or model, where its cases moved.
    """
    rows = source.rows
    folders = text.slugs(sorted(rows["machine"].unique()))
    commits = {commit.id: place for place, commit in enumerate(source.commits)}
    measured: dict[str, dict[str, list[int]]] = {machine: {} for machine in folders}
    implementations: dict[str, list[str]] = {}
    runs = {str(run["run"]): run for run in source.runs.to_dict("records")}
    for suite in SUITES:
        of_suite = rows[rows["suite"] == suite]
        if of_suite.empty:
            continue
        points = Points.of(of_suite, suite)
        if suite in TIMED:
            implementations[suite] = [text.short(name) for name in points.variants]
        yield f"data/points-{suite}.js", points.file(hrefs)
        for (machine, commit), part in of_suite.groupby(["machine", "commit"], sort=True):
            if not (part["status"] == "ok").any():
                continue
            measured[machine].setdefault(suite, []).append(commits[commit])
            name = f"at/{folders[machine]}/{suite}-{commits[commit]}"
            yield f"data/{name}.js", script(name, at_commit(part, points, runs))
        if suite in TIMED:
            for _, part in of_suite.groupby("machine", sort=True):
                yield from _series(source, part, points, runs, marks)
    yield (
        "data/commits.js",
        script(
            "commits",
            {
                "commits": [
                    [c.id, c.authored or c.committed, text.short(c.subject, 72)]
                    for c in source.commits
                ],
                "machines": [
                    {
                        "name": text.short(machine, 60),
                        "folder": folder,
                        "measured": {s: sorted(some) for s, some in measured[machine].items()},
                        "changes": {
                            suite: _changes(source, machine, sorted(some))
                            for suite, some in measured[machine].items()
                        },
                    }
                    for machine, folder in folders.items()
                    if measured[machine]
                ],
                "implementations": implementations,
            },
        ),
    )


def at_commit(
    rows: pd.DataFrame, points: Points, runs: Mapping[str, Mapping[Any, Any]]
) -> dict[str, Any]:
    """What one commit measured of a suite on a machine, and what a verdict needs besides."""
    numbers = points.numbers(rows)
    order = np.argsort(numbers, kind="stable")
    rows, numbers = rows.iloc[order], numbers[order]
    prints, print_of = numbered(
        tuple(_known(runs.get(str(run), {}).get(key)) for key in SAME[points.suite])
        for run in rows["run"]
    )
    versions, version_of = numbered(rows["version"])
    reasons, reason_of = numbered(map(text.short, rows["reason"]))
    found = {
        "point": packed(numbers, "u32"),
        "status": packed([STATUSES.index(_status(one)) for one in rows["status"]], "u8"),
        "value": packed(rows["value"].astype(float), "f64"),
        "print": packed(print_of, "u16"),
        "prints": [dict(zip(SAME[points.suite], one, strict=True)) for one in prints],
        "version": packed(version_of, "u16"),
        "versions": [text.short(one, 40) for one in versions],
        "reason": packed(reason_of, "u16"),
        "reasons": reasons,
    }
    if points.suite in TIMED:
        found["low"] = packed(rows["low"].astype(float), "f32")
        found["high"] = packed(rows["high"].astype(float), "f32")
        found["evidence"] = _evidence(rows, numbers)
    return found


def _evidence(rows: pd.DataFrame, numbers: Any) -> dict[str, Any]:
    """Of kernl's points, what `static/verdicts.js` judges by, column by column."""
    controls = rows[rows["variant"] == CONTROL].to_dict("records")
    control = {(row["op"], row["case"]): row for row in controls}
    of_kernl = ((rows["variant"] == GATED) & (rows["status"] == "ok")).to_numpy()
    found = [
        astuple(evidence.of_row(row, control.get((row["op"], row["case"]))))
        for row in rows[of_kernl].to_dict("records")
    ]
    columns = np.array(found, float).reshape(-1, len(_EVIDENCE)).T
    return {
        "point": packed(numbers[of_kernl], "u32"),
        **{name: packed(column, "f64") for name, column in zip(_EVIDENCE, columns, strict=True)},
    }


def _series(
    source: Source,
    rows: pd.DataFrame,
    points: Points,
    runs: Mapping[str, Mapping[Any, Any]],
    marks: Callable[[str, str], Marks],
) -> Iterator[tuple[str, bytes]]:
    """The files of `data/of` of a suite on a machine."""
    place = {commit.id: number for number, commit in enumerate(source.commits)}
    machine = str(rows["machine"].iloc[0])
    for name, part in rows.groupby("op", sort=True):
        found, known = set(part["commit"].unique()), set(part["case"].unique())
        order = [commit.id for commit in source.commits if commit.id in found]
        cases = [case for op, case in points.cases if op == name and case in known]
        variants = ordered_variants(part["variant"].unique())
        size = max(1, POINTS_A_PART // max(1, len(order) * len(variants)))
        title = SeriesFiles.of(machine, points.suite, str(name)).files
        for at, begin in enumerate(range(0, len(cases), size)):
            some = cases[begin : begin + size]
            these = part[part["case"].isin(some)]
            content = of_cases(these, some, variants, order, place, runs)
            yield f"data/{title}-{at}.js", script(f"{title}-{at}", content)
        moved = marks(machine, str(name))
        listed = {
            "cases": [text.short(case) for case in cases],
            "size": size,
            "moves": [
                [[place[one], text.short(said)] for one, said in moved.get(case, {}).items()]
                for case in cases
            ],
        }
        yield f"data/{title}.js", script(title, listed)


def _changes(source: Source, machine: str, commits: Sequence[int]) -> list[list[Any]]:
    """Where a machine's libraries or driver changed, in words."""
    place = {commit.id: number for number, commit in enumerate(source.commits)}
    order = tuple(source.commits[number] for number in commits)
    found = environment_changes(source.runs, machine, order)
    return [[place[one.commit], text.short(one.text, 48)] for one in found]


def of_cases(
    rows: pd.DataFrame,
    cases: Sequence[str],
    variants: Sequence[str],
    order: Sequence[str],
    place: Mapping[str, int],
    runs: Mapping[str, Mapping[Any, Any]],
) -> dict[str, Any]:
    """Times of some cases of an operator or model over its commits, and of each its last word.

    Args:
        rows: of one suite, machine and operator or model.
        cases: in the order in which they are packed.
        variants: the same of implementations.
        order: the same of commits, oldest first.
        place: the number of each commit among all.
        runs: fingerprint of each run by its id.
    """
    shape = (len(cases), len(variants), len(order))
    grids = {name: np.full(shape, np.nan) for name in ("value", "low", "high")}
    at = (
        places(rows["case"], cases),
        places(rows["variant"], variants),
        places(rows["commit"], order),
    )
    good = (rows["status"] == "ok").to_numpy()
    for name, grid in grids.items():
        grid[at] = np.where(good, rows[name].astype(float).to_numpy(), np.nan)
    last: list[list[dict[str, Any] | None]] = [[None] * len(variants) for _ in cases]
    asked = (rows["status"] != "skipped") | ~summary.unasked(rows["reason"])
    told = rows.assign(at=at[2])[asked]
    newest = told.sort_values("at", kind="stable").drop_duplicates(["case", "variant"], keep="last")
    case_at = {case: number for number, case in enumerate(cases)}
    variant_at = {name: number for number, name in enumerate(variants)}
    for row in newest.to_dict("records"):
        last[case_at[row["case"]]][variant_at[row["variant"]]] = _last_word(row, place, runs)
    return {
        "cases": [text.short(case) for case in cases],
        "variants": [text.short(name) for name in variants],
        "commits": [place[commit] for commit in order],
        **{name: packed(grid, "f32") for name, grid in grids.items()},
        "last": last,
    }


def _last_word(
    row: Mapping[Any, Any], place: Mapping[str, int], runs: Mapping[str, Mapping[Any, Any]]
) -> dict[str, Any]:
    """All that is known of a point where it was measured last."""
    run = runs.get(str(row["run"]), {})
    error = float(row["error"])
    return {
        "commit": place[row["commit"]],
        "status": _status(row["status"]),
        "reason": text.short(row["reason"], 400),
        "error": error if math.isfinite(error) else None,
        "version": text.short(row["version"], 40),
        "samples": [float(f"{one:.5g}") for one in row["samples"][:_SAMPLES_SHOWN]],
        "run": {
            text.short(key, 40): said
            for key, value in run.items()
            if key not in ("run", "machine", "commit") and (said := _known(value))
        },
    }


def _status(value: object) -> str:
    return str(value) if value in STATUSES else "failed"


def _known(value: object) -> str:
    """A fact of a run in words; empty where it is unknown."""
    if value is None or value != value:
        return ""
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, float):
        return f"{value:.6g}"
    return text.short(value, 80)
