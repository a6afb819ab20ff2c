"""The reviewed file of accepted regressions: what it may hold, and what an entry does."""

import datetime
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gate import acknowledged
from benchmarks.gate.acknowledged import Acknowledged, load
from benchmarks.gate.reviewed import ReviewedError
from tests.suite.gate_rows import BASE, HEAD, OTHER, TODAY, count, gate, row, timing

ENTRY = """
[[acknowledged]]
suite = "codegen"
op = "softmax"
case = "rows*_cols768.fp16"
metric = "registers"
variant = "sm_9*"
commit = "bbbbbbb"
reason = "two rows a program: less time on the GPU"
expires = 2030-06-01
limit = 1.5
"""


def read(tmp_path: Path, text: str) -> list[Acknowledged]:
    path = tmp_path / "acknowledged.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ReviewedError) as refused:
        read(tmp_path, text)
    return refused.value.problems


def entry(**fields: Any) -> Acknowledged:
    made: dict[str, Any] = {
        "line": 2,
        "suite": "codegen",
        "op": "softmax",
        "case": "rows*_cols768.fp16",
        "metric": "registers",
        "variant": "sm_9*",
        "commit": HEAD[:7],
        "reason": "measured faster",
        "expires": TODAY,
        "limit": 1.5,
    }
    return Acknowledged(**{**made, **fields})


def test_the_file_of_the_project_is_sound() -> None:
    load(acknowledged.PATH)


def test_the_example_in_the_file_of_the_project_is_sound(tmp_path: Path) -> None:
    lines = acknowledged.PATH.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if "[[acknowledged]]" in line)
    length = lines[start:].index("#")
    example = "\n".join(line.removeprefix("#").strip() for line in lines[start : start + length])
    assert read(tmp_path, example)[0].op == "softmax"


def test_an_entry_is_read(tmp_path: Path) -> None:
    first, second = read(tmp_path, ENTRY + ENTRY.replace("2030-06-01", '"2031-01-31"'))
    assert first == entry(reason="two rows a program: less time on the GPU")
    assert (second.line, second.expires) == (13, datetime.date(2031, 1, 31))
    assert read(tmp_path, ENTRY.replace("1.5", "inf"))[0].limit == math.inf
    assert read(tmp_path, "# nothing accepted\n") == []


@pytest.mark.parametrize("key", acknowledged.KEYS)
def test_every_key_is_needed(tmp_path: Path, key: str) -> None:
    kept = [line for line in ENTRY.splitlines() if not line.startswith(f"{key} =")]
    (problem,) = problems(tmp_path, "\n".join(kept))
    assert f"line 2: '{key}' is missing" in problem


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"two rows a program: less time on the GPU"', '""', "'reason' is ''"),
        ('"two rows a program: less time on the GPU"', '" \\t"', "text that is not empty"),
        ('"two rows a program: less time on the GPU"', "7", "'reason' is 7"),
        ('"codegen"', '"model"', "allowed: kernels, models, codegen"),
        ('"codegen"', '["codegen"]', "'suite' is ['codegen']"),
        ('"registers"', '"time"', "allowed for codegen: registers, spills"),
        ('"registers"', '["registers"]', "allowed for codegen"),
        ('"softmax"', '""', "'op' is ''"),
        ('"bbbbbbb"', '"bbb"', "7 to 40"),
        ('"bbbbbbb"', '"HEAD~1"', "7 to 40"),
        ('"bbbbbbb"', "1234567", "7 to 40"),
        ("2030-06-01", '"soon"', "a date such as"),
        ("2030-06-01", "2030-06-01T10:00:00", "a date such as"),
        ("2030-06-01", "7", "a date such as"),
        ("limit = 1.5", "limit = 0.9", "'limit' is 0.9"),
        ("limit = 1.5", "limit = nan", "'limit' is nan"),
        ("limit = 1.5", "limit = true", "'limit' is True"),
        ("limit = 1.5", 'limit = "2"', "'limit' is '2'"),
        ("limit = 1.5", "limit = 1" + "0" * 400, "'limit' is 1000"),
        ("limit = 1.5", "limit = 1.5\nlimits = 2", "unknown key 'limits'"),
    ],
)
def test_a_wrong_entry_is_refused_in_words(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in ENTRY
    (problem,) = problems(tmp_path, "# a comment\n" + ENTRY.replace(old, new))
    assert "line 3: " in problem
    assert words in problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[acknowledged]\n", "at line 1"),
        (ENTRY + "\nreason = 'again'\n", "at line"),
        ("acknowledged = 3", "not a list of tables"),
        ("acknowledged = [3]", "not a list of tables"),
        ("[acknowledge]\n", "unknown key 'acknowledge'"),
        ("limit = " + "9" * 5000, "is not TOML"),
        ("x = " + "[" * 100_000, "is not TOML"),
        ("acknowledged = [{op = 'softmax'}]", "entry 1: 'suite' is missing"),
    ],
)
def test_a_malformed_file_is_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    found = problems(tmp_path, text)
    assert words in found[0]
    assert all("missing" in problem or "Allowed: " in problem for problem in found)


def test_a_file_that_cannot_be_read_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ReviewedError, match="cannot be read"):
        load(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReviewedError, match="cannot be read"):
        load(tmp_path / "binary.toml")


def test_an_accepted_regression_passes() -> None:
    rows = count(BASE, 32), count(HEAD, 48)
    assert gate(*rows).exit_code == 1
    report = gate(*rows, entries=[entry()])
    assert report.exit_code == 0
    assert report.counts == {"acknowledged": 1}
    assert report.findings[0].reason == "accepted: measured faster"
    assert not any("line 2" in note for note in report.notes)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"suite": "kernels", "metric": "time"}, "matches no regression"),
        ({"op": "soft*"}, "matches no regression"),
        ({"case": "*.bf16"}, "matches no regression"),
        ({"metric": "spills"}, "matches no regression"),
        ({"variant": "sm_8*"}, "matches no regression"),
        ({"commit": OTHER[:7]}, "is stale"),
        ({"commit": BASE[:7]}, "is stale"),
        ({"expires": datetime.date(2030, 5, 31)}, "expired on 2030-05-31"),
    ],
)
def test_an_entry_about_something_else_is_reported(fields: dict[str, Any], words: str) -> None:
    report = gate(count(BASE, 32), count(HEAD, 48), entries=[entry(**fields)])
    assert report.exit_code == 1
    assert report.counts == {"regressed": 1}
    assert any(words in note and "line 2" in note for note in report.notes)


def test_an_entry_of_an_earlier_commit_of_the_range_counts() -> None:
    rows = count(BASE, 32), count(HEAD, 48)
    entries = [entry(commit=OTHER[:7])]
    assert gate(*rows, entries=entries, commits=[HEAD, OTHER]).exit_code == 0


def test_the_limit_holds() -> None:
    report = gate(count(BASE, 32), count(HEAD, 49), entries=[entry()])
    assert report.exit_code == 1
    assert "accepted only up to 1.5 times, is 1.531 times" in report.findings[0].reason
    assert gate(count(BASE, 10), count(HEAD, 11), entries=[entry(limit=1.1)]).exit_code == 0
    # Nothing is a multiple of no spills.
    spills = count(BASE, 0, metric="spills"), count(HEAD, 8, metric="spills")
    assert gate(*spills, entries=[entry(metric="spills", limit=1000.0)]).exit_code == 1
    assert gate(*spills, entries=[entry(metric="spills", limit=math.inf)]).exit_code == 0
    # Where higher is better, worse is base / head.
    lower = count(BASE, 1.0, metric="occupancy"), count(HEAD, 0.5, metric="occupancy")
    assert gate(*lower, entries=[entry(metric="occupancy", limit=1.9)]).exit_code == 1
    assert gate(*lower, entries=[entry(metric="occupancy", limit=2.0)]).exit_code == 0


def test_a_later_entry_can_cover_what_an_earlier_one_does_not() -> None:
    rows = count(BASE, 32), count(HEAD, 64)
    assert gate(*rows, entries=[entry(), entry(line=13, limit=2.0)]).exit_code == 0


def test_time_can_be_accepted_and_a_crash_cannot() -> None:
    of_time = entry(suite="kernels", metric="time", variant="kernl", limit=1.2)
    assert gate(timing(BASE), timing(HEAD, 1.1e-5), entries=[of_time]).exit_code == 0
    crash = row(HEAD, "kernels", status="failed")
    assert gate(timing(BASE), crash, entries=[of_time]).exit_code == 1
