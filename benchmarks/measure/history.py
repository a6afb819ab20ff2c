r"""Which commits of a range are to be measured, and what of them: `make history REVISION=…`.

    python -m benchmarks.measure.history HEAD~20..HEAD --bench 'kernels\.'

Prints a line for each commit of which something is missing in asv's results of this machine, the
oldest first: the commit, and a regular expression for the operators and models that are missing.
Commits that have all are named on standard error. Commits are measured with the suite as it is
now: `kernl/` alone comes from the commit, and what the commit does not have is n/a there. What
was measured once, also in a part of the cases, counts as measured.

`--changed` leaves out the operators and models that a commit cannot have changed
(`benchmarks.touched`): the commit before it speaks for them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import asv_file
from benchmarks import cases as frozen_cases
from benchmarks.asv_file import METRICS
from benchmarks.cases import Frozen
from benchmarks.measure.device import COMPILE_ONLY, machine_name
from benchmarks.measure.measuring import ROOT
from benchmarks.measure.selection import class_name, matching, regular_expression
from benchmarks.measure.sweep import RESULTS
from benchmarks.touched import Tree, touched, touched_models
from benchmarks.worktree import NAME


def commits(revisions: str) -> list[str]:
    """The commits of a git range or name, the oldest first.

    Raises ValueError where git knows no such range.
    """
    command = ["git", "-C", str(ROOT), "rev-list", "--reverse", "--end-of-options", revisions]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise ValueError(
            f"{revisions!r} names no commits here; allowed: a range such as HEAD~20..HEAD, or one "
            "commit as HEAD^!"
        )
    return found.stdout.split()


def wanted(frozen: Frozen, regex: str) -> list[tuple[str, str]]:
    """(suite, operator or model) of what asv would pick by `regex`."""
    return [
        (suite, op)
        for suite in METRICS
        for op in matching(frozen.models if suite == "models" else frozen.ops, regex, suite)
    ]


def missing(
    commit: str, asked: Sequence[tuple[str, str]], results: Path, machine: str
) -> list[tuple[str, str]]:
    """Those of `asked` of which asv's result file of this commit holds nothing."""
    path = results / machine / f"{commit[:8]}-{NAME}.json"
    try:
        found = {(block.suite, block.op) for block in asv_file.read(path, machine).blocks}
    except asv_file.ResultFileError as error:
        if path.exists():
            print(f"history: {path.name}: {error}; it counts as absent", file=sys.stderr)
        found = set()
    return [one for one in asked if one not in found]


def changed_by(commit: str, asked: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of `asked` that the commit can have changed since its first parent."""
    try:
        after = Tree.of(ROOT, commit)
    except ValueError:
        return []  # without kernl/ there is nothing to measure
    try:
        before = Tree.of(ROOT, f"{commit}^")
    except ValueError:
        before = Tree({})
    frozen = frozen_cases.load()
    models = {name: frozen.operators(name) for name in frozen.models}
    reached = touched(before, after, frozen.ops) | touched_models(before, after, models, frozen.ops)
    return [one for one in asked if one[1] in reached]


def to_measure(
    revisions: str,
    regex: str,
    results: Path = RESULTS,
    machine: str = "",
    *,
    changed: bool = False,
) -> Iterator[tuple[str, str]]:
    """Each commit that lacks something, and a regular expression for that.

    `changed`: of each commit only what it can have changed.

    Raises ValueError for an unknown range, or where `regex` matches nothing.
    """
    machine = machine or machine_name()
    suites = ("codegen",) if machine == COMPILE_ONLY else tuple(METRICS)
    found = [one for one in wanted(frozen_cases.load(), regex) if one[0] in suites]
    if not found:
        raise ValueError(f"{regex!r} matches no benchmark that {machine} can run")
    for commit in commits(revisions):
        asked = changed_by(commit, found) if changed else found
        left = missing(commit, asked, results, machine)
        if left:
            print(f"history: {commit[:8]}: {len(left)} of {len(asked)} to measure", file=sys.stderr)
            names = "|".join(rf"{suite}\.{class_name(op)}" for suite, op in left)
            yield commit, rf"^(?:{names})\."
        else:
            said = "measured already" if asked else "changes nothing of what was asked for"
            print(f"history: {commit[:8]}: {said}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print; exits with 2 and a message where there is nothing of what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.measure.history", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("revisions", metavar="RANGE", help="as git takes it, such as HEAD~20..HEAD")
    parser.add_argument(
        "--bench", type=regular_expression, default="", metavar="REGEX", help="as asv takes it"
    )
    parser.add_argument(
        "--changed", action="store_true", help="of each commit only what it can have changed"
    )
    options = parser.parse_args(arguments)
    try:
        for commit, regex in to_measure(options.revisions, options.bench, changed=options.changed):
            print(commit, regex, flush=True)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
