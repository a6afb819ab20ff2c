"""The machines page: what each run was measured on, and how much noise there is."""

import math

import pandas as pd

from dashboards import text
from dashboards.data.frames import records
from dashboards.data.source import Source
from dashboards.tabular import noise
from dashboards.tabular.noise import NoiseView
from dashboards.tabular.tables import Table, word


def runs(source: Source) -> dict[str, tuple[dict[str, str], Table, NoiseView]]:
    """Machine → what asv knows of it, its runs newest first with their fingerprints, its noise."""
    hidden = {"machine", "commit", "run", "started_at", "suite", "gpu_id"}
    subjects = {commit.id: commit for commit in source.commits}
    measured = {machine for machine, _ in source.kept}
    recorded = {*source.runs["machine"], *measured, *source.noise}
    names = sorted({*source.machines, *recorded})
    found = {}
    for name in names:
        runs = source.runs[source.runs["machine"] == name]
        runs = runs.sort_values(["started_at", "run"], ascending=False, kind="stable")
        keys = [k for k in runs.columns if k not in hidden and any(_fact(v) for v in runs[k])]
        body = []
        for row in records(runs):
            commit = subjects.get(row["commit"])
            label = commit.label if commit else str(row["commit"])[:8]
            cells = [word(_moment(row["started_at"])), word(label, 100)]
            body.append((*cells, *(word(_fact(row[key]), 60) for key in keys)))
        table = Table(("Started (UTC)", "Commit", *(_heading(key) for key in keys)), tuple(body))
        found[name] = (source.machines.get(name, {}), table, noise.view(source, name))
    return found


def _moment(value: object) -> str:
    """A time stamp to the second, in UTC; foreign text as it is."""
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return text.short(value, 40)


def _fact(value: object) -> str:
    """A fingerprint value in words; large numbers with a scale, missing ones empty."""
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    if isinstance(value, (int, float)) and abs(value) >= 1e6:
        scales = ((1e12, "T"), (1e9, "G"), (1e6, "M"))
        return next(f"{value / s:.4g} {letter}" for s, letter in scales if abs(value) >= s)
    return f"{value:g}" if isinstance(value, float) else text.clean(value)


def _heading(key: str) -> str:
    units = {
        "memory_bytes": "memory, bytes",
        "l2_bytes": "L2, bytes",
        "copy_bytes_per_s": "copy, bytes/s",
        "fp16_flops_per_s": "fp16, FLOP/s",
        "bf16_flops_per_s": "bf16, FLOP/s",
        "fp32_flops_per_s": "fp32, FLOP/s",
        "tf32_flops_per_s": "tf32, FLOP/s",
        "sm_count": "SMs",
    }
    return units.get(key, text.short(key, 40))
