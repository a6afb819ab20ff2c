"""How `linear_glu` computes a gated pair of linear layers: in one kernel of two kinds or in two.

| path | what runs | for |
| --- | --- | --- |
| `fused` | one program computes one tile of gate and the same tile of up | few rows |
| `tma` | the same as one product, blocks moved by Hopper's copy engine | a hundred rows and more |
| `two` | `linear` of the packed weight, by its own choice, then `swiglu` or `geglu` | the rest |

A choice is read from the table `kernl/tuned/linear_glu.csv` where the GPU's architecture has rows
in it. Where none speaks, `_default` decides: as a model reads its weights from memory once, a
second kernel is a tenth of the time where rows fill one block of tensor cores, and nothing where
there are many.
"""

from collections.abc import Iterator
from typing import NamedTuple

from kernl.launch import next_power_of_2
from kernl.ops.tile import MOST_UNALIGNED_ELEMENTS, accumulators_limit, shared_memory_limit
from kernl.tables import Key, Tunable

_FEW = range(5, 17)
"""Rows of one block of tensor cores; with fewer, each is a product of its own in `linear`."""
_SOME_ROWS = 512
"""With more of them the tuner tries the tallest blocks alone."""
_TALL = 128


class GluConfig(NamedTuple):
    """A path, a block of (block_m, block_n) outputs, block_k of k at a time.

    On the path `tma` a block may be 3 · 2ⁱ wide.
    """

    path: str
    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int

    @property
    def widths(self) -> tuple[int, int]:
        """`block_n` as a power of two, and 0 or the half of it that is beside it."""
        wide = 1 << (self.block_n.bit_length() - 1)
        return wide, self.block_n - wide


TWO = GluConfig("two", 16, 32, 64, 4, 3)
"""`linear` and the gated activation choose their own blocks; those here are not read."""

_FEW_ROWS = (GluConfig("fused", 16, 32, 128, 4, 4), GluConfig("fused", 16, 32, 64, 4, 4))
# Largest first. block_n is that of the output: a program reads as many rows of gate and of up.
_HALF_TILES = (
    GluConfig("fused", 128, 128, 64, 8, 3),
    GluConfig("fused", 128, 64, 64, 8, 4),
    GluConfig("fused", 128, 64, 64, 4, 4),
    GluConfig("fused", 128, 64, 64, 8, 6),
    GluConfig("fused", 128, 64, 64, 4, 6),
    GluConfig("fused", 128, 32, 64, 8, 4),
    GluConfig("fused", 64, 128, 64, 8, 4),
    GluConfig("fused", 64, 64, 64, 8, 4),
    GluConfig("fused", 64, 64, 64, 4, 4),
    GluConfig("fused", 64, 64, 64, 8, 8),
    GluConfig("fused", 64, 64, 128, 8, 4),
    GluConfig("fused", 64, 32, 128, 4, 4),
    GluConfig("fused", 32, 128, 64, 8, 4),
    GluConfig("fused", 32, 64, 128, 8, 3),
    GluConfig("fused", 32, 64, 64, 4, 4),
    GluConfig("fused", 32, 32, 128, 4, 4),
    GluConfig("fused", 16, 128, 64, 8, 4),
    GluConfig("fused", 16, 64, 128, 8, 4),
    GluConfig("fused", 16, 64, 64, 4, 5),
    GluConfig("fused", 16, 32, 128, 4, 5),
    *_FEW_ROWS,
    GluConfig("fused", 16, 16, 128, 4, 5),
)
_TMA_TILES = (
    GluConfig("tma", 128, 128, 64, 8, 4),
    GluConfig("tma", 128, 96, 64, 8, 5),
    GluConfig("tma", 128, 64, 64, 8, 6),
    GluConfig("tma", 128, 64, 64, 4, 6),
    GluConfig("tma", 128, 48, 64, 8, 8),
    GluConfig("tma", 128, 48, 64, 4, 8),
    GluConfig("tma", 128, 32, 64, 4, 4),
    GluConfig("tma", 64, 128, 64, 4, 5),
    GluConfig("tma", 64, 64, 64, 4, 9),
    GluConfig("tma", 64, 64, 64, 4, 4),
    GluConfig("tma", 64, 48, 64, 4, 5),
)
# Rows that start anywhere are read element by element: few of them, or the addresses spill.
_UNALIGNED_TILES = (
    GluConfig("fused", 64, 32, 32, 4, 3),
    GluConfig("fused", 32, 32, 32, 4, 3),
    GluConfig("fused", 16, 32, 64, 4, 3),
)
_FLOAT_TILES = (
    GluConfig("fused", 64, 32, 16, 4, 3),
    GluConfig("fused", 32, 32, 32, 4, 3),
    GluConfig("fused", 16, 32, 32, 4, 3),
)


def _default(capability: int, key: Key) -> GluConfig:
    """One kernel where rows are few and lie at multiples of 16 bytes; else two."""
    few = key["bits"] == 16 and key["aligned"] and int(key["m"]) in _FEW
    fitting = [config for config in _FEW_ROWS if few and _fits(capability, key, config)]
    return (*fitting, TWO)[0]


def _candidates(capability: int, key: Key) -> Iterator[GluConfig]:
    """What the tuner times for one class."""
    yield TWO
    yield from _fused(capability, key)
    yield from (config for config in _TMA_TILES if _fits(capability, key, config))


def _fused(capability: int, key: Key) -> Iterator[GluConfig]:
    """Blocks that fit, and are tall enough that the weight is not read once too often."""
    m = int(key["m"])
    tiles = _HALF_TILES if key["aligned"] else _UNALIGNED_TILES
    if key["bits"] == 32:
        tiles = _FLOAT_TILES
    fitting = [config for config in tiles if _fits(capability, key, config)]
    tallest = max(config.block_m for config in fitting)
    wanted = _TALL if m > _SOME_ROWS else min(64, m)
    yield from (config for config in fitting if config.block_m >= min(wanted, tallest))


def _fits(capability: int, key: Key, config: GluConfig) -> bool:
    if config.path == "two":
        return True
    m, itemsize = int(key["m"]), int(key["bits"]) // 8
    if config.path == "tma" and (capability < 90 or itemsize != 2 or not key["aligned"]):
        return False
    threads = 32 * config.num_warps
    sums = 2 * config.block_m * config.block_n // threads
    # Those of one product; two spill earlier before Hopper, where blocks are tall.
    most = accumulators_limit(capability) // (1 if capability >= 90 else 2)
    # A block of x, one of gate and one of up.
    stage = (config.block_m + 2 * config.block_n) * config.block_k
    # A rest of k that no 16 divide is read through more addresses: spills where it is deep.
    shallow = config.block_k <= 64 or int(key["k"]) % 16 == 0
    return bool(
        shallow
        and (key["aligned"] or itemsize == 4 or stage // threads <= MOST_UNALIGNED_ELEMENTS)
        and config.block_m <= max(16, next_power_of_2(m))
        and config.num_stages * stage * itemsize <= shared_memory_limit(capability)
        and sums <= most
    )


LINEAR_GLU_TUNABLE: Tunable[GluConfig] = Tunable(
    name="linear_glu",
    exact=("bits", "aligned"),
    sizes=("m", "n", "k"),
    config=GluConfig,
    default=_default,
    candidates=_candidates,
    fits=_fits,
)
"""`n` counts columns of the output; `aligned`: rows start and end at multiples of 16 bytes."""
