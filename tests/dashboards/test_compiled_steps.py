"""Steps of compiled code: exact figures, so any change is one, told by what is worse."""

import re

import pandas as pd
import pytest

from dashboards import pages
from dashboards.data.source import Source
from dashboards.tabular import compiled_steps
from dashboards.tabular.commit_links import CommitLinks
from dashboards.tabular.compiled_steps import Step
from tests.dashboards import hostile, synthetic
from tests.dashboards.synthetic import commit_hash, row

HREFS = {"softmax": "op-softmax.html", "linear": "op-linear.html"}
BASE = "https://host.example/me/kernl/commit/"


def figure(number: int, value: float, **fields: object) -> dict[str, object]:
    """One figure of a case at a commit; registers on sm_80 unless told otherwise."""
    base: dict[str, object] = {
        "machine": "compile-only", "commit": commit_hash(number), "suite": "codegen",
        "committed_at": pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(days=number),
        "metric": "registers", "case": "a.fp16", "variant": "sm_80", "value": value,
    }  # fmt: skip
    return row(**{**base, **fields})


def source(*rows: dict[str, object], runs: list[dict[str, object]] | None = None) -> Source:
    frame = synthetic.runs_frame([])
    if runs:
        frame = pd.DataFrame(runs)
    return Source.of(synthetic.Store(synthetic.frame(list(rows)), frame))


def steps(found: Source) -> list[Step]:
    return compiled_steps.steps(found.cubes["codegen", "compile-only"], found.runs)


def test_a_step_says_how_many_cases_where_and_the_worst() -> None:
    rows = []
    for case, new in (("a.fp16", 8.0), ("b.fp16", 64.0), ("c.fp16", 0.0), ("d.fp16", 0.0)):
        for variant in ("sm_80", "sm_90"):
            at_old = figure(0, 0, metric="spills", case=case, variant=variant)
            value = new if variant == "sm_80" else 0
            rows += [at_old, figure(1, value, metric="spills", case=case, variant=variant)]
    (one,) = steps(source(*rows, figure(1, 0, metric="spills", case="new.fp16")))
    assert (one.cases, one.compared, one.variants) == (2, 4, ("sm_80",))
    assert (one.case, one.variant, one.old, one.new) == ("b.fp16", "sm_80", 0, 64)
    assert (one.worse, one.commit, one.before) == (True, commit_hash(1), commit_hash(0))
    assert compiled_steps.said(one) == "Spills 0 → 64 instructions"


def test_worse_is_lower_for_occupancy_alone() -> None:
    rows = [figure(0, 0.5, metric="occupancy"), figure(1, 0.25, metric="occupancy")]
    rows += [figure(0, 64), figure(1, 32)]
    found = steps(source(*rows))
    assert [(one.metric, one.worse) for one in found] == [
        ("occupancy", True),
        ("registers", False),
    ]


def test_up_and_down_in_one_commit_are_two_steps() -> None:
    found = steps(
        source(
            figure(0, 32, case="a.fp16"), figure(0, 64, case="b.fp16"), figure(0, 8, case="c.fp16"),
            figure(1, 33, case="a.fp16"), figure(1, 32, case="b.fp16"), figure(1, 8, case="c.fp16"),
        )
    )  # fmt: skip
    assert [(one.worse, one.cases, one.compared, one.case) for one in found] == [
        (True, 1, 3, "a.fp16"),
        (False, 1, 3, "b.fp16"),
    ]


def test_each_case_is_held_against_the_commit_that_compiled_it_before() -> None:
    found = steps(
        source(
            figure(0, 32), figure(0, 16, op="linear"),
            figure(1, 16, op="linear"),
            figure(2, 40), figure(2, 16, op="linear"),
            figure(3, 40), figure(3, 24, op="linear"),
        )
    )  # fmt: skip
    assert [(one.commit, one.op, one.before) for one in found] == [
        (commit_hash(3), "linear", commit_hash(2)),
        (commit_hash(2), "softmax", commit_hash(0)),
    ]


def test_another_version_or_compiler_and_a_failure_are_no_step() -> None:
    assert steps(source(figure(0, 32, version="0"), figure(1, 40))) == []
    failed = source(figure(0, 32), figure(1, float("nan"), status="failed"), figure(2, 32))
    assert steps(failed) == []
    runs: list[dict[str, object]] = [
        {"run": f"r{n}", "machine": "compile-only", "commit": commit_hash(n), "triton": "3.6.0",
         "ptxas": ptxas, "started_at": "2026-01-01"}
        for n, ptxas in enumerate(("12.8", "12.9", "12.9"))
    ]  # fmt: skip
    (one,) = steps(
        source(figure(0, 32, run="r0"), figure(1, 40, run="r1"), figure(2, 48, run="r2"), runs=runs)
    )
    assert (one.old, one.new) == (40, 48)


def test_the_page_leads_to_the_case_and_the_section() -> None:
    rows = [figure(0, 32), figure(1, 40)]
    other = [{**one, "machine": "a-second"} for one in rows]
    page = pages.files(source(*rows, *other))["regressions.html"].decode()
    assert page.count("1 to worse and 0 to better, by 1 of 2 compiled commits.") == 2
    assert '<td class="worse">worse</td><td>Registers 32 → 40 per thread</td>' in page
    assert '<a href="op-softmax.html#codegen-1">' in page
    assert '<a href="op-softmax.html#codegen-2">' in page
    assert page.count('href="op-softmax.html#compiled=a.fp16"') == 2
    op = pages.files(source(*rows, *other))["op-softmax.html"].decode()
    assert 'id="codegen-2">Compiled code</h2>' in op  # that of the machine compile-only
    second = page[page.index('id="steps-2"') :]
    assert "#codegen-2" in second


def test_long_lists_are_cut_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_steps, "MOST", 2)
    found = source(*(figure(number, 32 + number) for number in range(6)))
    page = pages.files(found)["regressions.html"].decode()
    assert "the newest 2 are listed, 3 older ones are not" in page
    (view,) = compiled_steps.views(found, HREFS)
    assert [cells[0].text for cells in view.table.rows] == [commit_hash(n)[:8] for n in (5, 4)]


def test_without_a_change_or_a_second_commit_it_says_so() -> None:
    one = pages.files(source(figure(0, 32)))["regressions.html"].decode()
    assert "Only one commit has been compiled" in one
    two = pages.files(source(figure(0, 32), figure(1, 32)))["regressions.html"].decode()
    assert "Nothing changed over 2 commits." in two
    assert (
        "Steps of compiled code"
        not in pages.files(Source.of(synthetic.empty()))["regressions.html"].decode()
    )


def test_steps_lead_to_what_lies_between_their_commits() -> None:
    found = source(figure(0, 32), figure(1, 40))
    (view,) = compiled_steps.views(found, HREFS, CommitLinks.below(BASE))
    (cells,) = view.table.rows
    assert view.table.headings[-1] == "Commits between"
    assert cells[0].href == BASE + commit_hash(1)
    assert cells[-1].href.endswith(f"/compare/{commit_hash(0)}...{commit_hash(1)}")
    (plain,) = compiled_steps.views(found, HREFS)
    assert "Commits between" not in plain.table.headings
    assert plain.table.rows[0][0].href == ""


@pytest.mark.parametrize("attack", hostile.ATTACKS)
def test_hostile_names_stay_text(attack: str) -> None:
    fields = {"op": attack or "x", "case": attack, "variant": attack or "v"}
    found = source(figure(0, 1, **fields), figure(1, 2, **fields))
    page = pages.files(found)["regressions.html"].decode()
    assert "1 to worse" in page
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "onerror=alert" not in re.sub(r"&[^;]+;[^<]*", "", page)
