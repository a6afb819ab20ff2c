"""Measure a few frozen cases at once, without asv: `python -m benchmarks.measure softmax`.

Prints one line for each case and implementation. Nothing is kept unless `--journal` names a file.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import cases as frozen_cases
from benchmarks.measure import device, timing
from benchmarks.measure.journal import Journal, Record
from benchmarks.measure.sweep import SUITE, Settings, Subject, SweepCase, sweep


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
            points = sweep(subject, cases, journal, settings=Settings(device=options.device))
    print("\n".join(table(points)))


def table(points: Sequence[Record]) -> list[str]:
    """Lines of case, implementation, cold median with its 20th and 80th percentile and hot median
    in µs, speed against eager, and error; or of the reason where there is no time.
    """
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
        lines.append(f"{start}{figures} {speed:8.2f} {point['error']:8.1e}")
    return lines


if __name__ == "__main__":
    main()
