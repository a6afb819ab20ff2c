"""A figure as Plotly.js takes it: plain values, named as in its reference.

Plotly's Python objects check each of thousands of values and copy it several times. Here nothing
is checked; the tests hand what is drawn to those objects.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """Traces, and the layout around them."""

    data: list[dict[str, Any]] = field(default_factory=list)
    layout: dict[str, Any] = field(default_factory=dict)

    def scatter(self, **attributes: Any) -> None:
        """Adds a trace of marks or lines."""
        self.data.append({"type": "scatter", **attributes})

    def heat_map(self, **attributes: Any) -> None:
        """Adds a trace of cells."""
        self.data.append({"type": "heatmap", **attributes})

    def shape(self, **attributes: Any) -> None:
        """Adds a shape."""
        self.layout.setdefault("shapes", []).append(attributes)

    def annotation(self, **attributes: Any) -> None:
        """Adds words in the figure."""
        self.layout.setdefault("annotations", []).append(attributes)

    def lay_out(self, **attributes: Any) -> None:
        """Sets attributes of the layout; those of a part, such as an axis, join what it has."""
        for name, value in attributes.items():
            there = self.layout.get(name, {})
            self.layout[name] = {**there, **value} if isinstance(value, dict) else value


def upright(place: float) -> dict[str, Any]:
    """The shape of a dotted line from the bottom of the plot to its top."""
    ends = {"x0": place, "x1": place, "y0": 0, "y1": 1, "yref": "paper"}
    return {"type": "line", **ends, "line": {"dash": "dot", "width": 1}}
