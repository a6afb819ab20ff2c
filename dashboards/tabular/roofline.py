"""What stored times of operators amount to: GB/s, TFLOP/s, and the share of the roofline.

A time counts where its case is frozen at the version that it was measured at. The ceilings are
those that its own run measured; without them there is no share.
"""

import math
from collections.abc import Iterable, Mapping

import pandas as pd

from benchmarks import roofline
from benchmarks.cases import Cost
from benchmarks.measure.timing import Ceilings
from dashboards import text
from dashboards.data import summary
from dashboards.data.frames import records, rows_of
from dashboards.tabular import tables
from dashboards.tabular.tables import Cell, Columns

DERIVED = {
    "op": object,
    "case": object,
    "variant": object,
    "seconds": float,
    "low": float,
    "high": float,
    "bytes": float,
    "flops": float,
    "unit": object,
    "bytes_per_s": float,
    "flops_per_s": float,
    "share": float,
    "bound": object,
}
"""Columns of `derived` and their types. `low` and `high` are the ends of the time's interval;
bytes, flops and unit are what `Cost` says; bound is `memory`, `compute`, or empty where unknown."""

ABOVE = "above the roofline"
UNITS = ("fp16", "bf16", "fp32", "fp8")
"""What a case may compute in, each with a ceiling of its own."""


def derived(
    rows: pd.DataFrame, runs: pd.DataFrame, costs: Mapping[roofline.Key, Cost]
) -> pd.DataFrame:
    """What the times of operators amount to: `DERIVED` of each time that has a cost.

    Args:
        rows: rows of one machine and commit.
        runs: all runs, with the figures of their fingerprints.
        costs: what each frozen case costs.
    """
    by_run = _ceilings(runs)
    body = []
    for row in records(timed(rows)):
        cost = costs.get((str(row["op"]), str(row["case"]), str(row["version"])))
        if cost is not None:
            seconds = float(row["value"])
            found = roofline.achieved(seconds, cost, by_run.get(_run(row), Ceilings.of({})))
            key = (row["op"], row["case"], row["variant"])
            time = (seconds, float(row["low"]), float(row["high"]))
            rates = (found.bytes_per_s, found.flops_per_s, found.share, found.bound)
            body.append((*key, *time, cost.bytes, cost.flops, cost.unit, *rates))
    return pd.DataFrame(body, columns=list(DERIVED)).astype(DERIVED)


def known(shares: pd.Series) -> pd.Series:
    """Which shares are numbers above 0."""
    return shares.between(0, math.inf, inclusive="neither")


def timed(rows: pd.DataFrame) -> pd.DataFrame:
    """The times of operators among the rows of a store, as far as they are needed here."""
    times = summary.timings(rows)
    good = times[(times["status"] == "ok") & (times["value"] > 0)]
    key = ["run", "machine", "commit", "op", "case", "variant", "version"]
    return good[[*key, "value", "low", "high"]]


def _run(row: Mapping[str, object]) -> tuple[str, str, str]:
    """A run's id with its machine and commit: a run of another one says nothing of this time."""
    return str(row["run"]), str(row["machine"]), str(row["commit"])


def _ceilings(runs: pd.DataFrame) -> dict[tuple[str, str, str], Ceilings]:
    return {_run(row): Ceilings.of(row) for row in records(runs)}


def measured(rows: pd.DataFrame, runs: pd.DataFrame) -> list[Ceilings]:
    """What the runs that the times in `rows` are of measured this device to do."""
    by_run, times = _ceilings(runs), timed(rows)
    used = dict.fromkeys(rows_of(times, "run", "machine", "commit"))
    return [by_run[run] for run in used if run in by_run]


def ceilings(rows: pd.DataFrame, runs: pd.DataFrame) -> str:
    """The ceilings of the runs that the times in `rows` are of, in words; empty for none.

    `copies 3.02 TB/s; products fp16 766, bf16 779, fp32 383, fp8 1,531 TFLOP/s`
    """
    used = measured(rows, runs)
    copies = spread((one.copy_bytes_per_s for one in used), 1e12)
    rates = {unit: spread((one.flops_per_s[unit] for one in used), 1e12) for unit in UNITS}
    products = ", ".join(f"{unit} {rate}" for unit, rate in rates.items() if rate)
    parts = [f"copies {copies} TB/s" if copies else ""]
    parts.append(f"products {products} TFLOP/s" if products else "")
    return "; ".join(part for part in parts if part)


def spread(rates: Iterable[float], unit: float) -> str:
    """`3.02`, or `4.24 to 4.31` where runs differ; empty where no run knows."""
    ordered = sorted(rate for rate in rates if math.isfinite(rate))
    ends = dict.fromkeys(roofline.rate(rate, unit) for rate in (ordered[:1] + ordered[-1:]))
    return " to ".join(ends)


def columns(found: pd.DataFrame) -> Columns:
    """kernl's part of `derived` as columns of a table of cases; none where there is nothing."""
    ours = found[found["variant"] == summary.OURS]
    if ours.empty:
        return Columns((), {})
    headings = ("kernl, GB/s", "kernl, TFLOP/s", "of the roofline, %", "bound by")
    return Columns(headings, {str(row["case"]): _cells(row) for row in records(ours)})


def _cells(row: Mapping[str, float]) -> tuple[Cell, ...]:
    moved, computed, share = row["bytes_per_s"], row["flops_per_s"], row["share"]
    return (
        Cell(roofline.gb_per_s(moved), text.number(moved / 1e9, 6)),
        Cell(roofline.tflop_per_s(computed), text.number(computed / 1e12, 6)),
        Cell(
            roofline.percent(share).removesuffix(" %"),
            text.number(100 * share, 6),
            note=ABOVE if roofline.above(share) else "",
        ),
        tables.word(row["bound"] or "–"),
    )
