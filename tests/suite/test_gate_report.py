"""What the gate shows: sentences, the table, JSON, Markdown, and names that would be markup."""

import io
import json
import math
import re
from html import unescape
from typing import Any

import pytest
from markdown_it import MarkdownIt

from benchmarks.gate.findings import OUTCOMES, Finding, Key, Outcome
from benchmarks.gate.report import (
    MAX_GROUPS,
    Report,
    amount,
    clean,
    escape,
    group,
    percent,
    sentence,
    show,
    to_json,
    to_markdown,
)
from tests.suite.gate_rows import BASE, HEAD, count, gate, row, timing

HOSTILE = [
    "[red]alarm[/red]",
    "[link=http://example.com]click[/link]",
    "www.example.com",
    "- [ ] task",
    "1. first",
    "two\nlines",
    "two\r\nlines",
    "\x1b[31mred\x1b[0m",
    "\x1b]8;;http://example.com\x07link\x1b]8;;\x07",
    "a|b",
    "`code` **bold** _it_ ~~x~~",
    "<script>alert(1)</script>",
    "![image](http://example.com/x.png)",
    "@everyone #1 &amp; \\",
    "\u202etxt.exe",
    "\u2028next",
    "bell\x07 nul\x00 tab\t",
    ":warning:",
    "\udc80surrogate",
    "",
]


def printed(report: Report) -> str:
    stream = io.StringIO()
    show(report, stream)
    return stream.getvalue()


def hostile_report(name: str) -> Report:
    fields: dict[str, Any] = {"machine": name, "op": name, "case": name, "variant": name}
    regressed = count(BASE, **fields), count(HEAD, 48, **fields)
    crashed = (
        count(BASE, **{**fields, "case": "x"}),
        row(HEAD, "codegen", **{**fields, "case": "x"}, status="failed", reason=name),
    )
    return gate(*regressed, *crashed)


def test_the_sentence_of_a_count() -> None:
    report = gate(count(BASE, 32), count(HEAD, 48))
    assert [sentence(each) for each in group(report.findings)] == [
        "softmax rows4096_cols768.fp16 on sm_90: registers 32 → 48 (+50 %), more than before: "
        "fewer warps may fit beside each other"
    ]


@pytest.mark.parametrize(
    ("metric", "base", "head", "words"),
    [
        (
            "shared_memory",
            0,
            1024,
            "shared memory 0 → 1024 bytes (from 0), more than before: a tile",
        ),
        ("memory_instructions", 2, 9, "memory instructions 2 → 9 (+350 %), more than before: vec"),
        ("instructions", 100, 101, "instructions 100 → 101 (+1 %), more than before"),
        ("occupancy", 0.5, 0.25, "occupancy 0.5 → 0.25 (-50 %), less than before: fewer warps fit"),
        ("occupancy", 0.25, 0.5, "occupancy 0.25 → 0.5 (+100 %), more than before"),
    ],
)
def test_a_count_says_what_it_may_mean_that_it_is_worse(
    metric: str, base: float, head: float, words: str
) -> None:
    report = gate(count(BASE, base, metric=metric), count(HEAD, head, metric=metric))
    (said,) = [sentence(each) for each in group(report.findings)]
    assert words in said
    better = head > base and metric == "occupancy"
    assert (": " in said.partition("before")[2]) == (not better and metric != "instructions")


def test_the_sentence_of_a_time() -> None:
    report = gate(timing(BASE), timing(HEAD, 1.1e-5))
    (words,) = [sentence(each) for each in group(report.findings)]
    assert words.startswith(
        "softmax rows4096_cols768.fp16 on nvidia-h200: time 10 µs → 11 µs (+10 %, 99 % interval +9."
    )
    assert words.endswith("slower by more than noise and the 2.0 % limit of this case")


def test_the_sentence_of_a_crash() -> None:
    crash = row(HEAD, "codegen", status="failed", reason="out of registers")
    (words,) = [sentence(each) for each in group(gate(count(BASE), crash).findings)]
    assert words == (
        "softmax rows4096_cols768.fp16 on sm_90: registers failed: failed on head: out of registers"
    )


def test_equal_changes_are_one_line() -> None:
    cases = [f"rows{rows}_cols1.fp16" for rows in range(400)]
    base = [count(BASE, case=case) for case in cases]
    head = [count(HEAD, 48, case=case) for case in cases]
    report = gate(*base, *head)
    out = printed(report)
    assert report.counts == {"regressed": 400}
    assert "softmax rows0_cols1.fp16 and 399 more on sm_90: registers 32 → 48" in out
    assert len(out.splitlines()) < 12


def test_many_changes_are_cut_and_json_has_all() -> None:
    cases = [f"rows{rows}_cols1.fp16" for rows in range(400)]
    base = [count(BASE, case=case) for case in cases]
    head = [count(HEAD, 33 + index, case=case) for index, case in enumerate(cases)]
    report = gate(*base, *head)
    for shown in (printed(report), unescape(to_markdown(report))):
        assert f"… and {400 - MAX_GROUPS} more, see --json" in shown
        sentences = [line for line in shown.splitlines() if line.startswith("- softmax")]
        assert len(sentences) == MAX_GROUPS
        assert "32 → 432" in sentences[0]
    assert len(to_json(report)["findings"]) == 400


def test_an_undecided_toolchain_is_one_line() -> None:
    finding = Finding(Key("m", "codegen", "a", "x", "c", "sm_80"), "undecided", 1, 1, "triton")
    others = [
        Finding(Key("m", "codegen", op, "y", "d", "sm_90"), "undecided", 1, 1, "triton")
        for op in "bcd"
    ]
    (only,) = group([finding, *others])
    assert sentence(only) == (
        "a and 3 more c and 1 more on sm_80 and 1 more: x and 1 more (4 measurements) undecided: "
        "triton"
    )


def test_the_last_line_is_the_verdict() -> None:
    last = printed(gate(count(BASE), count(HEAD))).splitlines()[-1]
    assert last == "PASS (exit 0): no regression that was not acknowledged; 1 pass"
    last = printed(gate(count(BASE), count(HEAD, 48))).splitlines()[-1]
    assert last == "REGRESSION (exit 1): at least one that was not acknowledged; 1 regressed"
    last = printed(gate()).splitlines()[-1]
    assert last.startswith("UNDECIDED (exit 2): could not decide, which is not a pass; nothing")


@pytest.mark.parametrize("columns", ["20", "80", "120", "400"])
def test_the_table_fits(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    case = "m128_n3072_k768_bias_gelu_tanh_residual.fp16"
    out = printed(gate(count(BASE, case=case), count(HEAD, 48, case=case)))
    table = out[: out.index("- softmax")].splitlines()
    assert max(map(len, table)) <= max(80, min(120, int(columns)))
    assert any("registers on sm_90" in line for line in table)
    assert any(re.search(r" 32 → 48 +\+50 %$", line.rstrip()) for line in table)
    assert "\x1b" not in out


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_printed_inert(name: str) -> None:
    report = hostile_report(name)
    out = printed(report)
    assert set(out) & {chr(code) for code in range(32)} <= {"\n"}
    assert all(character.isprintable() or character == "\n" for character in out)
    # Shown as they are, not eaten as markup: each sentence stands on a line of its own.
    sentences = [line for line in out.splitlines() if line.startswith("- ")]
    assert len(sentences) == 2
    assert all(clean(name) in line for line in sentences)
    assert report.exit_code == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_inert_in_markdown(name: str) -> None:
    markdown = to_markdown(hostile_report(name))
    lines = markdown.splitlines()
    assert all(line.count("|") == 8 for line in lines if line.startswith("|"))
    # Two findings, two notes.
    assert len([line for line in lines if line.startswith("- ")]) == 4
    assert not [line for line in lines if re.match(r"- ([-+*\d]|\s)", line)]
    # Everything but the table's own frame and the list's dashes is inert.
    content = "".join(line for line in lines if not line.startswith("|")).replace("### ", "")
    content = re.sub(r"&#\d+;|(?<=[A-Za-z0-9])_(?=[A-Za-z0-9])", "", content)
    assert not set(content) & set("`*_[]<>|!~@\\&#$")
    assert "://" not in markdown
    assert "www." not in markdown
    visible = unescape(markdown).replace("\u2060", "")
    assert clean(name) in visible


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_renders_to_the_names_and_nothing_else(name: str) -> None:
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    html = parser.render(to_markdown(hostile_report(name)))
    frame = {"h3", "p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert set(re.findall(r"</?([a-z0-9]+)", html)) == frame
    assert html.count("<li>") == 4
    assert html.count("<tr>") == 3
    assert clean(name).strip() in unescape(html).replace("\u2060", "")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_survive_json(name: str) -> None:
    report = hostile_report(name)
    read = json.loads(json.dumps(to_json(report), allow_nan=False))
    assert read["findings"][0]["case"] in {name, "x"}
    assert {finding["op"] for finding in read["findings"]} == {name}


def test_hostile_revisions_are_shown_inert() -> None:
    report = Report("\x1b[31m`|", "[red]\n", (), (), (), blockers=["\x1b[0m"])
    assert "\x1b" not in printed(report)
    assert "\\x1b[31m`|" in printed(report)
    assert "\x1b" not in to_markdown(report)


def test_a_long_reason_is_cut() -> None:
    assert len(clean("x" * 10_000)) <= 400


def test_json_has_no_number_that_json_lacks() -> None:
    crash = row(HEAD, "codegen", op="linear", status="failed")
    spill = count(BASE, 0, metric="spills"), count(HEAD, 4, metric="spills")
    report = gate(*spill, count(BASE, op="linear"), crash)
    content = json.loads(json.dumps(to_json(report), allow_nan=False))
    assert content["exit_code"] == 1
    assert content["counts"] == {"failed": 1, "regressed": 1}
    failed, regressed = content["findings"]
    assert (failed["outcome"], failed["base"], failed["head"]) == ("failed", 32.0, None)
    assert (regressed["base"], regressed["head"], regressed["ratio"]) == (0.0, 4.0, None)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_each_outcome_has_its_exit_code(outcome: Outcome) -> None:
    key = Key("m", "codegen", "softmax", "registers", "c", "sm_90")
    alone = Report(BASE, HEAD, ("codegen",), ("m",), [Finding(key, outcome, 1, 1, "")])
    passed = Finding(key, "pass", 1, 1, "")
    beside = Report(BASE, HEAD, ("codegen",), ("m",), [*alone.findings, passed])
    red = outcome in {"failed", "regressed"}
    open_question = outcome in {"missing", "unstable", "undecided"}
    assert beside.exit_code == (1 if red else 2 if open_question else 0)
    decides = outcome in {"pass", "improved", "acknowledged"}
    assert alone.exit_code == (1 if red else 0 if decides else 2)


@pytest.mark.parametrize(
    ("value", "metric", "shown"),
    [
        (3.1e-6, "time", "3.1 µs"),
        (2.5e-9, "time", "2.5 ns"),
        (0.0123, "time", "12.3 ms"),
        (2.0, "time", "2 s"),
        (1234567.0, "instructions", "1234567"),
        (0.75, "occupancy", "0.75"),
        (math.nan, "time", "–"),
        (math.inf, "registers", "inf"),
        (-math.inf, "time", "-inf"),
    ],
)
def test_amounts(value: float, metric: str, shown: str) -> None:
    assert amount(value, metric) == shown


@pytest.mark.parametrize(
    ("ratio", "shown"),
    [(1.5, "+50 %"), (0.9, "-10 %"), (math.inf, "from 0"), (40.0, "×40"), (math.nan, "–")],
)
def test_percent(ratio: float, shown: str) -> None:
    assert percent(ratio) == shown


def test_escape_keeps_plain_words() -> None:
    plain = "rows4096_cols768.fp16 registers 32 → 48 (+50 %), more"
    assert escape(plain) == plain
    assert escape("_a_b_ *") == "&#95;a_b&#95; &#42;"
