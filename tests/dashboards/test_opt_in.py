"""Operators that round more than their dtype does are reported apart from the others."""

import math
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import cases
from dashboards import build, pages, views
from dashboards.data.source import Source
from tests.dashboards import synthetic
from tests.dashboards.plotly_figure import as_plotly
from tests.dashboards.synthetic import row

OPT_IN = "rounded"
FROZEN = {"softmax": ["a.fp16", "b.fp16"], OPT_IN: ["a.fp16", "b.fp16", "c.fp16"]}
HREFS = {"softmax": "op-softmax.html", OPT_IN: f"op-{OPT_IN}.html"}
HEADING = "Opt-in operators</h3>"
REASON = "weights or activations are rounded to 8 or 4&nbsp;bits, so nothing chooses"


def times(op: str, case: str, eager: float, kernl: float | None, commit: int = 0,
          **more: object) -> list[dict[str, object]]:  # fmt: skip
    """Rows of one case; None is a failed measurement."""
    day = pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(days=commit)
    shared = {"op": op, "case": case, "commit": synthetic.commit_hash(commit), "committed_at": day}
    ours = {"value": kernl} if kernl is not None else {"value": math.nan, "status": "failed"}
    return [
        row(**shared, variant="eager", value=eager),
        row(**{**shared, "variant": "kernl", **ours, **more}),
    ]


ORDINARY = [
    *times("softmax", "a.fp16", 8e-6, 1e-6),
    *times("softmax", "b.fp16", 1e-6, 2e-6),
]
ROUNDED = [
    *times(OPT_IN, "a.fp16", 1000e-6, 1e-6),
    *times(OPT_IN, "b.fp16", 1e-6, 1000e-6),
    *times(OPT_IN, "c.fp16", 1e-6, None, reason="out of memory"),
]


def source(rows: list[dict[str, object]], opt_in: tuple[str, ...] = (OPT_IN,)) -> Source:
    store = synthetic.Store(synthetic.frame(rows), synthetic.runs_frame([]))
    return Source.of(store, frozen=FROZEN, opt_in=opt_in)


def speed(found: Source, op: str | None = None) -> views.SpeedView:
    view = views.speed(found, "nvidia-h200", HREFS, op)
    assert view is not None
    return view


def index(found: Source) -> str:
    return pages.files(found)["index.html"].decode()


def section(page: str, heading: str) -> str:
    """What lies between a heading and the next."""
    return page.partition(heading)[2].partition("<h3")[0]


class Words(HTMLParser):
    """The text of each row of a table."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append("")

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1] = " ".join(f"{self.rows[-1]} {data}".split())


def test_an_opt_in_operator_changes_no_number_of_the_headline() -> None:
    view = speed(source([*ORDINARY, *ROUNDED]))
    assert view.summary == speed(source(ORDINARY)).summary
    assert view.summary.over_eager.mean == pytest.approx(2.0)  # sqrt(8 × 0.5)
    assert view.summary.over_best.worst is not None
    assert view.summary.over_best.worst.ratio == pytest.approx(0.5)
    assert (view.summary.over_best.wins, view.summary.over_best.losses) == (1, 1)
    assert (view.summary.measured, view.summary.frozen, view.summary.failed) == (2, 2, 0)


def test_the_headline_s_trend_leaves_opt_in_operators_out() -> None:
    rows = [*ORDINARY, *ROUNDED, *times("softmax", "a.fp16", 4e-6, 1e-6, commit=1)]
    rows += times(OPT_IN, "a.fp16", 1000e-6, 1e-6, commit=1)
    trend = speed(source(rows)).drawings["trend"]
    # a is 8×, then 4×; b stays at 0.5×
    assert list(as_plotly(trend).data[0].y) == pytest.approx([4**0.5, 2**0.5], rel=1e-3)
    assert [choice.label for choice in trend.choices] == ["all operators", "softmax"]


def test_opt_in_operators_have_a_section_with_means_of_their_own() -> None:
    view = speed(source([*ORDINARY, *times(OPT_IN, "a.fp16", 9e-6, 1e-6)]))
    assert [line.op for line in view.ops] == ["softmax"]
    assert [(line.op, line.href) for line in view.opt_in] == [(OPT_IN, HREFS[OPT_IN])]
    mine = view.opt_in[0].summary
    assert mine.over_eager.mean == pytest.approx(9.0)
    assert (mine.measured, mine.frozen) == (1, 3)


def test_the_overview_shows_the_two_kinds_in_two_tables() -> None:
    page = index(source([*ORDINARY, *times(OPT_IN, "a.fp16", 9e-6, 1e-6)]))
    assert page.count(HEADING) == 1
    ordinary, apart = section(page, "<h3>Operators</h3>"), section(page, HEADING)
    assert [line.split()[0] for line in Words(ordinary).rows[1:]] == ["softmax"]
    assert [line.split()[:2] for line in Words(apart).rows[1:]] == [[OPT_IN, "9.00×"]]
    assert f"{REASON} them but the user" in apart
    assert "of all but the opt-in operators" in page


@pytest.mark.parametrize(
    "found", [source(ORDINARY), source([*ORDINARY, *ROUNDED], opt_in=())], ids=["absent", "unknown"]
)
def test_without_opt_in_operators_there_is_no_word_of_them(found: Source) -> None:
    page = index(found)
    assert "opt-in" not in page.lower()
    assert "<h3>Operators</h3>" in page


def test_losses_and_unmeasured_cases_of_opt_in_operators_are_marked() -> None:
    page = index(source([*ORDINARY, *ROUNDED]))
    losses = section(page, "Losses, worst first</h3>")
    assert "The 2 cases in which" in losses
    assert "than kernl, 1 of them of opt-in operators." in losses
    said = [line.split()[:3] for line in Words(losses).rows[1:]]
    assert said == [[OPT_IN, "opt-in", "b.fp16"], ["softmax", "b.fp16", "0.50×"]]
    unmeasured = section(page, "Cases without a time of kernl's own</h3>")
    assert Words(unmeasured).rows[1].startswith(f"{OPT_IN} opt-in c.fp16 failed out of memory")


def test_a_commit_with_opt_in_operators_alone_has_no_headline_and_says_why() -> None:
    rows = [*ORDINARY, *times(OPT_IN, "a.fp16", 1000e-6, 1e-6, commit=1)]
    view = speed(source(rows))
    assert math.isnan(view.summary.over_eager.mean)
    assert "Nothing but opt-in operators was measured at this commit." in index(source(rows))
    assert "Nothing but opt-in operators" in index(source(ROUNDED))


def test_the_page_of_an_opt_in_operator_says_so_and_keeps_its_numbers() -> None:
    found = source([*ORDINARY, *ROUNDED])
    files = pages.files(found)
    page = files[HREFS[OPT_IN]].decode()
    assert "An opt-in operator, which the overview reports apart" in page
    assert f"{REASON} it but the user" in page
    assert "opt-in" not in files["op-softmax.html"].decode().lower()
    assert speed(found, OPT_IN).summary.over_eager.wins == 1


def test_names_of_opt_in_operators_are_cleaned_as_those_of_rows_are() -> None:
    rows = times("odd\nname", "a.fp16", 2e-6, 1e-6)
    assert source(rows, ("odd\nname",)).opt_in == {"odd name"}
    assert HEADING in index(source(rows, ("odd\nname",)))


def test_the_suite_says_which_operators_are_opt_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = build.read(tmp_path)
    assert found.frozen is not None
    assert found.frozen_models is not None
    assert "bert_base" in found.frozen_models
    assert "bert_base" not in found.frozen
    assert {"quantized_linear", "fp8_linear"} <= found.opt_in < set(found.frozen)
    assert "linear" not in found.opt_in
    assert {op for op, _, _ in found.costs} == set(found.frozen)

    def absent() -> cases.Frozen:
        raise ValueError("no list")

    monkeypatch.setattr(cases, "load", absent)
    assert build.frozen_cases() is None
    found = build.read(tmp_path)
    assert (found.frozen, found.frozen_models, found.opt_in) == (None, None, frozenset())
    assert found.costs == {}
    assert "no list" in capsys.readouterr().err
