"""Made-up rows in the store's schema, for tests only: nothing here was ever measured."""

import hashlib
import math
import random
from dataclasses import dataclass, field

import pandas as pd

IMPLEMENTATIONS = ("eager", "compile", "kernl")
ARCHITECTURES = ("sm_80", "sm_86", "sm_90", "sm_100")
METRICS = ("registers", "spills", "shared_memory", "instructions", "occupancy")
COLUMNS = [
    "machine", "commit", "committed_at", "suite", "op", "metric", "case", "variant", "value",
    "low", "high", "samples", "version", "status", "reason", "error", "run",
]  # fmt: skip
RUN_COLUMNS = ["run", "machine", "commit", "started_at", "gpu", "driver", "torch", "triton"]


@dataclass(frozen=True)
class Problem:
    path: str
    reason: str


@dataclass(frozen=True)
class Store:
    rows: pd.DataFrame
    runs: pd.DataFrame
    machines: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def commit_hash(number: int) -> str:
    return hashlib.sha1(f"synthetic {number}".encode()).hexdigest()


def row(**values: object) -> dict[str, object]:
    """One row of the store with harmless defaults."""
    base: dict[str, object] = {
        "machine": "nvidia-h200",
        "commit": commit_hash(0),
        "committed_at": pd.Timestamp("2026-01-01", tz="UTC"),
        "suite": "kernels",
        "op": "softmax",
        "metric": "time",
        "case": "rows8_cols8.fp16",
        "variant": "kernl",
        "value": 1e-6,
        "low": math.nan,
        "high": math.nan,
        "samples": (),
        "version": "1",
        "status": "ok",
        "reason": "",
        "error": math.nan,
        "run": "",
    }
    return {**base, **values}


def frame(rows: list[dict[str, object]]) -> pd.DataFrame:
    found = pd.DataFrame(rows, columns=COLUMNS)
    found["committed_at"] = pd.to_datetime(found["committed_at"], utc=True)
    return found.astype({"value": float, "low": float, "high": float, "error": float})


def runs_frame(runs: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame(runs, columns=RUN_COLUMNS)


def empty() -> Store:
    return Store(frame([]), runs_frame([]))


def cases(op: str, count: int) -> list[str]:
    """Names as the suite writes them."""
    found = []
    for number in range(count):
        dtype = ("fp16", "bf16", "fp32")[number % 3]
        size = number // 3
        rows, cols = 2 ** (2 + size % 10), 64 * (1 + size // 2)
        if op == "linear":
            found.append(f"m{rows}_n{cols * 4}_k{cols}_bias_gelu_tanh.{dtype}")
        else:
            found.append(f"rows{rows}_cols{cols}.{dtype}")
    return found


def _time(op: str, case: str, implementation: str, commit: int) -> float:
    seeded = random.Random(f"{op} {case}")
    base = seeded.uniform(3e-6, 80e-6)
    gain = {
        "eager": 1.0,
        "compile": seeded.uniform(0.9, 2.2),
        "kernl": seeded.uniform(0.95, 3.2) * (1 + 0.035 * commit),
    }
    noise = random.Random(f"{op} {case} {implementation} {commit}").gauss(1, 0.006)
    return base / gain[implementation] * noise


def _kernels(op: str, case: str, commit: int) -> list[dict[str, object]]:
    number = int(hashlib.sha1(f"{op}{case}".encode()).hexdigest(), 16)
    found = []
    for implementation in IMPLEMENTATIONS:
        value = _time(op, case, implementation, commit)
        status, reason = "ok", ""
        if implementation == "kernl" and number % 29 == 0:
            status, reason = "skipped", "kernl takes rows of at most 65536 elements here"
        elif implementation == "kernl" and number % 31 == 0:
            status, reason = "failed", "relative error 3.1e-01 is above the tolerance of 2e-03"
        good = status == "ok"
        found.append(
            {
                "suite": "kernels", "op": op, "metric": "time", "case": case,
                "variant": implementation,
                "value": value if good else math.nan,
                "low": value * 0.992 if good else math.nan,
                "high": value * 1.011 if good else math.nan,
                "status": status, "reason": reason,
                "error": 2.4e-4 if implementation == "kernl" and good else math.nan,
            }
        )  # fmt: skip
    return found


def _codegen(op: str, case: str, commit: int, commits: int) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for architecture in ARCHITECTURES:
        seeded = random.Random(f"{op} {case} {architecture}")
        values = {
            "registers": seeded.choice([32, 40, 64, 96, 128, 168]),
            "spills": 0,
            "shared_memory": seeded.choice([0, 1024, 16384, 49152]),
            "instructions": seeded.randint(200, 1900) - 12 * commit,
            "occupancy": seeded.choice([0.25, 0.5, 0.75, 1.0]),
        }
        if commit == commits - 1 and case.startswith(("rows4_", "m4_")) and seeded.random() < 0.3:
            values["registers"] += 24
            values["spills"] = 18
        failed = architecture == "sm_100" and seeded.random() < 0.04
        found += [
            {
                "suite": "codegen", "op": op, "metric": metric, "case": case,
                "variant": architecture,
                "value": math.nan if failed else float(values[metric]),
                "status": "failed" if failed else "ok",
                "reason": "ptxas: 262144 bytes of shared memory, at most 232448" if failed else "",
            }
            for metric in METRICS
        ]  # fmt: skip
    return found


def store(ops: tuple[str, ...] = ("softmax", "layer_norm", "linear"), count: int = 60,
          commits: int = 8, gpu: bool = True) -> Store:  # fmt: skip
    """A whole project's history on one GPU machine and one without a GPU."""
    rows, runs = [], []
    for commit in range(commits):
        shared = {
            "commit": commit_hash(commit),
            "committed_at": pd.Timestamp("2026-01-05", tz="UTC") + pd.Timedelta(days=3 * commit),
        }
        found = [
            {"machine": "compile-only", **shared, **made}
            for op in ops
            for case in cases(op, count)
            for made in _codegen(op, case, commit, commits)
        ]
        if gpu:
            found += [
                {"machine": "nvidia-h200", **shared, **made}
                for op in ops
                for case in cases(op, count)
                for made in _kernels(op, case, commit)
            ]
        rows += [row(**values) for values in found]
        runs += _runs(commit, gpu)
    machines = {"compile-only": {"machine": "compile-only", "os": "Linux", "arch": "x86_64"}}
    if gpu:
        machines["nvidia-h200"] = {"machine": "nvidia-h200", "os": "Linux", "cpu": "Xeon"}
    problems = [Problem("nvidia-h200/0badf00d-worktree.json", "not JSON: line 1, column 17")]
    return Store(frame(rows), runs_frame(runs), machines, problems)


def _runs(commit: int, gpu: bool) -> list[dict[str, object]]:
    started = f"2026-01-{5 + 3 * commit:02d}T09:00:00Z"
    shared = {"commit": commit_hash(commit), "started_at": started, "triton": "3.6.0"}
    found: list[dict[str, object]] = [
        {"run": f"c{commit}", "machine": "compile-only", "torch": "2.13.0+cpu", **shared}
    ]
    if gpu:
        found.append(
            {
                "run": f"g{commit}", "machine": "nvidia-h200", "gpu": "NVIDIA H200",
                "driver": "570.86" if commit < 5 else "575.51", "torch": "2.11.0+cu130", **shared,
            }
        )  # fmt: skip
    return found
