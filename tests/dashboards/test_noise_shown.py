"""How much noise the page of machines says each machine has."""

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks import known_noise
from benchmarks.noise import KINDS, Noise
from dashboards import build, pages
from dashboards.data.source import Source
from dashboards.tabular import noise
from tests.dashboards import hostile, synthetic
from tests.dashboards.synthetic import commit_hash, row

MACHINE = "nvidia-h200"


def made(case: str, spread: float, sessions: int = 30) -> Noise:
    return Noise(case, sessions, dict.fromkeys(KINDS, spread))


def source(noises: Mapping[str, Sequence[Noise]] | None = None, rows: int = 4) -> Source:
    """A case for each of `rows`, the interval of whose time is 1 %, 2 % and so on wide."""
    timed = [
        row(
            case=f"rows{n}.fp16",
            variant=variant,
            value=1e-6,
            low=0.99e-6,
            high=1e-6 + (n - 1) * 1e-8,
        )
        for n in range(1, rows + 1)
        for variant in ("kernl", "eager")
    ]
    earlier = row(commit=commit_hash(9), committed_at="2025-01-01", value=1e-6, low=0, high=9e-6)
    return Source.of(
        synthetic.Store(synthetic.frame([*timed, earlier]), synthetic.runs_frame([])), noise=noises
    )


def page(found: Source) -> str:
    return " ".join(pages.files(found)["machines.html"].decode().split())


def test_kinds_of_noise_by_hand() -> None:
    noises = [made(f"case {n}", n / 1000) for n in range(1, 12)]
    noises[0] = Noise("case 1", 12, {**noises[0].spread, "session, drift out": float("nan")})
    seen = noise.view(source({MACHINE: noises}), MACHINE)
    assert (seen.cases, seen.sessions) == (11, 312)
    shown = {cells[0].text: [cell.text for cell in cells[1:5]] for cells in seen.kinds.rows}
    assert list(shown) == list(KINDS)
    assert shown["session"] == ["0.60", "1.00", "1.09", "1.10"]
    assert shown["session, drift out"][0] == "0.65"  # of the ten that have one
    assert all(cells[-1].text for cells in seen.kinds.rows)
    assert "11 cases, 312 sessions" in page(source({MACHINE: noises}))


def test_every_kind_is_said_in_words() -> None:
    assert set(noise.MEANINGS) == set(KINDS)


def test_a_machine_of_which_none_is_recorded_is_told_how() -> None:
    said = page(source({"other": [made("case", 0.01)]}))
    assert "python -m benchmarks.measure.paired HEAD HEAD --out FILE" in said
    assert f"--keep benchmarks/recorded_noise/{MACHINE}.jsonl.gz" in said
    assert 'aria-label="Noise by kind on other"' in said  # which has no results of its own


def test_widths_are_those_of_the_newest_commit() -> None:
    (cells,) = noise.view(source(), MACHINE).widths.rows
    assert cells[1].text == commit_hash(0)[:8]
    assert [cell.text for cell in cells[2:]] == ["4", "2.50", "3.70"]


def test_times_without_intervals_have_no_width() -> None:
    rows = [row(), row(variant="eager")]
    found = Source.of(synthetic.Store(synthetic.frame(rows), synthetic.runs_frame([])))
    (cells,) = noise.view(found, MACHINE).widths.rows
    assert [cell.text for cell in cells[2:]] == ["0", "–", "–"]


def test_where_nothing_is_timed_there_is_no_noise() -> None:
    found = Source.of(synthetic.store(ops=("softmax",), count=3, commits=1, gpu=False))
    assert not noise.view(found, "compile-only").timed
    assert "How much noise" not in page(found)


def test_a_broken_file_costs_itself_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = next(known_noise.RECORDED.glob("*.jsonl.gz"))
    lines = gzip.decompress(recorded.read_bytes()).splitlines()[:200]
    whole = gzip.compress(b"\n".join(lines))
    (tmp_path / "good.jsonl.gz").write_bytes(whole)
    spoilt = bytearray(whole)
    spoilt[len(spoilt) // 2] ^= 0xFF
    run = {"kind": "run", "base": "x", "head": "x"}
    pair = {"kind": "pair", "status": "ok", "op": "softmax", "case": "a"}
    odd: dict[str, list[object]] = {
        "list": [[]],
        "fields": [run, pair],
        "blocks": [run, {**pair, "blocks": 7}],
        "block": [run, {**pair, "blocks": ["side"] * 4}],
        "huge": [run, {**pair, "blocks": [{"side": "base", "taken": {"kernl": [10**400]}}] * 4}],
    }
    for name, records in odd.items():
        text = "\n".join(map(json.dumps, records))
        (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    for name, content in {"cut": whole[:-40], "text": b"{", "spoilt": bytes(spoilt)}.items():
        (tmp_path / f"{name}.jsonl.gz").write_bytes(content)
    found = build.recorded_noise(tmp_path)
    assert list(found) == ["good"]
    assert found["good"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(odd) + 3
    assert all("no noise is shown of" in one for one in said)


def test_without_a_folder_there_is_none(tmp_path: Path) -> None:
    assert build.recorded_noise(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("attack", hostile.ATTACKS)
def test_hostile_names_of_machines_are_text(attack: str) -> None:
    said = page(source({attack: [made(attack, 0.01)]}))
    assert not re.search(r"<script>alert|<img|<svg/", said)
    assert "x" * 500 not in said


def test_the_order_of_files_does_not_change_the_page() -> None:
    noises = {"b": [made("case", 0.01)], "a": [made("case", 0.02)]}
    assert page(source(noises)) == page(source(dict(reversed(noises.items()))))
