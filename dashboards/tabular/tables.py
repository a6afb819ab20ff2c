"""Tables of the pages: rows of the store → cells with text, sort value, tone and link."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks.cases import was_left_out
from dashboards import order, text
from dashboards.data import summary
from dashboards.data.frames import records
from dashboards.data.history import Commit
from dashboards.suites import KERNELS, Suite

ByPoint = Mapping[tuple[str, str], Mapping[Any, Any]]
"""(case, implementation) → a row of timings."""
MOST_CHANGES = 300
"""Changed compile-only figures that a page lists; the worst come first."""


@dataclass(frozen=True)
class Cell:
    """A table cell; `value` sorts it where the text does not."""

    text: str
    value: float | None = None
    tone: str = ""
    note: str = ""
    href: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """A table of cells; `full` is how many rows there are where not all are shown."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    full: int = 0


@dataclass(frozen=True)
class Columns:
    """Further columns of a table of cases: their cells by case, of a kind in each case."""

    headings: tuple[str, ...]
    cells: Mapping[str, tuple[Cell, ...]]

    def of(self, case: str) -> tuple[Cell, ...]:
        """The cells of a case; dashes where it has none."""
        some = next(iter(self.cells.values()), ())
        return self.cells.get(case, tuple(Cell("–", numeric=cell.numeric) for cell in some))


def word(
    value: object, longest: int = text.LONGEST, *, href: str = "", tone: str = "", note: str = ""
) -> Cell:
    """A cell of foreign text, cut to `longest` characters."""
    return Cell(text.short(value, longest), numeric=False, href=href, tone=tone, note=note)


def _op_cell(op: str, hrefs: Mapping[str, str], opt_in: Collection[str]) -> Cell:
    """The name of an operator, marked if it is opt-in: the means beside the table leave it out."""
    return word(op, 60, href=hrefs[op], note="opt-in" if op in opt_in else "")


def ratio_cell(ratio: float) -> Cell:
    """A speedup, marked as better or worse unless it is a tie."""
    tone = {"win": "better", "loss": "worse"}.get(summary.outcome(ratio), "")
    return Cell(text.ratio(ratio), text.number(ratio, 6), tone)


def duration_cell(
    value: float, low: float = math.nan, high: float = math.nan, unit: str = "µs"
) -> Cell:
    """A time, with its interval where one is known."""
    note = text.interval(low, high).removesuffix(" µs") if math.isfinite(low + high) else ""
    return Cell(text.duration(value, unit), text.number(value, 6), note=note)


def case_href(hrefs: Mapping[str, str], op: str, case: str) -> str:
    """The address of a case on the page of its operator or model."""
    return f"{hrefs[op]}#{text.query({'case': case})}"


def losses(
    newest: pd.DataFrame,
    hrefs: Mapping[str, str],
    opt_in: Collection[str] = (),
    suite: Suite = KERNELS,
) -> Table:
    """The `summary.speedups` of one commit in which an alternative wins, worst first."""
    rows = []
    for row in records(summary.losses(newest)):
        op, case = str(row["op"]), str(row["case"])
        rows.append(
            (
                _op_cell(op, hrefs, opt_in),
                word(case, 80, href=case_href(hrefs, op, case)),
                ratio_cell(row["over_best"]),
                duration_cell(row["kernl"], unit=suite.unit),
                word(row["best_name"], 40),
                duration_cell(row["best"], unit=suite.unit),
            )
        )
    subject, unit = suite.subject.capitalize(), suite.unit
    times = (f"kernl, {unit}", "Faster", f"Its time, {unit}")
    return Table((subject, "Case", "kernl against it, ×", *times), tuple(rows))


def unmeasured(
    newest: pd.DataFrame,
    hrefs: Mapping[str, str],
    opt_in: Collection[str] = (),
    suite: Suite = KERNELS,
) -> Table:
    """The `summary.speedups` of one commit without a time of kernl's own, with reasons."""
    words = {
        "failed": ("failed", "worse"),
        "fallback": ("left to eager (1.0×)", ""),
        "missing": ("not run", ""),
    }
    rows = []
    for row in records(newest[newest["status"] != "ok"]):
        op, case = str(row["op"]), str(row["case"])
        said, tone = words.get(str(row["status"]), (str(row["status"]), ""))
        rows.append(
            (
                _op_cell(op, hrefs, opt_in),
                word(case, 80, href=case_href(hrefs, op, case)),
                word(said, tone=tone),
                word(row["reason"] or "no reason recorded"),
            )
        )
    return Table((suite.subject.capitalize(), "Case", "kernl", "Reason"), tuple(rows))


def cases(rows: pd.DataFrame, newest: pd.DataFrame, further: Columns | None = None) -> Table:
    """Every case of one operator at one commit: times with intervals, speedups, error.

    Those that have times come first. `further` columns stand behind the speedups.
    """
    further = further or Columns((), {})
    times = by_point(summary.timings(rows))
    variants = order.ordered_variants({variant for _, variant in times})
    timed = {case for (case, _), row in times.items() if row["status"] == "ok"}
    speedups = {str(row["case"]): row for row in records(newest)}
    body = []
    for case in order.timed_first(speedups, timed):
        row = speedups[case]
        cells = [word(case, 80, href=f"#{text.query({'case': case})}")]
        for variant in variants:
            cells.append(_variant_cell(times, case, variant))
        key = (case, summary.OURS)
        error = float(times[key]["error"]) if key in times else math.nan
        shown = f"{error:.1e}" if math.isfinite(error) else "–"
        cells += [ratio_cell(row["over_eager"]), ratio_cell(row["over_best"]), *further.of(case)]
        cells += [Cell(shown, text.number(error, 6)), word(remarks(times, case, variants))]
        body.append(tuple(cells))
    names = tuple(f"{text.short(name, 24)}, µs (99 % interval)" for name in variants)
    tail = ("over eager, ×", "over best, ×", *further.headings, "relative error", "Remarks")
    return Table(("Case", *names, *tail), tuple(body))


def by_point(times: pd.DataFrame) -> ByPoint:
    """Timings of one commit and one operator or model by case and implementation."""
    rows = times[["case", "variant", "value", "low", "high", "status", "reason", "error"]]
    return {(row["case"], row["variant"]): row for row in records(rows)}


def remarks(times: ByPoint, case: str, variants: Iterable[str]) -> str:
    """Why an implementation has no time, or what to know of it: `kernl: out of memory`."""
    reasons = (
        (name, str(times[case, name]["reason"])) for name in variants if (case, name) in times
    )
    return "; ".join(f"{name}: {reason}" for name, reason in reasons if reason)


def _variant_cell(times: ByPoint, case: str, variant: str) -> Cell:
    row = times.get((case, variant))
    if row is None:
        return Cell("–", None, note="not run")
    if row["status"] != "ok":
        return Cell(str(row["status"]), None)
    return duration_cell(float(row["value"]), float(row["low"]), float(row["high"]))


def _delta(metric: str, step: float | None) -> tuple[str, str]:
    """A change in words with a sign, and its tone."""
    if step is None or step == 0 or not math.isfinite(step):
        return "", ""
    worse = (step < 0) == (metric in summary.HIGHER_IS_BETTER)
    shown = text.count(abs(step), metric)
    return f"{'+' if step > 0 else '−'}{shown}", "worse" if worse else "better"


def totals(
    rows: pd.DataFrame,
    machine: str,
    previous: Commit | None,
    newest: Commit,
    hrefs: Mapping[str, str],
) -> Table:
    """Compile-only totals at `newest`, and how they moved since `previous`."""
    sums = summary.totals(rows[rows["commit"] == newest.id])
    steps = summary.codegen_deltas(rows, machine, previous.id, newest.id) if previous else {}
    body = []
    for (op, variant), part in sums.groupby(["op", "variant"], sort=False):
        by_metric = part.set_index("metric")
        cells = [word(op, 60, href=hrefs[str(op)]), word(variant, 24)]
        for metric in text.METRIC_TITLES:
            if metric not in by_metric.index:
                cells.append(Cell("–"))
                continue
            total = float(by_metric.at[metric, "total"])
            note, tone = _delta(metric, steps.get((str(op), str(variant), metric)))
            cells.append(Cell(text.count(total, metric), text.number(total, 9), tone, note))
        cases = f"{int(part['measured'].min())} of {int(part['cases'].max())}"
        body.append((*cells, Cell(cases, text.number(float(part["measured"].min())))))
    body.sort(key=lambda cells: (cells[0].text, order.natural(cells[1].text)))
    return Table(("Operator", "Architecture", *_metric_headings(), "Cases compiled"), tuple(body))


def _metric_headings() -> tuple[str, ...]:
    """The compile-only metrics with their units."""
    units = {"registers": "per thread", "occupancy": "%"}
    units |= dict.fromkeys(("instructions", "memory_instructions"), "")
    named = (
        (title, units.get(name, text.unit(name))) for name, title in text.METRIC_TITLES.items()
    )
    return tuple(f"{title} ({unit})" if unit else title for title, unit in named)


def changes(
    rows: pd.DataFrame,
    machine: str,
    previous: Commit | None,
    newest: Commit,
    hrefs: Mapping[str, str],
) -> Table:
    """Compile-only figures that differ between two commits, worst first."""
    body = []
    if previous is not None:
        found = summary.codegen_changes(rows, machine, previous.id, newest.id)
        for row in records(found.head(MOST_CHANGES)):
            op, case, metric = str(row["op"]), str(row["case"]), str(row["metric"])
            note, tone = _delta(metric, row["after"] - row["before"])
            body.append(
                (
                    word(op, 60, href=hrefs[op]),
                    word(case, 80, href=f"{hrefs[op]}#{text.query({'compiled': case})}"),
                    word(row["variant"], 24),
                    word(text.METRIC_TITLES.get(metric, metric), 40),
                    Cell(text.count(row["before"], metric), text.number(row["before"], 9)),
                    Cell(text.count(row["after"], metric), text.number(row["after"], 9)),
                    Cell(note, text.number(row["change"], 6), tone),
                )
            )
    headings = ("Operator", "Case", "Architecture", "Metric", "Before", "After", "Change")
    return Table(headings, tuple(body), len(found) if previous is not None else 0)


def codegen_cases(rows: pd.DataFrame) -> Table:
    """Every case and architecture of one operator at one commit, but what was not asked for."""
    rows = rows[~rows["reason"].map(was_left_out).astype(bool)]
    values: dict[tuple[str, str], dict[str, float]] = {}
    remarks: dict[tuple[str, str], set[str]] = {}
    for row in records(rows):
        key = (str(row["case"]), str(row["variant"]))
        found = values.setdefault(key, {})
        if row["status"] == "ok":
            found[str(row["metric"])] = float(row["value"])
        else:
            remarks.setdefault(key, set()).add(str(row["reason"] or row["status"]))
    body = []
    for key in sorted(values, key=lambda k: (order.natural(k[0]), order.natural(k[1]))):
        cells = [word(key[0], 80, href=f"#{text.query({'compiled': key[0]})}"), word(key[1], 24)]
        for metric in text.METRIC_TITLES:
            value = values[key].get(metric, math.nan)
            cells.append(Cell(text.count(value, metric), text.number(value, 9)))
        body.append((*cells, word("; ".join(sorted(remarks.get(key, ()))))))
    return Table(("Case", "Architecture", *_metric_headings(), "Remarks"), tuple(body))
