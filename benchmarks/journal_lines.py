"""Decodes lines of a journal that are points as `benchmarks.measure.journal.Journal` writes them.

It is exact where it answers: the columns are those of the records that `journal.parsed` makes of
the same lines. Of lines with anything else among them it says nothing, nor of those of models,
which have details (`benchmarks.details`).
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec.structs import astuple

Whole = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
"""An integer of which no reader of JSON makes a float."""


class Columns(NamedTuple):
    """What lines hold: words are run, suite, op, case, variant, status and reason."""

    words: tuple[Sequence[Any], ...]
    version: Sequence[int | None]
    error: Sequence[float | None]
    clock: Sequence[float | None]
    samples: Sequence[list[float]]


class _Telemetry(msgspec.Struct, gc=False):
    sm_clock_mhz: Whole | float | None = None


class _Values(msgspec.Struct, gc=False):
    host: None = None


class _Point(msgspec.Struct, gc=False):
    kind: Literal["point"]
    run: str
    suite: str
    op: str
    case: str
    variant: str
    status: Literal["ok", "failed", "skipped"]
    reason: str | None = None
    version: Whole | None = None
    error: Whole | float | None = None
    telemetry: _Telemetry = msgspec.field(default_factory=_Telemetry)
    samples: list[float] = msgspec.field(default_factory=list)
    values: _Values = msgspec.field(default_factory=_Values)
    rewrite: None = None


_decode = msgspec.json.Decoder(_Point).decode


def decoded(lines: Sequence[bytes]) -> Columns | None:
    """The columns of lines that are sound points; None where one of them is not."""
    # That a string is no UTF-8 is not noticed where it is not asked for.
    if not all(map(bytes.isascii, lines)):
        return None
    try:
        rows = map(astuple, map(_decode, lines))
        _, *words, version, error, telemetry, samples, _, _ = zip(*rows, strict=True)
    except (ValueError, RecursionError):  # msgspec's are ValueErrors
        return None
    clock = [of.sm_clock_mhz for of in telemetry]
    return Columns(tuple(words), version, error, clock, samples)
