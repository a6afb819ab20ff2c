"""What the pages are made from: what was measured, with foreign text cleaned, commits in order."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from benchmarks import roofline
from benchmarks import store as stored
from benchmarks.cases import Cost
from benchmarks.gate.acknowledged import Acknowledged
from benchmarks.noise import Noise
from dashboards import text
from dashboards.data import blocks, gather, history, summary
from dashboards.data.cache import Cache
from dashboards.data.cube import ABSENT, Cube
from dashboards.data.gather import Gathered, Kept
from dashboards.data.history import Branch, Commit
from dashboards.data.points import Points
from dashboards.suites import MODELS, Suite

ORDER = ("kernels", "models", "codegen")
"""The suites in the order of pages."""


class Problem(Protocol):
    """A result file that could not be read."""

    @property
    def path(self) -> str:
        """The file."""

    @property
    def reason(self) -> str:
        """Why, in words."""


class Store(Protocol):
    """What `benchmarks.store.load` returns."""

    @property
    def rows(self) -> pd.DataFrame:
        """A row for each machine, commit, suite, op, metric, case and variant."""

    @property
    def runs(self) -> pd.DataFrame:
        """A row for each run of the suite, with the fingerprint of its machine."""

    @property
    def machines(self) -> Mapping[str, Mapping[str, str]]:
        """What asv knows of each machine."""

    @property
    def problems(self) -> Sequence[Problem]:
        """Result files that could not be read."""


@dataclass(frozen=True)
class Source:
    """Everything that the pages show.

    Attributes:
        kept: (machine, commit) → what was measured there.
        runs: a frame of the store, every string printable and on one line.
        machines: machine → what asv recorded about it.
        problems: (file, reason) of result files that could not be read.
        commits: oldest first.
        frozen: operator → cases that the suite asks for; None where that is unknown.
        frozen_models: the same of models.
        opt_in: operators that round more than their dtype does; the overview reports them apart.
        costs: what the frozen cases of operators cost at least.
        accepted: regressions that a review accepted.
        branch: the commits and releases of the branch that the results lie on.
        noise: machine → what was recorded of the noise of its cases.
        cache: where it is kept what is made of several commits.
    """

    kept: Mapping[tuple[str, str], Kept]
    runs: pd.DataFrame
    machines: dict[str, dict[str, str]]
    problems: tuple[tuple[str, str], ...]
    commits: tuple[Commit, ...]
    frozen: summary.FrozenCases | None
    opt_in: frozenset[str] = frozenset()
    frozen_models: summary.FrozenCases | None = None
    costs: Mapping[roofline.Key, Cost] = field(default_factory=dict)
    accepted: tuple[Acknowledged, ...] = ()
    branch: Branch = field(default_factory=Branch)
    noise: Mapping[str, tuple[Noise, ...]] = field(default_factory=dict)
    cache: Cache | None = None

    @classmethod
    def of(
        cls,
        store: Store | Gathered,
        results: Path | None = None,
        frozen: summary.FrozenCases | None = None,
        opt_in: Iterable[str] = (),
        frozen_models: summary.FrozenCases | None = None,
        costs: Mapping[roofline.Key, Cost] | None = None,
        accepted: Iterable[Acknowledged] = (),
        noise: Mapping[str, Sequence[Noise]] | None = None,
        cache: Cache | None = None,
    ) -> "Source":
        """That of a store, or of what was gathered; `results` is where its files lie."""
        found = store if isinstance(store, Gathered) else _gathered(store)
        dates: dict[str, int] = {}
        for one in found.kept:
            dates[one.commit] = min(one.committed_at_ms, dates.get(one.commit, one.committed_at_ms))
        return cls(
            kept={(one.machine, one.commit): one for one in found.kept},
            runs=_clean_frame(found.runs),
            machines={
                text.clean(name): {text.clean(k): text.clean(v) for k, v in facts.items()}
                for name, facts in sorted(found.machines.items())
            },
            problems=tuple(
                sorted((_relative(p.path, results), text.clean(p.reason)) for p in found.problems)
            ),
            commits=history.commits(dates, results),
            frozen=frozen,
            opt_in=frozenset(text.clean(op) for op in opt_in),
            frozen_models=frozen_models,
            costs=costs or {},
            accepted=tuple(accepted),
            branch=history.branch(results) if dates else Branch(),
            noise={text.clean(name): tuple(of) for name, of in sorted((noise or {}).items())},
            cache=cache,
        )

    @property
    def empty(self) -> bool:
        """Whether nothing was measured."""
        return not self.points

    @property
    def size(self) -> int:
        """How many points were measured, tried or asked for."""
        return sum(int((cube.status != ABSENT).sum()) for cube in self.cubes.values())

    @cached_property
    def points(self) -> Mapping[str, Points]:
        """Suite → the names that its points are numbered by; suites with any point alone."""
        layouts = {one.layout: one for one in self.kept.values()}
        found = [one.load(samples=False) for one in layouts.values()]
        every = {suite: Points.of(found, suite) for suite in ORDER}
        return {suite: points for suite, points in every.items() if points.cases}

    @cached_property
    def cubes(self) -> Mapping[tuple[str, str], Cube]:
        """(suite, machine) → what all commits measured of it there."""
        found: dict[tuple[str, str], list[Kept]] = defaultdict(list)
        for machine in sorted({machine for machine, _ in self.kept}):
            for each in self.commits:
                there = self.kept.get((machine, each.id))
                if there is not None:
                    for suite in filter(self.points.__contains__, there.suites):
                        found[suite, machine].append(there)
        return {
            (suite, machine): blocks.cube_of(machine, self.points[suite], of, self.cache)
            for (suite, machine), of in sorted(found.items())
        }

    def ops(self, *, opt_in: bool = True) -> list[str]:
        """Operators with any row, and those that the suite asks for; the opt-in ones if wanted."""
        measured = (of.names for suite, of in self.points.items() if suite != MODELS.name)
        known = {*(name for names in measured for name in names), *(self.frozen or {})}
        return sorted(known if opt_in else known - self.opt_in)

    def models(self) -> list[str]:
        """Models with any row."""
        return sorted(self.points[MODELS.name].names) if MODELS.name in self.points else []

    def headline(self, suite: Suite) -> list[str]:
        """What the means of a suite are over: operators but for the opt-in ones, or models."""
        if suite is MODELS:
            return sorted({*self.models(), *(self.frozen_models or {})})
        return self.ops(opt_in=False)

    def frozen_of(self, suite: Suite) -> summary.FrozenCases | None:
        """What a suite asks for."""
        return self.frozen_models if suite is MODELS else self.frozen

    def cube(self, suite: str, machine: str, op: str | None = None) -> Cube | None:
        """What all commits measured of a suite on a machine, or of one operator or model of it."""
        found = self.cubes.get((suite, machine))
        return found if found is None or op is None else found.part(op)

    def rows(
        self, machine: str, commit: str, suite: str | None = None, op: str | None = None
    ) -> pd.DataFrame:
        """What one commit measured, as rows of the store without samples.

        Of all suites, of one, or of one operator or model of that.
        """
        kept = self.kept.get((machine, commit))
        if kept is None:
            return stored.no_rows()
        record = kept.load(samples=False).record
        wanted = np.ones(len(record), bool)
        for column, word in (("suite", suite), ("op", op)):
            if word is not None:
                wanted &= record.where(column, word)
        return record.frame(np.flatnonzero(wanted), samples=False)

    def machine_names(self, suite: str) -> list[str]:
        """Machines on which anything of `suite` was measured."""
        return [
            machine
            for (of_suite, machine), cube in self.cubes.items()
            if of_suite == suite and cube.measured
        ]

    def measured_commits(
        self, suite: str, machine: str, op: str | None = None
    ) -> tuple[Commit, ...]:
        """Commits with anything measured, oldest first."""
        cube = self.cube(suite, machine, op)
        names = set(cube.measured) if cube is not None else set()
        return tuple(commit for commit in self.commits if commit.id in names)


def _gathered(store: Store) -> Gathered:
    """What a store holds, its text printable."""
    rows = _clean_frame(store.rows)
    return gather.of_frames(rows, store.runs, store.machines, store.problems)


def _clean_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy whose text columns hold printable text only; empty text for missing values."""
    cleaned = frame.copy()
    for name in cleaned.columns:
        column = cleaned[name]
        if name == "samples" or not _is_text(column):
            continue
        known = {value: text.clean(value) for value in column.dropna().unique()}
        cleaned[name] = column.map(known).fillna("").astype(object)
    return cleaned


def _is_text(column: pd.Series) -> bool:
    return bool(pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column))


def _relative(path: str, results: Path | None) -> str:
    """The path below the results, or the file's name alone: pages do not show where a home lies."""
    found = Path(path)
    if results is not None and found.is_absolute():
        try:
            return text.clean(found.resolve().relative_to(results.resolve()))
        except ValueError:
            return text.clean(found.name)
    return text.clean(found.name if found.is_absolute() else found)


def frozen_only(
    frozen: summary.FrozenCases | None, ops: Iterable[str]
) -> summary.FrozenCases | None:
    """The frozen cases of some operators."""
    return None if frozen is None else {op: frozen[op] for op in ops if op in frozen}
