"""What to time, how often, in which order, and what no device can do: pure functions of numbers.

Times are seconds. The timing itself, with CUDA graphs, is in `benchmarks.measure.graphs`.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Taken = TypeVar("Taken")

LEAST_SETS, MOST_SETS = 2, 64
MOST_ROUNDS = 100
_GRAPH_S = 5e-4
"""So long a graph need not be longer: the cost of starting it is a hundredth of it."""
SELDOM = 3
"""Whoever is called seldom is called in one round of so many."""
_DRIFT, _SPREAD = 0.05, 0.25
_FEWEST_TO_JUDGE = 5
_ATTEMPTS = 2
MARGIN = 0.10
"""How far below the floor a time may lie before it counts as a measuring fault: the ceilings are
measured too, and a library's best copy or product is not quite the device's."""
PRODUCTS = ("fp16", "bf16", "fp32", "tf32")
"""What the rate of large products is measured in; tf32 is what fp32 inputs may go through."""
MEMORY, COMPUTE = "memory", "compute"
"""What bounds a case: the bytes that it moves, or its floating-point operations."""


@dataclass(frozen=True)
class Samples:
    """Device time of one call, in seconds: with L2 cold, and with one input set again and again."""

    cold: tuple[float, ...]
    hot: tuple[float, ...] = ()


def choose_sets(set_bytes: int, budget_bytes: int) -> int:
    """How many distinct input sets one CUDA graph walks through: from 2 to 64, as memory allows.

    Many calls in one graph make the cost of starting a graph vanish from a short kernel's time.
    """
    fitting = budget_bytes // max(set_bytes, 1)
    return max(LEAST_SETS, min(MOST_SETS, fitting))


def choose_calls(call_s: float, sets: int) -> int:
    """How many of the sets the graph of one implementation walks through, a call on each.

    A slow one need not walk through all: what counts is how long its graph takes. Two at least,
    so that no call finds its own inputs in L2; a power of two, as `call_s` is roughly known.
    """
    wanted = 1 << math.ceil(math.log2(max(_GRAPH_S / call_s, 1))) if call_s > 0 else sets
    return max(min(LEAST_SETS, sets), min(sets, wanted))


def choose_rounds(round_seconds: float, least: int, budget_s: float) -> int:
    """How many rounds fit the budget: never under `least`, and never over 100 or `least`."""
    fitting = int(budget_s / round_seconds) if round_seconds > 0 else MOST_ROUNDS
    return max(least, min(MOST_ROUNDS, fitting))


def interleaved(names: Sequence[str], rounds: int, seed: int) -> Iterator[tuple[str, ...]]:
    """The order of the implementations in each round: A B C, then B C A, then C A B, …

    Every `len(names)` rounds a new random permutation is rotated, so each name stands equally often
    at each place, and no name always follows the same other.
    """
    chance = random.Random(seed)
    order = list(names)
    for number in range(rounds):
        turn = number % max(len(order), 1)
        if turn == 0:
            chance.shuffle(order)
        yield tuple(order[turn:] + order[:turn])


def percentile(samples: Sequence[float], q: float) -> float:
    """The value below which the fraction `q` of the samples lies, linear between neighbours.

    Raises ValueError without samples or with `q` outside 0 to 1.
    """
    if not samples:
        raise ValueError("no samples: a percentile needs at least one")
    if not 0.0 <= q <= 1.0:
        raise ValueError(f"q is {q}, allowed are 0 to 1")
    ordered = sorted(samples)
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def median(samples: Sequence[float]) -> float:
    """The middle sample, or the mean of the two in the middle."""
    return percentile(samples, 0.5)


def calmest(attempt: Callable[[int], Taken], noisy_of: Callable[[Taken], int]) -> Taken:
    """The first attempt in which nothing is noisy, else the calmest of two; each gets its number.

    `noisy_of` counts the implementations whose samples of an attempt are not to be trusted.
    """
    attempts: list[Taken] = []
    for number in range(_ATTEMPTS):
        attempts.append(attempt(number))
        if not noisy_of(attempts[-1]):
            break
    return min(attempts, key=noisy_of)


def noisy(samples: Mapping[str, Sequence[float]]) -> int:
    """How many implementations have samples that are not to be trusted."""
    return sum(bool(noise(each)) for each in samples.values())


def noise(samples: Sequence[float]) -> str:
    """Why samples in the order of their taking are not to be trusted, in words; else empty.

    Either their first and their second half differ, as when clocks or another process change
    meanwhile, or they lie far apart.
    """
    if len(samples) < 2 * _FEWEST_TO_JUDGE:
        return ""
    middle = median(samples)
    half = len(samples) // 2
    drift = median(samples[half:]) / median(samples[:half]) - 1.0
    if abs(drift) > _DRIFT:
        return f"noisy: the second half of the samples takes {drift:+.0%}"
    spread = (percentile(samples, 0.8) - percentile(samples, 0.2)) / middle
    if spread > _SPREAD:
        return f"noisy: the samples spread over {spread:.0%} (20th to 80th percentile)"
    return ""


@dataclass(frozen=True)
class Ceilings:
    """What this device was measured to do: a large copy, and large matrix products by dtype.

    `flops_per_s` of fp32 is the rate with tf32 where that is faster: the fastest unit that
    multiplies float32 inputs; that of fp8 is twice the rate of fp16, which is what the hardware's
    specifications say. A rate that is not known is NaN.
    """

    copy_bytes_per_s: float
    flops_per_s: Mapping[str, float]

    @classmethod
    def of(cls, figures: Mapping[str, object]) -> Ceilings:
        """The ceilings by their figures in a fingerprint: `copy_bytes_per_s`, `fp16_flops_per_s`, …

        A figure that is missing, or no number above 0, is not known.
        """
        rates = {dtype: _rate(figures.get(f"{dtype}_flops_per_s")) for dtype in PRODUCTS}
        of_fp32 = (rates["fp32"], rates["tf32"])
        fastest = math.nan if any(map(math.isnan, of_fp32)) else max(of_fp32)
        units = {**rates, "fp32": fastest, "fp8": 2 * rates["fp16"]}
        return cls(_rate(figures.get("copy_bytes_per_s")), units)

    def floor(self, moved: int, flops: int, dtype: str) -> tuple[float, str]:
        """The shortest time for a case in seconds, and what sets it: `memory` or `compute`.

        NaN and an empty string where a rate that it depends on is not known.
        """
        moving = moved / self.copy_bytes_per_s if moved else 0.0
        computing = flops / self.flops_per_s.get(dtype, math.nan) if flops else 0.0
        if math.isnan(moving + computing):
            return math.nan, ""
        return (moving, MEMORY) if moving >= computing else (computing, COMPUTE)

    def impossible(self, seconds: float, moved: int, flops: int, dtype: str) -> str | None:
        """Why a cold time cannot be true, in words; None where it can."""
        floor, bound = self.floor(moved, flops, dtype)
        if seconds >= floor * (1.0 - MARGIN):
            return None
        if not bound:
            return f"nobody can tell whether the time is possible: no rate of {dtype} or of copies"
        if bound == MEMORY:
            why = f"moving {moved:,} bytes at {self.copy_bytes_per_s / 1e12:.2f} TB/s"
        else:
            rate = self.flops_per_s[dtype] / 1e12
            why = f"{flops:,} floating-point operations at {rate:.0f} TFLOP/s"
        return (
            f"faster than the device: {seconds * 1e6:.3g} µs measured, but {why} takes "
            f"{floor * 1e6:.3g} µs (margin {MARGIN:.0%}): a fault of the measurement or of the "
            "op's cost model"
        )


def _rate(figure: object) -> float:
    """A number above 0 that a double can hold, NaN for anything else."""
    if not isinstance(figure, int | float) or isinstance(figure, bool):
        return math.nan
    return float(figure) if 0 < figure < 1e308 else math.nan


def wall_clock(
    calls: Mapping[str, Callable[[], object]], rounds: int, seed: int
) -> dict[str, Samples]:
    """Interleaved wall-clock seconds of each call: for dry runs without a GPU."""
    taken = take_turns({name: _ignoring(call) for name, call in calls.items()}, rounds, seed)
    return {name: Samples(cold=seconds) for name, seconds in taken.items()}


def take_turns(
    calls: Mapping[str, Callable[[int], object]],
    rounds: int,
    seed: int,
    *,
    lead_in: bool = False,
    seldom: Collection[str] = (),
    synchronize: Callable[[], object] = lambda: None,
    between: Callable[[], object] = lambda: None,
    returned: Callable[[str, float], object] = lambda _name, _seconds: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, tuple[float, ...]]:
    """Wall-clock seconds of each call, at most one a round, in the order of `interleaved`.

    Args:
        calls: called with the number of the round, so that all get the same inputs in one round.
        rounds: how many.
        seed: of the order.
        lead_in: before each timed call make another one that is not, so that each finds the caches
            as its own last call left them, and not as another implementation did.
        seldom: those that are called in the first of every `SELDOM` rounds alone.
        synchronize: waits for the device: before the clock is read, at both ends of a call.
        between: called after each round, outside of what is timed.
        returned: told after each call the seconds until it returned, when the device may still
            compute: what the call cost the host.
        clock: reads seconds.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number, order in enumerate(interleaved(list(calls), rounds, seed)):
        for name in order:
            if name in seldom and number % SELDOM:
                continue
            call = calls[name]
            if lead_in:
                call(number + 1)
            synchronize()
            start = clock()
            outputs = call(number)
            back = clock()
            synchronize()
            taken[name].append(clock() - start)
            returned(name, back - start)
            del outputs  # freed when the clock stands
        between()
    return {name: tuple(seconds) for name, seconds in taken.items()}


def _ignoring(call: Callable[[], object]) -> Callable[[int], object]:
    return lambda _: call()
