"""Speedups as heat maps: blue where kernl is faster, orange where slower. No input or output."""

import math
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from dashboards import text
from dashboards.data.frames import records, rows_of
from dashboards.order import natural, ordered_variants
from dashboards.plots.drawing import Drawing
from dashboards.plots.figure import Figure

_STRONGEST = 4.0
"""The colours end at 2 ** 4 = 16×."""
_SHAPE = re.compile(r"batch(\d{1,9})_seq(\d{1,9})(?:_(.+))?\.[^.]+")

_Grid = Sequence[Sequence[float | None]]
_Words = Sequence[Sequence[str]]


def heat_map(frame: pd.DataFrame) -> Drawing:
    """Speedups over eager: a row a shape, a column a dtype and implementation.

    Args:
        frame: `summary.relative` of one machine, commit and operator or model.
    """
    parts = frame["case"].str.rpartition(".")
    table = frame.assign(shape=parts[0].where(parts[0] != "", parts[2]), dtype=parts[2])
    variants = ordered_variants(table["variant"].unique())
    columns = [(d, v) for d in sorted(table["dtype"].unique()) for v in variants]
    shapes = sorted(table["shape"].unique(), key=natural)
    cells = {
        (shape, dtype, variant): (float(value), str(status))
        for shape, dtype, variant, value, status in rows_of(
            table, "shape", "dtype", "variant", "ratio", "status"
        )
    }
    found = [[cells.get((shape, *column)) for column in columns] for shape in shapes]
    figure = _heat(
        ratios=[[None if cell is None else cell[0] for cell in row] for row in found],
        words=[["" if cell is None else text.ratio(cell[0]) for cell in row] for row in found],
        notes=[[_cell_note(cell) for cell in row] for row in found],
        x=[[_lines(c[level], 24) for c in columns] for level in range(2)],
        y=[text.figure_text(shape, 48) for shape in shapes],
    )
    axis = {"showdividers": False, "tickangle": 0}
    figure.lay_out(xaxis=axis, height=120 + 24 * max(len(shapes), 4))
    return Drawing(
        figure, "Speedup over eager by shape, dtype and implementation, as a heat map", "×"
    )


def grid(newest: pd.DataFrame) -> Drawing | None:
    """kernl over the best alternative of each case: a row a batch, a column a length.

    Args:
        newest: `summary.speedups` of one machine, commit and model.

    Returns:
        The figure; None where the cases are not a grid of batches and lengths.
    """
    known = newest[newest["over_best"].notna()]
    cells: dict[tuple[tuple[int, str], int], dict[str, Any]] = {}
    for row in records(known):
        shape = _SHAPE.fullmatch(str(row["case"]))
        if shape:
            cells[(int(shape[1]), shape[3] or ""), int(shape[2])] = row
    batches, lengths = sorted({b for b, _ in cells}), sorted({s for _, s in cells})
    if len(batches) < 2 or len(lengths) < 2:
        return None
    found = [[cells.get((batch, length)) for length in lengths] for batch in batches]
    figure = _heat(
        ratios=[[None if c is None else float(c["over_best"]) for c in line] for line in found],
        words=[[_grid_words(cell) for cell in line] for line in found],
        notes=[[_grid_note(cell) for cell in line] for line in found],
        x=[str(length) for length in lengths],
        y=[
            text.figure_text(f"batch {batch}" + (f", {mark}" if mark else ""), 48)
            for batch, mark in batches
        ],
    )
    axis = {"type": "category", "title": {"text": "length of the sequences"}}
    figure.lay_out(xaxis=axis, height=110 + 60 * max(len(batches), 2))
    return Drawing(
        figure, "kernl over the best alternative by batch and length, as a heat map", "×"
    )


def _heat(
    ratios: _Grid, words: _Words, notes: _Words, x: Sequence[Any], y: Sequence[str]
) -> Figure:
    """A heat map on a logarithmic scale around 1×, with words in its cells."""
    logs = [[None if r is None else text.number(math.log2(r)) for r in row] for row in ratios]
    largest = max((abs(z) for row in logs for z in row if z is not None), default=1.0)
    bound = min(max(largest, 1.0), _STRONGEST)
    figure = Figure()
    figure.heat_map(
        z=logs,
        x=x,
        y=y,
        text=words,
        customdata=notes,
        texttemplate="%{text}",
        hovertemplate="<b>%{y}</b><br>%{x}: %{customdata}<extra></extra>",
        zmin=-bound,
        zmax=bound,
        xgap=2,
        ygap=2,
        meta={"role": "speedup"},
        colorbar=_colour_bar(bound),
    )
    figure.lay_out(
        xaxis={"side": "top", "showgrid": False},
        yaxis={"autorange": "reversed", "showgrid": False, "ticklabelstandoff": 6},
        dragmode=False,
    )
    return figure


def _cell_note(cell: tuple[float, str] | None) -> str:
    if cell is None:
        return "not measured"
    if cell[1] == "skipped":
        return "1.00× (left to eager)"
    return f"{text.ratio(cell[0])} over eager"


def _grid_words(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return ""
    return f"{text.ratio(cell['over_best'])}<br>{_lines(cell['best_name'], 32)}"


def _lines(name: object, longest: int) -> str:
    """A name that is broken after its first underscore: `compile_` and `reduce_overhead`."""
    return text.figure_text(name, longest).replace("_", "_<br>", 1)


def _grid_note(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "not measured"
    ours, best = (text.duration(cell[name], "ms") for name in ("kernl", "best"))
    name = text.figure_text(cell["best_name"], 40)
    left = ", left to eager" if cell["status"] == "fallback" else ""
    return f"kernl {ours} ms{left}, {name} {best} ms"


def _colour_bar(bound: float) -> dict[str, Any]:
    ticks = list(range(-math.floor(bound), math.floor(bound) + 1))
    return {
        "tickvals": ticks,
        "ticktext": [f"{2.0**tick:g}×" for tick in ticks],
        "thickness": 12,
        "outlinewidth": 0,
        "lenmode": "pixels",
        "len": 220,
        "y": 1,
        "yanchor": "top",
    }
