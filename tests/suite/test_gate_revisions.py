"""How the gate finds its two commits: in git, in the results, and with hostile names."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.gate.command import main
from benchmarks.gate.revisions import GateError, gated_commits, resolve
from tests.suite.gate_rows import BASE, HEAD, make_repository


@pytest.fixture
def git_repository(tmp_path: Path) -> tuple[Path, str, str]:
    """A repository with two commits, the first one tagged v1."""
    root = tmp_path / "repository"
    root.mkdir()
    return root, *make_repository(root)


def test_revisions_of_git(git_repository: tuple[Path, str, str], monkeypatch: Any) -> None:
    root, first, second = git_repository
    monkeypatch.chdir(root)
    assert resolve("HEAD", []) == second
    assert resolve("HEAD~1", []) == first
    assert resolve(first[:8], []) == first
    assert resolve("v1", []) == first
    assert gated_commits(first, second) == [second, second]
    assert gated_commits(BASE, HEAD) == [HEAD]


@pytest.mark.parametrize(
    "revision",
    ["--output=x", "-h", "--all", "^HEAD", "HEAD~1..HEAD", "", "nothing", "HEAD:file", "a\0b", "*"],
)
def test_a_hostile_revision_is_refused(
    revision: str, git_repository: tuple[Path, str, str], monkeypatch: Any
) -> None:
    root = git_repository[0]
    monkeypatch.chdir(root)
    before = sorted(root.iterdir())
    with pytest.raises(GateError, match="no commit"):
        resolve(revision, [BASE])
    assert sorted(root.iterdir()) == before


def test_hashes_without_git(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    near = "a" * 39 + "b"
    assert resolve(BASE, [BASE, HEAD]) == BASE
    assert resolve("BBBBBB", [BASE, HEAD]) == HEAD
    with pytest.raises(GateError, match="begins 2 commits"):
        resolve("aaaa", [BASE, near])
    with pytest.raises(GateError, match="no commit"):
        resolve("cccc", [BASE, HEAD])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert resolve("aaaa", [BASE]) == BASE


def test_a_missing_directory_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["a", "b", "--results", str(tmp_path / "none")]) == 2
    assert "is no directory" in capsys.readouterr().out


def test_an_unknown_option_is_not_a_pass() -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--output=x", "HEAD"])
    assert stopped.value.code == 2
