"""What the pages are made from: the store's rows with foreign text cleaned, commits in order."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks import roofline
from benchmarks.cases import Cost
from benchmarks.gate.acknowledged import Acknowledged
from benchmarks.noise import Noise
from dashboards import history, summary, text
from dashboards.history import Branch, Commit
from dashboards.suites import MODELS, Suite


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
        rows, runs: frames of the store, every string printable and on one line.
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
    """

    rows: pd.DataFrame
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

    @classmethod
    def of(
        cls,
        store: Store,
        results: Path | None = None,
        frozen: summary.FrozenCases | None = None,
        opt_in: Iterable[str] = (),
        frozen_models: summary.FrozenCases | None = None,
        costs: Mapping[roofline.Key, Cost] | None = None,
        accepted: Iterable[Acknowledged] = (),
        noise: Mapping[str, Sequence[Noise]] | None = None,
    ) -> "Source":
        """Cleans the rows of a store; `results` is where its files lie, for git and for names."""
        rows = _clean_frame(store.rows)
        return cls(
            rows=rows,
            runs=_clean_frame(store.runs),
            machines={
                text.clean(name): {text.clean(k): text.clean(v) for k, v in facts.items()}
                for name, facts in sorted(store.machines.items())
            },
            problems=tuple(
                sorted((_relative(p.path, results), text.clean(p.reason)) for p in store.problems)
            ),
            commits=history.commits(rows, results) if len(rows) else (),
            frozen=frozen,
            opt_in=frozenset(text.clean(op) for op in opt_in),
            frozen_models=frozen_models,
            costs=costs or {},
            accepted=tuple(accepted),
            branch=history.branch(results) if len(rows) else Branch(),
            noise={text.clean(name): tuple(of) for name, of in sorted((noise or {}).items())},
        )

    def ops(self, *, opt_in: bool = True) -> list[str]:
        """Operators with any row, and those that the suite asks for; the opt-in ones if wanted."""
        rows = self.rows[self.rows["suite"] != MODELS.name]
        known = {*rows["op"].unique(), *(self.frozen or {})}
        return sorted(known if opt_in else known - self.opt_in)

    def models(self) -> list[str]:
        """Models with any row."""
        return sorted(self.rows.loc[self.rows["suite"] == MODELS.name, "op"].unique())

    def headline(self, suite: Suite) -> list[str]:
        """What the means of a suite are over: operators but for the opt-in ones, or models."""
        if suite is MODELS:
            return sorted({*self.models(), *(self.frozen_models or {})})
        return self.ops(opt_in=False)

    def frozen_of(self, suite: Suite) -> summary.FrozenCases | None:
        """What a suite asks for."""
        return self.frozen_models if suite is MODELS else self.frozen

    def part(self, suite: str, machine: str, op: str | None = None) -> pd.DataFrame:
        """The rows of a suite on a machine, or of one operator or model of it, in their order."""
        places = self._places.get((suite, machine), {})
        wanted = places.values() if op is None else [places[op]] if op in places else []
        return self.rows.iloc[np.sort(np.concatenate([*wanted, np.array([], np.intp)]))]

    @cached_property
    def _places(self) -> dict[tuple[str, str], dict[str, NDArray[np.intp]]]:
        found: dict[tuple[str, str], dict[str, NDArray[np.intp]]] = defaultdict(dict)
        groups = self.rows.groupby(["suite", "machine", "op"], sort=True).indices
        for (suite, machine, op), places in groups.items():
            found[suite, machine][op] = places
        return dict(found)

    def machine_names(self, suite: str) -> list[str]:
        """Machines on which anything of `suite` was measured."""
        names = sorted(machine for of_suite, machine in self._places if of_suite == suite)
        return [name for name in names if (self.part(suite, name)["status"] == "ok").any()]

    def measured_commits(
        self, suite: str, machine: str, op: str | None = None
    ) -> tuple[Commit, ...]:
        """Commits with anything measured, oldest first."""
        rows = self.part(suite, machine, op)
        names = set(rows.loc[rows["status"] == "ok", "commit"])
        return tuple(commit for commit in self.commits if commit.id in names)


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
