"""Several processes make a site: each part once, and all of it or none."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from dashboards import build
from dashboards.data.source import Source
from dashboards.pages import Part
from tests.dashboards import synthetic
from tests.dashboards.test_build import snapshot


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Says how many processes make even a small site."""

    def set_count(count: int) -> None:
        monkeypatch.setattr(build, "_LARGE", 0)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)))

    return set_count


def small(commits: int = 2) -> Source:
    return Source.of(synthetic.store(ops=("softmax", "linear"), count=3, commits=commits))


@pytest.mark.parametrize("count", [2, 3, 9])
def test_several_processes_make_what_one_makes(
    tmp_path: Path, several: Callable[[int], None], count: int
) -> None:
    build.build(small(), tmp_path / "one")
    several(count)
    build.build(small(), tmp_path / "several")
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "several")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "several"]


def part(number: int) -> Iterator[tuple[str, bytes]]:
    yield f"part-{number}", f"{os.getpid()}".encode()


@pytest.mark.parametrize("parts", [0, 1, 7, 1000])
def test_each_part_is_made_once(tmp_path: Path, parts: int) -> None:
    """There may be more than a byte has values."""
    made: list[Part] = [partial(part, number) for number in range(parts)]
    said = tmp_path / "said"

    def counted(one: Part) -> Iterator[tuple[str, bytes]]:
        with said.open("ab") as file:
            file.write(b".")
        yield from one()

    build.write([("own", b"x")], tmp_path / "site", [partial(counted, one) for one in made], 3)
    found = snapshot(tmp_path / "site")
    assert set(found) == {"own", build.MARK, *(f"part-{number}" for number in range(parts))}
    assert (said.stat().st_size if parts else 0) == parts


def until(there: Path) -> bool:
    """Whether a file is there within ten seconds."""
    ends = time.monotonic() + 10
    while not there.exists() and time.monotonic() < ends:
        time.sleep(0.005)
    return there.exists()


def test_another_process_takes_what_this_one_has_not_begun(tmp_path: Path) -> None:
    """While one is at a long part, the other makes the rest."""
    done = tmp_path / "done"

    def long() -> Iterator[tuple[str, bytes]]:
        yield "long", f"{os.getpid()} {until(done)}".encode()

    def last() -> Iterator[tuple[str, bytes]]:
        done.touch()
        yield "last", f"{os.getpid()}".encode()

    build.write([], tmp_path / "site", [long, partial(part, 1), last], 2)
    found = snapshot(tmp_path / "site")
    own, seen = found["long"].split()
    assert seen == b"True"
    assert found["last"] == found["part-1"] != own


def no_space() -> None:
    raise OSError("no space left on device")


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("act", [no_space, killed])
def test_a_failure_of_another_process_leaves_the_old_site(
    tmp_path: Path, act: Callable[[], None]
) -> None:
    site, met = tmp_path / "site", tmp_path / "met"
    build.build(small(), site)
    before, here = snapshot(site), os.getpid()

    def failing_elsewhere() -> Iterator[tuple[str, bytes]]:
        if os.getpid() != here:
            met.touch()
            act()
        yield "page", f"{until(met)}".encode()

    with pytest.raises(build.BuildError, match="part of the site failed; see above"):
        build.write([], site, [failing_elsewhere] * 2, 2)
    assert met.exists()
    assert snapshot(site) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["met", "site"]


def test_a_failure_of_this_process_ends_the_others(tmp_path: Path) -> None:
    site, met = tmp_path / "site", tmp_path / "met"
    build.build(small(), site)
    before, here = snapshot(site), os.getpid()

    def failing_here() -> Iterator[tuple[str, bytes]]:
        if os.getpid() == here:
            assert until(met)
            no_space()
        met.write_text(f"{os.getpid()}")
        time.sleep(600)
        yield "page", b""

    with pytest.raises(OSError, match="no space left"):
        build.write([], site, [failing_here] * 2, 2)
    with pytest.raises(ProcessLookupError):
        os.kill(int(met.read_text()), 0)
    assert snapshot(site) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["met", "site"]


def test_a_build_imports_no_more_than_it_needs() -> None:
    """These take longer to import than all that the command does need."""
    asked = "import sys, dashboards.build; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=60
    )
    unwanted = {"scipy.stats", "ruptures", "plotly.graph_objs", "torch", "matplotlib"}
    assert not unwanted & set(done.stdout.split())
