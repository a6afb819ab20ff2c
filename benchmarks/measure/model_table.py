"""The points of one model as a short table for a terminal. Standard library alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.measure.journal import Record

OURS = "kernl"
_OURS_TOO = ("kernl_graphs_only", "kernl_rewrite_only")
"""Parts of kernl, which are no alternatives to it."""


def table(model: str, points: Sequence[Record], names: Sequence[str]) -> list[str]:
    """Lines: medians in ms with kernl's standing, errors beside eager's, and reasons.

    A fallback of kernl counts with eager's time.
    """
    by_case: dict[str, dict[str, Record]] = {}
    for point in points:
        by_case.setdefault(point["case"], {})[point["variant"]] = point
    width = max((len(case) for case in by_case), default=0)
    wide = [max(len(name), 8) for name in names]
    head = " ".join(f"{name:>{size}}" for name, size in zip(names, wide, strict=True))
    lines = [f"{model}, ms", f"{'case':{width}} {head}  best other / kernl"]
    for case, found in by_case.items():
        times = [_number(found.get(name), "time", 1e3) for name in names]
        row = " ".join(f"{text:>{size}}" for text, size in zip(times, wide, strict=True))
        lines.append(f"{case:{width}} {row}  {standing(found)}")
    lines.append("errors, relative L2 against the float32 model")
    for case, found in by_case.items():
        errors = [_error(found.get(name)) for name in names]
        row = " ".join(f"{text:>{size}}" for text, size in zip(errors, wide, strict=True))
        lines.append(f"{case:{width}} {row}")
    for case, found in by_case.items():
        for name in names:
            if name in found and found[name]["status"] != "ok":
                point = found[name]
                lines.append(f"{case} {name} {point['status']}: {point['reason']}")
    return lines


def standing(found: Mapping[str, Record]) -> str:
    """How many times faster than the fastest of the others kernl is, and which one that is."""
    times = {
        name: float(point["values"]["time"])
        for name, point in found.items()
        if point["status"] == "ok"
    }
    others = {name: time for name, time in times.items() if name not in (OURS, *_OURS_TOO)}
    ours, note = times.get(OURS), ""
    fell_back = OURS in found and found[OURS]["status"] == "skipped"
    if ours is None and fell_back:
        ours, note = times.get("eager"), ", a fallback"
    if ours is None or not others:
        return "–"
    best = min(others, key=lambda name: others[name])
    return f"{others[best] / ours:.2f} ({best}{note})"


def _number(point: Record | None, key: str, factor: float) -> str:
    if point is None or point["status"] != "ok":
        return "–"
    return f"{factor * float(point['values'][key]):.3f}"


def _error(point: Record | None) -> str:
    return "–" if point is None or point.get("error") is None else f"{point['error']:.1e}"
