"""`python -m benchmarks.measure.head [--bench REGEX]`: sweep HEAD's operators with one worker.

asv gives each operator a process and a worker of its own; starting those, and a pool of compilers
for each, takes longer than a quick run's measuring. Run before `asv run`, this leaves every point
in the journal of HEAD, where asv's processes find it. `make bench` does so on a GPU.

REGEX is asv's `--bench`: operators are swept whose benchmark it matches, such as
`kernels.Softmax.track_time`. Kernels that are not committed are not measured.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from asv.config import Config

from benchmarks import cases as frozen_cases
from benchmarks.measure.for_asv import measure_ops
from benchmarks.measure.lifetime import die_with_parent
from benchmarks.worktree import NAME, CommitUnavailable, extract_commit

ROOT = Path(__file__).resolve().parents[2]


def matching(ops: Sequence[str], regex: str) -> list[str]:
    """The operators whose benchmark in the suite asv would pick by `regex`."""
    return [op for op in ops if re.search(regex, f"kernels.{_class_name(op)}.track_time")]


def _class_name(op: str) -> str:
    return "".join(part.capitalize() for part in op.split("_"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Sweep; exit code 0 also where there is no GPU, which asv's run says again."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measure.head", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--bench", default="", metavar="REGEX", help="as asv takes it")
    options = parser.parse_args(arguments)
    try:
        ops = matching(frozen_cases.load().ops, options.bench)
    except re.error as error:
        parser.error(f"--bench {options.bench!r} is no regular expression: {error}")
    if not ops:
        return 0
    die_with_parent()
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    config = Config.load(str(ROOT / "asv.conf.json"))
    try:
        code = extract_commit(ROOT, commit, ROOT / config.env_dir / "commits")
    except CommitUnavailable as error:
        print(f"head: {error}", file=sys.stderr)
        return 1
    os.environ.update(
        KERNL_COMMIT=commit,
        KERNL_CODE=str(code),
        KERNL_RESULTS=str(ROOT / config.results_dir),
        KERNL_ENV_NAME=NAME,
    )
    with tempfile.TemporaryDirectory() as scratch:
        unmeasured = measure_ops(ops, Path(scratch))
    if unmeasured:
        print(f"head: {unmeasured}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
