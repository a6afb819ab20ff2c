"""Every kind of page, looked at by axe: nothing that keeps a reader out, in either theme."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dashboards import build
from dashboards.data.source import Source
from tests.dashboards import synthetic
from tests.dashboards.chromium import MARKS
from tests.dashboards.test_regressions import STEP, measured

axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright",
    reason="axe-playwright-python is not installed: pip install 'kernl[browser]'",
)
pytestmark = MARKS
PAGES = (
    "index.html",
    "op-softmax.html",
    "model-bert_base.html",
    "losses.html",
    "regressions.html",
    "machines.html",
    "compare.html",
    "compare.html#show=codegen",
    "case.html",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two machines of each kind, and a case that moved."""
    store = synthetic.with_models(synthetic.store(ops=("softmax",), count=12))
    moved = synthetic.frame(measured(STEP, case="rows9_cols9.fp16"))
    others = store.rows.assign(machine=store.rows["machine"] + "-second")
    rows = pd.concat([store.rows, others, moved], ignore_index=True)
    both = synthetic.Store(rows, store.runs, store.machines, store.problems)
    folder = tmp_path_factory.mktemp("dashboard") / "site"
    build.build(Source.of(both), folder)
    return folder


def violations(browser: Any, address: str, scheme: str) -> list[str]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(address)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(200)  # what the page loads by itself
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    found = axe.Axe().run(page).response["violations"]
    context.close()
    return [
        f"{one['impact']} {one['id']}: {node['html'][:200]}"
        for one in found
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(browser: Any, site: Path, name: str, scheme: str) -> None:
    assert violations(browser, f"{site.as_uri()}/{name}", scheme) == []


def test_axe_does_find_what_is_wrong(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<title>x</title><img src='x'><input>")
    said = violations(browser, (tmp_path / "bad.html").as_uri(), "light")
    assert any("image-alt" in one for one in said)
    assert any("critical" in one for one in said)
