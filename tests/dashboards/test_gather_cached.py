"""Reading through a cache: what was read before is not read again, and is the same."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import reading
from dashboards.data import cache, gather
from dashboards.data.cache import MARK, Cache
from dashboards.loaded import commit_files
from tests.dashboards import scale
from tests.dashboards.cached import (
    COMMITS,
    INDEX,
    change_value,
    refuse,
    result_files,
    site,
    told,
)


def test_what_was_read_before_is_not_read_again(
    results: Path, folder: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = gather.gather(results)
    assert len(expected.kept) == COMMITS
    assert len(expected.runs) > 3
    assert [problem.path for problem in expected.problems] == [
        f"{scale.MACHINE}/deadbeef-worktree.json"
    ]
    reads.clear()
    first = Cache(folder)
    assert told(gather.gather(results, first)) == told(expected)
    assert len(reads) == len(list(results.glob("*/*-worktree.json")))
    first.prune()
    monkeypatch.setattr(reading, "read", refuse)
    for _ in range(2):
        later = Cache(folder)
        found = gather.gather(results, later)
        assert told(found) == told(expected)
        assert all(isinstance(one.place, Path) for one in found.kept)
        later.prune()


def test_it_is_no_matter_where_the_results_lie(
    results: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = told(gather.gather(results, Cache(folder)))
    moved = results.rename(results.with_name("elsewhere"))
    monkeypatch.setattr(reading, "read", refuse)
    assert told(gather.gather(moved, Cache(folder))) == expected


def remove_journal(path: Path) -> None:
    path.with_name(f"{path.name.removesuffix('.json')}.points.jsonl.gz").unlink()


def add_journal(path: Path) -> None:
    """A plain one beside the packed one: what was written since."""
    journal = path.with_name(f"{path.name.removesuffix('.json')}.points.jsonl")
    commit = json.loads(path.read_text())["commit_hash"]
    run = {"kind": "run", "id": "0" * 32, "commit": commit, "machine": path.parent.name}
    started = {"started_at": "2026-01-01T00:00:00+00:00", "fingerprint": {"gpu": "added"}}
    journal.write_text(f"{json.dumps({**run, **started})}\n")


def add_file(path: Path) -> None:
    """Another environment's file of the same commit."""
    content = json.loads(path.read_text())
    content["env_name"] = "other"
    content["results"] = dict(list(content["results"].items())[:1])
    path.with_name(f"{path.name.split('-')[0]}-other.json").write_text(json.dumps(content))


def break_file(path: Path) -> None:
    path.write_text("{ half a fi")


@pytest.mark.parametrize(
    "change", [change_value, remove_journal, add_journal, add_file, break_file]
)
def test_a_changed_file_is_read_again_and_that_one_alone(
    results: Path, folder: Path, reads: list[str], change: Callable[[Path], None]
) -> None:
    first = Cache(folder)
    before = told(gather.gather(results, first))
    first.prune()
    changed = next(path for path in result_files(results) if path.parent.name == scale.MACHINE)
    change(changed)
    reads.clear()
    second = Cache(folder)
    found = told(gather.gather(results, second))
    assert {name.split("-")[0] for name in reads} == {changed.name.split("-")[0]}
    assert found != before
    assert found == told(gather.gather(results))
    second.prune()
    reads.clear()
    assert told(gather.gather(results, Cache(folder))) == found
    assert reads == []


def test_a_packed_journal_counts_where_a_plain_one_lies_beside_it(
    results: Path, folder: Path, reads: list[str]
) -> None:
    changed = next(path for path in result_files(results) if path.parent.name == scale.MACHINE)
    add_journal(changed)
    first = Cache(folder)
    before = told(gather.gather(results, first))
    first.prune()
    remove_journal(changed)
    reads.clear()
    found = told(gather.gather(results, Cache(folder)))
    assert reads == [changed.name]
    assert found == told(gather.gather(results)) != before


def test_what_is_no_longer_there_is_forgotten(
    results: Path, folder: Path, reads: list[str]
) -> None:
    first = Cache(folder)
    gather.gather(results, first)
    first.prune()
    files = {path.name for path in folder.iterdir()}
    gone = result_files(results)[0]
    content = gone.read_bytes()
    gone.unlink()
    reads.clear()
    second = Cache(folder)
    found = gather.gather(results, second)
    second.prune()
    assert len(found.kept) == COMMITS - 1
    assert reads == []
    left = {path.name for path in folder.iterdir()}
    assert left < files
    assert len(files - left) == 2
    gone.write_bytes(content)
    assert len(gather.gather(results, Cache(folder)).kept) == COMMITS
    assert reads == [gone.name]


def test_a_file_that_was_only_touched_is_not_read_again(
    results: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = told(gather.gather(results, Cache(folder)))
    for path in results.glob("*/*"):
        os.utime(path, (1, 1))
    monkeypatch.setattr(reading, "read", refuse)
    assert told(gather.gather(results, Cache(folder))) == expected


def test_other_code_reads_all_again(
    results: Path, folder: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Cache(folder)
    expected = told(gather.gather(results, first))
    first.prune()
    before = {path.name for path in folder.iterdir()}
    every = len(reads)
    monkeypatch.setattr(cache, "code", lambda files: "other")
    second = Cache(folder)
    assert told(gather.gather(results, second)) == expected
    assert len(reads) == 2 * every
    second.prune()
    assert {path.name for path in folder.iterdir()} & before == {MARK, INDEX}


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def overwrite(path: Path) -> None:
    path.write_bytes(b"\xff\xfe nothing of ours")


def list_nothing(path: Path) -> None:
    path.write_text("[]" if path.suffix == ".json" else "")


@pytest.mark.parametrize("damage", [remove, empty, cut, overwrite, list_nothing])
@pytest.mark.parametrize("ending", [".json", ".columns"])
def test_a_damaged_file_of_the_cache_is_made_again(
    results: Path, folder: Path, reads: list[str], damage: Callable[[Path], None], ending: str
) -> None:
    first = Cache(folder)
    expected = told(gather.gather(results, first))
    first.prune()
    (path, *others) = sorted(p for p in folder.glob(f"*{ending}") if p.name != INDEX)
    assert len(others) >= COMMITS - 1
    damage(path)
    reads.clear()
    second = Cache(folder)
    assert told(gather.gather(results, second)) == expected
    assert len(reads) == 1
    second.prune()
    reads.clear()
    assert told(gather.gather(results, Cache(folder))) == expected
    assert reads == []


def test_all_of_the_cache_may_be_gone(results: Path, folder: Path) -> None:
    first = Cache(folder)
    expected = told(gather.gather(results, first))
    first.prune()
    for path in folder.iterdir():
        path.unlink()
    assert told(gather.gather(results, Cache(folder))) == expected


def test_several_processes_read_what_one_reads(
    results: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = site(results, Cache(folder.with_name("alone")))
    monkeypatch.setattr(gather, "_ALONE", 0)
    monkeypatch.setattr(commit_files, "_ALONE", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    used = Cache(folder)
    asked: list[tuple[int, int]] = []
    found = gather.gather(results, used, lambda done, of: asked.append((done, of)))
    assert told(found) == told(gather.gather(results))
    assert asked == [(done, len(asked)) for done in range(len(asked))]
    assert site(results, used) == expected
    assert {path.name for path in folder.iterdir()} == {
        path.name for path in folder.with_name("alone").iterdir()
    }


def test_work_of_several_processes_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    asked = [(number, 3) for number in range(20)]
    for alone in (True, False):
        assert list(gather.in_processes(pow, asked, alone=alone)) == [n**3 for n in range(20)]
    assert list(gather.in_processes(pow, [])) == []


def test_where_nothing_is_there_a_cache_is_empty(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    for place in (tmp_path / "nothing", tmp_path / "missing"):
        assert told(gather.gather(place, Cache(folder))) == told(gather.gather(place))
