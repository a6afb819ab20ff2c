"""What arrays of all commits give is what the rows give, one after the other."""

import math
from collections import Counter
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.cases import NOT_SELECTED
from benchmarks.gate.findings import SAME, TIMED
from benchmarks.gate.history import series_of
from dashboards.data import ratios, summary
from dashboards.data.cube import ABSENT, Cube
from dashboards.data.ratios import Ratios, Trend
from dashboards.data.source import Source
from dashboards.tabular import regressions
from tests.dashboards import synthetic
from tests.dashboards.synthetic import commit_hash, row

MACHINES = ("nvidia-h100", "nvidia-h200")
COMMITS = [commit_hash(number) for number in range(12)]
VARIANTS = ("eager", "compile", "liger", "kernl_rewrite_only", "kernl_graphs_only", "kernl")
SUITES = ("kernels", "models")
SEEDS = range(6)
REASONS = ("", "", NOT_SELECTED, "left out of the quick profile", "kernl takes no such rows")
LIBRARIES = sorted({key for suite in TIMED for key in SAME[suite]})


@lru_cache
def random_store(seed: int) -> synthetic.Store:
    """Points of every status, some absent, of several runs, versions and sets of libraries.

    Nothing is known of one of the runs, and a machine may lack any implementation: of the first
    seed one lacks kernl, of the second eager.
    """
    draw = np.random.default_rng(seed)
    runs = []
    for number in range(6):
        words = {key: f"{key} {draw.random() < 0.03}" for key in LIBRARIES if draw.random() < 0.97}
        known = {"machine": "", "commit": "", "started_at": "2026-01-01"}
        runs.append({"run": f"r{number}", **known, **words})
    rows = []
    for machine in MACHINES:
        variants = [name for name in VARIANTS if draw.random() < 0.95]
        if machine == MACHINES[0] and seed < 2:
            variants = [name for name in VARIANTS if name != ("kernl", "eager")[seed]]
        for suite in SUITES:
            for at, commit in enumerate(COMMITS):
                if draw.random() < 0.15:
                    continue
                shared = {
                    "machine": machine, "suite": suite, "commit": commit,
                    "committed_at": pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(days=at),
                }  # fmt: skip
                rows += [row(**shared, **one) for one in _points(draw, variants)]
    return synthetic.Store(synthetic.frame(rows), pd.DataFrame(runs).fillna(""))


def _points(draw: np.random.Generator, variants: list[str]) -> list[dict[str, object]]:
    """Those of a commit, in any order; most of a case are of one run and version."""
    found = []
    for op in ("softmax", "linear"):
        for number in range(5):
            common = {"run": f"r{draw.integers(7)}", "version": "12"[int(draw.random() < 0.15)]}
            for variant in variants:
                if draw.random() < 0.06:
                    continue
                own = dict(common)
                if draw.random() < 0.1:
                    own["run" if draw.random() < 0.5 else "version"] = "1"
                case = f"rows{2**number}.fp16"
                found.append({"op": op, "case": case, "variant": variant, **own, **_state(draw)})
    return [found[at] for at in draw.permutation(len(found))]


def _state(draw: np.random.Generator) -> dict[str, object]:
    """A status, with a value and a reason that fit it; some have none where they should."""
    status = draw.choice(["ok", "failed", "skipped"], p=[0.86, 0.06, 0.08])
    reason = draw.choice(REASONS) if status == "skipped" else draw.choice(["", "what was seen"])
    value = float(draw.lognormal(-12, 0.5))
    if status != "ok":
        value = math.nan if draw.random() < 0.8 else value
    elif draw.random() < 0.05:
        value = float(draw.choice([math.nan, 0.0, -1e-6]))
    return {"status": str(status), "reason": str(reason), "value": value}


@lru_cache
def cubes(seed: int) -> dict[tuple[str, str], tuple[Cube, pd.DataFrame]]:
    """(suite, machine) → the cube, and the rows that it is made of."""
    store = random_store(seed)
    frame = store.rows
    return {
        (suite, machine): (
            cube,
            frame[(frame["suite"] == suite) & (frame["machine"] == machine)],
        )
        for (suite, machine), cube in Source.of(store).cubes.items()
    }


def by_place(cube: Cube, rows: pd.DataFrame) -> dict[tuple[int, int], dict[str, Any]]:
    """(place of the commit, of the case) → its row of `summary.speedups`."""
    frame = summary.speedups(rows, cube.points.suite)
    cases = {key: at for at, key in enumerate(cube.points.cases)}
    return {
        (cube.commits.index(one["commit"]), cases[one["op"], one["case"]]): one
        for one in frame.to_dict("records")
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cube_holds_every_point_of_the_rows(seed: int) -> None:
    seen = 0
    for (suite, machine), (cube, rows) in cubes(seed).items():
        assert (cube.points.suite, cube.machine) == (suite, machine)
        assert list(cube.commits) == [
            commit for commit in COMMITS if (rows["commit"] == commit).any()
        ]
        assert (cube.status != ABSENT).sum() == len(rows)
        cases = {key: at for at, key in enumerate(cube.points.cases)}
        for one in rows.to_dict("records"):
            at = (
                cube.commits.index(one["commit"]), cases[one["op"], one["case"]],
                cube.points.variants.index(one["variant"]), 0,
            )  # fmt: skip
            good = one["status"] == "ok" and not math.isnan(one["value"])
            assert cube.ok[at] == good
            if good:
                assert cube.value[at] == one["value"]
            assert cube.versions[cube.version[at]] == one["version"]
            assert cube.runs[cube.run[at]] == one["run"]
            seen += 1
    assert seen > 500


@pytest.mark.parametrize("seed", SEEDS)
def test_ratios_are_those_of_the_summary(seed: int) -> None:
    for cube, rows in cubes(seed).values():
        found, expected = Ratios.of(cube), by_place(cube, rows)
        assert found.over_eager.shape == (len(cube.commits), len(cube.points.cases))
        for place in np.ndindex(found.over_eager.shape):
            one = expected.get(place)
            if one is None:
                assert math.isnan(found.over_eager[place])
                assert math.isnan(found.over_best[place])
                assert found.alternatives[place] == 0
                assert not found.failed[place]
                continue
            # To the last bit; NaN is no NaN's equal, but its text is.
            assert repr(found.over_eager[place].item()) == repr(one["over_eager"])
            assert repr(found.over_best[place].item()) == repr(one["over_best"])
            assert found.alternatives[place] == one["alternatives"]
            assert found.failed[place] == (one["status"] == "failed")


def test_random_stores_have_all_that_there_may_be() -> None:
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        for cube, rows in cubes(seed).values():
            found = summary.speedups(rows, cube.points.suite)
            seen.update(found["status"])
            seen["ratio"] += int(found["over_best"].notna().sum())
            seen["alone"] += int((found["alternatives"] == 1).sum())
            names = [{"kernl_graphs_only", "kernl_rewrite_only"} & set(rows["variant"])]
            seen["with parts"] += len([some for some in names if some])
            seen["without kernl"] += "kernl" not in set(rows["variant"])
            seen["without eager"] += "eager" not in set(rows["variant"])
    assert {"ok", "fallback", "failed", "missing"} <= set(seen)
    assert min(seen.values()) > 0, seen
    assert len(seen) == 9, seen


def expected_trend(rows: pd.DataFrame, suite: str, column: str, order: list[str]) -> pd.DataFrame:
    """The trend, worked out with frames: see `dashboards.data.ratios._trend`."""
    frame = summary.speedups(rows, suite)
    values = frame[column]
    if column == "over_best":
        most = frame.groupby(["op", "case"])["alternatives"].transform("max")
        values = values.where((frame["alternatives"] > 1) | (most <= 1))
    values = values.where(frame["status"] != "failed", math.inf)
    wide = frame.assign(ratio=values).pivot(index=["op", "case"], columns="commit", values="ratio")
    wide = wide.reindex(columns=order).astype(float)
    counts = np.isfinite(wide).sum()
    kept = wide.ffill(axis=1).replace(math.inf, math.nan)
    logs = np.log(kept.loc[:, counts > 0])
    moved = logs.diff(axis=1).mean().iloc[1:]
    back = pd.concat([logs.iloc[:, -1:].mean(), -moved[::-1]]).cumsum(skipna=False)
    back.index = logs.columns[::-1]
    means = np.exp(back).reindex(wide.columns)
    return pd.DataFrame({"mean": means, "cases": kept.notna().sum(), "measured": counts})


def assert_same_trend(found: Trend, expected: pd.DataFrame) -> None:
    assert found.mean == pytest.approx(expected["mean"].to_numpy(), rel=1e-12, nan_ok=True)
    assert list(found.cases) == list(expected["cases"])
    assert list(found.measured) == list(expected["measured"])


@pytest.mark.parametrize("seed", SEEDS)
def test_trends_are_those_of_the_rows(seed: int) -> None:
    known = 0
    for cube, rows in cubes(seed).values():
        for column, of in (("over_eager", ratios.over_eager), ("over_best", ratios.over_best)):
            found = of(Ratios.of(cube))
            suite = cube.points.suite
            assert_same_trend(found, expected_trend(rows, suite, column, list(cube.commits)))
            known += int((~np.isnan(found.mean)).sum())
            for op in cube.points.names:
                mine = rows[rows["op"] == op]
                expected = expected_trend(mine, suite, column, list(cube.commits))
                assert_same_trend(of(Ratios.of(cube.part(op))), expected)
                chosen = Ratios.of(cube).of_cases(ratios.places(cube, [op]))
                assert_same_trend(of(chosen), expected)
    assert known > 10


@pytest.mark.parametrize("seed", SEEDS)
def test_ratios_of_some_commits_are_those_of_their_rows(seed: int) -> None:
    for cube, rows in cubes(seed).values():
        places = list(range(len(cube.commits)))[1::2]
        order = [cube.commits[place] for place in places]
        mine = rows[rows["commit"].isin(order)]
        for column, of in (("over_eager", ratios.over_eager), ("over_best", ratios.over_best)):
            found = of(Ratios.of(cube).at(places))
            assert_same_trend(found, expected_trend(mine, cube.points.suite, column, order))


def as_set(found: Any) -> set[tuple[Any, ...]]:
    made = [(one.key, tuple(one.commits), tuple(one.ratios), tuple(one.times)) for one in found]
    assert len(set(made)) == len(made)
    return set(made)


@pytest.mark.parametrize("seed", SEEDS)
def test_series_are_those_of_the_gate(seed: int) -> None:
    store = random_store(seed)
    for (suite, machine), (cube, rows) in cubes(seed).items():
        found = list(regressions.series(cube, store.runs))
        assert {(one.key.suite, one.key.machine) for one in found} <= {(suite, machine)}
        assert as_set(found) == as_set(series_of(rows, store.runs, list(cube.commits)))


def test_random_stores_have_long_series_and_several_of_a_case() -> None:
    lengths: Counter[int] = Counter()
    of_case: Counter[Any] = Counter()
    for seed in SEEDS:
        runs = random_store(seed).runs
        for cube, _ in cubes(seed).values():
            for one in regressions.series(cube, runs):
                lengths[len(one.commits)] += 1
                of_case[seed, one.key] += 1
    assert lengths[1] > 100
    assert sum(count for length, count in lengths.items() if length > 2) > 100, lengths
    assert sum(count > 2 for count in of_case.values()) > 20, of_case


def test_cases_of_the_same_commits_may_have_other_versions() -> None:
    order = COMMITS[:8]
    rows = [
        row(commit=commit, committed_at=f"2026-01-0{at + 1}", variant=variant, case=case, run="r",
            version="2" if at >= since else "1", value=1e-6 * (at + 1))
        for case, since in (("a.fp16", 8), ("b.fp16", 3), ("c.fp16", 5), ("d.fp16", 3))
        for at, commit in enumerate(order)
        for variant in ("kernl", "eager")
    ]  # fmt: skip
    store = synthetic.Store(synthetic.frame(rows), synthetic.runs_frame([]))
    cube = Source.of(store).cube("kernels", "nvidia-h200")
    assert cube is not None
    found = list(regressions.series(cube, store.runs))
    assert [len(one.commits) for one in found] == [8, 3, 5, 5, 3, 3, 5]
    assert as_set(found) == as_set(series_of(store.rows, store.runs, order))


def test_a_run_that_nobody_knows_is_like_another_such_run() -> None:
    order = COMMITS[:8]
    dated = [{"commit": one, "committed_at": f"2026-01-0{at}"} for at, one in enumerate(order, 1)]
    rows = [
        row(**of, variant=variant, run=f"gone {at % 2}", value=1e-6 * (at + 1))
        for at, of in enumerate(dated)
        for variant in ("kernl", "eager")
    ]
    store = synthetic.Store(synthetic.frame(rows), synthetic.runs_frame([]))
    cube = Source.of(store).cube("kernels", "nvidia-h200")
    assert cube is not None
    (one,) = regressions.series(cube, store.runs)
    assert list(one.commits) == order
    assert as_set([one]) == as_set(series_of(store.rows, store.runs, order))
