"""Whole models take turns in rounds: who is called when, how often, and which attempt is kept."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from benchmarks.measure import model_measurement, timing
from benchmarks.measure.laboratory import Laboratory, Task
from benchmarks.measure.model_calls import Running
from benchmarks.measure.model_check import Yardstick
from benchmarks.measure.telemetry import Telemetry
from benchmarks.model import Sample


def task(names: tuple[str, ...], samples: int = 3, budget_s: float = 0.1) -> Task:
    dims = {"batch": 2, "seq": 16, "ragged": False}
    return Task(
        "distilbert", "batch2_seq16.fp16", dims, "fp16", 1, names, samples, budget_s, seed=11
    )


def test_turns_are_timed_from_a_quiet_device_to_a_quiet_device() -> None:
    """A fake clock that only calls and waiting move: 3 s for A, 5 s for B, wherever they wait."""
    now, pending = 0.0, 0.0
    heard: list[str] = []

    def call(name: str, seconds: float) -> Callable[[int], None]:
        def run(number: int) -> None:
            nonlocal now, pending
            heard.append(f"{name}{number}")
            now += 0.25  # the host's part
            pending += seconds - 0.25

        return run

    def synchronize() -> None:
        nonlocal now, pending
        now, pending = now + pending, 0.0

    def rest() -> None:
        nonlocal now
        now += 100.0
        heard.append("rest")

    host: list[tuple[str, float]] = []
    taken = timing.take_turns(
        {"a": call("a", 3.0), "b": call("b", 5.0)},
        3,
        seed=0,
        lead_in=True,
        synchronize=synchronize,
        between=rest,
        returned=lambda *told: host.append(told),
        clock=lambda: now,
    )
    assert taken == {"a": (3.0, 3.0, 3.0), "b": (5.0, 5.0, 5.0)}
    assert host == [(name, 0.25) for name in _order(heard)]
    assert heard.count("rest") == 3
    first = heard[: heard.index("rest")]
    assert sorted(first) == ["a0", "a1", "b0", "b1"]  # the lead-in gets other inputs
    assert heard[-1] == "rest"


def _order(heard: list[str]) -> list[str]:
    """Who was timed, in order: each is called twice in a row, and the second call counts."""
    return [one[0] for one in heard if one != "rest"][1::2]


def test_some_are_called_in_one_round_of_three() -> None:
    heard: list[str] = []

    def call(name: str, number: int) -> None:
        heard.append(f"{name}{number}")

    calls = {name: partial(call, name) for name in "abc"}
    taken = timing.take_turns(calls, 7, seed=0, seldom={"a", "unknown"})
    assert {name: len(seconds) for name, seconds in taken.items()} == {"a": 3, "b": 7, "c": 7}
    assert [one for one in heard if one[0] == "a"] == ["a0", "a3", "a6"]


def test_calls_by_the_host_count_a_third_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, Any]] = []

    def take_turns(calls: Any, rounds: int, **rest: Any) -> dict[str, tuple[float, ...]]:
        asked.append((rounds, rest["seldom"]))
        return {name: (0.003 if name == "eager" else 0.001,) * rounds for name in calls}

    monkeypatch.setattr(timing, "take_turns", take_turns)
    monkeypatch.setattr(model_measurement, "synchronize", lambda _: None)
    running = {name: Running(lambda sample: sample.half["x"]) for name in ("eager", "kernl")}
    case = task(tuple(running), samples=10, budget_s=0.2)
    lab = Laboratory("a device", telemetry=Telemetry(""))
    model_measurement._time(case, running, [Sample({"x": torch.ones(1)}, {}, None)], lab)
    assert [rounds for rounds, _ in asked] == [2, 50]  # of 2 × (1 + 3 / 3) ms, with lead-in
    assert all("eager" in seldom and "kernl" not in seldom for _, seldom in asked)


def test_noisy_samples_are_taken_again_and_the_calmer_attempt_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calm, drifting = (1.0,) * 20, (1.0,) * 10 + (2.0,) * 10
    clocks = iter(range(10))
    attempts: list[dict[str, tuple[float, ...]]] = []
    seeds: list[int] = []

    class Readings(Telemetry):
        def summary(self) -> dict[str, Any]:
            return {"attempt": next(clocks)}

    def take_turns(calls: Any, rounds: int, seed: int, **_: object) -> dict[str, tuple[float, ...]]:
        if rounds == 2:  # the trial
            return dict.fromkeys(calls, (1.0, 1.0))
        seeds.append(seed)
        return attempts[len(seeds) - 1]

    monkeypatch.setattr(timing, "take_turns", take_turns)
    monkeypatch.setattr(model_measurement, "synchronize", lambda _: None)
    lab = Laboratory("a device", telemetry=Readings(""))
    running = {name: Running(lambda sample: sample.half["x"]) for name in ("eager", "kernl")}
    sample = Sample({"x": torch.ones(1)}, {}, None)

    def time() -> tuple[Any, dict[str, Any]]:
        seeds.clear()
        found = model_measurement._time(task(tuple(running)), running, [sample], lab)
        return found.seconds, found.telemetry

    attempts[:] = [{"eager": calm, "kernl": calm}]
    assert time() == (attempts[0], {"attempt": 0})
    attempts[:] = [{"eager": drifting, "kernl": drifting}, {"eager": drifting, "kernl": calm}]
    assert time() == (attempts[1], {"attempt": 2})
    assert seeds[0] != seeds[1]
    attempts[:] = [{"eager": calm, "kernl": drifting}, {"eager": drifting, "kernl": drifting}]
    assert time() == (attempts[0], {"attempt": 3})
    attempts[:] = [{"eager": drifting, "kernl": calm}]  # the host's noise would be there again
    assert time() == (attempts[0], {"attempt": 5})

    yard = Yardstick([], [], 1e-4, 0)
    monkeypatch.setattr(Yardstick, "judge", lambda *_: (1e-4, ""))
    marked = model_measurement._judged(
        "eager", running["eager"], model_measurement._Taken({"eager": drifting}), yard, lab
    )
    assert (marked["status"], marked["reason"]) == (
        "ok",
        "noisy: the second half of the samples takes +100%",
    )
