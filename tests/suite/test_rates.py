"""The gate's error rates, by drawing its runs from recorded noise. Seconds on a CPU."""

import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import compare
from benchmarks.gate import rates
from benchmarks.gate.rates import Recorded
from benchmarks.known_noise import RECORDED, KnownNoise, Session
from benchmarks.noise import read
from benchmarks.sessions import compare_sessions
from tests.suite.fake_worker import ROOT

RUNS = 400


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    records = (one for path in sorted(RECORDED.glob("*.gz")) for one in read(path))
    return Recorded.of(records)


def test_enough_was_recorded(recorded: Recorded) -> None:
    cases, sessions = recorded.ratio.shape
    assert cases >= 300
    assert sessions >= 17


def test_where_nothing_changed_no_run_is_red(recorded: Recorded) -> None:
    seen = rates.unchanged(recorded, 300, RUNS, seed=1)
    assert seen.flagged <= 0.0002
    assert seen.red <= 0.01 * RUNS
    assert seen.unstable <= 0.05


def test_of_five_thousand_cases_one_run_in_a_hundred_is_red_at_most(recorded: Recorded) -> None:
    seen = rates.unchanged(recorded, 5000, 200, seed=2)
    assert seen.flagged <= 0.0002
    assert seen.red <= 2
    assert seen.unstable <= 0.05


def test_by_whole_sessions_no_run_is_red_either(recorded: Recorded) -> None:
    seen = rates.unchanged_together(recorded, RUNS, seed=4)
    assert seen.flagged <= 0.0002
    assert seen.red <= 0.01 * RUNS
    assert seen.unstable <= 0.05


def test_a_run_is_not_void_by_chance(recorded: Recorded) -> None:
    differs, void = rates.controls(recorded, 10_000, seed=6)
    assert differs <= 0.005
    assert void <= 0.0005


def test_a_whole_session_is_the_same_of_all_cases() -> None:
    """Two of fourteen sessions are far off: all cases of a run have drawn them, or none has."""
    ratio = np.full((5, 14), 0.001) * np.where(np.arange(14) % 2, 1, -1)
    ratio[:, :2] = 0.5
    together = Recorded(ratio, np.full_like(ratio, np.nan), np.tile(np.arange(14), (5, 1)))
    rows = np.tile(np.arange(5), (50, 1))
    chance = np.random.default_rng(7)
    seen = rates.draw(together, rows, 0.0, chance, together=True).unstable.sum(axis=1)
    assert set(seen) == {0, 5}
    apart = rates.draw(together, rows, 0.0, chance).unstable.sum(axis=1)
    assert set(apart) - {0, 5}


@pytest.mark.parametrize(("slowdown", "least"), [(0.03, 0.90), (0.05, 0.95), (0.10, 0.99)])
def test_a_slowdown_is_found(recorded: Recorded, slowdown: float, least: float) -> None:
    assert rates.found(recorded, 300, slowdown, 1000, seed=3) >= least


def test_a_gate_that_does_not_confirm_or_has_no_limit_would_be_worse(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is drawn does tell a good gate from a bad one."""
    monkeypatch.setattr("benchmarks.sessions.SPREAD_FACTOR", 0.0)
    monkeypatch.setattr("benchmarks.sessions.MIN_EFFECT", 0.0)
    monkeypatch.setattr(rates, "CONFIRMED", 1.0)
    monkeypatch.setattr(rates, "FALSE_DISCOVERY_RATE", 0.5)
    seen = rates.unchanged(recorded, 300, RUNS, seed=1)
    assert seen.red > 0.05 * RUNS
    differs, void = rates.controls(recorded, RUNS, seed=1)
    assert differs >= void > 0.05


def test_the_drawn_test_is_the_gates_own() -> None:
    """One case, drawn whole: the same p and the same limits as `compare_sessions` gives."""
    chance = np.random.default_rng(5)
    ratios = chance.normal(0.03, 0.01, 12)
    drawn = rates._Tested.of(ratios[None, None, :3], np.array([[1e-4]]), np.array([[9.0]]))
    spread = KnownNoise({("a", "b"): [Session(0.01, float("nan"))] * 9}).of("a", "b")
    test = compare_sessions([float(one) for one in ratios[:3]], [], spread)
    assert drawn.p[0, 0] == pytest.approx(test.p_slower)
    assert drawn.effect[0, 0] == pytest.approx(test.log_effect)
    assert drawn.threshold[0, 0] == pytest.approx(test.threshold)
    assert drawn.detectable[0, 0] == pytest.approx(compare.detectable([test])[0])


def test_the_command_says_what_it_lacks(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path_factory.mktemp("noise") / "few.jsonl"
    empty.write_text("")
    assert rates.main([str(empty)]) == 2
    assert "no case has 12 sessions" in capsys.readouterr().err
    assert rates.main([str(empty.with_name("none.jsonl"))]) == 2
    assert "none.jsonl" in capsys.readouterr().err


def test_a_reader_that_stops_early_sees_no_traceback() -> None:
    closed, out = os.pipe()
    os.close(closed)
    command = [sys.executable, "-m", "benchmarks.gate.rates", "--runs", "1"]
    done = subprocess.run(
        command, cwd=ROOT, stdout=out, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )
    os.close(out)
    assert (done.returncode, done.stderr) == (0, "")
