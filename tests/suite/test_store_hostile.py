"""The store against files that nobody should write: each costs itself alone, in words."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks import store
from benchmarks.sidecar import NUMBER_KEYS
from tests.suite.asv_results import (
    CASES,
    COMMIT,
    MACHINE,
    OTHER,
    SOFTMAX,
    edit,
    problem,
    set_cell,
    write_machine,
    write_results,
)


def cells(rows: pd.DataFrame, column: str) -> dict[tuple[str, str], Any]:
    keys = zip(rows["case"], rows["variant"], strict=True)
    return dict(zip(keys, rows[column], strict=True))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def sound(results: Path) -> Path:
    """One sound file, and beside it the file that a test spoils."""
    write_results(results, {SOFTMAX: [1.0, 2.0, 3.0, 4.0]}, commit=OTHER)
    return write_results(results, {SOFTMAX: [5.0, 6.0, 7.0, 8.0]})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ('{"version": 2, "results"', "not valid JSON"),
        ("\x00\x01", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("9" * 5000, "not valid JSON"),
        ("[1, 2]", "a JSON list where an object is expected"),
        ('{"name": "somebody else\'s"}', "format version None"),
        ('{"version": 1}', "format version 1 where 2 is expected"),
        ('{"version": "2"}', "format version '2'"),
        ('{"version": true}', "format version True"),
        ('{"version": 2}', "commit_hash None is not a full"),
    ],
)
def test_a_file_that_is_no_result_costs_itself_alone(sound: Path, text: str, words: str) -> None:
    sound.write_text(text)
    found = store.load(sound.parents[1])
    assert words in problem(found)
    assert found.problems[0].path == f"toy/{sound.name}"
    assert set(found.rows["commit"]) == {OTHER}
    assert len(found.rows) == 4


def test_a_file_in_another_encoding_costs_itself_alone(sound: Path) -> None:
    sound.write_bytes('{"version": 2, "é": 1}'.encode("latin-1"))
    assert "not valid JSON" in problem(store.load(sound.parents[1]))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("commit_hash", "../../../../etc/passwd", "is not a full hexadecimal commit hash"),
        ("commit_hash", "0123456789ABCDEF0123456789ABCDEF01234567", "is not a full hexadecimal"),
        ("commit_hash", 12, "commit_hash 12 is not"),
        ("commit_hash", OTHER, "which is not the one in its name"),
        ("date", "yesterday", "date 'yesterday' is not a time"),
        ("date", 10**18, "is not a time"),
        ("date", -1, "is not a time"),
        ("date", True, "is not a time"),
        ("params", {"machine": "../elsewhere"}, "measured on machine '../elsewhere'"),
        ("params", [], "measured on machine a JSON list"),
        ("result_columns", ["result"], "does not name the columns"),
        ("result_columns", 3, "does not name the columns"),
        ("results", [], "results is a JSON list"),
    ],
)
def test_a_wrong_head_costs_the_file(sound: Path, key: str, value: Any, words: str) -> None:
    edit(sound, lambda content: content.update({key: value}))
    found = store.load(sound.parents[1])
    assert words in problem(found)
    assert set(found.rows["commit"]) == {OTHER}


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("result", [1.0, 2.0], "2 entries, but its params make 4 cases"),
        ("result", "slow", "'slow', but its params make 4 cases"),
        ("result", 3.0, "but its params make 4 cases"),
        ("params", None, "not two lists"),
        ("params", [["'a'"]], "not two lists"),
        ("params", [["'rows1_cols2.fp16'"], [1]], "not lists of strings"),
        ("params", [["'rows1_cols2.fp16'"] * 2, ["'eager'", "'kernl'"]], "twice"),
        ("params", [[str(i) for i in range(2000)]] * 2, "more than 1000000 cases"),
        ("version", 3, "its version 3 is not a string"),
        ("stats_ci_99_a", [1.0], "1 entries, but its params make 4 cases"),
        ("stats_ci_99_b", {}, "but its params make 4 cases"),
        ("samples", "none", "but its params make 4 cases"),
    ],
)
def test_a_wrong_column_costs_its_op_alone(
    sound: Path, column: str, value: Any, words: str
) -> None:
    def change(content: dict[str, Any]) -> None:
        content["results"]["kernels.Gelu.track_time"] = list(content["results"][SOFTMAX])
        set_cell(column, value)(content)

    edit(sound, change)
    found = store.load(sound.parents[1])
    assert words in problem(found)
    assert SOFTMAX in problem(found)
    ours = found.rows[found.rows["commit"] == COMMIT]
    assert ours["op"].tolist() == ["gelu"] * 4


def test_a_row_that_is_no_list_costs_itself_alone(sound: Path) -> None:
    edit(sound, lambda content: content["results"].update({SOFTMAX: {"result": 1}}))
    assert "its row is a JSON dict" in problem(store.load(sound.parents[1]))


def test_values_that_cannot_be_true_count_as_failed(sound: Path) -> None:
    edit(sound, set_cell("result", [math.inf, -1.0, "7", 7.0]))
    found = store.load(sound.parents[1])
    assert "3 value(s)" in problem(found)
    rows = found.rows[found.rows["commit"] == COMMIT]
    assert rows["status"].tolist() == ["failed"] * 3 + ["ok"]
    assert rows["reason"].tolist() == [
        "the stored value inf cannot be true",
        "the stored value -1.0 cannot be true",
        "the stored value '7' cannot be true",
        "",
    ]
    assert rows["value"].tolist()[3] == 7.0


def test_odd_statistics_are_unknown_and_cost_nothing(sound: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        set_cell("stats_ci_99_a", ["1", math.nan, -math.inf, 10**400])(content)
        set_cell("stats_ci_99_b", [True, None, math.inf, 9.0])(content)
        set_cell("samples", [["1"], [1.0, math.nan], 5, [10**400]])(content)
        set_cell("started_at", "noon")(content)

    edit(sound, change)
    found = store.load(sound.parents[1])
    assert found.problems == []
    rows = found.rows[found.rows["commit"] == COMMIT]
    assert rows["value"].tolist() == [5.0, 6.0, 7.0, 8.0]
    assert rows["low"].isna().all()
    assert rows["high"].isna().tolist() == [True, True, True, False]
    assert rows["samples"].tolist() == [()] * 4


def test_unknown_names_and_cases_are_counted_once_a_file(sound: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        row = content["results"][SOFTMAX]
        for name in ("foo.Bar.time_it", "kernels.Softmax.track_registers", "../../evil"):
            content["results"][name] = row
        row[content["result_columns"].index("params")][0][0] = "'../../rows.fp16'"

    edit(sound, change)
    found = store.load(sound.parents[1])
    reasons = [entry.reason for entry in found.problems]
    assert len(reasons) == 2
    assert any("3 benchmark(s)" in reason and "foo.Bar.time_it" in reason for reason in reasons)
    assert any("2 case(s) left out" in reason for reason in reasons)
    ours = found.rows[found.rows["commit"] == COMMIT]
    assert cells(ours, "value") == {(CASES[1], "eager"): 7.0, (CASES[1], "kernl"): 8.0}


def test_hundreds_of_broken_rows_do_not_flood_the_problems(sound: Path) -> None:
    broken: dict[str, list[Any]] = {f"kernels.Op{i}.track_time": [] for i in range(500)}
    edit(sound, lambda content: content["results"].update(broken))
    found = store.load(sound.parents[1])
    assert len(found.problems) == 21
    assert found.problems[-1].reason == "480 more problems of this kind"


def test_senseless_figures_of_a_run_are_unknown(sound: Path) -> None:
    senseless = (10**400, -1, "4.2e12", None, [1], True, math.nan, math.inf)
    runs = [
        {"kind": "run", "id": f"{place}", "commit": COMMIT, "machine": MACHINE,
         "fingerprint": dict.fromkeys(NUMBER_KEYS, value)}
        for place, value in enumerate(senseless)
    ]  # fmt: skip
    point: dict[str, object] = {
        "kind": "point", "suite": "kernels", "op": "softmax", "run": "0", "status": "ok",
        "case": CASES[0], "variant": "kernl", "error": 10**400,
    }  # fmt: skip
    text = "\n".join(json.dumps(record) for record in [*runs, point])
    sound.with_suffix(".points.jsonl").write_text(text)
    found = store.load(sound.parents[1])
    assert found.problems == []
    assert len(found.runs) == len(senseless)
    assert found.runs[list(NUMBER_KEYS)].isna().all(axis=None)
    assert found.rows["error"].isna().all()


def test_links_out_of_the_directory_are_not_followed(results: Path, tmp_path: Path) -> None:
    inside = write_results(results, {SOFTMAX: [1.0] * 4})
    outside = write_results(tmp_path / "outside", {SOFTMAX: [2.0] * 4}, commit=OTHER)
    (results / "linked").symlink_to(outside.parent)
    (inside.parent / outside.name).symlink_to(outside)
    journal = outside.with_suffix(".points.jsonl")
    journal.write_text("")
    (inside.parent / journal.name).symlink_to(journal)
    (results / "described").mkdir()
    (results / "described" / "machine.json").symlink_to(outside.parent / "machine.json")
    (inside.parent / f"{OTHER[:8]}-loop.json").symlink_to(f"{OTHER[:8]}-loop.json")
    found = store.load(results)
    assert found.rows["value"].unique().tolist() == [1.0]
    assert len(found.problems) == 5
    assert all("leads out of the results directory" in entry.reason for entry in found.problems)
    assert set(found.machines) == {MACHINE}


def test_special_files_are_not_opened(sound: Path) -> None:
    sound.unlink()
    os.mkfifo(sound)
    (sound.parent / f"{OTHER[:8]}-directory.json").mkdir()
    found = store.load(sound.parents[1])
    assert len(found.problems) == 2
    assert all("not a regular file" in entry.reason for entry in found.problems)


@pytest.mark.parametrize(
    "content", ["", "{", '{"machine": "toy"}', '{"version": 1, "machine": "../toy"}', None]
)
def test_a_machine_without_a_sound_description_is_left_out(
    sound: Path, content: str | None
) -> None:
    description = sound.parent / "machine.json"
    description.unlink()
    if content is not None:
        description.write_text(content)
    found = store.load(sound.parents[1])
    assert "all of toy is left out" in problem(found)
    assert found.rows.empty
    assert dict(found.rows.dtypes.astype(str)) == store.ROW_TYPES


def test_a_machine_with_a_hostile_name_is_left_out(results: Path) -> None:
    write_machine(results, "<script>")
    found = store.load(results)
    assert "not a plain file name" in problem(found)
    assert found.machines == {}


def test_problems_are_warned_about(sound: Path, caplog: pytest.LogCaptureFixture) -> None:
    sound.write_text("")
    store.load(sound.parents[1])
    assert f"toy/{sound.name}: the file is empty" in caplog.text
