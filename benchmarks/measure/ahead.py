"""`python -m benchmarks.measure.ahead [COMMIT] [--bench REGEX]`: measure one commit ahead of asv.

asv gives each operator a process of its own, and a measuring process for each would take longer to
start than a quick run measures. Run before `asv run`, this has workers that share the GPU measure
all operators. Every point lies in the commit's journal then, where asv's processes find it.
`make bench` does so.

REGEX is asv's `--bench`: operators are taken whose benchmark it matches, such as
`codegen.Softmax.track_spills`. Kernels that are not committed are not measured.

With `--list` it measures many commits at once, each by workers of its own that share the GPU: most
of a commit's few cases is the start of a process. `make history` does so.

Where KERNL_FLEET names a Dask scheduler, its workers time the operators
(`benchmarks.measure.fleet`).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks import cases as frozen_cases
from benchmarks.measure import codegen_sweep, device
from benchmarks.measure.fleet_members import FleetError
from benchmarks.measure.for_asv import Checkout, measure_commits
from benchmarks.measure.journal import Journal, journal_path
from benchmarks.measure.lifetime import die_with_parent
from benchmarks.measure.measuring import worker_environment
from benchmarks.measure.selection import matching, regular_expression

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; exit code 0 also where there is nothing to do.

    It is 1 where there is no such commit, and where a fleet cannot measure.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measure.ahead", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("commit", nargs="?", default="HEAD")
    parser.add_argument(
        "--bench", type=regular_expression, default="", metavar="REGEX", help="as asv takes it"
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="of each line of standard input, a commit and a REGEX, what is timed, all at once",
    )
    options = parser.parse_args(arguments)
    die_with_parent()
    try:
        if options.list:
            return _measure_list(sys.stdin)
        if "KERNL_COMMIT" in os.environ:
            return _measure(options.bench)
        return _in_commit(options.commit, options.bench)
    except (FleetError, UnknownCommit) as error:
        print(f"ahead: {error}", file=sys.stderr)
        return 1


class UnknownCommit(Exception):
    """There is no such commit, or it has no kernl."""


def checkout(name: str) -> Checkout:
    """A commit by its name, with its kernl. Raises UnknownCommit."""
    from asv.config import Config

    from benchmarks.worktree import NAME, CommitUnavailable, extract_commit

    command = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--end-of-options", name]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    commit = found.stdout.strip()
    if found.returncode != 0:
        raise UnknownCommit(f"there is no commit {name!r} here")
    config = Config.load(str(ROOT / "asv.conf.json"))
    try:
        code = extract_commit(ROOT, commit, ROOT / config.env_dir / "commits")
    except CommitUnavailable as error:
        raise UnknownCommit(str(error)) from error
    return Checkout(commit, code, ROOT / config.results_dir, NAME)


def _in_commit(name: str, bench: str) -> int:
    """Start again in a process whose kernl is that of the commit."""
    found = checkout(name)
    environment = {
        **worker_environment(found.code),
        "KERNL_COMMIT": found.commit,
        "KERNL_RESULTS": str(found.results),
        "KERNL_ENV_NAME": found.environment,
    }
    program = [sys.executable, "-P", "-m", "benchmarks.measure.ahead", "--bench", bench]
    return subprocess.run(program, env=environment, cwd=ROOT, check=False).returncode


def _measure(bench: str) -> int:
    frozen = frozen_cases.load()
    compiled = matching(frozen.ops, bench, "codegen")
    if compiled:
        commit, machine = os.environ["KERNL_COMMIT"], device.machine_name()
        results = Path(os.environ["KERNL_RESULTS"])
        path = journal_path(results, machine, commit, os.environ["KERNL_ENV_NAME"])
        with Journal(path) as journal:
            codegen_sweep.sweep(frozen, compiled, journal, commit, machine, None)
    return _measure_commits({Checkout.of_asv(): bench})


def _measure_list(lines: Iterable[str]) -> int:
    """What `history` prints. A commit that is not there, or has no kernl, is told and left out."""
    asked: dict[Checkout, str] = {}
    for line in lines:
        name, _, bench = line.strip().partition(" ")
        if name:
            try:
                asked[checkout(name)] = regular_expression(bench)
            except (UnknownCommit, argparse.ArgumentTypeError) as error:
                print(f"ahead: {error}; it is left out", file=sys.stderr)
    return _measure_commits(asked)


def _measure_commits(asked: Mapping[Checkout, str]) -> int:
    """What is timed of these commits and regular expressions."""
    frozen = frozen_cases.load()
    suites = {"kernels": frozen.ops, "models": frozen.models}
    timed = {
        commit: {
            suite: found
            for suite, names in suites.items()
            if (found := matching(names, bench, suite))
        }
        for commit, bench in asked.items()
    }
    with tempfile.TemporaryDirectory() as scratch:
        unmeasured = measure_commits(timed, Path(scratch))
    if unmeasured:
        print(f"ahead: {unmeasured}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
