"""The strip of pages in the header begins with a whole entry and fades where it goes on."""

from pathlib import Path
from typing import Any

import pytest

from dashboards import build
from dashboards.data.source import Source
from tests.dashboards import synthetic
from tests.dashboards.chromium import MARKS
from tests.dashboards.test_browser import Opened

pytestmark = MARKS
OPS = (
    "argmax", "attention", "cross_entropy", "decode_attention", "embedding", "layer_norm", "linear",
    "linear_add_layer_norm", "rms_norm", "rotary", "rotary_cache", "softmax", "stream_k_matmul",
)  # fmt: skip
SLACK = 3
"""Pixels: a browser scrolls by whole ones, and text begins 11 within an entry."""
STRIP = """() => {
  const strip = document.querySelector('header nav');
  const box = strip.getBoundingClientRect();
  return {
    width: box.width,
    before: strip.classList.contains('more-before'),
    after: strip.classList.contains('more-after'),
    mask: getComputedStyle(strip).maskImage,
    entries: [...strip.querySelectorAll('li')].map(entry => {
      const at = entry.getBoundingClientRect();
      return [at.left - box.left, at.right - box.left,
              Boolean(entry.querySelector('[aria-current]')),
              entry.contains(document.activeElement)];
    }),
  };
}"""
SETTLED = """() => new Promise(done => {
  const strip = document.querySelector('header nav');
  let before = -1;
  function look() {
    if (strip.scrollLeft === before) { done(); return; }
    before = strip.scrollLeft;
    setTimeout(look, 120);
  }
  look();
})"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strip") / "site"
    build.build(Source.of(synthetic.with_models(synthetic.store(ops=OPS, count=3))), folder)
    return folder


def strip(page: Any) -> dict[str, Any]:
    page.evaluate(SETTLED)
    found = page.evaluate(STRIP)
    cut = [left for left, right, *_ in found["entries"] if left < -SLACK and right > SLACK]
    assert not cut, "the strip begins amid an entry"
    return dict(found)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["index.html", "machines.html", "model-bert_base.html",
                                  *(f"op-{op}.html" for op in OPS[::3])])  # fmt: skip
def test_the_page_s_entry_is_whole_and_so_is_the_first(
    browser: Any, site: Path, name: str, width: int, scheme: str
) -> None:
    here = Opened(browser, (site / name).as_uri(), width, scheme)
    found = strip(here.page)
    (at,) = [at for at, entry in enumerate(found["entries"]) if entry[2]]
    around = found["entries"][max(at - 1, 0) : at + 2 if width > 1000 else at + 1]
    assert all(left > -SLACK and right < found["width"] + SLACK for left, right, *_ in around)
    assert found["before"] == (found["entries"][0][0] < -1)
    assert found["after"] == (found["entries"][-1][1] > found["width"] + 1)
    assert (found["mask"] != "none") == (found["before"] or found["after"])
    assert here.said == []
    here.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_wherever_it_is_scrolled_to_it_begins_with_a_whole_entry(
    browser: Any, site: Path, width: int
) -> None:
    here = Opened(browser, (site / "op-softmax.html").as_uri(), width)
    for to in (0, 133, 457, 100_000):
        here.page.evaluate(f"document.querySelector('header nav').scrollTo({{left: {to}}})")
        strip(here.page)
    last = strip(here.page)["entries"][-1]
    assert last[1] <= width
    here.page.set_viewport_size({"width": 700, "height": 800})
    strip(here.page)
    here.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_an_entry_that_is_reached_by_key_is_whole(browser: Any, site: Path, width: int) -> None:
    here = Opened(browser, (site / "index.html").as_uri(), width)
    page = here.page
    page.locator("header nav a").first.focus()
    for at in range(page.locator("header nav a").count()):
        found = strip(page)
        left, right, _, focused = found["entries"][at]
        assert focused
        assert left > -SLACK
        assert right < found["width"] + SLACK
        page.keyboard.press("Tab")
    here.close()
