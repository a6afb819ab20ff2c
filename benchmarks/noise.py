"""How much two processes of one commit differ: `python -m benchmarks.noise FILE…`.

Reads what `python -m benchmarks.measure.paired X X` wrote, the same commit on both sides, and of
other runs the controls, which are base beside base. A difference between the sides of such a pair
is noise. It prints, over the cases, how large each kind of it is; what a gate may call a change has
to be larger.

| kind | standard deviation of |
| --- | --- |
| block | the medians of one side's blocks in one session: what changes from moment to moment |
| quad | the log-ratio of the sides, of four blocks in turns: what taking turns does not remove |
| session | the log-ratio of one session (`session_ratio`): what differs from process to process |
| level | one side's median of a session: what two runs that do not take turns would differ by |

`--keep OUT` writes the same sessions, of each block nothing but its medians: what the gate reads to
know each case's noise lies so in `benchmarks/recorded_noise` (`benchmarks.known_noise`).

All are of logarithms, and printed as per cent. `session, drift out` is the third of kernl's ratio
over eager's, which did not change either. Standard deviations within a session are pooled over the
sessions of a case.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GATED, CONTROL = "kernl", "eager"
QUAD = 4
KINDS = ("block", "quad", "session", "session, drift out", "level")
_SHARES = (0.5, 0.9, 0.99, 1.0)

Record = Mapping[str, Any]
Array = NDArray[np.float64]


class NoiseError(Exception):
    """A file cannot be used; says which, and why."""


@dataclass(frozen=True)
class Noise:
    """Standard deviations of one case by kind, as fractions; NaN where too little was measured.

    Attributes:
        case: operator and case.
        sessions: how many were measured.
        spread: by kind, of `KINDS`.
    """

    case: str
    sessions: int
    spread: Mapping[str, float]


def block_logs(record: Record, implementation: str) -> dict[str, Array]:
    """Logarithms of the medians of each side's blocks, by side, a row of two for each quad.

    Raises:
        ValueError: the blocks are no quads of two blocks a side, or a time is not above 0.
    """
    medians: dict[str, list[float]] = {"base": [], "head": []}
    blocks = record["blocks"]
    for block in blocks:
        seconds = [float(one) for one in block["taken"][implementation]]
        if not seconds or not all(0 < one < math.inf for one in seconds):
            raise ValueError("a block has no times, or one that is not above 0")
        medians[block["side"]].append(statistics.median(seconds))
    quads = len(blocks) // QUAD
    if not quads or any(len(of_side) != 2 * quads for of_side in medians.values()):
        raise ValueError("its blocks are not two of each side, again and again")
    return {side: np.log(of_side).reshape(quads, 2) for side, of_side in medians.items()}


def was_timed(record: Record, implementation: str) -> bool:
    """Whether each block of a record has times of an implementation: eager may not run a case."""
    return all(implementation in block["taken"] for block in record["blocks"])


def ratios(record: Record, implementation: str) -> Array:
    """Log of head over base, one for each quad. Raises ValueError as `block_logs` does."""
    logs = block_logs(record, implementation)
    return np.asarray(logs["head"].mean(axis=1) - logs["base"].mean(axis=1))


def session_ratio(record: Record, implementation: str) -> float:
    """Log of head over base of a whole session: the median over its pairs of neighbouring blocks.

    A block in which the host stalls is in one pair of four, which moves the median no further than
    to its neighbours; what drifts evenly cancels, as every other pair begins with base. In the
    recorded noise the median case has a standard deviation of 0.32 % so, by the mean over the pairs
    0.45 %. Of 4,424 sessions on hosts that stalled, 1.1 and 2.1 % are off by more than 5 %, 0.4 and
    0.7 % by more than 10 %: what is left are mostly processes that differ in all their blocks.

    Source: F. R. Hampel, "The influence curve and its role in robust estimation", J. Am. Stat.
    Assoc. 69 (1974): the median bears wild values as long as they are less than half.

    Raises ValueError as `block_logs` does.
    """
    logs = block_logs(record, implementation)
    return float(np.median(logs["head"] - logs["base"]))


def noise_of(case: str, sessions: Sequence[Record]) -> Noise:
    """What one case's sessions differ by. Raises ValueError as `block_logs` does."""
    gated = [session_ratio(record, GATED) for record in sessions]
    control = [session_ratio(record, CONTROL) for record in sessions if was_timed(record, CONTROL)]
    logs = [block_logs(record, GATED) for record in sessions]
    within_side = [side.ravel() for each in logs for side in each.values()]
    spread = {
        "block": _pooled(within_side),
        "quad": _pooled(ratios(record, GATED) for record in sessions),
        "session": _deviation(gated),
        "session, drift out": _deviation(
            [ours - theirs for ours, theirs in zip(gated, control, strict=True)]
            if len(control) == len(gated)
            else []
        ),
        "level": _deviation([float(np.median(each["base"])) for each in logs]),
    }
    return Noise(case, len(sessions), spread)


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _pooled(groups: Iterable[Array]) -> float:
    """The standard deviation within groups, each around its own mean."""
    several = [group for group in groups if group.size > 1]
    degrees = sum(group.size - 1 for group in several)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in several)
    return float(np.sqrt(squares / degrees)) if degrees else float("nan")


def same_on_both_sides(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Of each case what was measured of one commit beside itself.

    Sessions of a run of two commits count where they are controls.
    """
    found: dict[str, list[Record]] = defaultdict(list)
    same = False
    for record in records:
        if record.get("kind") == "run":
            same = record.get("base") == record.get("head")
            continue
        measured = record.get("kind") == "pair" and record.get("status") == "ok"
        if measured and (same or record.get("control")):
            found[f"{record['op']} {record['case']}"].append(record)
    return dict(found)


def thinned(record: Record) -> Record:
    """A record of `measure.paired` with the medians of its blocks alone, without telemetry."""
    if record.get("kind") != "pair":
        return record
    blocks = [
        {
            "side": block["side"],
            "taken": {name: [statistics.median(s)] for name, s in block["taken"].items()},
        }
        for block in record["blocks"]
    ]
    kept = {name: value for name, value in record.items() if name not in ("telemetry", "blocks")}
    return {**kept, "blocks": blocks}


def keep(records: Iterable[Record], path: Path) -> None:
    """Write records thinned, packed. The same records make the same bytes. Raises OSError."""
    text = "".join(json.dumps(thinned(record)) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def table(noises: Sequence[Noise]) -> list[str]:
    """Lines: per cent of each kind, at the median of the cases, at 90 and 99 % of them, at most."""
    sessions = sorted(noise.sessions for noise in noises)
    lines = [
        f"{len(noises)} cases, {sessions[0]} to {sessions[-1]} sessions each",
        f"{'standard deviation, %':24}" + "".join(f"{_heading(share):>9}" for share in _SHARES),
    ]
    for kind in KINDS:
        values = np.array([noise.spread[kind] for noise in noises])
        known = values[np.isfinite(values)]
        figures = [100 * float(np.quantile(known, q)) if known.size else np.nan for q in _SHARES]
        lines.append(f"{kind:24}" + "".join(f"{figure:9.3f}" for figure in figures))
    return lines


def off_by(found: Mapping[str, Sequence[Record]], limit: float) -> str:
    """How many sessions are off by more than `limit`, in words, and in how many cases."""
    off = {
        case: [abs(session_ratio(record, GATED)) > limit for record in sessions]
        for case, sessions in found.items()
    }
    every = [one for of_case in off.values() for one in of_case]
    cases = sum(any(of_case) for of_case in off.values())
    return (
        f"{100 * sum(every) / len(every):.1f} % of {len(every)} sessions are off by more than "
        f"{100 * limit:g} %, in {cases} of {len(off)} cases"
    )


def _heading(share: float) -> str:
    return {0.5: "median", 1.0: "most"}.get(share, f"{share:.0%}")


def read(path: Path) -> Iterator[Record]:
    """The lines of a file, which may be packed. Raises NoiseError."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise NoiseError(f"{path}, line {number}: not an object")
                yield record
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise NoiseError(f"{path}: {error}") from error


def print_lines(lines: Iterable[str]) -> None:
    """Print each as it comes, for as long as anybody reads."""
    try:
        for line in lines:
            print(line, flush=True)
    except BrokenPipeError:
        # The reader, such as `head`, has what it wanted; Python writes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; exit code 2 and a message where there is none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.noise", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--worst", type=int, default=0, metavar="N", help="also the N worst cases")
    parser.add_argument("--keep", type=Path, metavar="OUT", help="write the sessions, thinned")
    options = parser.parse_args(arguments)
    try:
        records = [record for path in options.files for record in read(path)]
        found = same_on_both_sides(records)
        noises = [noise_of(case, sessions) for case, sessions in sorted(found.items())]
        if options.keep:
            keep(records, options.keep)
    except (NoiseError, KeyError, TypeError, ValueError, OSError) as error:
        print(f"noise: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if not noises:
        print("noise: nothing was measured beside itself: give runs of X X", file=sys.stderr)
        return 2
    worst = sorted(noises, key=lambda noise: -np.nan_to_num(noise.spread["session"]))
    lines = [f"{100 * noise.spread['session']:9.3f}  {noise.case}" for noise in worst]
    print_lines([*table(noises), off_by(found, 0.02), *lines[: options.worst]])
    return 0


if __name__ == "__main__":
    sys.exit(main())
