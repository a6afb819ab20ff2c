"""Measure a few frozen cases at once, without asv: `python -m benchmarks.measure softmax`.

Prints one line for each case and implementation; on a GPU also what the time amounts to: GB/s,
TFLOP/s, and the share of the roofline. Nothing is kept unless `--journal` names a file.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import cases as frozen_cases
from benchmarks import roofline
from benchmarks.cases import Cost
from benchmarks.measure import device, timing
from benchmarks.measure.journal import Journal, Record
from benchmarks.measure.sweep import SUITE, Settings, Subject, SweepCase, sweep
from benchmarks.measure.timing import Ceilings


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; exits with a message where no case fits."""
    frozen = frozen_cases.load()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measure", description=__doc__)
    parser.add_argument("op", choices=frozen.ops)
    parser.add_argument(
        "--match", default="", help="regular expression that a case's name contains"
    )
    parser.add_argument("--limit", type=int, help="measure at most so many cases")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run")
    parser.add_argument("--journal", type=Path, help="keep the points in this file")
    options = parser.parse_args(arguments)
    names = [name for name in frozen.kernel_cases(options.op) if re.search(options.match, name)]
    names = names[: options.limit]
    if not names:
        parser.error(f"no case of {options.op} contains {options.match!r}")
    if options.device == "cuda" and device.gpu() is None:
        parser.error("no NVIDIA GPU on this machine; --device cpu tries the machinery without one")
    subject = Subject(
        op=options.op,
        version=frozen.version(options.op),
        commit="",
        machine=device.machine_name(),
        implementations=frozen.implementations(options.op),
        fingerprint=device.fingerprint(SUITE),
    )
    cases = [
        SweepCase(name, frozen.dims(options.op, name), frozen.dtype(options.op, name))
        for name in names
    ]
    with tempfile.TemporaryDirectory() as directory:
        path = options.journal or Path(directory) / "points.jsonl"
        with Journal(path) as journal:
            settings = Settings(device=options.device, hot=True)
            points = sweep(subject, cases, journal, settings=settings)
            ceilings = ceilings_of(journal.runs())
    costs = {name: frozen.cost(options.op, name) for name in names}
    print("\n".join(table(points, costs, ceilings)))


def ceilings_of(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Ceilings]:
    """By run, of those runs in a journal whose fingerprint tells the speed of a copy."""
    told = {run: record.get("fingerprint") for run, record in runs.items()}
    known = {run: Ceilings.of(one) for run, one in told.items() if isinstance(one, dict)}
    return {run: one for run, one in known.items() if one.copy_bytes_per_s > 0}


def table(
    points: Sequence[Record],
    costs: Mapping[str, Cost | None] | None = None,
    ceilings: Mapping[str, Ceilings] | None = None,
) -> list[str]:
    """Lines of case, implementation, cold median with its 20th and 80th percentile and hot median
    in µs, speed against eager, and error; or of the reason where there is no time.

    Where the run of any point is in `ceilings`, by run, there follow GB/s, TFLOP/s, and the share
    of the roofline of the cold median, by the `costs` of the cases.
    """
    costs, ceilings = costs or {}, ceilings or {}
    eager = {
        point["case"]: point["values"].get("time")
        for point in points
        if point["variant"] == "eager"
    }
    width = max((len(point["case"]) for point in points), default=0)
    lines = [
        f"{'case':{width}}  {'':8} {'cold µs':>9} {'p20':>9} {'p80':>9} {'hot µs':>9} "
        f"{'× eager':>8} {'error':>8}"
    ]
    told = any(point["run"] in ceilings for point in points)
    if told:
        lines[0] += f" {'GB/s':>8} {'TFLOP/s':>8}  of the roofline"
    for point in points:
        start = f"{point['case']:{width}}  {point['variant']:8} "
        if point["status"] != "ok":
            lines.append(f"{start}{point['status']}: {point['reason']}")
            continue
        cold, hot = point["samples"], point["hot_samples"]
        seconds = [timing.percentile(cold, q) for q in (0.5, 0.2, 0.8)]
        seconds.append(timing.median(hot) if hot else float("nan"))
        base = eager.get(point["case"])
        speed = base / seconds[0] if base else float("nan")
        figures = " ".join(f"{1e6 * second:9.3f}" for second in seconds)
        line = f"{start}{figures} {speed:8.2f} {point['error']:8.1e}"
        lines.append(line + (_amounts(point, seconds[0], costs, ceilings) if told else ""))
    return lines


def _amounts(
    point: Record,
    seconds: float,
    costs: Mapping[str, Cost | None],
    ceilings: Mapping[str, Ceilings],
) -> str:
    """The last columns of the table: what the time of a point amounts to."""
    cost, known = costs.get(point["case"]), ceilings.get(point["run"])
    if cost is None or known is None:
        return f" {'–':>8} {'–':>8}  –"
    found = roofline.achieved(seconds, cost, known)
    rates = (roofline.gb_per_s(found.bytes_per_s), roofline.tflop_per_s(found.flops_per_s))
    bound = f" ({found.bound})" if found.bound else ""
    return f" {rates[0]:>8} {rates[1]:>8}  {roofline.in_words(found.share)}{bound}"


if __name__ == "__main__":
    main()
