"""The gate's report as JUnit's XML, of names that anybody may have written."""

from xml.etree import ElementTree

import pytest

from benchmarks.gate.findings import Finding, Key, Outcome
from benchmarks.gate.junit import to_junit
from benchmarks.gate.report import Report

BASE, HEAD = "a" * 40, "b" * 40


def finding(
    outcome: Outcome, case: str = "one.fp16", reason: str = "why", op: str = "op"
) -> Finding:
    key = Key("h100", "kernels", op, "time", case, "kernl")
    return Finding(key, outcome, 1e-5, 1.1e-5, reason, 1.1, 1.05, 1.15)


def read(*findings: Finding, blockers: tuple[str, ...] = ()) -> ElementTree.Element:
    report = Report(BASE, HEAD, ("kernels",), ("h100",), findings, blockers)
    return ElementTree.fromstring(to_junit(report))


@pytest.mark.parametrize(
    ("outcome", "element"),
    [
        ("pass", None),
        ("improved", None),
        ("acknowledged", None),
        ("regressed", "failure"),
        ("failed", "failure"),
        ("unstable", "error"),
        ("undecided", "error"),
        ("missing", "error"),
        ("skipped", "skipped"),
        ("new", "skipped"),
    ],
)
def test_each_outcome_has_its_element(outcome: Outcome, element: str | None) -> None:
    (suite,) = read(finding(outcome))
    (case,) = suite
    assert [child.tag for child in case] == ([element] if element else [])
    if element:
        assert case[0].get("message") == f"{outcome} (+10 %): why"
    counted = {"failure": "failures", "error": "errors", "skipped": "skipped"}
    assert suite.get("tests") == "1"
    for tag, attribute in counted.items():
        assert suite.get(attribute) == str(int(tag == element))


def test_a_few_unstable_cases_of_a_pass_are_no_errors() -> None:
    many = [finding("pass", f"case{number}") for number in range(40)]
    root = read(*many, finding("unstable", "wild"))
    assert not list(root.iter("error"))
    assert root[0].get("tests") == "41"


def test_operators_are_suites() -> None:
    root = read(finding("pass", op="softmax"), finding("pass", op="linear"))
    assert [suite.get("name") for suite in root] == ["kernels.linear", "kernels.softmax"]


def test_what_keeps_a_run_from_deciding_is_an_error() -> None:
    root = read(finding("pass"), blockers=("the control differs",))
    (error,) = root.iter("error")
    assert error.get("message") == "the control differs"


def test_hostile_names_stay_text() -> None:
    nasty = '"><script>&\x00\x1b[31m\u202e\ud800]]>'
    root = read(finding("regressed", nasty, nasty, nasty), blockers=(nasty,))
    case = root[0][0]
    assert case.get("name", "").startswith('"><script>&\\x00\\x1b[31m\\u202e')
    assert not list(root.iter("script"))
