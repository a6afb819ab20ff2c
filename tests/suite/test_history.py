"""`make history`: of which commits something is left to measure, and what."""

import re
import subprocess
from pathlib import Path

import pytest

from benchmarks import cases
from benchmarks.measure import history
from benchmarks.measure.selection import names_of
from benchmarks.touched import Tree
from tests.suite.asv_results import MACHINE, write_results

ROOT = Path(__file__).parents[2]
OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def two_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "commits", lambda _: [OLD, NEW])


def to_measure(results: Path, regex: str, machine: str = MACHINE) -> list[tuple[str, str]]:
    return list(history.to_measure("A..B", regex, results, machine))


@pytest.mark.usefixtures("two_commits")
def test_what_is_measured_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    regex = r"kernels\.(Softmax|Linear)\."
    assert [commit for commit, _ in to_measure(tmp_path, regex)] == [OLD, NEW]
    times = [1e-3, 1e-3]
    names = [f"kernels.{name}.track_time" for name in ("Softmax", "Linear")]
    write_results(tmp_path, dict.fromkeys(names, times), commit=OLD, cases=["rows1_cols1.fp16"])
    write_results(tmp_path, {names[0]: times}, commit=NEW, cases=["rows1_cols1.fp16"])
    capsys.readouterr()
    assert to_measure(tmp_path, regex) == [(NEW, r"^(?:kernels\.Linear)\.")]
    assert capsys.readouterr().err.splitlines() == [
        "history: aaaaaaaa: measured already",
        "history: bbbbbbbb: 1 of 2 to measure",
    ]


@pytest.mark.usefixtures("two_commits")
def test_the_expression_picks_what_is_missing_alone(tmp_path: Path) -> None:
    frozen = cases.load()
    (_, regex), *_ = to_measure(tmp_path, r"kernels\.LinearGlu|models\.Gpt2")
    picked = [
        (suite, op)
        for suite, ops in (("kernels", frozen.ops), ("models", frozen.models))
        for op in ops
        if any(re.search(regex, name) for name in names_of(suite, op))
    ]
    assert picked == [("kernels", "linear_glu"), ("models", "gpt2")]


@pytest.mark.usefixtures("two_commits")
def test_a_broken_result_file_counts_as_absent_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / MACHINE).mkdir()
    (tmp_path / MACHINE / f"{OLD[:8]}-worktree.json").write_text("{")
    assert len(to_measure(tmp_path, r"kernels\.Softmax\.")) == 2
    assert "not valid JSON" in capsys.readouterr().err


@pytest.mark.usefixtures("two_commits")
def test_without_a_gpu_there_is_compiled_code_alone(tmp_path: Path) -> None:
    ((_, regex), _) = to_measure(tmp_path, "Rotary", "compile-only")
    assert regex == r"^(?:codegen\.Rotary|codegen\.RotaryCache)\."
    with pytest.raises(ValueError, match=r"matches no benchmark that compile-only can run"):
        to_measure(tmp_path, r"models\.", "compile-only")


@pytest.mark.usefixtures("two_commits")
def test_of_each_commit_only_what_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def source(name: str, number: int) -> dict[str, bytes]:
        return {f"kernl/ops/{name}.py": f"NAME, X = {name!r}, {number}".encode()}

    trees = {
        f"{OLD}^": Tree(source("softmax", 1) | source("linear", 1)),
        OLD: Tree(source("softmax", 1) | source("linear", 2)),
        f"{NEW}^": Tree(source("softmax", 1) | source("linear", 2)),
        NEW: Tree(source("softmax", 2) | source("linear", 2)),
    }
    monkeypatch.setattr(Tree, "of", lambda _, commit: trees[commit])
    regex = r"kernels\.(Softmax|Linear)\.|models\.Gpt2"
    found = list(history.to_measure("A..B", regex, tmp_path, MACHINE, changed=True))
    assert found == [
        (OLD, r"^(?:kernels\.Linear|models\.Gpt2)\."),
        (NEW, r"^(?:kernels\.Softmax)\."),  # no model of the suite has a softmax by itself
    ]
    trees[NEW] = trees[f"{NEW}^"]
    assert len(list(history.to_measure("A..B", regex, tmp_path, MACHINE, changed=True))) == 1
    assert "history: bbbbbbbb: changes nothing of what was asked for" in capsys.readouterr().err


def test_commits_come_oldest_first() -> None:
    log = subprocess.run(
        ["git", "-C", str(ROOT), "rev-list", "--max-count=1", "HEAD"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert history.commits("HEAD")[-1] == log.stdout.strip()


@pytest.mark.parametrize("name", ["no-such-branch", "--all", "HEAD..no-such-branch"])
def test_an_unknown_range_says_what_is_allowed(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        history.main(["--bench", "Rotary", "--", name])
    assert stopped.value.code == 2
    assert "names no commits here; allowed: a range such as HEAD~20..HEAD" in (
        capsys.readouterr().err
    )
