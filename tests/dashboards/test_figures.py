"""Figures hold the traces, units and axes that they should."""

import json
import math
import re
from collections import Counter

import numpy as np
import plotly.graph_objects as go
import pytest

from benchmarks.cases import NOT_SELECTED
from dashboards import order, pages, text
from dashboards.data import history, ratios, summary
from dashboards.data.cube import Cube
from dashboards.data.ratios import Ratios, Trend
from dashboards.data.source import Source
from dashboards.plots import drawing, figures, heat
from dashboards.plots.drawing import Drawing
from dashboards.plots.figure import Figure
from dashboards.tabular import tables
from tests.dashboards import synthetic
from tests.dashboards.plotly_figure import as_plotly
from tests.dashboards.synthetic import row

MACHINE = "nvidia-h200"
STORE = synthetic.store(ops=("softmax", "linear"), count=6, commits=3)
SOURCE = Source.of(STORE)
ORDER = SOURCE.commits
OPS = ("softmax", "linear")


def cube_of(
    *rows: dict[str, object], suite: str = "kernels", machine: str = MACHINE, op: str = "softmax"
) -> Cube:
    """What all commits measured of an operator."""
    store = synthetic.Store(synthetic.frame(list(rows)), synthetic.runs_frame([]))
    found = Source.of(store).cube(suite, machine, op)
    assert found is not None
    return found


def mean_trend(source: Source = SOURCE, changes: tuple[history.Change, ...] = ()) -> Drawing:
    cube = source.cube("kernels", MACHINE)
    assert cube is not None
    return figures.mean_trend(cube, OPS, source.commits, changes)


def codegen_trend(metric: str, source: Source = SOURCE) -> Drawing:
    cube = source.cube("codegen", "compile-only", "softmax")
    assert cube is not None
    return figures.codegen_trend(cube, metric, source.commits)


def test_mean_trend_has_a_log_axis_around_one() -> None:
    found = mean_trend()
    names = [trace.name for trace in as_plotly(found).data]
    assert names == ["over eager", "over the best alternative", "1×"]
    axis = as_plotly(found).layout.yaxis
    assert (axis.type, axis.ticksuffix) == ("log", "×")
    assert set(as_plotly(found).data[2].y) == {1.0}
    assert [choice.label for choice in found.choices] == ["all operators", "linear", "softmax"]


def test_mean_trend_values_are_the_summary_s() -> None:
    frame = summary.speedups(STORE.rows)
    found = mean_trend()
    last = frame[frame["commit"] == ORDER[-1].id]
    expected = summary.geometric_mean(last["over_eager"])
    assert as_plotly(found).data[0].y[-1] == pytest.approx(expected, rel=1e-3)
    softmax = last[last["op"] == "softmax"]
    expected = summary.geometric_mean(softmax["over_best"])
    assert found.choices[2].traces[1]["y"][-1] == pytest.approx(expected, rel=1e-3)


def test_mean_trend_is_over_the_named_operators_and_the_commits_that_are_asked_for() -> None:
    cube = SOURCE.cube("kernels", MACHINE)
    assert cube is not None
    found = figures.mean_trend(cube, ["linear", "unknown"], ORDER[1:])
    assert [choice.label for choice in found.choices] == ["all operators", "linear"]
    linear = mean_trend().choices[1]
    assert linear.label == "linear"
    for every, some in zip(linear.traces, found.choices[0].traces, strict=True):
        assert list(some["y"]) == list(every["y"])[1:]
        assert len(some["y"]) == len(ORDER) - 1


def test_operators_of_other_machines_are_no_choices_of_a_trend() -> None:
    rows = [
        row(op=op, machine=machine, variant=variant)
        for op, machine in (("softmax", MACHINE), ("softmax", "other"), ("linear", "other"))
        for variant in ("kernl", "eager")
    ]
    source = Source.of(synthetic.Store(synthetic.frame(rows), synthetic.runs_frame([])))
    labels = [choice.label for choice in mean_trend(source).choices]
    assert labels == ["all operators", "softmax"]


A, B, C, D = COMMITS = [f"{name * 40}" for name in "abcd"]


def trend_of(
    column: str, *points: tuple[str, str, str, float], failed: tuple[str, str] = ("", "")
) -> Trend:
    """The trend of (commit, case, implementation, seconds); `failed` (commit, case) of kernl.

    It has all of the commits: each has a case that it did not ask for.
    """
    rows = [
        row(commit=commit, case=f"{case}.fp16", variant=variant, value=value)
        for commit, case, variant, value in points
    ]
    if failed[0]:
        rows += [row(commit=failed[0], case=f"{failed[1]}.fp16", variant="kernl", status="failed")]
        rows[-1]["value"] = math.nan
    left_out = {"status": "skipped", "reason": NOT_SELECTED, "value": math.nan}
    rows += [row(commit=commit, case="other.fp16", **left_out) for commit in COMMITS]
    cube = cube_of(*rows)
    assert list(cube.commits) == COMMITS
    of = {"over_eager": ratios.over_eager, "over_best": ratios.over_best}[column]
    return of(Ratios.of(cube))


def known(trend: Trend) -> list[float]:
    """The mean of the commits that have one."""
    return [mean for mean in trend.mean.tolist() if not math.isnan(mean)]


def both(commit: str, case: str, eager: float, kernl: float) -> list[tuple[str, str, str, float]]:
    return [(commit, case, "eager", eager), (commit, case, "kernl", kernl)]


def test_a_trend_compares_like_with_like() -> None:
    """Case x is 2×, then 4×; y joins at B with 8×, z at D with 100×."""
    points = both(A, "x", 2.0, 1.0) + both(B, "y", 8.0, 1.0) + both(C, "x", 4.0, 1.0)
    points += both(D, "y", 8.0, 1.0) + both(D, "z", 100.0, 1.0)
    found = trend_of("over_eager", *points)
    newest = 3200 ** (1 / 3)  # as the summary says it
    before = newest / 2**0.5  # one of two cases doubled
    assert list(found.mean) == pytest.approx([before, before, newest, newest])
    assert list(found.cases) == [1, 2, 2, 3]
    assert list(found.measured) == [1, 1, 1, 2]
    assert trend_of("over_eager", *points[:2]).mean[0] == 2.0, "all that there is"


def test_a_trend_ends_where_two_commits_share_no_case() -> None:
    points = [*both(A, "x", 2.0, 1.0), *both(A, "y", 2.0, 1.0), *both(C, "z", 8.0, 1.0)]
    points += [*both(B, "y", 2.0, 1.0)]
    assert known(trend_of("over_eager", *points)) == pytest.approx([32 ** (1 / 3)] * 3)
    gone = [(B, "x", "eager", 2.0), *both(C, "z", 8.0, 1.0)]
    found = trend_of("over_eager", *both(A, "x", 2.0, 1.0), *gone, failed=(B, "x"))
    assert list(np.isnan(found.mean)) == [True, True, False, True]
    assert found.mean[2] == pytest.approx(8.0)


def test_a_commit_that_measured_nothing_has_no_place_in_a_trend() -> None:
    points = both(A, "x", 2.0, 1.0) + both(C, "x", 2.0, 1.0)
    assert list(np.isnan(trend_of("over_eager", *points).mean)) == [False, True, False, True]


def test_after_a_failure_nothing_is_kept() -> None:
    points = [*both(A, "x", 2.0, 1.0), *both(A, "y", 8.0, 1.0), (B, "x", "eager", 2.0)]
    points += both(C, "y", 8.0, 1.0) + both(D, "x", 3.0, 1.0)
    found = trend_of("over_eager", *points, failed=(B, "x"))
    # y alone is known from A to D and stays as it is; what x was before is not what it is at D.
    assert known(found) == pytest.approx([24**0.5] * 3)
    assert list(found.cases) == [2, 1, 1, 2]


def test_eager_alone_is_no_best_alternative() -> None:
    """Of a case that has more to compare with in other commits, as x; y never has."""
    points = [*both(A, "x", 4.0, 1.0), (A, "x", "compile", 2.0), *both(B, "x", 4.0, 0.5)]
    points += [*both(C, "x", 4.0, 0.5), (C, "x", "compile", 1.0)]
    points += both(A, "y", 8.0, 1.0) + both(B, "y", 8.0, 1.0) + both(C, "y", 8.0, 1.0)
    found = trend_of("over_best", *points)
    assert known(found) == pytest.approx([4.0, 4.0, 4.0])
    assert list(found.measured) == [2, 1, 2, 0]
    alone = both(A, "x", 4.0, 1.0) + both(B, "x", 4.0, 0.5)
    assert known(trend_of("over_best", *alone)) == pytest.approx([4.0, 8.0])


def test_cases_with_times_come_first() -> None:
    """A page opens with the first, and a quick run leaves most of them out."""
    left_out = {"status": "skipped", "value": math.nan}
    rows = [
        row(case="rows1.fp16", variant="kernl", **left_out),
        row(case="rows16.fp16", variant="kernl", value=1e-6),
        row(case="rows8.fp16", variant="kernl", value=1e-6),
        row(case="rows9.fp16", variant="kernl", **left_out),
    ]
    expected = ["rows8.fp16", "rows16.fp16", "rows1.fp16", "rows9.fp16"]
    assert figures.most_timed(cube_of(*rows)) == expected
    frame = synthetic.frame(rows)
    table = tables.cases(frame, summary.speedups(frame))
    shown = [cells[0].text for cells in table.rows]
    assert shown == [case for case in expected if case in shown]
    assert shown[:2] == expected[:2]


def test_cases_that_most_commits_timed_come_first() -> None:
    cube = cube_of(
        row(case="rows8.fp16"),
        row(case="rows8.fp16", variant="eager"),
        row(case="rows16.fp16"),
        row(case="rows16.fp16", commit=synthetic.commit_hash(1)),
    )
    assert figures.most_timed(cube) == ["rows16.fp16", "rows8.fp16"]


def test_cases_of_other_machines_are_not_offered() -> None:
    elsewhere = row(case="rows16.fp16", machine="nvidia-a100")
    cube = cube_of(row(case="rows8.fp16"), elsewhere)
    assert figures.most_timed(cube) == ["rows8.fp16"]


@pytest.mark.parametrize(
    ("metric", "unit"),
    [
        ("registers", "registers per thread"),
        ("spills", "instructions"),
        ("shared_memory", "bytes"),
        ("instructions", "instructions"),
        ("occupancy", "occupancy (%)"),
    ],
)
def test_codegen_trend_has_a_line_an_architecture_and_a_unit(metric: str, unit: str) -> None:
    found = codegen_trend(metric)
    assert [trace.name for trace in as_plotly(found).data] == ["sm_80", "sm_86", "sm_90", "sm_100"]
    assert as_plotly(found).layout.yaxis.title.text == unit
    assert [choice.label for choice in found.choices] == [figures.ALL]


@pytest.mark.parametrize("metric", synthetic.METRICS)
def test_codegen_trend_values_are_the_summary_s(metric: str) -> None:
    """Whatever became of the cases, of which one architecture has none at one commit."""
    seeded = np.random.default_rng(synthetic.METRICS.index(metric))
    broken: dict[str, object] = {"status": "failed", "value": math.nan}
    skipped: dict[str, object] = {"status": "skipped", "value": math.nan, "reason": NOT_SELECTED}
    changed: list[dict[str, object]] = [{}] * 6 + [
        broken,
        skipped,
        {"value": math.nan},
        {"value": 0.0},
    ]
    made = STORE.rows[STORE.rows["suite"] == "codegen"].to_dict("records")
    rows = [
        {**one, **changed[seeded.integers(len(changed))]}
        for one in made
        if (one["commit"], one["variant"]) != (ORDER[1].id, "sm_86") and seeded.random() < 0.9
    ]
    rows = [{**one, **broken} if one["variant"] == "sm_100" else one for one in rows]
    frame = synthetic.frame(rows)
    source = Source.of(synthetic.Store(frame, synthetic.runs_frame([])))
    totals = summary.totals(frame[(frame["op"] == "softmax") & (frame["metric"] == metric)])
    expected = totals.set_index(["variant", "commit"])
    found = codegen_trend(metric, source)
    for trace in as_plotly(found).data:
        for commit, value, note in zip(source.commits, trace.y, trace.customdata, strict=True):
            if (trace.name, commit.id) not in expected.index:
                assert (value, note) == (None, "not measured")
                continue
            total, measured, cases = expected.loc[
                (trace.name, commit.id), ["total", "measured", "cases"]
            ]
            assert value == text.number(float(total), 7)
            assert str(note).startswith(text.count(total, metric) if measured else "not measured")
            counted = re.search(r"(mean|total) of (\d+) of (\d+) cases$", str(note))
            assert counted
            kind = "mean" if metric in summary.MEANS else "total"
            assert counted.groups() == (kind, str(int(measured)), str(int(cases)))
    assert {trace.name for trace in as_plotly(found).data} == set(synthetic.ARCHITECTURES)


def test_heat_map_is_symmetric_around_one_and_empty_where_nothing_was_measured() -> None:
    rows = synthetic.frame(
        [
            row(case="r16.fp16", variant="eager", value=4e-6),
            row(case="r16.fp16", variant="kernl", value=1e-6),
            row(case="r8.fp16", variant="eager", value=1e-6),
            row(case="r8.fp16", variant="kernl", value=2e-6),
            row(case="r8.bf16", variant="eager", value=1e-6),
            row(case="r8.bf16", variant="kernl", value=math.nan, status="skipped", reason="odd"),
            row(case="r16.bf16", variant="eager", value=1e-6),
            row(case="r16.bf16", variant="kernl", value=math.nan, status="failed"),
        ]
    )
    trace = as_plotly(heat.heat_map(summary.relative(rows))).data[0]
    assert [list(level) for level in trace.x] == [["bf16", "fp16"], ["kernl", "kernl"]]
    assert list(trace.y) == ["r8", "r16"]
    assert [list(line) for line in trace.z] == [[0.0, -1.0], [None, 2.0]]
    assert trace.zmin == -trace.zmax
    assert trace.customdata[0][0] == "1.00× (left to eager)"


def test_environment_changes_are_drawn_and_named() -> None:
    changes = (history.Change(ORDER[1].id, "driver 570 → 575"),)
    found = mean_trend(changes=changes)
    assert [note.text for note in as_plotly(found).layout.annotations] == ["driver 570 → 575"]
    assert as_plotly(found).layout.shapes[0].x0 == 0.5


def test_payload_carries_no_template_and_fits_its_choices() -> None:
    found = codegen_trend("registers")
    payload = found.payload()
    assert "template" not in payload["layout"]
    for traces in payload["choices"]:
        assert len(traces) == len(payload["data"])
        assert all(len(trace["y"]) == len(ORDER) for trace in traces)


def test_the_table_beside_a_figure_has_its_numbers() -> None:
    found = codegen_trend("registers")
    table = drawing.table(found)
    assert table[0] == ["Commit", "sm_80", "sm_86", "sm_90", "sm_100"]
    assert len(table) == 1 + len(ORDER)
    assert "mean of" in table[1][1]


def test_shapes_are_in_natural_order() -> None:
    assert sorted(["r16_c8", "r8_c16", "r8_c8"], key=order.natural) == [
        "r8_c8",
        "r8_c16",
        "r16_c8",
    ]


def test_a_part_of_the_layout_keeps_what_it_had() -> None:
    made = Figure()
    made.lay_out(xaxis={"side": "top", "tickangle": 1}, height=1)
    made.lay_out(xaxis={"tickangle": 0}, height=2)
    assert made.layout == {"xaxis": {"side": "top", "tickangle": 0}, "height": 2}


def test_plotly_takes_every_figure_of_a_site() -> None:
    """Nothing checks a figure's attributes when a site is built."""
    with_models = synthetic.with_models(synthetic.store(ops=("softmax",), count=9, commits=3), 4)
    seen: Counter[str] = Counter()
    for name, content in pages.files(Source.of(with_models)).items():
        for line in content.decode().splitlines() if name.startswith("data/") else ():
            if line.startswith('window.KERNL_FIGURES["'):
                payload = json.loads(line.split("=", 1)[1].removesuffix(";"))
                figure = go.Figure(data=payload["data"], layout=payload["layout"])
                for choice in payload["choices"]:
                    for trace, patch in zip(figure.data, choice, strict=False):
                        trace.update(patch)
                seen.update(trace.type for trace in figure.data)
    assert set(seen) == {"scatter", "heatmap"}
    with pytest.raises(ValueError, match="hovertemplat"):
        go.Figure(data=[{"type": "scatter", "hovertemplat": ""}])
