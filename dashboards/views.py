"""What the pages show of a machine: summaries, tables and drawings, as values for templates."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pandas as pd

from dashboards import (
    figures,
    heat,
    history,
    model_tables,
    roofline,
    scatter,
    shards,
    summary,
    tables,
    text,
)
from dashboards.drawing import Drawing
from dashboards.history import Commit
from dashboards.source import Source, frozen_only
from dashboards.suites import KERNELS, MODELS, Suite
from dashboards.summary import FrozenCases, Summary
from dashboards.tables import Table

_TITLE_KEYS = ("gpu", "driver", "cuda", "torch", "triton", "ptxas")


@dataclass(frozen=True)
class OpLine:
    """One operator's summary on one machine."""

    op: str
    href: str
    summary: Summary


@dataclass(frozen=True)
class SpeedView:
    """Speed on one machine at its newest measured commit, over all operators or models, or one.

    Over all operators, `summary`, `ops` and the drawings leave out the opt-in operators, whose
    lines are `opt_in`. `against` and `parts` are a model's: kernl against each implementation, and
    each half of kernl alone. `ceilings` says what the roofline of an operator's cases is made of;
    it is empty where nothing is known of any time. `shown` are the cases of an operator or model as
    its figure offers them, and `series` the files that it loads for one.
    """

    machine: str
    facts: str
    newest: Commit
    commits: int
    summary: Summary
    coverage_known: bool
    ops: tuple[OpLine, ...] = ()
    opt_in: tuple[OpLine, ...] = ()
    losses: Table | None = None
    unmeasured: Table | None = None
    cases: Table | None = None
    against: Table | None = None
    parts: Table | None = None
    ceilings: str = ""
    shown: tuple[str, ...] = ()
    series: shards.SeriesFiles | None = None
    drawings: Mapping[str, Drawing] = field(default_factory=dict)


@dataclass(frozen=True)
class CodegenView:
    """Compile-only figures of one machine at its newest measured commit."""

    machine: str
    newest: Commit
    previous: Commit | None
    totals: Table
    changes: Table
    cases: Table | None = None
    drawings: Mapping[str, Drawing] = field(default_factory=dict)


def facts(source: Source, machine: str, commit: str = "") -> str:
    """The fingerprint of a machine's last run (of `commit`, where given) on one line."""
    runs = source.runs
    if runs.empty:
        return ""
    mine = runs[runs["machine"] == machine].sort_values("started_at", kind="stable")
    mine = mine[mine["commit"] == commit] if (mine["commit"] == commit).any() else mine
    if mine.empty:
        return ""
    last = mine.iloc[-1]
    known = [(key, text.short(last[key], 40)) for key in _TITLE_KEYS if key in mine]
    parts = (value if key == "gpu" else f"{key} {value}" for key, value in known if value)
    return " · ".join(parts)


def speed(
    source: Source,
    machine: str,
    hrefs: Mapping[str, str],
    op: str | None = None,
    suite: Suite = KERNELS,
) -> SpeedView | None:
    """Speed on `machine`, over a whole suite or of `op`; None where nothing was measured."""
    order = source.measured_commits(suite.name, machine, op)
    if not order:
        return None
    rows = source.part(suite.name, machine, op)
    rows = rows[rows["commit"].isin([commit.id for commit in order])]
    frame = summary.speedups(rows, suite.name)
    last = frame["commit"] == order[-1].id
    newest = frame[last]
    headline = [op] if op is not None else source.headline(suite)
    counted = frame["op"].isin(headline)
    frozen = source.frozen_of(suite)
    view = SpeedView(
        machine=machine,
        facts=facts(source, machine, order[-1].id),
        newest=order[-1],
        commits=len(order),
        summary=summary.summarise(frame[last & counted], frozen_only(frozen, headline)),
        coverage_known=frozen is not None,
        ops=_lines(frame[last & counted], frozen, hrefs),
        opt_in=_lines(frame[last & ~counted], frozen, hrefs),
    )
    if op is not None:
        view = replace(
            view,
            shown=tuple(figures.most_timed(summary.timings(rows, suite.name))),
            series=shards.SeriesFiles.of(machine, suite.name, op),
        )
        rows = rows[rows["commit"] == order[-1].id]
        return _of_one(view, source, rows, newest, suite)
    changes = history.environment_changes(source.runs, machine, order)
    return replace(
        view,
        losses=tables.losses(newest, hrefs, source.opt_in, suite),
        unmeasured=tables.unmeasured(newest, hrefs, source.opt_in, suite),
        drawings={"trend": figures.mean_trend(frame[counted], order, changes, suite)},
    )


def _of_one(
    view: SpeedView,
    source: Source,
    rows: pd.DataFrame,
    newest: pd.DataFrame,
    suite: Suite,
) -> SpeedView:
    """The view of one operator or model: its figures, and its tables of cases."""
    drawings = {}
    heated = summary.relative(rows, suite.name)
    # One case of a model stands in the table beside it already.
    if len(heated) and (suite is not MODELS or heated["case"].nunique() > 1):
        drawings["heat"] = heat.heat_map(heated)
    if suite is not MODELS:
        amounts = roofline.derived(rows, source.runs, source.costs)
        drawings |= scatter.drawings(rows, amounts, roofline.measured(rows, source.runs))
        return replace(
            view,
            cases=tables.cases(rows, newest, roofline.columns(amounts)),
            ceilings=(roofline.ceilings(rows, source.runs) or "nothing") if len(amounts) else "",
            drawings=drawings,
        )
    by_shape = heat.grid(newest)
    if by_shape is not None:
        drawings["grid"] = by_shape
    return replace(
        view,
        losses=_without_first(tables.losses(newest, dict.fromkeys(newest["op"], ""), (), suite)),
        cases=model_tables.cases(rows, newest),
        against=model_tables.against(rows, newest),
        parts=model_tables.parts(rows, newest),
        drawings=drawings,
    )


def _lines(
    newest: pd.DataFrame, frozen: FrozenCases | None, hrefs: Mapping[str, str]
) -> tuple[OpLine, ...]:
    """A summary for each operator of `summary.speedups` rows of one commit."""
    return tuple(
        OpLine(
            str(name), hrefs[str(name)], summary.summarise(part, frozen_only(frozen, [str(name)]))
        )
        for name, part in newest.groupby("op", sort=True)
    )


def codegen(
    source: Source, machine: str, hrefs: Mapping[str, str], op: str | None = None
) -> CodegenView | None:
    """Compile-only figures of `machine`; None where nothing was measured."""
    order = source.measured_commits("codegen", machine, op)
    if not order:
        return None
    rows = summary.codegen(source.part("codegen", machine, op))
    rows = rows[rows["commit"].isin([c.id for c in order])]
    newest, previous = order[-1], order[-2] if len(order) > 1 else None
    known = set(rows["metric"])
    drawings = (
        {m: figures.codegen_trend(rows, m, order) for m in text.METRIC_TITLES if m in known}
        if op is not None
        else {}
    )
    return CodegenView(
        machine=machine,
        newest=newest,
        previous=previous,
        totals=_without_op(tables.totals(rows, machine, previous, newest, hrefs), op),
        changes=_without_op(tables.changes(rows, machine, previous, newest, hrefs), op),
        cases=tables.codegen_cases(rows[rows["commit"] == newest.id]) if op is not None else None,
        drawings=drawings,
    )


def _without_op(table: Table, op: str | None) -> Table:
    """On the page of `op`, the column that names the operator says nothing."""
    return table if op is None else _without_first(table)


def _without_first(table: Table) -> Table:
    return replace(table, headings=table.headings[1:], rows=tuple(row[1:] for row in table.rows))
