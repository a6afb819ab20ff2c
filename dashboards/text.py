"""Text for people and for browsers: clean-up of foreign strings, slugs, numbers with units.

Everything that comes from a result file or from git is foreign: it may hold markup, control
characters, unpaired surrogates, path separators, or a megabyte of anything.
"""

import hashlib
import html
import json
import math
import re
import unicodedata
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urlencode

import pandas as pd
from markupsafe import Markup

LONGEST = 160
"""Characters of a foreign string that a page shows."""

_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_NO_CHARACTERS = "\ufffe\uffff"
"""What XML cannot hold either."""
_METRIC_UNITS = {
    "time": "µs",
    "registers": "registers per thread",
    "spills": "instructions",
    "shared_memory": "bytes",
    "instructions": "instructions",
    "memory_instructions": "instructions",
    "occupancy": "fraction",
}
TIME_UNITS = {"µs": 1e6, "ms": 1e3}
"""A unit that pages show times in → how many of it are a second."""

METRIC_TITLES = {
    "registers": "Registers",
    "spills": "Spills",
    "shared_memory": "Shared memory",
    "instructions": "Instructions",
    "memory_instructions": "Memory instructions",
    "occupancy": "Occupancy",
}
"""Compile-only metrics in the order that pages show them."""


def clean(value: object) -> str:
    """One line of printable text: control, direction and surrogate characters become spaces."""
    text = "" if value is None or value != value else str(value)
    if text.isascii() and text.isprintable():
        return text
    spaced = (
        " " if unicodedata.category(c) in _INVISIBLE or c in _NO_CHARACTERS else c for c in text
    )
    return " ".join("".join(spaced).split())


def short(value: object, longest: int = LONGEST) -> str:
    """`clean`, cut to `longest` characters with an ellipsis."""
    text = clean(value)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def breakable(value: object, longest: int = LONGEST) -> Markup:
    """HTML of `short` in which a narrow page may break the line after each underscore."""
    return Markup("_<wbr>").join(short(value, longest).split("_"))


def figure_text(value: object, longest: int = LONGEST) -> str:
    """Text for Plotly, which reads a small HTML dialect and `%{…}` placeholders in its labels."""
    return html.escape(short(value, longest), quote=False).replace("%{", "% {")


def slugs(names: Iterable[str]) -> dict[str, str]:
    """File names without directory or suffix, one for each name, all different.

    A name made of small letters, digits, `_` and `-` is its own slug. Any other gets a
    digest of the whole name, so that two names never share a page.
    """
    found: dict[str, str] = {}
    for name in sorted(set(names)):
        stem = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-")[:48]
        if not stem or stem != name:
            digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
            stem = f"{stem or 'op'}.{digest}"
        found[name] = stem
    return found


def script_json(value: Any) -> str:
    """JSON that is safe inside a script, inline or not: no `<`, `>`, `&`, U+2028 or U+2029."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def number(value: float, digits: int = 4) -> float | None:
    """A JSON number of `digits` significant digits; None where nothing was measured."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def ratio(value: float | None) -> str:
    """A speedup in words: `1.87×`, or `–` where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.1f}×" if value >= 99.95 else f"{value:.2f}×"


def microseconds(seconds: float) -> str:
    """A latency in µs with three significant digits at least; `–` where nothing was measured."""
    return duration(seconds, "µs")


def duration(seconds: float, unit: str) -> str:
    """A latency in µs or ms without its unit; `–` where nothing was measured."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    value = seconds * TIME_UNITS[unit]
    if unit == "ms" and value < 10:
        return f"{value:.3f}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def interval(low: float, high: float, unit: str = "µs") -> str:
    """A 99 % interval with its unit: `3.10–3.14 µs`."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "no interval"
    return f"{duration(low, unit)}–{duration(high, unit)} {unit}"


def count(value: float, metric: str) -> str:
    """A compile-only figure without its unit; occupancy as a percentage, a mean with one digit."""
    if value is None or not math.isfinite(value):
        return "–"
    if metric == "occupancy":
        return f"{value:.0%}" if value == round(value, 2) else f"{value:.1%}"
    whole = value == round(value) or metric == "shared_memory"
    return f"{value:,.0f}" if whole else f"{value:,.1f}"


def unit(metric: str) -> str:
    """The unit in which pages show `metric`."""
    return _METRIC_UNITS.get(metric, "")


def fact(value: object) -> str:
    """A fact of a run in words; empty where it is unknown."""
    if value is None or value != value:
        return ""
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, float):
        return f"{value:.6g}"
    return short(value, 80)


def query(fields: dict[str, str]) -> str:
    """The part of a link after `#`, percent-encoded: `case=rows16_cols32.fp16`."""
    return urlencode({key: short(value) for key, value in fields.items()}, quote_via=quote)
