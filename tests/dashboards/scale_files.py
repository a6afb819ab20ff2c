"""The files of one made-up commit, as asv and the journal beside it are written by a real run.

Half a billion samples are written as the text that Python writes of them, a commit's all at once. A
sample is a whole number of 0.1 ns of which six digits count, so its text is one of few starts and
one of few ends: both are looked up, each fills eight bytes, and zero bytes in between are dropped.
"""

import datetime
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from asv_runner.statistics import compute_stats
from numpy.typing import NDArray

from benchmarks.measure.journal import journal_path
from benchmarks.measure.packed import packed
from benchmarks.worktree import NAME as ENVIRONMENT

UNITS = 10**10
"""Of a sample in a second."""
_DIGITS = 6
_MOST = 9  # digits of a sample in units: less than a tenth of a second
_POWERS = 10.0 ** np.arange(_MOST + 1)
_RESULT_COLUMNS = [
    "result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b",
    "stats_q_25", "stats_q_75", "stats_number", "stats_repeat", "samples", "profile",
]  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What was measured of one commit. Points are by case and, within it, by implementation.

    Attributes:
        ops: name of asv's class → its cases.
        names: of each point, from its operator to its variant, as in the journal.
        runs: records of the journal.
        run: of each case, which of `runs`.
        samples: by point, in units.
        status, reasons, errors: of each point; NaN where there is no error.
        telemetry: JSON of each case.
    """

    machine: str
    commit: str
    committed_at: datetime.datetime
    ops: dict[str, slice]
    cases: tuple[str, ...]
    variants: tuple[str, ...]
    names: tuple[str, ...]
    runs: list[dict[str, Any]]
    run: list[int]
    samples: NDArray[np.float64]
    status: list[str]
    reasons: list[str]
    errors: NDArray[np.float64]
    telemetry: list[str]


def write(directory: Path, measured: Measured) -> None:
    """Write asv's file and the packed journal into the machine's folder, which is there."""
    commit = measured.commit
    ordered = np.sort(measured.samples, axis=1) / UNITS
    medians = _quantile(ordered, 0.5)
    path = journal_path(directory, measured.machine, commit, ENVIRONMENT)
    lines = "".join(_journal(measured, medians)).encode()
    _replace(packed(path), gzip.compress(lines, 1, mtime=0))
    content = _asv(measured, ordered, medians).encode()
    _replace(path.with_name(f"{commit[:8]}-{ENVIRONMENT}.json"), content)


def _replace(path: Path, content: bytes) -> None:
    """A reader, or one who stops this, never meets a file that is half there."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_bytes(content)
    draft.replace(path)


def _quantile(ordered: NDArray[np.float64], q: float) -> NDArray[np.float64]:
    """As asv takes it of samples in their order, to the last bit."""
    place = (ordered.shape[1] - 1) * q
    low = int(place)
    part = place - low
    found: NDArray[np.float64] = (1 - part) * ordered[:, low] + part * ordered[:, low + 1]
    return found


def _journal(of: Measured, medians: NDArray[np.float64]) -> Iterator[str]:
    """Its lines, the runs first, as in a journal that was packed."""
    for run in of.runs:
        yield json.dumps(run, separators=(",", ":")) + "\n"
    starts = [f'{{"kind":"point","run":"{run["id"]}' for run in of.runs]
    # The clock counts milliseconds in 32 bits.
    times = ((medians * 1e3).astype(np.float32).astype(np.float64) / 1e3).tolist()
    errors = ["null" if error != error else repr(error) for error in of.errors.tolist()]
    each = len(of.variants)
    told = zip(of.names, of.status, of.reasons, times, texts(of.samples), errors, strict=True)
    for at, (names, status, reason, time, samples, error) in enumerate(told):
        start = f'{starts[of.run[at // each]]}",{names},"version":1,"status":"{status}"'
        if status == "ok":
            yield (
                f'{start},"reason":"{reason}","values":{{"time":{time!r}}},"samples":[{samples}],'
                f'"hot_samples":[],"error":{error},"telemetry":{of.telemetry[at // each]}}}\n'
            )
        else:
            yield (
                f'{start},"reason":"{reason}","values":{{}},"samples":[],"hot_samples":[],'
                f'"error":{error},"telemetry":{{}}}}\n'
            )


def _asv(of: Measured, ordered: NDArray[np.float64], medians: NDArray[np.float64]) -> str:
    """asv's result file: statistics in five digits, results in all."""
    count = len(of.status)
    # Which samples are the ends depends on their number alone.
    _, ends = compute_stats([float(at) for at in range(1, ordered.shape[1] + 1)], 1)
    statistics = (
        ordered[:, int(ends["ci_99_a"]) - 1],
        ordered[:, int(ends["ci_99_b"]) - 1],
        _quantile(ordered, 0.25),
        _quantile(ordered, 0.75),
    )
    columns = [("%.5g " * count % tuple(column.tolist())).split() for column in statistics]
    columns += [["1"] * count, [str(ordered.shape[1])] * count]
    columns = [_where_ok(column, of.status, "null") for column in columns]
    results = _where_ok(list(map(repr, medians.tolist())), of.status, "NaN")
    variants = [f"'{name}'" for name in of.variants]
    committed = int(of.committed_at.timestamp() * 1000)
    rows = []
    for at, (name, part) in enumerate(of.ops.items()):
        own = slice(part.start * len(variants), part.stop * len(variants))
        cases = [f"'{case}'" for case in of.cases[part]]
        cells = [
            f"[{','.join(results[own])}]", json.dumps([cases, variants], separators=(",", ":")),
            '"1"', str(committed + 1_200_000 + 30_000 * at), "12.5",
            *(f"[{','.join(column[own])}]" for column in columns),
        ]  # fmt: skip
        rows.append(f'"kernels.{name}.track_time":[{",".join(cells)}]')
    head = {
        "commit_hash": of.commit, "env_name": ENVIRONMENT, "date": committed,
        "params": {"machine": of.machine, "python": "3.12"}, "python": "3.12", "requirements": {},
        "env_vars": {}, "result_columns": _RESULT_COLUMNS,
    }  # fmt: skip
    durations = {f"<setup_cache kernels:{23 + 10 * at}>": 1.25 for at in range(len(of.ops))}
    start = json.dumps(head, separators=(",", ":"))
    tail = json.dumps({"durations": durations, "version": 2}, separators=(",", ":"))
    return f'{start[:-1]},"results":{{{",".join(rows)}}},{tail[1:]}'


def _where_ok(column: list[str], status: list[str], skipped: str) -> list[str]:
    """The column with what stands there for a point that was not measured."""
    other = {"failed": "null", "skipped": skipped}
    return [other.get(state, text) for text, state in zip(column, status, strict=True)]


def whole(seconds: NDArray[np.float64], tick: float) -> NDArray[np.float64]:
    """Times in units, as a clock of such ticks (in seconds) gives them, cut to six digits.

    Raises ValueError where a time is none that can be written.
    """
    units = np.rint(seconds / tick)
    units *= round(tick * UNITS)
    if units.min() < 1 or units.max() >= _POWERS[-1] * 0.999999:
        raise ValueError(f"a sample is to be {tick:g} s at least, and under 0.1 s")
    over = np.maximum(_count(units) - _DIGITS, 0)
    if over.any():
        scale = _POWERS[over]
        np.rint(units / scale, out=units)
        units *= scale
    return units


def texts(units: NDArray[np.float64]) -> list[str]:
    """Each row's samples in seconds, as `repr` writes them, between commas."""
    digits = _count(units)
    mantissa = np.rint(units * 10.0 ** (_DIGITS - np.arange(_MOST + 1))[digits]).astype(np.int32)
    high, low = np.divmod(mantissa, 1000)
    starts, ends = _tables()
    cells = np.empty((*units.shape, 2), np.uint64)
    cells[..., 0] = starts[(digits * 2 + (low == 0)) * 1000 + high]
    place = digits * 1000 + low
    place[:, -1] += (_MOST + 1) * 1000
    cells[..., 1] = ends[place]
    return cells.tobytes().translate(None, b"\0").decode().split("\n")[:-1]


def _count(units: NDArray[np.float64]) -> NDArray[np.int32]:
    """How many digits each has."""
    found = np.ones(units.shape, np.int32)
    for power in _POWERS[1:]:
        found += units >= power
    return found


@lru_cache(maxsize=1)
def _tables() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Starts by digits, whether the last three are zeros, and the first three; ends by what
    follows, a comma or a newline, digits and the last three."""
    starts = np.zeros((_MOST + 1, 2, 1000), "S8")
    ends = np.zeros((2, _MOST + 1, 1000), "S8")
    for digits in range(1, _MOST + 1):
        exponent = digits - 11  # `repr` writes one below -4
        small = exponent < -4
        for three in range(1000):
            text = f"{three:03d}"
            for bare, shown in enumerate((text, text.rstrip("0") or "0")):
                point = "." if len(shown) > 1 else ""
                start = shown[0] + point + shown[1:]
                if not small:
                    start = "0." + "0" * (-exponent - 1) + shown
                starts[digits, bare, three] = start.encode()
            end = text.rstrip("0") + (f"e-{-exponent:02d}" if small else "")
            for last, mark in enumerate(",\n"):
                ends[last, digits, three] = (end + mark).encode()
    return starts.reshape(-1).view(np.uint64), ends.reshape(-1).view(np.uint64)
