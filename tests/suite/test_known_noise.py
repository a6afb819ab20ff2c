"""What is known of a case's noise, and what is guessed of one that was not recorded."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import known_noise
from benchmarks.known_noise import KnownNoise, Session
from benchmarks.noise import NoiseError
from tests.suite.pair_records import BASE, pair, run


def _sessions(spread: float, drift_out: float, count: int = 20) -> list[Session]:
    """Ratios of exactly such a root mean square, with eager's drift in them and without."""
    signs = [(-1) ** number for number in range(count)]
    return [Session(spread * sign, spread * sign - drift_out * sign) for sign in signs]


def test_a_recorded_case_is_known_by_its_own_sessions() -> None:
    known = KnownNoise({("linear", "one"): _sessions(0.01, 0.002)})
    found = known.of("linear", "one")
    assert found.raw == pytest.approx(0.01**2)
    assert found.drift_out == pytest.approx(0.002**2)
    assert found.degrees == 20.0
    often = KnownNoise({("linear", "one"): _sessions(0.01, 0.002, 500)})
    assert often.of("linear", "one").degrees == known_noise.MOST_DEGREES


def test_another_case_is_guessed_from_its_operator_or_from_all() -> None:
    recorded = {("linear", f"m{n}"): _sessions(0.001 * (n + 1), 0.0) for n in range(10)}
    recorded["softmax", "one"] = _sessions(0.05, 0.0)
    known = KnownNoise(recorded)
    own = known.of("linear", "other")
    assert own.raw == pytest.approx(np.quantile([(0.001 * (n + 1)) ** 2 for n in range(10)], 0.9))
    assert own.degrees == known_noise.GUESSED_DEGREES
    # One recorded case of an operator tells little of its others.
    assert known.of("softmax", "other").raw == known.of("rotary", "other").raw > own.raw


def test_where_nothing_is_recorded_a_case_is_taken_to_be_noisy(tmp_path: Path) -> None:
    known = known_noise.load("nvidia-a100", tmp_path)
    assert known.of("linear", "one").raw == pytest.approx(0.01**2)
    assert known.note == "no noise is recorded of nvidia-a100: that of others is used (none)"


def test_eager_that_does_not_run_is_not_taken_out() -> None:
    gaps = [Session(0.01, float("nan")) for _ in range(20)]
    assert KnownNoise({("conv1d", "one"): gaps}).of("conv1d", "one").drift_out == float("inf")


def _write(path: Path, records: list[dict[str, object]]) -> None:
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def test_a_machines_own_file_is_read(tmp_path: Path) -> None:
    same = {**run(), "head": BASE}
    _write(tmp_path / "h100.jsonl.gz", [same, pair(0, 0.01), pair(1, 0.01)])
    _write(tmp_path / "a100.jsonl.gz", [same, pair(0, 0.05), pair(1, 0.05)])
    known = known_noise.load("h100", tmp_path)
    assert known.note == ""
    assert known.of("softmax", "one.fp16").raw == pytest.approx(np.log(1.01) ** 2)
    other = known_noise.load("b200", tmp_path)
    assert "b200: that of others is used (a100, h100)" in other.note
    (tmp_path / "h100.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(NoiseError, match=r"h100\.jsonl\.gz"):
        known_noise.load("h100", tmp_path)


def test_what_is_shipped_can_be_read() -> None:
    known = known_noise.load("nvidia-h100-80gb-hbm3")
    assert known.note == ""
    assert known.of("softmax", "an unseen one").degrees == known_noise.GUESSED_DEGREES
