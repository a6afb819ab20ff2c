"""A Chromium for the tests that open pages, and results on a disk for those of the cache."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import reading
from tests.dashboards.cached import write_results
from tests.dashboards.chromium import ARGUMENTS, CHROMIUM


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install 'kernl[browser]'"
    )
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(tmp_path_factory.mktemp("written") / "results")


@pytest.fixture
def results(written: Path, tmp_path: Path) -> Path:
    """A copy of them that a test may change."""
    return Path(shutil.copytree(written, tmp_path / "results"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the result files that are read while a test runs, some at a time."""
    found: list[str] = []
    real = reading.read

    def read(root: Path, files: reading.Files) -> reading.Read:
        found.extend(path.name for path in files.results)
        return real(root, files)

    monkeypatch.setattr(reading, "read", read)
    return found
