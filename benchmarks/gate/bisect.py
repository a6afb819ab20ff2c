"""Which commit made a case slower: `python -m benchmarks.gate --bisect "OP CASE" GOOD BAD`.

GOOD and BAD are timed beside each other first: without a slowdown there is nothing to look for.
Then commits between them are timed beside GOOD, always the middle one of those that are left, of
which only they count that can have changed the operator (`benchmarks.touched`). A commit is slow
where more than half of the slowdown is there. Where a commit cannot be timed, its neighbour is.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.compare import SampleTest
from benchmarks.gate.beside import Case, Evidence
from benchmarks.known_noise import KnownNoise
from benchmarks.measure.paired import TwoCommits, asked_for
from benchmarks.measure.pairs import Asked, Plan
from benchmarks.sessions import CONFIRMED
from benchmarks.touched import Tree, touched

ROOT = Path(__file__).resolve().parents[2]
SESSIONS = 6
_PAIRS = 6

Say = Callable[[str], object]
Slower = Callable[[str], float | None]
"""By how much a commit is slower than GOOD, as a logarithm; None where that cannot be told."""


class NothingToFind(Exception):
    """There is no slowdown, or no commit that can have made it; the reason is in words."""


@dataclass(frozen=True)
class Found:
    """The commits one of which made the case slower: one, unless some could not be timed.

    Attributes:
        commits: full hashes, oldest first.
        effect: how much slower the last commit is than GOOD, as a fraction.
    """

    commits: Sequence[str]
    effect: float


def first_slow(commits: Sequence[str], effect: float, slower: Slower) -> list[str]:
    """The commits among which the slowdown came, oldest first; the last of `commits` has it.

    Args:
        commits: oldest first.
        effect: the slowdown of the last of them, as a logarithm.
        slower: times a commit.
    """
    before, after = -1, len(commits) - 1
    silent = set[int]()
    while True:
        left = [place for place in range(before + 1, after) if place not in silent]
        if not left:
            return list(commits[before + 1 : after + 1])
        middle = (before + after) / 2
        place = min(left, key=lambda one: abs(one - middle))
        found = slower(commits[place])
        if found is None:
            silent.add(place)
        elif found > effect / 2:
            after = place
        else:
            before = place


def bisect(case: str, good: str, bad: str, known: KnownNoise, device: str, say: Say) -> Found:
    """Find it by measuring. `case` is an operator and one of its cases, with a space between.

    Raises:
        NothingToFind: the reason is in words.
        benchmarks.measure.ahead.UnknownCommit: there is no such commit.
    """
    asked = _asked(case)
    ends = TwoCommits.of(good, bad, device)
    test, why = _timed(asked, ends, known)
    effect = test.log_effect
    if test.problem:
        raise NothingToFind(f"{case}: {good} and {bad} were not timed beside each other: {why}")
    told = f"{_name(ends.head)} is {_percent(effect)} slower than {_name(ends.base)}"
    say(told)
    if test.p_slower > CONFIRMED or effect <= test.threshold:
        raise NothingToFind(f"{case}: {told}, which noise may be as well")
    commits = changing(asked.op, ends.base, ends.head)
    if not commits:
        raise NothingToFind(f"{case}: no commit between {good} and {bad} changes {asked.op}")
    say(f"{len(commits)} commits between them can have changed {asked.op}")

    def slower(commit: str) -> float | None:
        test, why = _timed(asked, TwoCommits.of(ends.base, commit, device), known)
        if test.problem:
            say(f"{_name(commit)} cannot be timed: {why}")
            return None
        say(f"{_name(commit)} is {_percent(test.log_effect)} slower")
        return test.log_effect

    return Found(first_slow(commits, effect, slower), math.expm1(effect))


def changing(op: str, good: str, bad: str, root: Path = ROOT) -> list[str]:
    """Commits after `good`, up to `bad`, by first parents, that can have changed an operator."""
    line = ["git", "-C", str(root), "rev-list", "--reverse", "--first-parent", f"{good}..{bad}"]
    later = subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()
    trees = {commit: Tree.of(root, commit) for commit in (good, *later)}
    return [new for old, new in pairwise((good, *later)) if touched(trees[old], trees[new], [op])]


def _asked(case: str) -> Asked:
    op, _, name = case.partition(" ")
    for one in asked_for("", "", None):
        if (one.op, one.case.name) == (op, name):
            return one
    raise NothingToFind(
        f"{case!r} is no case: give an operator and one of its cases, such as "
        f"{_an_example()!r}; `python -m dashboards.table` names them"
    )


def _an_example() -> str:
    first = asked_for("", "", 1)[0]
    return f"{first.op} {first.case.name}"


def _timed(asked: Asked, bench: TwoCommits, known: KnownNoise) -> tuple[SampleTest, str]:
    """The test of some sessions, and why it has a problem where it has one."""
    seen = Evidence()

    def add(record: Mapping[str, Any]) -> None:
        if record["kind"] == "pair":
            seen.add(record)

    with bench:
        bench.measure([asked], Plan(SESSIONS, pairs=_PAIRS, control=0.0), add)
    test = seen.test(Case(asked.op, asked.case.name), known)
    return test, "; ".join(dict.fromkeys([test.problem, *seen.left_out]))


def _name(commit: str) -> str:
    return commit[:12]


def _percent(effect: float) -> str:
    return f"{100 * math.expm1(effect):.1f} %"
