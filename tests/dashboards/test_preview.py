"""What a page shows before Plotly is there, and what it loads when."""

import math
from pathlib import Path
from typing import Any

import pytest

from dashboards import build
from dashboards.data.source import Source
from dashboards.plots import figures, preview
from tests.dashboards import synthetic
from tests.dashboards.chromium import MARKS

STORE = synthetic.store(ops=("softmax", "linear"), count=6, commits=4)


@pytest.fixture(scope="module")
def source() -> Source:
    return Source.of(STORE)


def points(piece: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (one.split(",") for one in piece.split())]


def test_lines_lie_where_their_values_do(source: Source) -> None:
    cube = source.cube("kernels", "nvidia-h200", "softmax")
    assert cube is not None
    case = figures.most_timed(cube)[0]
    found = preview.of_times(cube, case, "µs")
    assert found is not None
    at = [name for _, name in cube.points.cases].index(case)
    heights, logs = [], []
    for line in found.lines:
        (piece,) = line.pieces
        assert [x for x, _ in points(piece)] == pytest.approx([15.0, 338.3, 661.7, 985.0])
        heights += [y for _, y in points(piece)]
        logs += [math.log(one) for one in cube.times(line.name)[:, at]]
    # One straight scale for all of them, from above.
    slope = (heights[-1] - heights[0]) / (logs[-1] - logs[0])
    assert slope < 0
    for height, log in zip(heights, logs, strict=True):
        assert height == pytest.approx(heights[0] + slope * (log - logs[0]), abs=0.5)
    assert found.one is None
    assert all(level.text.endswith(" µs") for level in found.levels)
    assert [tick.anchor for tick in found.commits] == ["start", "middle", "end"]


def test_a_gap_ends_a_piece_and_a_single_point_is_a_dot() -> None:
    assert preview.spark([]) == ()
    assert preview.spark([None, math.nan]) == ()
    assert preview.spark([0.0, -1.0, math.inf]) == ()
    first, second = preview.spark([2.0, None, 2.0, 2.0])
    assert points(first) == [(15.0, 500.0)] * 2
    assert [y for _, y in points(second)] == [500.0, 500.0]


def test_noise_is_a_flat_line_and_a_rise_is_not() -> None:
    (noise,) = preview.spark([2.0, 2.002, 2.0])
    (rise,) = preview.spark([1.0, 2.0, 4.0])
    spans = [max(y) - min(y) for y in ([y for _, y in points(one)] for one in (noise, rise))]
    assert spans[0] < 20
    assert spans[1] == pytest.approx(800)


def test_speedups_keep_one_in_view(source: Source) -> None:
    cube = source.cube("kernels", "nvidia-h200")
    assert cube is not None
    drawing = figures.mean_trend(cube, ["softmax"], source.commits)
    found = preview.of_speedups(drawing)
    assert found is not None
    assert [line.name for line in found.lines] == ["over eager", "over the best alternative"]
    assert found.one is not None
    assert 0 < found.one < 100
    assert "1×" not in [level.text for level in found.levels]
    assert len(found.levels) <= 4


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, source: Source) -> Path:
    folder = tmp_path_factory.mktemp("preview") / "site"
    build.build(source, folder)
    return folder


def opened(browser: Any, address: str) -> tuple[Any, list[str]]:
    page = browser.new_page(viewport={"width": 1280, "height": 1600})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    return page, said


@MARKS[0]
@MARKS[1]
def test_the_overview_loads_plotly_when_somebody_points_at_a_figure(
    browser: Any, site: Path
) -> None:
    page, said = opened(browser, (site / "index.html").as_uri())
    assert page.locator("svg.preview polyline").count() >= 2
    assert page.locator("svg.spark polyline").count() == 2
    page.wait_for_timeout(500)
    assert page.evaluate("window.Plotly === undefined")
    page.locator(".plot").first.hover()
    page.locator(".plot .main-svg").first.wait_for()
    assert page.locator("svg.preview").count() == 0
    assert said == []
    page.close()


@MARKS[0]
@MARKS[1]
def test_an_operator_s_page_draws_by_itself_once_it_is_there(browser: Any, site: Path) -> None:
    page, said = opened(browser, (site / "op-softmax.html").as_uri())
    page.locator("#times-1 .main-svg").first.wait_for()
    assert page.locator("svg.preview").count() == 0
    assert said == []
    page.close()


@MARKS[0]
@MARKS[1]
def test_a_compiled_case_is_loaded_when_it_is_chosen(browser: Any, site: Path) -> None:
    page, said = opened(browser, (site / "op-softmax.html").as_uri())
    select = page.locator("select[data-compiled]")
    select.scroll_into_view_if_needed()
    plot = select.get_attribute("data-plots").split()[0]
    page.locator(f"#{plot} .main-svg").first.wait_for()
    read = f"document.getElementById('{plot}').data.map(trace => trace.y)"
    everything = page.evaluate(read)
    select.select_option(index=2)
    page.wait_for_function(f"() => {read}[0][0] !== {everything[0][0]}")
    case, metric = select.input_value(), select.get_attribute("data-metrics").split()[0]
    rows = STORE.rows[(STORE.rows["case"] == case) & (STORE.rows["metric"] == metric)]
    rows = rows[(rows["op"] == "softmax") & (rows["suite"] == "codegen")]
    wanted = {
        variant: [None if math.isnan(one) else one for one in of["value"]]
        for variant, of in rows.groupby("variant")
    }
    names = page.evaluate(f"document.getElementById('{plot}').data.map(trace => trace.name)")
    assert dict(zip(names, page.evaluate(read), strict=True)) == wanted
    assert "compiled=" in page.url
    cell = page.locator(f"#{plot}-table tbody tr").first.locator("td").first.text_content()
    assert cell == str(int(wanted[names[0]][0] or 0))
    select.select_option(index=0)
    page.wait_for_function(f"() => {read}[0][0] === {everything[0][0]}")
    assert said == []
    page.close()
