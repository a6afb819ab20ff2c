"""What lies in a results directory, read commit by commit, is what the store holds."""

import json
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import store
from dashboards import pages
from dashboards.data import gather
from dashboards.data.source import Source
from dashboards.tabular import changed
from tests.dashboards import scale
from tests.dashboards.cached import COMMITS, result_files, write_results

TYPES = {name: kind for name, kind in store.ROW_TYPES.items() if name != "committed_at"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(tmp_path_factory.mktemp("written") / "results")


def without_clocks(files: dict[str, bytes]) -> dict[str, object]:
    """The files, those of series taken apart: the store does not hold the clock of a time."""
    found: dict[str, object] = dict(files)
    for name in files:
        if name.startswith("data/of/"):
            content = json.loads(files[name].decode().removesuffix(");\n").split(",", 1)[1])
            for words in content.get("last", []):
                for one in filter(None, words):
                    del one["clock"]
            found[name] = content
    return found


def test_the_site_of_result_files_is_that_of_their_store(written: Path) -> None:
    of_files = Source.of(gather.gather(written), written)
    of_store = Source.of(store.load(written), written)
    assert len(of_files.kept) == COMMITS
    assert of_files.commits == of_store.commits
    assert of_files.problems == of_store.problems
    assert of_files.size == of_store.size > 100
    files, expected = (without_clocks(pages.files(one)) for one in (of_files, of_store))
    assert list(files) == list(expected)
    assert [name for name in files if files[name] != expected[name]] == []


def test_rows_of_a_commit_are_those_of_the_store(written: Path) -> None:
    source = Source.of(gather.gather(written), written)
    every = store.load(written).rows.drop(columns="samples")
    seen = 0
    for (machine, commit), part in every.groupby(["machine", "commit"]):
        for suite in (None, *part["suite"].unique()):
            of_suite = part if suite is None else part[part["suite"] == suite]
            for op in (None, *of_suite["op"].unique()) if suite is not None else (None,):
                expected = of_suite if op is None else of_suite[of_suite["op"] == op]
                found = source.rows(machine, commit, suite, op)
                assert set(found["samples"]) == {()}
                frame = found.drop(columns="samples")
                pd.testing.assert_frame_equal(
                    frame, expected.reset_index(drop=True), check_dtype=False
                )
                seen += len(frame)
    assert seen > 2 * len(every)


def test_of_what_was_not_measured_there_are_no_rows(written: Path) -> None:
    source = Source.of(gather.gather(written), written)
    machine, commit = next(iter(source.kept))
    for asked in (
        (machine, "f" * 40),
        ("nowhere", commit),
        (machine, commit, "nothing"),
        (machine, commit, "kernels", "nothing"),
    ):
        found = source.rows(*asked)
        assert len(found) == 0
        assert list(found.columns) == list(store.ROW_TYPES)
    assert source.cube("nothing", machine) is None
    part = source.cube("kernels", scale.MACHINE, "nothing")
    assert part is not None
    assert (part.measured, part.points.cases) == ((), ())


def test_a_file_without_results_is_no_commit(tmp_path: Path) -> None:
    """Of a run that was stopped at once, say: what was measured is no older for it."""
    results = write_results(tmp_path / "results")
    expected = Source.of(store.load(results), results)
    path = result_files(results)[0]
    content = json.loads(path.read_text())
    content |= {"commit_hash": "e" * 40, "results": {}, "date": content["date"] + 10**11}
    path.with_name("eeeeeeee-worktree.json").write_text(json.dumps(content))
    found = Source.of(gather.gather(results), results)
    assert [commit.id for commit in found.commits] == [commit.id for commit in expected.commits]
    assert changed.freshness(found) == changed.freshness(expected)
