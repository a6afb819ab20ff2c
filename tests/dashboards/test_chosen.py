"""The pages Compare and Case in a real browser: they say what the gate and the store say."""

import csv
import json
import math
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import pytest

from benchmarks.gate.stored import judge
from dashboards import build, screenshots
from dashboards.data.source import Source
from tests.dashboards import hostile, synthetic
from tests.dashboards.chromium import MARKS
from tests.dashboards.test_browser import Opened
from tests.dashboards.test_regressions import STEP, measured, source
from tests.suite.gate_rows import TODAY

pytestmark = MARKS
GPU = "nvidia-h200"
COMMITS = [synthetic.commit_hash(number) for number in range(4)]
ROWS = """() => [...document.querySelectorAll('#compared tbody tr')].map(row => {
  const cells = [...row.cells].map(cell => cell.textContent);
  const verdict = row.cells[row.cells.length - 1];
  const why = verdict.querySelector('small');
  return [...cells.slice(0, -1), verdict.firstChild.textContent, why ? why.textContent : ''];
})"""


def sampled(store: synthetic.Store) -> synthetic.Store:
    """The store with samples of a known spread, and runs with all that a gate asks for."""
    rows = store.rows.copy()
    timed = rows["suite"].isin(["kernels", "models"]) & (rows["status"] == "ok")
    shapes = [1 + 0.004 * ((7 * at) % 11 - 5) / 5 for at in range(20)]
    rows.loc[timed, "samples"] = pd.Series(
        [tuple(value * one for one in shapes) for value in rows.loc[timed, "value"]],
        index=rows.index[timed],
    )
    number = {commit: at for at, commit in enumerate(COMMITS)}
    rows["run"] = [
        f"{'g' if machine == GPU else 'c'}{number[commit]}"
        for machine, commit in zip(rows["machine"], rows["commit"], strict=True)
    ]
    runs = store.runs.copy()
    runs["driver"], runs["transformers"], runs["ptxas"] = "570.86", "5.17.0", "12.8"
    return synthetic.Store(rows, runs, store.machines, [])


@pytest.fixture(scope="module")
def store() -> synthetic.Store:
    made = synthetic.store(ops=("softmax", "linear"), count=12, commits=4)
    return sampled(synthetic.with_models(made, commits=3))


@pytest.fixture(scope="module")
def site(store: synthetic.Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chosen") / "site"
    build.build(Source.of(store), folder, "results/")
    return folder


def opened(browser: Any, site: Path, page: str, place: str = "", **how: Any) -> Opened:
    found = Opened(browser, (site / page).as_uri() + (f"#{place}" if place else ""), **how)
    found.page.wait_for_function(
        "() => { const form = document.querySelector('form'); return !form.hidden && "
        "document.getElementById('said').textContent !== 'Loading…'; }",
        timeout=20_000,
    )
    return found


def chosen(base: int, head: int, **more: str) -> str:
    kept = {
        "base": f"{GPU}/{COMMITS[base][:12]}/kernl",
        "head": f"{GPU}/{COMMITS[head][:12]}/kernl",
        **more,
    }
    return "&".join(f"{key}={quote(value, safe='')}" for key, value in kept.items())


@pytest.mark.parametrize("show", ["kernels", "models", "codegen"])
@pytest.mark.parametrize(("base", "head"), [(2, 3), (3, 1)])
def test_verdicts_are_those_of_the_gate(
    browser: Any, site: Path, store: synthetic.Store, base: int, head: int, show: str
) -> None:
    machine = "compile-only" if show == "codegen" else GPU
    report = judge(
        store.rows, store.runs, COMMITS[base], COMMITS[head], today=TODAY, machine=machine
    )
    expected = {
        (one.key.op, one.key.case, f"{one.key.variant} {one.key.metric.replace('_', ' ')}"
         if show == "codegen" else ""): one
        for one in report.findings
        if one.key.suite == show
    }  # fmt: skip
    assert expected
    place = chosen(base, head, show=show).replace(GPU, machine)
    page = opened(browser, site, "compare.html", place).page
    if page.locator("#more").is_visible():
        page.locator("#more").click()
    rows = page.evaluate(ROWS)
    assert len(rows) == len(expected)
    for op, case, *_, change, verdict, why in rows:
        name, _, what = case.partition(" ")
        finding = expected[op, name, what]
        assert verdict == finding.outcome, (op, case, why, finding.reason)
        assert why.startswith(finding.reason)
        if math.isinf(finding.ratio):
            assert change == "from 0"
        elif not math.isnan(finding.ratio):
            shown = float(change.split(" %")[0].replace("−", "-"))
            assert shown == pytest.approx(100 * (finding.ratio - 1), abs=0.051)
    assert {verdict for *_, verdict, _ in rows} & {"pass", "improved", "regressed"}


def test_the_first_view_is_the_newest_commit_and_the_one_before(browser: Any, site: Path) -> None:
    page = opened(browser, site, "compare.html").page
    assert page.locator("#base-commit").input_value() == COMMITS[2][:12]
    assert page.locator("#head-commit").input_value() == COMMITS[3][:12]
    assert "python -m benchmarks.gate --machine nvidia-h200" in page.locator("main").inner_text()


def test_a_link_holds_the_whole_state(browser: Any, site: Path) -> None:
    here = opened(browser, site, "compare.html")
    here.page.locator("#base-commit").select_option(COMMITS[0][:12])
    here.page.locator("#head-implementation").select_option("compile")
    here.page.locator("#words").fill("softmax fp16")
    here.page.locator("#compared [data-order=change] button").click()
    here.page.locator("#verdict").select_option("slower")
    rows, place = here.page.evaluate(ROWS), here.page.evaluate("location.hash")
    assert rows
    assert all(row[0] == "softmax" and "fp16" in row[1] for row in rows)
    there = opened(browser, site, "compare.html", place.lstrip("#")).page
    assert there.evaluate(ROWS) == rows
    assert there.locator("#words").input_value() == "softmax fp16"
    assert there.locator("#head-implementation").input_value() == "compile"
    assert there.locator("[aria-sort=ascending]").count() == 1


def test_two_implementations_are_told_without_a_verdict_of_the_gate(
    browser: Any, site: Path
) -> None:
    place = chosen(3, 3).replace("kernl&", "eager&")
    page = opened(browser, site, "compare.html", place).page
    verdicts = {row[5] for row in page.evaluate(ROWS)}
    assert verdicts <= {"faster", "slower", "tie", "missing"}
    assert "faster" in verdicts
    assert "a tie is within 2 %" in page.locator("#about-verdicts").inner_text()


def test_models_begin_with_commits_that_measured_models(browser: Any, tmp_path: Path) -> None:
    made = synthetic.store(ops=("softmax",), count=3, commits=4)
    both = sampled(synthetic.with_models(made, commits=3))
    rows = both.rows
    kept = rows[(rows["suite"] != "models") | (rows["commit"] != COMMITS[2])]
    build.build(Source.of(synthetic.Store(kept, both.runs, both.machines, [])), tmp_path / "site")
    page = opened(browser, tmp_path / "site", "compare.html").page
    assert page.locator("#base-commit").input_value() == COMMITS[2][:12]
    page.locator("#show").select_option("models")
    page.wait_for_function(
        f"document.getElementById('base-commit').value === '{COMMITS[1][:12]}'", timeout=10_000
    )
    assert page.locator("#head-commit").input_value() == COMMITS[3][:12]


def test_what_both_sides_were_measured_on_is_told(browser: Any, site: Path) -> None:
    page = opened(browser, site, "compare.html", chosen(1, 3)).page
    said = page.evaluate(
        """() => [...document.querySelectorAll('#beneath tbody tr')].map(
          row => [...row.cells].map(cell => cell.textContent))"""
    )
    assert ["driver", "570.86", "570.86", "the same"] in said
    assert [fact for fact, *_ in said] == sorted(fact for fact, *_ in said)


def test_swapping_turns_a_change_round(browser: Any, site: Path) -> None:
    page = opened(browser, site, "compare.html", chosen(0, 3)).page
    page.locator("#swap").click()
    page.wait_for_function(
        f"() => document.getElementById('base-commit').value === '{COMMITS[3][:12]}'"
    )
    assert page.locator("#head-commit").input_value() == COMMITS[0][:12]


def test_the_download_holds_all_that_the_filter_leaves(
    browser: Any, site: Path, tmp_path: Path
) -> None:
    page = opened(browser, site, "compare.html", chosen(2, 3, words="linear")).page
    with page.expect_download() as caught:
        page.locator("#csv").click()
    target = tmp_path / "compare.csv"
    caught.value.save_as(target)
    with target.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert {row["operator or model"] for row in rows} == {"linear"}
    assert all(row["unit"] == "µs" for row in rows)


def test_a_case_shows_what_the_store_holds(
    browser: Any, site: Path, store: synthetic.Store
) -> None:
    rows = store.rows
    mine = rows[(rows["op"] == "softmax") & (rows["commit"] == COMMITS[3])
                & (rows["machine"] == GPU) & (rows["variant"] == "kernl")
                & (rows["status"] == "ok")].iloc[2]  # fmt: skip
    here = opened(browser, site, "case.html", f"of=softmax&case={mine['case']}")
    page = here.page
    page.wait_for_selector("#trend .main-svg")
    assert page.locator("h1").inner_text() == f"softmax {mine['case']}"
    seconds = float(page.locator("#ours").inner_text().split()[0]) / 1e6
    assert seconds == pytest.approx(mine["value"], rel=1e-3)
    drawn = page.evaluate("document.getElementById('trend').data.map(t => [t.name, t.y])")
    kernl = dict(drawn)["kernl"]
    stored = rows[(rows["op"] == "softmax") & (rows["case"] == mine["case"])
                  & (rows["variant"] == "kernl")].sort_values("committed_at")  # fmt: skip
    assert kernl == pytest.approx(list(stored["value"] * 1e6), rel=1e-5)
    assert len(page.evaluate("document.getElementById('samples').data[0].y")) == 20
    again = page.locator("#again").inner_text()
    assert f"git checkout {COMMITS[3][:12]}" in again
    assert "python -m benchmarks.measure softmax" in again
    link = page.locator("#raw a").get_attribute("href")
    assert link == f"results/{GPU}/{COMMITS[3][:8]}-worktree.json"
    assert "NVIDIA H200" in page.locator("#run-facts").inner_text()
    assert here.said == []


def test_each_row_of_compare_leads_to_its_case(browser: Any, site: Path) -> None:
    page = opened(browser, site, "compare.html", chosen(2, 3, words="linear")).page
    name = page.locator("#compared tbody a").first.inner_text()
    page.locator("#compared tbody a").first.click()
    page.wait_for_selector("#trend .main-svg")
    assert page.locator("h1").inner_text() == f"linear {name}"


def test_the_page_of_an_operator_leads_to_the_case_that_is_chosen(browser: Any, site: Path) -> None:
    page = Opened(browser, (site / "op-linear.html").as_uri()).page
    select = page.locator("select[data-series]").first
    name = select.locator("option").nth(3).get_attribute("value")
    select.select_option(name)
    page.locator("a.case-page").first.click()
    page.wait_for_selector("#trend .main-svg")
    assert page.locator("h1").inner_text() == f"linear {name}"


def test_a_case_that_is_not_there_is_said_to_be(browser: Any, site: Path) -> None:
    page = opened(browser, site, "case.html", "of=softmax&case=rows1_cols1.fp64").page
    assert "There is no case rows1_cols1.fp64" in page.locator("#said").inner_text()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
@pytest.mark.parametrize("name", ["compare.html", "case.html"])
def test_nothing_is_cut_off_and_nothing_complains(
    browser: Any, site: Path, name: str, width: int, scheme: str
) -> None:
    here = opened(browser, site, name, width=width, scheme=scheme)
    assert here.page.evaluate("document.documentElement.scrollWidth") <= width
    assert here.said == []


def test_hostile_names_stay_text(browser: Any, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    build.build(Source.of(hostile.store()), folder)
    for name in ("compare.html", "case.html"):
        here = opened(browser, folder, name)
        here.page.wait_for_timeout(300)
        assert here.said == []
        assert here.page.evaluate("window.attacked") is None
    names = {path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.is_file()}
    assert names >= {"assets", "data"}
    for path in (folder / "data").rglob("*.js"):
        assert "</script" not in path.read_text()


def test_without_any_times_the_pages_say_so(browser: Any, tmp_path: Path) -> None:
    build.build(Source.of(synthetic.empty()), tmp_path / "site")
    for name in ("compare.html", "case.html"):
        page = opened(browser, tmp_path / "site", name).page
        assert "run make bench" in page.locator("#said").inner_text()


def test_the_files_hold_json_that_any_reader_knows(site: Path) -> None:
    content = (site / "data/commits.js").read_text()
    name, value = content.removeprefix("KERNL_DATA(").removesuffix(");\n").split(",", 1)
    assert json.loads(name) == "commits"
    assert [one[0] for one in json.loads(value)["commits"]] == COMMITS


def test_the_pictures_of_the_readme_are_of_pages_that_are_there(
    browser: Any, site: Path, tmp_path: Path
) -> None:
    assert {f"{name}.png" for name in screenshots.SHOWN} == {
        path.name for path in screenshots.PICTURES.iterdir()
    }
    assert screenshots.take(browser, site, "compare", tmp_path).stat().st_size > 10_000
    assert screenshots.main([str(tmp_path / "nothing")]) == 2


def test_rings_and_uprights_stand_where_cases_and_libraries_moved(
    browser: Any, tmp_path: Path
) -> None:
    build.build(source(*measured(STEP)), tmp_path / "moved")
    page = Opened(browser, (tmp_path / "moved" / "op-softmax.html").as_uri()).page
    page.wait_for_selector("#times-1 .main-svg")
    ring = page.evaluate("document.getElementById('times-1').data.find(t => t.name === 'moved')")
    assert ring["x"] == [6]
    assert "open: by" in ring["customdata"][0]
    build.build(Source.of(synthetic.store(ops=("softmax",), count=3)), tmp_path / "changed")
    page = Opened(browser, (tmp_path / "changed" / "op-softmax.html").as_uri()).page
    page.wait_for_selector("#times-1 .main-svg")
    layout = page.evaluate("document.getElementById('times-1').layout")
    assert [one["x0"] for one in layout["shapes"] if one["type"] == "line"] == [4.5]
    assert "driver 570.86 → 575.51" in layout["annotations"][0]["text"]
