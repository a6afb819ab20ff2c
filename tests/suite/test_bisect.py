"""Which commit made a case slower: the search, the commits that count, and the whole of it."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gate import bisect as module
from benchmarks.gate.bisect import NothingToFind, bisect, changing, first_slow
from benchmarks.gate.command import main
from benchmarks.measure.pairs import Asked, Plan, Write
from tests.suite.pair_records import calm, failed, pair, run

COMMITS = [f"c{number}" for number in range(12)]
CASE = ("softmax", "rows1_cols1.fp16")


@pytest.mark.parametrize("culprit", range(12))
def test_the_commit_is_found_in_few_steps(culprit: int) -> None:
    asked: list[str] = []

    def slower(commit: str) -> float:
        asked.append(commit)
        # Others before it make it slower and faster by less.
        return 0.05 if COMMITS.index(commit) >= culprit else 0.01 * (-1) ** len(asked)

    assert first_slow(COMMITS, 0.05, slower) == [COMMITS[culprit]]
    assert len(asked) <= 4
    assert len(set(asked)) == len(asked)


@pytest.mark.parametrize(
    ("silent", "found"), [({5}, ["c5", "c6"]), ({6, 7}, ["c6", "c7", "c8"]), ({1}, ["c6"])]
)
def test_where_a_commit_cannot_be_timed_its_neighbour_is(
    silent: set[int], found: list[str]
) -> None:
    def slower(commit: str) -> float | None:
        place = COMMITS.index(commit)
        return None if place in silent else 0.05 * (place >= 6)

    assert first_slow(COMMITS, 0.05, slower) == found


def test_one_commit_needs_no_step() -> None:
    assert first_slow(["c0"], 0.05, lambda _: pytest.fail("timed")) == ["c0"]


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, list[str]]:
    """Five commits: two of them change softmax, one another operator, one a comment of it."""
    ops = tmp_path / "kernl" / "ops"
    ops.mkdir(parents=True)
    commits = []
    for number, (name, text) in enumerate(
        [
            ("softmax.py", 'SOFTMAX = "softmax"\nBLOCK = 1\n'),
            ("softmax.py", 'SOFTMAX = "softmax"\nBLOCK = 2\n'),
            ("rotary.py", 'ROTARY = "rotary"\n'),
            ("softmax.py", 'SOFTMAX = "softmax"\nBLOCK = 2  # wider\n'),
            ("softmax.py", 'SOFTMAX = "softmax"\nBLOCK = 3\n'),
        ]
    ):
        (ops / name).write_text(text)
        if not number:
            (ops / "__init__.py").write_text("from kernl.ops.softmax import SOFTMAX\n")
            _git(tmp_path, "init", "-q")
        _git(tmp_path, "add", "-A")
        _git(tmp_path, "commit", "-qm", f"commit {number}")
        commits.append(_git(tmp_path, "rev-parse", "HEAD"))
    return tmp_path, commits


def _git(root: Path, *words: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run(
        ["git", "-C", str(root), *who, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_only_commits_that_can_have_changed_it_count(repository: tuple[Path, list[str]]) -> None:
    root, commits = repository
    assert changing("softmax", commits[0], commits[4], root) == [commits[1], commits[4]]
    assert changing("softmax", commits[1], commits[3], root) == []


class Stand:
    """A history in which some commit makes the case slower, and another cannot be timed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, culprit: int, effect: float) -> None:
        self.timed: list[str] = []
        self.left = 0
        stand = self

        class FakeBench:
            def __init__(self, base: str, head: str) -> None:
                self.base, self.head = base, head

            @classmethod
            def of(cls, base: str, head: str, device: str) -> "FakeBench":
                return cls(base, head)

            def __enter__(self) -> "FakeBench":
                return self

            def __exit__(self, *_: object) -> None:
                stand.left += 1

            def measure(self, asked: Sequence[Asked], plan: Plan, write: Write) -> None:
                stand.timed.append(self.head)
                assert plan.control == 0.0
                write(run())
                for session in range(plan.sessions):
                    write(stand.record(session, self.head, culprit, effect))

        monkeypatch.setattr(module, "TwoCommits", FakeBench)
        monkeypatch.setattr(module, "changing", lambda *_: COMMITS)

    def record(self, session: int, head: str, culprit: int, effect: float) -> dict[str, Any]:
        if head == "c4":
            return failed(session, "ok", "skipped", "head: this commit has no op")
        slow = COMMITS.index(head) >= culprit
        return pair(session, effect * slow + 0.001 * (-1) ** session)


def found(stand: Stand, said: list[str]) -> module.Found:
    return bisect(" ".join(CASE), "good", "c11", calm(names=[CASE[1]]), "cuda", said.append)


def test_a_slowdown_is_found_by_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    stand, said = Stand(monkeypatch, culprit=7, effect=0.04), list[str]()
    result = found(stand, said)
    assert result.commits == ["c7"]
    assert result.effect == pytest.approx(0.04, abs=0.002)
    assert stand.timed[0] == "c11"
    assert len(stand.timed) <= 6
    assert said[0] == "c11 is 4.0 % slower than good"


def test_a_commit_that_cannot_be_timed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stand, said = Stand(monkeypatch, culprit=4, effect=0.04), list[str]()
    assert found(stand, said).commits == ["c4", "c5"]
    assert any(line.startswith("c4 cannot be timed: 0 sessions") for line in said)


@pytest.mark.parametrize("effect", [0.0, 0.01, -0.05])
def test_without_a_slowdown_there_is_nothing_to_find(
    effect: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Stand(monkeypatch, culprit=3, effect=effect)
    with pytest.raises(NothingToFind, match="noise may be as well"):
        found(stand, [])
    assert stand.timed == ["c11"]


def test_a_case_that_is_none_is_told() -> None:
    with pytest.raises(NothingToFind, match=r"'softmax' is no case: give an operator and one"):
        bisect("softmax", "HEAD", "HEAD", calm(), "cpu", lambda _: None)


def test_the_command_names_the_commit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Stand(monkeypatch, culprit=7, effect=0.04)
    asked = ["--bisect", " ".join(CASE), "good", "c11", "--device", "cpu"]
    assert main(asked) == 0
    *_, subject, commit = capsys.readouterr().out.splitlines()
    assert subject == "softmax rows1_cols1.fp16: +4 %"
    assert commit == "c7"


def test_the_command_says_that_it_needs_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.measure.device.gpu", lambda: None)
    assert main(["--bisect", " ".join(CASE), "HEAD", "HEAD"]) == 2
    assert capsys.readouterr().err == "gate: --bisect needs an NVIDIA GPU, and none answers here\n"
