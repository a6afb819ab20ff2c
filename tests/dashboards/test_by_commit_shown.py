"""The table of what each commit did, in a browser: its colours can be read, and it fits a phone."""

from pathlib import Path
from typing import Any

import pytest

from dashboards import build
from dashboards.tabular.commit_links import CommitLinks
from tests.dashboards.chromium import MARKS
from tests.dashboards.synthetic import commit_hash
from tests.dashboards.test_accessibility import violations
from tests.dashboards.test_changed import at, source

pytestmark = MARKS
RATIOS = {
    "faster-3": 0.8, "faster-2": 0.93, "faster-1": 0.97, "same": 1.0,
    "slower-1": 1.03, "slower-2": 1.07, "slower-3": 1.2,
}  # fmt: skip
CELLS = "table.heat-map td a"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An operator of each colour, over more commits than a phone is wide."""
    rows = [at(0, 2e-6, op=name, case="a.fp16") for name in RATIOS]
    for number in range(1, 12):
        rows += [
            at(number, 2e-6 * of**number, op=name, case="a.fp16") for name, of in RATIOS.items()
        ]
    rows.append(at(12, 2e-6, op="same", case="a.fp16"))
    folder = tmp_path_factory.mktemp("dashboard") / "site"
    links = CommitLinks.below("https://host.example/me/kernl/commit/")
    build.build(source(*rows), folder, links=links)
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_can_be_read(browser: Any, site: Path, scheme: str) -> None:
    address = f"{site.as_uri()}/regressions.html"
    assert violations(browser, address, scheme) == []
    page = browser.new_context(color_scheme=scheme).new_page()
    page.goto(address)
    shown = page.eval_on_selector_all(
        "table.heat-map tbody tr",
        "rows => rows.map(row => [row.cells[0].innerText.replace(/\\s/g, ''),"
        " getComputedStyle(row.cells[5]).backgroundColor])",
    )
    assert [name for name, _ in shown] == sorted(RATIOS)
    assert len({colour for _, colour in shown}) == len(RATIOS)
    page.context.close()


def test_a_phone_scrolls_the_table_and_not_the_page(browser: Any, site: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(f"{site.as_uri()}/regressions.html")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    box = page.locator(".scroll:has(table.heat-map)")
    box.evaluate("one => { one.scrollLeft = 300; }")
    named = page.locator("table.heat-map tbody th").first
    assert named.bounding_box()["x"] == pytest.approx(box.bounding_box()["x"] + 1, abs=1)
    assert {one.bounding_box()["height"] for one in page.locator(CELLS).all()} != {0}
    page.close()


def test_a_cell_leads_to_both_commits_side_by_side(browser: Any, site: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(f"{site.as_uri()}/regressions.html")
    cell = page.locator("table.heat-map tr:has(a:text-is('slower-3')) td a").last
    assert cell.locator("b").inner_text() == "+20.0 %"
    cell.click()
    page.wait_for_selector("#compared tbody tr")
    sides = [page.locator(f"#{side}-commit").input_value() for side in ("base", "head")]
    assert sides == [commit_hash(10)[:12], commit_hash(11)[:12]]
    assert page.locator("#compared tbody th").all_inner_texts() == ["slower-3"]
    page.close()
