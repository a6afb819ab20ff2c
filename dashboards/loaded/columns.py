"""Columns of numbers in script files, which a page loads when it is asked for what they hold.

A page that lies on a disk may not `fetch`, but it may load a script. Each of these files hands one
object to `KERNL_DATA`, under the name by which `static/columns.js` asked for it. Numbers are packed
as little-endian arrays in base64: a few bytes each, and nothing to parse.
"""

import base64
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from dashboards import text

WIDTHS = {"u8": "<u1", "u16": "<u2", "u32": "<u4", "f32": "<f4", "f64": "<f8"}
"""What `static/columns.js` unpacks."""


def script(name: str, value: Any) -> bytes:
    """A script that hands a JSON-ready object over as `name`."""
    return f"KERNL_DATA({text.script_json(name)},{text.script_json(value)});\n".encode()


def packed(values: ArrayLike, width: str) -> dict[str, str]:
    """An array as a browser unpacks it, flat.

    Raises:
        ValueError: `width` is none of `WIDTHS`, or a value does not fit into it.
    """
    if width not in WIDTHS:
        raise ValueError(f"{width} is no width of a column; allowed: {', '.join(WIDTHS)}")
    array = np.asarray(values)
    if width.startswith("u") and array.size:
        most = np.iinfo(WIDTHS[width]).max
        if array.min() < 0 or array.max() > most:
            raise ValueError(f"{array.min()} to {array.max()} does not fit {width}: 0 to {most}")
    with np.errstate(over="ignore"):
        content = np.ascontiguousarray(array, WIDTHS[width]).tobytes()
    return {width: base64.b64encode(content).decode("ascii")}


def numbered(values: Iterable[Hashable]) -> tuple[list[Any], NDArray[np.int64]]:
    """The different values in the order of their first, and the place of each among them."""
    places, different = pd.factorize(pd.Series(list(values), dtype=object), use_na_sentinel=False)
    return list(different), np.asarray(places, np.int64)


def places(values: Iterable[Hashable], known: Sequence[Hashable]) -> NDArray[np.int64]:
    """The place of each value among `known`. Raises KeyError where one is not there."""
    at: Mapping[Hashable, int] = {value: place for place, value in enumerate(known)}
    return np.fromiter((at[value] for value in values), np.int64)
