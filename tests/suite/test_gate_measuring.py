"""`python -m benchmarks.gate` where it measures, or reads what a GPU measured."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from benchmarks.gate import beside_asv
from benchmarks.gate.command import main
from benchmarks.measure.device import Gpu
from benchmarks.measure.paired import TwoCommits

ROOT = Path(__file__).parents[2]
RECORDED = Path(__file__).parent / "recorded"
BASE = "a42fefbf5845fa3caafc1fc7aa0f533fcf440d72"
HEAD = "57bc914c76dda30d5247af4cf7dbf2d42ba3c55a"
PLANTED = RECORDED / "planted_200_clocks.jsonl.gz"


def test_a_planted_slowdown_as_a_gpu_saw_it_is_red(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each program of 18 operators' kernels spun for 200 clocks (0.1 µs) longer, on an H100."""
    out = {name: tmp_path / name for name in ("json", "junit", "markdown")}
    options = [text for name, path in out.items() for text in (f"--{name}", str(path))]
    assert main([BASE, HEAD, "--pairs", str(PLANTED), *options]) == 1
    said = capsys.readouterr().out
    assert "REGRESSION (exit 1)" in said
    assert "note: power: a slowdown of one case would have been seen in" in said
    report = json.loads(out["json"].read_text())
    assert report["blockers"] == []
    timed = [one for one in report["findings"] if one["ratio"] is not None]
    assert len(timed) == 150
    found = {"regressed": 0, "all": 0}
    for one in timed:
        change = one["ratio"] - 1
        if change >= 0.03:
            found["all"] += 1
            found["regressed"] += one["outcome"] == "regressed"
        if change < 0.015:
            assert one["outcome"] in ("pass", "unstable")
    assert found["all"] >= 40
    assert found["regressed"] / found["all"] >= 0.95
    unstable = sum(one["outcome"] == "unstable" for one in timed)
    assert unstable / len(timed) <= 0.05
    assert out["markdown"].read_text().startswith("### REGRESSION")
    junit = ElementTree.parse(out["junit"]).getroot()
    assert len(list(junit.iter("failure"))) == report["counts"]["regressed"]


def test_asv_by_itself_sees_less_and_more(capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(RECORDED / "unchanged.jsonl.gz"), str(PLANTED)]
    assert beside_asv.main(files) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:16].strip(): line[16:].split() for line in lines if "−" in line}
    unchanged = next(line for line in lines if line.lstrip().startswith("below 1 %"))
    # cases, then worse and better by each of asv's factors, then by the gate
    numbers = [int(word.strip(",")) for word in unchanged.split()[3:] if word != "−"]
    cases, *said = numbers
    assert cases > 280
    assert sum(said[:6]) > 0
    assert said[6:] == [0, 0]
    large = [int(word.strip(",")) for word in rows["5 % and more"] if word != "−"]
    assert large[1] < large[0] / 2  # asv's own factor is 1.1
    assert large[-2] >= large[0] - 1


def test_what_the_readme_asks_asv_about_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (names,) = re.findall(r"`python -m benchmarks\.gate\.beside_asv ([^`]+)`", readme)
    files = [str(path) for name in names.split() for path in sorted(ROOT.glob(name))]
    assert beside_asv.main(files) == 0
    assert capsys.readouterr().out.count(".jsonl.gz\n") == len(files) == 3


def test_without_a_gpu_it_says_what_else_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.measure.device.gpu", lambda: None)
    assert main(["HEAD~1", "HEAD", "--measure"]) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "--measure needs an NVIDIA GPU, and none answers here" in said
    assert "--pairs FILE" in said


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["HEAD", "HEAD"], "base and head are the same commit"),
        (["nowhere", "HEAD"], "there is no commit 'nowhere' here"),
        (["HEAD~1", "HEAD", "--suite", "codegen"], "--measure times: compile-only metrics are"),
    ],
)
def test_what_cannot_be_measured_is_told(
    asked: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if asked[0] == asked[1]:
        same = SimpleNamespace(base=BASE, head=BASE)
        monkeypatch.setattr(TwoCommits, "of", lambda *_: same)
    card = Gpu("NVIDIA H100 80GB HBM3", "GPU-1", "570.1", 80 << 30)
    monkeypatch.setattr("benchmarks.measure.device.gpu", lambda: card)
    assert main([*asked, "--measure"]) == 2
    assert words in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("budget", ["10", "0m", "-5m", "m", "1d", "1e3s"])
def test_a_budget_is_a_time(budget: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["a", "b", "--measure", f"--budget={budget}"])
    assert stopped.value.code == 2
    assert f"{budget!r} is no time: give one such as 90s, 10m or 1h" in capsys.readouterr().err


@pytest.mark.parametrize("sessions", ["2", "0", "three", "²"])
def test_sessions_are_three_at_least(sessions: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["a", "b", "--measure", f"--sessions={sessions}"])
    assert "is no whole number of at least 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "records of 0 pairs of commits"),
        ("[1]", "not an object"),
        ("{", "Expecting property name"),
        ('{"kind": "pair"}', "KeyError"),
        ('{"kind": "run", "fingerprint": 3}', "TypeError"),
    ],
)
def test_a_file_of_something_else_is_told(
    tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(text)
    assert main([BASE, HEAD, "--pairs", str(path)]) == 2
    assert words in " ".join(capsys.readouterr().out.split())


def test_records_of_other_commits_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "pairs.jsonl.gz"
    shutil.copy(PLANTED, copy)
    assert main(["c" * 40, HEAD, "--pairs", str(copy)]) == 2
    assert "no commit that git or the results know" in " ".join(capsys.readouterr().out.split())
    assert main([HEAD, HEAD, "--pairs", str(copy)]) == 2
