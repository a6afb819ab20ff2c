"""What the host computes beside a timing, from counters that a test writes."""

from pathlib import Path

import pytest

from benchmarks.measure.host_load import HostLoad

TICKS_PER_S = 100


class Host:
    """A host of a given history, and a clock."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stat, self.now, self.own = directory / "stat", 0.0, 0.0
        monkeypatch.setattr("os.sysconf", lambda _: TICKS_PER_S)
        self.tell(busy=50.0, stolen=1.0)
        self.load = HostLoad(self.stat, lambda: self.now, lambda: self.own)

    def tell(self, busy: float, stolen: float) -> None:
        user, system = int(0.75 * busy * TICKS_PER_S), int(0.25 * busy * TICKS_PER_S)
        ticks = [user, 0, system, 12345, 678, 0, 0, int(stolen * TICKS_PER_S), 0, 0]
        self.stat.write_text(f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3\n")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_cores_of_other_processes_are_counted_and_one_s_own_is_not(host: Host) -> None:
    host.now, host.own = 2.0, 2.0
    host.tell(busy=58.0, stolen=2.0)
    assert host.load.summary() == {"host_cores_busy": 3.0, "host_cores_stolen": 0.5}
    host.load.clear()
    host.now, host.own = 4.0, 4.5
    host.tell(busy=60.0, stolen=2.0)  # ticks are coarser than a process's own clock
    assert host.load.summary() == {"host_cores_busy": 0.0, "host_cores_stolen": 0.0}


@pytest.mark.parametrize("text", ["", "cpu one two", "cpu 1 2 3", "mem 1 2 3 4 5 6 7 8\n"])
def test_nothing_is_said_where_linux_tells_nothing(host: Host, text: str) -> None:
    host.now = 1.0
    host.stat.write_text(text)
    assert host.load.summary() == {}
    host.load.clear()
    host.tell(busy=60.0, stolen=2.0)
    host.now = 2.0
    assert host.load.summary() == {}
    host.stat.unlink()
    host.load.clear()
    assert host.load.summary() == {}


def test_no_time_has_gone_by(host: Host) -> None:
    assert host.load.summary() == {}


def test_the_real_host_tells_something_or_nothing() -> None:
    load = HostLoad()
    sum(number * number for number in range(1_000_000))
    assert all(value >= 0 for value in load.summary().values())
