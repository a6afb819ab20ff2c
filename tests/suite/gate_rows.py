"""Rows as `benchmarks.store` gives them, made by hand for the tests of the gate."""

import datetime
import math
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.gate.report import Report
from benchmarks.gate.stored import judge

BASE, HEAD, OTHER = "a" * 40, "b" * 40, "c" * 40
TODAY = datetime.date(2030, 6, 1)
CODEGEN_MACHINE, GPU_MACHINE = "compile-only", "nvidia-h200"
FINGERPRINT = {
    "gpu": "NVIDIA H200",
    "driver": "570.1",
    "torch": "2.11.0",
    "triton": "3.6.0",
    "ptxas": "12.8.93",
}
Row = dict[str, Any]


def row(commit: str, suite: str, **fields: Any) -> Row:
    """A good row; any field can be replaced."""
    machine = CODEGEN_MACHINE if suite == "codegen" else GPU_MACHINE
    made: Row = {
        "machine": machine,
        "commit": commit,
        "committed_at": pd.Timestamp("2030-01-01", tz="UTC"),
        "suite": suite,
        "op": "softmax",
        "metric": "registers" if suite == "codegen" else "time",
        "case": "rows4096_cols768.fp16",
        "variant": "sm_90" if suite == "codegen" else "kernl",
        "value": 32.0 if suite == "codegen" else 1e-5,
        "low": math.nan,
        "high": math.nan,
        "samples": (),
        "version": "1",
        "status": "ok",
        "reason": "",
        "error": math.nan,
        "run": f"run-{commit[:1]}-{suite}",
    }
    assert fields.keys() <= made.keys()
    made.update(fields)
    if made["status"] != "ok":
        made.update(value=math.nan, samples=())
    return made


def count(commit: str, value: float = 32.0, **fields: Any) -> Row:
    """A row of the codegen suite."""
    return row(commit, "codegen", value=value, **fields)


def timing(commit: str, seconds: float = 1e-5, **fields: Any) -> Row:
    """A row of the kernels suite with 20 quiet samples."""
    samples = tuple(seconds * (1 + 0.001 * (i % 5)) for i in range(20))
    return row(commit, "kernels", **{"value": seconds, "samples": samples, **fields})


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """The rows as the store's table."""
    return pd.DataFrame(rows, columns=list(row(BASE, "codegen")))


def runs_frame(**of_head: Any) -> pd.DataFrame:
    """One run a commit and suite, with head's fingerprint changed as told."""
    return pd.DataFrame(
        [
            {
                "run": f"run-{commit[:1]}-{suite}",
                "machine": CODEGEN_MACHINE if suite == "codegen" else GPU_MACHINE,
                "commit": commit,
                **FINGERPRINT,
                **(of_head if commit == HEAD else {}),
            }
            for commit in (BASE, HEAD)
            for suite in ("codegen", "kernels")
        ]
    )


def gate(*rows: Row, runs: pd.DataFrame | None = None, **options: Any) -> Report:
    """The gate's report on these rows."""
    fingerprints = runs_frame() if runs is None else runs
    options = {"today": TODAY, "commits": [HEAD], **options}
    return judge(frame(rows), fingerprints, BASE, HEAD, **options)


def outcomes(report: Report) -> list[str]:
    """What was found, worst first."""
    return [finding.outcome for finding in report.findings]


def make_repository(root: Path) -> tuple[str, str]:
    """Make a git repository with two commits, the first one tagged v1; gives their hashes."""
    author = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    quiet = ["-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *author, *quiet, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "first")
    git("tag", "v1")
    first = git("rev-parse", "HEAD")
    git("commit", "--quiet", "--allow-empty", "--message", "second")
    return first, git("rev-parse", "HEAD")
