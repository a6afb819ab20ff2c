"""Reads one of asv's result files (its api_version 2) into columns of plain values.

A file is JSON: `result_columns` names the columns, `results` holds one row a benchmark, cut at its
trailing nulls. A benchmark's parameters are lists of `repr` strings, and its result is a flat list
in the order of `itertools.product(*params)`; null for the whole list means that every case failed.
Within it null is a failure and NaN a case that was skipped or not selected.

The files may come from anybody's machine, so nothing in them is taken on trust: a file that cannot
be used raises `ResultFileError`, and a part that cannot be used is left out with a note.
"""

import json
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

API_VERSION = 2

METRICS = {
    "kernels": ("time",),
    "models": ("time",),
    "codegen": (
        "registers",
        "spills",
        "shared_memory",
        "instructions",
        "memory_instructions",
        "occupancy",
    ),
}
"""Suites of this project and what each of them measures."""

MAX_BYTES = 256 * 2**20
MAX_CASES = 1_000_000
MAX_NOTES = 20

_BENCHMARK = re.compile(r"(?P<suite>[a-z]+)\.(?P<op>[A-Z][A-Za-z0-9]*)\.track_(?P<metric>[a-z_]+)")
_CASE = re.compile(r"'([a-z0-9_]+\.(?:fp16|bf16|fp32))'")
_VARIANT = re.compile(r"'([a-z][a-z0-9_]*)'")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LAST_DATE_MS = 9_000_000_000_000  # in the year 2255: what nanoseconds in 64 bits can hold

STATUSES = ("ok", "failed", "skipped")
"""What became of a point; arrays hold the place here."""
OK, FAILED, SKIPPED = range(len(STATUSES))

_LARGEST = 1e308
NAN = float("nan")
Samples = tuple[float, ...]
Floats = NDArray[np.float64]


class ResultFileError(ValueError):
    """A file that cannot be used, with the reason in words."""


@dataclass
class Block:
    """All cases of one benchmark in one file; the columns are aligned.

    values, low and high are in the metric's unit, NaN where there is none; status holds places in
    `STATUSES`; reasons and samples, in seconds, are those of the rows that have some. started_at is
    in milliseconds since 1970, 0 when unknown.
    """

    suite: str
    op: str
    metric: str
    version: str
    started_at: float
    cases: list[str]
    variants: list[str]
    values: Floats
    low: Floats
    high: Floats
    status: NDArray[np.uint8]
    reasons: dict[int, str]
    samples: dict[int, Samples]

    def keep(self, rows: list[int]) -> None:
        """Drop all cases but those at `rows`."""
        self.cases = [self.cases[row] for row in rows]
        self.variants = [self.variants[row] for row in rows]
        for name in ("values", "low", "high", "status"):
            setattr(self, name, getattr(self, name)[rows])
        at = {row: place for place, row in enumerate(rows)}
        self.reasons = {at[row]: said for row, said in self.reasons.items() if row in at}
        self.samples = {at[row]: some for row, some in self.samples.items() if row in at}


@dataclass
class ResultFile:
    """What one file says about one commit on one machine. Notes tell what was left out, and why."""

    commit: str
    committed_at_ms: int
    blocks: list[Block]
    notes: list[str]

    @property
    def started_at(self) -> float:
        """When its last benchmark began, milliseconds since 1970; 0 when unknown."""
        return max((block.started_at for block in self.blocks), default=0.0)


def is_commit(value: object) -> bool:
    """Whether a value is a full commit hash in lower-case hexadecimal digits."""
    return isinstance(value, str) and _COMMIT.fullmatch(value) is not None


def load_json(path: Path, api_version: int) -> dict[str, Any]:
    """The object in one of asv's JSON files.

    Errors: `ResultFileError` where the file cannot be read, is not JSON, is no object or is of
    another format than `api_version`.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() or size > MAX_BYTES:
            raise ResultFileError(f"not a regular file of at most {MAX_BYTES >> 20} MiB")
        if not size:
            raise ResultFileError("the file is empty")
        content = json.loads(path.read_text(encoding="utf-8"))
    except ResultFileError:
        raise
    except OSError as error:
        raise ResultFileError(f"cannot be read: {error.strerror or error}") from error
    except RecursionError as error:
        raise ResultFileError("not valid JSON: nested too deeply") from error
    except ValueError as error:
        raise ResultFileError(f"not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ResultFileError(f"a JSON {type(content).__name__} where an object is expected")
    found = content.get("version")
    if type(found) is not int or found != api_version:
        raise ResultFileError(
            f"format version {_short(found)} where {api_version} is expected; "
            f"`asv update` converts old files"
        )
    return content


def read(path: Path, machine: str) -> ResultFile:
    """Read `<results>/<machine>/<commit[:8]>-<environment>.json`.

    Errors: `ResultFileError` where nothing in the file can be used.
    """
    content = load_json(path, API_VERSION)
    commit, date = content.get("commit_hash"), content.get("date")
    if not isinstance(commit, str) or not is_commit(commit):
        raise ResultFileError(f"commit_hash {_short(commit)} is not a full hexadecimal commit hash")
    if not path.name.startswith(f"{commit[:8]}-"):
        raise ResultFileError(f"holds commit {commit[:8]}, which is not the one in its name")
    if type(date) is not int or not 0 <= date <= _LAST_DATE_MS:
        raise ResultFileError(f"date {_short(date)} is not a time in milliseconds since 1970")
    params = content.get("params")
    if not isinstance(params, dict) or params.get("machine") != machine:
        named = params.get("machine") if isinstance(params, dict) else params
        raise ResultFileError(f"measured on machine {_short(named)}, but lies in {machine!r}")
    columns, rows = content.get("result_columns"), content.get("results")
    if not isinstance(columns, list) or not {"result", "params"} <= set(map(str, columns)):
        raise ResultFileError("result_columns does not name the columns result and params")
    if not isinstance(rows, dict):
        raise ResultFileError(f"results is {_short(rows)}, not an object")
    return ResultFile(commit, date, *_read_rows([str(name) for name in columns], rows))


def _read_rows(columns: list[str], rows: dict[str, Any]) -> tuple[list[Block], list[str]]:
    blocks: list[Block] = []
    notes: list[str] = []
    unknown: list[str] = []
    for name, row in rows.items():
        match = _BENCHMARK.fullmatch(name)
        if match is None or match["metric"] not in METRICS.get(match["suite"], ()):
            unknown.append(name)
            continue
        try:
            if not isinstance(row, list) or len(row) > len(columns):
                raise ResultFileError(f"its row is {_short(row)}, not a list of columns")
            block, note = _read_block(match, dict(zip(columns, row, strict=False)))
        except ResultFileError as problem:
            notes.append(f"{name} is left out: {problem}")
            continue
        blocks.append(block)
        if note:
            notes.append(f"{name}: {note}")
    if unknown:
        notes.append(
            f"{len(unknown)} benchmark(s) left out that are not of this project's suites, "
            f"the first {_short(unknown[0])}"
        )
    if len(notes) > MAX_NOTES:
        notes[MAX_NOTES:] = [f"{len(notes) - MAX_NOTES} more problems of this kind"]
    return blocks, notes


def _read_block(match: re.Match[str], row: dict[str, Any]) -> tuple[Block, str]:
    """One benchmark's cases, and a note on what was odd ("" for nothing)."""
    version, started_at = row.get("version"), row.get("started_at")
    if version is not None and not isinstance(version, str):
        raise ResultFileError(f"its version {_short(version)} is not a string")
    cases, variants, bad = _grid(*_params(row.get("params")))
    result = _column(row, "result", len(cases))
    low, high = (_column(row, f"stats_ci_99_{end}", len(cases)) for end in "ab")
    samples = _column(row, "samples", len(cases))
    op = re.sub(r"(?<!^)(?=[A-Z])", "_", match["op"]).lower()
    values, status, reasons = _values(result, positive=match["metric"] == "time")
    ok = status == OK
    block = Block(
        suite=match["suite"],
        op=op,
        metric=match["metric"],
        version=version or "",
        started_at=float(started_at) if is_number(started_at) else 0.0,
        cases=list(cases),
        variants=list(variants),
        values=values,
        # asv rounds the ends to five digits and not the value: an end may have passed the value.
        low=np.where(ok, np.minimum(_numbers(low), values), NAN),
        high=np.where(ok, np.maximum(_numbers(high), values), NAN),
        status=status,
        reasons=reasons,
        samples={
            row: taken
            for row, some in enumerate(samples)
            if some is not None and ok[row] and (taken := to_samples(some))
        },
    )
    if bad:
        block.keep([row for row in range(len(cases)) if row not in bad])
    notes = [f"{len(bad)} case(s) left out whose names are not this project's"] if bad else []
    if reasons:
        notes.append(
            f"{len(reasons)} value(s) that are not a possible {block.metric} count as failed"
        )
    return block, "; ".join(notes)


def _params(params: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The two parameter lists, case and variant, as `repr` strings."""
    if not isinstance(params, list) or len(params) != 2:
        raise ResultFileError("its params are not two lists, cases and variants")
    for values in params:
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ResultFileError("its params are not lists of strings")
        if len(set(values)) < len(values):
            raise ResultFileError("its params name a case or a variant twice")
    if len(params[0]) * len(params[1]) > MAX_CASES:
        raise ResultFileError(f"it has more than {MAX_CASES} cases")
    return tuple(params[0]), tuple(params[1])


@lru_cache(maxsize=128)
def _grid(
    cases: tuple[str, ...], variants: tuple[str, ...]
) -> tuple[list[str], list[str], frozenset[int]]:
    """Case and variant of every result in asv's order, and the indices whose names are not ours.

    Cached, because the files of many commits hold the same lists.
    """
    found_cases = [_CASE.fullmatch(text) for text in cases]
    found_variants = [_VARIANT.fullmatch(text) for text in variants]
    pairs = [(case, variant) for case in found_cases for variant in found_variants]
    bad = frozenset(index for index, pair in enumerate(pairs) if None in pair)
    names = [(case[1] if case else "", name[1] if name else "") for case, name in pairs]
    return [case for case, _ in names], [variant for _, variant in names], bad


def _column(row: dict[str, Any], name: str, length: int) -> list[Any]:
    """A column of a row as a list of `length`; null and a missing column mean all null."""
    values = row.get(name)
    if values is None:
        return [None] * length
    if not isinstance(values, list) or len(values) != length:
        size = f"{len(values)} entries" if isinstance(values, list) else _short(values)
        raise ResultFileError(f"its {name} has {size}, but its params make {length} cases")
    return values


def _values(
    result: list[Any], *, positive: bool
) -> tuple[Floats, NDArray[np.uint8], dict[int, str]]:
    """Values and statuses of a benchmark's results, and the reasons of those that cannot be true.

    Null is a failure, NaN was skipped; a time has to be `positive`, a count may be 0.
    """
    values = _numbers(result)
    good = values > 0 if positive else values >= 0
    status = np.where(good, OK, FAILED).astype(np.uint8)
    reasons = {}
    for row in np.flatnonzero(~good).tolist():
        value = result[row]
        if isinstance(value, float) and math.isnan(value):
            status[row] = SKIPPED
        elif value is not None:
            reasons[row] = f"the stored value {_short(value)} cannot be true"
    return np.where(good, values, NAN), status, reasons


def _numbers(values: list[Any]) -> Floats:
    """Finite numbers as they are; NaN for anything else."""
    if set(map(type, values)) <= {float, type(None)}:
        found = np.array(values, float)
        return np.where(np.abs(found) < _LARGEST, found, NAN)
    return np.array([value if is_number(value) else NAN for value in values], float)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a JSON value is a finite number that a double can hold."""
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST


def to_samples(value: Any) -> Samples:
    """Samples in seconds; empty where the value is no list of positive, finite numbers."""
    # Whole-list operations: millions of samples pass through here.
    if not isinstance(value, list) or not value:
        return ()
    kinds = set(map(type, value))
    if not kinds <= {int, float}:
        return ()
    try:
        samples = tuple(value if kinds == {float} else map(float, value))
    except OverflowError:
        return ()
    return samples if min(samples) > 0 and math.isfinite(sum(samples)) else ()


def _short(value: Any) -> str:
    """A value as it may stand in a message: one line, printable, at most 40 characters."""
    text = ascii(value) if not isinstance(value, dict | list) else f"a JSON {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:37]}..."
