"""The names that a suite's points are numbered by.

A point is what one implementation (or architecture) is measured by in one case. Its number is
(case · implementations + implementation) · metrics + metric, so that the points of an operator or
model follow each other, and an array of all points is one of cases, implementations and metrics.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import Record
from dashboards import text
from dashboards.data.cache import digest
from dashboards.data.measured import Measured
from dashboards.loaded.columns import packed, script
from dashboards.order import natural, ordered_variants

_POINT = ("op", "case", "variant", "metric")


@dataclass(frozen=True)
class Points:
    """The names that a suite's points are numbered by.

    Attributes:
        suite: its name.
        names: operators or models.
        cases: (operator or model, case), in the order of pages.
        variants: implementations or architectures.
        metrics: what is measured.
    """

    suite: str
    names: tuple[str, ...]
    cases: tuple[tuple[str, str], ...]
    variants: tuple[str, ...]
    metrics: tuple[str, ...]

    @classmethod
    def of(cls, found: Iterable[Measured], suite: str) -> "Points":
        """Those of a suite in what was measured."""
        layouts = {one.layout: one.record for one in found}
        keys: set[tuple[str, str]] = set()
        variants: set[str] = set()
        metrics: set[str] = set()
        for record in layouts.values():
            rows = record.where("suite", suite)
            keys.update(_pairs(record, rows))
            variants.update(_words(record, "variant", rows))
            metrics.update(_words(record, "metric", rows))
        cases = sorted(keys, key=lambda key: (key[0], natural(key[1]), key[1]))
        names = tuple(dict.fromkeys(op for op, _ in cases))
        return cls(
            suite, names, tuple(cases), tuple(ordered_variants(variants)), tuple(sorted(metrics))
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many cases, implementations and metrics there are."""
        return len(self.cases), len(self.variants), len(self.metrics)

    @cached_property
    def digest(self) -> str:
        """Equal for the same names."""
        return digest(json.dumps([self.cases, self.variants, self.metrics]))

    @cached_property
    def slices(self) -> Mapping[str, slice]:
        """Operator or model → its cases."""
        found: dict[str, slice] = {}
        for place, (op, _) in enumerate(self.cases):
            first = found[op].start if op in found else place
            found[op] = slice(first, place + 1)
        return found

    @cached_property
    def at(self) -> dict[tuple[str, str], int]:
        """(Operator or model, case) → its place."""
        return {key: place for place, key in enumerate(self.cases)}

    @cached_property
    def _numbered(self) -> dict[str, tuple[NDArray[np.intp], NDArray[np.int64]]]:
        return {}

    def numbers(self, measured: Measured) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """The rows of this suite in the order of their points' numbers, and those numbers."""
        found = self._numbered.get(measured.layout)
        if found is None:
            found = self._numbered[measured.layout] = self._find(measured.record)
        return found

    def _find(self, record: Record) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        rows = np.flatnonzero(record.where("suite", self.suite))
        op, case, variant, metric = (record.codes[name][rows] for name in _POINT)
        pair = op.astype(np.int64) * max(1, len(record.words["case"])) + case
        different, place = np.unique(pair, return_inverse=True)
        width = max(1, len(record.words["case"]))
        at = [
            self.at[record.words["op"][one // width], record.words["case"][one % width]]
            for one in different.tolist()
        ]
        of_variant = {name: number for number, name in enumerate(self.variants)}
        of_metric = {name: number for number, name in enumerate(self.metrics)}
        variants = np.array([of_variant.get(one, -1) for one in record.words["variant"]], np.int64)
        metrics = np.array([of_metric.get(one, -1) for one in record.words["metric"]], np.int64)
        cases = np.array(at, np.int64)[place]
        numbers = (cases * len(self.variants) + variants[variant]) * len(self.metrics)
        numbers = numbers + metrics[metric]
        order = np.argsort(numbers, kind="stable")
        return rows[order], numbers[order]

    def file(self, hrefs: Mapping[str, str]) -> bytes:
        """`data/points-SUITE.js`."""
        at = {name: place for place, name in enumerate(self.names)}
        slugs = text.slugs(self.names)
        return script(
            f"points-{self.suite}",
            {
                "names": [text.short(name) for name in self.names],
                "hrefs": [hrefs.get(name, "") for name in self.names],
                "slugs": [slugs[name] for name in self.names],
                "cases": [text.short(case) for _, case in self.cases],
                "of": packed([at[op] for op, _ in self.cases], "u16"),
                "variants": [text.short(name) for name in self.variants],
                "metrics": [text.short(name) for name in self.metrics],
            },
        )


def _words(record: Record, column: str, rows: Any) -> list[str]:
    return [record.words[column][code] for code in np.unique(record.codes[column][rows]).tolist()]


def _pairs(record: Record, rows: Any) -> Iterable[tuple[str, str]]:
    """The different pairs of operator and case."""
    width = max(1, len(record.words["case"]))
    both = record.codes["op"][rows].astype(np.int64) * width + record.codes["case"][rows]
    for one in np.unique(both).tolist():
        yield record.words["op"][one // width], record.words["case"][one % width]
