"""What changed since the last commit and the last release, and how old the numbers are."""

import math
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from dashboards import pages
from dashboards.data import history
from dashboards.data.history import Branch, Release
from dashboards.data.source import Source
from dashboards.suites import KERNELS, MODELS
from dashboards.tabular import changed
from dashboards.tabular.changed import Change, Count
from tests.dashboards import hostile, synthetic
from tests.dashboards.synthetic import commit_hash, row

HREFS = {"softmax": "op-softmax.html", "bert": "model-bert.html"}
MACHINE = "nvidia-h200"


def at(number: int, kernl: float, eager: float = 4e-6, **fields: object) -> list[dict[str, object]]:
    """A case's rows at a commit: kernl's time, None where it failed, and eager's."""
    date = pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(days=number)
    shared = {"commit": commit_hash(number), "committed_at": date, **fields}
    return [
        row(**{"status": "ok", **shared}, variant="kernl", value=kernl),
        row(**{**shared, "status": "ok", "reason": ""}, variant="eager", value=eager),
    ]


def source(
    *cases: list[dict[str, object]],
    runs: list[dict[str, object]] | None = None,
    branch: Branch | None = None,
) -> Source:
    rows = synthetic.frame([one for case in cases for one in case])
    found = Source.of(synthetic.Store(rows, synthetic.runs_frame(runs or [])))
    return found if branch is None else Source(**{**vars(found), "branch": branch})


def line(count: int, *releases: tuple[str, int]) -> Branch:
    """So many commits in a row, and at which of them a release stands."""
    parents = {commit_hash(n): (commit_hash(n - 1),) if n else () for n in range(count)}
    return Branch(parents, tuple(Release(name, commit_hash(n)) for name, n in releases))


def since(found: Source, suite: str = "kernels") -> tuple[Change, Change]:
    of = {"kernels": KERNELS, "models": MODELS}[suite]
    last, other = changed.changes(found, MACHINE, HREFS, of)
    return last, other


def overview(found: Source) -> str:
    return " ".join(pages.files(found)["index.html"].decode().split())


def test_means_counts_and_largest_changes_by_hand() -> None:
    cases = {"a.fp16": 1.21, "b.fp16": 1.0, "c.fp16": 0.5, "d.fp16": 1.01}
    rows = [at(0, 1e-6, case=case) for case in cases]
    rows += [at(1, ratio * 1e-6, 8e-6, case=case) for case, ratio in cases.items()]
    last, _ = since(source(*rows))
    assert (last.compared, last.measured, last.unlike) == (4, 4, 0)
    mean = (1.21 * 0.5 * 1.01) ** 0.25
    assert last.time == pytest.approx(mean)
    assert last.over_eager == pytest.approx(mean / 2)  # the machine was half as fast
    assert last.counted == Count(slower=1, faster=1)
    assert last.counted_over_eager == Count(slower=0, faster=4)
    shown = [(cells[1].text, cells[2].text, cells[2].tone) for cells in last.table.rows]
    assert shown == [("a.fp16", "+21 %", "worse"), ("c.fp16", "−50 %", "better")]
    assert last.table.rows[0][1].href == "op-softmax.html#case=a.fp16"


def test_each_case_is_held_against_the_latest_commit_that_measured_it() -> None:
    found = source(
        at(0, 9e-6, case="a.fp16"), at(0, 9e-6, case="b.fp16"),
        at(1, 2e-6, case="a.fp16"),
        at(2, 1e-6, case="a.fp16"), at(2, 1e-6, case="b.fp16"), at(2, 1e-6, case="new.fp16"),
    )  # fmt: skip
    last, first = since(found)
    assert {cells[1].text: cells[6].text for cells in last.table.rows} == {
        "a.fp16": commit_hash(1)[:8],
        "b.fp16": commit_hash(0)[:8],
    }
    assert (last.compared, last.measured, last.bases) == (2, 3, 2)
    assert last.base is not None
    assert last.base.id == commit_hash(1)
    assert first.since == "first"
    assert first.base is not None
    assert first.base.id == commit_hash(0)
    assert first.time == pytest.approx(1 / 9)
    page = overview(found)
    assert f"make gate BASE={commit_hash(1)[:8]} HEAD={commit_hash(2)[:8]}" in page
    assert f"make gate BASE={commit_hash(0)[:8]} HEAD={commit_hash(2)[:8]}" in page
    assert "No verdict" in page
    assert "There is no release yet: no tag such as v1.2.3" in page


def test_other_libraries_and_other_versions_are_not_compared() -> None:
    runs: list[dict[str, object]] = [
        {"run": f"r{n}", "machine": MACHINE, "commit": commit_hash(n), "torch": torch}
        for n, torch in enumerate(("2.11", "2.12", "2.12"))
    ]
    found = source(
        at(0, 9e-6, case="a.fp16", run="r0"), at(0, 9e-6, case="old.fp16", run="r0"),
        at(1, 2e-6, case="a.fp16", run="r1"), at(1, 2e-6, case="b.fp16", run="r1", version="0"),
        at(2, 1e-6, case="a.fp16", run="r2"), at(2, 1e-6, case="b.fp16", run="r2"),
        at(2, 1e-6, case="old.fp16", run="r2"),
        runs=runs,
    )  # fmt: skip
    last, first = since(found)
    assert (last.compared, last.unlike) == (1, 2)
    assert last.time == pytest.approx(0.5)
    assert first.repeats  # the first time with today's libraries is the one before
    page = overview(found)
    assert "2 left out, whose libraries or version differ" in page
    assert "nothing was measured before the times above" in page


def test_nothing_comparable_is_said_in_words() -> None:
    page = overview(source(at(0, 1e-6)))
    assert "no case of it was measured at an earlier commit" in page
    assert "make gate BASE" not in page
    page = overview(source(at(0, 1e-6, version="1"), at(1, 1e-6, version="2")))
    assert "what was measured before (1 case) had other libraries" in page
    page = overview(source(at(0, 1e-6, case="a.fp16"), at(1, 1e-6, case="b.fp16")))
    assert "no case of it was measured at an earlier commit" in page
    assert changed.changes(Source.of(synthetic.empty()), MACHINE, HREFS, KERNELS) == ()


def test_what_did_not_change_is_said_too() -> None:
    assert "No case changed by more than 2&nbsp;%." in overview(source(at(0, 1e-6), at(1, 1e-6)))


def test_at_most_ten_each_way_the_worst_first() -> None:
    rows = []
    for number in range(30):
        case = f"rows{number}.fp16"
        rows += [at(0, 1e-6, case=case), at(1, 1e-6 * (0.5 + number / 29), case=case)]
    last, _ = since(source(*rows))
    ratios = [cells[2].value for cells in last.table.rows]
    assert len(ratios) == 2 * changed.MOST
    assert ratios == sorted(ratios, key=lambda ratio: -(ratio or 0))
    assert [cells[2].tone for cells in last.table.rows] == ["worse"] * 10 + ["better"] * 10
    assert ratios[0] == pytest.approx(1.5)
    assert ratios[-1] == pytest.approx(0.5)


def test_a_case_that_broke_is_counted() -> None:
    found = source(
        at(0, 1e-6), at(0, 1e-6, case="b.fp16"),
        at(1, math.nan, status="failed"), at(1, 1e-6, case="b.fp16"),
    )  # fmt: skip
    last, _ = since(found)
    assert (last.broken, last.compared) == (1, 1)
    assert overview(found).count("1 case with a time before failed at") == 1


def test_without_eager_there_is_no_ratio_over_it() -> None:
    rows = [at(n, 1e-6)[:1] for n in range(2)]
    last, _ = since(source(*rows))
    assert last.time == pytest.approx(1.0)
    assert math.isnan(last.over_eager)
    assert last.over_eager_words == "–"


def test_the_last_release_is_the_highest_below_the_newest_commit() -> None:
    cases = [at(n, 1e-6 * (8 - n)) for n in (0, 2, 5)]
    for branch, name, base in (
        (line(6, ("v0.9.0", 0), ("v0.10.0", 3)), "v0.10.0", 2),
        (line(6, ("v0.9.0", 1), ("v0.10.0", 5)), "v0.9.0", 0),  # at the newest: it is that one
    ):
        _, other = since(source(*cases, branch=branch))
        assert (other.since, other.release) == ("release", name)
        assert other.base is not None
        assert other.base.id == commit_hash(base)
    page = overview(source(*cases, branch=line(6, ("v0.9.0", 1))))
    assert "What changed since v0.9.0, the last release" in page
    assert "no release yet" not in page


def test_a_release_before_which_nothing_was_measured() -> None:
    page = overview(source(at(3, 1e-6), at(4, 1e-6), branch=line(5, ("v1.0.0", 1))))
    assert "no case of it was measured up to v1.0.0" in page


def test_models_are_compared_beside_operators() -> None:
    model = {"suite": "models", "op": "bert", "case": "batch1_seq8.fp16"}
    slow, fast = (at(n, 2e-3 / (n + 1), 4e-3, **model) for n in range(2))
    found = source(slow, fast, at(0, 1e-6), at(1, 1e-6))
    last, _ = since(found, "models")
    assert last.time == pytest.approx(0.5)
    assert last.table.headings[0] == "Model"
    assert last.table.headings[4] == "Before, ms"
    assert overview(found).count("What changed since the last commit</h3>") == 2


def git(folder: Path, *words: str) -> str:
    named = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "tag.gpgSign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *named, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    for number in range(4):
        git(tmp_path, "commit", "-q", "--allow-empty", "--no-gpg-sign", "-m", f"commit {number}")
    return tmp_path


def test_releases_are_read_from_the_tags_of_the_branch(checkout: Path) -> None:
    git(checkout, "tag", "v0.10.0", "HEAD~1")
    git(checkout, "tag", "-a", "-m", "annotated", "v0.9.0", "HEAD~2")
    hostile_names = ("v1.2.3<img/src=x>", "v1.2.3\u202e", "v1.2", "1.2.3", "v1.2.3-rc1", "v١.٢.٣")
    for name in hostile_names:
        git(checkout, "tag", name)
    git(checkout, "checkout", "-q", "-b", "other", "HEAD~3")
    git(checkout, "commit", "-q", "--allow-empty", "--no-gpg-sign", "-m", "elsewhere")
    elsewhere = git(checkout, "rev-parse", "HEAD")
    git(checkout, "tag", "v9.9.9")
    git(checkout, "checkout", "-q", "-")
    found = history.branch(checkout)
    assert [one.name for one in found.releases] == ["v0.9.0", "v0.10.0"]
    newest = git(checkout, "rev-parse", "HEAD")
    last = found.last_release(newest)
    assert last is not None
    assert last.name == "v0.10.0"
    assert found.last_release(git(checkout, "rev-parse", "HEAD~2")) is None
    for commit in git(checkout, "rev-list", "HEAD").split():
        count = git(checkout, "rev-list", "--count", f"{commit}..HEAD")
        assert found.newer(commit) == int(count)
    assert found.newer(elsewhere) is None
    assert found.newer("--all") is None


def test_commits_newer_than_a_merged_one_are_counted_as_git_does(checkout: Path) -> None:
    git(checkout, "checkout", "-q", "-b", "side", "HEAD~2")
    git(checkout, "commit", "-q", "--allow-empty", "--no-gpg-sign", "-m", "side")
    git(checkout, "checkout", "-q", "-")
    git(checkout, "merge", "-q", "--no-ff", "--no-gpg-sign", "-m", "both", "side")
    found = history.branch(checkout)
    for commit in git(checkout, "rev-list", "HEAD").split():
        count = git(checkout, "rev-list", "--count", f"{commit}..HEAD")
        assert found.newer(commit) == int(count)


def test_without_git_there_is_no_branch(tmp_path: Path) -> None:
    assert history.branch(tmp_path / "nowhere") == Branch()
    assert history.branch(None) == Branch()


@pytest.mark.parametrize("attack", hostile.ATTACKS)
def test_a_hostile_release_is_shown_as_text(attack: str) -> None:
    rows = [
        one
        for number in range(3)
        for one in at(number, 1e-6 * (number + 1), op=attack, case=attack)
    ]
    page = overview(source(rows, branch=line(3, (attack, 1))))
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "x" * 500 not in page
    assert not re.search(r"[\u202d\u2028\u2029]", page)


def test_the_order_of_rows_does_not_change_the_overview() -> None:
    rows = [one for n in range(4) for c in "abc" for one in at(n, 1e-6 * (n + 2), case=f"{c}.fp16")]
    branch = line(4, ("v1.0.0", 1))
    pages_of = {overview(source(of, branch=branch)) for of in (rows, rows[::-1], sorted(
        rows, key=lambda one: (str(one["case"]), str(one["commit"]))))}  # fmt: skip
    assert len(pages_of) == 1


def test_freshness_is_held_against_the_newest_commit_of_the_site() -> None:
    compiled = {"suite": "codegen", "metric": "spills", "machine": "compile-only"}
    found = source(
        at(0, 1e-6, machine="old"),
        at(12, 1e-6), at(12, 1e-6, case="b.fp16"), at(12, math.nan, case="c.fp16", status="failed"),
        [row(**compiled, commit=commit_hash(14), committed_at=pd.Timestamp("2026-01-15", tz="UTC"),
             variant="sm_90", value=0.0)],
        branch=line(60),
    )  # fmt: skip
    fresh = changed.freshness(found)
    shown = {cells[0].text: tuple(cell.text for cell in cells[3:]) for cells in fresh.table.rows}
    assert shown == {
        "compile-only": ("2026-01-15", "45", "0", "1"),
        "nvidia-h200": ("2026-01-13", "47", "2", "2"),
        "old": ("2026-01-01", "59", "14", "1"),
    }
    assert fresh.stale == {("kernels", "old"): "are 59 commits and 14 days behind"}
    page = overview(found)
    assert "The times of operators on old are 59 commits and 14 days behind." in page
    assert page.count("are 59 commits and 14 days behind") == 2  # in the machine's own part too


def test_freshness_where_git_knows_nothing() -> None:
    (cells,) = changed.freshness(source(at(0, 1e-6))).table.rows
    assert (cells[4].text, cells[4].value) == ("", None)
    assert cells[5].text == "0"
    undated = at(0, 1e-6, committed_at=pd.NaT)
    (cells,) = changed.freshness(source(undated)).table.rows
    assert cells[5].text == ""
    assert "How old the numbers are" not in overview(Source.of(synthetic.empty()))
