"""Made-up rows in the store's schema, for tests only: nothing here was ever measured."""

import hashlib
import math
import random
from dataclasses import dataclass, field

import pandas as pd

from benchmarks.asv_file import METRICS as ALL_METRICS

IMPLEMENTATIONS = ("eager", "compile", "kernl")
MODEL_IMPLEMENTATIONS = {
    "eager": (1.0, 1.0), "autocast": (0.6, 0.9), "cudagraph": (1.2, 3.0), "compile": (1.1, 1.9),
    "compile_reduce_overhead": (1.3, 4.0), "compile_max_autotune": (1.3, 4.2),
    "compile_cudagraph": (1.4, 4.2), "kernl_graphs_only": (1.2, 3.0),
    "kernl_rewrite_only": (1.0, 1.6), "kernl": (1.5, 4.4),
}  # fmt: skip
"""Implementation → how many times faster than eager it is, at least and at most."""
ARCHITECTURES = ("sm_80", "sm_86", "sm_90", "sm_100")
METRICS = ALL_METRICS["codegen"]
COLUMNS = [
    "machine", "commit", "committed_at", "suite", "op", "metric", "case", "variant", "value",
    "low", "high", "samples", "version", "status", "reason", "error", "run", "details",
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
        "details": "",
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


def model_cases(batches: tuple[int, ...], seqs: tuple[int, ...]) -> list[str]:
    """Names as the suite of models writes them; the last one is ragged too."""
    found = [f"batch{batch}_seq{seq}.fp16" for batch in batches for seq in seqs]
    return [*found, found[-1].replace(".", "_ragged.")]


def _model(model: str, case: str, commit: int) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    seeded = random.Random(f"{model} {case}")
    base = seeded.uniform(4e-3, 2e-2)
    for name, (least, most) in MODEL_IMPLEMENTATIONS.items():
        value = base / seeded.uniform(least, most)
        value *= random.Random(f"{model} {case} {name} {commit}").gauss(1, 0.01)
        reason, status = "", "ok"
        if name == "kernl" and case.startswith("batch8_seq16."):
            reason, status = "outputs are off by 2.1e-02", "skipped"
        elif name == "compile_max_autotune" and case.startswith("batch8_"):
            reason, status = "the check failed: out of memory", "failed"
        good = status == "ok"
        ends = (0.995, 1.008) if good else (math.nan, math.nan)
        found.append(
            {
                "suite": "models", "op": model, "metric": "time", "case": case, "variant": name,
                "value": value if good else math.nan, "low": value * ends[0],
                "high": value * ends[1], "status": status, "reason": reason,
                "error": 1.1e-3 * seeded.uniform(0.8, 1.2) if good else math.nan,
            }
        )  # fmt: skip
    return found


def with_models(store: Store, commits: int = 4) -> Store:
    """A store, and beside it two models on the GPU at the newest of its commits."""
    shapes = {
        "bert_base": model_cases((1, 8, 32), (16, 32, 64, 128, 256, 384, 512)),
        "whisper_base_encoder": ["batch1_seq3000.fp16"],
    }
    dates = store.rows.groupby("commit")["committed_at"].min().sort_values()[-commits:]
    rows = [
        row(machine="nvidia-h200", commit=commit, committed_at=date, **made)
        for number, (commit, date) in enumerate(dates.items())
        for model, names in shapes.items()
        for case in names
        for made in _model(model, case, number)
    ]
    both = pd.concat([store.rows, frame(rows)], ignore_index=True)
    return Store(both, store.runs, store.machines, store.problems)


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
            "memory_instructions": seeded.randint(2, 40),
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
