"""Result files for tests, written by asv itself, and edits that spoil them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asv.results import Results
from asv.runner import BenchmarkResult
from asv.util import write_json

from benchmarks import store

MACHINE = "toy"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"
CASES = ["rows1_cols2.fp16", "rows3_cols4.bf16"]
VARIANTS = ["eager", "kernl"]
SOFTMAX = "kernels.Softmax.track_time"

Edit = Callable[[dict[str, Any]], None]


def write_machine(results: Path, machine: str = MACHINE) -> None:
    write_json(str(results / machine / "machine.json"), {"machine": machine, "cpu": "toy cpu"}, 1)


def write_results(
    results: Path,
    values: dict[str, list[Any] | None],
    *,
    commit: str = COMMIT,
    environment: str = "worktree",
    samples: dict[str, list[Any]] | None = None,
    record_samples: bool = False,
    cases: list[str] = CASES,
    variants: list[str] = VARIANTS,
    started_at: float = 0.0,
) -> Path:
    """Let asv write a result file; None for a benchmark means that all its cases failed."""
    write_machine(results)
    file = Results({"machine": MACHINE}, {}, commit, 1_700_000_000_000, "3.11", environment, {})
    params = [[repr(case) for case in cases], [repr(variant) for variant in variants]]
    count = len(cases) * len(variants)
    for name, result in values.items():
        taken = (samples or {}).get(name) or [None] * count
        numbers = [1 if sample is not None else None for sample in taken]
        outcome = BenchmarkResult(result or [None] * count, taken, numbers, 0, "", None)
        benchmark = {"name": name, "version": "v1", "params": params}
        file.add_result(benchmark, outcome, record_samples=record_samples)
        file._started_at[name] = started_at
    file.save(str(results))
    return results / MACHINE / f"{commit[:8]}-{environment}.json"


def edit(path: Path, change: Edit) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def set_cell(column: str, value: Any) -> Edit:
    """An edit that puts a value into a column of the softmax row."""

    def change(content: dict[str, Any]) -> None:
        row = content["results"][SOFTMAX]
        index = content["result_columns"].index(column)
        row.extend([None] * (index + 1 - len(row)))
        row[index] = value

    return change


def problem(found: store.Store) -> str:
    """The reason of the only problem."""
    assert len(found.problems) == 1, found.problems
    return found.problems[0].reason
