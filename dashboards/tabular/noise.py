"""How much noise each machine has: what was recorded of it, and how wide its intervals are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.noise import KINDS, Noise
from dashboards import text
from dashboards.data import summary
from dashboards.data.history import Commit
from dashboards.data.source import Source
from dashboards.suites import SUITES, Suite
from dashboards.tabular.tables import Cell, Table, word

SHARES = {"Median case": 0.5, "90 % of cases": 0.9, "99 % of cases": 0.99, "Worst case": 1.0}
"""Heading → part of the cases that have at most as much."""
MEANINGS = {
    "block": "one side's blocks within a session: what changes from moment to moment",
    "quad": "the ratio of the sides over four blocks in turns: what taking turns does not remove",
    "session": "the median ratio of a session: what differs from process to process besides",
    "session, drift out": "the same of kernl's time over eager's, which did not change either",
    "level": "one side's median of a session: what two runs that do not take turns differ by",
}
"""Kind of noise → what it is the standard deviation of."""


@dataclass(frozen=True)
class NoiseView:
    """How much noise a machine has.

    Attributes:
        timed: whether any time was measured there, or any noise recorded.
        cases, sessions: of what was recorded, how many; 0 where nothing was.
        kinds: a row for each kind of noise.
        widths: a row for each suite of times: how wide intervals are at its newest commit.
    """

    timed: bool
    cases: int
    sessions: int
    kinds: Table
    widths: Table


def view(source: Source, machine: str) -> NoiseView:
    """How much noise a machine has."""
    noises = source.noise.get(machine, ())
    suites = [suite for suite in SUITES.values() if machine in source.machine_names(suite.name)]
    return NoiseView(
        timed=bool(suites or noises),
        cases=len(noises),
        sessions=sum(noise.sessions for noise in noises),
        kinds=_kinds(noises),
        widths=_widths(source, machine, suites),
    )


def _kinds(noises: Sequence[Noise]) -> Table:
    rows = []
    for kind in KINDS if noises else ():
        values = np.array([noise.spread[kind] for noise in noises])
        cells = (_percent(part) for part in quantiles(values))
        rows.append((word(kind), *cells, word(MEANINGS.get(kind, ""))))
    return Table(("Kind", *SHARES, "Standard deviation of"), tuple(rows))


def quantiles(values: np.ndarray) -> list[float]:
    """What the parts of `SHARES` have at most, of those that are known; NaN where none is."""
    known = values[np.isfinite(values)]
    return [float(np.quantile(known, at)) if known.size else math.nan for at in SHARES.values()]


def widths(rows: pd.DataFrame, suite: str) -> np.ndarray:
    """How wide the 99 % intervals of kernl's times are, as parts of the times."""
    known = summary.timings(rows, suite)
    known = known[(known["variant"] == summary.OURS) & (known["status"] == "ok")]
    known = known[known["value"] > 0]
    found = ((known["high"] - known["low"]) / known["value"]).to_numpy(float)
    return found[np.isfinite(found)]


def _widths(source: Source, machine: str, suites: Sequence[Suite]) -> Table:
    rows = []
    for suite in suites:
        newest = source.measured_commits(suite.name, machine)[-1]
        found = widths(source.rows(machine, newest.id, suite.name), suite.name)
        median, nine_of_ten, *_ = quantiles(found)
        rows.append(
            (
                word(f"{suite.subject}s"),
                _commit(newest),
                Cell(f"{len(found):,}", float(len(found))),
                _percent(median),
                _percent(nine_of_ten),
            )
        )
    headings = ("What", "Newest measured commit", "Cases with an interval")
    return Table((*headings, *list(SHARES)[:2]), tuple(rows))


def _commit(commit: Commit) -> Cell:
    return word(commit.short, note=text.short(commit.subject, 60))


def _percent(part: float) -> Cell:
    shown = f"{100 * part:.2f}" if math.isfinite(part) else "–"
    return Cell(shown, text.number(part, 6))
