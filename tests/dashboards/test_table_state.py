"""The order and the filter of every table are in the address, and come back from it."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dashboards import build
from dashboards.data.source import Source
from tests.dashboards import synthetic
from tests.dashboards.chromium import MARKS
from tests.dashboards.test_browser import Opened
from tests.dashboards.test_chosen import opened
from tests.dashboards.test_regressions import STEP, measured

pytestmark = MARKS
PAGES = {
    "index.html": (5, 0),
    "op-softmax.html": (1, 1),
    "model-bert_base.html": (1, 1),
    "losses.html": (1, 1),
    "regressions.html": (2, 0),
}
"""Page → at least how many tables it can sort and filter."""
SHOWN = """() => [...document.querySelectorAll('table.sortable')].map(table => [
  [...table.tHead.rows[0].cells].map(cell => cell.getAttribute('aria-sort')),
  [...table.tBodies[0].rows].filter(row => !row.hidden).map(row => row.textContent),
])"""
CHOOSE = """() => {
  for (const table of document.querySelectorAll('table.sortable')) {
    const sort = table.tHead.rows[0].cells[0].querySelector('button');
    sort.click();
    sort.click();
    table.tHead.rows[0].cells[1].querySelector('button').click();
    sort.click();
    sort.click();
  }
  for (const input of document.querySelectorAll('input[data-filter]')) {
    const rows = document.getElementById(input.dataset.filter).tBodies[0].rows;
    input.value = rows[0].cells[0].textContent.trim().slice(0, 12);
    input.dispatchEvent(new Event('input', {bubbles: true}));
  }
}"""
"""Orders each table by its first column, falling, and leaves rows like the first."""
LONG = "x" * 1_000_000
HOSTILE = {
    "unknown column": "sort-cases-1=nothing-",
    "no column": "sort-cases-1=-",
    "prototype": "sort-cases-1=__proto__&sort-cases-1-=constructor&filter-__proto__=x",
    "unknown table": "sort-nothing=case&filter-nothing=x",
    "long order": f"sort-cases-1={LONG}",
    "long key": f"sort-{LONG}=case",
    "script": "sort-cases-1=%3Cscript%3Ealert(1)%3C/script%3E&case=%3Cimg src=x%3E",
    "broken escapes": "sort-cases-1=%E0%A4%A&filter-cases-1=%",
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages whose every table has rows: cases that lose, and one that moved."""
    store = synthetic.with_models(synthetic.store(ops=("softmax", "linear"), count=12))
    moved = synthetic.frame(measured(STEP, machine="nvidia-second"))
    rows = pd.concat([store.rows, moved], ignore_index=True)
    lost = (rows["variant"] == "kernl") & rows["suite"].isin(["kernels", "models"])
    lost &= rows["machine"] != "nvidia-second"
    rows.loc[lost, "value"] *= 9
    folder = tmp_path_factory.mktemp("state") / "site"
    build.build(
        Source.of(synthetic.Store(rows, store.runs, store.machines, store.problems)), folder
    )
    return folder


def go(page: Any, place: str) -> None:
    """Changes the address as a link on the page does."""
    page.evaluate(
        """place => new Promise(done => {
             window.addEventListener('hashchange', () => setTimeout(done), {once: true});
             window.location.hash = place;
           })""",
        place,
    )


@pytest.mark.parametrize("name", list(PAGES))
def test_a_link_shows_the_same_tables(browser: Any, site: Path, name: str) -> None:
    address = (site / name).as_uri()
    here = Opened(browser, address)
    tables, filters = PAGES[name]
    assert here.page.locator("table.sortable").count() >= tables
    assert here.page.locator("input[data-filter]").count() >= filters
    assert here.page.url == address, "what was not chosen is not written"
    before = here.page.evaluate(SHOWN)
    here.page.evaluate(CHOOSE)
    link, chosen = here.page.url, here.page.evaluate(SHOWN)
    assert len(before) == len(chosen) >= tables
    for headings, _ in chosen:
        assert headings[0] == "descending"
        assert set(headings[1:]) == {None}
    assert before != chosen
    there = Opened(browser, link)
    assert there.page.evaluate(SHOWN) == chosen
    assert there.page.url == link
    go(there.page, "")
    assert there.page.evaluate(SHOWN) == before
    assert there.said == here.said == []
    here.close()
    there.close()


def test_back_and_forward_restore_the_table_of_each_address(browser: Any, site: Path) -> None:
    here = Opened(browser, (site / "op-softmax.html").as_uri())
    page = here.page
    plain = page.evaluate(SHOWN)
    go(page, "sort-cases-1=case-&filter-cases-1=bf16")
    falling = page.evaluate(SHOWN)
    go(page, "sort-cases-1=over-eager")
    rising = page.evaluate(SHOWN)
    assert len(falling[0][1]) == 4
    assert plain != falling != rising
    for step, expected in (("back", falling), ("back", plain), ("forward", falling)):
        page.evaluate(
            """step => new Promise(done => {
                 window.addEventListener('hashchange', () => setTimeout(done), {once: true});
                 window.history[step]();
               })""",
            step,
        )
        assert page.evaluate(SHOWN) == expected, step
    assert page.locator("input[data-filter=cases-1]").input_value() == "bf16"
    assert here.said == []
    here.close()


def test_tables_stand_beside_the_rest_of_the_address(browser: Any, site: Path) -> None:
    here = Opened(browser, (site / "op-softmax.html").as_uri())
    page = here.page
    page.locator("select[data-key=case]").first.select_option(index=2)
    page.locator("#cases-1 thead button").first.click()
    page.locator("input[data-filter=cases-1]").fill("fp16")
    kept = page.evaluate("[...new URLSearchParams(location.hash.slice(1)).keys()]")
    assert sorted(kept) == ["case", "filter-cases-1", "sort-cases-1"]
    page.locator("input[data-filter=cases-1]").fill("")
    assert "filter-" not in page.url
    here.close()


def test_going_to_a_place_on_the_page_keeps_what_was_chosen(browser: Any, site: Path) -> None:
    here = Opened(browser, (site / "op-softmax.html").as_uri() + "#sort-cases-1=case-")
    page = here.page
    chosen, address = page.evaluate(SHOWN), page.url
    page.locator(".skip").press("Enter")
    page.wait_for_function("() => location.hash.includes('sort-')")
    assert page.evaluate(SHOWN) == chosen
    assert page.url == address
    here.close()
    plain = Opened(browser, (site / "op-softmax.html").as_uri())
    go(plain.page, "content")
    assert plain.page.url.endswith("#content")
    plain.close()


def test_equal_rows_stand_as_the_page_came_whatever_was_sorted_before(
    browser: Any, site: Path
) -> None:
    here = Opened(browser, (site / "op-softmax.html").as_uri())
    page = here.page
    page.evaluate(
        """() => document.querySelectorAll('#cases-1 tbody tr').forEach(
             row => { row.cells[1].dataset.value = '1'; })"""
    )
    plain = page.evaluate(SHOWN)[0][1]
    page.locator("#cases-1 thead button").first.click()
    page.locator("#cases-1 thead button").first.click()
    assert page.evaluate(SHOWN)[0][1] != plain
    page.locator("#cases-1 thead button").nth(1).click()
    assert page.evaluate(SHOWN)[0][1] == plain
    here.close()


@pytest.mark.parametrize("place", list(HOSTILE.values()), ids=list(HOSTILE))
def test_a_hostile_address_orders_nothing(browser: Any, site: Path, place: str) -> None:
    plain = Opened(browser, (site / "op-softmax.html").as_uri())
    here = Opened(browser, f"{(site / 'op-softmax.html').as_uri()}#{place}")
    page = here.page
    headings, rows = page.evaluate(SHOWN)[0]
    assert set(headings) == {None}
    if "filter-cases-1" not in place:
        assert rows == plain.page.evaluate(SHOWN)[0][1]
    page.locator("#cases-1 thead button").first.click()
    assert page.evaluate(SHOWN)[0][0][0] == "ascending"
    assert here.said == []
    here.close()
    plain.close()


def test_more_words_than_anybody_types_are_cut(browser: Any, site: Path) -> None:
    words = "f+p+" * 250_000
    here = Opened(browser, f"{(site / 'op-softmax.html').as_uri()}#filter-cases-1={words}")
    assert len(here.page.locator("input[data-filter=cases-1]").input_value()) == 200
    assert here.page.locator("#cases-1-count").text_content() == "8 of 12 rows"
    assert here.said == []
    here.close()
    here = opened(browser, site, "compare.html", f"words={words}&order=constructor&show=toString")
    assert len(here.page.locator("#words").input_value()) == 200
    assert here.page.locator("#show").input_value() == "kernels"
    assert "order=" not in here.page.url
    assert here.said == []
    here.close()
