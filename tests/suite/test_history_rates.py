"""How often the history is wrong, by drawing series from recorded noise. Seconds on a CPU."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import noise
from benchmarks.gate import history_rates
from benchmarks.gate.history_rates import Found, Planted, both, by_pelt, by_score, rates
from benchmarks.gate.moves import LEAST, Array
from benchmarks.known_noise import RECORDED


@pytest.fixture(scope="module")
def pool() -> list[Array]:
    return history_rates.levels(r for path in RECORDED.glob("*.gz") for r in noise.read(path))


@pytest.mark.parametrize("commits", [8, 20, 74])
def test_where_nothing_moved_hardly_anything_is_found(pool: list[Array], commits: int) -> None:
    assert rates(pool, Planted(), commits, 400, both, seed=1)[0] <= 0.01


def test_one_commit_that_is_off_is_no_move(pool: list[Array]) -> None:
    assert rates(pool, Planted(1, 0.1, outlier=True), 20, 300, both, seed=2)[0] <= 0.01


@pytest.mark.parametrize(
    ("planted", "commits", "least", "least_named"),
    [
        (Planted(1, 0.03), 8, 0.80, 0.88),
        (Planted(1, 0.03), 40, 0.91, 0.90),
        (Planted(1, 0.05), 40, 0.95, 0.93),
        (Planted(10, 0.01), 20, 0.97, 0.97),
        (Planted(10, 0.01), 74, 0.97, 0.96),
        (Planted(10, 0.01, apart=6), 74, 0.94, 0.97),
    ],
    ids=str,
)
def test_what_is_slower_is_found_and_its_commits_named(
    pool: list[Array], planted: Planted, commits: int, least: float, least_named: float
) -> None:
    found, named = rates(pool, planted, commits, 150, both, seed=3)
    assert found >= least
    assert named >= least_named


def test_cuts_alone_would_be_worse(pool: list[Array]) -> None:
    unchanged = [rates(pool, Planted(), 74, 600, one, seed=4)[0] for one in (both, by_pelt)]
    assert unchanged[1] > unchanged[0]
    slow = Planted(10, 0.01, apart=6)
    creep = [rates(pool, slow, 74, 60, one, seed=4)[0] for one in (both, by_pelt, by_score)]
    assert creep[1] < 0.75 < creep[0]
    assert creep[2] > 0.75


@pytest.mark.parametrize("planted", history_rates.PLANTED, ids=str)
def test_what_is_planted_is_there(planted: Planted) -> None:
    length = planted.length + 2 * LEAST + 1
    assert planted.fits(length)
    assert not planted.fits(length - 1)
    for seed in range(20):
        series, first = planted.into(np.zeros(length + 3), np.random.default_rng(seed))
        steps = np.flatnonzero(np.diff(series))
        assert len(steps) == (2 if planted.outlier else planted.steps)
        if planted.steps:
            assert steps[0] + 1 == first >= LEAST
            assert len(series) - steps[-1] - 1 >= LEAST
            last = series.max() if planted.outlier else series[-1]
            assert last == pytest.approx(planted.steps * np.log1p(planted.size))


def test_what_counts_as_named() -> None:
    step, creep = Planted(1, 0.03), Planted(10, 0.01)
    assert step.expected([Found(7, 7, 0.03)], 7)
    assert not step.expected([Found(7, 8, 0.03)], 7)
    assert not step.expected([Found(7, 7, 0.03), Found(9, 9, 0.03)], 7)
    assert creep.expected([Found(7, 9, 0.03), Found(12, 16, 0.06)], 7)
    assert not creep.expected([Found(4, 9, 0.05)], 7)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert history_rates.main(["--series", "3"]) == 0
    shown = capsys.readouterr().out
    assert "10 steps of 1 %, every 6      74 commits" in shown
    (tmp_path / "none.jsonl").write_text("")
    assert history_rates.main([str(tmp_path / "none.jsonl")]) == 2
    assert "timed beside itself" in capsys.readouterr().err
    (tmp_path / "bad.jsonl").write_text("[")
    assert history_rates.main([str(tmp_path / "bad.jsonl")]) == 2
