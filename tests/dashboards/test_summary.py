"""Numbers against frames that are small enough to work out by hand."""

import math

import pandas as pd
import pytest

from benchmarks.cases import NOT_SELECTED
from dashboards.data import summary
from dashboards.tabular import tables
from tests.dashboards import synthetic
from tests.dashboards.synthetic import row


def times(case: str, **seconds: float | None) -> list[dict[str, object]]:
    """Rows of one case; None is a failed measurement."""
    return [
        row(
            case=case,
            variant=name,
            value=math.nan if value is None else value,
            status="failed" if value is None else "ok",
        )
        for name, value in seconds.items()
    ]


def speedups(*cases: list[dict[str, object]]) -> pd.DataFrame:
    return summary.speedups(synthetic.frame([line for case in cases for line in case]))


def test_geometric_mean_and_worst_case() -> None:
    frame = speedups(
        times("a.fp16", eager=8e-6, compile=4e-6, kernl=1e-6),
        times("b.fp16", eager=1e-6, compile=3e-6, kernl=2e-6),
    )
    found = summary.summarise(frame)
    assert found.over_eager.mean == pytest.approx(2.0)  # sqrt(8 × 0.5)
    assert found.over_best.mean == pytest.approx(math.sqrt(4 * 0.5))
    assert found.over_eager.worst == summary.Case("softmax", "b.fp16", 0.5)
    assert found.over_best.worst is not None
    assert found.over_best.worst.case == "b.fp16"


def test_best_alternative_is_the_fastest_of_the_others_eager_included() -> None:
    frame = speedups(
        times("a.fp16", eager=1e-6, compile=3e-6, kernl=2e-6),
        times("b.fp16", eager=3e-6, compile=1e-6, kernl=2e-6),
    ).set_index("case")
    assert list(frame["best_name"]) == ["eager", "compile"]
    assert list(frame["over_best"]) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (1.0201, "win"),
        (1.02, "tie"),
        (1.0, "tie"),
        (1 / 1.02, "tie"),
        (1 / 1.0201, "loss"),
        (math.nan, ""),
    ],
)
def test_a_tie_is_within_two_percent_either_way(ratio: float, expected: str) -> None:
    assert summary.outcome(ratio) == expected


def test_wins_ties_losses() -> None:
    frame = speedups(
        times("win.fp16", eager=2e-6, kernl=1e-6),
        times("tie.fp16", eager=1.01e-6, kernl=1e-6),
        times("loss.fp16", eager=1e-6, kernl=2e-6),
        times("other.fp16", eager=1e-6, kernl=1.5e-6),
    )
    found = summary.summarise(frame).over_best
    assert (found.wins, found.ties, found.losses) == (1, 1, 2)
    assert list(summary.losses(frame)["case"]) == ["loss.fp16", "other.fp16"]


def test_a_fallback_counts_as_one_over_eager_and_loses_to_a_faster_alternative() -> None:
    fallback = row(
        case="a.fp16", variant="kernl", value=math.nan, status="skipped", reason="too wide"
    )
    frame = speedups(
        [*times("a.fp16", eager=4e-6, compile=1e-6), fallback],
        times("b.fp16", eager=4e-6, compile=4e-6, kernl=1e-6),
    )
    found = summary.summarise(frame)
    assert found.over_eager.mean == pytest.approx(2.0)  # sqrt(1 × 4)
    assert found.over_best.mean == pytest.approx(1.0)  # sqrt(¼ × 4)
    assert (found.fallbacks, found.measured, found.compared) == (1, 1, 2)
    assert list(summary.losses(frame)["case"]) == ["a.fp16"]


def test_a_table_of_compiled_cases_leaves_out_what_was_not_selected() -> None:
    compiled = {"suite": "codegen", "metric": "spills", "value": 0.0, "variant": "sm_90"}
    left_out = {"status": "skipped", "reason": NOT_SELECTED, "value": math.nan}
    library = {"status": "skipped", "reason": "a library's call", "value": math.nan}
    rows = synthetic.frame(
        [
            row(**compiled, case="a.fp16"),
            row(**{**compiled, **left_out}, case="b.fp16"),
            row(**{**compiled, **library}, case="c.fp16"),
        ]
    )
    table = tables.codegen_cases(rows)
    assert [line[0].text for line in table.rows] == ["a.fp16", "c.fp16"]


def test_a_case_that_was_not_selected_is_no_fallback() -> None:
    left_out = row(case="a.fp16", variant="kernl", value=math.nan, status="skipped")
    frame = speedups([*times("a.fp16", eager=4e-6), left_out])
    found = summary.summarise(frame)
    assert (found.fallbacks, found.compared, found.measured, found.frozen) == (0, 0, 0, 1)
    assert list(frame["status"]) == ["missing"]
    relative = summary.relative(synthetic.frame([*times("a.fp16", eager=4e-6), left_out]))
    assert relative.empty


def test_a_failed_case_is_missing_from_the_mean_and_lowers_coverage() -> None:
    frame = speedups(
        times("a.fp16", eager=2e-6, kernl=1e-6), times("b.fp16", eager=2e-6, kernl=None)
    )
    found = summary.summarise(frame, {"softmax": ["a.fp16", "b.fp16", "c.fp16"]})
    assert found.over_eager.mean == pytest.approx(2.0)
    assert (found.failed, found.measured, found.frozen, found.compared) == (1, 1, 3, 1)


def test_coverage_leaves_out_cases_that_the_suite_no_longer_asks_for() -> None:
    frame = speedups(times("old.fp16", eager=2e-6, kernl=1e-6))
    found = summary.summarise(frame, {"softmax": ["new.fp16"]})
    assert (found.measured, found.frozen) == (0, 1)


def test_a_failed_eager_leaves_no_ratio_over_eager() -> None:
    frame = speedups(times("a.fp16", eager=None, compile=3e-6, kernl=1e-6))
    found = summary.summarise(frame)
    assert math.isnan(found.over_eager.mean)
    assert found.over_eager.worst is None
    assert found.over_best.mean == pytest.approx(3.0)


@pytest.mark.parametrize("lines", [[], times("a.fp16", eager=None, kernl=None)])
def test_nothing_measured_gives_no_numbers(lines: list[dict[str, object]]) -> None:
    found = summary.summarise(speedups(lines))
    assert math.isnan(found.over_eager.mean)
    assert math.isnan(found.over_best.mean)
    assert (found.compared, found.measured) == (0, 0)


def codegen(commit: int, case: str, metric: str, value: float, **more: object) -> dict[str, object]:
    return row(
        machine="compile-only", suite="codegen", variant="sm_90", metric=metric, case=case,
        commit=synthetic.commit_hash(commit), value=value, **more,
    )  # fmt: skip


def test_totals_add_instructions_and_average_what_a_thread_or_block_has() -> None:
    rows = synthetic.frame(
        [
            codegen(0, "a.fp16", "registers", 40),
            codegen(0, "b.fp16", "registers", 60),
            codegen(0, "c.fp16", "registers", math.nan, status="failed"),
            codegen(0, "a.fp16", "occupancy", 0.5),
            codegen(0, "b.fp16", "occupancy", 1.0),
            codegen(0, "a.fp16", "instructions", 100),
            codegen(0, "b.fp16", "instructions", 300),
        ]
    )
    found = summary.totals(rows).set_index("metric")
    assert found.at["registers", "total"] == 50
    assert found.at["instructions", "total"] == 400
    assert (found.at["registers", "measured"], found.at["registers", "cases"]) == (2, 3)
    assert found.at["occupancy", "total"] == pytest.approx(0.75)


def test_codegen_changes_are_worst_first_and_only_of_cases_that_both_commits_have() -> None:
    rows = synthetic.frame(
        [
            codegen(0, "a.fp16", "registers", 40),
            codegen(1, "a.fp16", "registers", 44),
            codegen(0, "a.fp16", "occupancy", 0.5),
            codegen(1, "a.fp16", "occupancy", 1.0),
            codegen(0, "a.fp16", "spills", 0),
            codegen(1, "a.fp16", "spills", 6),
            codegen(0, "b.fp16", "registers", 32),
            codegen(1, "b.fp16", "registers", 32),
            codegen(1, "new.fp16", "registers", 99),
        ]
    )
    ends = ("compile-only", synthetic.commit_hash(0), synthetic.commit_hash(1))
    found = summary.codegen_changes(rows, *ends)
    assert list(found["metric"]) == ["spills", "registers", "occupancy"]
    assert list(found["change"]) == pytest.approx([6, 0.1, -1.0])
    deltas = summary.codegen_deltas(rows, *ends)
    assert deltas[("softmax", "sm_90", "registers")] == 2
    assert deltas[("softmax", "sm_90", "occupancy")] == pytest.approx(0.5)
