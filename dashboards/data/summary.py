"""Rows of measurements → speedups, geometric means, wins and losses, coverage, totals.

Pure pandas: rows are those of `benchmarks.store`, in seconds and counts. Rules:

- speedup over eager = eager's time / kernl's time; over the best alternative, the smallest
  time of any other implementation takes eager's place, but for those that are kernl in part;
- a case that kernl skips for a reason is served by eager: its time is eager's, so it counts as
  1.0×; one that is skipped without a reason was not selected, and counts as not run;
- a case that failed has no time: it is missing from the means and lowers the coverage;
- a tie is a ratio within 2 % of 1×, in either direction.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks import compare
from benchmarks.cases import was_left_out
from dashboards.data.frames import rows_of

TIE = 0.02
"""Ratios between 1 / (1 + TIE) and 1 + TIE are ties."""

OURS = "kernl"
BASELINE = "eager"
PARTS = ("kernl_graphs_only", "kernl_rewrite_only")
"""Implementations of models that are kernl with a half left out: no opponents of it."""

MEANS = frozenset({"registers", "shared_memory", "occupancy"})
"""Metrics that are averaged over cases; the others are added up."""

HIGHER_IS_BETTER = frozenset({"occupancy"})

FrozenCases = Mapping[str, Sequence[str]]
"""Operator → the cases that the suite asks for."""

_KEY = ["machine", "commit", "op", "case"]


@dataclass(frozen=True)
class Case:
    """The case that holds a record, and its ratio."""

    op: str
    case: str
    ratio: float


@dataclass(frozen=True)
class Score:
    """Ratios of one machine and commit against one opponent. Ratios above 1 are faster."""

    mean: float
    worst: Case | None
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True)
class Summary:
    """One machine and commit, over all operators or one.

    Attributes:
        over_eager: kernl against eager.
        over_best: kernl against the fastest other implementation of each case.
        compared: cases with a ratio over eager, fallbacks included.
        fallbacks: cases that kernl leaves to eager.
        failed: cases whose kernl measurement failed.
        measured: frozen cases with a time of kernl's own.
        frozen: cases that the suite asks for.
    """

    over_eager: Score
    over_best: Score
    compared: int
    fallbacks: int
    failed: int
    measured: int
    frozen: int


def outcome(ratio: float) -> str:
    """`win`, `tie` or `loss`; an empty string for NaN."""
    if not math.isfinite(ratio):
        return ""
    if ratio > 1 + TIE:
        return "win"
    return "loss" if ratio < 1 / (1 + TIE) else "tie"


def unasked(reasons: pd.Series) -> pd.Series:
    """Of points without a result: whether no run asked for them. They say so, or nothing."""
    return reasons.map(lambda why: not why or was_left_out(why)).astype(bool)


def timings(rows: pd.DataFrame, suite: str = "kernels") -> pd.DataFrame:
    """The latency rows of a suite, one for each machine, commit, op, case, implementation."""
    wanted = rows[(rows["suite"] == suite) & (rows["metric"] == "time")]
    return wanted.drop_duplicates([*_KEY, "variant"], keep="last")


def speedups(rows: pd.DataFrame, suite: str = "kernels") -> pd.DataFrame:
    """One row for each machine, commit, op and case of a suite.

    Columns beside the key: `eager`, `kernl` and `best` in seconds (`kernl` is eager's time for
    a fallback), how many `alternatives` have a time, `best_name`, `over_eager`, `over_best`,
    `status` (`ok`, `fallback`, `failed`, `missing`), `reason`, `outcome` against the best
    alternative.
    """
    times = timings(rows, suite)
    measured = times[(times["status"] == "ok") & (times["value"] > 0)]
    wide = measured.pivot(index=_KEY, columns="variant", values="value").astype(float)
    cases = pd.MultiIndex.from_frame(times[_KEY].drop_duplicates())
    wide = wide.reindex(cases).sort_index()
    for name in (BASELINE, OURS):
        if name not in wide:
            wide[name] = math.nan
    ours = times[times["variant"] == OURS].set_index(_KEY).reindex(wide.index)
    frame = pd.DataFrame(index=wide.index)
    frame["eager"] = wide[BASELINE]
    frame["status"] = ours["status"].fillna("missing").astype(str)
    frame["reason"] = ours["reason"].fillna("").astype(str)
    broken = (frame["status"] == "ok") & wide[OURS].isna()
    frame.loc[broken, "status"] = "failed"
    skipped = frame["status"] == "skipped"
    asked = ~unasked(frame.loc[skipped, "reason"])
    frame.loc[skipped, "status"] = np.where(asked, "fallback", "missing")
    fallback = (frame["status"] == "fallback") & frame["eager"].notna()
    frame["kernl"] = wide[OURS].where(~fallback, frame["eager"])
    others = wide.drop(columns=[OURS, *PARTS], errors="ignore")
    frame["alternatives"] = others.notna().sum(axis=1)
    frame["best"] = others.min(axis=1)
    frame["best_name"] = _fastest(others)
    frame["over_eager"] = frame["eager"] / frame["kernl"]
    frame["over_best"] = frame["best"] / frame["kernl"]
    frame["outcome"] = [outcome(r) for r in frame["over_best"]]
    return frame.reset_index()


def _fastest(times: pd.DataFrame) -> pd.Series:
    """The column with the smallest value of each row; an empty string where all are NaN."""
    names = pd.Series("", index=times.index, dtype=object)
    some = times.notna().any(axis=1)
    if some.any():
        names[some] = times[some].idxmin(axis=1)
    return names


def geometric_mean(ratios: pd.Series) -> float:
    """Geometric mean of the finite ratios; NaN where there are none."""
    finite = ratios[np.isfinite(ratios)]
    return compare.geometric_mean(finite) if len(finite) else math.nan


def score(frame: pd.DataFrame, column: str) -> Score:
    """Mean, worst case and wins of one ratio column of `speedups`."""
    known = frame[frame[column].notna()]
    outcomes = [outcome(r) for r in known[column]]
    worst = None
    if len(known):
        row = known.loc[known[column].idxmin()]
        worst = Case(str(row["op"]), str(row["case"]), float(row[column]))
    return Score(
        mean=geometric_mean(known[column]),
        worst=worst,
        wins=outcomes.count("win"),
        ties=outcomes.count("tie"),
        losses=outcomes.count("loss"),
    )


def summarise(frame: pd.DataFrame, frozen: FrozenCases | None = None) -> Summary:
    """Summary of `speedups` rows that share a machine and a commit.

    Args:
        frame: rows of `speedups`, all operators or one.
        frozen: the cases that the suite asks for; None counts the cases that the rows name.
    """
    named = {(str(op), str(case)) for op, case in rows_of(frame, "op", "case")}
    asked = named if frozen is None else {(op, c) for op, cs in frozen.items() for c in cs}
    ok = frame[frame["status"] == "ok"]
    done = {(str(op), str(case)) for op, case in rows_of(ok, "op", "case")}
    return Summary(
        over_eager=score(frame, "over_eager"),
        over_best=score(frame, "over_best"),
        compared=int(frame["over_eager"].notna().sum()),
        fallbacks=int((frame["status"] == "fallback").sum()),
        failed=int((frame["status"] == "failed").sum()),
        measured=len(done & asked),
        frozen=len(asked),
    )


def losses(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of `speedups` in which kernl loses to an alternative, worst first."""
    lost = frame[frame["outcome"] == "loss"]
    return lost.sort_values(["over_best", "op", "case"], kind="stable")


def codegen(rows: pd.DataFrame) -> pd.DataFrame:
    """The compile-only rows, one for each machine, commit, op, metric, case and architecture."""
    wanted = rows[rows["suite"] == "codegen"]
    return wanted.drop_duplicates([*_KEY, "metric", "variant"], keep="last")


def totals(rows: pd.DataFrame) -> pd.DataFrame:
    """Compile-only totals by machine, commit, op, metric and architecture.

    Columns beside the key: `total` (a mean for the `MEANS`), `measured` and `cases`.
    """
    key = ["machine", "commit", "op", "metric", "variant"]
    frame = codegen(rows).assign(measured=lambda f: (f["status"] == "ok") & f["value"].notna())
    frame["value"] = frame["value"].where(frame["measured"])
    grouped = frame.groupby(key, sort=True)
    result = grouped.agg(
        added=("value", "sum"), mean=("value", "mean"), measured=("measured", "sum")
    )
    result["cases"] = grouped.size()
    averaged = result.index.get_level_values("metric").isin(list(MEANS))
    result["total"] = result["mean"].where(averaged, result["added"])
    result["total"] = result["total"].where(result["measured"] > 0)
    return result[["total", "measured", "cases"]].reset_index()


def _pairs(rows: pd.DataFrame, machine: str, before: str, after: str) -> pd.DataFrame:
    """Compile-only figures that both commits have: op, case, variant, metric, before, after."""
    key = ["op", "case", "variant", "metric"]
    frame = codegen(rows)
    frame = frame[(frame["machine"] == machine) & (frame["status"] == "ok")]
    old = frame[frame["commit"] == before].set_index(key)["value"].rename("before")
    new = frame[frame["commit"] == after].set_index(key)["value"].rename("after")
    return pd.concat([old, new], axis=1, join="inner").dropna().reset_index()


def codegen_changes(rows: pd.DataFrame, machine: str, before: str, after: str) -> pd.DataFrame:
    """Cases whose compile-only figure differs between two commits, worst first.

    Columns: op, case, variant, metric, before, after, change (relative to before, or absolute
    where before is 0; positive is worse). Cases that only one commit measured are left out.
    """
    both = _pairs(rows, machine, before, after)
    both = both[both["before"] != both["after"]].copy()
    step = (both["after"] - both["before"]) / both["before"].where(both["before"] != 0, 1.0)
    both["change"] = step.where(~both["metric"].isin(list(HIGHER_IS_BETTER)), -step)
    order = ["change", "op", "case", "variant", "metric"]
    return both.sort_values(order, ascending=[False, True, True, True, True])


def codegen_deltas(
    rows: pd.DataFrame, machine: str, before: str, after: str
) -> dict[tuple[str, str, str], float]:
    """(op, architecture, metric) → change of the total over the cases that both commits have."""
    both = _pairs(rows, machine, before, after)
    both["step"] = both["after"] - both["before"]
    grouped = both.groupby(["op", "variant", "metric"])["step"]
    deltas: dict[tuple[str, str, str], float] = {}
    for (op, variant, metric), steps in grouped:
        value = steps.mean() if metric in MEANS else steps.sum()
        deltas[(str(op), str(variant), str(metric))] = float(value)
    return deltas


def relative(rows: pd.DataFrame, suite: str = "kernels") -> pd.DataFrame:
    """Speedup over eager of every other implementation, in the column `ratio`.

    Columns beside it: machine, commit, op, case, variant, status. A case that kernl leaves
    to eager counts as 1.0×.
    """
    times = timings(rows, suite)
    eager = times[(times["variant"] == BASELINE) & (times["status"] == "ok")]
    base = eager.set_index(_KEY)["value"].rename("eager")
    others = times[times["variant"] != BASELINE].join(base, on=_KEY, how="inner")
    ratio = (others["eager"] / others["value"]).where(others["status"] == "ok")
    ours = (others["variant"] == OURS) & (others["reason"] != "")
    others = others.assign(ratio=ratio.where(~(ours & (others["status"] == "skipped")), 1.0))
    return others[[*_KEY, "variant", "status", "ratio"]].dropna(subset="ratio")
