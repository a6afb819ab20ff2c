"""A site that is built from a cache has the same files."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import reading
from dashboards import build
from dashboards.data import gather
from dashboards.data.cache import MARK, Cache
from dashboards.data.source import Source
from dashboards.loaded import commit_files
from tests.dashboards import scale
from tests.dashboards.cached import (
    SCALE,
    change_value,
    refuse,
    result_files,
    site,
)
from tests.dashboards.scale import Scale
from tests.dashboards.test_build import snapshot


@pytest.fixture(scope="module")
def without(written: Path) -> dict[str, bytes]:
    """The site that is made without a cache."""
    return site(written)


def without_samples(files: dict[str, bytes]) -> dict[str, Any]:
    """The files, the samples in them left out."""
    found: dict[str, Any] = dict(files)
    for name in files:
        if name.startswith("data/of/"):
            content = json.loads(files[name].decode().removesuffix(");\n").split(",", 1)[1])
            for words in content.get("last", []):
                for one in filter(None, words):
                    one["samples"] = len(one["samples"])
            found[name] = content
    return found


def test_a_site_has_the_same_files_from_a_cache(
    written: Path, folder: Path, without: dict[str, bytes]
) -> None:
    made = []
    for _ in range(2):
        used = Cache(folder)
        made.append(site(written, used))
        used.prune()
    fresh, warm = made
    assert fresh == warm
    assert list(fresh) == list(without)
    assert without_samples(fresh) == without_samples(without)


def test_a_site_has_the_same_samples_from_a_cache(
    written: Path, folder: Path, without: dict[str, bytes]
) -> None:
    """A cache holds them with seven digits, and five are shown."""
    found = site(written, Cache(folder))
    assert [name for name in found if found[name] != without[name]] == []


def test_only_a_changed_commit_s_file_is_made_again(
    results: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Cache(folder)
    before = site(results, first)
    first.prune()
    made: list[str] = []
    real = commit_files.at_commit

    def at_commit(measured: Any, points: Any, prints: Any) -> dict[str, Any]:
        made.append(measured.record.commit)
        return real(measured, points, prints)

    monkeypatch.setattr(commit_files, "at_commit", at_commit)
    second = Cache(folder)
    assert site(results, second) == before
    second.prune()
    assert made == []
    changed = next(path for path in result_files(results) if path.parent.name == scale.MACHINE)
    change_value(changed)
    third = Cache(folder)
    after = site(results, third)
    assert made == [json.loads(changed.read_text())["commit_hash"]]
    assert without_samples(after) == without_samples(site(results))
    at = [name for name in after if name.startswith("data/at/") and after[name] != before[name]]
    assert len(at) == 1
    missing = third.use(next(path.name for path in folder.glob("*.js")))
    missing.unlink()
    assert site(results, third) == after


def test_a_new_commit_makes_no_earlier_one_s_files_again(
    results: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    first = Cache(folder)
    site(results, first)
    first.prune()
    scale.write(results, Scale(**{**vars(SCALE), "commits": 1}), first=SCALE.commits)
    made: list[str] = []
    real = commit_files.at_commit

    def at_commit(measured: Any, points: Any, prints: Any) -> dict[str, Any]:
        made.append(measured.record.commit)
        return real(measured, points, prints)

    monkeypatch.setattr(commit_files, "at_commit", at_commit)
    reads.clear()
    found = site(results, Cache(folder))
    newest = SCALE.commit(SCALE.commits)
    assert [name.split("-")[0] for name in reads] == [newest[:8]]
    # What was measured later has another number now, and with it another name.
    earlier = {SCALE.commit(number) for number in range(SCALE.commits)}
    assert newest in made
    assert not earlier & set(made)
    monkeypatch.undo()
    assert without_samples(found) == without_samples(site(results))


def test_a_built_site_outlives_its_cache(
    written: Path, folder: Path, tmp_path: Path, without: dict[str, bytes]
) -> None:
    used = Cache(folder)
    place = tmp_path / "site"
    build.build(Source.of(gather.gather(written, used)), place, "", used)
    held = {path.name for path in folder.iterdir()}
    shutil.rmtree(folder)
    found = snapshot(place)
    assert without_samples({name: found[name] for name in without}) == without_samples(without)
    again = Cache(folder)
    build.build(Source.of(gather.gather(written, again)), place, "", again)
    assert snapshot(place) == found
    assert {path.name for path in folder.iterdir()} == held


def test_all_files_of_a_site_may_be_read_by_others(
    written: Path, folder: Path, tmp_path: Path
) -> None:
    """A server may be another user than who builds."""
    before = os.umask(0o022)
    try:
        used = Cache(folder)
        build.build(Source.of(gather.gather(written, used)), tmp_path / "site", "", used)
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "site").rglob("*") if path.is_file()]
    hidden = [path.name for path in files if path.stat().st_mode & 0o044 != 0o044]
    assert hidden == []


def test_the_command_keeps_its_cache_beside_the_site(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["--results", str(results), "--output", str(tmp_path / "site")]
    assert build.main(asked) == 0
    before = snapshot(tmp_path / "site")
    assert (tmp_path / "site-cache" / MARK).is_file()
    monkeypatch.setattr(reading, "read", refuse)
    assert build.main(asked) == 0
    assert snapshot(tmp_path / "site") == before


def test_a_second_build_of_one_process_knows_new_cases(results: Path, folder: Path) -> None:
    """Names of points are handed to other processes by a file, which a process keeps in mind."""
    site(results, Cache(folder))
    for path in result_files(results):
        content = path.read_text()
        path.write_text(content.replace(".fp16'", "_new.fp16'"))
    assert without_samples(site(results, Cache(folder))) == without_samples(site(results))
