"""The cases of one operator as scatter plots: their times against what they move, how near they
come to the roofline, and their errors. No input or output.

A figure has a mark for each case and implementation; all axes of numbers are logarithmic. Beside it
stands a table with a row a case. What is not known is not drawn: a figure without marks is None.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks import roofline as rates
from benchmarks.measure.timing import Ceilings
from dashboards import text
from dashboards.data import summary
from dashboards.data.frames import records, rows_of
from dashboards.order import natural, ordered_variants
from dashboards.plots import axes
from dashboards.plots.drawing import Drawing
from dashboards.plots.figure import Figure
from dashboards.plots.theme import DASHES, SYMBOLS
from dashboards.suites import KERNELS
from dashboards.tabular import roofline

_LONGEST = 80
"""Characters of a case's name in a figure: a label that shows on hover has one line for it."""
_HEIGHT = 380
_NONE = "–"


@dataclass(frozen=True)
class _Mark:
    """One case of one implementation: its place, its cells in the table, its lines on hover."""

    case: str
    x: float
    y: float
    cells: tuple[str, ...]
    notes: tuple[str, ...]
    symbol: str = ""


_Marks = Mapping[str, Sequence[_Mark]]
"""Implementation → its marks."""


def drawings(
    rows: pd.DataFrame, found: pd.DataFrame, ceilings: Sequence[Ceilings]
) -> dict[str, Drawing]:
    """Those of the figures `latency`, `roofline` and `errors` that there is something to draw of.

    Args:
        rows: rows of one machine, commit and operator.
        found: `roofline.derived` of them.
        ceilings: `roofline.measured` of them.
    """
    made = {
        "latency": latency(found, ceilings),
        "roofline": roofs(found, ceilings),
        "errors": errors(summary.timings(rows)),
    }
    return {name: drawn for name, drawn in made.items() if drawn is not None}


def latency(found: pd.DataFrame, ceilings: Sequence[Ceilings]) -> Drawing | None:
    """Device time against the least bytes that a case must move, a trace an implementation.

    A line shows in which time memory could move them, where its rate is known.
    """
    marks = _by_variant(found, _time_mark)
    if not marks:
        return None
    figure = Figure()
    for number, (variant, some) in enumerate(marks.items()):
        _add(figure, variant, some, number)
    sizes = _ends(mark.x for some in marks.values() for mark in some)
    times = [mark.y for some in marks.values() for mark in some]
    floor: list[float] = []
    rate = _highest(one.copy_bytes_per_s for one in ceilings)
    if rate:
        # Where it lies far below the times it says nothing, and would stretch the axis.
        first = min(max(sizes[0], min(times) / 3e6 * rate), sizes[1])
        floor = [first / rate * 1e6, sizes[1] / rate * 1e6]
        line = list(zip((first, sizes[1]), floor, strict=True))
        _line(figure, f"memory {_rates_in_words(ceilings, '')} TB/s", 0, line)
    axes.logarithmic(figure, "xaxis", "bytes that a case must move (log)", sizes, axes.size)
    axes.logarithmic(figure, "yaxis", "device time (µs, log)", _ends([*times, *floor]))
    _lay_out(figure, _HEIGHT)
    moved = {case: axes.size(moved) for case, moved in rows_of(found, "case", "bytes")}
    cases = _cases(marks)
    label = (
        f"Device time of {_count(len(cases))} against the bytes that each must move, from "
        f"{axes.size(sizes[0])} to {axes.size(sizes[1])}, a mark for each implementation"
    )
    return Drawing(
        figure,
        label,
        KERNELS.unit,
        rows=_table(marks, {"bytes to move": moved}, (", µs (99 % interval)", ", GB/s")),
    )


def _time_mark(row: Mapping[str, Any]) -> _Mark:
    """A case's time at its size."""
    known = math.isfinite(row["low"]) and math.isfinite(row["high"])
    ends = text.interval(row["low"], row["high"])
    time = text.microseconds(row["seconds"])
    rate = rates.gb_per_s(row["bytes_per_s"])
    return _Mark(
        str(row["case"]),
        row["bytes"],
        row["seconds"] * 1e6,
        (f"{time} ({ends.removesuffix(' µs')})" if known else time, rate),
        (f"{time} µs ({f'99 %: {ends}' if known else ends})", f"{rate} GB/s"),
    )


def roofs(found: pd.DataFrame, ceilings: Sequence[Ceilings]) -> Drawing | None:
    """TFLOP/s reached against the operations a byte, of kernl and of eager, under the ceilings.

    None too where no ceiling is known of what the cases need.
    """
    wanted = found[found["variant"].isin([summary.OURS, summary.BASELINE])]
    marks = _by_variant(wanted, _roof_mark)
    units = [unit for unit in roofline.UNITS if unit in set(wanted["unit"])]
    memory = _highest(one.copy_bytes_per_s for one in ceilings)
    products = {unit: _highest(one.flops_per_s[unit] for one in ceilings) for unit in units}
    products = {unit: rate for unit, rate in products.items() if rate}
    if not marks or not (memory or products):
        return None
    figure = Figure()
    for number, (variant, some) in enumerate(marks.items()):
        _add(figure, variant, some, number)
    points = [mark for some in marks.values() for mark in some]
    ridges = [rate / memory for rate in products.values()] if memory else []
    start, end = _ends([mark.x for mark in points] + ridges)
    start, end = start / 1.5, end * 1.5
    roof = [rate / 1e12 for rate in products.values()] or [end * memory / 1e12]
    if memory:
        last = max(ridges, default=end)
        line = [(x, x * memory / 1e12) for x in (start, last)]
        _line(figure, f"memory {_rates_in_words(ceilings, '')} TB/s", 0, line)
    for number, (unit, rate) in enumerate(products.items(), start=1):
        name = f"{_unit_in_words(unit)} {_rates_in_words(ceilings, unit)} TFLOP/s"
        line = [(x, rate / 1e12) for x in (rate / memory if memory else start, end)]
        _line(figure, name, number, line, _symbol_of(unit))
    axes.logarithmic(figure, "xaxis", "arithmetic intensity (FLOP per byte, log)", (start, end))
    axes.logarithmic(figure, "yaxis", "TFLOP/s (log)", _ends([mark.y for mark in points] + roof))
    _lay_out(figure, _HEIGHT)
    intensity = {mark.case: rates.rate(mark.x, 1) for some in marks.values() for mark in some}
    bound = {case: bound or _NONE for case, bound in rows_of(wanted, "case", "bound")}
    label = (
        f"Roofline: TFLOP/s that kernl and eager reach in {_count(len(_cases(marks)))} against the "
        "operations a byte of each, and what memory and products were measured to allow"
    )
    return Drawing(
        figure,
        label,
        "TFLOP/s",
        rows=_table(
            marks,
            {"FLOP per byte": intensity, "bound by": bound},
            (", TFLOP/s", ", % of the ceilings"),
        ),
    )


def _roof_mark(row: Mapping[str, Any]) -> _Mark:
    """The rate of a case at its intensity, and its share of the ceilings of its own run."""
    intensity = row["flops"] / row["bytes"] if row["bytes"] else math.inf
    share, bound = row["share"], row["bound"]
    rate, percent = rates.tflop_per_s(row["flops_per_s"]), rates.percent(share)
    said = [f"{rate} TFLOP/s"]
    if 0 < share < math.inf:
        over = f", {roofline.ABOVE}" if rates.above(share) else ""
        said += [f"{percent} of the measured ceilings{over}", f"bound by {bound}"]
    else:
        said.append("share of the ceilings not known")
    return _Mark(
        str(row["case"]),
        intensity,
        row["flops_per_s"] / 1e12,
        (rate, percent.removesuffix(" %")),
        tuple(said),
        _symbol_of(str(row["unit"])),
    )


def errors(times: pd.DataFrame) -> Drawing | None:
    """Relative L2 error against float64 of each case, a trace an implementation.

    The cases stand beside each other by dtype. An error of 0, which a logarithmic axis does not
    have, lies on a line of its own below the least other one.

    Args:
        times: `summary.timings` of one machine, commit and operator.
    """
    known = times[(times["status"] == "ok") & times["error"].between(0, math.inf, "left")]
    if known.empty:
        return None
    groups: dict[str, list[str]] = {}
    for case in sorted(
        known["case"].unique(), key=lambda name: (_dtype(name), natural(name), name)
    ):
        groups.setdefault(_dtype(case), []).append(case)
    order = [case for cases in groups.values() for case in cases]
    places = {case: place for place, case in enumerate(order)}
    powers = [math.log10(error) for error in known["error"] if error]
    zero = math.floor(min(powers, default=1.0)) - 1
    at_zero = 10.0 ** max(zero, -300)
    figure, marks = Figure(), {}
    for number, variant in enumerate(ordered_variants(known["variant"].unique())):
        mine = known[known["variant"] == variant]
        marks[variant] = [
            _Mark(case, places[case], error or at_zero, *_error_in_words(error))
            for case, error in rows_of(mine, "case", "error")
        ]
        marks[variant].sort(key=lambda mark: mark.x)
        _add(figure, variant, marks[variant], number)
    named = axes.powers(zero + 1, math.ceil(max(powers))) if powers else []
    ticks = {10.0**power: axes.number(10.0**power) for power in named}
    exact = int((known["error"] == 0).sum())
    if exact:
        ticks[at_zero] = "0"
    axis = {
        "type": "log",
        "title": {"text": "relative L2 error (log)"},
        "tickvals": list(ticks),
        "ticktext": list(ticks.values()),
        "range": [zero + (-0.4 if exact else 0.9), max(powers, default=zero + 0.5) + 0.3],
    }
    figure.lay_out(yaxis=axis)
    axes.groups(figure, "cases in natural order", ", by dtype", groups)
    _lay_out(figure, _HEIGHT - 40 if powers else _HEIGHT // 2)
    label = (
        f"Relative L2 error of {_count(len(order))} against float64, a mark for each "
        f"implementation; {exact} of {len(known)} errors are 0"
    )
    return Drawing(figure, label, "", rows=_table(marks, {}, ("",)))


def _error_in_words(error: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """An error's cell, and its line on hover."""
    shown = f"{error:.1e}" if error else "0"
    return (shown,), (shown if error else "0, exact",)


def _dtype(case: str) -> str:
    """What a case's name ends with."""
    return str(case).rpartition(".")[2]


def _by_variant(
    found: pd.DataFrame, mark: Callable[[Mapping[str, Any]], _Mark]
) -> dict[str, list[_Mark]]:
    """Marks of `roofline.derived` by implementation; only those that a logarithmic axis can hold.

    Implementations stand in their usual order.
    """
    marks: dict[str, list[_Mark]] = {
        name: [] for name in ordered_variants(found["variant"].unique())
    }
    for row in records(found):
        made = mark(row)
        if 0 < made.x < math.inf and 0 < made.y < math.inf:
            marks[str(row["variant"])].append(made)
    for some in marks.values():
        some.sort(key=lambda one: (one.symbol, natural(one.case), one.case))
    return {name: some for name, some in marks.items() if some}


def _add(figure: Figure, name: str, marks: Sequence[_Mark], number: int) -> None:
    """A trace of marks. kernl's are filled and on top, the others open and a little larger: where
    two are the same, one is a ring around the other.
    """
    ours = name == summary.OURS
    style = "" if ours else "-open"
    own = f"{SYMBOLS[number % len(SYMBOLS)]}{style}"
    each = [f"{mark.symbol}{style}" for mark in marks if mark.symbol]
    figure.scatter(
        x=[text.number(mark.x, 6) for mark in marks],
        y=[text.number(mark.y, 5) for mark in marks],
        text=[text.figure_text(mark.case, _LONGEST) for mark in marks],
        # Lines, as a phone has no room for two of these side by side.
        customdata=["<br>".join(map(text.figure_text, mark.notes)) for mark in marks],
        name=text.figure_text(name, 40),
        mode="markers",
        cliponaxis=False,
        marker={
            "size": 6 if ours else 8,
            "symbol": each or own,
            "line": {"width": 0 if ours else 1.2},
        },
        meta={"role": text.short(name, 40)},
        hovertemplate="<b>%{fullData.name}</b>  %{customdata}<br>%{text}<extra></extra>",
        zorder=-number,
    )


def _line(
    figure: Figure,
    name: str,
    number: int,
    points: Sequence[tuple[float, float]],
    symbol: str = "",
) -> None:
    """A ceiling: a line in the colour of references; what it is says the legend."""
    figure.scatter(
        x=[text.number(x, 6) for x, _ in points],
        y=[text.number(y, 6) for _, y in points],
        name=name,
        mode="lines+markers" if symbol else "lines",
        cliponaxis=False,
        line={"width": 1.6, "dash": DASHES[number % len(DASHES)]},
        marker={"size": 7, "symbol": symbol or SYMBOLS[0]},
        meta={"role": "reference"},
        hoverinfo="skip",
        zorder=-len(SYMBOLS) - 2,
    )


def _lay_out(figure: Figure, height: int) -> None:
    """A height that leaves room for the legend, which on a phone has a line for each trace."""
    figure.lay_out(height=height + 14 * max(len(figure.data) - 4, 0))


def _symbol_of(unit: str) -> str:
    """The symbol of what a case computes in, the same for a ceiling and for what lies below it."""
    return SYMBOLS[_rank(unit)]


def _rank(unit: str) -> int:
    """The place of what a case computes in; the last for what there is no ceiling of."""
    return roofline.UNITS.index(unit) if unit in roofline.UNITS else len(roofline.UNITS)


def _unit_in_words(unit: str) -> str:
    """Nobody measures the rate of fp8: `Ceilings` takes it for twice that of fp16."""
    return "fp8 (twice fp16)" if unit == "fp8" else unit


def _rates_in_words(ceilings: Sequence[Ceilings], unit: str) -> str:
    """The ceilings of a unit, or of memory, in 10¹² a second: `3.02`, `4.24 to 4.31`."""
    each = (one.flops_per_s[unit] if unit else one.copy_bytes_per_s for one in ceilings)
    return text.figure_text(roofline.spread(each, 1e12))


def _highest(values: Iterable[float]) -> float:
    """The highest of what several runs measured: no mark lies above it by the luck of another run.

    0 where nothing is known.
    """
    return max((value for value in values if math.isfinite(value)), default=0.0)


def _ends(values: Iterable[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return ordered[0], ordered[-1]


def _cases(marks: _Marks) -> list[str]:
    """The cases of all marks in natural order."""
    cases = {mark.case for some in marks.values() for mark in some}
    return sorted(cases, key=lambda case: (natural(case), case))


def _count(cases: int) -> str:
    return f"{cases} case{'' if cases == 1 else 's'}"


def _table(
    marks: _Marks, facts: Mapping[str, Mapping[str, str]], columns: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    """A row for each case: facts of it by heading, then the cells of each implementation's mark.

    `columns` are the headings of those cells, behind the name of the implementation.
    """
    said = {(name, mark.case): mark.cells for name, some in marks.items() for mark in some}
    named = (f"{text.short(name, 40)}{column}" for name in marks for column in columns)
    rows = [("Case", *facts, *named)]
    nothing = (_NONE,) * len(columns)
    for case in _cases(marks):
        of_case = (fact.get(case, _NONE) for fact in facts.values())
        cells = (cell for name in marks for cell in said.get((name, case), nothing))
        rows.append((text.short(case, _LONGEST), *of_case, *cells))
    return tuple(rows)
