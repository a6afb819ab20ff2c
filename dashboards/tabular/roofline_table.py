"""The table of `dashboards.table COMMIT --roofline`: how near operators come to the device.

A line for each operator: shares of the roofline, of kernl and of what is timed beside it.
"""

import math
from collections.abc import Sequence
from functools import partial

import pandas as pd

from benchmarks import roofline
from benchmarks.gate.report import escape
from dashboards import text
from dashboards.data import summary
from dashboards.data.source import Source
from dashboards.suites import KERNELS
from dashboards.tabular import printing, tables
from dashboards.tabular.roofline import ABOVE, ceilings, derived, known, timed
from dashboards.tabular.tables import Cell, Table

FASTEST = "the fastest other"
HEADINGS = (
    "operator",
    "cases",
    "kernl",
    "lowest to highest",
    "kernl, least time ≥ 10 µs",
    "eager",
    "torch.compile",
    FASTEST,
    "bound by memory / compute",
    "lowest case",
)
LONG_S = 10e-6
"""A least time beside which that of starting a kernel, some 2 µs, is small."""
_OTHERS = (summary.BASELINE, "compile", FASTEST)


def report(source: Source, machine: str | None, revision: str, *, edges: bool = True) -> list[str]:
    """The lines that the command prints.

    Args:
        source: all results.
        machine: whose times; None where the commit has times on one machine alone.
        revision: what git or the results know as a commit.
        edges: whether cases count that no model has.

    Raises:
        TableError: the machine or the commit is unknown, is not one alone, or was not timed; or
            no time of kernl's has a share.
    """
    machine, commit = printing.place(source, machine, revision, KERNELS)
    rows = source.rows(machine, commit.id)
    rows = rows if edges else printing.without_edges(rows, source)
    found = derived(rows, source.runs, source.costs)
    frame = shares(found, summary.speedups(rows))
    if frame.empty:
        raise printing.TableError(
            f"no time of kernl at commit {commit.short} has a share of the roofline; it has one "
            "where its case is frozen at the version that was measured, and its run measured what "
            "the device can do. Name another commit, or run `make bench` on this one on a GPU"
        )
    measured, frozen = set(frame["op"]), list(source.frozen or ())
    order = [op for op in (*frozen, *sorted(measured - set(frozen))) if op in measured]
    said = (
        "Share of the roofline: the least time that moving a case's bytes and computing its "
        "operations take, over the measured time; geometric mean over the cases that kernl has a "
        f"share of. What the runs measured on this GPU: {ceilings(rows, source.runs)}."
    )
    lines = printing.title(source, machine, commit, KERNELS, said)
    lines += printing.apart(source, order, partial(means, frame))
    for sentence in remarks(rows, found):
        lines += ["", escape(sentence)]
    return lines


def shares(found: pd.DataFrame, fastest: pd.DataFrame) -> pd.DataFrame:
    """`derived` with a row a case that kernl has a share of: op, case, bound, floor in seconds, and
    a column of shares for each of the implementations.

    Args:
        found: what `derived` gives.
        fastest: `summary.speedups` of the same rows, which name the fastest other implementation.
    """
    sound = found[known(found["share"])]
    sound = sound.assign(floor=sound["share"] * sound["seconds"])
    ours = sound[sound["variant"] == summary.OURS][["op", "case", "bound", "floor"]]
    theirs = sound.set_index(["op", "case", "variant"])["share"].to_dict()
    names = fastest.set_index(["op", "case"])["best_name"].to_dict()
    keys = list(zip(ours["op"], ours["case"], strict=True))
    frame = ours.reset_index(drop=True)
    for name in (summary.OURS, summary.BASELINE, "compile"):
        frame[name] = [theirs.get((*key, name), math.nan) for key in keys]
    frame[FASTEST] = [theirs.get((*key, names.get(key)), math.nan) for key in keys]
    return frame


def means(frame: pd.DataFrame, order: Sequence[str]) -> Table:
    """Geometric means of `shares`: a row for each operator, and one over several."""
    body = [_line(op, frame[frame["op"] == op]) for op in order]
    if len(order) > 1:
        body.append(_line(f"all {len(order)}", frame[frame["op"].isin(order)]))
    return Table(HEADINGS, tuple(body))


def _line(name: str, frame: pd.DataFrame) -> tuple[Cell, ...]:
    ours = frame[summary.OURS]
    low = frame.loc[ours.idxmin()]
    op = f"{low['op']} " if frame["op"].nunique() > 1 else ""
    bound = [int((frame["bound"] == side).sum()) for side in ("memory", "compute")]
    return (
        tables.word(name, 60),
        Cell(str(len(frame))),
        Cell(roofline.in_words(summary.geometric_mean(ours))),
        Cell(f"{roofline.percent(ours.min())} to {roofline.in_words(ours.max())}"),
        _part(ours.where(frame["floor"] >= LONG_S)),
        *(_part(frame[other]) for other in _OTHERS),
        Cell(f"{bound[0]} / {bound[1]}"),
        tables.word(f"{op}{text.short(low['case'], 80)}"),
    )


def _part(column: pd.Series) -> Cell:
    """The mean of shares, and of how many cases where not of all."""
    count = int(column.notna().sum())
    note = f"{count} case{'s' if count > 1 else ''}" if 0 < count < len(column) else ""
    return Cell(roofline.in_words(summary.geometric_mean(column)), note=note)


def remarks(rows: pd.DataFrame, found: pd.DataFrame) -> list[str]:
    """Sentences on times above the roofline, and on those without a share."""
    sentences = []
    over = found[found["share"].map(roofline.above).astype(bool)]
    if len(over):
        row = over.loc[over["share"].idxmax()]
        which = " ".join(text.short(row[name], 80) for name in ("op", "case", "variant"))
        sentences.append(
            f"{len(over)} of {len(found)} times are {ABOVE}, the highest {which}: "
            f"{roofline.percent(row['share'])}."
        )
    unknown = len(timed(rows)) - int(known(found["share"]).sum())
    if unknown:
        sentences.append(
            f"{unknown} of {len(timed(rows))} {KERNELS.times} have no share: the case is not "
            "frozen as it was measured, or the run did not measure what the device can do."
        )
    return sentences
