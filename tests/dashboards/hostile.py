"""A store in which every string is an attack."""

import pandas as pd

from tests.dashboards import synthetic
from tests.dashboards.synthetic import Problem, Store, row

ATTACKS = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    '"onload="alert(3)',
    "'><svg/onload=alert(4)>",
    "../../x",
    "/etc/passwd",
    "..\\..\\x",
    "a\nb\r\nc",
    "a\u2028b\u2029c\u202ed",
    "\ud800 alone",
    "{{ 7 * 7 }}{% include 'x' %}",
    "%{y}<a href='javascript:alert(5)'>x</a>",
    "javascript:alert(6)",
    "x" * 20_000,
    "",
    ".",
    "CON",
    "__proto__",
    "constructor",
)


def _run(attack: str) -> dict[str, object]:
    return {key: attack for key in synthetic.RUN_COLUMNS}  # noqa: C420 - the values' type widens


def store() -> Store:
    rows = []
    for number, attack in enumerate(ATTACKS):
        shared = {
            "op": attack, "case": attack, "machine": attack, "reason": attack, "version": attack,
            "committed_at": pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(days=number),
            "commit": attack,
        }  # fmt: skip
        rows += [
            row(**shared, variant="eager", value=2e-6),
            row(**shared, variant=attack, value=1e-6),
            row(**{**shared, "case": "loss.fp16"}, variant="kernl", value=3e-6),
            row(**{**shared, "case": "loss.fp16"}, variant="eager", value=1e-6),
            row(**shared, suite="codegen", metric="registers", variant=attack, value=40),
            row(**shared, suite="codegen", metric=attack, variant=attack, value=40),
        ]
        rows += [
            row(**shared, suite="models", variant="eager", value=2e-3),
            row(**shared, suite="models", variant=attack, value=1e-3),
            row(**shared, suite="models", variant="kernl", value=3e-3),
        ]
        for shape in ("batch1_seq8", "batch1_seq16", "batch2_seq8"):
            of_model = {**shared, "suite": "models", "case": f"{shape}_{attack}.x"}
            rows.append(row(**of_model, variant=attack, value=1e-3))
            rows.append(row(**of_model, variant="kernl", value=2e-3))
        failed = {**shared, "case": f"{attack} failed", "value": float("nan"), "status": "failed"}
        rows.append(row(**failed))
    runs = [_run(attack) for attack in ATTACKS]
    return Store(
        synthetic.frame(rows),
        synthetic.runs_frame(runs),
        {attack: {attack: attack} for attack in ATTACKS},
        [Problem(attack, attack) for attack in ATTACKS],
    )
