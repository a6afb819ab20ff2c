"""Commits in order, with subject and author date where git knows them."""

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dashboards.text import clean, short

_HASH = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Commit:
    """One measured commit. `subject` and `authored` are empty where git does not know it."""

    id: str
    committed: str
    subject: str = ""
    authored: str = ""

    @property
    def short(self) -> str:
        """The first eight characters of the hash."""
        return self.id[:8]

    @property
    def label(self) -> str:
        """Hash, date and subject on one line."""
        parts = (self.short, self.authored or self.committed, short(self.subject, 72))
        return " · ".join(part for part in parts if part)


def commits(rows: pd.DataFrame, repository: Path | None = None) -> tuple[Commit, ...]:
    """The commits of `rows`, oldest first: by commit date, then by ancestry where git knows it.

    Args:
        rows: rows of the store.
        repository: a directory inside a git checkout; None, or one that git cannot read,
            leaves subjects empty and orders equal dates by hash.
    """
    dates = rows.groupby("commit")["committed_at"].min()
    known = _git_details(repository, dates.index) if repository else {}
    ranks = _git_ranks(repository, known) if repository and known else {}
    oldest = pd.Timestamp(0, tz="UTC")
    order = sorted(dates.index, key=lambda c: (dates.fillna(oldest)[c], ranks.get(c, 0), c))
    return tuple(
        Commit(
            id=commit,
            committed=f"{dates[commit]:%Y-%m-%d}" if pd.notna(dates[commit]) else "",
            subject=known.get(commit, ("", ""))[1],
            authored=known.get(commit, ("", ""))[0],
        )
        for commit in order
    )


def _git(repository: Path, arguments: list[str], names: Iterable[str]) -> str:
    """Standard output of a git command that reads hashes from stdin; empty where it fails."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *arguments, "--ignore-missing", "--stdin"],
            input="".join(f"{name}\n" for name in names).encode(),
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
    latest = known.drop_duplicates("commit", keep="last").set_index("commit")
    found: list[Change] = []
    seen: dict[str, str] = {}
    for commit in order:
        if commit.id not in latest.index:
            continue
        now = {key: clean(latest.at[commit.id, key]) for key in keys}
        steps = [
            f"{key} {short(seen[key], 24)} → {short(value, 24)}"
            for key, value in now.items()
            if value and seen.get(key) and seen[key] != value
        ]
        if steps:
            found.append(Change(commit.id, ", ".join(steps)))
        seen.update({key: value for key, value in now.items() if value})
    return tuple(found)
