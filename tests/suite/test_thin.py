"""Result files lose statistics that are nearly all null, and say all else as before."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from asv.results import Results

from benchmarks import asv_file, store
from benchmarks.measure.journal import Journal
from benchmarks.thin import main, thin
from tests.suite.asv_results import COMMIT, MACHINE, OTHER, SOFTMAX, edit, set_cell, write_results

CASES = [f"rows{number}_cols2.fp16" for number in range(40)]
VARIANTS = ["eager", "compile", "liger", "kernl"]
NORM = "kernels.LayerNorm.track_time"
SAMPLES = [0.5, 0.5, 0.625, 0.5, 0.5625, 0.5, 0.5]


def grid(*values: float | None) -> list[float | None]:
    """A benchmark of which the first places have these results; the rest was left out."""
    return [*values, *[math.nan] * (len(CASES) * len(VARIANTS) - len(values))]


def written(results: Path, *, commit: str = COMMIT, **values: list[float | None] | None) -> Path:
    """Numbers have samples, hence statistics."""
    named = {SOFTMAX if name == "softmax" else NORM: column for name, column in values.items()}
    samples = {
        name: [SAMPLES if asv_file.is_number(value) else None for value in column or ()]
        for name, column in named.items()
    }
    return write_results(
        results, named, commit=commit, samples=samples, cases=CASES, variants=VARIANTS
    )


def stats(path: Path, name: str) -> list[Any]:
    params = [[repr(case) for case in CASES], [repr(variant) for variant in VARIANTS]]
    return Results.load(str(path)).get_result_stats(name, params) or []


def test_statistics_of_a_few_places_go_and_the_rest_stays(tmp_path: Path) -> None:
    many = grid(*[0.5] * 16)
    path = written(tmp_path, softmax=grid(0.5, None, 0.5), norm=many)
    before, whole = store.load(tmp_path).rows, path.stat().st_size
    assert any(stats(path, SOFTMAX))
    of_norm = stats(path, NORM)
    assert thin(path) == whole - path.stat().st_size > whole // 3
    assert not any(stats(path, SOFTMAX))
    assert stats(path, NORM) == of_norm
    assert sum(map(bool, of_norm)) == 16
    after = store.load(tmp_path).rows
    columns = ["op", "case", "variant", "value", "status", "reason"]
    pd.testing.assert_frame_equal(before[columns], after[columns])
    assert sorted(after.status.unique()) == ["failed", "ok", "skipped"]
    assert thin(path) == 0, "nothing is left to take out"


def test_asv_reads_it_as_it_read_the_whole_one(tmp_path: Path) -> None:
    params = [[repr(case) for case in CASES], [repr(variant) for variant in VARIANTS]]
    path = written(tmp_path, softmax=grid(0.5, None, 0.5))

    def values() -> str:
        return str(Results.load(str(path)).get_result_value(SOFTMAX, params))

    before = values()
    thin(path)
    assert values() == before
    assert before.startswith("[0.5, None, 0.5, nan, ")


@pytest.mark.parametrize("failed", [None, [None] * len(CASES) * len(VARIANTS)])
def test_what_failed_as_a_whole_stays(tmp_path: Path, failed: list[float | None] | None) -> None:
    path = written(tmp_path, softmax=failed)
    thin(path)
    (block,) = asv_file.read(path, MACHINE).blocks
    assert set(block.status) == {asv_file.FAILED}
    assert len(block.cases) == len(CASES) * len(VARIANTS)


def test_a_file_that_cannot_be_used_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = written(tmp_path, softmax=grid(1.0))
    sound = written(tmp_path, commit=OTHER, softmax=grid(1.0))
    broken.write_text("{" + broken.read_text())
    text, names = broken.read_text(), sorted(one.name for one in sound.parent.iterdir())
    assert main(["--results", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "stays as it is: not valid JSON" in said.err
    assert re.fullmatch(r"thin: 1 result file is [1-9]\d* kB smaller\n", said.out)
    assert broken.read_text() == text
    assert not any(stats(sound, SOFTMAX))
    assert sorted(one.name for one in sound.parent.iterdir()) == names


@pytest.mark.parametrize(
    ("column", "value"), [("params", 7), ("result", "x"), ("result", {}), ("result", None)]
)
def test_a_row_that_cannot_be_read_is_left_as_it_is(
    tmp_path: Path, column: str, value: object
) -> None:
    path = written(tmp_path, softmax=grid(*[0.5] * 20), norm=grid(1.0))
    edit(path, set_cell(column, value))
    broken = json.loads(path.read_text())["results"][SOFTMAX]
    assert thin(path) > 0
    assert str(json.loads(path.read_text())["results"][SOFTMAX]) == str(broken)
    assert not any(stats(path, NORM))


def test_the_named_commits_alone(tmp_path: Path) -> None:
    one, other = (written(tmp_path, commit=commit, softmax=grid(1.0)) for commit in (COMMIT, OTHER))
    whole = other.read_text()
    assert main(["--results", str(tmp_path), COMMIT]) == 0
    assert other.read_text() == whole
    assert not any(stats(one, SOFTMAX))


def test_journals_are_packed_and_read_as_before(tmp_path: Path) -> None:
    path = written(tmp_path, softmax=grid(0.5, None, 0.5))
    plain = path.with_suffix(".points.jsonl")
    with Journal(plain) as journal:
        run = journal.start_run(COMMIT, MACHINE, {"gpu": "a GPU", "suite": "kernels"})
        for number, variant in enumerate(VARIANTS[:3]):
            journal.append_point(
                run=run,
                suite="kernels",
                op="softmax",
                case=CASES[0],
                variant=variant,
                version=1,
                status="failed" if number == 1 else "ok",
                reason="it is slow" if number == 1 else "",
                samples=[0.25 * number + sample for sample in SAMPLES],
                error=1e-3,
            )
    before = store.load(tmp_path)
    assert before.rows.reason[1] == "it is slow"
    assert main(["--results", str(tmp_path)]) == 0
    assert not plain.exists()
    after = store.load(tmp_path)
    columns = [name for name in before.rows.columns if name not in ("low", "high")]
    pd.testing.assert_frame_equal(before.rows[columns], after.rows[columns])
    pd.testing.assert_frame_equal(before.runs, after.runs)

    with Journal(plain) as journal:  # who writes again is who is read
        journal.append_point(
            run=run,
            suite="kernels",
            op="softmax",
            case=CASES[0],
            variant="compile",
            version=1,
            status="failed",
            reason="it is slower",
        )
        assert store.load(tmp_path).rows.reason[1] == "it is slower"
        assert main(["--results", str(tmp_path)]) == 1, "another process writes it"
    assert main(["--results", str(tmp_path)]) == 0
    assert store.load(tmp_path).rows.reason[1] == "it is slower"
