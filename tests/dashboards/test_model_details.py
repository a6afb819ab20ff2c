"""A model's page says what rewriting covers and what a call costs the host, or that it cannot."""

import json
from pathlib import Path

from dashboards import build
from dashboards.data.source import Source
from dashboards.tabular import model_details
from tests.dashboards.test_models import COMMIT, MACHINE, shown, source, times, view

FIRST = {"replaced": {"attention": 12, "linear": 48}, "left": {"embedding": 3}, "refused": {}}
SECOND = {
    "replaced": {"attention": 12, "linear": 60},
    "left": {"embedding": 3, "gelu": 12},
    "refused": {"linear: its weight is no <parameter>": 12},
}


def told(case: str, rewrite: object = None, **host: float) -> list[dict[str, object]]:
    """Rows of a case of 4 ms in eager and 2 ms in kernl, with details of some."""
    found = times(case, eager=4, kernl=2)
    for row in found:
        name = str(row["variant"])
        words: dict[str, object] = {"host": host[name]} if name in host else {}
        if name == "kernl" and rewrite is not None:
            words["rewrite"] = rewrite
        row["details"] = json.dumps(words) if words else ""
    return found


ROWS = [
    *told("batch1_seq16.fp16", FIRST, kernl=5e-5, eager=3e-3),
    *told("batch8_seq128.fp16", SECOND, kernl=1e-4),
]


def rows(some: list[dict[str, object]]) -> Source:
    return source(some)


def test_what_stands_in_the_graphs_is_counted_by_case() -> None:
    found = model_details.rewritten(rows(ROWS).rows(MACHINE, COMMIT, "models"))
    assert found is not None
    assert found.covered == "60 to 72 of 63 to 87 calls that compute are kernl's (83 % to 95 %)"
    lines = [[cell.text for cell in line] for line in found.table.rows]
    assert lines == [
        ["kernl's operator", "linear", "48 to 60"],
        ["kernl's operator", "attention", "12"],
        ["left to PyTorch", "aten.gelu", "0 to 12"],
        ["left to PyTorch", "aten.embedding", "3"],
        ["looked at and left", "linear: its weight is no <parameter>", "0 to 12"],
    ]


def test_the_host_s_time_stands_beside_its_part_of_the_call() -> None:
    assert shown(model_details.host(rows(ROWS).rows(MACHINE, COMMIT, "models"))) == {
        "batch1_seq16.fp16": {"kernl, µs": "50.00 2 %", "eager, µs": "3,000 75 %"},
        "batch8_seq128.fp16": {"kernl, µs": "100.0 5 %", "eager, µs": "–"},
    }


def test_what_nobody_measured_is_not_invented() -> None:
    nothing = rows(told("batch1_seq16.fp16")).rows(MACHINE, COMMIT, "models")
    assert model_details.rewritten(nothing) is None
    assert model_details.host(nothing).rows == ()
    assert view(ROWS, "bert_base").rewritten is not None


def test_the_page_says_both_or_why_not(tmp_path: Path) -> None:
    build.build(rows(ROWS), tmp_path / "known")
    page = (tmp_path / "known" / "model-bert_base.html").read_text()
    assert "60 to 72 of 63 to 87 calls that compute are kernl" in page
    assert "linear: its weight is no &lt;parameter&gt;" in page
    assert "Time that a call keeps the host" in page
    build.build(rows(told("batch1_seq16.fp16")), tmp_path / "unknown")
    page = (tmp_path / "unknown" / "model-bert_base.html").read_text()
    assert "no measurement kept what rewriting made of its graphs" in page
    assert "no measurement kept how long its calls kept the host" in page
