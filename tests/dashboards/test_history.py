"""Order of commits, subjects from git, changes of environment."""

import os
import subprocess
from pathlib import Path

import pytest

from dashboards.data import history
from tests.dashboards import synthetic

DAY = 1_767_225_600_000
"""The first of January 2026 in milliseconds."""


def git(repository: Path, *arguments: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(repository),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org",
        "GIT_AUTHOR_DATE": "2026-02-03T00:00:00Z", "GIT_COMMITTER_DATE": "2026-02-04T00:00:00Z",
    }  # fmt: skip
    done = subprocess.run(
        ["git", "-C", str(repository), *arguments],
        capture_output=True, check=True, text=True, env=environment,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    for subject in ("first", "second <script>", "third"):
        git(tmp_path, "commit", "-q", "--allow-empty", "-m", subject)
    return tmp_path


def test_commits_of_one_second_are_ordered_by_ancestry(repository: Path) -> None:
    hashes = git(repository, "rev-list", "--reverse", "HEAD").split()
    found = history.commits(dict.fromkeys(reversed(hashes), DAY), repository)
    assert [commit.id for commit in found] == hashes
    assert [commit.subject for commit in found] == ["first", "second <script>", "third"]
    assert found[0].authored == "2026-02-03"
    assert found[0].committed == "2026-01-01"


def test_commits_are_ordered_by_date_before_ancestry(repository: Path) -> None:
    hashes = git(repository, "rev-list", "--reverse", "HEAD").split()
    dates = {commit: DAY - number * 86_400_000 for number, commit in enumerate(hashes)}
    found = history.commits(dates, repository)
    assert [commit.id for commit in found] == hashes[::-1]
    assert [commit.committed for commit in found] == ["2025-12-30", "2025-12-31", "2026-01-01"]


def test_a_commit_whose_date_is_unknown_comes_first_and_has_none() -> None:
    found = history.commits({"a": DAY, "b": 0})
    assert [(commit.id, commit.committed) for commit in found] == [("b", ""), ("a", "2026-01-01")]


def test_foreign_and_hostile_hashes_do_not_cost_the_others_their_subjects(
    repository: Path,
) -> None:
    head = git(repository, "rev-parse", "HEAD")
    names = [head, "f" * 40, "--output=x", "HEAD", "\n"]
    found = history.commits(dict.fromkeys(names, DAY), repository)
    assert {commit.id: commit.subject for commit in found} == {
        head: "third", **dict.fromkeys(names[1:], ""),
    }  # fmt: skip


def test_outside_of_git_there_are_no_subjects_and_no_errors(tmp_path: Path) -> None:
    names = [synthetic.commit_hash(n) for n in range(3)]
    for place in (tmp_path, tmp_path / "missing", None):
        found = history.commits(dict.fromkeys(names, DAY), place)
        assert [commit.id for commit in found] == sorted(names)
        assert not any(commit.subject for commit in found)


def test_without_git_installed_there_are_no_subjects(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = git(repository, "rev-parse", "HEAD")
    monkeypatch.setenv("PATH", "")
    assert history.commits({head: DAY}, repository)[0].subject == ""


def test_environment_changes_name_what_changed_and_ignore_what_is_unknown() -> None:
    runs = synthetic.runs_frame(
        [
            {"machine": "m", "commit": "a", "started_at": "1", "torch": "2.11", "driver": "570"},
            {"machine": "m", "commit": "b", "started_at": "2", "torch": "2.11", "driver": ""},
            {"machine": "m", "commit": "c", "started_at": "3", "torch": "2.12", "driver": "575"},
            {"machine": "other", "commit": "d", "started_at": "4", "torch": "9", "driver": "9"},
        ]
    )
    order = history.commits({commit: DAY + number for number, commit in enumerate("abcd")})
    found = history.environment_changes(runs, "m", order)
    assert found == (history.Change("c", "driver 570 → 575, torch 2.11 → 2.12"),)
