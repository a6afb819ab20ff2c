"""A figure of lines as a small drawing of its own, which needs no script and no Plotly.

Plotly is 4.5 MB and takes a second to start. A page that is looked at every morning shows such a
drawing first; Plotly comes when somebody points at it. Places are per cent, so that words keep
their size on a narrow screen.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dashboards import text
from dashboards.data.cube import Cube
from dashboards.plots.drawing import Drawing
from dashboards.plots.theme import DASHES, ROLES, SPARE

_TOP, _BOTTOM = 8.0, 86.0
"""Per cent of the height at which the highest and the lowest value lie."""
_MOST_TICKS = 4
_SIDE = 1.5
"""Per cent of the width that is left at either side."""


@dataclass(frozen=True)
class Line:
    """One line: `points` lie on a field of 1000 × 1000; `colour` and `dash` name style classes."""

    name: str
    colour: str
    number: int
    pieces: tuple[str, ...]


@dataclass(frozen=True)
class Tick:
    """A word at a place, per cent of the width or height; `anchor` is the end that lies there."""

    at: float
    text: str
    anchor: str = "start"


@dataclass(frozen=True)
class Preview:
    """What a template draws.

    Attributes:
        lines: with names that a legend shows.
        levels: horizontal lines with their values.
        one: where 1× lies, per cent of the height; None where that means nothing.
        commits: words below the drawing.
    """

    lines: tuple[Line, ...]
    levels: tuple[Tick, ...]
    one: float | None
    commits: tuple[Tick, ...]


def of_speedups(drawing: Drawing) -> Preview | None:
    """That of a figure of speedups along commits; None where it has no value."""
    series = {
        str(trace["meta"]["role"]): [math.nan if y is None else float(y) for y in trace["y"]]
        for trace in drawing.marked
    }
    axis = drawing.figure.layout["xaxis"]
    named = dict(zip(axis["tickvals"], axis["ticktext"], strict=True))
    return _of(series, named, "×", include=1.0)


def of_times(cube: Cube, case: str, unit: str) -> Preview | None:
    """That of the times of a case of one operator or model; None where it has none.

    Like the figure it shows the commits that timed the case at all.
    """
    at = [name for _, name in cube.points.cases].index(case)
    times = {name: cube.times(name)[:, at] for name in cube.points.variants}
    timed = [row for row in range(len(cube.commits)) if any(t[row] > 0 for t in times.values())]
    scale = text.TIME_UNITS[unit]
    series = {name: [scale * float(of[row]) for row in timed] for name, of in times.items()}
    series = {name: of for name, of in series.items() if any(one > 0 for one in of)}
    named = {place: cube.commits[row][:8] for place, row in enumerate(timed)}
    return _of(series, named, f" {unit}")


def spark(values: Sequence[float | None]) -> tuple[str, ...]:
    """A line without axes, on a field of 1000 × 1000: how one number went along the commits.

    Its height is the span of the values, or 5 % where that is less: noise is to look like noise.
    """
    known = [math.log(one) for one in values if one is not None and 0 < one < math.inf]
    if not known:
        return ()
    middle, span = (max(known) + min(known)) / 2, max(max(known) - min(known), math.log(1.05))
    across = [_across(place, len(values)) for place in range(len(values))]

    def height(value: float) -> float:
        return round(50 - 80 * (math.log(value) - middle) / span, 2)

    return _pieces([math.nan if one is None else one for one in values], across, height)


def _of(
    series: Mapping[str, Sequence[float]],
    named: Mapping[int, str],
    unit: str,
    include: float | None = None,
) -> Preview | None:
    """A preview of lines by name on a logarithmic scale, which holds `include` too.

    `named` are the words of places along the commits.
    """
    known = [y for values in series.values() for y in values if 0 < y < math.inf]
    if not known:
        return None
    ends = known if include is None else [*known, include]
    low, high = math.log(min(ends)), math.log(max(ends))
    room = max((high - low) * 0.05, 0.02)
    low, high = low - room, high + room

    def height(value: float) -> float:
        """Per cent from above."""
        return round(_BOTTOM - (math.log(value) - low) / (high - low) * (_BOTTOM - _TOP), 2)

    count = max(len(values) for values in series.values())
    across = [_across(place, count) for place in range(count)]
    lines = tuple(
        Line(
            name=text.short(name, 40),
            colour=ROLES.get(name, SPARE[number % len(SPARE)]),
            number=number % len(DASHES),
            pieces=_pieces(values, across, height),
        )
        for number, (name, values) in enumerate(series.items())
    )
    levels = tuple(
        Tick(height(level), f"{level:g}{unit}")
        for level in _levels(math.exp(low), math.exp(high))
        if level != include
    )
    one = height(include) if include is not None else None
    return Preview(lines, levels, one, _commits(named, count))


def _across(place: int, count: int) -> float:
    """Per cent from the left of one of so many places."""
    return 50.0 if count < 2 else _SIDE + (100 - 2 * _SIDE) * place / (count - 1)


def _pieces(
    values: Sequence[float], across: Sequence[float], height: Callable[[float], float]
) -> tuple[str, ...]:
    """The points of a line, a text for each piece between two gaps."""
    pieces: list[list[str]] = []
    piece: list[str] = []
    for value, x in zip(values, across, strict=True):
        if 0 < value < math.inf:
            piece.append(f"{10 * x:.1f},{10 * height(value):.1f}")
        elif piece:
            pieces.append(piece)
            piece = []
    pieces.append(piece)
    # A single point is drawn as a line of no length, which round ends make a dot.
    return tuple(" ".join(one * (2 if len(one) == 1 else 1)) for one in pieces if one)


def _levels(low: float, high: float) -> Sequence[float]:
    """A few round values between two."""
    for step in (1.05, 1.1, 1.25, 1.5, 2.0, 4.0, 10.0, 100.0):
        found = _powers(step, low, high)
        if len(found) <= _MOST_TICKS:
            return found
    return []


def _powers(step: float, low: float, high: float) -> list[float]:
    """Powers of a step between two values; of a small one its multiples, as nobody reads 1.2155."""
    if step < 2:
        size = (step - 1) * 10.0 ** math.floor(math.log10(high))
        first, last = math.ceil(low / size), math.floor(high / size)
        numbers = range(max(first, 1), min(last, first + 200) + 1)
        return [float(f"{size * number:.4g}") for number in numbers]
    lowest, highest = (math.log(end) / math.log(step) for end in (low, high))
    powers = range(math.ceil(lowest), math.floor(highest) + 1)
    return [float(f"{step**power:.6g}") for power in powers]


def _commits(named: Mapping[int, str], count: int) -> tuple[Tick, ...]:
    """The words of the first, a middle and the last place that has one."""
    places = sorted(named)
    wanted = [places[0], places[len(places) // 2], places[-1]] if len(places) > 2 else places
    anchors = {0: "start", count - 1: "end"}
    return tuple(
        Tick(
            at=round(_across(place, count), 2),
            text=text.short(named[place], 12),
            anchor=anchors.get(place, "middle"),
        )
        for place in wanted
    )
