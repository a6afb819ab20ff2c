"""Compare shows what was divided out of a change, in figures that give the change again."""

import csv
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboards import build
from dashboards.data.source import Source
from tests.dashboards import synthetic
from tests.dashboards.chromium import MARKS
from tests.dashboards.test_chosen import COMMITS, GPU, chosen, opened, sampled

pytestmark = MARKS
LINES = re.compile(
    r"kernl's mean ([\d.]+)\s→\s([\d.]+)\sµs: ([+−]?[\d.]+)\s% "
    r"eager's mean ([\d.]+)\s→\s([\d.]+)\sµs: drift ([+−]?[\d.]+)\s% divided out$"
)
CHANGES = """() => [...document.querySelectorAll('#compared tbody tr')].map(row => [
  row.cells[0].textContent, row.cells[1].textContent, row.cells[4].textContent,
  row.cells[5].textContent])"""
MEANS = ["kernl's mean on base", "kernl's mean on head", "kernl's change", "eager's mean on base",
         "eager's mean on head", "eager's drift, divided out"]  # fmt: skip


@pytest.fixture(scope="module")
def store() -> synthetic.Store:
    """Of softmax eager was timed beside kernl, sample by sample; of linear it was not."""
    made = sampled(synthetic.store(ops=("softmax", "linear"), count=12, commits=4))
    rows = made.rows
    alone = (rows["op"] == "linear") & (rows["variant"] == "eager")
    rows.loc[alone, "samples"] = [()] * int(alone.sum())
    return made


@pytest.fixture(scope="module")
def site(store: synthetic.Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drift") / "site"
    build.build(Source.of(store), folder)
    return folder


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def mean(store: synthetic.Store, case: str, commit: str, variant: str) -> float:
    """The geometric mean of softmax's samples, in microseconds."""
    rows = store.rows
    (samples,) = rows.loc[
        (rows["op"] == "softmax") & (rows["case"] == case) & (rows["commit"] == commit)
        & (rows["variant"] == variant) & (rows["machine"] == GPU), "samples"
    ]  # fmt: skip
    return 1e6 * math.exp(np.log(samples).mean())


def test_figures_beside_a_change_give_it_again(
    browser: Any, site: Path, store: synthetic.Store
) -> None:
    page = opened(browser, site, "compare.html", chosen(2, 3)).page
    divided = 0
    for op, case, change, verdict in page.evaluate(CHANGES):
        found = LINES.search(change)
        assert bool(found) == ("drift was divided out" in verdict), (op, case)
        assert not (found and op == "linear")
        if found:
            divided += 1
            old, new, own, eager_old, eager_new, drift = map(number, found.groups())
            kernl = [mean(store, case, COMMITS[at], "kernl") for at in (2, 3)]
            eager = [mean(store, case, COMMITS[at], "eager") for at in (2, 3)]
            assert [old, new] == pytest.approx(kernl, rel=2e-3)
            assert [eager_old, eager_new] == pytest.approx(eager, rel=2e-3)
            assert own == pytest.approx(100 * (kernl[1] / kernl[0] - 1), abs=0.051)
            assert drift == pytest.approx(100 * (eager[1] / eager[0] - 1), abs=0.051)
            told = 100 * ((1 + own / 100) / (1 + drift / 100) - 1)
            assert number(change.split(" %")[0]) == pytest.approx(told, abs=0.2)
    assert divided >= 8
    about = page.locator("#about-drift").inner_text()
    assert f"In {divided} of these 24 cases" in about


def test_nothing_is_said_where_nothing_was_divided_out(browser: Any, site: Path) -> None:
    for place in (
        chosen(2, 3, words="linear"),
        chosen(2, 3).replace("kernl&", "eager&"),
        chosen(2, 3, show="codegen").replace(GPU, "compile-only"),
    ):
        page = opened(browser, site, "compare.html", place).page
        assert page.locator("#compared tbody tr").count() > 0
        assert not page.locator("#about-drift").is_visible()
        assert page.locator(".drift").count() == 0


def test_the_download_has_the_figures_too(browser: Any, site: Path) -> None:
    page = opened(browser, site, "compare.html", chosen(2, 3)).page
    with page.expect_download() as caught:
        page.locator("#csv").click()
    with Path(caught.value.path()).open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    shown = {(op, case): change for op, case, change, _ in page.evaluate(CHANGES)}
    for row in rows:
        found = LINES.search(shown[row["operator or model"], row["case"]])
        told = [row[name].removesuffix(" %").lstrip("'") for name in MEANS]
        assert told == (list(found.groups()) if found else [""] * 6)
    assert any(row["eager's drift, divided out"] for row in rows)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_the_figures_fit(browser: Any, site: Path, width: int, scheme: str) -> None:
    here = opened(browser, site, "compare.html", chosen(2, 3), width=width, scheme=scheme)
    assert here.page.locator(".drift").count() > 0
    assert here.page.evaluate("document.documentElement.scrollWidth") <= width
    assert here.said == []
