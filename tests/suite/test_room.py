"""Who begins a case on a shared device waits until there is memory for it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import torch

from benchmarks.measure import laboratory
from benchmarks.measure.laboratory import Laboratory
from benchmarks.measure.room import Room
from benchmarks.measure.telemetry import Telemetry

GIB = 1 << 30


class Device:
    """80 GiB, of which `free` are free."""

    def __init__(self, free: int) -> None:
        self.free = free

    def __call__(self) -> tuple[int, int]:
        return self.free, 80 * GIB


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _begins(room: Room, need: int, *, long: bool = False) -> bool:
    """Whether such a case begins at once."""
    asked = 0

    def impatient() -> bool:
        nonlocal asked
        asked += 1
        return asked > 1

    with room.place(need, long=long, unless=impatient):
        return asked == 1


def _never() -> bool:
    return False


def test_alone_a_case_begins_whatever_is_free() -> None:
    room = Room(Device(0))
    assert _begins(room, 70 * GIB)
    assert _begins(room, 70 * GIB, long=True)


def test_what_others_may_still_take_is_not_free(held: ExitStack) -> None:
    room = Room(Device(10 * GIB))
    held.enter_context(room.place(4 * GIB, long=False, unless=_never))
    assert _begins(room, 8 * GIB)  # half of the other's is taken already, as a rule
    assert not _begins(room, 9 * GIB)


def test_long_cases_share_out_the_memory_and_wait_for_no_short_one(held: ExitStack) -> None:
    room = Room(Device(0))
    held.enter_context(room.place(70 * GIB, long=False, unless=_never))
    for _ in range(6):
        assert _begins(room, 10 * GIB, long=True)
        held.enter_context(room.place(10 * GIB, long=True, unless=_never))
    assert not _begins(room, 10 * GIB, long=True)


def test_beside_long_cases_some_memory_stays_free(held: ExitStack) -> None:
    device = Device(9 * GIB)
    room = Room(device)
    held.enter_context(room.place(10 * GIB, long=True, unless=_never))
    assert not _begins(room, 2 * GIB)  # 8 of 80 GiB stay
    device.free = 10 * GIB
    assert _begins(room, 2 * GIB)


def test_where_nobody_says_what_is_free_nobody_waits(held: ExitStack) -> None:
    room = Room(lambda: None)
    held.enter_context(room.place(70 * GIB, long=False, unless=_never))
    assert _begins(room, 70 * GIB)


@pytest.mark.parametrize("how", ["memory is given back", "a case ends"])
def test_who_waits_begins_once_there_is_room(how: str) -> None:
    device = Device(1 * GIB)
    room = Room(device)
    order: list[str] = []

    def work() -> None:
        with room.place(8 * GIB, long=False, unless=_never):
            order.append("begun")

    with ExitStack() as first:
        first.enter_context(room.place(1, long=False, unless=_never))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(0.3)
        assert order == []
        if how == "memory is given back":
            device.free = 40 * GIB
        else:
            first.close()
        thread.join(5)
        assert order == ["begun"]
    assert room.waited_s >= 0.25


def test_a_case_that_raises_leaves_its_place() -> None:
    room = Room(Device(0))
    with pytest.raises(ValueError, match="odd"), room.place(1, long=False, unless=_never):
        raise ValueError("odd")
    assert _begins(room, 70 * GIB)


class _Nvml:
    """NVML of a device with so much memory, which may not answer."""

    def __init__(self, answers: bool) -> None:
        self._answers = answers

    def __getattr__(self, name: str) -> Callable[..., object]:
        def call(*_: object) -> object:
            if name == "nvmlDeviceGetMemoryInfo":
                if not self._answers:
                    raise RuntimeError("not supported")
                return type("Info", (), {"free": 3, "total": 80})()
            return 0

        return call


def test_nvml_says_what_is_free() -> None:
    assert Telemetry("GPU-1", _Nvml(answers=True)).memory() == (3, 80)
    assert Telemetry("GPU-1", _Nvml(answers=False)).memory() is None


def test_workspaces_go_after_a_case_and_not_while_its_graphs_are_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A graph writes to the workspace that it was captured with: only what ends a case clears."""
    done: list[str] = []
    name = "_cuda_clearCublasWorkspaces"  # a build without CUDA has none
    monkeypatch.setattr(torch._C, name, lambda: done.append("workspaces"), raising=False)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("cache"))
    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.zeros(2) + 1)
    lab = Laboratory("cuda")
    laboratory.require_device(lab, "a check failed")
    laboratory.free(lab)
    assert done == ["cache", "cache"]
    laboratory.clear(lab)
    assert done[2:] == ["workspaces", "cache"]
    laboratory.clear(Laboratory("cpu"))
    assert len(done) == 4
