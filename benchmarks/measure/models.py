"""Measure models at once, without asv: `python -m benchmarks.measure.models bert t5`.

    python -m benchmarks.measure.models bert --match 'batch1_*'
    python -m benchmarks.measure.models all --list
    python -m benchmarks.measure.models bert t5 --implementations eager,compile_cudagraph,kernl
    python -m benchmarks.measure.models all --quick --journal FILE

A model may be named by the beginning of its name. Progress goes to standard error; the table of a
model is printed when the model is done: milliseconds of each implementation, the fastest of the
others over kernl, errors, and in words what has no time. Nothing is kept unless `--journal` names a
file.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.measure import device
from benchmarks.measure.for_asv import MODELS as SETTINGS
from benchmarks.measure.journal import Journal, Record
from benchmarks.measure.model_table import table
from benchmarks.measure.sweep import Subject, SweepCase, Workshop, sweep, worker_environment
from benchmarks.model import DTYPE, Model, ModelCase
from benchmarks.models import IMPLEMENTATIONS, LEFT_OUT, MODELS

SUITE = "models"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; exits with a message where nothing fits."""
    parser = _parser()
    options = parser.parse_args(arguments)
    chosen = [
        (model, cases_named(model, options)) for model in models_named(parser, options.models)
    ]
    chosen = [(model, cases) for model, cases in chosen if cases]
    if not chosen:
        parser.error(f"no case of {', '.join(options.models)} matches {options.match!r}")
    if options.list:
        print("\n".join(f"{model.name} {case.name}" for model, cases in chosen for case in cases))
        return
    if options.device == "cuda" and device.gpu() is None:
        parser.error("no NVIDIA GPU on this machine; --device cpu tries the machinery without one")
    names = implementations_named(parser, options)
    with tempfile.TemporaryDirectory() as directory:
        path = options.journal or Path(directory) / "points.jsonl"
        workshop = Workshop()
        try:
            with Journal(path) as journal:
                for model, cases in chosen:
                    points = _measure(model, cases, names, options, journal, workshop)
                    print("\n".join(table(model.name, points, names)), end="\n\n", flush=True)
        finally:
            workshop.stop()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.measure.models", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    name_cases(parser)
    parser.add_argument("--list", action="store_true", help="name the cases, measure nothing")
    parser.add_argument(
        "--implementations",
        metavar="A,B",
        help=f"of: {', '.join(IMPLEMENTATIONS)} (all but {', '.join(LEFT_OUT)})",
    )
    parser.add_argument("--samples", type=int, default=SETTINGS.samples, help="the fewest (30)")
    parser.add_argument("--budget", type=float, default=SETTINGS.budget_s, metavar="SECONDS")
    parser.add_argument(
        "--timeout",
        type=float,
        default=SETTINGS.case_timeout_s,
        metavar="SECONDS",
        help="of one case, all that is compiled for it included",
    )
    parser.add_argument("--journal", type=Path, help="keep the points in this file")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run")
    return parser


def name_cases(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `models_named` and `cases_named` read."""
    known = ", ".join(model.name for model in MODELS)
    parser.add_argument("models", nargs="+", metavar="MODEL", help=f"all, or of: {known}")
    parser.add_argument("--match", default="*", metavar="GLOB", help="cases, such as 'batch1_*'")
    parser.add_argument("--quick", action="store_true", help="the quick profile's part of them")


def models_named(parser: argparse.ArgumentParser, asked: Sequence[str]) -> list[Model]:
    """The models whose names begin so, in the order of the suite."""
    wanted = []
    for name in asked:
        found = [model for model in MODELS if name == "all" or model.name.startswith(name)]
        if not found:
            known = ", ".join(model.name for model in MODELS)
            parser.error(f"no model {name!r}; allowed: all, {known}")
        wanted += found
    return [model for model in MODELS if model in wanted]


def cases_named(model: Model, options: argparse.Namespace) -> list[ModelCase]:
    """The cases of a model that `--quick` and `--match` leave."""
    cases = model.quick if options.quick else model.cases
    return [
        case
        for case in cases
        if fnmatch.fnmatchcase(case.name, options.match)
        or fnmatch.fnmatchcase(case.name.removesuffix(f".{DTYPE}"), options.match)
    ]


def implementations_named(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> tuple[str, ...]:
    """Those that were asked for, in the order of the suite."""
    if options.implementations is None:
        return tuple(name for name in IMPLEMENTATIONS if name not in LEFT_OUT)
    asked = [name.strip() for name in options.implementations.split(",")]
    unknown = [name for name in asked if name not in IMPLEMENTATIONS]
    if unknown:
        parser.error(
            f"no implementation {', '.join(unknown)}; allowed: {', '.join(IMPLEMENTATIONS)}"
        )
    return tuple(name for name in IMPLEMENTATIONS if name in asked)


def _measure(
    model: Model,
    cases: Sequence[ModelCase],
    names: tuple[str, ...],
    options: argparse.Namespace,
    journal: Journal,
    workshop: Workshop,
) -> list[Record]:
    subject = Subject(
        op=model.name,
        version=model.version,
        commit="",
        machine=device.machine_name(),
        implementations=names,
        fingerprint=device.fingerprint(SUITE),
        suite=SUITE,
    )
    settings = replace(
        SETTINGS,
        device=options.device,
        samples=options.samples,
        budget_s=options.budget,
        case_timeout_s=options.timeout,
    )
    print(f"{model.name}: {len(cases)} cases × {', '.join(names)}", file=sys.stderr, flush=True)
    return sweep(
        subject,
        [SweepCase(case.name, case.dims, DTYPE) for case in cases],
        journal,
        settings=settings,
        environment=worker_environment(None),
        workshop=workshop,
    )


if __name__ == "__main__":
    main()
