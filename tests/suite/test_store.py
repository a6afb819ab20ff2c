"""The store against files that asv itself wrote and the journals beside them."""

import json
import math
import os
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from asv.results import Results
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import store
from benchmarks.cases import NOT_SELECTED
from benchmarks.measure.journal import Journal
from tests.suite.asv_results import (
    CASES,
    COMMIT,
    MACHINE,
    OTHER,
    SOFTMAX,
    VARIANTS,
    problem,
    write_results,
)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def test_values_intervals_and_statuses_are_those_of_asv(results: Path) -> None:
    values = [True, None, math.nan, True]
    samples = [[2e-6, 3e-6, 4e-6], None, None, [5e-6]]
    write_results(results, {SOFTMAX: values}, samples={SOFTMAX: samples}, record_samples=True)
    found = store.load(results)
    rows = found.rows
    assert found.problems == []
    assert dict(rows.dtypes.astype(str)) == store.ROW_TYPES
    assert list(rows[["case", "variant"]].itertuples(index=False, name=None)) == list(
        product(CASES, VARIANTS)
    )
    assert list(rows["status"]) == ["ok", "failed", "skipped", "ok"]
    assert rows["value"].iloc[[0, 3]].tolist() == [3e-6, 5e-6]
    assert rows["value"].iloc[[1, 2]].isna().all()
    assert rows["samples"].tolist() == [(2e-6, 3e-6, 4e-6), (), (), (5e-6,)]
    assert rows["low"][0] < 3e-6 < rows["high"][0]
    # One sample bounds nothing: asv writes infinities, which nobody can draw.
    assert rows[["low", "high"]].iloc[1:].isna().all(axis=None)
    assert set(rows["commit"]) == {COMMIT}
    assert set(rows["committed_at"]) == {pd.Timestamp(1_700_000_000_000, unit="ms", tz="UTC")}
    assert set(rows["version"]) == {"v1"}
    assert rows[["suite", "op", "metric"]].drop_duplicates().values.tolist() == [
        ["kernels", "softmax", "time"]
    ]
    assert found.machines == {MACHINE: {"machine": MACHINE, "cpu": "toy cpu"}}


@pytest.mark.parametrize("sample", [1.00006e-06, 1.00004e-06])
def test_rounded_bounds_never_pass_the_value(results: Path, sample: float) -> None:
    write_results(results, {SOFTMAX: [True] * 4}, samples={SOFTMAX: [[sample] * 9] * 4})
    rows = store.load(results).rows
    assert (rows["low"] <= rows["value"]).all()
    assert (rows["high"] >= rows["value"]).all()


def test_names_become_ops_and_metrics_and_whole_failures_become_rows(results: Path) -> None:
    values: dict[str, list[Any] | None] = {
        "codegen.LayerNorm.track_registers": [32, 0, None, 1],
        "codegen.LayerNorm.track_occupancy": [0.75, 0, 1.0, math.nan],
        "kernels.LayerNorm.track_time": None,
    }
    write_results(results, values, variants=["sm_80", "sm_90"])
    found = store.load(results)
    assert found.problems == []
    assert set(found.rows["op"]) == {"layer_norm"}
    registers = found.rows[found.rows["metric"] == "registers"]
    assert registers["status"].tolist() == ["ok", "ok", "failed", "ok"]
    assert registers["value"].iloc[:2].tolist() == [32.0, 0.0]
    assert registers["low"].isna().all()
    time = found.rows[found.rows["suite"] == "kernels"]
    assert time["status"].tolist() == ["failed"] * 4


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    outcomes=st.lists(
        st.one_of(
            st.none(),
            st.just(math.nan),
            st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=12),
        ),
        min_size=4,
        max_size=4,
    ),
    record=st.booleans(),
)
def test_the_store_agrees_with_the_loader_of_asv(
    tmp_path_factory: pytest.TempPathFactory, outcomes: list[Any], record: bool
) -> None:
    results = tmp_path_factory.mktemp("results")
    values = [True if isinstance(outcome, list) else outcome for outcome in outcomes]
    samples = [outcome if isinstance(outcome, list) else None for outcome in outcomes]
    path = write_results(
        results, {SOFTMAX: values}, samples={SOFTMAX: samples}, record_samples=record
    )
    oracle = Results.load(str(path))
    params = oracle.get_result_params(SOFTMAX)
    expected = oracle.get_result_value(SOFTMAX, params)
    rows = store.load(results).rows
    for row, value, taken in zip(
        rows.itertuples(), expected, oracle.get_result_samples(SOFTMAX, params), strict=True
    ):
        if value is None:
            assert row.status == "failed"
        elif math.isnan(value):
            assert row.status == "skipped"
        else:
            assert row.status == "ok"
            assert row.value == value
        assert row.samples == tuple(taken or ())


def add_point(
    journal: Journal, run: str, case: str, variant: str, status: str, **rest: Any
) -> None:
    journal.append_point(
        run=run,
        suite="kernels",
        op="softmax",
        case=case,
        variant=variant,
        version=1,
        status=status,
        **rest,
    )


def test_the_journal_adds_what_asv_cannot_hold(results: Path) -> None:
    path = write_results(results, {SOFTMAX: [2.0, None, math.nan, 9.0]})
    fingerprint: dict[str, str | int | float] = {"gpu": "Toy GPU", "sm_count": 7, "extra": "kept"}
    with Journal(path.with_suffix(".points.jsonl")) as journal:
        first = journal.start_run(COMMIT, MACHINE, {})
        run = journal.start_run(COMMIT, MACHINE, fingerprint)

        add = partial(add_point, journal, run)
        add(CASES[0], "eager", "failed", reason="replaced by the next record")
        add(CASES[0], "eager", "ok", samples=[1.5, 2.0, 2.5], error=3e-4)
        add(CASES[0], "kernl", "failed", reason="illegal memory access", error=0.5)
        add(CASES[1], "eager", "skipped", reason="bf16 is not supported")
        add(CASES[1], "kernl", "ok", samples=[1.0, 1.1, 1.2])
        add("rows9_cols9.fp16", "kernl", "ok", samples=[1.0])
    found = store.load(results)
    rows = found.rows
    assert found.problems == []
    assert list(rows["reason"]) == ["", "illegal memory access", "bf16 is not supported", ""]
    assert rows["error"].tolist()[:2] == [3e-4, 0.5]
    assert rows["error"].isna().tolist() == [False, False, True, True]
    # The last point's samples cannot be those behind the 9.0 that asv holds.
    assert rows["samples"].tolist() == [(1.5, 2.0, 2.5), (), (), ()]
    assert set(rows["run"]) == {run}
    runs = found.runs.set_index("run")
    assert set(runs.index) == {first, run}
    assert {name: str(found.runs.dtypes[name]) for name in store.RUN_TYPES} == store.RUN_TYPES
    assert runs.loc[run, ["machine", "commit", "gpu", "extra"]].tolist() == [
        MACHINE,
        COMMIT,
        "Toy GPU",
        "kept",
    ]
    assert runs.loc[run, "sm_count"] == 7
    assert runs.loc[first, "gpu"] == ""
    assert math.isnan(runs.loc[first, "sm_count"])
    assert runs["started_at"].notna().all()


def test_a_file_without_statistics_has_the_intervals_of_the_journals_samples(
    results: Path,
) -> None:
    """Those that asv computes; of other metrics of a call the samples say nothing."""
    p20 = "kernels.Softmax.track_p20"
    samples = [1e-6 * (1 + number / 50) for number in range(30)]
    cells: list[Any] = [1.29e-6, 1.29e-6, None, 1.29e-6]
    taken = {SOFTMAX: [samples, samples, None, samples]}
    path = write_results(results, {SOFTMAX: cells}, samples=taken)
    asvs = store.load(results).rows
    write_results(results, {SOFTMAX: cells, p20: cells})
    with Journal(path.with_suffix(".points.jsonl")) as journal:
        run = journal.start_run(COMMIT, MACHINE, {})
        for case, variant in product(CASES, VARIANTS):
            if (case, variant) != (CASES[1], "kernl"):
                add_point(journal, run, case, variant, "ok", samples=samples)
    rows = store.load(results).rows
    ours = rows[rows["metric"] == "time"].reset_index(drop=True)
    assert asvs.loc[:1, ["low", "high"]].notna().all(axis=None)
    pd.testing.assert_frame_equal(ours.loc[:1, ["low", "high"]], asvs.loc[:1, ["low", "high"]])
    assert ours.loc[2:, ["low", "high"]].isna().all(axis=None)
    assert rows.loc[rows["metric"] == "p20", ["low", "high"]].isna().all(axis=None)


@pytest.mark.parametrize("journaled", [True, False])
def test_what_the_journal_of_an_operator_lacks_nobody_asked_for(
    results: Path, journaled: bool
) -> None:
    path = write_results(results, {SOFTMAX: [2.0, None, math.nan, math.nan]})
    if journaled:
        with Journal(path.with_suffix(".points.jsonl")) as journal:
            run = journal.start_run(COMMIT, MACHINE, {})
            point: dict[str, Any] = {"run": run, "suite": "kernels", "op": "softmax", "version": 1}
            point |= {"case": CASES[0], "variant": "eager", "status": "ok"}
            journal.append_point(**point, samples=[2.0])
    reasons = list(store.load(results).rows["reason"])
    assert reasons[0] == ""
    assert reasons[2:] == [NOT_SELECTED if journaled else ""] * 2
    assert reasons[1] != NOT_SELECTED, "it failed: somebody asked for it"


def test_the_journal_of_another_commit_or_with_broken_lines_costs_only_that(results: Path) -> None:
    path = write_results(results, {SOFTMAX: [None] * 4})
    point = {"kind": "point", "suite": "kernels", "op": "softmax", "status": "failed"}
    lines = [
        {"kind": "run", "id": "good", "commit": COMMIT, "machine": MACHINE, "started_at": "never"},
        {"kind": "run", "id": "alien", "commit": OTHER, "machine": MACHINE},
        {**point, "run": "good", "case": CASES[0], "variant": "eager", "reason": "kept \ud800"},
        {**point, "run": "alien", "case": CASES[0], "variant": "kernl", "reason": "not ours"},
        {**point, "run": "lost", "case": CASES[1], "variant": "eager", "reason": 7, "error": "x"},
        {**point, "run": "good", "case": CASES[1], "variant": "kernl", "status": "maybe"},
    ]
    text = "\n".join(map(json.dumps, lines)) + '\n{"kind": "point", "run'
    path.with_suffix(".points.jsonl").write_text(text)
    found = store.load(results)
    assert list(found.rows["reason"]) == ["kept ?", "", "", ""]
    assert list(found.rows["run"]) == ["good", "", "", ""]
    assert found.rows["error"].isna().all()
    assert list(found.runs["run"]) == ["good"]
    assert found.runs["started_at"].isna().all()
    reasons = [entry.reason for entry in found.problems]
    assert len(reasons) == 4
    assert sum("1 line(s) left out" in reason for reason in reasons) == 1
    assert {entry.path for entry in found.problems} == {f"toy/{COMMIT[:8]}-worktree.points.jsonl"}


def test_of_two_files_of_one_commit_the_later_measurement_is_kept(results: Path) -> None:
    write_results(results, {SOFTMAX: [1.0] * 4}, environment="existing", started_at=2e12)
    write_results(
        results,
        {SOFTMAX: [2.0] * 4, "kernels.Gelu.track_time": [3.0] * 4},
        started_at=1e12,
    )
    found = store.load(results)
    by_op = found.rows.groupby("op")["value"].unique()
    assert by_op["softmax"].tolist() == [1.0]
    assert by_op["gelu"].tolist() == [3.0]
    assert not found.rows.duplicated(store.KEY).any()
    assert "4 case(s) left out: another file" in problem(found)
    assert found.problems[0].path == f"toy/{COMMIT[:8]}-worktree.json"


def test_no_results_are_an_empty_store_with_the_right_columns(results: Path) -> None:
    found = store.load(results)
    assert "`asv run` makes it" in problem(found)
    assert dict(found.rows.dtypes.astype(str)) == store.ROW_TYPES
    assert dict(found.runs.dtypes.astype(str)) == store.RUN_TYPES


def test_files_of_a_real_run_are_read(tmp_path: Path) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "__init__.py").touch()
    (suite / "kernels.py").write_text(
        "class LayerNorm:\n"
        "    params = [['rows1_cols2.fp16', 'rows3_cols4.bf16'], ['eager', 'kernl']]\n"
        "    param_names = ['case', 'implementation']\n"
        "    def setup(self, case, implementation):\n"
        "        if case == 'rows3_cols4.bf16' and implementation == 'eager':\n"
        "            raise NotImplementedError\n"
        "    def track_time(self, case, implementation):\n"
        "        assert not (case == 'rows3_cols4.bf16' and implementation == 'kernl')\n"
        "        return {'samples': [0.001, 0.002, 0.003], 'number': 1}\n"
        "    track_time.version = '4'\n"
        "    track_time.type = 'time'\n"
        "    track_time.unit = 'seconds'\n"
    )
    configuration = {
        "version": 1,
        "project": "toy",
        "repo": ".",
        "environment_type": "existing",
        "benchmark_dir": "suite",
        "results_dir": "results",
    }
    (tmp_path / "asv.conf.json").write_text(json.dumps(configuration))
    environment = {**os.environ, "HOME": str(tmp_path)}
    author = ["-c", "user.name=toy", "-c", "user.email=toy@example.com"]
    for command in (
        ["git", "init", "--quiet"],
        ["git", *author, "commit", "--quiet", "--allow-empty", "--message", "toy"],
        [sys.executable, "-m", "asv", "machine", "--yes", "--machine", MACHINE],
    ):
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    ran = subprocess.run(
        [sys.executable, "-m", "asv", "run", "--set-commit-hash", "HEAD", "--record-samples"],
        cwd=tmp_path,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    found = store.load(tmp_path / "results")
    assert found.problems == [], ran.stdout
    rows = found.rows
    assert rows["status"].tolist() == ["ok", "ok", "skipped", "failed"], ran.stdout + ran.stderr
    assert rows["value"].tolist()[:2] == [0.002, 0.002]
    assert rows["samples"].tolist()[0] == (0.001, 0.002, 0.003)
    assert set(rows["version"]) == {"4"}
    assert set(rows["op"]) == {"layer_norm"}
    assert found.machines[MACHINE]["machine"] == MACHINE
