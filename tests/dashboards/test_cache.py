"""The cache of a build: it is ours or refused, holds what is needed, and changes no site."""

import json
import os
from pathlib import Path

import pytest

from dashboards import build
from dashboards.data import cache
from dashboards.data.cache import MARK, Cache, CacheError
from tests.dashboards.cached import (
    INDEX,
    refuse,
)


def test_a_new_an_empty_and_an_earlier_folder_are_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("a/new/one", "empty", "empty"):
        Cache(tmp_path / name)
        assert [path.name for path in (tmp_path / name).iterdir()] == [MARK]


def test_a_folder_with_foreign_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CacheError, match="did not write; name a folder"):
        Cache(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    (tmp_path / MARK).mkdir()
    with pytest.raises(CacheError, match="did not write"):
        Cache(tmp_path)


def test_a_file_or_a_link_is_refused(tmp_path: Path) -> None:
    Cache(tmp_path / "ours")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link", "gone"):
        with pytest.raises(CacheError, match=f"{name} is not a folder"):
            Cache(tmp_path / name)
    assert (tmp_path / "file").read_text() == "x"
    assert not (tmp_path / "nowhere").exists()


def test_the_command_refuses_a_foreign_folder(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--results", str(results), "--output", str(tmp_path / "site")]
    assert build.main([*asked, "--cache", str(results)]) == 2
    assert "did not write" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()
    assert not (results / MARK).exists()


def test_what_was_not_used_is_removed(folder: Path) -> None:
    first = Cache(folder)
    for name in ("used", "old", ".old-draft"):
        (folder / name).write_text(name)
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "file").write_text("x")
    assert first.use("used") == folder / "used"
    first.use("asked for and never made")
    first.prune()
    assert {path.name for path in folder.iterdir()} == {MARK, INDEX, "used"}
    Cache(folder).prune()
    assert {path.name for path in folder.iterdir()} == {MARK, INDEX}


def test_of_a_link_that_was_not_used_the_link_alone_is_removed(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "thesis.txt").write_text("years of work")
    used = Cache(folder)
    for name, to in (("a", "elsewhere"), ("b", "elsewhere/thesis.txt"), ("c", "gone")):
        (folder / name).symlink_to(tmp_path / to)
    used.prune()
    assert {path.name for path in folder.iterdir()} == {MARK, INDEX}
    assert (tmp_path / "elsewhere" / "thesis.txt").read_text() == "years of work"


def test_a_file_is_digested_once_as_long_as_it_stays_as_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_text("some")
    other.write_text("some")
    first = Cache(folder)
    known = first.content(path)
    assert known == first.content(other) == cache.digest_of(path)
    first.prune()
    with monkeypatch.context() as patched:
        patched.setattr(cache, "digest_of", refuse)
        assert Cache(folder).content(path) == known
        (folder / INDEX).write_text(json.dumps({str(path): "odd", str(other): [1]}))
        for one in (path, other):
            with pytest.raises(AssertionError):
                Cache(folder).content(one)
    for odd in ("{ half", "[1]", "null", '"x"', "\udcff"):
        (folder / INDEX).write_bytes(odd.encode("utf-8", "surrogateescape"))
        assert Cache(folder).content(path) == known
    first.prune()
    before = path.stat().st_mtime_ns
    path.write_text("same")  # as long
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))
    assert Cache(folder).content(path) == cache.digest_of(path) != known


def test_a_file_whose_date_was_set_back_is_digested_again(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("some")
    first = Cache(folder)
    known, times = first.content(path), path.stat()
    first.prune()
    while path.stat().st_ctime_ns == times.st_ctime_ns:  # a clock may be coarse
        path.write_text("same")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert Cache(folder).content(path) != known


def test_a_digest_tells_where_texts_end() -> None:
    several = [("ab", "c"), ("a", "bc"), ("abc",), ("", "abc"), ("abc", ""), (), ("\ud800",)]
    assert len({cache.digest(*parts) for parts in several}) == len(several)
    assert cache.digest("x", "y") == cache.digest("x", "y")


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fails(draft: Path) -> None:
        draft.write_text("half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        cache.replace(path, fails)
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"file": "old"}
    cache.replace(path, lambda draft: draft.write_text("new"))
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"file": "new"}
