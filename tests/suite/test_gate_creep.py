"""Ten commits that were measured on an H100, each of which makes `layer_norm` about 1 % slower.

In each kernel spins 105 clocks longer than in the one before; three commits before them and four
behind change nothing. By `make history … PROFILE=quick IMPLEMENTATIONS=eager,kernl`. Timed beside
each other (`--measure`), each of the ten pairs passed.
"""

import re
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import store
from benchmarks.gate import history
from benchmarks.gate.report import Report
from tests.suite.gate_rows import TODAY

RECORDED = Path(__file__).parent / "recorded" / "creep.tar.gz"
SLOWER = "rows1024_cols1024_bias_residual.fp16"
"""The case that takes 5 µs: 105 clocks are 1.1 % of it."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[store.Store, list[str], list[str]]:
    """What was stored, its commits oldest first, and their subjects."""
    directory = tmp_path_factory.mktemp("creep")
    with tarfile.open(RECORDED) as archive:
        archive.extractall(directory, filter="data")
    lines = [line.split(" ", 1) for line in (directory / "commits.txt").read_text().splitlines()]
    found = store.load(directory)
    assert [problem.path for problem in found.problems] == ["commits.txt"] or not found.problems
    full = {commit[:7]: commit for commit in found.rows["commit"].unique()}
    order = [full[short] for short, _ in lines]
    # They were committed within seconds, and no repository knows which came first.
    days = {commit: pd.Timestamp("2030-01-01", tz="UTC") + pd.Timedelta(days=at)
            for at, commit in enumerate(order)}  # fmt: skip
    found.rows["committed_at"] = found.rows["commit"].map(days)
    return found, order, [subject for _, subject in lines]


def by_history(measured: tuple[store.Store, list[str], list[str]], repository: Path) -> Report:
    found, order, _ = measured
    return history.judge(
        found.rows, found.runs, order[0], order[-1], today=TODAY, repository=repository
    )


def test_the_history_is_red_and_names_the_ten_commits(
    measured: tuple[store.Store, list[str], list[str]], tmp_path: Path
) -> None:
    _, order, subjects = measured
    report = by_history(measured, tmp_path)
    assert report.exit_code == 1
    creep = {commit for commit, subject in zip(order, subjects, strict=True) if "creep" in subject}
    slower = {one.key.case: one for one in report.findings if one.outcome == "regressed"}
    assert len(slower) == 3
    assert 1.10 < slower[SLOWER].ratio < 1.18
    first, last = (order[subjects.index(f"creep {number}")][:12] for number in (1, 10))
    assert f"by 10 measured commits from {first} to {last}" in slower[SLOWER].reason
    for one in slower.values():
        named = re.findall(r"[0-9a-f]{12}", one.reason)
        assert {commit[:7] for commit in named} <= {commit[:7] for commit in creep}


def test_a_case_that_takes_longer_hardly_moved(
    measured: tuple[store.Store, list[str], list[str]], tmp_path: Path
) -> None:
    report = by_history(measured, tmp_path)
    assert [one.key.case for one in report.findings if one.outcome == "pass"] == [
        "rows2048_cols8192_bias.fp16"
    ]
