"""What a figure is made of: lines along commits, or marks; choices of a list, a text alternative.

No input or output. A trace carries `meta.role`, and the page's script gives it that role's
colour in the light or the dark theme.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dashboards import text
from dashboards.data.history import Change, Commit
from dashboards.plots.figure import Figure, upright
from dashboards.plots.theme import DASHES, SYMBOLS

_TICKS = 6


@dataclass(frozen=True)
class Choice:
    """What one entry of a figure's drop-down list shows: new attributes for its first traces."""

    label: str
    traces: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Drawing:
    """A figure, its text alternative in one sentence, and what its drop-down list offers.

    `unit` is what the table beside the figure says its numbers are in. `rows` are that table where
    a row is not a commit; the first names the columns.
    """

    figure: Figure
    label: str
    unit: str
    choices: tuple[Choice, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()

    @property
    def marked(self) -> list[dict[str, Any]]:
        """The traces that say something of each of their values."""
        return [trace for trace in self.figure.data if "customdata" in trace]

    def payload(self) -> dict[str, Any]:
        """JSON-ready data, layout and choices."""
        return {
            "data": self.figure.data,
            "layout": self.figure.layout,
            "choices": [list(choice.traces) for choice in self.choices],
        }


@dataclass(frozen=True)
class Series:
    """One line: values along the commits, and a sentence for each on hover."""

    name: str
    values: tuple[float | None, ...]
    notes: tuple[str, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()

    def patch(self) -> dict[str, Any]:
        """The attributes of a scatter trace that depend on the choice."""
        found: dict[str, Any] = {"y": list(self.values), "customdata": list(self.notes)}
        if self.low and self.high:
            ends = list(zip(self.values, self.low, self.high, strict=True))
            found["error_y"] = {
                "type": "data",
                "symmetric": False,
                "array": [_distance(high, value) for value, _, high in ends],
                "arrayminus": [_distance(value, low) for value, low, _ in ends],
                "thickness": 1.2,
                "width": 3,
            }
        return found


def _distance(upper: float | None, lower: float | None) -> float | None:
    return None if upper is None or lower is None else text.number(max(upper - lower, 0.0))


def lines(order: Sequence[Commit], series: Sequence[Series], changes: Sequence[Change]) -> Figure:
    """Lines along the commits; dashed uprights where the environment changed."""
    figure = Figure()
    places = list(range(len(order)))
    labels = [text.figure_text(commit.label) for commit in order]
    for number, line in enumerate(series):
        figure.scatter(
            x=places,
            text=labels,
            name=text.figure_text(line.name, 40),
            mode="lines+markers",
            cliponaxis=False,
            line={"width": 2.4, "dash": DASHES[number % len(DASHES)]},
            marker={"size": 8, "symbol": SYMBOLS[number % len(SYMBOLS)]},
            meta={"role": text.short(line.name, 40)},
            hovertemplate="<b>%{fullData.name}</b>  %{customdata}<br>%{text}<extra></extra>",
            **line.patch(),
        )
    step = max(1, math.ceil(len(order) / _TICKS))
    shown = places[::-1][::step][::-1]
    axis = {
        "title": {"text": "commit"},
        "tickvals": shown,
        "ticktext": [order[place].short for place in shown],
        "range": [-0.4, len(order) - 0.6],
        "showgrid": False,
        "zeroline": False,
    }
    figure.lay_out(xaxis=axis, height=340)
    position = {commit.id: place for place, commit in enumerate(order)}
    for change in changes:
        if change.commit in position:
            at = position[change.commit]
            _upright(figure, at - 0.5, change.text, leftwards=at > len(order) / 2)
    if "annotations" in figure.layout:
        figure.lay_out(legend={"y": 1.1}, margin={"t": 64})
    return figure


def _upright(figure: Figure, place: float, label: str, *, leftwards: bool) -> None:
    """A dotted line between two commits, with what changed there written above the plot."""
    figure.shape(**upright(place))
    figure.annotation(
        x=place,
        y=1,
        yref="paper",
        yanchor="bottom",
        xanchor="right" if leftwards else "left",
        showarrow=False,
        text=text.figure_text(label, 48),
    )


def speedup_axis(figure: Figure, title: str, places: int) -> None:
    """A logarithmic y axis in ×, and a line at 1×, which also keeps 1× in view."""
    figure.scatter(
        x=[-0.4, max(places, 1) - 0.6],
        y=[1.0, 1.0],
        mode="lines",
        name="1×",
        line={"width": 1.4, "dash": "dot"},
        meta={"role": "reference"},
        hoverinfo="skip",
        showlegend=False,
    )
    axis = {"type": "log", "title": {"text": title}, "ticksuffix": "×", "tickformat": "~g"}
    figure.lay_out(yaxis=axis)


def table(drawing: Drawing) -> list[list[str]]:
    """A figure as rows of text: its own, or a commit a row; the first row names the columns."""
    if drawing.rows:
        return [list(row) for row in drawing.rows]
    shown = drawing.marked
    names = [str(trace["meta"]["role"]) for trace in shown]
    rows = [["Commit", *names]]
    for place, label in enumerate(shown[0]["text"] if shown else ()):
        rows.append([html.unescape(label), *(str(trace["customdata"][place]) for trace in shown)])
    return rows
