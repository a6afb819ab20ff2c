"""What was measured → Plotly figures. No input or output.

Speedup axes are logarithmic, so that 2× and 0.5× lie equally far from 1×.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from benchmarks.asv_file import OK
from dashboards import text
from dashboards.data import ratios, summary
from dashboards.data.cube import ABSENT, Cube
from dashboards.data.history import Change, Commit
from dashboards.data.ratios import Ratios, places
from dashboards.order import natural
from dashboards.plots.drawing import Choice, Drawing, Series, lines, speedup_axis
from dashboards.suites import KERNELS, Suite

ALL = "all cases"
Marks = Mapping[str, Mapping[str, str]]
"""Case → commit → what moved there, in words."""


def mean_trend(
    cube: Cube,
    names: Collection[str],
    order: Sequence[Commit],
    changes: Sequence[Change] = (),
    suite: Suite = KERNELS,
) -> Drawing:
    """Geometric-mean speedup across commits; choices: all operators or models, or one.

    Args:
        cube: of a suite and machine.
        names: the operators or models that count.
        order: the commits that are shown, oldest first.
        changes: where the machine's environment changed.
        suite: what the cube is of.
    """
    there = (cube.status != ABSENT).any(axis=(0, 2, 3))
    counted = sorted({name for name, _ in cube.cases_of(there)} & set(names))
    every = Ratios.of(cube).at([cube.commits.index(commit.id) for commit in order])
    shown = [(f"all {suite.subject}s", counted), *((name, [name]) for name in counted)]
    choices = [(label, _mean_series(every.of_cases(places(cube, some)))) for label, some in shown]
    figure = lines(order, choices[0][1], changes)
    speedup_axis(figure, "speedup, geometric mean (×, log)", len(order))
    return Drawing(
        figure=figure,
        label="Geometric-mean speedup of kernl over eager and over the best alternative by commit",
        unit="×",
        choices=tuple(Choice(label, tuple(s.patch() for s in series)) for label, series in choices),
    )


def _mean_series(found: Ratios) -> list[Series]:
    trends = {
        "over eager": ratios.over_eager(found),
        "over the best alternative": ratios.over_best(found),
    }
    series = []
    for name, trend in trends.items():
        each = zip(trend.mean.tolist(), trend.cases, trend.measured, strict=True)
        notes = tuple(
            f"{text.ratio(value)} over {cases} cases, {measured} of them measured here"
            for value, cases, measured in each
        )
        series.append(Series(name, tuple(map(text.number, trend.mean.tolist())), notes))
    return series


def most_timed(cube: Cube) -> list[str]:
    """The cases of one operator or model: those that most commits timed first.

    Of as many commits, they stand in natural order.
    """
    commits = cube.ok.any(axis=(2, 3)).sum(axis=0).tolist()
    said = (cube.status != ABSENT).any(axis=(0, 2, 3)).tolist()
    each = zip(cube.points.cases, commits, said, strict=True)
    known = [(-count, natural(case), case) for (_, case), count, any_ in each if any_]
    return [case for *_, case in sorted(known)]


def codegen_trend(cube: Cube, metric: str, order: Sequence[Commit]) -> Drawing:
    """A compile-only metric over all cases across commits, a line an architecture.

    Args:
        cube: of one machine and operator.
        metric: which metric.
        order: the commits that are shown, oldest first.
    """
    at = [cube.commits.index(commit.id) for commit in order]
    known = (cube.status != ABSENT).any(axis=(0, 1, 3)).tolist()
    variants = [name for name, any_ in zip(cube.points.variants, known, strict=True) if any_]
    all_cases = [_total_series(cube, at, metric, variant) for variant in variants]
    figure = lines(order, all_cases, ())
    unit = text.unit(metric)
    if metric == "occupancy":
        axis = {"title": {"text": "occupancy (%)"}, "tickformat": ".0%", "range": [0, 1.05]}
    else:
        # Up to 8 in any case: an axis of zeros alone would show fractions of an instruction.
        axis = {
            "title": {"text": unit},
            "tickformat": "~s",
            "rangemode": "tozero",
            "autorangeoptions": {"include": [8]},
        }
    figure.lay_out(yaxis=axis, height=260)
    title = text.METRIC_TITLES.get(metric, metric)
    choices = (Choice(ALL, tuple(line.patch() for line in all_cases)),)
    return Drawing(figure, f"{title} by commit, a line for each architecture", unit, choices)


def _count_note(value: float, metric: str) -> str:
    if not math.isfinite(value):
        return "not measured"
    shown = text.count(value, metric)
    return shown if metric == "occupancy" else f"{shown} {text.unit(metric)}"


def _total_series(cube: Cube, at: Sequence[int], metric: str, variant: str) -> Series:
    """The mean or the sum over the cases by commit; `at` are the places of the commits."""
    value, status = (cube.of(variant, name, metric)[at] for name in ("value", "status"))
    values, notes = [], []
    for of_commit, said in zip(value, status, strict=True):
        known = of_commit[(said == OK) & ~np.isnan(of_commit)]
        if not (said != ABSENT).any():
            values.append(math.nan)
            notes.append("not measured")
            continue
        averaged = metric in summary.MEANS
        total = float(known.mean() if averaged else known.sum()) if known.size else math.nan
        values.append(total)
        kind, cases = "mean" if averaged else "total", int((said != ABSENT).sum())
        notes.append(f"{_count_note(total, metric)}, {kind} of {known.size} of {cases} cases")
    return Series(variant, tuple(text.number(v, 7) for v in values), tuple(notes))
