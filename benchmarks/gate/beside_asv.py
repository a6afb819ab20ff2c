"""What `asv compare` would say of the same data: `python -m benchmarks.gate.beside_asv FILE…`.

FILE is what `python -m benchmarks.measure.paired` or `python -m benchmarks.gate --measure --pairs`
wrote. asv measures two commits one after the other, so base is taken from a case's first session
and head from its second, by asv's own test (`asv.commands.compare`), with asv's factor of 1.1 and
with 1.05 and 1.02. Beside it stands the gate's verdict on all sessions.

By how much a case did change is told by the mean of all its sessions.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from asv.commands.compare import _is_result_better
from asv_runner.statistics import compute_stats

from benchmarks import known_noise
from benchmarks.gate.beside import Gathered, judge
from benchmarks.gate.findings import GATED
from benchmarks.measure.device import slug
from benchmarks.noise import NoiseError, print_lines, read

FACTORS = (1.1, 1.05, 1.02)
BINS = (-math.inf, 0.01, 0.02, 0.03, 0.05, 0.1, math.inf)
Record = Mapping[str, Any]
Case = tuple[str, str]


def asv_says(base: Sequence[float], head: Sequence[float], factor: float) -> str:
    """`worse`, `better` or `same`, of the seconds of two runs."""
    times, told = [], []
    for samples in (base, head):
        stats, values = compute_stats(list(samples), 1)[1], list(samples)
        times.append(float(np.median(values)))
        told.append((stats, values))
    if _is_result_better(times[0], times[1], told[0], told[1], factor):
        return "worse"
    if _is_result_better(times[1], times[0], told[1], told[0], factor):
        return "better"
    return "same"


def sides(record: Record) -> dict[str, list[float]]:
    """Seconds of each side of a session."""
    taken: dict[str, list[float]] = {"base": [], "head": []}
    for block in record["blocks"]:
        taken[block["side"]] += block["taken"][GATED]
    return taken


@dataclass(frozen=True)
class Told:
    """Of one case.

    Attributes:
        change: as a fraction of base.
        gate: its outcome.
        asv: by factor, what asv says.
    """

    change: float
    gate: str
    asv: Mapping[float, str]


def compared(records: Iterable[Record], machine: str) -> list[Told]:
    """Of each case that has two sessions."""
    gathered = Gathered()
    sessions: dict[Case, list[dict[str, list[float]]]] = defaultdict(list)
    for record in records:
        gathered.add(record)
        if record["kind"] == "pair" and record["status"] == "ok" and not record["control"]:
            sessions[str(record["op"]), str(record["case"])].append(sides(record))
    found = judge(gathered, known_noise.load(machine), machine).findings
    verdicts = {(one.key.op, one.key.case): one.outcome for one in found}
    told = []
    for case, several in sessions.items():
        if len(several) < 2:
            continue
        logs = [float(np.log(np.median(one["head"]) / np.median(one["base"]))) for one in several]
        said = {f: asv_says(several[0]["base"], several[1]["head"], f) for f in FACTORS}
        told.append(Told(math.expm1(float(np.mean(logs))), verdicts[case], said))
    return told


def lines(told: Sequence[Told]) -> Iterator[str]:
    """Of each size of change, how many cases each of them calls worse, and better."""
    heads = [f"asv {factor:g}" for factor in FACTORS]
    yield f"{'change of':>16} {'cases':>6}" + "".join(f"{head:>14}" for head in [*heads, "gate"])
    for low, high in itertools.pairwise(BINS):
        some = [one for one in told if low <= one.change < high]
        if not some:
            continue
        name = f"below {100 * high:g} %" if low == -math.inf else f"{100 * low:g} % and more"
        cells = []
        for factor in FACTORS:
            seen = Counter(one.asv[factor] for one in some)
            cells.append(f"{seen['worse']:>5}, {seen['better']:>3} −")
        seen = Counter(one.gate for one in some)
        cells.append(f"{seen['regressed']:>5}, {seen['improved']:>3} −")
        yield f"{name:>16} {len(some):>6}" + "".join(f"{cell:>14}" for cell in cells)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table for each file: cases called worse, and (−) better."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gate.beside_asv", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    for path in options.files:
        try:
            records = list(read(path))
            gpu = next(str(one["fingerprint"]["gpu"]) for one in records if one["kind"] == "run")
            told = compared(records, slug(gpu))
        except (NoiseError, KeyError, TypeError, ValueError, StopIteration) as error:
            print(f"beside_asv: {path}: {type(error).__name__}: {error}", file=sys.stderr)
            return 2
        print_lines([path.name, *lines(told)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
