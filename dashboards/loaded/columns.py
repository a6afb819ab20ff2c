"""Columns of numbers in script files, which a page loads when it is asked for what they hold.

A page that lies on a disk may not `fetch`, but it may load a script. Each of these files hands one
object to `KERNL_DATA`, under the name by which `static/columns.js` asked for it. Numbers are packed
as little-endian arrays in base64: a few bytes each, and nothing to parse.
"""

import binascii
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from dashboards import text

WIDTHS = {"u8": "<u1", "u16": "<u2", "u32": "<u4", "f32": "<f4", "f64": "<f8"}
"""What `static/columns.js` unpacks."""


@dataclass(frozen=True)
class Written:
    """A value whose JSON is there already, safe inside a script: most of a file is numbers."""

    content: bytes


def script(name: str, value: Any) -> bytes:
    """A script that hands a JSON-ready object over as `name`.

    Values of the object, and of objects in it, may be `Written`.
    """
    return b"".join([b"KERNL_DATA(", *_json(name), b",", *_json(value), b");\n"])


def _json(value: Any) -> Iterator[bytes]:
    """The pieces of a value's JSON."""
    if isinstance(value, Written):
        yield value.content
    elif isinstance(value, dict):
        for place, (key, one) in enumerate(value.items()):
            yield f"{',' if place else '{'}{text.script_json(key)}:".encode()
            yield from _json(one)
        yield b"}" if value else b"{}"
    else:
        yield text.script_json(value).encode()


def packed(values: ArrayLike, width: str) -> Written:
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
        content = np.ascontiguousarray(array, WIDTHS[width])
    # Base64 has no character that a script would need escaped.
    in_base64 = binascii.b2a_base64(content.data, newline=False)
    return Written(b"".join([b'{"', width.encode(), b'":"', in_base64, b'"}']))


DIGITS_WIDE = 10
"""Characters that `five_digits` writes of a number, a comma among them."""


def five_digits(values: ArrayLike) -> bytes:
    """JSON of numbers above 0, all of them as wide as `12346e-09,`, so that a part is found."""
    known = np.fmin(np.fmax(np.asarray(values, np.float64), 1e-90), 1e90)
    power = np.floor(np.log10(known)).astype(np.int32) - 4
    digits = np.rint(known / 10.0**power).astype(np.int32)
    more = digits > 99_999
    digits, power = np.where(more, 10_000, digits), power + more
    found = np.empty((len(known), DIGITS_WIDE), np.uint8)
    found[:] = np.frombuffer(b"00000e+00,", np.uint8)
    for place in (4, 3, 2, 1, 0):
        digits, last = np.divmod(digits, 10)
        found[:, place] += last.astype(np.uint8)
    found[power < 0, 6] = ord("-")
    found[:, 7] += (np.abs(power) // 10).astype(np.uint8)
    found[:, 8] += (np.abs(power) % 10).astype(np.uint8)
    return found.tobytes()


def numbered(values: Iterable[Hashable]) -> tuple[list[Any], NDArray[np.int64]]:
    """The different values in the order of their first, and the place of each among them."""
    places, different = pd.factorize(pd.Series(list(values), dtype=object), use_na_sentinel=False)
    return list(different), np.asarray(places, np.int64)


def places(values: Iterable[Hashable], known: Sequence[Hashable]) -> NDArray[np.int64]:
    """The place of each value among `known`. Raises KeyError where one is not there."""
    at: Mapping[Hashable, int] = {value: place for place, value in enumerate(known)}
    return np.fromiter((at[value] for value in values), np.int64)
