"""The small bars in tables: where their parts start, and how wide they are."""

import math
from typing import Any


def speed(ratio: float) -> dict[str, float]:
    """Where a bar on a logarithmic scale from ¼× to 16× starts, and how wide it is, in pixels."""
    if not math.isfinite(ratio) or ratio <= 0:
        return {"x": 40.0, "width": 0.0}
    end = 40.0 + 20.0 * min(max(math.log2(ratio), -2.0), 4.0)
    return {"x": round(min(40.0, end), 2), "width": round(max(abs(end - 40.0), 1.0), 2)}


def shares(wins: int, ties: int, losses: int) -> list[dict[str, Any]]:
    """The three parts of a bar 100 wide."""
    total = wins + ties + losses
    found, start = [], 0.0
    for kind, count in (("win", wins), ("tie", ties), ("loss", losses)):
        width = 100.0 * count / total if total else 0.0
        found.append({"kind": kind, "x": round(start, 3), "width": round(width, 3)})
        start += width
    return found
