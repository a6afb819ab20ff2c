"""The worktree environment: real commands of asv on a toy repository, and its parts alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from asv import util
from asv.config import Config

from benchmarks.worktree import (
    CommitUnavailable,
    WorktreeEnvironment,
    extract_commit,
    prune_commits,
)

ROOT = Path(__file__).parents[2]
MACHINE = "toy"

SUITE = """
import os
import pathlib


class Toy:
    params = [["one", "two"]]
    param_names = ["case"]

    def setup_cache(self):
        import kernl

        progress = pathlib.Path(os.environ["KERNL_PROGRESS"])
        progress.write_text(f"measuring version {kernl.VERSION}\\n")
        return kernl.VERSION

    def track_version(self, cached, case):
        import kernl

        return 100 * cached + kernl.VERSION

    def track_environment(self, cached, case):
        import subprocess
        import sys

        import kernl

        code = pathlib.Path(os.environ["KERNL_CODE"])
        assert pathlib.Path(kernl.__file__).parent == code / "kernl"
        assert code.name == os.environ["KERNL_COMMIT"]
        assert os.environ["KERNL_RESULTS"] == os.path.join(os.environ["ASV_CONF_DIR"], "results")
        assert os.environ["KERNL_ENV_NAME"] == "worktree"
        child = [sys.executable, "-c", "import kernl; print(kernl.__file__)"]
        assert subprocess.check_output(child, text=True).strip() == kernl.__file__
        return 1.0

    def track_samples(self, cached, case):
        return {"samples": [1.0, 2.0, 3.0], "number": 1}


Toy.track_samples.type = "time"
Toy.track_samples.unit = "seconds"
"""


class Project:
    """A toy repository with asv set up in it: one commit without kernl/, then versions 1 to 3."""

    def __init__(self, root: Path) -> None:
        self.path = root / "project"
        self.home = root / "home"
        self.pip_calls = root / "pip-was-called"
        decoy = root / "decoy" / "pip"
        for directory in (self.path / "suite", self.home, decoy):
            directory.mkdir(parents=True)
        # Found by `python -m pip` in any process: the proof that nothing was installed.
        (decoy / "__init__.py").touch()
        (decoy / "__main__.py").write_text(
            f"import pathlib; pathlib.Path({str(self.pip_calls)!r}).touch()"
        )
        self.environment = {
            **{key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ},
            "HOME": str(self.home),
            "PYTHONPATH": os.pathsep.join([str(decoy.parent), str(ROOT)]),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "toy",
            "GIT_AUTHOR_EMAIL": "toy@example.com",
            "GIT_COMMITTER_NAME": "toy",
            "GIT_COMMITTER_EMAIL": "toy@example.com",
        }
        configuration = {
            "version": 1,
            "project": "toy",
            "repo": ".",
            "dvcs": "git",
            "branches": ["HEAD"],
            "plugins": [".benchmarks.worktree"],
            "environment_type": "worktree",
            "launch_method": "forkserver",
            "benchmark_dir": "suite",
            "results_dir": "results",
            "env_dir": ".asv/env",
            "html_dir": ".asv/html",
        }
        (self.path / "asv.conf.json").write_text(json.dumps(configuration))
        (self.path / "suite" / "__init__.py").touch()
        (self.path / "suite" / "toy.py").write_text(SUITE)
        self.commits = self._commit()

    def _commit(self) -> list[str]:
        self.git("init", "--quiet", "--initial-branch=main")
        commits = []
        for version in range(4):
            (self.path / "README").write_text(f"version {version}")
            if version:
                (self.path / "kernl").mkdir(exist_ok=True)
                (self.path / "kernl" / "__init__.py").write_text(f"VERSION = {version}\n")
            self.git("add", "README", *(["kernl"] if version else []))
            self.git("commit", "--quiet", "--message", f"version {version}")
            commits.append(self.git("rev-parse", "HEAD"))
        self.git("checkout", "--quiet", "--detach")
        # What is not committed must not be measured.
        (self.path / "kernl" / "__init__.py").write_text("VERSION = 99\n")
        return commits

    def git(self, *arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=self.path, env=self.environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    def asv(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "asv", *arguments],
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def results(self) -> dict[str, dict[str, list[float] | None]]:
        """Per commit hash: the values that asv stored, by benchmark."""
        found = {}
        for path in (self.path / "results" / MACHINE).glob("*-worktree.json"):
            content = json.loads(path.read_text())
            found[content["commit_hash"]] = {
                name: row[content["result_columns"].index("result")]
                for name, row in content["results"].items()
            }
        return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("asv"))
    done = made.asv("machine", "--yes", "--machine", MACHINE)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.fixture
def fresh(project: Project) -> Iterator[Project]:
    """The project with no results and no extracted commits."""
    shutil.rmtree(project.path / "results", ignore_errors=True)
    shutil.rmtree(project.path / ".asv", ignore_errors=True)
    yield project
    assert not project.pip_calls.exists()


def expected(version: int) -> dict[str, list[float]]:
    return {
        "toy.Toy.track_version": [101.0 * version] * 2,
        "toy.Toy.track_environment": [1.0, 1.0],
        "toy.Toy.track_samples": [2.0, 2.0],
    }


def test_each_result_comes_from_its_own_commit_and_every_command_works(fresh: Project) -> None:
    _, first, second, third = fresh.commits
    ran = fresh.asv("run", "HEAD~2..HEAD")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert fresh.results() == {second: expected(2), third: expected(3)}
    assert "measuring version 3" in ran.stderr.splitlines()
    assert sorted(path.name for path in (fresh.path / ".asv/env").iterdir()) == ["commits"]

    compared = fresh.asv("compare", "HEAD~1", "HEAD")
    assert compared.returncode == 0, compared.stdout + compared.stderr
    assert "toy.Toy.track_version" in compared.stdout
    shown = fresh.asv("show", "HEAD")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "toy/worktree" in shown.stdout

    published = fresh.asv("publish")
    assert published.returncode == 0, published.stdout + published.stderr
    index = json.loads((fresh.path / ".asv/html/index.json").read_text())
    assert set(index["revision_to_hash"].values()) == {second, third}
    assert index["params"]["branch"] == ["HEAD"]
    assert "Couldn't find" not in published.stdout
    assert first not in fresh.results()


def test_plain_run_measures_the_commit_of_a_detached_head(fresh: Project) -> None:
    ran = fresh.asv("run")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert fresh.results() == {fresh.commits[3]: expected(3)}


def test_interleaved_rounds_go_back_and_forth_between_commits(fresh: Project) -> None:
    ran = fresh.asv("run", "HEAD~2..HEAD", "--interleave-rounds", "--attribute", "rounds=2")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "(round 2/2)" in ran.stdout
    assert fresh.results() == {fresh.commits[2]: expected(2), fresh.commits[3]: expected(3)}


def test_parallel_builds_measure_the_commit_that_was_built(fresh: Project) -> None:
    ran = fresh.asv("run", "HEAD~2..HEAD", "--parallel", "2")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [path.name for path in (fresh.path / ".asv/env").iterdir()] == ["commits"]
    assert fresh.results() == {fresh.commits[2]: expected(2), fresh.commits[3]: expected(3)}


def test_a_commit_without_kernl_does_not_lose_the_others(fresh: Project) -> None:
    missing, first, *_ = fresh.commits
    hashes = fresh.path / "hashes"
    hashes.write_text(f"{missing}\n{first}\n")
    ran = fresh.asv("run", "HASHFILE:hashes")
    assert ran.returncode == 2, ran.stdout + ran.stderr
    reason = f"Commit {missing[:8]} has no kernl/ directory"
    assert ran.stdout.count(reason) == 1, ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr
    results = fresh.results()
    assert results[first] == expected(1)
    assert set(results[missing].values()) == {None}


def test_a_killed_run_leaves_no_half_extracted_commit_in_use(fresh: Project) -> None:
    stuck = fresh.path / "archive-is-stuck"
    tools = fresh.home / "bin"
    tools.mkdir(exist_ok=True)
    git = shutil.which("git")
    (tools / "git").write_text(
        f'#!/bin/sh\ncase " $* " in\n*" archive "*) {git} "$@" | head -c 1024;'
        f' touch "{stuck}"; sleep 60;;\n*) exec {git} "$@";;\nesac\n'
    )
    (tools / "git").chmod(0o755)
    slow = {**fresh.environment, "PATH": f"{tools}{os.pathsep}{fresh.environment['PATH']}"}
    running = subprocess.Popen(
        [sys.executable, "-m", "asv", "run"],
        cwd=fresh.path,
        env=slow,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not stuck.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert stuck.exists()

    commits = fresh.path / ".asv/env/commits"
    left = list(commits.iterdir())
    assert len(left) == 1
    assert left[0].name.startswith(".")
    ran = fresh.asv("run")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert fresh.results() == {fresh.commits[3]: expected(3)}


def test_another_python_is_refused_in_words(fresh: Project) -> None:
    ran = fresh.asv("run", "--environment", "worktree:2.7")
    assert ran.returncode == 1
    assert "runs the Python that runs asv" in ran.stdout


def test_extract_commit_refuses_what_is_no_commit(fresh: Project, tmp_path: Path) -> None:
    with pytest.raises(CommitUnavailable, match="full commit hash"):
        extract_commit(fresh.path, "--output=/etc/passwd", tmp_path)
    with pytest.raises(util.UserError, match="is not in the repository"):
        extract_commit(fresh.path, "0" * 40, tmp_path)
    (tmp_path / fresh.commits[3]).write_text("in the way")
    with pytest.raises(CommitUnavailable, match="Delete it"):
        extract_commit(fresh.path, fresh.commits[3], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [fresh.commits[3]]


def test_extract_commit_takes_an_existing_copy(fresh: Project, tmp_path: Path) -> None:
    code = extract_commit(fresh.path, fresh.commits[1], tmp_path)
    assert (code / "kernl/__init__.py").read_text() == "VERSION = 1\n"
    os.utime(code, (0, 0))
    assert extract_commit(tmp_path / "no repository", fresh.commits[1], tmp_path) == code
    assert time.time() - code.stat().st_mtime < 60


def test_prune_keeps_the_newest_and_the_recently_used(tmp_path: Path) -> None:
    for age, name in enumerate(["new", "older", "oldest", ".killed", ".running"]):
        (tmp_path / name / "kernl").mkdir(parents=True)
        used_at = time.time() - (age + 1 if name != ".running" else 0) * 3600
        os.utime(tmp_path / name, (used_at, used_at))
    prune_commits(tmp_path, keep=1, unused_seconds=2.5 * 3600)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".running", "new", "older"]


def make_environment(project: Project, monkeypatch: pytest.MonkeyPatch) -> WorktreeEnvironment:
    monkeypatch.chdir(project.path)
    return WorktreeEnvironment(Config.load("asv.conf.json"), "same", {}, {})


def test_run_needs_a_commit_and_marks_it_as_used(
    fresh: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = make_environment(fresh, monkeypatch)
    environment.create()
    with pytest.raises(util.UserError, match="No commit was extracted"):
        environment.run(["-c", "pass"])
    environment.install_project(None, None, fresh.commits[2])
    assert environment.installed_commit_hash == fresh.commits[2]
    code = fresh.path / ".asv/env/commits" / fresh.commits[2]
    os.utime(code, (0, 0))
    printed = environment.run(["-c", "import kernl; print(kernl.VERSION)"], env={}, dots=False)
    assert printed == "2\n"
    assert time.time() - code.stat().st_mtime < 60
    with environment.run(["-c", "pass"], return_popen=True) as started:
        assert started.wait() == 0
    shutil.rmtree(code)
    assert environment.installed_commit_hash is None


def test_a_matrix_is_refused_in_words(fresh: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fresh.path)
    with pytest.raises(util.UserError, match="takes no matrix"):
        WorktreeEnvironment(Config.load("asv.conf.json"), "same", {"torch": "2.11"}, {})
