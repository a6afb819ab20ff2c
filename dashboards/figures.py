"""Rows → Plotly figures. No input or output.

Speedup axes are logarithmic, so that 2× and 0.5× lie equally far from 1×.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import pandas as pd

from dashboards import summary, text
from dashboards.drawing import Choice, Drawing, Series, lines, speedup_axis
from dashboards.history import Change, Commit
from dashboards.suites import KERNELS, Suite

ALL = "all cases"
Marks = Mapping[str, Mapping[str, str]]
"""Case → commit → what moved there, in words."""


def mean_trend(
    frame: pd.DataFrame,
    order: Sequence[Commit],
    changes: Sequence[Change] = (),
    suite: Suite = KERNELS,
) -> Drawing:
    """Geometric-mean speedup across commits; choices: all operators or models, or one.

    Args:
        frame: rows of `summary.speedups` of one machine.
        order: the machine's commits, oldest first.
        changes: where the machine's environment changed.
        suite: what the rows are of.
    """
    choices = []
    choices.append((f"all {suite.subject}s", _mean_series(frame, order)))
    for op in sorted(frame["op"].unique()):
        choices.append((str(op), _mean_series(frame[frame["op"] == op], order)))
    figure = lines(order, choices[0][1], changes)
    speedup_axis(figure, "speedup, geometric mean (×, log)", len(order))
    return Drawing(
        figure=figure,
        label="Geometric-mean speedup of kernl over eager and over the best alternative by commit",
        unit="×",
        choices=tuple(Choice(label, tuple(s.patch() for s in series)) for label, series in choices),
    )


def _mean_series(frame: pd.DataFrame, order: Sequence[Commit]) -> list[Series]:
    found = []
    names = (("over eager", "over_eager"), ("over the best alternative", "over_best"))
    for name, column in names:
        means = summary.trend(frame, column, [commit.id for commit in order])
        values = list(means["mean"])
        notes = [
            f"{text.ratio(value)} over {cases} cases, {measured} of them measured here"
            for value, cases, measured in means.itertuples(index=False)
        ]
        found.append(Series(name, tuple(text.number(v) for v in values), tuple(notes)))
    return found


def most_timed(rows: pd.DataFrame) -> list[str]:
    """The cases of `summary.timings` of one operator or model: those that most commits timed first.

    Of as many commits, they stand in natural order.
    """
    ok = rows[(rows["status"] == "ok") & rows["value"].notna()]
    commits = ok.groupby("case")["commit"].nunique()
    return sorted(
        rows["case"].unique(), key=lambda case: (-int(commits.get(case, 0)), natural(case))
    )


def codegen_trend(rows: pd.DataFrame, metric: str, order: Sequence[Commit]) -> Drawing:
    """A compile-only metric across commits, a line an architecture; choices: all cases, or one.

    Args:
        rows: `summary.codegen` of one machine and operator, all metrics.
        metric: which metric.
        order: the machine's commits, oldest first.
    """
    wanted = rows[rows["metric"] == metric]
    variants = ordered_variants(rows["variant"].unique())
    sums = summary.totals(wanted)
    all_cases = [_total_series(sums, metric, variant, order) for variant in variants]
    choices = [Choice(ALL, tuple(line.patch() for line in all_cases))]
    values = wanted[wanted["status"] == "ok"].set_index(["case", "variant", "commit"])["value"]
    known = {key: float(value) for key, value in values.items()}
    for case in sorted(rows["case"].unique(), key=natural):
        series = []
        for variant in variants:
            line = [known.get((case, variant, commit.id), math.nan) for commit in order]
            notes = tuple(_count_note(value, metric) for value in line)
            series.append(Series(variant, tuple(text.number(v, 7) for v in line), notes))
        choices.append(Choice(str(case), tuple(line.patch() for line in series)))
    figure = lines(order, all_cases, ())
    unit = text.unit(metric)
    if metric == "occupancy":
        figure.update_yaxes(title_text="occupancy (%)", tickformat=".0%", range=[0, 1.05])
    else:
        # Up to 8 in any case: an axis of zeros alone would show fractions of an instruction.
        figure.update_yaxes(
            title_text=unit,
            tickformat="~s",
            rangemode="tozero",
            autorangeoptions_include=[8],
        )
    figure.update_layout(height=260)
    title = text.METRIC_TITLES.get(metric, metric)
    return Drawing(figure, f"{title} by commit, a line for each architecture", unit, tuple(choices))


def _count_note(value: float, metric: str) -> str:
    if not math.isfinite(value):
        return "not measured"
    shown = text.count(value, metric)
    return shown if metric == "occupancy" else f"{shown} {text.unit(metric)}"


def _total_series(sums: pd.DataFrame, metric: str, variant: str, order: Sequence[Commit]) -> Series:
    mine = sums[sums["variant"] == variant].set_index("commit")
    values, notes = [], []
    for commit in order:
        if commit.id not in mine.index:
            values.append(math.nan)
            notes.append("not measured")
            continue
        row = mine.loc[commit.id]
        values.append(float(row["total"]))
        kind = "mean of" if metric in summary.MEANS else "total of"
        cases = f"{kind} {int(row['measured'])} of {int(row['cases'])} cases"
        notes.append(f"{_count_note(float(row['total']), metric)}, {cases}")
    return Series(variant, tuple(text.number(v, 7) for v in values), tuple(notes))


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key that puts `rows8` before `rows16`."""
    found: list[tuple[int, int, str]] = []
    digits = ""
    for character in f"{name}\0":
        if "0" <= character <= "9":
            digits += character
            continue
        if digits:
            found.append((0, int(digits[:30]), ""))
            digits = ""
        found.append((1, 0, character))
    return found


def timed_first(cases: Iterable[str], timed: Collection[str]) -> list[str]:
    """Cases in natural order, those that have times before the others."""
    return sorted(cases, key=lambda case: (case not in timed, natural(case)))


def ordered_variants(names: Iterable[str]) -> list[str]:
    """kernl first, then its parts, eager last, the others between; architectures by number."""
    rank = {summary.OURS: 0, **dict.fromkeys(summary.PARTS, 1), summary.BASELINE: 3}
    return sorted((str(name) for name in names), key=lambda n: (rank.get(n, 2), natural(n)))
