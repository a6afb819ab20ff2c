"""What the compile-only gate says of changes planted in a kernel: each in the right words."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.asv_file import METRICS
from benchmarks.gate.report import Report, group, sentence
from tests.suite.gate_rows import BASE, HEAD, Row, count, gate
from tests.suite.test_codegen import ROOT, measured, task

SOFTMAX = ("softmax", "rows4608_cols384.fp16")
LAYER_NORM = ("layer_norm", "rows2_cols16384_bias.fp16")
PRODUCTS = ("batched_matmul", "batch96_m128_n128_k64_transposed.fp16")
ARCHITECTURES = ("sm_80", "sm_86", "sm_90", "sm_100")


def _rows(commit: str, values: dict[str, float], **which: Any) -> list[Row]:
    assert values.keys() == set(METRICS["codegen"])
    return [count(commit, value, metric=metric, **which) for metric, value in values.items()]


def judged(case: tuple[str, str], file: str, changes: dict[str, str], directory: Path) -> Report:
    """The gate's report on a change of one file of kernl, on every architecture."""
    code = directory / "code"
    shutil.copytree(ROOT / "kernl", code / "kernl", ignore=shutil.ignore_patterns("__pycache__"))
    path = code / "kernl" / "ops" / file
    source = path.read_text(encoding="utf-8")
    for right, wrong in changes.items():
        source, times = re.subn(right, wrong, source)
        assert times
    path.write_text(source, encoding="utf-8")
    tasks = [task(*case, architecture) for architecture in ARCHITECTURES]
    rows = []
    for commit, where in ((BASE, ROOT), (HEAD, code)):
        found = measured(tasks, directory / commit[:1], where)
        for one, outcome in zip(tasks, found, strict=True):
            assert outcome["status"] == "ok", outcome["reason"]
            which = {"op": one.op, "case": one.case, "variant": one.architecture}
            rows += _rows(commit, outcome["values"], **which)
    return gate(*rows, suite="codegen")


def said(report: Report, metric: str) -> str:
    """The gate's sentence about one metric that became worse."""
    worse = [one for one in report.findings if one.outcome == "regressed"]
    return " ".join(sentence(each) for each in group(worse) if each.first.key.metric == metric)


def test_register_pressure_is_red(tmp_path: Path) -> None:
    """One program is asked to hold sixteen times as much of a row."""
    right = r"16 if block_cols <= 16384 else 32"
    report = judged(LAYER_NORM, "rows.py", {right: "1"}, tmp_path)
    assert report.exit_code == 1
    assert re.search(
        r"registers \d+ → \d{3} \(.*more than before: fewer warps", said(report, "registers")
    )
    assert re.search(
        r"spills 0 → \d{3,} \(from 0\), more than before: a thread keeps", said(report, "spills")
    )


def test_a_lost_vectorised_load_is_red(tmp_path: Path) -> None:
    """Neighbours change places, so that no thread's elements lie in a row."""
    right = re.escape("col_offs[None, :] * stride_x_col\n    # fmt: off\n    x = block_of_scores(")
    wrong = "(col_offs ^ 1)[None, :] * stride_x_col\n    # fmt: off\n    x = block_of_scores("
    report = judged(SOFTMAX, "softmax.py", {right: wrong}, tmp_path)
    assert report.exit_code == 1
    told = re.findall(
        r"memory instructions (\d+) → (\d+) .*?: vectors fall apart",
        said(report, "memory_instructions"),
    )
    assert told
    assert all(int(after) >= 3 * int(before) for before, after in told)
    assert not said(report, "shared_memory")


def test_a_grown_tile_is_red(tmp_path: Path) -> None:
    right = re.escape('"BLOCK_K": config.block_k,')
    wrong = '"BLOCK_K": 2 * config.block_k,'
    report = judged(PRODUCTS, "batched_matmul.py", {right: wrong}, tmp_path)
    assert report.exit_code == 1
    assert re.search(
        r"shared memory \d+ → \d+ bytes \(\+100 %\), more than before: a tile",
        said(report, "shared_memory"),
    )


def test_renamed_variables_are_green(tmp_path: Path) -> None:
    renamed = {r"\brow_max\b": "largest", r"\bnumerator\b": "above", r"\brow_offs\b": "of_rows"}
    report = judged(SOFTMAX, "softmax.py", renamed, tmp_path)
    assert report.exit_code == 0, report.verdict
    assert {one.outcome for one in report.findings} == {"pass"}
    assert len(report.findings) == len(ARCHITECTURES) * len(METRICS["codegen"])


@pytest.mark.parametrize(
    ("opcode", "counts"),
    [
        ("LDG.E.128", True), ("STG.E.U16", True), ("LDGSTS.E.BYPASS.128", True),
        ("RED.E.ADD", True),
        ("REDG.E.ADD.F32.FTZ.RN.STRONG.GPU", True), ("ATOMG.E.ADD", True), ("UTMALDG.2D", True),
        ("UBLKCP.S.G", True), ("REDUX.MAX.S32", False), ("LDS.128", False), ("LDL.64", False),
        ("ATOMS.ADD", False), ("LDSM.16.M88.4", False), ("UTMAPF.L2.2D", False),
    ],
)  # fmt: skip
def test_what_touches_device_memory(opcode: str, counts: bool) -> None:
    from benchmarks.measure import codegen

    assert (codegen._DEVICE_MEMORY.match(opcode) is not None) == counts
