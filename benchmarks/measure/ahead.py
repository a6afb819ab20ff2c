"""`python -m benchmarks.measure.ahead [COMMIT] [--bench REGEX]`: measure one commit ahead of asv.

asv gives each operator a process of its own. Starting a pool of compilers and a measuring process
for each takes longer than a quick run measures. Run before `asv run`, this has workers that share
the GPU compile for all operators and measure them. Every point lies in the
commit's journal then, where asv's processes find it. `make bench` does so.

REGEX is asv's `--bench`: operators are taken whose benchmark it matches, such as
`codegen.Softmax.track_spills`. Kernels that are not committed are not measured.

Where KERNL_FLEET names a Dask scheduler, its workers time the operators
(`benchmarks.measure.fleet`).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import cases as frozen_cases
from benchmarks.measure import codegen_sweep, device
from benchmarks.measure.fleet_members import FleetError
from benchmarks.measure.for_asv import measure_suites
from benchmarks.measure.journal import Journal, journal_path
from benchmarks.measure.lifetime import die_with_parent
from benchmarks.measure.selection import matching, regular_expression
from benchmarks.measure.sweep import worker_environment

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
    options = parser.parse_args(arguments)
    die_with_parent()
    if "KERNL_COMMIT" in os.environ:
        try:
            return _measure(options.bench)
        except FleetError as error:
            print(f"ahead: {error}", file=sys.stderr)
            return 1
    return _in_commit(options.commit, options.bench)


def _in_commit(name: str, bench: str) -> int:
    """Start again in a process whose kernl is that of the commit."""
    from asv.config import Config

    from benchmarks.worktree import NAME, CommitUnavailable, extract_commit

    command = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--end-of-options", name]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    commit = found.stdout.strip()
    if found.returncode != 0:
        print(f"ahead: there is no commit {name!r} here", file=sys.stderr)
        return 1
    config = Config.load(str(ROOT / "asv.conf.json"))
    try:
        code = extract_commit(ROOT, commit, ROOT / config.env_dir / "commits")
    except CommitUnavailable as error:
        print(f"ahead: {error}", file=sys.stderr)
        return 1
    environment = {
        **worker_environment(code),
        "KERNL_COMMIT": commit,
        "KERNL_RESULTS": str(ROOT / config.results_dir),
        "KERNL_ENV_NAME": NAME,
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
    suites = {"kernels": frozen.ops, "models": frozen.models}
    timed = {suite: matching(names, bench, suite) for suite, names in suites.items()}
    with tempfile.TemporaryDirectory() as scratch:
        unmeasured = measure_suites(
            {suite: ops for suite, ops in timed.items() if ops}, Path(scratch)
        )
    if unmeasured:
        print(f"ahead: {unmeasured}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
