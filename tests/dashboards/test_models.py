"""Whole models on the site and in the table: apart from operators, kernl's parts no opponents."""

import math

import pytest

from benchmarks.cases import NOT_SELECTED
from benchmarks.models import IMPLEMENTATIONS
from dashboards import pages, table, views
from dashboards.data import summary
from dashboards.data.source import Source
from dashboards.plots import heat
from dashboards.suites import KERNELS, MODELS, SUITES
from dashboards.tabular import model_tables, printing
from dashboards.tabular.tables import Table
from tests.dashboards import synthetic
from tests.dashboards.plotly_figure import as_plotly
from tests.dashboards.synthetic import row

MACHINE = "nvidia-h200"
COMMIT = "deadbe00" * 5
CASES = ["batch1_seq16.fp16", "batch1_seq128.fp16", "batch8_seq16.fp16", "batch8_seq128.fp16"]
FROZEN = {"bert_base": CASES, "gpt2": ["batch1_seq128.fp16"]}
HREFS = {"bert_base": "model-bert_base.html"}


def times(case: str, model: str = "bert_base", **seconds: float | None) -> list[dict[str, object]]:
    """Rows of one case of a model, in ms; None is a failed measurement."""
    return [
        row(
            suite="models",
            op=model,
            case=case,
            commit=COMMIT,
            variant=name,
            value=math.nan if ms is None else ms / 1e3,
            status="failed" if ms is None else "ok",
            reason="out of memory" if ms is None else "",
            error={"kernl": 2e-3, "eager": 1e-3}.get(name, math.nan),
        )
        for name, ms in seconds.items()
    ]


SKIPPED = {"suite": "models", "op": "bert_base", "commit": COMMIT, "status": "skipped"}
ROWS = [
    *times(CASES[0], eager=8, compile=6, cudagraph=4, kernl_graphs_only=1, kernl=2),
    *times(CASES[1], eager=8, compile=None, cudagraph=2, kernl_graphs_only=6, kernl=4),
    *times(CASES[2], eager=3, compile=2, cudagraph=3),
    row(**SKIPPED, case=CASES[2], variant="kernl", value=math.nan, reason="outputs are off"),
    *(
        row(**SKIPPED, case=CASES[3], variant=name, value=math.nan, reason=NOT_SELECTED)
        for name in ("eager", "kernl")
    ),
    row(op="softmax", commit=COMMIT, variant="eager", value=4e-6),
    row(op="softmax", commit=COMMIT, variant="kernl", value=1e-6),
]


def source(rows: list[dict[str, object]]) -> Source:
    store = synthetic.Store(synthetic.frame(rows), synthetic.runs_frame([]))
    return Source.of(store, frozen={"softmax": ["rows8_cols8.fp16"]}, frozen_models=FROZEN)


def view(rows: list[dict[str, object]], model: str | None = None) -> views.SpeedView:
    found = views.speed(source(rows), MACHINE, HREFS, model, MODELS)
    assert found is not None
    return found


def shown(found: Table | None) -> dict[str, dict[str, str]]:
    """The first cell of each row → heading → text and note of the others."""
    assert found is not None
    return {
        line[0].text: {
            heading: f"{cell.text} {cell.note}".strip()
            for heading, cell in zip(found.headings[1:], line[1:], strict=True)
        }
        for line in found.rows
    }


def test_parts_of_kernl_are_what_the_suite_names_after_it() -> None:
    parts = {name for name in IMPLEMENTATIONS if name.startswith("kernl_")}
    assert set(summary.PARTS) == parts
    assert {name for suite in SUITES.values() for name in suite.opponents} - {"library"} <= set(
        IMPLEMENTATIONS
    )


def test_the_best_alternative_is_never_a_part_of_kernl() -> None:
    frame = summary.speedups(synthetic.frame(ROWS), "models").set_index("case")
    assert list(frame.loc[CASES[:3], "best_name"]) == ["cudagraph", "cudagraph", "compile"]
    assert list(frame.loc[CASES[:3], "over_best"]) == pytest.approx([2.0, 0.5, 2 / 3])
    assert list(summary.speedups(synthetic.frame(ROWS))["op"]) == ["softmax"]


def test_models_are_no_operators_and_operators_no_models() -> None:
    found = source(ROWS)
    assert found.ops() == ["softmax"]
    assert found.models() == ["bert_base"]
    both = source([*ROWS, *times(CASES[0], model="softmax", eager=1, kernl=1)])
    assert (both.ops(), both.models()) == (["softmax"], ["bert_base", "softmax"])
    files = pages.files(both)
    assert {"op-softmax.html", "model-softmax.html", "model-bert_base.html"} <= set(files)
    assert "op-bert_base.html" not in files
    assert "bert_base" not in files["op-softmax.html"].decode().partition("<main")[2]


def test_models_change_no_number_of_the_operators_headline() -> None:
    with_models = views.speed(source(ROWS), MACHINE, {"softmax": ""})
    without = views.speed(source(ROWS[-2:]), MACHINE, {"softmax": ""})
    assert with_models is not None
    assert without is not None
    assert with_models.summary == without.summary
    assert with_models.losses == without.losses


def test_the_overview_scores_models_and_counts_those_that_were_not_run() -> None:
    found = view(ROWS)
    assert found.summary.over_eager.mean == pytest.approx(2.0)  # cbrt(4 × 2 × 1)
    assert found.summary.over_best.mean == pytest.approx((2 * 0.5 * 2 / 3) ** (1 / 3))
    assert (found.summary.over_best.wins, found.summary.over_best.losses) == (1, 2)
    assert (found.summary.measured, found.summary.frozen) == (2, 5)
    assert [(line.op, line.href) for line in found.ops] == [("bert_base", HREFS["bert_base"])]
    page = pages.files(source(ROWS))["index.html"].decode()
    section = page.partition("Whole models on")[2].partition("<h2")[0]
    assert "The 2 cases in which" in section
    assert '<a href="model-bert_base.html">bert_base</a>' in section
    assert "all models" in section
    assert "softmax" not in section


def test_without_models_the_overview_says_so() -> None:
    page = pages.files(source(ROWS[-2:]))["index.html"].decode()
    assert "No GPU measurements of whole models yet" in page
    assert 'id="models-1"' in page


def test_cases_name_the_best_alternative_and_show_kernl_s_speed_over_each() -> None:
    cells = shown(view(ROWS, "bert_base").cases)
    assert list(cells) == CASES[:3]
    first, second, left = (cells[case] for case in CASES[:3])
    assert first["eager, ms"] == "8.000 4.00×"
    assert first["compile, ms"] == "6.000 3.00×"
    assert (first["kernl, ms"], first["over best, ×"]) == ("2.000", "2.00×")
    assert first["Best alternative"] == "cudagraph"
    assert first["Error (eager's)"] == "2.0e-03 1.0e-03"
    assert (second["cudagraph, ms"], second["compile, ms"]) == ("2.000 0.50×", "failed")
    assert second["Remarks"] == "compile: out of memory"
    assert (left["kernl, ms"], left["compile, ms"]) == ("left to eager", "2.000 0.67×")
    assert left["Remarks"] == "kernl: outputs are off"
    assert not [heading for heading in first if "graphs_only" in heading]


def test_a_cell_in_which_kernl_loses_is_marked() -> None:
    found = view(ROWS, "bert_base").cases
    assert found is not None
    place = found.headings.index("cudagraph, ms")
    tones = {line[0].text: line[place].tone for line in found.rows}
    assert tones == {CASES[0]: "", CASES[1]: "worse", CASES[2]: ""}


def test_kernl_against_each_implementation() -> None:
    cells = shown(view(ROWS, "bert_base").against)
    assert list(cells) == ["eager", "compile", "cudagraph"]
    assert cells["cudagraph"] == {
        "Cases": "3",
        "kernl over it, ×": "1.00×",  # cbrt(2 × 0.5 × 1)
        "worst, ×": "0.50×",
        "Worst case": CASES[1],
        "Wins": "1",
        "Ties": "1",
        "Losses": "1",
    }
    assert (cells["compile"]["Cases"], cells["compile"]["worst, ×"]) == ("2", "0.67×")


def test_parts_stand_apart_with_their_speed_over_eager() -> None:
    cells = shown(view(ROWS, "bert_base").parts)
    assert cells[CASES[0]]["kernl_graphs_only, ms (over eager)"] == "1.000 8.00×"
    assert cells[CASES[0]]["kernl, ms (over eager)"] == "2.000 4.00×"
    assert cells[CASES[2]]["kernl_graphs_only, ms (over eager)"] == "–"
    whole = [each for each in ROWS if each["variant"] not in summary.PARTS]
    assert shown(view(whole, "bert_base").parts) == {}


def test_the_page_of_a_model_has_its_losses_and_figures() -> None:
    files = pages.files(source(ROWS))
    page = files["model-bert_base.html"].decode()
    losses = shown(view(ROWS, "bert_base").losses)
    said = [(case, cells["kernl against it, ×"]) for case, cells in losses.items()]
    assert said == [(CASES[1], "0.50×"), (CASES[2], "0.67×")]
    assert "The 2 cases in which an alternative" in page
    assert page.count('class="plot"') == 3
    assert "data/model-bert_base.js" in files
    assert f'<option value="{CASES[0]}">' in page
    assert "data/of/nvidia-h200/models-bert_base-0.js" in files


def test_the_grid_has_a_row_a_batch_and_a_column_a_length() -> None:
    ragged = times("batch8_seq128_ragged.fp16", eager=4, kernl=1)
    newest = summary.speedups(synthetic.frame([*ROWS, *ragged]), "models")
    found = heat.grid(newest)
    assert found is not None
    trace = as_plotly(found).data[0]
    assert list(trace.x) == ["16", "128"]
    assert list(trace.y) == ["batch 1", "batch 8", "batch 8, ragged"]
    assert [list(line) for line in trace.z] == [
        [1.0, -1.0],
        [pytest.approx(math.log2(2 / 3), rel=1e-3), None],
        [None, 2.0],
    ]
    assert trace.customdata[1][0] == "kernl 3.000 ms, left to eager, compile 2.000 ms"
    assert heat.grid(newest[newest["case"].str.startswith("batch1_")]) is None


def report(rows: list[dict[str, object]], losses: int = 0) -> list[str]:
    return table.report(source(rows), MACHINE, COMMIT, losses, MODELS)


def test_the_table_of_models_has_means_cases_parts_and_losses() -> None:
    lines = report(ROWS, losses=1)
    assert lines[0].startswith("Wall-clock times: deadbe00 ")
    assert (
        "| bert_base | 2, 1 left to eager | 2.00× (1.00×) | 1.41× (0.67×) | – | – | "
        f"0.87× (0.50×) | 1 / 0 / 2 | {CASES[1]} (cudagraph) | 1 compile |"
    ) in lines
    assert "Not run: gpt2." in lines
    assert (
        f"| {CASES[0]} | 2.000 | 4.00× | 2.00× | cudagraph | 8.000 (4.00×) | 6.000 (3.00×) | "
        "4.000 (2.00×) | 2.0e-03 (1.0e-03) |  |"
    ) in lines
    assert "| geometric mean |  | 2.00× | 0.87× |  | 2.00× | 1.41× | 1.00× |  |  |" in lines
    assert lines[lines.index("| model | kernl_graphs_only | kernl_rewrite_only | kernl |") + 2] == (
        "| bert_base | 3.27× | – | 2.00× |"
    )
    assert "The worst 1 of 2 losses:" in lines
    assert lines[-1] == f"| bert_base | {CASES[1]} | 0.50× | 4.000 | cudagraph | 2.000 |"
    assert not [line for line in lines if "softmax" in line]


def test_operators_are_the_default_and_hold_no_model() -> None:
    lines = table.report(source(ROWS), MACHINE, COMMIT)
    assert lines == table.report(source(ROWS), MACHINE, COMMIT, 0, KERNELS)
    assert not [line for line in lines if "bert_base" in line]


def test_a_commit_without_times_of_models_is_refused() -> None:
    with pytest.raises(printing.TableError, match="there are no wall-clock times yet"):
        report(ROWS[-2:])
    others = [{**each, "commit": "c" * 40} for each in ROWS[:5]]
    with pytest.raises(printing.TableError, match="has no wall-clock times on nvidia-h200; those"):
        report([*others, *ROWS[-2:]])


def test_a_model_of_which_nothing_was_tried_has_no_table_of_cases() -> None:
    rows = synthetic.frame([each for each in ROWS if each["case"] == CASES[3]])
    newest = summary.speedups(rows, "models")
    assert model_tables.cases(rows, newest).rows == ()
    assert model_tables.with_means(rows, newest).rows == ()
    assert model_tables.against(rows, newest).rows == ()
