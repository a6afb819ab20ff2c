"""Compare gives stored results the verdicts that the gate gives them, by the files between both."""

import datetime
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import store
from benchmarks.compare import MIN_EFFECT, SPREAD_FACTOR
from benchmarks.gate import reached, stored
from dashboards import build
from dashboards.data.cache import Cache
from dashboards.data.source import Source
from dashboards.loaded import gate_files
from tests.dashboards import synthetic
from tests.dashboards.chromium import MARKS
from tests.dashboards.test_chosen import opened

pytestmark = MARKS
MACHINE = "nvidia-h100-80gb-hbm3"
RESULTS = stored.ROOT / "benchmarks" / "results"
COMMITS = "9cff18d8", "3aaaa63e", "88fc9a04", "30208d4c", "94a7ff06"
PAIRS = [
    ("kernels", "88fc9a04", "30208d4c"),  # no operator changed
    ("kernels", "3aaaa63e", "30208d4c"),  # some did
    ("kernels", "30208d4c", "3aaaa63e"),
    ("models", "30208d4c", "94a7ff06"),  # none did
    ("models", "9cff18d8", "94a7ff06"),  # all may have, and the host is another
]
ROWS = """() => Object.fromEntries([...document.querySelectorAll('#verdict option')].map(
  one => [one.value, Number(/\\((\\d+)\\)/.exec(one.textContent)[1])]))"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is stored of five commits. Where git does not know them, all counts as changed."""
    folder = tmp_path_factory.mktemp("reached") / "results"
    (folder / MACHINE).mkdir(parents=True)
    shutil.copy(RESULTS / "benchmarks.json", folder)
    for name in ("machine.json", *(f"{commit}-*" for commit in COMMITS)):
        for path in (RESULTS / MACHINE).glob(name):
            shutil.copy(path, folder / MACHINE)
    return folder


@pytest.fixture(scope="module")
def rows(results: Path) -> store.Store:
    return store.load(results)


@pytest.fixture(scope="module")
def site(results: Path) -> Path:
    folder = results.parent / "site"
    build.build(build.read(results), folder)
    return folder


@pytest.mark.parametrize(("suite", "base", "head"), PAIRS)
def test_verdicts_are_those_of_the_gate(
    browser: Any, site: Path, rows: store.Store, suite: str, base: str, head: str
) -> None:
    commits = {commit[:8]: commit for commit in set(rows.rows["commit"])}
    report = stored.judge(
        *(rows.rows, rows.runs, commits[base], commits[head]),
        today=datetime.date(2030, 1, 1),
    )
    expected: dict[str, int] = {}
    for finding in report.findings:
        expected[finding.outcome] = expected.get(finding.outcome, 0) + 1
    sides = {
        side: f"{MACHINE}/{commits[commit][:12]}/kernl"
        for side, commit in (("base", base), ("head", head))
    }
    address = "&".join(f"{name}={value}" for name, value in {**sides, "show": suite}.items())
    page = opened(browser, site, "compare.html", address).page
    found = page.evaluate(ROWS)
    assert found.pop("") == sum(found.values())
    assert found == expected
    about = page.inner_text("#about-verdicts")
    for blocker in report.blockers:
        if blocker.startswith("eager of"):
            assert blocker.split(":")[0].replace("-", "−") in about.replace("-", "−")
    for note in report.notes:
        if "cannot have changed" in note:
            assert note.replace(f" on {MACHINE}", "") in about


def test_where_git_knows_no_commit_all_counts_as_changed(results: Path, tmp_path: Path) -> None:
    source, folders = build.read(results), {MACHINE: "machine"}
    found = dict(gate_files.files(source, folders, None, tmp_path))
    assert set(found) == {"data/code.js", "data/noise/machine.js"}
    assert len(re.findall(rb'"u32":"A+=*"', found["data/code.js"])) == 2


def test_with_a_cache_the_files_are_the_same(results: Path, tmp_path: Path) -> None:
    source, folders = build.read(results), {MACHINE: "machine"}
    told = dict(gate_files.files(source, folders, None))
    cache = Cache(tmp_path / "cache")
    for _ in range(2):
        assert dict(gate_files.files(source, folders, cache)) == told


def test_a_machine_that_measured_models_alone_has_a_file_too(tmp_path: Path) -> None:
    made = synthetic.with_models(synthetic.store(), commits=3)
    models = replace(made, rows=made.rows[made.rows["suite"] == "models"])
    source = Source.of(models)
    (machine,) = {machine for _, machine in source.cubes}
    found = dict(gate_files.files(source, {machine: "gpu"}, None))
    assert b'"f64":""' in found["data/noise/gpu.js"]


def test_limits_are_those_of_the_gate(browser: Any, site: Path) -> None:
    page = opened(browser, site, "compare.html", "").page
    assert page.evaluate("window.KERNL_REACHED.limits") == {
        "many": reached.MANY,
        "untold": reached.UNTOLD,
        "most": reached.MOST,
        "minEffect": MIN_EFFECT,
        "spreadFactor": SPREAD_FACTOR,
    }
