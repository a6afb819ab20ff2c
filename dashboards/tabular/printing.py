"""What printed tables share: which machine and commit is meant, a title, tables in Markdown."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd

from benchmarks.gate.report import escape
from benchmarks.gate.revisions import GateError, resolve
from dashboards import views
from dashboards.data.history import Commit
from dashboards.data.source import Source
from dashboards.suites import Suite
from dashboards.tabular.tables import Table

MOST_COMMITS = 5
"""Commits that an error names; the newest ones."""


class TableError(Exception):
    """Nothing can be printed; the message says what was seen, what is allowed, what to do."""


def title(source: Source, machine: str, commit: Commit, suite: Suite, said: str) -> list[str]:
    """What was measured, where, and in `said` how the table is read."""
    parts = (commit.short, commit.committed, machine, views.facts(source, machine, commit.id))
    return [
        f"{suite.times.capitalize()}: {escape(' · '.join(part for part in parts if part))}.",
        "",
        said,
    ]


def apart(
    source: Source, order: Sequence[str], table: Callable[[Sequence[str]], Table]
) -> list[str]:
    """A table of the ordinary operators or of models, and one of the opt-in operators."""
    ordinary = [op for op in order if op not in source.opt_in]
    opt_in = [op for op in order if op in source.opt_in]
    lines = ["", *markdown(table(ordinary))] if ordinary else []
    if opt_in:
        lines += ["", "Opt-in operators, which round to 8 or 4 bits and are asked for by name:"]
        lines += ["", *markdown(table(opt_in))]
    return lines


def place(source: Source, machine: str | None, revision: str, suite: Suite) -> tuple[str, Commit]:
    """The machine and the one commit that `revision` names, with times of the suite there."""
    machines = source.machine_names(suite.name)
    if not machines:
        raise TableError(f"there are no {suite.times} yet. Run `make bench` on a GPU")
    if machine is not None and machine not in machines:
        allowed = ", ".join(machines)
        raise TableError(
            f"machine {machine!r} has no {suite.times}; allowed: {allowed}. Name one of these, or "
            "run `make bench` on a GPU"
        )
    looked = machines if machine is None else [machine]
    timed = {one: source.measured_commits(suite.name, one) for one in looked}
    allowed = "; ".join(_timed_on(one, timed[one], suite) for one in looked)
    try:
        found = resolve(revision, (commit.id for commit in source.commits))
    except GateError as error:
        raise TableError(f"{error}; {allowed}") from error
    places = [(one, each) for one in looked for each in timed[one] if each.id == found]
    if not places:
        raise TableError(
            f"commit {found[:8]} has no {suite.times} on {' or '.join(looked)}; {allowed}. Name "
            "one of these, or run `make bench` on it there"
        )
    if len(places) > 1:
        raise TableError(
            f"commit {found[:8]} has {suite.times} on {' and '.join(one for one, _ in places)}; "
            "one table is of one machine. Name it by --machine"
        )
    return places[0]


def without_edges(rows: pd.DataFrame, source: Source) -> pd.DataFrame:
    """Rows of the store without edges, which no model has: models' sizes are timed in fp16 alone,
    edges in float32 too.
    """
    cases = (case for points in source.points.values() for case in points.cases)
    edges = {(op, case.removesuffix(".fp32")) for op, case in cases if case.endswith(".fp32")}
    shapes = (case.rpartition(".")[0] for case in rows["case"])
    kept = (key not in edges for key in zip(rows["op"], shapes, strict=True))
    return rows[np.fromiter(kept, bool, len(rows))]


def _timed_on(machine: str, commits: Sequence[Commit], suite: Suite) -> str:
    """The newest commits of a machine, for an error."""
    newest = [commit.short for commit in reversed(commits)]
    more = f" and {len(newest) - MOST_COMMITS} more" if len(newest) > MOST_COMMITS else ""
    return f"those with {suite.times} on {machine}: {', '.join(newest[:MOST_COMMITS])}{more}"


def markdown(table: Table) -> list[str]:
    """The lines of a table with rows; names from result files are shown as they are."""
    marks = ("---:" if cell.numeric else "---" for cell in table.rows[0])
    lines = [_joined(escape(heading) for heading in table.headings), _joined(marks)]
    for cells in table.rows:
        said = (f"{cell.text} ({cell.note})" if cell.note else cell.text for cell in cells)
        lines.append(_joined(escape(each) for each in said))
    return lines


def _joined(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
