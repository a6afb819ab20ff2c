"""What is timed, in which order, and what is refused; CUDA is a fake clock here."""

import statistics
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measure import accuracy, graphs, timing
from benchmarks.measure.telemetry import Telemetry
from benchmarks.measure.timing import Ceilings

H200 = Ceilings(4.0e12, {"fp16": 800e12, "bf16": 800e12, "fp32": 400e12})


@pytest.mark.parametrize(
    ("set_bytes", "budget", "sets"),
    [(1, 1 << 30, 64), (1 << 30, 8 << 30, 8), (1 << 30, 1 << 20, 2), (0, 1 << 30, 64), (16, 96, 6)],
)
def test_as_many_input_sets_as_memory_allows(set_bytes: int, budget: int, sets: int) -> None:
    assert timing.choose_sets(set_bytes, budget) == sets


@pytest.mark.parametrize(
    ("round_s", "least", "budget", "rounds"),
    [(0.01, 30, 0.5, 50), (1.0, 30, 0.5, 30), (1e-6, 30, 0.5, 100), (0.0, 5, 0.5, 100)],
)
def test_more_rounds_for_short_ones(round_s: float, least: int, budget: float, rounds: int) -> None:
    assert timing.choose_rounds(round_s, least, budget) == rounds


@pytest.mark.parametrize(
    ("call_s", "sets", "calls"),
    [
        (3e-6, 64, 64),
        (2.5e-5, 64, 32),
        (2.6e-5, 64, 32),
        (3.2e-5, 64, 16),
        (9e-4, 64, 2),
        (1.0, 64, 2),
        (1.0, 1, 1),
        (0.0, 9, 9),
    ],
)
def test_a_graph_takes_half_a_millisecond_where_sets_suffice(
    call_s: float, sets: int, calls: int
) -> None:
    assert timing.choose_calls(call_s, sets) == calls


def test_noise_is_said_in_words_and_steady_samples_are_believed() -> None:
    steady = [1.0 + 0.01 * (number % 5) for number in range(30)]
    assert timing.noise(steady) == ""
    assert timing.noise([*steady, 50.0]) == ""  # an outlier is what a median is for
    drifted = [*steady, *(1.1 * sample for sample in steady)]
    assert timing.noise(drifted) == "noisy: the second half of the samples takes +10%"
    wide = [1.0, 1.2, 1.4, 1.6, 1.8] * 6
    assert timing.noise(wide).startswith("noisy: the samples spread over ")
    assert timing.noise(drifted[:1] * 9) == ""  # too few to say


@given(st.integers(1, 6), st.integers(1, 40), st.integers())
def test_every_round_has_every_implementation_once_and_places_are_shared(
    count: int, rounds: int, seed: int
) -> None:
    names = [f"i{number}" for number in range(count)]
    orders = list(timing.interleaved(names, rounds, seed))
    assert len(orders) == rounds
    assert all(sorted(order) == names for order in orders)
    whole = orders[: rounds - rounds % count]
    for place in range(count):
        held = Counter(order[place] for order in whole)
        assert set(held.values()) <= {rounds // count}


def test_the_order_is_seeded_and_not_always_the_same_neighbours() -> None:
    first, again, other = (list(timing.interleaved("ABC", 60, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len(set(first)) == 6  # both cyclic orders, in all their rotations


@given(st.lists(st.floats(1e-9, 1e3), min_size=2, max_size=30))
def test_percentiles_agree_with_the_standard_library(samples: list[float]) -> None:
    deciles = statistics.quantiles(samples, n=10, method="inclusive")
    assert timing.percentile(samples, 0.2) == pytest.approx(deciles[1])
    assert timing.percentile(samples, 0.8) == pytest.approx(deciles[7])
    assert timing.median(samples) == pytest.approx(statistics.median(samples))
    assert timing.percentile(samples, 0.0) == min(samples)
    assert timing.percentile(samples, 1.0) == max(samples)


def test_percentile_says_what_it_needs() -> None:
    assert timing.percentile([7.0], 0.3) == 7.0
    with pytest.raises(ValueError, match="at least one"):
        timing.median([])
    with pytest.raises(ValueError, match=r"allowed are 0 to 1"):
        timing.percentile([1.0], 20)


@pytest.mark.parametrize(
    ("seconds", "moved", "flops", "dtype", "why"),
    [
        (0.95e-6, 4_000_000, 0, "fp16", None),
        (0.85e-6, 4_000_000, 0, "fp16", "moving 4,000,000 bytes at 4.00 TB/s takes 1 µs"),
        (0.95e-3, 1, 800_000_000_000, "bf16", None),
        (0.85e-3, 1, 800_000_000_000, "bf16", "at 800 TFLOP/s takes 1e+03 µs"),
        (1.95e-3, 1, 800_000_000_000, "fp32", None),
        (1.75e-3, 1, 800_000_000_000, "fp32", "at 400 TFLOP/s"),
        (0.0, 4, 4, "fp16", "faster than the device"),
    ],
)
def test_a_time_under_the_physical_limit_is_refused_in_words(
    seconds: float, moved: int, flops: int, dtype: str, why: str | None
) -> None:
    reason = H200.impossible(seconds, moved, flops, dtype)
    if why is None:
        assert reason is None
    else:
        assert reason is not None
        assert why in reason


def test_wall_clock_takes_turns() -> None:
    calls: list[str] = []

    def slow() -> None:
        calls.append("slow")
        time.sleep(0.002)

    taken = timing.wall_clock({"slow": slow, "fast": lambda: calls.append("fast")}, 4, seed=3)
    assert Counter(calls) == {"slow": 4, "fast": 4}
    assert all({*calls[n : n + 2]} == {"slow", "fast"} for n in range(0, 8, 2))
    assert min(taken["slow"].cold) >= 0.002 > timing.median(taken["fast"].cold)


# --- CUDA graphs, on a fake device ---


class FakeDevice:
    """A clock in milliseconds, and a log of what was done. Replays write the captured outputs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []
        self.captured: list[Any] = []

    def graph(self, name: str, cost: float, outputs: list[accuracy.Outputs]) -> Any:
        saved = [tuple(out.clone() for out in each) for each in outputs]

        def replay() -> None:
            self.now += cost
            self.log.append(name)
            for each, values in zip(outputs, saved, strict=True):
                for out, value in zip(each, values, strict=True):
                    out.copy_(value)

        return SimpleNamespace(replay=replay)

    def event(self, enable_timing: bool) -> Any:
        assert enable_timing
        moment = SimpleNamespace(at=0.0)
        moment.record = lambda: setattr(moment, "at", self.now)
        moment.elapsed_time = lambda later: later.at - moment.at
        return moment


class Flush:
    def __init__(self, fake: FakeDevice) -> None:
        self._fake = fake

    nbytes = 256 << 20

    def __call__(self) -> None:
        self._fake.now += 1000.0
        self._fake.log.append("flush")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    device = FakeDevice()
    monkeypatch.setattr(torch.cuda, "Event", device.event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(graphs, "_WARM_UP_S", 0.001)
    return device


def captured(fake: FakeDevice, name: str, cost_ms: float, sets: int) -> graphs.Captured:
    outputs: list[accuracy.Outputs] = [(torch.full((2,), float(n)),) for n in range(sets)]
    return graphs.Captured(
        cold=fake.graph(name, cost_ms, outputs),
        hot=fake.graph(f"{name} hot", cost_ms / 2, []),
        outputs=outputs,
    )


def timed(
    pair: dict[str, graphs.Captured], fake: FakeDevice, budget_s: float
) -> dict[str, timing.Samples]:
    flush: Any = Flush(fake)
    return graphs.time_graphs(pair, flush, 30, budget_s, 1, Telemetry(""))


def test_a_sample_is_one_replay_over_its_calls_without_the_flush(fake: FakeDevice) -> None:
    pair = {"slow": captured(fake, "slow", 8.0, 4), "fast": captured(fake, "fast", 2.0, 4)}
    taken = timed(pair, fake, budget_s=0.0)
    assert taken["slow"].cold == pytest.approx([2.0e-3] * 30)
    assert taken["fast"].cold == pytest.approx([0.5e-3] * 30)
    assert taken["slow"].hot == pytest.approx([1.0e-3] * 10)
    assert taken["fast"].hot == pytest.approx([0.25e-3] * 10)


def test_every_cold_replay_follows_a_flush_and_every_hot_one_a_replay(fake: FakeDevice) -> None:
    pair = {name: captured(fake, name, 1.0, 4) for name in ("a", "b")}
    timed(pair, fake, budget_s=0.0)
    cold = [place for place, what in enumerate(fake.log) if what in ("a", "b")]
    assert all(fake.log[place - 1] == "flush" for place in cold)
    hot = [what for what in fake.log if what.endswith("hot")]
    assert hot[::2] == hot[1::2]
    assert len(hot) == 2 * 2 * 10


def test_no_hot_sample_is_taken_where_nobody_asked_for_a_graph_for_it(fake: FakeDevice) -> None:
    pair = {name: replace(captured(fake, name, 1.0, 4), hot=None) for name in ("a", "b")}
    taken = timed(pair, fake, budget_s=0.0)
    assert all(len(one.cold) == 30 and one.hot == () for one in taken.values())


def test_more_samples_while_the_budget_lasts(fake: FakeDevice) -> None:
    one = {"a": captured(fake, "a", 10.0, 4)}
    taken = timed(one, fake, budget_s=0.5)
    assert 30 < len(taken["a"].cold) < 50


@pytest.mark.parametrize(
    ("calls_ms", "calm"),
    [([0.05] * 10, True), ([0.05] * 9 + [3.0] + [0.05] * 10, True), ([0.05, 3.0] * 400, False)],
)
def test_a_device_is_calm_once_nobody_takes_turns_on_it(
    calls_ms: list[float], calm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, left = [0.0], iter(calls_ms)

    def synchronize() -> None:
        now[0] += next(left) / 1e3

    plain = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, device: plain(*size))
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr("benchmarks.measure.graphs.time.perf_counter", lambda: now[0])
    assert graphs.wait_for_calm(1.0) == calm
    assert now[0] == pytest.approx(sum(calls_ms) / 1e3) if calm else now[0] >= 1.0


def test_a_replay_that_leaves_an_output_unwritten_is_found(fake: FakeDevice) -> None:
    sets = [{"x": torch.full((3,), float(n + 1))} for n in range(4)]

    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    outputs: list[accuracy.Outputs] = [(double(**each),) for each in sets]
    whole = graphs.Captured(fake.graph("whole", 1.0, outputs), fake.graph("", 1.0, []), outputs)
    assert graphs.replay_disagreement(whole, double, sets, 1e-6) == ""
    idle = graphs.Captured(fake.graph("idle", 1.0, []), fake.graph("", 1.0, []), outputs)
    reason = graphs.replay_disagreement(idle, double, sets, 1e-6)
    assert reason.startswith("the captured graph differs from a direct call: 3 of 3")


@pytest.mark.parametrize(
    ("call_s", "log"),
    [
        (1e-6, "side stream 0 2 0 end begin 0 1 2 end begin 0 0 0 end"),
        (0.5, "side stream 0 2 0 end begin 0 1 end begin 0 0 end"),
    ],
)
def test_capture_calls_once_for_each_set_and_keeps_the_outputs(
    fake: FakeDevice, monkeypatch: pytest.MonkeyPatch, call_s: float, log: str
) -> None:
    class Stream:
        def wait_stream(self, other: Any) -> None:
            assert isinstance(other, Stream)

    class Capture:
        def __init__(self, graph: Any = None, capture_error_mode: str = "") -> None:
            self._graph = graph
            assert capture_error_mode == ("thread_local" if graph is not None else "")

        def __enter__(self) -> None:
            fake.log.append("begin" if self._graph is not None else "side stream")

        def __exit__(self, *_: object) -> None:
            fake.log.append("end")

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: Capture())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", Capture)
    monkeypatch.setattr(graphs, "_call_seconds", lambda *_: call_s)

    def call(x: torch.Tensor) -> torch.Tensor:
        fake.log.append(str(int(x[0])))
        return x + 1

    sets = [{"x": torch.full((2,), float(n))} for n in range(3)]
    found = graphs.capture(call, sets, hot=True)
    assert " ".join(fake.log) == log
    fake.log.clear()
    assert graphs.capture(call, sets).hot is None
    assert " ".join(fake.log) == log.rpartition(" begin")[0]
    expected = [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]][: 3 if call_s < 0.1 else 2]
    assert [out[0].tolist() for out in found.outputs] == expected
