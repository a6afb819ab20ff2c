"""What the pages show of a machine: summaries, tables and drawings, as values for templates."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pandas as pd

from dashboards import text
from dashboards.data import history, summary
from dashboards.data.cube import ABSENT, Cube
from dashboards.data.history import Commit
from dashboards.data.source import Source, frozen_only
from dashboards.data.summary import FrozenCases, Summary
from dashboards.loaded.series_files import SeriesFiles
from dashboards.plots import figures, heat, scatter
from dashboards.plots.drawing import Drawing
from dashboards.plots.preview import Preview, of_times, spark
from dashboards.suites import KERNELS, MODELS, Suite
from dashboards.tabular import model_details, model_tables, roofline, tables
from dashboards.tabular.model_details import Rewritten
from dashboards.tabular.tables import Table

_TITLE_KEYS = ("gpu", "driver", "cuda", "torch", "triton", "ptxas")


@dataclass(frozen=True)
class OpLine:
    """One operator's summary on one machine; `spark` is how its speedup went, as a small line."""

    op: str
    href: str
    summary: Summary
    spark: tuple[str, ...] = ()


@dataclass(frozen=True)
class SpeedView:
    """Speed on one machine at its newest measured commit, over all operators or models, or one.

    Over all operators, `summary`, `ops` and the drawings leave out the opt-in operators, whose
    lines are `opt_in`. `against` and `parts` are a model's: kernl against each implementation, and
    each half of kernl alone; `rewritten` what its graphs became, `host` what calls cost the host.
    `ceilings` says what the roofline of an operator's cases is made of;
    it is empty where nothing is known of any time. `shown` are the cases of an operator or model as
    its figure offers them, `series` the files that it loads for one, and `preview` what it shows of
    the first until it is there.
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
    rewritten: Rewritten | None = None
    host: Table | None = None
    ceilings: str = ""
    shown: tuple[str, ...] = ()
    series: SeriesFiles | None = None
    preview: Preview | None = None
    drawings: Mapping[str, Drawing] = field(default_factory=dict)


@dataclass(frozen=True)
class CodegenView:
    """Compile-only figures of one machine at its newest measured commit.

    `shown` are the cases of an operator as its figures offer them, `series` the files that they
    load for one, and `places` the numbers of the commits that they show.
    """

    machine: str
    newest: Commit
    previous: Commit | None
    totals: Table
    changes: Table
    cases: Table | None = None
    shown: tuple[str, ...] = ()
    series: SeriesFiles | None = None
    places: tuple[int, ...] = ()
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
    cube = source.cube(suite.name, machine, op)
    if not order or cube is None:
        return None
    rows = source.rows(machine, order[-1].id, suite.name, op)
    newest = summary.speedups(rows, suite.name)
    headline = [op] if op is not None else source.headline(suite)
    counted = newest["op"].isin(headline)
    frozen = source.frozen_of(suite)
    view = SpeedView(
        machine=machine,
        facts=facts(source, machine, order[-1].id),
        newest=order[-1],
        commits=len(order),
        summary=summary.summarise(newest[counted], frozen_only(frozen, headline)),
        coverage_known=frozen is not None,
        ops=_lines(newest[counted], frozen, hrefs),
        opt_in=_lines(newest[~counted], frozen, hrefs),
    )
    if op is not None:
        shown = tuple(figures.most_timed(cube))
        view = replace(
            view,
            shown=shown,
            preview=of_times(cube, shown[0], suite.unit) if shown else None,
            series=SeriesFiles.of(machine, suite.name, op),
        )
        return _of_one(view, source, rows, newest, suite)
    changes = history.environment_changes(source.runs, machine, order)
    trend = figures.mean_trend(cube, headline, order, changes, suite)
    own = {choice.label: spark(choice.traces[0]["y"]) for choice in trend.choices}
    return replace(
        view,
        ops=tuple(replace(line, spark=own.get(line.op, ())) for line in view.ops),
        losses=tables.losses(newest, hrefs, source.opt_in, suite),
        unmeasured=tables.unmeasured(newest, hrefs, source.opt_in, suite),
        drawings={"trend": trend},
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
        runs = source.runs[source.runs["commit"] == view.newest.id]
        amounts = roofline.derived(rows, runs, source.costs)
        drawings |= scatter.drawings(rows, amounts, roofline.measured(rows, runs))
        return replace(
            view,
            cases=tables.cases(rows, newest, roofline.columns(amounts)),
            ceilings=(roofline.ceilings(rows, runs) or "nothing") if len(amounts) else "",
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
        rewritten=model_details.rewritten(rows),
        host=model_details.host(rows),
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
    cube = source.cube("codegen", machine, op)
    if not order or cube is None:
        return None
    newest, previous = order[-1], order[-2] if len(order) > 1 else None
    rows = summary.codegen(
        pd.concat(source.rows(machine, commit.id, "codegen", op) for commit in order[-2:])
    )
    drawings = {}
    if op is not None:
        known = dict(zip(cube.points.metrics, _said(cube), strict=True))
        shown = [metric for metric in text.METRIC_TITLES if known.get(metric)]
        drawings = {metric: figures.codegen_trend(cube, metric, order) for metric in shown}
    view = CodegenView(
        machine=machine,
        newest=newest,
        previous=previous,
        totals=_without_op(tables.totals(rows, machine, previous, newest, hrefs), op),
        changes=_without_op(tables.changes(rows, machine, previous, newest, hrefs), op),
        drawings=drawings,
    )
    if op is None:
        return view
    number = {commit.id: place for place, commit in enumerate(source.commits)}
    said = (cube.status != ABSENT).any(axis=(0, 2, 3))
    return replace(
        view,
        cases=tables.codegen_cases(rows[rows["commit"] == newest.id]),
        shown=tuple(case for _, case in cube.cases_of(said)),
        series=SeriesFiles.of(machine, "codegen", op),
        places=tuple(number[commit.id] for commit in order),
    )


def _said(cube: Cube) -> list[bool]:
    """Which metrics of a cube any commit says something of."""
    return [bool(one) for one in (cube.status != ABSENT).any(axis=(0, 1, 2))]


def _without_op(table: Table, op: str | None) -> Table:
    """On the page of `op`, the column that names the operator says nothing."""
    return table if op is None else _without_first(table)


def _without_first(table: Table) -> Table:
    return replace(table, headings=table.headings[1:], rows=tuple(row[1:] for row in table.rows))
