"""Made-up result files of any size: the store reads them as it reads real ones."""

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from asv_runner.statistics import compute_stats

from benchmarks import sidecar, store
from tests.dashboards import scale, scale_files
from tests.dashboards.scale import MACHINE, Scale

TINY = Scale(cases=12, implementations=3, commits=4, ops=2, samples=30, step_at=2, creep_at=1)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("scale")
    scale.write(found, TINY)
    return found


@pytest.fixture(scope="module")
def rows(written: Path) -> pd.DataFrame:
    loaded = store.load(written)
    assert loaded.problems == []
    assert list(loaded.machines) == [MACHINE]
    return loaded.rows


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / MACHINE).iterdir()}


def test_every_point_is_there(written: Path, rows: pd.DataFrame) -> None:
    assert len(rows) == 12 * 3 * 4
    assert not rows.duplicated(store.KEY).any()
    assert list(rows["op"].unique()) == ["scale_softmax", "scale_layer_norm"]
    assert list(rows["variant"].unique()) == ["eager", "compile", "kernl"]
    assert list(rows["commit"].unique()) == sorted(
        (TINY.commit(number) for number in range(4)), key=lambda commit: commit[:8]
    )
    days = rows.groupby("commit")["committed_at"].first().sort_values()
    assert list(days.index) == [TINY.commit(number) for number in range(4)]
    assert (days.diff().dropna() == pd.Timedelta(days=1)).all()
    runs = store.load(written).runs
    assert set(rows["run"]) == set(runs["run"])
    assert (runs[[*sidecar.TEXT_KEYS]] != "").all(axis=None)
    assert runs[[*sidecar.NUMBER_KEYS]].notna().all(axis=None)


def test_statistics_are_those_of_asv(rows: pd.DataFrame) -> None:
    ok = rows[rows["status"] == "ok"]
    assert (ok["low"] <= ok["value"]).all()
    assert (ok["value"] <= ok["high"]).all()
    assert set(ok["samples"].map(len)) == {30}
    assert ok["error"].between(1e-8, 1e-2).all()
    for one in ok.iloc[:20].itertuples():
        value, found = compute_stats(list(one.samples), 1)
        assert one.value == value
        assert one.low == pytest.approx(found["ci_99_a"], rel=1e-4)
        assert one.high == pytest.approx(found["ci_99_b"], rel=1e-4)


def test_values_are_the_true_times_but_for_noise(rows: pd.DataFrame) -> None:
    for number in range(TINY.commits):
        mine = rows[rows["commit"] == TINY.commit(number)]
        ratios = mine["value"].to_numpy() / scale.true_times(TINY, number).reshape(-1)
        assert np.nanmax(np.abs(ratios - 1)) < 0.03


def test_planted_cases_get_slower() -> None:
    *steps, creep = scale.planted(TINY)
    assert {(step.first, step.last, step.ratio) for step in steps} == {(2, 2, 1.08)}
    assert (creep.first, creep.last) == (1, 10)
    assert creep.ratio == pytest.approx(1.1046, abs=1e-4)
    before, after = (scale.true_times(TINY, number) for number in (0, 11))
    ratios = after / before
    assert (ratios[:, :2] == 1).all()
    assert sorted(ratios[ratios[:, 2] > 1.001, 2]) == pytest.approx([1.08] * 3 + [creep.ratio])


def test_some_of_kernl_is_skipped_or_fails(tmp_path: Path) -> None:
    wide = Scale(cases=1500, implementations=2, commits=1, ops=1, samples=8)
    scale.write(tmp_path, wide)
    loaded = store.load(tmp_path)
    assert loaded.problems == []
    assert loaded.rows.loc[loaded.rows["variant"] == "eager", "status"].eq("ok").all()
    kernl = loaded.rows[loaded.rows["variant"] == "kernl"]
    shares = kernl["status"].value_counts(normalize=True)
    assert 0.02 < shares["skipped"] < 0.04
    assert 0.002 < shares["failed"] < 0.01
    assert (kernl.loc[kernl["status"] != "ok", "reason"] != "").all()
    assert kernl["case"].is_unique


def test_the_files_are_laid_out_as_real_ones(written: Path) -> None:
    stem = f"{TINY.commit(3)[:8]}-worktree"
    content = json.loads((written / MACHINE / f"{stem}.json").read_text())
    row = dict(
        zip(
            content["result_columns"],
            content["results"]["kernels.ScaleSoftmax.track_time"],
            strict=False,
        )
    )
    assert list(row) == content["result_columns"][:11]
    assert row["params"][0][0] == "'rows4_cols64.fp16'"
    assert set(row["stats_repeat"]) <= {30, None}
    lines = gzip.decompress((written / MACHINE / f"{stem}.points.jsonl.gz").read_bytes())
    records = [json.loads(line) for line in lines.splitlines()]
    assert [one["kind"] for one in records] == ["run"] * 2 + ["point"] * 36
    assert lines.decode() == "".join(
        json.dumps(one, separators=(",", ":")) + "\n" for one in records
    )


def test_the_same_arguments_give_the_same_bytes(written: Path, tmp_path: Path) -> None:
    scale.write(tmp_path / "again", TINY, jobs=2)
    assert contents(tmp_path / "again") == contents(written)
    scale.write(tmp_path / "apart", Scale(**{**vars(TINY), "commits": 3}))
    scale.write(tmp_path / "apart", Scale(**{**vars(TINY), "commits": 1}), first=3)
    assert contents(tmp_path / "apart") == contents(written)
    scale.write(tmp_path / "other", Scale(**{**vars(TINY), "seed": 2}))
    assert not set(contents(tmp_path / "other")) & set(contents(written)) - {"machine.json"}


def test_samples_are_written_as_python_writes_numbers() -> None:
    rng = np.random.default_rng(0)
    seconds = np.exp(rng.uniform(np.log(1e-9), np.log(0.09), (500, 8)))
    seconds[0] = [1e-9, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1.05e-5, 9.999999e-5]
    units = scale_files.whole(seconds, 5e-10)
    assert scale_files.texts(units) == [
        ",".join(map(repr, row)) for row in (units / scale_files.UNITS).tolist()
    ]


def test_a_scale_that_cannot_be_is_refused() -> None:
    for bad in ({"ops": 0}, {"cases": 3}, {"implementations": 11}, {"samples": 7}, {"commits": 0}):
        with pytest.raises(ValueError, match=r"each needs|implementations|at least"):
            Scale(**bad)
