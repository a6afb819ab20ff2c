"""What a figure of commits loads: when each was made, and at which the releases stand."""

import json
from pathlib import Path

from dashboards.data import history
from dashboards.data.history import Branch, Release
from dashboards.data.source import Source
from dashboards.loaded import shards
from tests.dashboards import synthetic
from tests.dashboards.synthetic import commit_hash
from tests.dashboards.test_history import DAY, git
from tests.dashboards.test_regressions import STEP, measured


def commits_file(
    *releases: Release, parents: dict[str, tuple[str, ...]]
) -> dict[str, list[list[object]]]:
    store = synthetic.Store(synthetic.frame(measured(STEP)), synthetic.runs_frame([]))
    found = Source(**{**vars(Source.of(store)), "branch": Branch(parents, releases)})
    written = dict(shards.files(found, {}))["data/commits.js"]
    assert isinstance(written, bytes)
    value = written.decode().removeprefix("KERNL_DATA(").removesuffix(");\n").split(",", 1)[1]
    loaded: dict[str, list[list[object]]] = json.loads(value)
    return loaded


def line(*names: str) -> dict[str, tuple[str, ...]]:
    return {name: names[at - 1 : at] if at else () for at, name in enumerate(names)}


def test_each_commit_has_its_moment_in_seconds() -> None:
    found = commits_file(parents={})
    assert [one[3] for one in found["commits"]] == [DAY // 1000 + 86_400 * n for n in range(12)]
    assert history.commits({"a": 0})[0].moment == 0


def test_releases_stand_at_their_commits_or_behind_what_they_are_made_upon() -> None:
    every = [commit_hash(number) for number in range(12)]
    parents = line(*every[:3], "between", *every[3:], "newest")
    releases = [Release("v2.0.0", every[7]), Release("v1.0.0", "between")]
    releases += [Release("v3.0.0", "newest"), Release("v0.0.1", "elsewhere")]
    found = commits_file(*releases, parents=parents)
    assert found["releases"] == [["v1.0.0", 2.5], ["v2.0.0", 7], ["v3.0.0", 11.5]]


def test_tags_of_a_checkout_are_found(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    for number in range(2):
        git(tmp_path, "commit", "-q", "--allow-empty", "-m", str(number))
        git(tmp_path, "tag", f"v0.{number}.0")
    hashes = git(tmp_path, "rev-list", "--reverse", "HEAD").split()
    found = history.branch(tmp_path)
    assert [one.commit for one in found.releases] == hashes
    store = synthetic.Store(
        synthetic.frame([synthetic.row(commit=one) for one in hashes]), synthetic.runs_frame([])
    )
    written = dict(shards.files(Source.of(store, tmp_path), {}))["data/commits.js"]
    assert b'"releases":[["v0.0.0",0],["v0.1.0",1]]' in bytes(written)
