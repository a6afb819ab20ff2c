"""Which blocks `fp8_linear` multiplies."""

from collections.abc import Iterator
from typing import NamedTuple

from kernl.launch import cdiv, next_power_of_2
from kernl.ops.tile import MOST_UNALIGNED_ELEMENTS, accumulators_limit, shared_memory_limit
from kernl.tables import Key, Tunable


class Fp8Config(NamedTuple):
    """A block of (block_m, block_n) outputs, block_k of k at a time."""

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int


_LARGE = (Fp8Config(128, 128, 128, 8, 3), Fp8Config(128, 256, 128, 8, 3))
_SMALL = (
    Fp8Config(64, 128, 128, 4, 3),
    Fp8Config(64, 64, 128, 4, 3),
    Fp8Config(64, 64, 256, 4, 3),
    Fp8Config(32, 64, 128, 4, 3),
    Fp8Config(16, 64, 256, 4, 3),
    Fp8Config(16, 32, 256, 4, 3),
)
_UNALIGNED = (Fp8Config(32, 32, 64, 4, 2), Fp8Config(16, 32, 64, 4, 2))


def _default(capability: int, key: Key) -> Fp8Config:
    m, n = int(key["m"]), int(key["n"])
    if not key["aligned"]:
        return _UNALIGNED[0 if m > 16 else 1]
    if m > 64 and cdiv(m, 128) * cdiv(n, 128) >= 128 and capability >= 90:
        return _LARGE[0]
    block_m = min(64, max(16, next_power_of_2(m)))
    return Fp8Config(block_m, 64, 128, 4, 3 if capability >= 90 else 2)


def _candidates(capability: int, key: Key) -> Iterator[Fp8Config]:
    tallest = max(16, next_power_of_2(int(key["m"])))
    blocks = (*_LARGE, *_SMALL) if key["aligned"] else _UNALIGNED
    yield from (config for config in blocks if config.block_m <= tallest)


def _fits(capability: int, key: Key, config: Fp8Config) -> bool:
    stage = (config.block_m + config.block_n) * config.block_k
    threads = 32 * config.num_warps
    sums = config.block_m * config.block_n // threads
    return (
        stage * config.num_stages <= shared_memory_limit(capability)
        and sums <= accumulators_limit(capability)
        and (bool(key["aligned"]) or stage // threads <= MOST_UNALIGNED_ELEMENTS)
    )


FP8_TUNABLE: Tunable[Fp8Config] = Tunable(
    name="fp8_linear",
    exact=("aligned",),
    sizes=("m", "n", "k"),
    config=Fp8Config,
    default=_default,
    candidates=_candidates,
    fits=_fits,
)
