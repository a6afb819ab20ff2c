"""`python -m dashboards.table COMMIT`: the times of one commit as a table in Markdown.

Reads the stored results and prints a line for each operator, by the rules of
`dashboards.data.summary`: kernl's speed over eager, over torch.compile, over a library's own call
where there is one, and over the fastest of them case by case. Opt-in operators have a table of
their own. `--suite models` prints the same of whole models, and the milliseconds of every case.
`--roofline` prints instead how near the times of operators come to what the device was measured to
do. `--without-edges` leaves out the cases that no model has: those that are measured in float32 and
bfloat16 too.

Exit codes: 0 printed; 2 there is nothing to print.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.gate.command import RESULTS
from benchmarks.gate.report import escape
from dashboards import build, text
from dashboards.data import summary
from dashboards.data.source import Source
from dashboards.suites import KERNELS, MODELS, SUITES, Suite
from dashboards.tabular import model_tables, printing, roofline_table, tables
from dashboards.tabular.tables import Cell, Table

_SAID = (
    "Geometric mean over the cases (worst case); above 1× kernl is faster, and a win or a loss is "
    f"more than {100 * summary.TIE:g} %."
)


def headings(suite: Suite) -> tuple[str, ...]:
    """The headings of the table of means."""
    return (
        suite.subject,
        "cases",
        "over eager",
        *(f"over {name}" for name in suite.names),
        "over the best of them" if suite is KERNELS else "over the best alternative",
        "wins / ties / losses",
        "worst case (fastest there)",
        "failed",
    )


def ratios(rows: pd.DataFrame, suite: Suite) -> pd.DataFrame:
    """`summary.speedups` of one machine and commit, with a column for each opponent."""
    frame = summary.speedups(rows, suite.name)
    times = summary.timings(rows, suite.name)
    times = times[(times["status"] == "ok") & (times["value"] > 0)]
    for name in suite.opponents:
        theirs = times[times["variant"] == name].set_index(["op", "case"])["value"]
        joined = frame.join(theirs.rename("theirs"), on=["op", "case"])
        frame[f"over_{name}"] = joined["theirs"] / frame["kernl"]
    return frame


def failures(times: pd.DataFrame) -> str:
    """How many measurements failed, by implementation: `2 compile, 1 kernl`; `0` for none."""
    broken = (times["status"] == "failed") | ((times["status"] == "ok") & ~(times["value"] > 0))
    counts = times.loc[broken, "variant"].value_counts()
    return ", ".join(f"{n} {text.short(name, 24)}" for name, n in sorted(counts.items())) or "0"


def line(name: str, frame: pd.DataFrame, times: pd.DataFrame, suite: Suite) -> tuple[Cell, ...]:
    """One row of the table: `frame` holds `ratios`, `times` the timings behind them."""
    found = summary.summarise(frame)
    cases = str(found.measured)
    if found.fallbacks:
        cases += f", {found.fallbacks} left to eager"
    best = found.over_best
    worst = ""
    if best.worst is not None:
        row = frame.loc[frame["over_best"].idxmin()]
        op = f"{best.worst.op} " if frame["op"].nunique() > 1 else ""
        worst = f"{op}{text.short(best.worst.case, 80)} ({text.short(row['best_name'], 40)})"
    theirs = (summary.score(frame, f"over_{name}") for name in suite.opponents)
    scores = [found.over_eager, *theirs, best]
    return (
        tables.word(name, 60),
        Cell(cases),
        *(Cell(_mean_and_worst(score)) for score in scores),
        Cell(f"{best.wins} / {best.ties} / {best.losses}"),
        tables.word(worst or "–"),
        tables.word(failures(times)),
    )


def _mean_and_worst(score: summary.Score) -> str:
    """`1.87× (0.94×)`, or `–` where nothing was compared."""
    if score.worst is None:
        return "–"
    return f"{text.ratio(score.mean)} ({text.ratio(score.worst.ratio)})"


def means(frame: pd.DataFrame, times: pd.DataFrame, order: Sequence[str], suite: Suite) -> Table:
    """A row for each operator or model of `order`, and one over all where there are several."""
    body = [line(op, frame[frame["op"] == op], times[times["op"] == op], suite) for op in order]
    if len(order) > 1:
        counted, taken = (part[part["op"].isin(order)] for part in (frame, times))
        body.append(line(f"all {len(order)}", counted, taken, suite))
    return Table(headings(suite), tuple(body))


def report(
    source: Source,
    machine: str | None,
    revision: str,
    losses: int = 0,
    suite: Suite = KERNELS,
    *,
    edges: bool = True,
) -> list[str]:
    """The lines that the command prints.

    Args:
        source: all results.
        machine: whose times; None where the commit has times on one machine alone.
        revision: what git or the results know as a commit.
        losses: how many of the cases that kernl loses are listed, worst first.
        suite: of operators or of models.
        edges: whether cases count that no model has.

    Raises:
        TableError: the machine or the commit is unknown, is not one alone, or was not timed.
    """
    machine, commit = printing.place(source, machine, revision, suite)
    rows = source.rows(machine, commit.id)
    rows = rows if edges else printing.without_edges(rows, source)
    frame, times = ratios(rows, suite), summary.timings(rows, suite.name)
    run, left = _run(frame, times, list(source.frozen_of(suite) or ()))
    lines = printing.title(source, machine, commit, suite, _SAID)
    lines += printing.apart(source, run, lambda order: means(frame, times, order, suite))
    if left:
        lines += ["", f"Not run: {escape(', '.join(text.short(op, 60) for op in left))}."]
    lines += _models(rows, frame, run) if suite is MODELS else []
    return [*lines, *_losses(frame, source, losses, suite)] if losses else lines


def _models(rows: pd.DataFrame, frame: pd.DataFrame, order: Sequence[str]) -> list[str]:
    """The milliseconds of every case, a table for each model; then what kernl's parts bring."""
    said = "Milliseconds of one call, and in brackets kernl's speed over it"
    lines = []
    for model in order:
        table = model_tables.with_means(rows[rows["op"] == model], frame[frame["op"] == model])
        if table.rows:
            lines += ["", f"{escape(text.short(model, 60))}. {said}:", ""]
            lines += printing.markdown(table)
    parts = model_tables.part_means(rows, order)
    if parts.rows:
        lines += ["", "Parts of kernl, which are no alternatives to it, over eager:", ""]
        lines += printing.markdown(parts)
    return lines


def _run(
    frame: pd.DataFrame, times: pd.DataFrame, frozen: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Operators with a measurement that was tried, and the frozen ones without, in their order."""
    tried = set(frame.loc[frame["status"] != "missing", "op"])
    tried |= set(times.loc[times["status"] == "failed", "op"])
    order = [*frozen, *sorted(tried - set(frozen))]
    return [op for op in order if op in tried], [op for op in order if op not in tried]


def _losses(frame: pd.DataFrame, source: Source, most: int, suite: Suite) -> list[str]:
    """The worst losses, case by case, with both times."""
    every = tables.losses(frame, dict.fromkeys(frame["op"], ""), source.opt_in, suite)
    if not every.rows:
        return ["", "No case is a loss."]
    shown = Table(every.headings, every.rows[:most])
    said = f"The worst {len(shown.rows)} of {len(every.rows)} losses:"
    return ["", said, "", *printing.markdown(shown)]


def _count(word: str) -> int:
    """A number of losses, for the command line."""
    if not word.isascii() or not word.isdigit() or not int(word):
        raise argparse.ArgumentTypeError(f"{word!r} is no count; allowed: 1 or more")
    return int(word)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dashboards.table", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("commit", metavar="COMMIT", help="any git revision with times")
    parser.add_argument(
        "--suite", choices=sorted(SUITES), default=KERNELS.name, help="default: %(default)s"
    )
    parser.add_argument("--machine", help="default: the one that timed the commit")
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--losses", type=_count, default=0, metavar="N", help="list the N worst losses by case"
    )
    either.add_argument(
        "--roofline", action="store_true", help="print shares of the roofline, of operators alone"
    )
    parser.add_argument(
        "--without-edges", action="store_true", help="models' sizes alone, which are timed in fp16"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="asv's results directory")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code: 0 printed, 2 there is nothing to print."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.roofline and options.suite != KERNELS.name:
        parser.error(
            f"--roofline of {options.suite}: nobody counts what they move and compute; allowed: "
            f"--suite {KERNELS.name}"
        )
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        source = build.read(options.results)
        for path, reason in source.problems:
            print(f"table: skipped {path}: {reason}", file=sys.stderr)
        asked, edges = (source, options.machine, options.commit), not options.without_edges
        if options.roofline:
            lines = roofline_table.report(*asked, edges=edges)
        else:
            lines = report(*asked, options.losses, SUITES[options.suite], edges=edges)
        print("\n".join(lines), flush=True)
    except BrokenPipeError:
        # The reader, such as `head`, has what it wanted; Python writes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (build.BuildError, printing.TableError) as error:
        print(f"table: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
