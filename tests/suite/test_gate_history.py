"""What moved over the stored commits: creep that no pair shows, whose move it is, the command."""

import datetime
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.gate import history
from benchmarks.gate.acknowledged import Acknowledged
from benchmarks.gate.command import main
from benchmarks.gate.findings import Finding, Key, worst_first
from benchmarks.gate.moves import Array, can_move
from benchmarks.gate.report import Report, sentence, to_json, to_markdown
from benchmarks.gate.report import group as grouped
from benchmarks.gate.revisions import ancestry
from benchmarks.gate.stored import judge as judge_pair
from tests.suite.asv_results import SOFTMAX, edit, write_results
from tests.suite.gate_rows import FINGERPRINT, GPU_MACHINE, TODAY, frame, make_repository, timing
from tests.suite.test_moves import stairs, still

RUNS = pd.DataFrame([{"run": "one", **FINGERPRINT}, {"run": "two", **FINGERPRINT, "triton": "4"}])


def commit(number: int) -> str:
    return f"{number:08x}{0:032x}"


def timed(number: int, ours: float = 1e-5, eager: float = 2e-5, **fields: Any) -> list[Any]:
    """Rows of kernl and of eager of one commit."""
    date = pd.Timestamp("2030-01-01", tz="UTC") + pd.Timedelta(days=number)
    fields = {"run": "one", "committed_at": date, **fields}
    rows = [timing(commit(number), ours), timing(commit(number), eager, variant="eager")]
    return [{**row, **fields} for row in rows]


def measured(logs: Array, drift: Array | float = 1.0, **fields: Any) -> list[Any]:
    """Rows of as many commits: kernl's times by their logarithms, under a drift of the machine."""
    slow = np.ones(len(logs)) * drift
    pairs = enumerate(zip(1e-5 * np.exp(logs) * slow, 2e-5 * slow, strict=True))
    return [row for at, (ours, eager) in pairs for row in timed(at, ours, eager, **fields)]


def judged(rows: list[Any], base: int = 0, head: int = 19, **options: Any) -> Report:
    return history.judge(frame(rows), RUNS, commit(base), commit(head), today=TODAY, **options)


def a_step(size: float = 0.1, at: int = 10, length: int = 20) -> Array:
    return still(length) + stairs(length, at, 1, size)


def only(report: Report) -> Finding:
    (finding,) = report.findings
    return finding


def test_creep_passes_every_pair_and_not_the_history() -> None:
    rows = measured(still(30) + stairs(30, 12, 10, 0.01))
    for at in range(29):
        pair = judge_pair(frame(rows), RUNS, commit(at), commit(at + 1), today=TODAY)
        assert pair.exit_code == 0
    shown = judged(rows, head=29)
    assert shown.exit_code == 1
    found = only(shown)
    assert found.outcome == "regressed"
    assert found.ratio == pytest.approx(1.01**10, rel=0.005)
    assert f"by 10 measured commits from {commit(12)[:12]} to {commit(21)[:12]}" in found.reason


def test_a_step_is_named_under_drift() -> None:
    shown = judged(measured(a_step(), drift=np.linspace(1, 1.3, 20)))
    found = only(shown)
    assert (found.outcome, shown.exit_code) == ("regressed", 1)
    assert found.reason == f"by {commit(10)[:12]}, measured after {commit(9)[:12]}"
    assert found.ratio == pytest.approx(1.1, rel=0.005)
    assert found.drift_removed
    assert found.head > found.base > 1e-5
    assert "interval" not in sentence(grouped([found])[0])
    assert to_json(shown)["findings"][0]["commits"] == found.commits == (commit(10),)
    assert found.reason.split(",")[0] in to_markdown(shown)
    faster = judged(measured(a_step(-0.1)))
    assert (only(faster).outcome, faster.exit_code) == ("improved", 0)


def test_only_what_newer_commits_did_counts() -> None:
    rows = measured(a_step())
    assert judged(rows, base=9).exit_code == 1
    assert [one.outcome for one in judged(rows, base=10).findings] == ["pass"]
    shown = judged(rows, base=19)
    assert shown.exit_code == 2
    assert f"one after {commit(19)[:12]}" in shown.blockers[0]


def test_later_commits_do_not_count() -> None:
    shown = judged(measured(a_step(at=20, length=30)), head=19)
    assert [one.outcome for one in shown.findings] == ["pass"]
    assert judged(measured(a_step(at=20, length=30)), head=24).exit_code == 1
    assert judged(measured(a_step()), base=99).exit_code == 2  # nobody knows what is newer


def test_what_came_back_is_no_regression() -> None:
    there_and_back = a_step(0.1, 8, 30) - stairs(30, 20, 1, 0.1)
    shown = judged(measured(there_and_back), head=29)
    assert [one.outcome for one in shown.findings] == ["improved", "pass"]
    assert shown.findings[1].reason.endswith("; back since")
    half = a_step(0.1, 8, 30) - stairs(30, 20, 1, 0.05)
    assert judged(measured(half), head=29).exit_code == 1
    lost = a_step(-0.1, 8, 30) + stairs(30, 20, 1, 0.1)  # an improvement that was lost
    assert judged(measured(lost), head=29).exit_code == 1


def test_what_eager_did_is_not_laid_to_kernl() -> None:
    faster_eager = [
        row for at, log in enumerate(a_step()) for row in timed(at, 1e-5, 2e-5 / float(np.exp(log)))
    ]
    found = only(judged(faster_eager))
    assert found.outcome == "pass"
    assert "eager's time moved, kernl's own by +0 %" in found.reason


def test_series_looked_at_together_are_told_like_each_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of several lengths and in parts; nothing that moved is passed over, and the order stays."""
    noise = np.random.default_rng(11)
    every = []
    for at in range(60):
        length = (8, 20, 21, 40)[at % 4]
        ratios = noise.normal(0, 0.004, length) + stairs(length, length // 2, 1, 0.05 * (at % 3))
        commits = [commit(number) for number in range(length)]
        key = Key(GPU_MACHINE, "kernels", "softmax", "time", f"rows{at}", "kernl")
        every.append(history.Series(key, commits, ratios, ratios - 11))
    newer = {commit(number) for number in range(4, 40)}
    alone = [found for one in every for found in history.moved([one], newer)]
    looked_at: list[tuple[int, ...]] = []

    def look(series: Array) -> Any:
        looked_at.append(series.shape)
        return can_move(series)

    monkeypatch.setattr(history, "can_move", look)
    monkeypatch.setattr(history, "_AT_ONCE", 200)
    together = history.moved(iter(every), newer)
    parts = [(15, 8), (10, 20), (5, 20), (9, 21), (6, 21), (5, 40), (5, 40), (5, 40)]
    assert looked_at == parts
    monkeypatch.setattr(history, "can_move", lambda series: np.full(len(series), True))
    assert history.moved(every, newer) == together == sorted(alone, key=worst_first)
    outcomes = [one.outcome for one in together]
    assert outcomes.count("regressed") >= 30
    assert outcomes.count("pass") >= 20
    assert history.moved([], newer) == []


def test_rows_that_belong_together_make_a_series() -> None:
    rows = [*timed(3), *timed(1, 2e-5), *timed(2, status="failed"), *timed(4, 0.0)]
    rows += [*timed(5)[:1], *timed(6, run="two"), *timed(7, version="2"), *timed(8)]
    rows[-1]["run"] = "two"
    table = frame(rows)
    some = history.series_of(table, RUNS, history.in_order(table, commit(8)))
    assert [list(one.commits) for one in some] == [
        [commit(1), commit(3)],
        [commit(6)],
        [commit(7)],
    ]
    assert some[0].ratios == pytest.approx([0.0, np.log(0.5)])
    assert some[0].times == pytest.approx(np.log([2e-5, 1e-5]))


def test_machine_suite_and_regular_expression_choose() -> None:
    rows = measured(a_step())
    assert (
        judged(rows, machine=GPU_MACHINE, suite="kernels", bench="kernels.Softmax").exit_code == 1
    )
    assert judged(rows, bench="LayerNorm").exit_code == 2
    assert judged(rows, suite="models").exit_code == 2
    assert GPU_MACHINE in judged(rows, machine="other").blockers[0]
    assert "nothing creeps" in judged(rows, suite="codegen").blockers[0]


def test_too_few_commits_are_said() -> None:
    shown = judged(measured(a_step(at=3, length=7)), head=6)
    assert shown.exit_code == 2
    assert "the longest of 1 series has 7" in shown.blockers[0]


def entry(number: int, limit: float = 1.2) -> Acknowledged:
    fields = {"op": "softmax", "case": "rows*", "metric": "time", "variant": "kernl"}
    last = datetime.date(2031, 1, 1)
    short = commit(number)[:8]
    return Acknowledged(
        7, "kernels", **fields, commit=short, reason="for less memory", expires=last, limit=limit
    )


def test_what_a_review_accepted_is_no_regression() -> None:
    rows = measured(a_step(0.1, 8, 30) + stairs(30, 20, 1, 0.1))
    shown = judged(rows, head=29, entries=[entry(8)])
    assert [one.outcome for one in shown.findings] == ["regressed", "acknowledged"]
    assert commit(20)[:12] in shown.findings[0].reason  # another commit's move of the same case
    assert judged(rows, head=29, entries=[entry(8), entry(20)]).exit_code == 0
    assert judged(rows, head=29, entries=[entry(8), entry(20, limit=1.05)]).exit_code == 1


def test_equal_dates_are_ordered_by_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make_repository(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert ancestry(second) == [first, second]
    date = pd.Timestamp("2030-01-01", tz="UTC")
    table = pd.DataFrame({"commit": [second, first, commit(1)], "committed_at": [date] * 3})
    assert history.in_order(table, second) == [first, second]
    assert history.in_order(table, first) == [first]
    assert ancestry("--all") == []
    monkeypatch.setenv("PATH", "")
    assert history.in_order(table, second) == sorted([second, first, commit(1)])


def test_what_no_file_of_an_operator_can_have_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        name = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
        command = ["git", "-C", str(tmp_path), *name, "-c", "commit.gpgsign=false", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    hashes = []
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "kernl" / "ops" / "rows.py"
    module.parent.mkdir(parents=True)
    for number in range(20):
        module.write_text(f"A = 'softmax'\nB = {number >= 5}  # {number}")
        git("add", ".")
        git("commit", "--quiet", "--message", "one")
        hashes.append(git("rev-parse", "HEAD"))

    def told(at: int, **fields: str) -> str:
        rows = measured(a_step(at=at))
        for row in rows:
            row.update(commit=hashes[int(row["commit"][:8], 16)], **fields)
        shown = history.judge(
            frame(rows),
            RUNS,
            hashes[0],
            hashes[-1],
            today=TODAY,
            repository=tmp_path,
        )
        found = only(shown)
        assert found.commits == (hashes[at],)
        return found.outcome

    assert told(5) == "regressed"
    assert told(10) == "pass"  # a comment alone
    assert told(10, suite="models", op="gpt2") == "pass"
    assert told(5, suite="models", op="gpt2") == "pass"  # softmax by itself is not in it
    assert told(10, suite="models", op="eliza") == "regressed"  # nobody knows what is in it
    assert told(10, op="linear") == "regressed"  # no file says what it depends on


def test_hostile_names_are_shown_as_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    shown = judged(measured(a_step(), case="x\x1b[31m\nnote: fine\u202e"))
    text = sentence(grouped(shown.findings)[0]) + to_markdown(shown)
    assert "\x1b" not in text
    assert "\u202e" not in text


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """asv's files of sixteen commits, of which the ninth makes one case of two slower."""
    for at, factor in enumerate(np.exp(a_step(0.1, 8, 16))):
        values = [2e-5, 1e-5 * float(factor), 2e-5, 1e-5]
        path = write_results(tmp_path, {SOFTMAX: values}, commit=commit(at))

        def dated(content: dict[str, Any], at: int = at) -> None:
            content["date"] += 86_400_000 * at

        edit(path, dated)
    return tmp_path


def run(results: Path, *words: str) -> int:
    return main(["--history", "--results", str(results), *words])


def test_the_command_on_results(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (results / "toy" / "spoilt.json").write_text("{")
    assert run(results, commit(0), commit(15)) == 1
    shown = capsys.readouterr().out
    assert f"(+10 %), by {commit(8)[:12]}, measured after {commit(7)[:12]}" in shown
    assert "2 of 2 series were judged" in shown
    assert "note: toy/spoilt.json" in shown
    assert run(results, commit(8), commit(15)) == 0
    assert run(results, commit(0), commit(9)) == 0  # two commits of it: no level yet
    assert run(results, commit(0), commit(15), "--machine", "other") == 2


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "none", "a" * 40, "b" * 40) == 2
    assert "is no directory" in capsys.readouterr().out
    for other in (["--measure"], ["--bisect", "x"], ["--pairs", "x"]):
        with pytest.raises(SystemExit):
            run(tmp_path, *other, "a", "b")
        assert f"--history goes without {other[0]}" in capsys.readouterr().err
