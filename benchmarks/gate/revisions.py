"""Commits by name, as git knows them, or the results where git does not."""

import re
import subprocess
from collections.abc import Iterable

_HASH = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_SHORT_HASH = re.compile(r"[0-9a-f]{4,64}")


class GateError(Exception):
    """The comparison cannot begin; the message says what was seen and what to do."""


def resolve(revision: str, known: Iterable[str]) -> str:
    """Full hash of a revision, from git or, where git does not know it, from the results' commits.

    Raises:
        GateError: it names no commit, or several.
    """
    found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}")
    if found is not None and _HASH.fullmatch(found.strip()):
        return found.strip()
    prefix = revision.lower()
    matches = sorted(
        {commit for commit in known if commit.startswith(prefix)}
        if _SHORT_HASH.fullmatch(prefix)
        else ()
    )
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise GateError(f"{revision!r} begins {len(matches)} commits: give more digits")
    raise GateError(
        f"{revision!r} is no commit that git or the results know: give a branch, a tag or a hash"
    )


def gated_commits(base: str, head: str) -> list[str]:
    """`head` and, where git knows both, all commits of base..head."""
    found = _git("rev-list", "--end-of-options", f"{base}..{head}")
    return [head, *(found or "").split()]


def ancestry(head: str) -> list[str]:
    """`head` and all commits before it, the oldest first; empty where git does not know it."""
    found = _git("rev-list", "--topo-order", "--reverse", "--end-of-options", head)
    return (found or "").split()


def title(commit: str) -> str:
    """Hash and subject of a commit; the hash alone where git does not know it."""
    return (_git("log", "-1", "--format=%H %s", "--end-of-options", commit) or commit).strip()


def _git(*arguments: str) -> str | None:
    """What git prints; None where there is no git, no repository, or git refuses."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except (OSError, ValueError):
        return None
    return done.stdout if done.returncode == 0 else None
