"""A cube is the same whether its blocks come from the cache or are made."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboards.data import blocks, gather
from dashboards.data.cache import Cache
from dashboards.data.cube import ABSENT, ARRAYS, Cube
from dashboards.data.gather import Kept
from dashboards.data.measured import Measured
from dashboards.data.source import Source
from tests.dashboards import scale
from tests.dashboards.cached import SCALE, result_files
from tests.dashboards.scale import Scale

KEY = ("kernels", scale.MACHINE)


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "COMMITS", 2)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commits whose files are loaded for a cube while a test runs."""
    found: list[str] = []
    real = Kept.load

    def load(self: Kept, *, samples: bool = True) -> Measured:
        found.append(self.commit)
        return real(self, samples=samples)

    monkeypatch.setattr(Kept, "load", load)
    return found


def source(results: Path, cache: Cache | None) -> Source:
    found = Source.of(gather.gather(results, cache), cache=cache)
    assert found.points
    return found


def assert_same(one: Cube, other: Cube) -> None:
    assert (one.machine, one.points, one.commits) == (other.machine, other.points, other.commits)
    for name in ARRAYS:
        assert getattr(one, name).dtype == getattr(other, name).dtype
        arrays = getattr(one, name), getattr(other, name)
        assert np.array_equal(*arrays, equal_nan=name in ("value", "low", "high"))
    assert (one.versions, one.runs) == (other.versions, other.runs)


def test_blocks_are_kept_and_are_what_was_measured(
    results: Path, folder: Path, loads: list[str]
) -> None:
    plain = source(results, None).cubes
    cold, warm = source(results, Cache(folder)), source(results, Cache(folder))
    assert [len(cube.commits) for cube in plain.values()].count(3) == 1
    for key, cube in cold.cubes.items():
        assert_same(cube, plain[key])
    loads.clear()
    for key, cube in warm.cubes.items():
        assert_same(cube, plain[key])
    assert loads == []


def test_each_word_of_a_block_is_the_one_of_its_point(results: Path) -> None:
    found = source(results, None)
    cube = found.cubes[KEY]
    assert len(cube.runs) > blocks.COMMITS
    for place, commit in enumerate(cube.commits):
        rows = found.rows(scale.MACHINE, commit, "kernels")
        said = {(one["op"], one["case"], one["variant"]): one for one in rows.to_dict("records")}
        for case, (op, name) in enumerate(cube.points.cases):
            for at, variant in enumerate(cube.points.variants):
                one = said.get((op, name, variant))
                if one is None:
                    assert cube.status[place, case, at, 0] == ABSENT
                    continue
                assert cube.runs[cube.run[place, case, at, 0]] == one["run"]
                assert cube.versions[cube.version[place, case, at, 0]] == one["version"]


def test_a_new_commit_makes_the_last_block_alone(
    results: Path, folder: Path, loads: list[str]
) -> None:
    first = Cache(folder)
    assert source(results, first).cubes
    first.prune()
    scale.write(results, Scale(**{**vars(SCALE), "commits": 1}), first=SCALE.commits)
    second = Cache(folder)
    grown = source(results, second)
    loads.clear()
    cube = grown.cubes[KEY]
    assert sorted(loads) == sorted(cube.commits[2:4])
    assert_same(cube, source(results, None).cubes[KEY])


@pytest.mark.parametrize("harm", ["shorter", "other numbers", "other words", "no JSON"])
def test_a_block_that_is_not_whole_is_made_again(results: Path, folder: Path, harm: str) -> None:
    plain = source(results, None).cubes
    assert source(results, Cache(folder)).cubes
    kept = sorted(folder.glob("*.block"))
    assert len(kept) == sum(-(-len(cube.commits) // 2) for cube in plain.values())
    before = {path: path.read_bytes() for path in kept}
    for path in kept:
        line, arrays = path.read_bytes().split(b"\n", 1)
        about = json.loads(line)
        if harm == "other words":
            about["words"]["run"][0] += "x"
        middle = len(arrays) // 3
        path.write_bytes(
            {
                "shorter": line + b"\n" + arrays[:-1],
                "other numbers": line + b"\n" + arrays[:middle] + b"\7" * 9 + arrays[middle + 9 :],
                "other words": json.dumps(about).encode() + b"\n" + arrays,
                "no JSON": b"{" + line + b"\n" + arrays,
            }[harm]
        )
    for key, cube in source(results, Cache(folder)).cubes.items():
        assert_same(cube, plain[key])
    assert {path: path.read_bytes() for path in kept} == before


def test_a_commit_that_changed_changes_its_block(results: Path, folder: Path) -> None:
    """The first of a block, and the last."""
    seen = [source(results, Cache(folder)).cubes[KEY].value.tolist()]
    for path in (one for one in result_files(results) if one.parent.name == scale.MACHINE):
        content = json.loads(path.read_text())
        for values, *_ in content["results"].values():
            values[:] = [value and 3 * value for value in values]
        path.write_text(json.dumps(content))
        found = source(results, Cache(folder)).cubes[KEY]
        assert_same(found, source(results, None).cubes[KEY])
        seen.append(found.value.tolist())
    assert len({repr(values) for values in seen}) == 1 + SCALE.commits


def test_many_blocks_are_made_by_several_processes(
    results: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[list[tuple[Any, ...]]] = []

    def in_processes(work: Callable[..., Any], asked: list[tuple[Any, ...]]) -> Iterator[Any]:
        made.append(asked)
        return gather.in_processes(work, asked)

    monkeypatch.setattr(blocks, "in_processes", in_processes)
    plain = source(results, Cache(folder.with_name("one"))).cubes[KEY]
    assert made == []
    monkeypatch.setattr(blocks, "_LARGE", 1)
    several = source(results, Cache(folder))
    assert_same(several.cubes[KEY], plain)
    assert len(made) == len(several.cubes)
    assert max(map(len, made)) > 1
    assert_same(source(results, Cache(folder)).cubes[KEY], plain)
    assert len(made) == len(several.cubes)  # the blocks are there now
