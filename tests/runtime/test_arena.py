"""The order of replays on several streams, with a device that is made up."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from kernl.errors import DeviceError
from kernl.runtime import runner
from kernl.runtime.runner import Arena


class Stream:
    def __init__(self, name: str, stream_id: int, handle: int) -> None:
        self.name, self.stream_id, self.cuda_stream = name, stream_id, handle

    def wait_event(self, event: "Event") -> None:
        event.device.log.append(f"{self.name} waits")


class Event:
    def __init__(self, device: "Device") -> None:
        self.device = device

    def record(self, stream: Stream) -> None:
        self.device.log.append(f"event on {stream.name}")


class Device:
    """A device that says what it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.default = Stream("default", 0, 0)
        self.pool = Stream("pool", 3, 160)
        self.foreign = Stream("foreign", 192, 192)
        self.current = self.default
        self.captured: Stream | None = None
        self.asked = self.default

        def inside(stream: Stream) -> Any:
            self.asked = stream
            return nullcontext()

        cuda: dict[str, Any] = {
            "Event": lambda: Event(self),
            "device": lambda _: nullcontext(),
            "graph_pool_handle": lambda: (0, 1),
            "current_stream": lambda _: self.current,
            "stream": inside,
            "is_current_stream_capturing": lambda: self.asked is self.captured,
        }
        for name, stand_in in cuda.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)
        monkeypatch.setattr(runner, "lent", lambda *_: None)
        monkeypatch.setattr(
            torch._C,
            "_cuda_getCurrentRawStream",
            lambda _: self.current.cuda_stream,
            raising=False,
        )

    def replay(self, arena: Arena, stream: Stream) -> list[str]:
        """What one replay on this stream asks for."""
        self.current = stream
        self.log.clear()
        arena.enter()
        arena.leave()
        return list(self.log)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


def arena() -> Arena:
    return Arena(torch.device("cuda", 0))


def test_one_stream_needs_no_event(made_up: Device) -> None:
    turns = arena()
    assert [made_up.replay(turns, made_up.pool) for _ in range(3)] == [[], [], []]


def test_another_stream_waits_and_events_are_recorded_from_then_on(made_up: Device) -> None:
    turns = arena()
    made_up.replay(turns, made_up.default)
    there = made_up.replay(turns, made_up.pool)
    assert there == ["event on default", "pool waits", "event on pool"]
    assert made_up.replay(turns, made_up.pool) == ["event on pool"]
    assert made_up.replay(turns, made_up.default) == ["default waits", "event on default"]


def test_a_stream_from_elsewhere_may_be_gone_later(made_up: Device) -> None:
    """Nothing is recorded late on it, and its handle proves nothing."""
    turns = arena()
    assert made_up.replay(turns, made_up.foreign) == ["event on foreign"]
    assert made_up.replay(turns, made_up.foreign) == ["foreign waits", "event on foreign"]
    assert made_up.replay(turns, made_up.pool) == ["pool waits", "event on pool"]


def test_a_stream_that_is_being_captured_gets_no_event(made_up: Device) -> None:
    turns = arena()
    made_up.replay(turns, made_up.pool)
    made_up.captured = made_up.pool
    with pytest.raises(DeviceError, match="is being captured"):
        made_up.replay(turns, made_up.default)
    assert made_up.log == []
    made_up.captured = None
    assert made_up.replay(turns, made_up.default)[:2] == ["event on pool", "default waits"]
