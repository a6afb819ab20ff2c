"""How the times of a case along commits are shown: as what, from where, and what stands beside."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dashboards import build
from dashboards.data.history import Branch, Release
from dashboards.data.source import Source
from tests.dashboards import synthetic
from tests.dashboards.chromium import MARKS
from tests.dashboards.synthetic import commit_hash, row
from tests.dashboards.test_browser import Opened
from tests.dashboards.test_regressions import STEP, measured

pytestmark = MARKS
GPU = "nvidia-h200"
SECOND = "nvidia-l40s"
CASE = "rows8_cols8.fp16"
LATE = "rows9_cols9.fp16"
DAYS = (0, 1, 2, 30, 31)
"""When each of the commits was made that time the second case."""
RELEASES = (("v0.1.0", 1), ("v0.2.0", 3), ("v0.2.1", 4))


def timed(
    machine: str, number: int, day: int, case: str, **times: float
) -> list[dict[str, object]]:
    """Rows of a case at a commit, with an interval of a per cent to either side."""
    date = pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(days=day)
    shared = {"machine": machine, "commit": commit_hash(number), "committed_at": date, "case": case}
    return [
        row(**shared, variant=name, value=time, low=0.99 * time, high=1.01 * time)
        for name, time in times.items()
    ]


def rows() -> list[dict[str, object]]:
    found = measured(STEP)
    for number in range(12):
        found += timed(SECOND, number, number, CASE, kernl=3e-5, eager=6e-5)
    return found


def irregular() -> list[dict[str, object]]:
    """Five commits, the middle one without eager; kernl's time rises by 2 % in the last."""
    found = []
    for number, day in enumerate(DAYS):
        times = {"kernl": 1e-5 * (1.02 if number == 4 else 1.0), "compile": 4e-5}
        if number != 2:
            times["eager"] = 2e-5 if number else 3e-5
        found += timed(GPU, number, day, LATE, **times)
    return found


def built(folder: Path, some: list[dict[str, object]], *releases: tuple[str, int]) -> Path:
    found = Source.of(synthetic.Store(synthetic.frame(some), synthetic.runs_frame([])))
    parents = {commit_hash(n): (commit_hash(n - 1),) if n else () for n in range(12)}
    branch = Branch(parents, tuple(Release(name, commit_hash(n)) for name, n in releases))
    build.build(Source(**{**vars(found), "branch": branch}), folder)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("trend") / "site", rows(), ("v0.1.0", 3), ("v0.2.0", 8))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("uneven") / "site", irregular(), *RELEASES)


def figure(browser: Any, site: Path, place: str, **how: Any) -> tuple[Opened, str]:
    """An opened page with its figure drawn, and what reads the figure in a script."""
    here = Opened(browser, f"{site.as_uri()}/{place}", **how)
    plot = "trend" if place.startswith("case") else "times-1"
    here.page.locator(f"#{plot} .main-svg").first.wait_for(timeout=20_000)
    return here, f"document.getElementById('{plot}')"


def lines(here: Opened, read: str) -> dict[str, Any]:
    """The traces that are lines of an implementation, by name."""
    return {
        str(trace["name"]): trace
        for trace in here.page.evaluate(f"JSON.parse(JSON.stringify({read}.data))")
        if "place" in trace["meta"]
    }


@pytest.mark.parametrize("page", ["op-softmax.html", f"case.html#of=softmax&case={LATE}"])
def test_over_eager_is_eager_s_time_over_each_one_s(browser: Any, uneven: Path, page: str) -> None:
    here, read = figure(browser, uneven, page)
    assert set(lines(here, read)) == {"eager", "kernl", "compile"}
    here.page.locator("[data-how=as]").focus()
    here.page.keyboard.press("ArrowDown")
    here.page.wait_for_function(f"() => {read}.layout.yaxis.ticksuffix === '×'")
    assert "as=eager" in here.page.url
    found = lines(here, read)
    assert set(found) == {"kernl", "compile"}
    ratios = found["kernl"]["y"]
    assert ratios[2] is None
    assert ratios[:2] + ratios[3:] == pytest.approx([3, 2, 2, 2 / 1.02], rel=1e-5)
    assert found["compile"]["y"][1] == pytest.approx(0.5, rel=1e-5)
    assert "error_y" not in found["kernl"]
    assert found["kernl"]["customdata"][1].startswith("2.000× eager, 10.000 µs (9.900 to 10.10)")
    assert "no time of eager here" in found["kernl"]["customdata"][2]
    assert commit_hash(1)[:8] in found["kernl"]["text"][1]
    layout = here.page.evaluate(f"{read}.layout.yaxis")
    assert (layout["type"], layout["title"]["text"]) == ("log", "speedup over eager (×, log)")
    assert here.page.evaluate(f"{read}.data.at(-1).y") == [1, 1]
    assert "without intervals" in here.page.locator("figcaption span").first.inner_text()
    assert here.said == []
    here.close()


def test_a_small_step_is_plain_relative_to_a_commit(browser: Any, uneven: Path) -> None:
    """A step of 2 % takes most of an axis that is fitted to it, and next to nothing in time."""
    here, read = figure(browser, uneven, "op-softmax.html#as=relative")
    kernl = lines(here, read)["kernl"]
    assert kernl["y"] == pytest.approx([100, 100, 100, 100, 102], rel=1e-5)
    assert kernl["error_y"]["array"] == pytest.approx([1, 1, 1, 1, 1.02], rel=1e-3)
    assert kernl["error_y"]["arrayminus"] == pytest.approx([1, 1, 1, 1, 1.02], rel=1e-3)
    assert kernl["customdata"][4].startswith(f"102.0 % of that at {commit_hash(0)[:8]}, 10.20 µs (")
    axis = here.page.evaluate(f"{read}.layout.yaxis")
    assert axis["type"] == "linear"
    assert axis["ticksuffix"] == " %"
    assert axis["title"]["text"] == f"time (% of that at {commit_hash(0)[:8]})"
    # eager's time fell by a third, which would press the step flat; a click on its name hides it
    here.page.evaluate(
        f"Plotly.restyle({read}, 'visible', 'legendonly', "
        f"[{read}.data.findIndex(t => t.name === 'eager')])"
    )
    low, high = here.page.evaluate(f"{read}.layout.yaxis.range")
    assert 2 / (high - low) > 0.3
    assert here.said == []
    here.close()


def test_a_wide_interval_does_not_press_the_values_flat(browser: Any, tmp_path: Path) -> None:
    some = irregular()
    some[-1] = {**some[-1], "high": 9 * float(str(some[-1]["value"]))}
    here, read = figure(browser, built(tmp_path / "site", some), "op-softmax.html#as=relative")
    low, high = here.page.evaluate(f"{read}._fullLayout.yaxis.range")
    assert 100 < high < 140
    assert 40 < low < 100 * 2 / 3
    here.close()


def test_any_shown_commit_may_be_the_one_that_is_held_against(browser: Any, uneven: Path) -> None:
    here, read = figure(browser, uneven, "op-softmax.html#as=relative")
    here.page.locator("[data-how=from]").select_option(index=2)
    here.page.wait_for_function(f"() => {read}.layout.yaxis.title.text.includes("
                                f"'{commit_hash(2)[:8]}')")  # fmt: skip
    assert f"from={commit_hash(2)[:12]}" in here.page.url
    found = lines(here, read)
    assert found["kernl"]["y"][2] == pytest.approx(100)
    # eager has no time there: its next one is its own measure, and the words say so
    assert found["eager"]["y"][3] == pytest.approx(100)
    assert found["eager"]["y"][0] == pytest.approx(150)
    assert f"% of that at {commit_hash(3)[:8]}" in found["eager"]["customdata"][3]
    box = here.page.locator("#times-1 .scatterlayer .trace").first.locator(".points path").nth(4)
    here.page.locator("#times-1").scroll_into_view_if_needed()
    place = box.bounding_box()
    middle = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    here.page.mouse.move(*middle)
    here.page.mouse.click(*middle)
    here.page.wait_for_function(f"() => location.hash.includes('from={commit_hash(4)[:12]}')")
    assert lines(here, read)["kernl"]["y"][0] == pytest.approx(100 / 1.02)
    address = here.page.url
    here.close()
    again, read = figure(browser, uneven, address.rsplit("/", 1)[1])
    assert lines(again, read)["kernl"]["y"][0] == pytest.approx(100 / 1.02)
    assert again.page.locator("[data-how=from]").input_value() == commit_hash(4)[:12]
    link = again.page.locator("a.case-page").first.get_attribute("href")
    assert "as=relative" in link
    assert f"from={commit_hash(4)[:12]}" in link
    again.close()


def test_a_spoilt_address_shows_times(browser: Any, uneven: Path) -> None:
    here, read = figure(browser, uneven, "op-softmax.html#as=__proto__&x=9&from=%3Cb%3E")
    assert here.page.evaluate(f"{read}.layout.yaxis.title.text") == "time (µs, log)"
    assert here.said == []
    here.close()


def test_without_eager_the_figure_says_so_and_time_brings_it_back(
    browser: Any, tmp_path: Path
) -> None:
    some = [one for one in irregular() if one["variant"] != "eager"]
    address = f"{built(tmp_path / 'site', some).as_uri()}/op-softmax.html#as=eager"
    here = Opened(browser, address)
    here.page.wait_for_function(
        "() => document.getElementById('times-1').textContent.includes('eager was not timed')"
    )
    assert not here.page.locator(".tools").first.is_visible()
    here.page.locator("[data-how=as]").select_option("time")
    here.page.locator("#times-1 .main-svg").first.wait_for()
    assert here.page.locator(".tools").first.is_visible()
    assert "eager was not" not in here.page.locator("#times-1").inner_text()
    assert here.said == []
    here.close()


def test_a_step_reaches_back_to_the_commit_timed_before(browser: Any, site: Path) -> None:
    here, read = figure(browser, site, "op-softmax.html")
    shapes = here.page.evaluate(f"{read}.layout.shapes")
    (band,) = [one for one in shapes if one.get("name") == "step"]
    assert (band["x0"], band["x1"]) == (5, 6)
    said = f"after {commit_hash(5)[:8]}, by {commit_hash(6)[:8]}: "
    assert f"Moved {said}" in here.page.locator("#times-1").get_attribute("aria-label")
    here.page.locator("#times-1-table").evaluate("e => { e.closest('details').open = true; }")
    cells = here.page.locator("#times-1-table tbody tr").nth(6).locator("td").all_inner_texts()
    assert cells[-1].startswith(said)
    assert here.page.locator("#times-1-table thead th").last.inner_text() == "Moved"
    ring = here.page.evaluate(f"{read}.data.find(t => t.name === 'moved')")
    assert ring["customdata"][0].startswith(said)
    here.page.locator("[data-how=as]").first.select_option("relative")
    here.page.wait_for_function(f"() => {read}.layout.yaxis.type === 'linear'")
    others = here.page.locator("[data-how=as]").evaluate_all("all => all.map(e => e.value)")
    assert others == ["relative", "relative"]
    ring = here.page.evaluate(f"{read}.data.find(t => t.name === 'moved')")
    assert ring["y"][0] == pytest.approx(100 * np.exp(STEP[6] - STEP[0]), rel=1e-4)
    here.close()


def test_releases_stand_at_their_commits(browser: Any, uneven: Path, site: Path) -> None:
    here, read = figure(browser, uneven, "op-softmax.html")
    shapes = here.page.evaluate(f"{read}.layout.shapes")
    assert {one["name"]: one["x0"] for one in shapes} == dict(RELEASES)
    notes = here.page.evaluate(f"{read}.layout.annotations.map(a => a.text)")
    assert sorted(notes) == [name for name, _ in RELEASES]
    here.close()
    narrow, read = figure(browser, site, "op-softmax.html", width=390)
    assert len(narrow.page.evaluate(f"{read}.layout.annotations")) == 2
    narrow.close()


def test_many_releases_keep_the_names_that_fit_the_newest_first(
    browser: Any, tmp_path: Path
) -> None:
    every = [(f"v0.{number}.0", number) for number in range(12)]
    folder = built(tmp_path / "site", measured(STEP), *every)
    for width in (1280, 390):
        here, read = figure(browser, folder, "op-softmax.html", width=width)
        shapes = here.page.evaluate(f"{read}.layout.shapes.map(s => s.type)")
        assert shapes.count("line") == 12
        notes = here.page.locator("#times-1 .annotation-text").all()
        boxes = sorted((one.bounding_box() for one in notes), key=lambda box: box["x"])
        assert len(boxes) == 12 if width == 1280 else 3 <= len(boxes) < 12
        for left, right in pairwise(boxes):
            assert left["x"] + left["width"] <= right["x"]
        assert "v0.11.0" in here.page.locator("#times-1 .infolayer").inner_html()
        here.close()


def test_by_date_commits_stand_as_far_apart_as_their_dates(browser: Any, uneven: Path) -> None:
    here, read = figure(browser, uneven, "op-softmax.html")
    assert lines(here, read)["kernl"]["x"] == [0, 1, 2, 3, 4]
    here.page.locator("[data-how=x]").select_option("date")
    here.page.wait_for_function(f"() => {read}.layout.xaxis.type === 'date'")
    assert "x=date" in here.page.url
    at = lines(here, read)["kernl"]["x"]
    assert [(one - at[0]) / 86_400_000 for one in at] == list(DAYS)
    assert here.page.evaluate(f"{read}.layout.xaxis.title.text") == "date of the commit (UTC)"
    shapes = here.page.evaluate(f"{read}.layout.shapes")
    assert {one["name"]: one["x0"] for one in shapes} == {n: at[p] for n, p in RELEASES}
    assert "Jan" in here.page.locator("#times-1 .xaxislayer-above").inner_html()
    here.page.locator("[data-how=x]").select_option("evenly")
    here.page.wait_for_function(f"() => {read}.layout.xaxis.type !== 'date'")
    assert "x=" not in here.page.url
    assert here.said == []
    here.close()


def test_a_second_machine_is_drawn_dashed_beside_the_first(browser: Any, site: Path) -> None:
    place = f"case.html#machine={GPU}&of=softmax&case={CASE}"
    here, read = figure(browser, site, place)
    assert set(lines(here, read)) == {"kernl", "eager"}
    here.page.locator("#also").select_option(SECOND)
    here.page.wait_for_function(f"() => {read}.data.some(t => t.name === 'kernl on {SECOND}')")
    found = lines(here, read)
    assert set(found) == {"kernl", "eager", f"kernl on {SECOND}", f"eager on {SECOND}"}
    assert {found[name]["line"]["dash"] for name in ("kernl", "eager")} == {"solid"}
    other = found[f"kernl on {SECOND}"]
    assert other["line"]["dash"] == "dash"
    assert other["line"]["color"] == found["kernl"]["line"]["color"]
    assert other["y"] == pytest.approx([30] * 12, rel=1e-5)
    assert f"kernl on {SECOND}" in here.page.locator("#trend .legend").inner_html()
    assert f"also={SECOND}" in here.page.url
    here.page.locator("[data-how=as]").select_option("eager")
    here.page.wait_for_function(f"() => {read}.layout.yaxis.ticksuffix === '×'")
    ratios = lines(here, read)
    assert ratios[f"kernl on {SECOND}"]["y"] == pytest.approx([2] * 12, rel=1e-5)
    here.page.locator("#machine").select_option(SECOND)
    here.page.wait_for_function(f"() => !{read}.data.some(t => t.name.includes(' on '))")
    assert "also=" not in here.page.url
    assert here.said == []
    here.close()


def test_reset_zoom_shows_while_a_figure_is_zoomed(browser: Any, site: Path) -> None:
    for place in ("op-softmax.html", f"case.html#of=softmax&case={CASE}&x=date"):
        here, read = figure(browser, site, place)
        back = here.page.get_by_role("button", name="Reset zoom").first
        assert not back.is_visible()
        whole = here.page.evaluate(f"{read}._fullLayout.xaxis.range.slice()")
        box = here.page.locator(f"#{'trend' if 'case' in place else 'times-1'} .nsewdrag").first
        box.scroll_into_view_if_needed()
        area = box.bounding_box()
        here.page.mouse.move(area["x"] + 0.3 * area["width"], area["y"] + 0.3 * area["height"])
        here.page.mouse.down()
        here.page.mouse.move(area["x"] + 0.7 * area["width"], area["y"] + 0.7 * area["height"],
                             steps=5)  # fmt: skip
        here.page.mouse.up()
        back.wait_for()
        assert here.page.evaluate(f"{read}._fullLayout.xaxis.range.slice()") != whole
        back.focus()
        here.page.keyboard.press("Enter")
        back.wait_for(state="hidden")
        assert here.page.evaluate(f"{read}._fullLayout.xaxis.range.slice()") == whole
        assert here.page.evaluate(f"{read}._fullLayout.yaxis.autorange") is True
        assert here.said == []
        here.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["op-softmax.html", f"case.html#machine={GPU}&also={SECOND}"])
def test_axe_finds_nothing_where_figures_are_relative(
    browser: Any, site: Path, page: str, scheme: str
) -> None:
    pytest.importorskip("axe_playwright_python", reason="pip install 'kernl[browser]'")
    from tests.dashboards.test_accessibility import violations

    address = f"{site.as_uri()}/{page}{'&' if '#' in page else '#'}as=relative&x=date"
    assert violations(browser, address, scheme) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_figure_can_be_kept_as_an_image(
    browser: Any, site: Path, tmp_path: Path, scheme: str
) -> None:
    here, _ = figure(browser, site, "op-softmax.html", scheme=scheme)
    for kind in ("SVG", "PNG"):
        with here.page.expect_download() as caught:
            here.page.get_by_role("button", name=f"Download {kind}").first.click()
        name = caught.value.suggested_filename
        assert re.fullmatch(rf"kernl-softmax-[\w.-]+\.{kind.lower()}", name)
        caught.value.save_as(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        if kind == "PNG":
            assert content.startswith(b"\x89PNG")
            assert len(content) > 20_000
        else:
            text = content.decode()
            assert text.startswith("<svg")
            assert f"softmax {CASE} on " in text
            ground = "rgb(21, 28, 35)" if scheme == "dark" else "rgb(255, 255, 255)"
            assert ground in text
    assert here.said == []
    here.close()
