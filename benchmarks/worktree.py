"""asv environment that swaps kernl's sources between commits and installs nothing.

kernl is pure Python, so measuring a commit needs the interpreter that is running, the torch and
triton it already has, and the commit's `kernl/` directory. `WorktreeEnvironment` extracts that
directory with `git archive` into `<env_dir>/commits/<commit>/kernl` and puts it first on the path
of every benchmark process, with the checkout behind it: kernl comes from the commit, the
benchmarks come from today's tree. It needs no network and takes milliseconds a commit.

`asv.conf.json` selects it with `"plugins": [".benchmarks.worktree"]` and
`"environment_type": "worktree"`.

Every benchmark process finds in its environment:

- `ASV_PYTHONPATH`, `PYTHONPATH`: the commit's directory, then the checkout;
- `PYTHONSAFEPATH`: set, so that the working directory does not go before them;
- `KERNL_COMMIT`: the commit, 40 hexadecimal digits;
- `KERNL_CODE`: the directory that holds the commit's `kernl/`;
- `KERNL_RESULTS`: asv's results directory, absolute;
- `KERNL_ENV_NAME`: the environment's name, `worktree`;
- `KERNL_PROGRESS`: a file; its newest line is shown to the user while a `setup_cache` runs.
"""

import atexit
import os
import re
import secrets
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from asv import environment, util
from asv.config import Config
from asv.console import log
from asv.repo import Repo

from benchmarks.progress import ProgressPrinter

NAME = "worktree"
PACKAGE = "kernl"

KEPT_COMMITS = 20
"""Extracted commits that are always kept, newest use first."""

UNUSED_SECONDS = 24 * 3600.0
"""Nothing used more recently than this is deleted: another asv process may be measuring it."""


class CommitUnavailable(util.ProcessError, util.UserError):
    """A commit whose `kernl/` cannot be extracted.

    It is both of asv's errors on purpose: `asv run` skips a commit and goes on only after a
    `ProcessError`, while its other commands print only a `UserError` in words.
    """

    def __init__(self, commit: str, reason: str) -> None:
        super().__init__(["git", "archive", commit, PACKAGE], 1, "", reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


def extract_commit(repository: Path, commit: str, commits: Path) -> Path:
    """Make `commits/<commit>/kernl` hold that commit's `kernl/`; return `commits/<commit>`.

    The directory appears whole or not at all: it is filled beside its final place and renamed. One
    that exists already is taken as it is.

    Errors: `CommitUnavailable` where the commit is unknown, has no `kernl/` or cannot be unpacked.
    """
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
        raise CommitUnavailable(commit, f"{commit!r} is no full commit hash; give all its digits.")
    target = commits / commit
    if not (target / PACKAGE).is_dir():
        _require_package(repository, commit)
        commits.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{commit[:8]}-", dir=commits, ignore_cleanup_errors=True
        ) as scratch:
            partial = Path(scratch, "tree")
            partial.mkdir()
            _unpack(repository, commit, partial)
            _publish(partial, target, commit)
    os.utime(target)
    return target


def prune_commits(
    commits: Path, keep: int = KEPT_COMMITS, unused_seconds: float = UNUSED_SECONDS
) -> None:
    """Delete extracted commits beyond the `keep` last used, and what killed runs left behind.

    Nothing used within `unused_seconds` goes.
    """
    uses = []
    for entry in commits.iterdir():
        try:
            uses.append((entry.stat().st_mtime, entry))
        except FileNotFoundError:  # another asv process was faster
            continue
    finished = sorted((use for use in uses if not use[1].name.startswith(".")), reverse=True)
    leftovers = [use for use in uses if use[1].name.startswith(".")]
    for used_at, entry in finished[keep:] + leftovers:
        if time.time() - used_at > unused_seconds:
            # Renamed first, so that a deletion cut short never looks like a commit.
            doomed = entry.with_name(f".{entry.name}.deleted")
            try:
                entry.rename(doomed)
            except OSError:
                continue
            shutil.rmtree(doomed, ignore_errors=True)


def _require_package(repository: Path, commit: str) -> None:
    """Raise `CommitUnavailable`, in words, unless the commit has a `kernl/` directory."""
    if _object_type(repository, f"{commit}:{PACKAGE}") == "tree":
        return
    if _object_type(repository, f"{commit}^{{commit}}") == "commit":
        reason = (
            f"Commit {commit[:8]} has no {PACKAGE}/ directory, so it cannot be measured and is "
            f"skipped. Choose commits that have one."
        )
    else:
        reason = (
            f"Commit {commit[:8]} is not in the repository {repository}. "
            f"Fetch it first, or remove it from the range."
        )
    raise CommitUnavailable(commit, reason)


def _object_type(repository: Path, name: str) -> str:
    """The type git gives an object ("tree", "commit", ...); "" where there is no such object."""
    command = ["git", "-C", str(repository), "cat-file", "-t", name]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _unpack(repository: Path, commit: str, destination: Path) -> None:
    """Stream the commit's `kernl/` from `git archive` into `destination`."""
    command = ["git", "-C", str(repository), "archive", "--format=tar", commit, "--", PACKAGE]
    failure = ""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                archive.extractall(destination, filter="data")
            process.stdout.read()  # git pads the archive; closing early would break its pipe
        except (tarfile.TarError, OSError) as error:
            failure = str(error)
        process.stdout.close()
        if process.wait() != 0:
            errors.seek(0)
            failure = errors.read().decode(errors="replace").strip() or failure
    if failure or not (destination / PACKAGE).is_dir():
        failure = (
            failure or f"the archive holds no {PACKAGE}/ (is it export-ignore in .gitattributes?)"
        )
        raise CommitUnavailable(
            commit, f"Commit {commit[:8]} could not be extracted and is skipped: {failure}."
        )


def _publish(partial: Path, target: Path, commit: str) -> None:
    """Rename the filled directory to its final name, or accept another process's copy of it."""
    try:
        partial.rename(target)
    except OSError as error:
        if not (target / PACKAGE).is_dir():
            reason = f"{target} is in the way of commit {commit[:8]} ({error}). Delete it."
            raise CommitUnavailable(commit, reason) from error


class WorktreeEnvironment(environment.Environment):
    """One asv environment, named `worktree`: this interpreter, and `kernl/` from any commit."""

    tool_name = NAME
    matches_python_fallback = False

    def __init__(
        self,
        conf: Config,
        python: str,
        requirements: dict[str, str],
        tagged_env_vars: dict[tuple[str, str], str],
    ) -> None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        if python not in ("same", version, sys.executable):
            raise environment.EnvironmentUnavailable(
                f"The worktree environment runs the Python that runs asv ({version}), "
                f"not {python!r}. Start asv with that Python."
            )
        if requirements or tagged_env_vars:
            raise util.UserError(
                "The worktree environment installs nothing, so it takes no matrix. "
                'Remove "matrix" and "include" from asv.conf.json.'
            )
        self._repository = Path(conf.repo).absolute()
        self._results_dir = Path(conf.results_dir).absolute()
        root = Path(conf.env_dir).absolute()
        self._commits = root / "commits"
        # In a file, because `asv run --parallel` installs in a child process. With a name of its
        # own, because another asv may measure another commit at the same time.
        own = secrets.token_hex(8)
        self._installed = root / f"installed-{own}"
        self._progress = root / f"progress-{own}"
        atexit.register(_remove, [self._installed, self._progress])
        self._reported: set[str] = set()
        super().__init__(conf, version, requirements, tagged_env_vars)

    @property
    def name(self) -> str:
        """`worktree`: part of each result file's name, so it must not vary with the machine."""
        return NAME

    @property
    def dir_name(self) -> str:
        """The directory below `env_dir` that asv reserves for this environment; nothing uses it."""
        return NAME

    @property
    def installed_commit_hash(self) -> str | None:
        """The commit that benchmark processes get now; None before the first one."""
        return self._get_installed_commit_hash()

    def _get_installed_commit_hash(self) -> str | None:
        try:
            commit = self._installed.read_text(encoding="ascii")
        except (OSError, ValueError):
            return None
        return commit if commit and (self._commits / commit / PACKAGE).is_dir() else None

    def check_presence(self) -> bool:
        """True: an interpreter that runs asv is there."""
        return True

    def create(self) -> None:
        """Make the directory for extracted commits; there is nothing else to create."""
        self._commits.mkdir(parents=True, exist_ok=True)

    def can_install_project(self) -> bool:
        """True: asv may ask for ranges of commits and for interleaved rounds."""
        return True

    def checkout_project(self, repo: Repo, commit_hash: str) -> None:  # noqa: ARG002
        """Extract `kernl/` of a commit and make benchmark processes use it.

        Errors: `CommitUnavailable`, after its reason was logged (asv drops the exception's text).
        """
        try:
            extract_commit(self._repository, commit_hash, self._commits)
        except CommitUnavailable as error:
            if commit_hash not in self._reported:
                self._reported.add(commit_hash)
                log.error(str(error))
            raise
        self._installed.write_text(commit_hash, encoding="ascii")
        self._set_commit_hash(commit_hash)
        prune_commits(self._commits)

    def install_project(self, conf: Config, repo: Repo, commit_hash: str) -> None:  # noqa: ARG002
        """The same as `checkout_project`: nothing is built, nothing is installed."""
        self.checkout_project(repo, commit_hash)

    def run(self, args: list[str], **kwargs: Any) -> Any:
        """Run this interpreter with `args`; return what `asv.util.check_output(**kwargs)` does.

        That is a `Popen` for `return_popen=True`, which asv's fork server asks for.
        """
        commit = self.installed_commit_hash
        if commit is None:
            raise util.UserError("No commit was extracted before a benchmark; run `asv run HEAD`.")
        os.utime(self._commits / commit)
        inherited: dict[str, str] = dict(kwargs.pop("env", None) or os.environ)
        kwargs["env"] = inherited | self._global_env_vars | self._variables(commit, inherited)
        command = [sys.executable, *args]
        log.debug(f"Running '{' '.join(command)}' in {self.name}")
        if args[1:2] != ["setup_cache"]:
            return util.check_output(command, **kwargs)
        with ProgressPrinter(self._progress, sys.stderr):
            return util.check_output(command, **kwargs)

    def _variables(self, commit: str, inherited: dict[str, str]) -> dict[str, str]:
        """The variables that this module's docstring lists, for one commit."""
        code = self._commits / commit
        path = os.pathsep.join([str(code), str(self._repository)])
        inherited_path = inherited.get("PYTHONPATH")
        return {
            "ASV_COMMIT": commit,
            "ASV_PYTHONPATH": path,
            # For the processes that a benchmark starts: asv's runner reads only the one above.
            "PYTHONPATH": os.pathsep.join([path, inherited_path] if inherited_path else [path]),
            # No process may find the checkout's kernl first because it was started in there.
            "PYTHONSAFEPATH": "1",
            "KERNL_COMMIT": commit,
            "KERNL_CODE": str(code),
            "KERNL_RESULTS": str(self._results_dir),
            "KERNL_ENV_NAME": self.name,
            "KERNL_PROGRESS": str(self._progress),
        }


def _remove(paths: list[Path]) -> None:
    """Delete files that may be gone already."""
    for path in paths:
        path.unlink(missing_ok=True)
