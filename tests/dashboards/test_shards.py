"""Columns that pages load: what is packed is what was measured, and names find it again."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.asv_file import STATUSES
from benchmarks.cases import NOT_SELECTED
from benchmarks.gate.findings import SAME
from dashboards import pages
from dashboards.data import evidence
from dashboards.data.source import Source
from dashboards.loaded import columns, series_files, shards
from tests.dashboards import synthetic
from tests.dashboards.synthetic import commit_hash, row

STORE = synthetic.with_models(synthetic.store(ops=("softmax", "linear"), count=9, commits=3), 2)


def unpacked(column: dict[str, str] | columns.Written) -> Any:
    found = json.loads(column.content) if isinstance(column, columns.Written) else column
    ((width, content),) = found.items()
    return np.frombuffer(base64.b64decode(content), columns.WIDTHS[width])


def loaded(files: dict[str, bytes], name: str) -> Any:
    told, value = (
        files[f"data/{name}.js"]
        .decode()
        .removeprefix("KERNL_DATA(")
        .removesuffix(");\n")
        .split(",", 1)
    )
    assert json.loads(told) == name
    return json.loads(value)


def written(source: Source, moved: dict[str, dict[str, str]] | None = None) -> dict[str, bytes]:
    """The files, where the cases of every operator and model moved as is said."""
    lists = shards.series_lists(source, lambda machine, name: moved or {})
    parts = (part() for part in shards.series(source))
    found = chain(shards.files(source, {}), lists, *parts)
    return {name: content for name, content in found if isinstance(content, bytes)}


def source_of(*rows: dict[str, object], runs: Sequence[Mapping[str, object]] = ()) -> Source:
    frame = synthetic.frame(list(rows))
    frame["clock"] = [one.get("clock", math.nan) for one in rows]
    return Source.of(synthetic.Store(frame, synthetic.runs_frame([dict(one) for one in runs])))


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return pages.files(Source.of(STORE))


def test_columns_come_back_as_they_were() -> None:
    values = [0.0, 1.5, math.nan, 1e-6, math.inf]
    assert np.array_equal(
        unpacked(columns.packed(values, "f32")), np.asarray(values, np.float32), equal_nan=True
    )
    assert list(unpacked(columns.packed([0, 70_000], "u32"))) == [0, 70_000]
    assert len(unpacked(columns.packed([], "u8"))) == 0


@pytest.mark.parametrize(("values", "width"), [([256], "u8"), ([-1], "u32"), ([1], "i8")])
def test_what_does_not_fit_is_refused(values: list[int], width: str) -> None:
    with pytest.raises(ValueError, match="allowed" if width == "i8" else "does not fit"):
        columns.packed(values, width)


def test_every_point_of_a_commit_is_found_by_its_number(files: dict[str, bytes]) -> None:
    rows = STORE.rows[(STORE.rows["suite"] == "kernels") & (STORE.rows["commit"] == commit_hash(1))]
    points, at = loaded(files, "points-kernels"), loaded(files, "at/nvidia-h200/kernels-1")
    of = unpacked(points["of"])
    number = unpacked(at["point"])
    variants = len(points["variants"])
    found = {
        (
            points["names"][of[one // variants]],
            points["cases"][one // variants],
            points["variants"][one % variants],
        ): (STATUSES[status], value)
        for one, status, value in zip(
            number, unpacked(at["status"]), unpacked(at["value"]), strict=True
        )
    }
    expected = {
        (one["op"], one["case"], one["variant"]): (one["status"], one["value"])
        for one in rows.to_dict("records")
    }
    assert found.keys() == expected.keys()
    for key, (status, value) in expected.items():
        assert found[key][0] == status
        assert found[key][1] == pytest.approx(value, nan_ok=True)


def test_what_a_point_was_measured_with_goes_along() -> None:
    """Its interval, its version, why it has no value, and what was the same of its run."""
    sides = {"gpu": "H200", "driver": "1", "torch": "2", "triton": "3"}
    runs = ({"run": "r", "machine": "nvidia-h200", "commit": commit_hash(0), **sides},)
    rows = [
        row(run="r", value=1e-6, low=0.9e-6, high=1.2e-6, version="7"),
        row(run="gone", variant="eager", value=2e-6, version="8"),
        row(variant="compile", value=3e-6, status="failed", reason=f"no\n{'x' * 999}"),
    ]
    at = loaded(written(source_of(*rows, runs=runs)), "at/nvidia-h200/kernels-0")
    assert list(unpacked(at["point"])) == [0, 1, 2]
    words = [
        [at[many][place] for place in unpacked(at[one]).tolist()]
        for one, many in (("print", "prints"), ("version", "versions"), ("reason", "reasons"))
    ]
    nothing = dict.fromkeys(SAME["kernels"], "")
    assert words[0] == [sides, nothing, nothing]
    assert words[1] == ["7", "1", "8"]  # kernl first, eager last
    assert words[2] == ["", f"no {'x' * 156}…", ""]
    assert [STATUSES[one] for one in unpacked(at["status"])] == ["ok", "failed", "ok"]
    for name, expected in (
        ("value", [1e-6, math.nan, 2e-6]),
        ("low", [0.9e-6, math.nan, math.nan]),
        ("high", [1.2e-6, math.nan, math.nan]),
    ):
        assert unpacked(at[name]) == pytest.approx(expected, nan_ok=True)


def test_evidence_is_kept_in_full() -> None:
    draw = np.random.default_rng(2)
    made: dict[str, list[tuple[float, ...]]] = {}
    rows = []
    for number in draw.permutation(12):
        case = f"rows{number}.fp16"
        made[case] = [tuple((1e-5 * np.exp(draw.normal(0, 0.01, 20))).tolist()) for _ in range(2)]
        for variant, samples in zip(("kernl", "eager"), made[case], strict=True):
            rows.append(row(case=case, variant=variant, samples=samples, run="r"))
    rows.append(row(case="broken.fp16", status="failed", samples=made["rows1.fp16"][0]))
    files = written(source_of(*rows))
    points = loaded(files, "points-kernels")
    found = loaded(files, "at/nvidia-h200/kernels-0")["evidence"]
    number = unpacked(found["point"])
    assert [points["variants"][one % 2] for one in number] == ["kernl"] * 12
    assert [points["cases"][one // 2] for one in number] == [f"rows{n}.fp16" for n in range(12)]
    names = {"residualMean": "residual_mean", "residualVariance": "residual_variance"}
    names |= {"residualSpread": "residual_spread"}
    assert set(found) - {"point"} == {"count", "mean", "variance", "spread", *names}
    for name in set(found) - {"point"}:
        expected = [
            getattr(evidence.of_samples(*made[f"rows{n}.fp16"]), names.get(name, name))
            for n in range(12)
        ]
        assert unpacked(found[name]).tolist() == expected, name


@pytest.mark.parametrize(
    ("machine", "suite", "op"),
    [
        ("nvidia-h200", "kernels", "softmax"),
        ("nvidia-h200", "models", "bert_base"),
        ("compile-only", "codegen", "linear"),
    ],
)
def test_series_hold_each_value_at_its_commit(
    files: dict[str, bytes], machine: str, suite: str, op: str
) -> None:
    listed = loaded(files, f"of/{machine}/{suite}-{op}")
    series = loaded(files, f"of/{machine}/{suite}-{op}-0")
    assert series["cases"] == listed["cases"]
    axes = ("cases", "variants", "metrics", "commits")
    shape = tuple(len(series[name]) for name in axes)
    names = ("value",) if suite == "codegen" else ("value", "low", "high")
    assert set(names) == {"value", "low", "high"} & set(series)
    grids = {name: unpacked(series[name]).reshape(shape) for name in names}
    commits = [commit_hash(n) for n in range(3)]
    seen = 0
    for one in STORE.rows.to_dict("records"):
        if (one["machine"], one["suite"], one["op"]) == (machine, suite, op):
            place = (
                series["cases"].index(one["case"]),
                series["variants"].index(one["variant"]),
                series["metrics"].index(one["metric"]),
                [commits[n] for n in series["commits"]].index(one["commit"]),
            )
            for name, grid in grids.items():
                assert grid[place] == pytest.approx(one[name], rel=1e-6, nan_ok=True)
            seen += 1
    assert seen == grids["value"].size


def test_series_have_nothing_where_a_commit_measured_nothing() -> None:
    rows = [
        row(value=1e-6),
        row(case="rows9.fp16", variant="eager", value=2e-6, low=1e-6, high=3e-6, status="failed"),
        row(commit=commit_hash(1), variant="eager", value=3e-6),
        row(commit=commit_hash(2), op="linear"),
    ]
    dated = [{**one, "committed_at": f"2026-01-0{at}"} for at, one in enumerate(rows, 1)]
    series = loaded(written(source_of(*dated)), "of/nvidia-h200/kernels-softmax-0")
    assert series["cases"] == ["rows8_cols8.fp16", "rows9.fp16"]
    assert series["variants"] == ["kernl", "eager"]
    assert series["commits"] == [0, 1]
    values = unpacked(series["value"]).reshape(2, 2, 1, 2)
    expected = np.full(values.shape, np.nan)
    expected[0, 0, 0, 0], expected[0, 1, 0, 1] = 1e-6, 3e-6
    assert values == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_many_cases_are_cut_into_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_files, "POINTS_A_PART", 20)
    files = written(Source.of(STORE))
    listed = loaded(files, "of/nvidia-h200/kernels-linear")
    parts = [name for name in files if name.startswith("data/of/nvidia-h200/kernels-linear-")]
    assert listed["size"] == 2
    assert len(parts) == math.ceil(len(listed["cases"]) / 2)
    joined = [
        case
        for at in range(len(parts))
        for case in loaded(files, f"of/nvidia-h200/kernels-linear-{at}")["cases"]
    ]
    assert joined == listed["cases"]
    monkeypatch.setattr(series_files, "POINTS_A_PART", 1)  # less than one case has
    alone = written(Source.of(STORE))
    assert loaded(alone, "of/nvidia-h200/kernels-linear")["size"] == 1
    last = len(joined) - 1
    assert loaded(alone, f"of/nvidia-h200/kernels-linear-{last}")["cases"] == joined[-1:]


def test_each_part_has_the_words_of_its_own_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(case=f"rows{n}.fp16", value=1e-6, error=n / 100) for n in range(5)]
    before = [row(op="attention", case=f"rows{n}.fp16", error=0.5) for n in range(3)]
    whole = written(source_of(*before, *rows))
    name = "of/nvidia-h200/kernels-softmax"
    words = loaded(whole, f"{name}-0")["last"]
    assert [one["error"] for (one,) in words] == [n / 100 for n in range(5)]
    monkeypatch.setattr(series_files, "POINTS_A_PART", 2)
    cut = written(source_of(*before, *rows))
    assert [loaded(cut, f"{name}-{at}")["last"] for at in range(3)] == [
        words[:2], words[2:4], words[4:],
    ]  # fmt: skip


def test_the_last_word_passes_over_what_no_run_asked_for() -> None:
    rows = [
        row(value=1e-6, samples=(1e-6, 1.1e-6), error=1e-4),
        row(commit=commit_hash(1), value=math.nan, status="skipped", reason=NOT_SELECTED),
        row(variant="eager", value=2e-6),
        row(variant="eager", commit=commit_hash(1), value=math.nan, status="failed",
            reason="out of memory"),
    ]  # fmt: skip
    dated = [{**one, "committed_at": f"2026-01-0{1 + at % 2}"} for at, one in enumerate(rows)]
    found = loaded(written(source_of(*dated)), "of/nvidia-h200/kernels-softmax-0")
    assert found["variants"] == ["kernl", "eager"]
    kernl, eager = found["last"][0]
    assert (kernl["commit"], kernl["status"], kernl["samples"]) == (0, "ok", [1e-6, 1.1e-6])
    assert kernl["error"] == pytest.approx(1e-4)
    assert (eager["commit"], eager["reason"]) == (1, "out of memory")
    assert (eager["error"], eager["clock"], eager["samples"]) == (None, None, [])


def test_the_last_word_is_nothing_where_nothing_was_said() -> None:
    unasked = {"value": math.nan, "status": "skipped", "reason": NOT_SELECTED}
    rows = [row(value=1e-6), row(variant="eager", **unasked), row(case="b.fp16", **unasked)]
    rows += [row(case="b.fp16", variant="eager", value=math.nan, status="skipped", reason="why")]
    found = loaded(written(source_of(*rows)), "of/nvidia-h200/kernels-softmax-0")
    cases = dict(zip(found["cases"], found["last"], strict=True))
    assert cases["rows8_cols8.fp16"][1] is None
    assert cases["b.fp16"][0] is None
    assert (cases["b.fp16"][1]["status"], cases["b.fp16"][1]["reason"]) == ("skipped", "why")


def test_the_last_word_has_its_run_s_facts_and_each_run_stands_once() -> None:
    started = pd.Timestamp("2026-01-01 09:00:01.5", tz="UTC")
    known = {"machine": "nvidia-h200", "commit": commit_hash(0), "started_at": started}
    runs = (
        {"run": "r1", **known, "gpu": "H200", "torch": "2.11"},
        {"run": "r2", **known, "gpu": "H200", "torch": "2.12"},
        {"run": "r3", **known, "gpu": "of no point"},
    )
    rows = [
        row(run="r2", clock=1979.6),
        row(run="r1", variant="eager"),
        row(run="r2", case="b.fp16"),
        row(run="gone", variant="eager", case="b.fp16"),
    ]
    found = loaded(written(source_of(*rows, runs=runs)), "of/nvidia-h200/kernels-softmax-0")
    cases = dict(zip(found["cases"], found["last"], strict=True))
    facts = {
        (case, variant): found["runs"][one["run"]]
        for case, words in cases.items()
        for variant, one in zip(found["variants"], words, strict=True)
    }
    shared = {"gpu": "H200", "started_at": "2026-01-01 09:00:01 UTC"}
    assert facts == {
        ("rows8_cols8.fp16", "kernl"): {**shared, "torch": "2.12"},
        ("rows8_cols8.fp16", "eager"): {**shared, "torch": "2.11"},
        ("b.fp16", "kernl"): {**shared, "torch": "2.12"},
        ("b.fp16", "eager"): {},
    }
    assert len(found["runs"]) == 3
    assert cases["rows8_cols8.fp16"][0]["clock"] == 1980


def test_moves_and_changes_of_libraries_go_along() -> None:
    marks = {"rows8_cols64.bf16": {commit_hash(2): "+9 %, open"}}
    files = written(Source.of(STORE), marks)
    listed = loaded(files, "of/nvidia-h200/kernels-softmax")
    moved = dict(zip(listed["cases"], listed["moves"], strict=True))
    assert {case for case, moves in moved.items() if moves} <= set(marks)
    machines = {one["name"]: one for one in loaded(files, "commits")["machines"]}
    assert machines["nvidia-h200"]["changes"]["kernels"] == []
