"""Columns that pages load: what is packed is what was measured, and names find it again."""

import base64
import json
import math
from typing import Any

import numpy as np
import pytest

from benchmarks.cases import NOT_SELECTED
from dashboards import columns, pages, shards
from dashboards.source import Source
from tests.dashboards import synthetic
from tests.dashboards.synthetic import commit_hash, row

STORE = synthetic.with_models(synthetic.store(ops=("softmax", "linear"), count=9, commits=3), 2)


def unpacked(column: dict[str, str]) -> Any:
    ((width, content),) = column.items()
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
        ): (shards.STATUSES[status], value)
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


def test_series_hold_each_time_at_its_commit(files: dict[str, bytes]) -> None:
    listed = loaded(files, "of/nvidia-h200/kernels-softmax")
    series = loaded(files, "of/nvidia-h200/kernels-softmax-0")
    assert series["cases"] == listed["cases"]
    shape = (len(series["cases"]), len(series["variants"]), len(series["commits"]))
    value = unpacked(series["value"]).reshape(shape)
    for one in STORE.rows.to_dict("records"):
        if (one["suite"], one["op"]) == ("kernels", "softmax"):
            place = (
                series["cases"].index(one["case"]),
                series["variants"].index(one["variant"]),
                [commit_hash(n) for n in series["commits"]].index(one["commit"]),
            )
            assert value[place] == pytest.approx(one["value"], rel=1e-6, nan_ok=True)


def test_many_cases_are_cut_into_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "POINTS_A_PART", 20)
    files = dict(shards.files(Source.of(STORE), {}, lambda machine, name: {}))
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


def test_the_last_word_passes_over_what_no_run_asked_for() -> None:
    rows = synthetic.frame(
        [
            row(value=1e-6, samples=(1e-6, 1.1e-6), error=1e-4),
            row(commit=commit_hash(1), value=math.nan, status="skipped", reason=NOT_SELECTED),
            row(variant="eager", value=2e-6),
            row(variant="eager", commit=commit_hash(1), value=math.nan, status="failed",
                reason="out of memory"),
        ]
    )  # fmt: skip
    places = {commit_hash(0): 0, commit_hash(1): 1}
    found = shards.of_cases(
        rows, ["rows8_cols8.fp16"], ["kernl", "eager"], list(places), places, {}
    )
    kernl, eager = found["last"][0]
    assert (kernl["commit"], kernl["status"], kernl["samples"]) == (0, "ok", [1e-6, 1.1e-6])
    assert kernl["error"] == pytest.approx(1e-4)
    assert (eager["commit"], eager["reason"]) == (1, "out of memory")


def test_moves_and_changes_of_libraries_go_along() -> None:
    marks = {"rows8_cols64.bf16": {commit_hash(2): "+9 %, open"}}
    files = dict(shards.files(Source.of(STORE), {}, lambda machine, name: marks))
    listed = loaded(files, "of/nvidia-h200/kernels-softmax")
    moved = dict(zip(listed["cases"], listed["moves"], strict=True))
    assert {case for case, moves in moved.items() if moves} <= set(marks)
    machines = {one["name"]: one for one in loaded(files, "commits")["machines"]}
    assert machines["nvidia-h200"]["changes"]["kernels"] == []
