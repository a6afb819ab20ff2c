"""Axes: logarithmic ones with round numbers on them in words that people read, and one of groups.

No input or output.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from dashboards import text
from dashboards.plots.figure import Figure, upright

MOST_TICKS = 5
"""So many words have room below a figure on a phone."""
_MOST_GROUPS = 6
_SIZES = ("B", "KB", "MB", "GB", "TB", "PB")
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_LEAST_SPAN = 0.7
"""In powers of ten: of 1, 2 and 5 times a power two lie on it at least."""
_ROOM = 0.04
_LOWEST, _HIGHEST = -300, 300
"""Powers of ten beyond these are no numbers that anything here was measured to be."""


def number(value: float) -> str:
    """A round number in words: `0.01`, `500`, `10⁻⁵`."""
    if 1e-3 <= value < 1e5:
        return f"{value:.6g}"
    digit, _, exponent = f"{value:.0e}".partition("e")
    power = f"10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return power if digit == "1" else f"{digit}·{power}"


def size(count: float) -> str:
    """Bytes in words: `512 B`, `3.64 MB`; a KB is 1000 bytes, as a GB/s is 10⁹ bytes a second."""
    place = 0
    while count >= 999.5 and place < len(_SIZES) - 1:
        count, place = count / 1000, place + 1
    return f"{count:,.3g} {_SIZES[place]}"


def logarithmic(
    figure: Figure,
    axis: str,
    title: str,
    ends: tuple[float, float],
    words: Callable[[float], str] = number,
) -> None:
    """Lays a logarithmic axis out for values from `ends[0]` to `ends[1]`, both above 0.

    Args:
        figure: what it is of.
        axis: `xaxis` or `yaxis`.
        title: what it shows, with the unit.
        ends: the least and the greatest value.
        words: what stands beside a round number.
    """
    low, high = (min(max(math.log10(end), _LOWEST), _HIGHEST) for end in ends)
    room = max((high - low) * _ROOM, (_LEAST_SPAN - (high - low)) / 2)
    low, high = low - room, high + room
    ticks = _round_numbers(low, high)
    laid = {
        "type": "log",
        "title": {"text": title},
        "tickvals": ticks,
        "ticktext": [words(tick) for tick in ticks],
        "tickangle": 0,
        "range": [low, high],
    }
    figure.lay_out(**{axis: laid})


def groups(figure: Figure, title: str, by: str, found: Mapping[str, Sequence[str]]) -> None:
    """Names groups of places along the x axis below their middles, a dotted upright between two.

    Args:
        figure: what it is of.
        title: what has the places 0, 1, 2, …
        by: what the title says too where the groups are named; of many groups none is.
        found: the groups from left to right, and what is in each.
    """
    count = sum(map(len, found.values()))
    shown = found if len(found) <= _MOST_GROUPS else {}
    middles, start = [], 0
    for members in shown.values():
        if start:
            figure.shape(**upright(start - 0.5))
        middles.append(start + (len(members) - 1) / 2)
        start += len(members)
    axis = {
        "title": {"text": title + (by if shown else "")},
        "tickvals": middles,
        "ticktext": [text.figure_text(name, 12) for name in shown],
        "tickangle": 0,
        "range": [-0.5 - count / 100, count - 0.5 + count / 100],
        "showgrid": False,
    }
    figure.lay_out(xaxis=axis)


def powers(low: float, high: float) -> list[int]:
    """Exponents of ten from `low` to `high`: all, every second, …, so that there are few."""
    first = max(math.ceil(low), _LOWEST)
    last = min(math.floor(high), _HIGHEST)
    step = 1
    while len(found := [power for power in range(first, last + 1) if power % step == 0]) > (
        MOST_TICKS
    ):
        step += 1
    return found


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two exponents, or powers alone if those are many."""
    some = range(math.floor(low), math.ceil(high) + 1)
    fine = [float(f"{digit}e{power}") for power in some for digit in (1, 2, 5)]
    fine = [value for value in fine if value > 0 and low <= math.log10(value) <= high]
    return fine if len(fine) <= MOST_TICKS else [10.0**power for power in powers(low, high)]
