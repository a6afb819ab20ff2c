"""The built site in a real browser, over file://, as a person would open it."""

import csv
import functools
import http.server
import io
import threading
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cases import Cost
from dashboards import build, text
from dashboards.data.source import Source
from tests.dashboards import hostile, synthetic
from tests.dashboards.chromium import MARKS, QuietHandler

pytestmark = MARKS
PLOTS = {
    "index.html": 2, "op-softmax.html": 9, "model-bert_base.html": 3, "machines.html": 0,
    "losses.html": 0, "regressions.html": 0,
}  # fmt: skip
"""Page → how many figures it has."""
DRAWN = """() => [...document.querySelectorAll('.plot')].every(p => p.querySelector('.main-svg'))"""
SCROLL = """async () => {
  for (const plot of document.querySelectorAll('.plot')) {
    plot.scrollIntoView({behavior: 'instant'});
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  }
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dashboard") / "site"
    store = synthetic.with_models(synthetic.store(ops=("softmax", "linear"), count=12))
    build.build(Source.of(store), folder)
    return folder


class Opened:
    """A page, and everything that its console said."""

    def __init__(self, browser: Any, address: str, width: int = 1280, scheme: str = "light",
                 host: str = "file:") -> None:  # fmt: skip
        self.host = host
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.on(
            "request",
            self._request,
        )
        self.page.goto(address)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.host, "data:")):
            self.said.append(f"fetched {request.url}")

    def _dialog(self, dialog: Any) -> None:
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def draw_all(self) -> None:
        if self.page.locator("[data-later] .plot").count():
            self.page.locator(".plot").first.dispatch_event("pointerenter")
            self.page.wait_for_function("() => !document.body.dataset.later", timeout=20_000)
        self.page.evaluate(SCROLL)
        self.page.wait_for_function(DRAWN, timeout=20_000)

    def close(self) -> None:
        self.context.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
@pytest.mark.parametrize("name", list(PLOTS))
def test_pages_draw_without_a_word_on_the_console(
    browser: Any, site: Path, name: str, width: int, scheme: str
) -> None:
    opened = Opened(browser, (site / name).as_uri(), width, scheme)
    opened.draw_all()
    plots = opened.page.locator(".plot").count()
    assert plots == PLOTS[name]
    assert opened.said == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    opened.close()


def test_pages_draw_from_a_web_host_too(browser: Any, site: Path) -> None:
    handler = functools.partial(QuietHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"http://127.0.0.1:{server.server_address[1]}/"
        opened = Opened(browser, f"{host}index.html", host=host)
        opened.draw_all()
        assert opened.page.locator(".plot .main-svg").count() > 0
        assert opened.said == []
        opened.close()
        server.shutdown()


def test_the_policy_holds_against_an_injected_script(browser: Any, site: Path) -> None:
    opened = Opened(browser, (site / "index.html").as_uri())
    opened.page.evaluate(
        """() => { const s = document.createElement('script');
                   s.textContent = 'window.broken = true'; document.body.append(s); }"""
    )
    assert opened.page.evaluate("window.broken === undefined")
    assert any("Content Security Policy" in line for line in opened.said)
    opened.close()


def test_choosing_a_case_changes_figure_table_and_address(browser: Any, site: Path) -> None:
    opened = Opened(browser, (site / "op-softmax.html").as_uri())
    opened.draw_all()
    page = opened.page
    select = page.locator("select[data-key=case]")
    plot = select.get_attribute("data-plot")
    read = f"document.getElementById('{plot}').data[0].y[0]"
    cell = page.locator(f"#{plot}-table tbody tr").first.locator("td").first
    before, said = page.evaluate(read), cell.text_content()
    select.select_option(index=5)
    page.wait_for_function(f"() => {read} !== {before}", timeout=10_000)
    assert cell.text_content() != said
    assert "case=" in page.url
    address, chosen = page.url, page.evaluate(read)
    opened.close()
    again = Opened(browser, address)
    again.draw_all()
    assert again.page.evaluate(read) == chosen
    assert again.said == []
    again.close()


def test_the_theme_follows_the_system_until_the_reader_chooses(browser: Any, site: Path) -> None:
    opened = Opened(browser, (site / "index.html").as_uri(), scheme="dark")
    opened.draw_all()
    page = opened.page
    colour = "getComputedStyle(document.body).backgroundColor"
    line = "document.querySelector('.plot').data[0].line.color"
    dark = page.evaluate(colour), page.evaluate(line)
    page.locator("#theme-toggle").focus()
    page.keyboard.press("Enter")
    light = page.evaluate(colour), page.evaluate(line)
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    page.reload()
    assert page.evaluate(colour) == light[0]
    assert opened.said == []
    opened.close()


def test_tables_sort_and_filter_with_the_keyboard(browser: Any, site: Path) -> None:
    opened = Opened(browser, (site / "op-softmax.html").as_uri())
    page = opened.page
    rows = page.locator("#cases-1 tbody tr")
    heading = page.locator("#cases-1 thead th", has_text="over eager").locator("button")
    heading.focus()
    page.keyboard.press("Enter")
    values = page.evaluate(
        """() => [...document.querySelectorAll('#cases-1 tbody tr')].map(
             r => r.cells[4].dataset.value).filter(v => v !== '').map(Number)"""
    )
    assert values == sorted(values)
    page.locator("input[data-filter=cases-1]").fill("bf16")
    assert rows.filter(visible=True).count() == 4
    assert page.locator("#cases-1-count").text_content() == "4 of 12 rows"
    assert opened.said == []
    opened.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_any_case_is_found_by_a_few_keys(browser: Any, site: Path, width: int) -> None:
    opened = Opened(browser, (site / "index.html").as_uri(), width)
    page = opened.page
    page.keyboard.press("/")
    page.keyboard.type("soft bf16")
    page.locator("#search li a").first.wait_for()
    assert page.locator("#search li a").count() == 4
    assert page.locator("#search [role=status]").text_content() == "4 cases"
    list_of_cases = page.locator("#search ul").bounding_box()
    assert list_of_cases["x"] >= 0
    assert list_of_cases["x"] + list_of_cases["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    wanted = page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    page.wait_for_url("**/op-softmax.html#case=*")
    chosen = page.locator("select[data-key=case]").evaluate("e => e.value")
    assert wanted == f"softmax {chosen}"
    page.keyboard.press("/")
    page.keyboard.type("nothing of that name")
    assert page.locator("#search li").count() == 0
    page.keyboard.press("Escape")
    page.locator("#search input").fill("linear")
    page.keyboard.press("Enter")
    page.wait_for_url("**/op-linear.html#case=*")
    assert opened.said == []
    opened.close()


def test_filters_and_order_are_kept_in_the_address(browser: Any, site: Path) -> None:
    opened = Opened(browser, (site / "op-softmax.html").as_uri())
    page = opened.page
    page.locator("input[data-filter=cases-1]").fill("bf16")
    page.locator("#cases-1 thead th", has_text="over eager").locator("button").click()
    page.locator("#cases-1 thead th", has_text="over eager").locator("button").click()
    page.locator("select[data-key=case]").select_option(index=2)
    address = page.url
    names = page.locator("#cases-1 tbody tr").filter(visible=True).all_text_contents()
    opened.close()
    again = Opened(browser, address)
    rows = again.page.locator("#cases-1 tbody tr").filter(visible=True)
    assert rows.all_text_contents() == names
    assert again.page.locator("input[data-filter=cases-1]").input_value() == "bf16"
    heading = again.page.locator("#cases-1 thead th", has_text="over eager")
    assert heading.get_attribute("aria-sort") == "descending"
    assert again.page.locator("select[data-key=case]").evaluate("e => e.selectedIndex") == 2
    again.page.locator("input[data-filter=cases-1]").fill("")
    assert "filter-" not in again.page.url
    assert again.said == []
    again.close()


@pytest.mark.parametrize("junk", ["sort-cases-1=99", "sort-cases-1=x", "filter-cases-1=%00<b>&=&"])
def test_a_spoilt_address_does_no_harm(browser: Any, site: Path, junk: str) -> None:
    opened = Opened(browser, f"{(site / 'op-softmax.html').as_uri()}#{junk}")
    assert opened.page.locator("#cases-1 tbody tr").count() == 12
    assert opened.said == []
    opened.close()


def test_what_is_shown_can_be_had_as_csv(browser: Any, site: Path, tmp_path: Path) -> None:
    opened = Opened(browser, (site / "op-softmax.html").as_uri())
    page = opened.page
    page.locator("input[data-filter=cases-1]").fill("bf16")
    with page.expect_download() as caught:
        page.locator("button[data-csv=cases-1]").click()
    caught.value.save_as(tmp_path / "cases.csv")
    assert caught.value.suggested_filename == "kernl-op-softmax-cases-1.csv"
    text = (tmp_path / "cases.csv").read_text(encoding="utf-8-sig")
    lines = list(csv.reader(io.StringIO(text)))
    assert len(lines) == 5
    assert {len(line) for line in lines} == {len(lines[0])}
    assert lines[0][0] == "Case"
    assert all("bf16" in line[0] for line in lines[1:])
    assert all(float(line[1]) > 0 for line in lines[1:])  # full figures, not what is rounded
    page.locator("details summary").first.click()
    with page.expect_download() as caught:
        page.locator("details button[data-csv]").first.click()
    assert caught.value.suggested_filename.endswith("-table.csv")
    assert opened.said == []
    opened.close()


def test_a_downloaded_name_is_no_formula(browser: Any, tmp_path: Path) -> None:
    attack = '=HYPERLINK("http://x","y"),1'
    rows = [
        synthetic.row(op="softmax", case=f"{attack}{number}", variant=variant, value=1e-6)
        for number in range(6)
        for variant in ("eager", "kernl")
    ]
    build.build(
        Source.of(synthetic.Store(synthetic.frame(rows), synthetic.runs_frame([]))),
        tmp_path / "site",
    )
    opened = Opened(browser, (tmp_path / "site" / "op-softmax.html").as_uri())
    with opened.page.expect_download() as caught:
        opened.page.locator("button[data-csv=cases-1]").click()
    caught.value.save_as(tmp_path / "cases.csv")
    lines = list(csv.reader((tmp_path / "cases.csv").open(encoding="utf-8-sig")))
    assert {line[0][0] for line in lines[1:]} == {"'"}
    assert lines[1][0].startswith(f"'{attack}")
    opened.close()


def test_shares_of_the_roofline_sort_by_their_value(browser: Any, tmp_path: Path) -> None:
    store = synthetic.store(ops=("softmax",), count=12)
    costs = {
        ("softmax", case, "1"): Cost(4_000_000 * (number + 1), 1_000_000, "fp16")
        for number, case in enumerate(synthetic.cases("softmax", 9))
    }
    figures = {"copy_bytes_per_s": 4e12, "fp16_flops_per_s": 8e14}
    runs = store.runs.assign(**figures)
    newest = runs.loc[runs["machine"] == "nvidia-h200", ["commit", "run"]].set_index("commit")
    rows = store.rows.assign(run=store.rows["commit"].map(newest["run"]))
    found = Source.of(synthetic.Store(rows, runs), costs=costs)
    build.build(found, tmp_path / "site")
    for width in (1280, 390):
        opened = Opened(browser, (tmp_path / "site" / "op-softmax.html").as_uri(), width)
        page = opened.page
        heading = page.locator("#cases-1 thead th", has_text="of the roofline").locator("button")
        heading.focus()
        page.keyboard.press("Enter")
        shown = page.evaluate(
            """() => [...document.querySelectorAll('#cases-1 tbody tr')].map(
                 r => [r.cells[8].dataset.value, r.cells[9].textContent])"""
        )
        values = [float(value) for value, _ in shown if value]
        assert len(values) == 9
        assert values == sorted(values)
        assert [bound for _, bound in shown] == ["memory"] * 9 + ["–"] * 3
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert opened.said == []
        opened.close()


def test_every_figure_has_a_name_and_every_control_a_label(browser: Any, site: Path) -> None:
    opened = Opened(browser, (site / "op-softmax.html").as_uri())
    unnamed = opened.page.evaluate(
        """() => [...document.querySelectorAll('.plot, button, select, input, [role=region]')]
             .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim()
                            || (e.labels && e.labels.length))).map(e => e.outerHTML)"""
    )
    assert unnamed == []
    assert opened.page.locator(".plot[role=img][aria-label]").count() == PLOTS["op-softmax.html"]
    opened.close()


def test_hostile_names_run_nothing(browser: Any, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    build.build(Source.of(hostile.store()), folder)
    slugs = text.slugs(hostile.ATTACKS)
    worst = [f"op-{slugs[attack]}.html" for attack in (hostile.ATTACKS[0], hostile.ATTACKS[11])]
    worst += [name.replace("op-", "model-", 1) for name in worst]
    for name in ["index.html", "machines.html", *worst]:
        opened = Opened(browser, (folder / name).as_uri())
        opened.draw_all()
        assert opened.said == [], name
        opened.close()
