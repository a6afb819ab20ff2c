"""What each commit did to each operator: paired changes, their colours, and where cells lead."""

import math
import re
from urllib.parse import parse_qs

import numpy as np
import pytest

from dashboards import pages
from dashboards.data.source import Source
from dashboards.tabular import by_commit
from dashboards.tabular.by_commit import PairedView
from dashboards.tabular.changed import Times
from tests.dashboards import hostile, synthetic
from tests.dashboards.synthetic import commit_hash
from tests.dashboards.test_changed import MACHINE, at, source

HREFS = {name: f"{name}.html" for name in ("softmax", "linear", "bert")}


def table(found: Source, suite: str = "kernels") -> PairedView:
    (one,) = (one for one in by_commit.views(found, HREFS) if one.suite.name == suite)
    return one


def told(view: PairedView, name: str = "softmax") -> list[tuple[str, int, str] | None]:
    """The cells of an operator: what changed, over how many cases, since which commit."""
    (cells,) = (cells for of, _, cells in view.lines if of == name)
    return [(one.shown, one.cases, one.base.id) if one else None for one in cells]


def test_the_mean_is_over_the_cases_that_both_commits_measured() -> None:
    found = source(
        at(0, 2e-6, case="a.fp16"), at(0, 8e-6, case="b.fp16"), at(0, 1e-6, case="gone.fp16"),
        at(1, 3e-6, case="a.fp16"), at(1, 6e-6, case="b.fp16"), at(1, 9e-3, case="new.fp16"),
    )  # fmt: skip
    mean = math.sqrt(1.5 * 0.75) - 1
    assert told(table(found)) == [None, (f"+{mean:.1%}".replace("%", " %"), 2, commit_hash(0))]


def test_eager_takes_the_drift_of_the_machine_out() -> None:
    both = source(at(0, 2e-6, eager=4e-6), at(1, 3e-6, eager=6e-6))
    assert told(table(both)) == [None, ("0.0 %", 1, commit_hash(0))]
    (_, cell) = table(both).lines[0][2]
    assert cell is not None
    assert cell.beside == "kernl's own time +50.0 %"
    without = source(at(0, 2e-6), at(1, 3e-6)[:1])  # no time of eager's at the newest
    assert table(without).others == ("softmax",)


def test_of_a_model_kernl_s_own_time_counts() -> None:
    """Its eager time is the host's as much as the device's."""
    rows = [*at(0, 2e-3, eager=4e-3, op="bert"), *at(1, 2.2e-3, eager=2e-3, op="bert")]
    view = table(source([{**row, "suite": "models"} for row in rows]), "models")
    (_, cell) = view.lines[0][2]
    assert cell is not None
    assert (cell.shown, cell.colour) == ("+10.0 %", "slower-3")
    assert cell.beside == "over eager's time +120.0 %"


def test_the_base_is_the_latest_commit_that_measured_the_operator() -> None:
    found = source(
        at(0, 4e-6), at(0, 4e-6, op="linear"),
        at(1, 4e-6, op="linear"),
        at(2, 2e-6), at(2, 5e-6, op="linear"),
    )  # fmt: skip
    one = table(found)
    assert told(one) == [None, None, ("−50.0 %", 1, commit_hash(0))]
    assert told(one, "linear")[1:] == [
        ("0.0 %", 1, commit_hash(0)),
        ("+25.0 %", 1, commit_hash(1)),
    ]


def test_other_versions_and_libraries_are_not_paired() -> None:
    other = source(at(0, 2e-6, version="0"), at(1, 3e-6))
    assert table(other).lines == ()
    runs: list[dict[str, object]] = [
        {"run": f"r{n}", "machine": MACHINE, "commit": commit_hash(n), "torch": torch}
        for n, torch in enumerate(("2.11", "2.12", "2.11"))
    ]
    found = source(at(0, 2e-6, run="r0"), at(1, 9e-6, run="r1"), at(2, 1e-6, run="r2"), runs=runs)
    assert told(table(found)) == [None, None, ("−50.0 %", 1, commit_hash(0))]


def test_the_newest_twelve_commits_are_shown_in_order() -> None:
    found = source(*(at(number, 1e-6 * 1.1**number) for number in range(15)))
    one = table(found)
    assert [commit.id for commit in one.commits] == [commit_hash(n) for n in range(3, 15)]
    assert told(one)[0] == ("+10.0 %", 1, commit_hash(2))  # one that has no column itself


def test_pairs_are_those_of_a_plain_loop() -> None:
    """Many cases of which each commit measures some, against the definition word by word."""
    drawn = np.random.default_rng(7)
    shape = (9, 30)
    kernl = np.where(drawn.random(shape) < 0.4, np.exp(drawn.normal(size=shape)), np.nan)
    eager = np.where(drawn.random(shape) < 0.9, np.exp(drawn.normal(size=shape)), np.nan)
    alike = drawn.integers(0, 2, shape)
    cases = [(f"op{place // 10}", f"case{place}") for place in range(30)]
    taken = Times(
        cases, [commit_hash(n) for n in range(9)], kernl, eager, alike, np.zeros(30, bool)
    )
    found = by_commit.pairs(taken, [0, 10, 20], most=5)
    assert list(found.heads) == [4, 5, 6, 7, 8]
    for row, head in enumerate(found.heads):
        for op in range(3):
            expected: tuple[int, list[float]] = (-1, [])
            for base in reversed(range(head)):
                steps = [
                    math.log(
                        kernl[head, one] / eager[head, one] * eager[base, one] / kernl[base, one]
                    )
                    for one in range(10 * op, 10 * op + 10)
                    if np.isfinite(kernl[[head, base], one] * eager[[head, base], one]).all()
                    and alike[head, one] == alike[base, one]
                ]
                if steps:
                    expected = base, steps
                    break
            assert found.cases[row, op] == len(expected[1])
            if expected[1]:
                assert found.bases[row, op] == expected[0]
                assert found.over_eager[row, op] == pytest.approx(np.mean(expected[1]))


@pytest.mark.parametrize(
    ("ratio", "said", "colour"),
    [
        (1.0, "0.0 %", "same"),
        (0.9996, "0.0 %", "same"),
        (1.019, "+1.9 %", "same"),
        (1.02, "+2.0 %", "slower-1"),
        (1.0996, "+10.0 %", "slower-3"),
        (0.98, "−2.0 %", "faster-1"),
        (0.949, "−5.1 %", "faster-2"),
        (0.4, "−60.0 %", "faster-3"),
    ],
)
def test_the_colour_is_that_of_what_is_said(ratio: float, said: str, colour: str) -> None:
    assert (by_commit.said(ratio), by_commit.colour(ratio)) == (said, colour)


def test_the_page_says_it_in_words_and_leads_to_compare() -> None:
    found = source(at(0, 2e-6), at(1, 1e-6), at(1, 1e-6, op="linear"))
    files = pages.files(found)
    page = files["regressions.html"].decode()
    (cell,) = re.findall(r'<td class="heat faster-3">.*?</td>', page, re.S)
    assert '<b>−50.0 %</b> <small>1<span class="unseen"> case, against' in cell
    assert page.count('<span class="unseen">not measured in both</span>') == 1
    assert "No line: linear, of which" in page
    place = re.search(r'href="compare\.html#([^"]*)"', cell)
    assert place is not None
    assert parse_qs(place[1].replace("&amp;", "&")) == {
        "base": [f"{MACHINE}/{commit_hash(0)[:12]}/kernl"],
        "head": [f"{MACHINE}/{commit_hash(1)[:12]}/kernl"],
        "show": ["kernels"],
        "words": ["softmax"],
    }
    (id_of,) = re.findall(r'href="regressions\.html#([^"]+)"', files["index.html"].decode())
    assert f'id="{id_of}"' in page


def test_models_have_a_table_of_their_own() -> None:
    found = source(
        at(0, 2e-3, suite="models", op="bert"), at(1, 1e-3, suite="models", op="bert"),
        at(0, 2e-6),
    )  # fmt: skip
    assert told(table(found, "models"), "bert")[1] == ("−50.0 %", 1, commit_hash(0))
    page = pages.files(found)["regressions.html"].decode()
    assert "What each commit did to each model on" in page
    assert "show=models" in page
    assert "there is nothing to compare yet" in page  # of operators, with one commit


@pytest.mark.parametrize("attack", hostile.ATTACKS)
def test_hostile_names_stay_text(attack: str) -> None:
    rows = [at(n, 1e-6, op=attack or "x", case=attack, machine=attack or "m") for n in range(2)]
    page = pages.files(source(*rows))["regressions.html"].decode()
    assert "heat-map" in page
    assert "<script>alert" not in page
    assert "<img" not in page


def test_a_site_without_times_has_no_table() -> None:
    assert by_commit.views(Source.of(synthetic.empty()), {}) == []
    compiled = Source.of(synthetic.store(ops=("softmax",), count=2, commits=2, gpu=False))
    assert "heat-map" not in pages.files(compiled)["regressions.html"].decode()
