"""The reviewed file of promised speeds: what it may hold, and what the gate says of a promise."""

import io
import math
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks import models, store
from benchmarks.cases import NOT_SELECTED
from benchmarks.gate import floors
from benchmarks.gate.command import RESULTS
from benchmarks.gate.findings import Finding
from benchmarks.gate.floors import Floor, check, is_opponent, load, unmeasured
from benchmarks.gate.junit import to_junit
from benchmarks.gate.report import Report, show, to_json, to_markdown
from benchmarks.gate.reviewed import ReviewedError
from dashboards.data import summary
from tests.suite.gate_rows import BASE, GPU_MACHINE, HEAD, Row, count, frame, row

KEPT_BY = "30208d4c905eed25e4dd8303d894e5d73d611921"
MACHINE = "nvidia-h100-80gb-hbm3"
SPARE = 1.05
"""Two processes of one commit differ by as much: a promise nearer than that fails by chance."""
CASE = "batch1_seq128.fp16"
ENTRY = """
[[floor]]
suite = "models"
op = "bert_base"
case = "batch1_*.fp16"
over = "best"
at_least = 1.5
machine = "nvidia-h?00*"
reason = "one sentence"
"""
HOSTILE = "a|<b>`*x*`\x1b[31m\u202e\n@all]]>"


def read(tmp_path: Path, text: str) -> list[Floor]:
    path = tmp_path / "floors.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ReviewedError) as refused:
        read(tmp_path, text)
    assert str(refused.value) == "\n".join(refused.value.problems)
    return refused.value.problems


def promise(at_least: float = 1.5, over: str = "best", **fields: Any) -> Floor:
    made: dict[str, Any] = {
        "line": 2,
        "suite": "models",
        "op": "bert_base",
        "case": "batch1_*.fp16",
        "reason": "one sentence",
    }
    return Floor(at_least=at_least, over=over, **{**made, **fields})


def point(variant: str, seconds: float = 1.0, commit: str = HEAD, **fields: Any) -> Row:
    own = {"op": "bert_base", "case": CASE, "variant": variant, "value": seconds}
    return row(commit, "models", **{**own, **fields})


def timed(**seconds: float) -> list[Row]:
    return [point(variant, value) for variant, value in seconds.items()]


def only(rows: list[Row], *given: Floor) -> Finding:
    (found,) = check(frame(rows), HEAD, given or (promise(),))
    return found


def said_of(rows: list[Row], *given: Floor) -> list[str]:
    return unmeasured(frame(rows), HEAD, given or (promise(),))


@pytest.fixture
def stored(tmp_path: Path) -> pd.DataFrame:
    """The committed results of the commit by which the promises were made, and no others."""
    root = tmp_path / "results"
    (root / MACHINE).mkdir(parents=True)
    paths = [RESULTS / MACHINE / "machine.json"]
    paths += sorted((RESULTS / MACHINE).glob(f"{KEPT_BY[:8]}-*"))
    assert len(paths) > 2, f"the results of {KEPT_BY[:8]} are gone: set KEPT_BY to another commit"
    for path in paths:
        shutil.copy(path, root / MACHINE)
    return store.load(root).rows


def test_the_file_of_the_project_is_kept_by_the_stored_commit(stored: pd.DataFrame) -> None:
    promised = load(floors.PATH)
    assert len(promised) >= 10
    assert {one.suite for one in promised} == {"kernels", "models"}
    found = check(stored, KEPT_BY, promised)
    assert [f"{one.key} {one.reason}" for one in found if one.outcome != "pass"] == []
    assert [f"{one.key} {one.ratio}" for one in found if one.ratio < SPARE] == []
    assert unmeasured(stored, KEPT_BY, promised) == []
    # Two promises about one case could not be told apart in a report.
    assert len({one.key for one in found}) == len(found)
    stored.loc[stored["variant"] == "kernl", "value"] *= 100
    assert {one.outcome for one in check(stored, KEPT_BY, promised)} == {"regressed"}


@pytest.mark.parametrize("suite", ["kernels", "models"])
def test_the_best_opponent_is_that_of_the_published_tables(
    stored: pd.DataFrame, suite: str
) -> None:
    published = summary.speedups(stored, suite)
    known = published[published["over_best"].notna()].set_index(["op", "case"])
    every = [promise(1e-6, suite=suite, op=op, case="*") for op in set(published["op"])]
    found = {(one.key.op, one.key.case): one for one in check(stored, KEPT_BY, every)}
    heads = {key: one.head for key, one in found.items() if one.outcome == "pass"}
    assert len(known) > 50
    assert heads == pytest.approx(known["over_best"].to_dict())


def test_a_part_of_kernl_is_no_opponent() -> None:
    ours = {name for name in models.IMPLEMENTATIONS if not is_opponent(name)}
    assert ours == {*summary.PARTS, summary.OURS}
    rows = timed(kernl=1.0, kernl_graphs_only=0.5, kernl_rewrite_only=0.25, cudagraph=2.0)
    assert only(rows).head == 2.0
    alone = only(timed(kernl=1.0, kernl_graphs_only=0.5, kernl_rewrite_only=0.25))
    assert (alone.outcome, math.isnan(alone.head)) == ("undecided", True)
    assert alone.reason.startswith("no time of any other implementation, promised are 1.5:")


def test_an_entry_is_read(tmp_path: Path) -> None:
    other = ENTRY.replace('machine = "nvidia-h?00*"\n', "").replace("1.5", "2")
    first, second = read(tmp_path, ENTRY + other)
    assert first == promise(machine="nvidia-h?00*")
    assert second == promise(2.0, line=11, machine="*")
    assert isinstance(second.at_least, float)
    assert read(tmp_path, "# nothing promised\n") == []
    assert read(tmp_path, ENTRY.replace("1.5", "1e-3"))[0].at_least == 0.001
    # The line of an entry is known whatever ends the lines, and whatever a comment holds.
    apart = "# \u2028 one line \x85\n" + ENTRY.replace("\n", "\r\n")
    (tmp_path / "apart.toml").write_bytes(apart.encode())
    assert load(tmp_path / "apart.toml")[0].line == 3


@pytest.mark.parametrize("key", floors.NEEDED)
def test_every_key_but_the_machine_is_needed(tmp_path: Path, key: str) -> None:
    kept = [line for line in ENTRY.splitlines() if not line.startswith(f"{key} =")]
    (problem,) = problems(tmp_path, "\n".join(kept))
    assert f"line 2: '{key}' is missing" in problem


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"one sentence"', '""', "'reason' is '', it must be text that is not empty"),
        ('"one sentence"', '" \\t"', "text that is not empty"),
        ('"models"', '"codegen"', "'suite' is 'codegen', allowed: kernels, models"),
        ('"models"', '["models"]', "'suite' is ['models']"),
        ('"bert_base"', '"bert_*"', "'op' is 'bert_*', it must be an exact name"),
        ('"bert_base"', '"bert_base\\n"', "'op' is 'bert_base\\n'"),
        ('"batch1_*.fp16"', '" "', "'case' is ' '"),
        ('"batch1_*.fp16"', "1", "'case' is 1"),
        ('"nvidia-h?00*"', '""', "'machine' is ''"),
        ('"best"', '""', "'over' is '', it must be 'best' or the exact name of an opponent"),
        ('"best"', '"compile*"', "'over' is 'compile*'"),
        ('"best"', '"\\u001b[31m"', "'over' is '\\x1b[31m'"),
        ('"best"', '"kernl"', "'over' is 'kernl', it must be"),
        ('"best"', '"kernl_graphs_only"', "kernl and its parts are none"),
        ("= 1.5", "= 0", "'at_least' is 0, it must be a number above 0 and up to 1e+09"),
        ("= 1.5", "= -0.0", "'at_least' is -0.0"),
        ("= 1.5", "= nan", "'at_least' is nan"),
        ("= 1.5", "= inf", "'at_least' is inf"),
        ("= 1.5", "= true", "'at_least' is True"),
        ("= 1.5", '= "1.5"', "'at_least' is '1.5'"),
        ("= 1.5", "= 1" + "0" * 400, "'at_least' is 1000"),
        ("= 1.5", "= 1.5\natleast = 2", "unknown key 'atleast'. Allowed: [[floor]] tables"),
    ],
)
def test_a_wrong_entry_is_refused_in_words(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in ENTRY
    (problem,) = problems(tmp_path, "# a comment\n" + ENTRY.replace(old, new))
    assert "floors.toml, line 3: " in problem
    assert words in problem


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    wrong = ENTRY.replace("1.5", "nan").replace('"best"', '"kernl"')
    found = problems(tmp_path, "top = 1\n" + ENTRY + wrong + ENTRY.replace('"models"', '"model"'))
    places = [problem.partition("floors.toml")[2][:9] for problem in found]
    assert places == [": unknown", ", line 12", ", line 12", ", line 21"]


def test_the_same_promise_twice_is_refused(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, ENTRY + ENTRY.replace("1.5", "1.2"))
    assert "line 11: the same cases and opponent as in line 2: keep one of them" in problem
    table = "{" + ", ".join(ENTRY.strip().splitlines()[1:]) + "}"
    (problem,) = problems(tmp_path, f"floor = [{table}, {table}]")
    assert "entry 2: the same cases and opponent as in entry 1" in problem
    read(tmp_path, ENTRY + ENTRY.replace('"best"', '"eager"'))
    read(tmp_path, ENTRY + ENTRY.replace("h?00", "h2??"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[floor]\n", "at line 1"),
        ("\ufeff" + ENTRY, "is not TOML"),
        ("floor = 3", "not a list of tables"),
        ("[floor]\nsuite = 'models'", "not a list of tables"),
        ("[floors]\n", "unknown key 'floors' at the top"),
        ("at_least = " + "9" * 5000, "is not TOML"),
        ("x = " + "[" * 100_000, "is not TOML"),
        ("floor = [{op = 'bert_base'}]", "entry 1: 'suite' is missing"),
    ],
)
def test_a_malformed_file_is_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    found = problems(tmp_path, text)
    assert words in found[0]
    assert all("missing" in problem or "Allowed: " in problem for problem in found)


def test_a_file_that_cannot_be_read_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.toml", tmp_path, tmp_path / "binary.toml", Path("a\0b")):
        with pytest.raises(ReviewedError, match=r"cannot be read .*: give a UTF-8 TOML file"):
            load(path)


@pytest.mark.parametrize(
    ("kernl", "outcome", "shown"),
    [
        (1.0, "pass", "1.5"),
        (math.nextafter(1.0, 2.0), "regressed", "1.4999999999999998"),
        (1.001, "regressed", "1.499"),
        (1.1, "regressed", "1.36"),
        (0.5, "pass", "3"),
        (1e-300, "pass", "1.5e+300"),
    ],
)
def test_a_promise_is_just_kept_and_just_missed(kernl: float, outcome: str, shown: str) -> None:
    found = only(timed(kernl=kernl, eager=9.0, compile_cudagraph=1.5))
    assert found.outcome == outcome
    words = f"{shown} times as fast as compile_cudagraph, promised are 1.5: one sentence"
    assert found.reason == words
    assert (found.base, found.head) == (1.5, 1.5 / kernl)
    assert found.ratio == found.low == found.high == found.head / 1.5
    assert found.key == (GPU_MACHINE, "models", "bert_base", "speedup", CASE, "kernl")
    assert (found.ratio < 1) == (outcome == "regressed")


def test_a_known_loss_must_not_get_worse() -> None:
    known = promise(0.5)
    assert only(timed(kernl=2.0, eager=1.0), known).outcome == "pass"
    lost = only(timed(kernl=2.5, eager=1.0), known)
    assert (lost.outcome, lost.head) == ("regressed", 0.4)


def test_one_opponent_can_be_named() -> None:
    rows = timed(kernl=1.0, eager=9.0, compile=4.0, compile_cudagraph=1.2)
    assert only(rows, promise(5, "eager")).head == 9.0
    assert only(rows, promise(5, "compile")).outcome == "regressed"
    assert only(rows).reason.startswith("1.2 times as fast as compile_cudagraph, promised")


@pytest.mark.parametrize(
    ("rows", "over", "words"),
    [
        ([point("kernl", status="failed", reason="off by 3e-1")], "best", "failed, off by 3e-1"),
        ([point("kernl", status="failed")], "eager", "kernl: failed, no reason recorded"),
        ([point("kernl", math.nan)], "best", "kernl: nan s is no positive time"),
        ([point("kernl", -1.0)], "best", "kernl: -1 s is no positive time"),
        ([point("kernl", math.inf)], "best", "kernl: inf s is no positive time"),
        ([*timed(kernl=1.0, kernl_graphs_only=9.0)], "library", "of library: it has no row"),
        ([point("kernl"), point("library", status="failed")], "library", "library: failed, no r"),
    ],
)
def test_what_cannot_be_compared_is_undecided(rows: list[Row], over: str, words: str) -> None:
    rows = [*rows, point("eager", 9.0)]
    found = only(rows, promise(over=over))
    assert found.outcome == "undecided"
    assert words in found.reason
    assert found.reason.endswith(", promised are 1.5: one sentence")
    assert found.base == 1.5
    assert math.isnan(found.head)
    assert math.isnan(found.ratio)
    assert said_of(rows, promise(over=over)) == []
    assert only([*timed(kernl=1.0, eager=9.0)] * 2).reason.startswith("measured twice for one com")


def test_opponents_without_a_time_are_none() -> None:
    broken = [point("autocast", 0.0), {**point("compile", 9.0), "status": "failed"}]
    assert only([*broken, *timed(kernl=1.0, eager=2.0)]).head == 2.0
    assert only([*broken, *timed(kernl=1.0)]).outcome == "undecided"
    assert only([*broken, *timed(kernl=1.0)], promise(over="compile")).outcome == "undecided"


def test_the_best_is_unknown_where_eager_alone_was_asked_for() -> None:
    left_out = point("compile", status="skipped", reason=NOT_SELECTED)
    rows = [left_out, *timed(kernl=1.0, eager=2.0)]
    found = only(rows)
    assert found.outcome == "undecided"
    assert "no time of any opponent but eager" in found.reason
    # Over eager it holds, and what eager misses already the best misses too.
    assert only(rows, promise(over="eager")).outcome == "pass"
    assert only(rows, promise(3)).outcome == "regressed"
    assert only([*rows, point("cudagraph", 1.8)]).outcome == "pass"
    part = point("kernl_graphs_only", status="skipped", reason=NOT_SELECTED)
    assert only([part, *timed(kernl=1.0, eager=2.0)]).outcome == "pass"


def test_a_case_that_kernl_leaves_to_eager_has_eagers_time() -> None:
    kernl = point("kernl", status="skipped", reason="no heads of 512")
    found = only([kernl, *timed(eager=2.0, compile=1.0)])
    assert (found.outcome, found.head) == ("regressed", 0.5)
    words = "0.5 times as fast as compile, with the time of eager, to which kernl leaves it (no hea"
    assert found.reason.startswith(words)
    assert only([kernl, *timed(eager=2.0)], promise(1, "eager")).outcome == "pass"
    assert only([kernl, *timed(compile=2.0)]).reason.startswith("no time of eager, to which kernl")


@pytest.mark.parametrize("pattern", ["*", GPU_MACHINE, "nvidia-h2[0-9]0", "nvidia-*"])
def test_a_promise_is_about_the_machines_of_its_pattern(pattern: str) -> None:
    there = promise(machine=pattern)
    rows = timed(kernl=1.0, eager=2.0)
    slow = [{**one, "machine": "cpu"} for one in timed(kernl=4.0, eager=2.0)]
    found = check(frame([*rows, *slow]), HEAD, [there])
    here = {"cpu": "regressed"} if pattern == "*" else {}
    assert {one.key.machine: one.outcome for one in found} == {GPU_MACHINE: "pass", **here}
    (alone,) = check(frame([*rows, *slow]), HEAD, [there], GPU_MACHINE)
    assert alone.key.machine == GPU_MACHINE
    assert check(frame(slow), HEAD, [there], GPU_MACHINE) == []
    assert unmeasured(frame(slow), HEAD, [there], GPU_MACHINE) != []


@pytest.mark.parametrize(
    "fields",
    [
        *({"suite": "kernels"}, {"op": "bert"}, {"machine": "nvidia-h100*"}),
        *({"case": "batch1_seq128"}, {"case": "BATCH1_*"}),
    ],
)
def test_a_promise_about_nothing_that_was_measured_is_named(fields: dict[str, Any]) -> None:
    rows, other = timed(kernl=1.0, eager=2.0), promise(**fields)
    assert check(frame(rows), HEAD, [other]) == []
    (words,) = said_of(rows, promise(), other)
    assert words == f"floor of line 2 matches nothing that was measured: {other}"
    assert all(part in words for part in ("bert", "over best on ", other.machine, other.case))


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [count(HEAD, op="bert_base", case=CASE)],
        timed(eager=2.0),
        [point("kernl", status="skipped", reason=NOT_SELECTED), point("eager", 2.0)],
        [point("kernl", status="skipped"), point("eager", 2.0)],
        [point(name, 2.0, BASE) for name in ("kernl", "eager")],
    ],
)
def test_without_a_measurement_nothing_passes(rows: list[Row]) -> None:
    given = [promise(), promise(over="eager", line=0)]
    assert check(frame(rows), HEAD, given) == []
    first, second = said_of(rows, *given)
    assert first.startswith("floor of line 2 matches nothing that was measured: models bert_base")
    assert second.startswith("floor of an unknown line matches nothing")


def test_cases_of_a_promise_that_were_left_out_are_counted() -> None:
    left_out = point("kernl", case="batch1_seq16.fp16", status="skipped", reason=NOT_SELECTED)
    rows = [left_out, *timed(kernl=1.0, eager=2.0)]
    assert only(rows).outcome == "pass"
    (words,) = said_of(rows)
    assert words.startswith("floor of line 2 was not checked on 1 of its 2 cases, not measured")


def test_what_is_missed_comes_first() -> None:
    rows = timed(kernl=1.0, eager=2.0)
    rows += [{**one, "case": "batch1_a.fp16"} for one in rows]
    given = [promise(1, over="compile"), promise(2), promise(3, case="*seq*")]
    found = check(frame(rows), HEAD, given)
    assert [one.outcome for one in found] == ["regressed", *["undecided"] * 2, *["pass"] * 2]


def test_hostile_names_are_shown_as_text() -> None:
    hostile = promise(3, line=0, op=HOSTILE, case="a|<b>*", reason=HOSTILE)
    names = {"op": HOSTILE, "case": HOSTILE, "machine": HOSTILE}
    found = only([{**one, **names} for one in [point("kernl"), point(HOSTILE, 2.0)]], hostile)
    assert (found.outcome, found.head) == ("regressed", 2.0)
    report = Report(BASE, HEAD, ("models",), (HOSTILE,), [found], (), said_of([], hostile))
    stream = io.StringIO()
    show(report, stream)
    for text in (stream.getvalue(), to_markdown(report), to_junit(report)):
        assert not set(text) & set("\x1b\u202e")
    assert "<b>" not in to_markdown(report) + to_junit(report)
    assert to_json(report)["findings"][0]["head"] == 2.0
