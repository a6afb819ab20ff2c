"""What two processes of one commit differ by is found again in what was made up."""

import gzip
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import noise
from tests.suite.fake_worker import ROOT

BLOCK, SESSION, LEVEL, DRIFT = 0.004, 0.01, 0.02, 0.03


def made_up(
    sessions: int, *, seed: int = 1, quads: int = 2, drift: float = 0.0, case: str = "one.fp16"
) -> list[dict[str, Any]]:
    """Sessions of one case: each block, each session's two processes, and each session differ."""
    chance = np.random.default_rng(seed)
    records = []
    for session in range(sessions):
        level = chance.normal(0, LEVEL)
        of_process = {side: chance.normal(0, SESSION / math.sqrt(2)) for side in ("base", "head")}
        drifting = {side: chance.normal(0, drift) for side in ("base", "head")}
        blocks = []
        for side in ("base", "head", "head", "base") * quads:
            now = level + chance.normal(0, BLOCK) + drifting[side]
            kernl = 1e-5 * math.exp(now + of_process[side])
            taken = {"kernl": [kernl] * 3, "eager": [5e-5 * math.exp(drifting[side])] * 3}
            blocks.append({"side": side, "taken": taken})
        about = {"kind": "pair", "session": session, "control": False, "status": "ok"}
        records.append({**about, "op": "softmax", "case": case, "blocks": blocks})
    return records


def test_what_was_made_up_is_found_again() -> None:
    found = noise.noise_of("softmax one.fp16", made_up(800, drift=DRIFT)).spread
    # Of a quad two blocks of each side are averaged; of a session its four pairs have a median,
    # which of four normal numbers has 0.546 of their standard deviation.
    quad = BLOCK
    session = math.hypot(SESSION, 0.546 * math.sqrt(2) * BLOCK)
    assert found["block"] == pytest.approx(BLOCK, rel=0.1)
    assert found["quad"] == pytest.approx(quad, rel=0.1)
    assert found["session, drift out"] == pytest.approx(session, rel=0.1)
    assert found["session"] == pytest.approx(math.hypot(session, DRIFT * math.sqrt(2)), rel=0.1)
    level = math.sqrt(LEVEL**2 + SESSION**2 / 2 + DRIFT**2 + BLOCK**2 / 4)
    assert found["level"] == pytest.approx(level, rel=0.1)


def test_the_ratio_is_that_of_head_over_base() -> None:
    (record,) = made_up(1)
    for block in record["blocks"]:
        if block["side"] == "head":
            block["taken"]["kernl"] = [1.1 * one for one in block["taken"]["kernl"]]
    (plain,) = made_up(1)
    moved = noise.ratios(record, "kernl") - noise.ratios(plain, "kernl")
    assert moved == pytest.approx([math.log(1.1)] * 2)
    whole = noise.session_ratio(record, "kernl") - noise.session_ratio(plain, "kernl")
    assert whole == pytest.approx(math.log(1.1))


ABBA, BAAB = ("base", "head", "head", "base"), ("head", "base", "base", "head")
ORDERS = [(*first, *second) for first in (ABBA, BAAB) for second in (ABBA, BAAB)]


def _taken(order: Sequence[str], logs: Sequence[float]) -> dict[str, Any]:
    """A session of such blocks, of which logarithms are given."""
    times = [{"kernl": [1e-5 * math.exp(one)] * 3} for one in logs]
    return {"blocks": [{"side": s, "taken": t} for s, t in zip(order, times, strict=True)]}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("stalled", range(8))
def test_a_block_in_which_the_host_stalls_moves_a_session_no_further_than_its_others_differ(
    order: Sequence[str], stalled: int
) -> None:
    logs = np.random.default_rng(stalled).normal(0, BLOCK, 8)
    calm = noise.session_ratio(_taken(order, logs.tolist()), "kernl")
    logs[stalled] += math.log(10)
    record = _taken(order, logs.tolist())
    sides = noise.block_logs(record, "kernl")
    others = np.delete((sides["head"] - sides["base"]).ravel(), stalled // 2)
    found = noise.session_ratio(record, "kernl")
    assert others.min() <= found <= others.max()
    assert abs(found - calm) <= np.ptp(others)
    # Of the mean over the pairs it would be a quarter of the stall, 0.58.
    assert abs(noise.ratios(record, "kernl").mean() - calm) > 0.5


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("change", [-0.3, 0.02, 0.5])
def test_a_change_of_all_blocks_is_kept_whole_and_even_drift_cancels(
    order: Sequence[str], change: float
) -> None:
    changed = [change * (side == "head") for side in order]
    drifting = [one + 0.01 * place for place, one in enumerate(changed)]
    assert noise.session_ratio(_taken(order, drifting), "kernl") == pytest.approx(change)
    for begun in range(9):  # it is slower from one block on, such as by a lower clock
        stepped = [one + 0.05 * (place >= begun) for place, one in enumerate(changed)]
        assert noise.session_ratio(_taken(order, stepped), "kernl") == pytest.approx(change)


@pytest.mark.parametrize("order", ORDERS)
def test_of_drift_that_bends_as_much_is_left_as_of_the_mean_at_most(order: Sequence[str]) -> None:
    bent = _taken(order, [0.01 * place**2 for place in range(8)])
    assert abs(noise.session_ratio(bent, "kernl")) == pytest.approx(0.02)
    assert abs(noise.session_ratio(bent, "kernl")) <= 0.05 * 0.49  # of 0.49 in all


def test_with_one_session_nothing_is_known_between_sessions() -> None:
    found = noise.noise_of("softmax one.fp16", made_up(1, quads=1)).spread
    assert math.isnan(found["session"])
    assert math.isnan(found["quad"])
    assert found["block"] > 0


def test_only_what_was_measured_beside_itself_counts() -> None:
    same, other = made_up(2), made_up(2, case="two.fp16")
    controls = [{**one, "control": True} for one in made_up(1, case="three.fp16")]
    broken = [{**one, "status": "failed"} for one in made_up(1, case="four.fp16")]
    records = [
        {"kind": "run", "base": "a", "head": "a"},
        *same,
        *broken,
        {"kind": "run", "base": "a", "head": "b"},
        *other,
        *controls,
    ]
    found = noise.same_on_both_sides(records)
    assert {case: len(sessions) for case, sessions in found.items()} == {
        "softmax one.fp16": 2,
        "softmax three.fp16": 1,
    }


def _written(path: Path, records: list[dict[str, Any]]) -> Path:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    return path


def test_a_case_that_eager_does_not_run_has_no_drift() -> None:
    records = made_up(3)
    for block in records[1]["blocks"]:
        del block["taken"]["eager"]
    found = noise.noise_of("softmax one.fp16", records).spread
    assert math.isnan(found["session, drift out"])
    assert found["session"] == noise.noise_of("softmax one.fp16", made_up(3)).spread["session"]


def test_sessions_that_are_far_off_are_counted() -> None:
    found = {"calm": made_up(3, seed=2), "wild": made_up(2)}
    for record, slower in ((found["wild"][0], 1.1), (found["wild"][1], 1.0)):
        for block in record["blocks"]:
            seconds = 1e-5 * (slower if block["side"] == "head" else 1.0)
            block["taken"]["kernl"] = [seconds]
    for record in found["calm"]:
        for block in record["blocks"]:
            block["taken"]["kernl"] = [1e-5]
    said = noise.off_by(found, 0.02)
    assert said == "20.0 % of 5 sessions are off by more than 2 %, in 1 of 2 cases"


def test_what_is_kept_tells_the_same(tmp_path: Path) -> None:
    run = {"kind": "run", "base": "a", "head": "a"}
    whole = _written(tmp_path / "whole.jsonl", [run, *made_up(4, drift=DRIFT)])
    thin, again = tmp_path / "thin.jsonl.gz", tmp_path / "again.jsonl.gz"
    assert noise.main([str(whole), "--keep", str(thin)]) == 0
    assert noise.main([str(thin), "--keep", str(again)]) == 0
    assert thin.read_bytes() == again.read_bytes()
    first, *pairs = noise.read(thin)
    assert first == run
    assert all(len(block["taken"]["kernl"]) == 1 for one in pairs for block in one["blocks"])
    of_all, of_kept = (
        noise.noise_of("one", noise.same_on_both_sides(noise.read(path))["softmax one.fp16"])
        for path in (whole, thin)
    )
    assert of_kept == of_all


def test_the_command_prints_the_kinds_and_the_worst(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {"kind": "run", "base": "a", "head": "a"}
    calm = made_up(4, case="calm.fp16")
    for record in calm:
        for block in record["blocks"]:
            block["taken"]["kernl"] = [1e-5]
    first = _written(tmp_path / "one.jsonl", [run, *made_up(4)])
    packed = _written(tmp_path / "two.jsonl.gz", [run, *calm])
    assert noise.main([str(first), str(packed), "--worst", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 cases, 4 to 4 sessions each"
    assert [line[:24].strip() for line in lines[2:7]] == list(noise.KINDS)
    assert lines[1].split()[-4:] == ["median", "90%", "99%", "most"]
    assert re.fullmatch(
        r"\d+\.\d % of 8 sessions are off by more than 2 %, in [01] of 2 cases", lines[7]
    )
    assert len(lines) == 9
    assert lines[8].endswith("softmax one.fp16")


def test_a_reader_that_stops_early_sees_no_traceback(tmp_path: Path) -> None:
    run = {"kind": "run", "base": "a", "head": "a"}
    path = _written(tmp_path / "one.jsonl", [run, *made_up(2)])
    closed, out = os.pipe()
    os.close(closed)
    command = [sys.executable, "-m", "benchmarks.noise", str(path)]
    done = subprocess.run(
        command, cwd=ROOT, stdout=out, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )
    os.close(out)
    assert (done.returncode, done.stderr) == (0, "")


def _blocks(change: Any) -> list[dict[str, Any]]:
    (record,) = made_up(1)
    change(record["blocks"])
    return [record]


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([], "nothing was measured beside itself"),
        (_blocks(lambda blocks: blocks.pop()), "two of each side"),
        (_blocks(list.clear), "two of each side"),
        (_blocks(lambda blocks: blocks[0]["taken"].update(kernl=[0.0])), "not above 0"),
        (_blocks(lambda blocks: blocks[0]["taken"].update(kernl=[])), "not above 0"),
        (_blocks(lambda blocks: blocks[0].update(side="left")), "left"),
        (_blocks(lambda blocks: blocks[0]["taken"].pop("kernl")), "kernl"),
    ],
)
def test_what_cannot_be_used_is_told(
    records: list[dict[str, Any]],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = _written(tmp_path / "f.jsonl", [{"kind": "run", "base": "a", "head": "a"}, *records])
    assert noise.main([str(path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("noise: ")
    assert words in shown.err


@pytest.mark.parametrize("text", ["{", "[1]", "\x00"])
def test_a_broken_file_is_named(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(text)
    assert noise.main([str(path)]) == 2
    assert "f.jsonl" in capsys.readouterr().err
    assert noise.main([str(tmp_path / "absent.jsonl.gz")]) == 2
    assert "absent" in capsys.readouterr().err
