"""Tables of whole models: each implementation's milliseconds, and how kernl stands against it."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pandas as pd

from dashboards import order, text
from dashboards.data import summary
from dashboards.data.frames import records
from dashboards.suites import MODELS
from dashboards.tabular.tables import ByPoint, Cell, Table, by_point, ratio_cell, remarks, word


def tried(rows: pd.DataFrame) -> pd.DataFrame:
    """The timings of one machine, commit and model without those that no run asked for."""
    times = summary.timings(rows, MODELS.name)
    return times[~((times["status"] == "skipped") & summary.unasked(times["reason"]))]


def opponents(times: pd.DataFrame) -> list[str]:
    """The implementations beside kernl and its parts: eager, then the others by name."""
    ours = {summary.OURS, *summary.PARTS}
    names = [n for n in order.ordered_variants(times["variant"].unique()) if n not in ours]
    return sorted(names, key=lambda name: name != summary.BASELINE)


def cases(rows: pd.DataFrame, newest: pd.DataFrame) -> Table:
    """Every case of one model at one commit; beside each time is kernl's speed over it.

    Args:
        rows: rows of one machine, commit and model.
        newest: `summary.speedups` of them.
    """
    times = tried(rows)
    others = opponents(times)
    at = by_point(times)
    body = []
    for row in _in_order(newest, times):
        case, mine = str(row["case"]), float(row["kernl"])
        cells = [word(case, 80, href=f"#{text.query({'case': case})}")]
        cells += [_own_cell(at, case, summary.OURS)]
        cells += [ratio_cell(row["over_eager"]), ratio_cell(row["over_best"])]
        cells += [word(row["best_name"] or "–", 40)]
        cells += [_against_cell(at, case, name, mine) for name in others]
        cells += [
            _error_cell(at, case),
            word(remarks(at, case, [summary.OURS, *summary.PARTS, *others])),
        ]
        body.append(tuple(cells))
    ours = ("kernl, ms", "over eager, ×", "over best, ×", "Best alternative")
    names = (f"{text.short(name, 24)}, ms" for name in others)
    return Table(("Case", *ours, *names, "Error (eager's)", "Remarks"), tuple(body))


def with_means(rows: pd.DataFrame, newest: pd.DataFrame) -> Table:
    """`cases`, and below them the geometric means of kernl's speed over each implementation."""
    table = cases(rows, newest)
    if len(table.rows) < 2:
        return table
    times = tried(rows)
    means = [summary.geometric_mean(newest[name]) for name in ("over_eager", "over_best")]
    theirs = (
        summary.geometric_mean(over(newest, times, name)["over"]) for name in opponents(times)
    )
    ours = (word("geometric mean"), Cell(""), *map(ratio_cell, means), word(""))
    row = (*ours, *map(ratio_cell, theirs), Cell(""), word(""))
    return replace(table, rows=(*table.rows, row))


def part_means(rows: pd.DataFrame, order: Iterable[str]) -> Table:
    """Geometric means over eager of kernl's parts and of kernl: a row a model that has parts.

    Args:
        rows: rows of one machine and commit.
        order: the models.
    """
    ratios = summary.relative(rows, MODELS.name)
    names = (*summary.PARTS, summary.OURS)
    body = []
    for model in order:
        mine = ratios[ratios["op"] == model]
        if not mine["variant"].isin(summary.PARTS).any():
            continue
        found = (summary.geometric_mean(mine.loc[mine["variant"] == n, "ratio"]) for n in names)
        body.append((word(model, 60), *map(ratio_cell, found)))
    return Table(("model", *names), tuple(body))


def against(rows: pd.DataFrame, newest: pd.DataFrame) -> Table:
    """kernl against each implementation over the cases that both have; arguments as of `cases`."""
    times = tried(rows)
    body = []
    for name in opponents(times):
        found = summary.score(over(newest, times, name), "over")
        cell = word(name, 40)
        if found.worst is None:
            body.append((cell, Cell("0"), Cell("–"), Cell("–"), word("–"), *([Cell("–")] * 3)))
            continue
        compared = found.wins + found.ties + found.losses
        body.append(
            (
                cell,
                Cell(str(compared), compared),
                ratio_cell(found.mean),
                ratio_cell(found.worst.ratio),
                word(found.worst.case, 80),
                Cell(str(found.wins), found.wins),
                Cell(str(found.ties), found.ties),
                Cell(str(found.losses), found.losses, "worse" if found.losses else ""),
            )
        )
    headings = ("Cases", "kernl over it, ×", "worst, ×", "Worst case", "Wins", "Ties", "Losses")
    return Table(("Implementation", *headings), tuple(body))


def parts(rows: pd.DataFrame, newest: pd.DataFrame) -> Table:
    """Times of kernl's parts with their speed over eager; no rows where none was tried."""
    times = tried(rows)
    known = [name for name in summary.PARTS if (times["variant"] == name).any()]
    at = by_point(times)
    body = []
    for row in _in_order(newest, times) if known else ():
        case = str(row["case"])
        cells = [word(case, 80), _own_cell(at, case, summary.BASELINE)]
        for name in (*known, summary.OURS):
            cell = _own_cell(at, case, name)
            ratio = float(row["eager"]) / cell.value if cell.value else math.nan
            note = text.ratio(ratio) if math.isfinite(ratio) else ""
            cells.append(Cell(cell.text, cell.value, cell.tone, note))
        body.append(tuple(cells))
    names = (f"{name}, ms (over eager)" for name in (*known, summary.OURS))
    return Table(("Case", "eager, ms", *names), tuple(body))


def over(newest: pd.DataFrame, times: pd.DataFrame, name: str) -> pd.DataFrame:
    """`summary.speedups` of one commit with a column `over`: kernl's speed over `name`."""
    good = times[(times["variant"] == name) & (times["status"] == "ok") & (times["value"] > 0)]
    theirs = good.set_index(["op", "case"])["value"].rename("theirs")
    joined = newest.join(theirs, on=["op", "case"])
    return newest.assign(over=joined["theirs"] / newest["kernl"])


def _in_order(newest: pd.DataFrame, times: pd.DataFrame) -> Iterable[dict[str, Any]]:
    """The cases that anything was tried in, in natural order."""
    known = newest[newest["case"].isin(times["case"].unique())]
    return sorted(records(known), key=lambda row: order.natural(str(row["case"])))


def _own_cell(at: ByPoint, case: str, name: str) -> Cell:
    """The time of one implementation, or in a word why there is none."""
    if (case, name) not in at:
        return Cell("–", None)
    status, value = at[case, name]["status"], at[case, name]["value"]
    if status == "ok" and value > 0:
        return Cell(text.duration(value, MODELS.unit), text.number(value, 6))
    if status == "skipped" and name == summary.OURS:
        return Cell("left to eager", None)
    return Cell("failed" if status == "ok" else str(status), None, "worse")


def _against_cell(at: ByPoint, case: str, name: str, ours: float) -> Cell:
    """The time of another implementation and kernl's speed over it; marked where kernl loses."""
    cell = _own_cell(at, case, name)
    ratio = cell.value / ours if cell.value else math.nan
    if not math.isfinite(ratio):
        return Cell(cell.text, cell.value)
    tone = "worse" if summary.outcome(ratio) == "loss" else ""
    return Cell(cell.text, cell.value, tone, text.ratio(ratio))


def _error_cell(at: ByPoint, case: str) -> Cell:
    """kernl's relative error with eager's beside it, where they were stored."""
    ours, eager = (
        float(at[case, name]["error"]) if (case, name) in at else math.nan
        for name in (summary.OURS, summary.BASELINE)
    )
    note = f"{eager:.1e}" if math.isfinite(eager) else ""
    return Cell(f"{ours:.1e}" if math.isfinite(ours) else "–", text.number(ours, 6), note=note)
