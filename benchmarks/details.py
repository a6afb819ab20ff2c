"""What a journal tells of a model's call beside its time, as one word of a column.

`host` is how long the call kept the host, `rewrite` what rewriting made of the model's graph. Most
points, those of operators, have neither, and an empty word.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PARTS = ("replaced", "left", "refused")
MOST_NAMES = 200
"""Of a part; what has more was not written by us."""
_MOST_LETTERS = 300
_MOST = 10**6


@dataclass(frozen=True)
class Rewrite:
    """What became of a graph: each by name, with how often it is there.

    Attributes:
        replaced: kernl's operators.
        left: PyTorch's that compute.
        refused: what looks like one of kernl's and stays PyTorch's, `operator: reason`.
    """

    replaced: Mapping[str, int] = field(default_factory=dict)
    left: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)

    @property
    def coverage(self) -> float:
        """The part of the calls that compute which is kernl's; NaN where none computes."""
        ours, theirs = sum(self.replaced.values()), sum(self.left.values())
        return ours / (ours + theirs) if ours + theirs else math.nan


@dataclass(frozen=True)
class Details:
    """What is known of a call.

    Attributes:
        host: seconds until the call returned, when the device may still have computed; NaN where
            nobody took it.
        rewrite: None where nothing was rewritten, or nobody says what.
    """

    host: float = math.nan
    rewrite: Rewrite | None = None


def word_of(record: Mapping[str, Any]) -> str:
    """What a record of a journal tells, as a word; what is not as we write it is left out."""
    found: dict[str, Any] = {}
    values = record.get("values")
    host = values.get("host") if isinstance(values, dict) else None
    if isinstance(host, float) and 0 < host < math.inf:
        found["host"] = host
    rewrite = record.get("rewrite")
    if isinstance(rewrite, dict):
        parts = {name: _counts(rewrite.get(name, {})) for name in PARTS}
        if None not in parts.values():
            found["rewrite"] = parts
    return json.dumps(found, sort_keys=True) if found else ""


def details_of(word: str) -> Details:
    """What a word tells; nothing where it is none of `word_of`."""
    try:
        told = json.loads(word) if word else {}
        parts = told.get("rewrite")
        return Details(
            float(told.get("host", math.nan)),
            None if parts is None else Rewrite(**{name: parts[name] for name in PARTS}),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return Details()


def _counts(given: Any) -> dict[str, int] | None:
    if not isinstance(given, dict) or len(given) > MOST_NAMES:
        return None
    if not all(type(count) is int and 0 < count <= _MOST for count in given.values()):
        return None
    return {name[:_MOST_LETTERS]: count for name, count in given.items()}
