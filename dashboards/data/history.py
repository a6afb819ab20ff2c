"""Commits in order, with subject and author date where git knows them."""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from dashboards.text import clean, short

_HASH = re.compile(r"[0-9a-f]{40}")
_RELEASE = re.compile(r"v([0-9]{1,9})\.([0-9]{1,9})\.([0-9]{1,9})")


@dataclass(frozen=True)
class Commit:
    """One measured commit. `subject` and `authored` are empty where git does not know it.

    `moment` is when it was made, seconds since 1970; 0 where that is unknown.
    """

    id: str
    committed: str
    subject: str = ""
    authored: str = ""
    moment: int = 0

    @property
    def short(self) -> str:
        """The first eight characters of the hash."""
        return self.id[:8]

    @property
    def label(self) -> str:
        """Hash, date and subject on one line."""
        parts = (self.short, self.authored or self.committed, short(self.subject, 72))
        return " · ".join(part for part in parts if part)


def commits(dates: Mapping[str, int], repository: Path | None = None) -> tuple[Commit, ...]:
    """Commits, oldest first: by commit date, then by ancestry where git knows it.

    Args:
        dates: when each was made, milliseconds since 1970; 0 where that is unknown.
        repository: a directory inside a git checkout; None, or one that git cannot read,
            leaves subjects empty and orders equal dates by hash.
    """
    known = _git_details(repository, dates) if repository and dates else {}
    ranks = _git_ranks(repository, known) if repository and known else {}
    order = sorted(dates, key=lambda commit: (dates[commit], ranks.get(commit, 0), commit))
    return tuple(
        Commit(
            id=commit,
            committed=_day(dates[commit]),
            subject=known.get(commit, ("", ""))[1],
            authored=known.get(commit, ("", ""))[0],
            moment=dates[commit] // 1000,
        )
        for commit in order
    )


def _day(milliseconds: int) -> str:
    """A date in UTC; empty where it is unknown."""
    return f"{pd.Timestamp(milliseconds, unit='ms'):%Y-%m-%d}" if milliseconds else ""


def _git(repository: Path, arguments: list[str], names: Iterable[str]) -> str:
    """Standard output of a git command that reads hashes from stdin; empty where it fails."""
    given = "".join(f"{name}\n" for name in names)
    return _run(repository, [*arguments, "--ignore-missing", "--stdin"], given)


def _run(repository: Path, arguments: list[str], given: str = "") -> str:
    """Standard output of a git command; empty where it fails."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *arguments],
            input=given.encode(),
            capture_output=True,
            check=False,
            timeout=60,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def _git_details(repository: Path, names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Hash → (author date, subject)."""
    hashes = [name for name in names if _HASH.fullmatch(name)]
    if not hashes:
        return {}
    command = ["log", "--no-walk=unsorted", "-z", "--format=%H%x1f%as%x1f%s"]
    lines = (line.split("\x1f", 2) for line in _git(repository, command, hashes).split("\0"))
    return {f[0]: (clean(f[1]), clean(f[2])) for f in lines if len(f) == 3}


def _git_ranks(repository: Path, names: Iterable[str]) -> dict[str, int]:
    """Hash → position in an order in which parents come before their children."""
    listed = _git(repository, ["rev-list", "--topo-order", "--reverse"], names)
    return {name: rank for rank, name in enumerate(listed.split())}


@dataclass(frozen=True)
class Release:
    """A tag such as v1.2.3, and the hash of its commit."""

    name: str
    commit: str


@dataclass(frozen=True)
class Branch:
    """What git knows of the branch that the results lie on.

    Attributes:
        parents: commit → its parents, of all that HEAD has behind it; empty without git.
        releases: those of the branch, the lowest version first.
    """

    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    releases: tuple[Release, ...] = ()

    def behind(self, commit: str) -> set[str]:
        """A commit of the branch and all that it is made upon; empty for any other."""
        found: set[str] = set()
        waiting = [commit] if commit in self.parents else []
        while waiting:
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting.extend(self.parents.get(one, ()))
        return found

    def newer(self, commit: str) -> int | None:
        """How many commits of the branch a commit does not have; None for one not on it."""
        return len(self.parents) - len(self.behind(commit)) if commit in self.parents else None

    def last_release(self, commit: str) -> Release | None:
        """The highest release that a commit is made upon and is not itself."""
        earlier = self.behind(commit) - {commit}
        return next((one for one in reversed(self.releases) if one.commit in earlier), None)


def branch(repository: Path | None) -> Branch:
    """The branch of a checkout; an empty one where git cannot read it."""
    if repository is None:
        return Branch()
    listed = _run(repository, ["rev-list", "--parents", "HEAD"]).split("\n")
    parents = {names[0]: tuple(names[1:]) for line in listed if (names := line.split())}
    # A shallow checkout ends in commits whose parents it does not have.
    parents = {name: tuple(p for p in of if p in parents) for name, of in parents.items()}
    form = "%(refname:lstrip=2)%00%(objectname)%00%(*objectname)"
    tags = _run(repository, ["for-each-ref", f"--format={form}", "refs/tags"]).split("\n")
    found = []
    for name, of_tag, of_commit in (line.split("\0") for line in tags if line.count("\0") == 2):
        version, commit = _RELEASE.fullmatch(name), of_commit or of_tag
        if version and commit in parents:
            found.append((tuple(map(int, version.groups())), Release(clean(name), commit)))
    return Branch(parents, tuple(one for _, one in sorted(found, key=lambda of: of[0])))


ENVIRONMENT = ("gpu", "driver", "cuda", "torch", "triton", "ptxas", "python")
"""Fingerprint keys whose change can move a measurement."""


@dataclass(frozen=True)
class Change:
    """A machine's environment differs from the one of the commit measured before."""

    commit: str
    text: str


def environment_changes(
    runs: pd.DataFrame, machine: str, order: tuple[Commit, ...]
) -> tuple[Change, ...]:
    """Where the fingerprint of `machine` changes along `order`, in words: `torch 2.11 → 2.12`.

    A commit that was measured in several runs has the fingerprint of its last one. Keys that
    one of the sides does not know are not compared.
    """
    if runs.empty:
        return ()
    known = runs[runs["machine"] == machine].sort_values("started_at", kind="stable")
    keys = [key for key in ENVIRONMENT if key in known]
    last = known.drop_duplicates("commit", keep="last").set_index("commit")[keys]
    latest = last.to_dict("index")
    found: list[Change] = []
    seen: dict[str, str] = {}
    for commit in order:
        if commit.id not in latest:
            continue
        now = {key: clean(value) for key, value in latest[commit.id].items()}
        steps = [
            f"{key} {short(seen[key], 24)} → {short(value, 24)}"
            for key, value in now.items()
            if value and seen.get(key) and seen[key] != value
        ]
        if steps:
            found.append(Change(commit.id, ", ".join(steps)))
        seen.update({key: value for key, value in now.items() if value})
    return tuple(found)
