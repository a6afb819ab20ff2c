"""Scatter plots of an operator's cases: against numbers worked out by hand, and nothing unknown."""

import json
import math
import re
from typing import Any

import pandas as pd
import pytest

from benchmarks.cases import Cost
from dashboards import pages
from dashboards.data import summary
from dashboards.data.source import Source
from dashboards.plots import axes, drawing, scatter
from dashboards.plots.drawing import Drawing
from dashboards.tabular import roofline
from tests.dashboards import synthetic
from tests.dashboards.hostile import ATTACKS
from tests.dashboards.plotly_figure import as_plotly
from tests.dashboards.synthetic import row
from tests.dashboards.test_roofline import COMMIT, COSTS, MACHINE, runs, source, times

NO_CEILINGS = runs(copy_bytes_per_s=math.nan, fp16_flops_per_s=math.nan)
CASE = "large.fp16"  # softmax: 60 MB and 1000 FLOP; linear: 3 MB and 15 GFLOP


def drawn(found: Source, op: str) -> dict[str, Drawing]:
    rows = found.rows(MACHINE, COMMIT, "kernels", op)
    amounts = roofline.derived(rows, found.runs, found.costs)
    return scatter.drawings(rows, amounts, roofline.measured(rows, found.runs))


def trace(made: Drawing, name: str) -> Any:
    (found,) = [one for one in as_plotly(made).data if one.name == name]
    return found


def timed(op: str, **fields: object) -> list[dict[str, object]]:
    return [row(op=op, case=CASE, commit=COMMIT, run="r", **fields)]


def erring(case: str, **errors: float) -> list[dict[str, object]]:
    return [row(case=case, variant=name, error=error) for name, error in errors.items()]


def of_errors(*rows: dict[str, object]) -> Drawing | None:
    return scatter.errors(summary.timings(synthetic.frame(list(rows))))


def test_times_stand_at_the_size_of_their_case() -> None:
    rows = timed("softmax", variant="kernl", value=25e-6, low=24e-6, high=26.5e-6)
    rows += timed("softmax", variant="eager", value=200e-6)
    rows += times("softmax", "small.fp16", kernl=5e-6, eager=None)
    made = drawn(source(rows), "softmax")["latency"]
    ours, theirs = trace(made, "kernl"), trace(made, "eager")
    assert list(ours.x) == [6e7, 3e6]  # bytes
    assert list(ours.y) == [25.0, 5.0]  # µs
    assert list(ours.text) == ["large.fp16", "small.fp16"]
    assert list(ours.customdata) == [
        "25.00 µs (99 %: 24.00–26.50 µs)<br>2,400 GB/s",
        "5.00 µs (no interval)<br>600 GB/s",
    ]
    assert list(theirs.customdata) == ["200.0 µs (no interval)<br>300 GB/s"]
    assert [one.meta["role"] for one in as_plotly(made).data] == ["kernl", "eager", "reference"]
    assert made.label.startswith("Device time of 2 cases against the bytes that each must move, fr")
    assert "from 3 MB to 60 MB" in made.label
    x, y = as_plotly(made).layout.xaxis, as_plotly(made).layout.yaxis
    assert (x.type, x.title.text) == ("log", "bytes that a case must move (log)")
    assert (y.type, y.title.text) == ("log", "device time (µs, log)")
    assert list(x.ticktext) == ["5 MB", "10 MB", "20 MB", "50 MB"]
    assert drawing.table(made) == [
        [
            *("Case", "bytes to move", "kernl, µs (99 % interval)", "kernl, GB/s"),
            *("eager, µs (99 % interval)", "eager, GB/s"),
        ],
        ["large.fp16", "60 MB", "25.00 (24.00–26.50)", "2,400", "200.0", "300"],
        ["small.fp16", "3 MB", "5.00", "600", "–", "–"],
    ]


def test_the_line_of_memory_is_the_least_time_that_its_bytes_take() -> None:
    rows = times("softmax", CASE, kernl=25e-6) + times("softmax", "small.fp16", kernl=2e-6)
    line = trace(drawn(source(rows), "softmax")["latency"], "memory 3 TB/s")
    assert list(zip(line.x, line.y, strict=True)) == [(3e6, 1.0), (6e7, 20.0)]
    assert line.mode == "lines"
    unknown = drawn(source(rows, NO_CEILINGS), "softmax")["latency"]
    assert [one.name for one in as_plotly(unknown).data] == ["kernl"]


def test_of_several_runs_the_highest_ceiling_is_drawn_and_all_are_said() -> None:
    both = pd.concat([runs(), runs(run="s", copy_bytes_per_s=4e12)], ignore_index=True)
    rows = times("softmax", CASE, kernl=25e-6) + times("softmax", CASE, run="s", eager=25e-6)
    line = trace(drawn(source(rows, both), "softmax")["latency"], "memory 3 to 4 TB/s")
    assert line.y[-1] == 15.0


def test_rates_stand_at_their_intensity_under_the_ceilings() -> None:
    """5000 FLOP a byte; 15 GFLOP take 20 µs at 750 TFLOP/s, and the ridge is at 250."""
    made = drawn(source(), "linear")["roofline"]
    names = [one.name for one in as_plotly(made).data]
    assert names == ["kernl", "eager", "memory 3 TB/s", "fp16 750 TFLOP/s"]
    ours = trace(made, "kernl")
    assert (list(ours.x), list(ours.y)) == ([5000.0], [375.0])
    assert ours.customdata[0] == "<br>".join(
        ("375 TFLOP/s", "50 % of the measured ceilings", "bound by compute")
    )
    assert trace(made, "eager").customdata[0].startswith("600 TFLOP/s<br>80 % of the measured")
    memory, products = trace(made, "memory 3 TB/s"), trace(made, "fp16 750 TFLOP/s")
    assert (memory.x[-1], memory.y[-1]) == (250.0, 750.0)
    assert memory.y[0] == pytest.approx(memory.x[0] * 3, rel=1e-5)
    assert (products.x[0], list(products.y)) == (250.0, [750.0, 750.0])
    assert products.marker.symbol == ours.marker.symbol[0]
    assert trace(made, "eager").marker.symbol[0] == f"{products.marker.symbol}-open"
    assert as_plotly(made).layout.xaxis.title.text == "arithmetic intensity (FLOP per byte, log)"
    assert as_plotly(made).layout.yaxis.title.text == "TFLOP/s (log)"
    head, body = drawing.table(made)
    of_each = [f"{name}{column}" for name in ("kernl", "eager") for column in
               (", TFLOP/s", ", % of the ceilings")]  # fmt: skip
    assert head == ["Case", "FLOP per byte", "bound by", *of_each]
    assert body == ["large.fp16", "5,000", "compute", "375", "50", "600", "80"]


def test_what_is_above_the_roofline_says_so() -> None:
    made = drawn(source(times("softmax", CASE, kernl=19.2e-6)), "softmax")["roofline"]
    (said,) = trace(made, "kernl").customdata
    assert said == (
        "&lt;0.001 TFLOP/s<br>104 % of the measured ceilings, above the roofline<br>bound by memory"
    )
    assert drawing.table(made)[1][3:] == ["<0.001", "104"]


def test_the_rate_of_fp8_is_not_called_measured() -> None:
    made = drawn(source(), "rounded")["roofline"]
    assert as_plotly(made).data[-1].name == "fp8 (twice fp16) 1,500 TFLOP/s"


def test_one_ceiling_alone_is_drawn_alone() -> None:
    rows = times("softmax", CASE, kernl=25e-6)
    memory = drawn(source(rows, runs(fp16_flops_per_s=math.nan)), "softmax")["roofline"]
    assert [one.name for one in as_plotly(memory).data] == ["kernl", "memory 3 TB/s"]
    products = drawn(source(rows, runs(copy_bytes_per_s=math.nan)), "softmax")["roofline"]
    assert [one.name for one in as_plotly(products).data] == ["kernl", "fp16 750 TFLOP/s"]
    assert trace(products, "kernl").customdata[0].endswith("share of the ceilings not known")


def test_what_is_not_known_is_not_drawn_and_the_page_says_why() -> None:
    nothing = source(costs={})
    assert drawn(nothing, "softmax") == {}
    page = pages.files(nothing)["op-softmax.html"].decode()
    assert "No figure of device time against size" in page
    assert "No figure of errors" in page
    unmeasured = source(run=NO_CEILINGS)
    assert list(drawn(unmeasured, "softmax")) == ["latency"]
    page = pages.files(unmeasured)["op-softmax.html"].decode()
    assert "Device time against size" in page
    assert "No roofline: the run did not measure what this GPU can do" in page
    failed = source(times("softmax", CASE, kernl=None, eager=None))
    assert drawn(failed, "softmax") == {}


@pytest.mark.parametrize("cost", [Cost(0, 0, "fp16"), Cost(0, 1000, "fp16")])
def test_what_moves_nothing_has_no_place_on_a_logarithmic_axis(cost: Cost) -> None:
    rows = times("softmax", CASE, kernl=25e-6)
    assert drawn(source(rows, costs={("softmax", CASE, "1"): cost}), "softmax") == {}


def test_what_computes_nothing_has_a_time_and_no_roofline() -> None:
    rows = times("softmax", CASE, kernl=25e-6)
    costs = {("softmax", CASE, "1"): Cost(60_000_000, 0, "fp16")}
    assert list(drawn(source(rows, costs=costs), "softmax")) == ["latency"]


def test_errors_stand_by_dtype_in_natural_order() -> None:
    rows = erring("rows16.fp16", eager=3e-4, kernl=2e-4) + erring("rows8.fp16", kernl=1e-4)
    rows += erring("rows8.bf16", kernl=2e-3, liger=4e-3)
    made = of_errors(*rows)
    assert made is not None
    ours = trace(made, "kernl")
    assert list(ours.text) == ["rows8.bf16", "rows8.fp16", "rows16.fp16"]
    assert (list(ours.x), list(ours.y)) == ([0, 1, 2], [2e-3, 1e-4, 2e-4])
    assert list(ours.customdata) == ["2.0e-03", "1.0e-04", "2.0e-04"]
    assert [one.meta["role"] for one in as_plotly(made).data] == ["kernl", "liger", "eager"]
    x, y = as_plotly(made).layout.xaxis, as_plotly(made).layout.yaxis
    assert (list(x.tickvals), list(x.ticktext)) == ([0, 1.5], ["bf16", "fp16"])
    assert [shape.x0 for shape in as_plotly(made).layout.shapes] == [0.5]
    assert (y.type, y.title.text) == ("log", "relative L2 error (log)")
    assert list(y.ticktext) == ["10⁻⁴", "0.001", "0.01"]
    assert made.label.endswith("; 0 of 5 errors are 0")
    assert drawing.table(made) == [
        ["Case", "kernl", "liger", "eager"],
        ["rows8.bf16", "2.0e-03", "4.0e-03", "–"],
        ["rows8.fp16", "1.0e-04", "–", "–"],
        ["rows16.fp16", "2.0e-04", "–", "3.0e-04"],
    ]


def test_an_error_of_zero_lies_below_the_scale_and_says_so() -> None:
    made = of_errors(*erring("a.fp16", kernl=0.0, eager=3e-4))
    assert made is not None
    y = as_plotly(made).layout.yaxis
    assert list(trace(made, "kernl").y) == [1e-5]  # a power of ten below the least other one's
    assert list(trace(made, "kernl").customdata) == ["0, exact"]
    assert dict(zip(y.tickvals, y.ticktext, strict=True))[1e-5] == "0"
    assert y.range[0] < -5
    assert made.label.endswith("; 1 of 2 errors are 0")
    assert drawing.table(made)[1] == ["a.fp16", "0", "3.0e-04"]


def test_where_all_are_exact_the_scale_names_nothing_else() -> None:
    made = of_errors(*erring("a.fp16", kernl=0.0, eager=0.0))
    assert made is not None
    assert list(as_plotly(made).layout.yaxis.ticktext) == ["0"]
    assert set(trace(made, "kernl").y) == set(trace(made, "eager").y)


@pytest.mark.parametrize("error", [math.nan, math.inf, -1e-3])
def test_what_is_no_error_is_not_drawn(error: float) -> None:
    assert of_errors(*erring("a.fp16", kernl=error)) is None


def test_an_error_of_a_failed_call_is_not_drawn() -> None:
    assert of_errors(row(error=0.3, status="failed", value=math.nan)) is None


def test_numbers_beyond_reason_have_an_axis_all_the_same() -> None:
    made = of_errors(*erring("a.fp16", kernl=1e-320, eager=1e308, compile=0.0))
    assert made is not None
    assert len(as_plotly(made).layout.yaxis.tickvals) <= axes.MOST_TICKS + 1
    json.dumps(made.payload(), allow_nan=False)
    rows = times("softmax", CASE, kernl=1e-320, eager=1e300)
    for figure in drawn(source(rows), "softmax").values():
        json.dumps(figure.payload(), allow_nan=False)


def test_names_from_files_stay_text() -> None:
    rows = [
        row(op="softmax", case=f"{name}.{name}", commit=COMMIT, run="r", error=1e-3,
            variant=variant, value=5e-6)
        for name in ATTACKS for variant in ("kernl", "eager", name)
    ]  # fmt: skip
    names = {str(case) for case in source(rows).rows(MACHINE, COMMIT)["case"]}
    costs = {("softmax", name, "1"): COSTS["linear", CASE, "1"] for name in names}
    found = source(rows, costs=costs)
    made = drawn(found, "softmax")
    assert list(made) == ["latency", "roofline", "errors"]
    for figure in made.values():
        payload = figure.payload()
        for one in payload["data"]:
            said = "".join([*one.get("text", ()), *one.get("customdata", ()), one["name"]])
            said = said.replace("<br>", "")
            assert not {"<", ">"} & set(said)
            assert "%{" not in said
        assert "<" not in "".join(payload["layout"]["xaxis"]["ticktext"])
        assert max(len(cell) for line in drawing.table(figure) for cell in line) < 100
    page = pages.files(found)["op-softmax.html"].decode()
    assert "<script>alert" not in page
    assert "onerror=alert(2)>" not in page


def test_the_page_has_figures_their_words_and_their_numbers() -> None:
    rows = timed("softmax", variant="kernl", value=25e-6, error=2e-4)
    page = pages.files(source(rows))["op-softmax.html"].decode()
    titles = re.findall(r"<figcaption><b>([^<]*)", page)
    assert titles[-3:] == ["Device time against size", "Roofline", "Error against float64"]
    assert page.count("Numbers of this figure") >= 4
    assert "<td class=number>25.00</td><td class=number>2,400</td>" in page
    assert "<td class=number>2.0e-04</td>" in page
    assert "Relative L2 error of 1 case against float64" in page
    assert 'aria-label="Roofline: TFLOP/s that kernl' in page


def test_the_order_of_rows_changes_no_figure() -> None:
    names = synthetic.cases("softmax", 12)
    rows = [each for name in names for each in times("softmax", name, kernl=5e-6, eager=9e-6)]
    rows = [{**each, "error": 1e-4} for each in rows]
    costs = {("softmax", name, "1"): Cost(10**6, 10**6, name[-4:]) for name in names}
    first, second = (
        {name: one.payload() for name, one in drawn(source(some, costs=costs), "softmax").items()}
        for some in (rows, rows[::-1])
    )
    assert first == second
    assert len(first) == 3


def test_a_figure_of_many_marks_stays_light() -> None:
    names = [f"m{number}_n4096_k4096_bias_gelu_tanh.fp16" for number in range(200)]
    six = ("kernl", "eager", "compile", "library", "liger", "other")
    rows = [
        row(op="linear", case=case, variant=name, commit=COMMIT, run="r", error=2.13e-4,
            value=5e-6, low=4.9e-6, high=5.1e-6)
        for case in names for name in six
    ]  # fmt: skip
    costs = {("linear", name, "1"): Cost(10**6, 10**9, "fp16") for name in names}
    for made in drawn(source(rows, costs=costs), "linear").values():
        assert len(json.dumps(made.payload())) < 200_000


@pytest.mark.parametrize(
    ("value", "words"),
    [(1.0, "1"), (500.0, "500"), (0.001, "0.001"), (1e-4, "10⁻⁴"), (2e-5, "2·10⁻⁵"), (1e5, "10⁵")],
)
def test_round_numbers_in_words(value: float, words: str) -> None:
    assert axes.number(value) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (512, "512 B"),
        (999.7, "1 KB"),
        (3_641_856, "3.64 MB"),
        (2.5e10, "25 GB"),
        (1e19, "1e+04 PB"),
    ],
)
def test_sizes_in_words(count: float, words: str) -> None:
    assert axes.size(count) == words


def test_figures_are_of_the_newest_commit() -> None:
    older = [{**each, "commit": "0" * 40, "value": 1e-3,
              "committed_at": pd.Timestamp("2025-01-01", tz="UTC")}
             for each in times("softmax", CASE, kernl=1e-3)]  # fmt: skip
    files = pages.files(source([*older, *times("softmax", CASE, kernl=25e-6)]))
    page = files["op-softmax.html"].decode()
    assert "<td class=number>25.00</td><td class=number>2,400</td>" in page
    assert "<td class=number>1,000</td><td class=number>60</td>" not in page
