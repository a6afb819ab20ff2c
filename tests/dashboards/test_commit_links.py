"""Links from commits to the host of the repository, which a build is told or not."""

import re
from pathlib import Path

import pytest

from dashboards import build, pages
from dashboards.data.source import Source
from dashboards.tabular import regressions
from dashboards.tabular.commit_links import CommitLinks
from tests.dashboards import synthetic
from tests.dashboards.synthetic import commit_hash
from tests.dashboards.test_build import write_asv
from tests.dashboards.test_regressions import STEP, measured, source

BASE = "https://host.example/me/kernl/commit/"
A, B = commit_hash(0), commit_hash(1)


def site(found: Source, address: str = "") -> dict[str, str]:
    links = CommitLinks.below(address) if address else CommitLinks()
    made = pages.Site.of(found, links=links)
    made.add_overview()
    made.add_regressions()
    for op in found.ops():
        made.add_operator(op)
    return {name: content.decode() for name, content in made.files.items()}


def test_addresses_of_commits_and_of_what_lies_between_two() -> None:
    links = CommitLinks.below(BASE.removesuffix("/"))
    assert links == CommitLinks.below(BASE)
    assert links.of(A) == BASE + A
    assert links.between(A, B) == f"https://host.example/me/kernl/compare/{A}...{B}"
    lab = CommitLinks.below("https://lab.example/me/kernl/-/commit/")
    assert lab.between(A, B) == f"https://lab.example/me/kernl/-/compare/{A}...{B}"


def test_a_host_of_another_form_shows_commits_alone() -> None:
    for address in ("https://host.example/me/commits/", "https://git.example/kernl/commit/?id="):
        links = CommitLinks.below(address)
        assert links.of(A) == address + A
        assert not links.compares
        assert links.between(A, B) == ""


@pytest.mark.parametrize("commit", ["", "abc", "../../evil", 'x"onclick=', "A" * 40, A + "\n"])
def test_what_is_no_hash_is_no_link(commit: str) -> None:
    assert CommitLinks.below(BASE).of(commit) == ""
    assert CommitLinks.below(BASE).between(A, commit) == ""
    assert CommitLinks().of(A) == ""


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)//", "ftp://host/commit/", "data:text/html,x", "host/commit/", "",
        "https:///commit/", "https://host/a b/", 'https://host/"/', "https://me:key@host/commit/",
        "https://host/#", "https://host/\n", "file:///tmp/",
    ],
)  # fmt: skip
def test_the_command_refuses_what_is_no_address(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, output = tmp_path / "results", tmp_path / "site"
    results.mkdir()
    given = ["--results", str(results), "--output", str(output), f"--commits={address}"]
    assert build.main(given) == 2
    assert "not built: --commits: " in capsys.readouterr().err
    assert not output.exists()


def test_the_command_passes_the_address_on(tmp_path: Path) -> None:
    results, output = tmp_path / "results", tmp_path / "site"
    write_asv(synthetic.store(ops=("softmax",), count=2, commits=2), results)
    given = ["--results", str(results), "--output", str(output)]
    assert build.main([*given, "--commits", BASE]) == 0
    assert f'href="{BASE}{B}"' in (output / "regressions.html").read_text()
    assert build.main(given) == 0
    for page in ("regressions.html", "index.html"):
        assert "host.example" not in (output / page).read_text()


def test_moves_lead_to_their_commit_and_to_what_lies_between() -> None:
    found = source(*measured(STEP))
    page = site(found, BASE)["regressions.html"]
    before, by = commit_hash(5), commit_hash(6)
    assert f'<a href="{BASE}{by}" rel="noopener">{by[:8]}</a>' in page
    between = f"https://host.example/me/kernl/compare/{before}...{by}"
    assert f'<a href="{between}" rel="noopener">{before[:8]}…{by[:8]}</a>' in page
    assert "Commits between" not in site(found)["regressions.html"]
    assert "Commits between" not in site(found, "https://host.example/c/")["regressions.html"]


def test_the_commit_before_a_move_measured_that_case_alike() -> None:
    """At the commit before, another version of the case was measured, and before that another."""
    rows = measured(STEP)
    other = [{**one, "version": "0"} for one in rows if one["commit"] == commit_hash(5)]
    kept = [one for one in rows if one["commit"] != commit_hash(5)]
    late = measured(STEP, case="rows4_cols4.fp16")  # which that commit measured
    found = source(*kept, *other, *late)
    moves = regressions.find(found).open
    before = dict(
        zip((one.key.case for one in moves), regressions.last_before(found, moves), strict=True)
    )
    assert before == {"rows8_cols8.fp16": commit_hash(4), "rows4_cols4.fp16": commit_hash(5)}


def test_hashes_on_the_pages_are_links() -> None:
    """No short hash of a measured commit stands beside a link, but in words and in commands."""
    found = source(*measured(STEP))
    made = site(found, BASE)
    for name in ("regressions.html", "index.html", "losses.html", "op-softmax.html"):
        page = made[name]
        linked = re.findall(rf'<a href="{BASE}([0-9a-f]{{40}})" rel="noopener">(.*?)</a>', page)
        assert linked, name
        assert all(full[:8] in shown for full, shown in linked)
        assert all(full in {one.id for one in found.commits} for full, _ in linked)
    heads = re.findall(
        r'<th scope="col" class="number" title[^>]*>(.*?)</th>', made["regressions.html"]
    )
    assert len(heads) == 12
    assert all(head.startswith(f'<a href="{BASE}') for head in heads)
