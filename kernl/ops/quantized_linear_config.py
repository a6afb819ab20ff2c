"""How `quantized_linear` computes a product of a given size: on which path, with which blocks.

| path | what runs | for |
| --- | --- | --- |
| `gemv` | multiply and add without tensor cores, four rows of x at most | one token |
| `tile` | one program computes one tile of the output, on the tensor cores | few rows |
| `split` | several programs share a tile's inner dimension, another pass adds up | few tiles |
| `library` | the weight is dequantized once, then cuBLAS | many rows: bound by the tensor cores |
"""

from collections.abc import Iterator
from typing import NamedTuple

from kernl.launch import cdiv, next_power_of_2
from kernl.ops.tile import FULL_GRID, accumulators_limit, shared_memory_limit
from kernl.tables import Key, Tunable

GEMV_MOST_ROWS = 4
_LIBRARY_FROM_ROWS = 128


class QuantizedConfig(NamedTuple):
    """A path, a block of (block_m, block_n) outputs, block_k integers of k at a time.

    With 4 bits a step of a tile is one group, whatever block_k says.
    """

    path: str
    block_m: int
    block_n: int
    block_k: int
    split_k: int
    num_warps: int
    num_stages: int


LIBRARY = QuantizedConfig("library", 16, 64, 1024, 1, 4, 1)
_GEMV = QuantizedConfig("gemv", 1, 4, 512, 1, 4, 1)


def _default(capability: int, key: Key) -> QuantizedConfig:
    m, n, k, group = (int(key[name]) for name in ("m", "n", "k", "group"))
    if m <= GEMV_MOST_ROWS:
        return _GEMV
    # Without tensor cores the operands of a tile would lie in registers beside its sums.
    if m >= _LIBRARY_FROM_ROWS or key["bits"] == 32:
        return LIBRARY
    block_m = min(64, max(16, next_power_of_2(m)))
    block_n = 64 if cdiv(m, block_m) * cdiv(n, 64) >= FULL_GRID or block_m == 64 else 32
    config = QuantizedConfig("tile", block_m, block_n, 64, 1, 4, 3)
    # A wide group of 4 bits takes more shared memory than smaller GPUs have for three stages.
    config = next(
        (c for c in (config._replace(num_stages=s) for s in (3, 2)) if _fits(capability, key, c)),
        config._replace(num_stages=1),
    )
    programs = cdiv(m, block_m) * cdiv(n, block_n)
    split = min(8, FULL_GRID // programs, k // (4 * max(64, group)))
    return config._replace(path="split", split_k=split) if split > 1 else config


def _fits(capability: int, key: Key, config: QuantizedConfig) -> bool:
    if config.path == "gemv":
        return int(key["m"]) <= GEMV_MOST_ROWS
    if config.path == "library":
        return True
    # A step of 4 bits is a group of at most 256 integers, two halves of it in x.
    depth = config.block_k if key["weight"] == 8 else min(256, int(key["group"]))
    x_bytes = config.block_m * depth * int(key["bits"]) // 8
    stage = x_bytes + config.block_n * depth * int(key["weight"]) // 8
    sums = config.block_m * config.block_n // (32 * config.num_warps)
    return (
        stage * config.num_stages <= shared_memory_limit(capability)
        and 2 * sums <= accumulators_limit(capability)
        and key["bits"] == 16
    )


def _extends(capability: int, key: Key, config: QuantizedConfig) -> bool:
    """What was the fastest for fewer rows says nothing of many."""
    return config.path == "library" or int(key["m"]) < 2 * _LIBRARY_FROM_ROWS


def _candidates(capability: int, key: Key) -> Iterator[QuantizedConfig]:
    m, n, bits = (int(key[name]) for name in ("m", "n", "bits"))
    yield LIBRARY
    if m <= GEMV_MOST_ROWS:
        yield from (
            QuantizedConfig("gemv", 1, block_n, block_k, 1, num_warps, 1)
            for block_n, block_k, num_warps in (
                (2, 512, 2),
                (4, 512, 4),
                (8, 512, 4),
                (2, 1024, 4),
                (4, 1024, 4),
            )
        )
    if bits == 32:
        return
    for block_m, block_n, num_warps in (
        (16, 32, 4),
        (16, 64, 4),
        (32, 32, 4),
        (32, 64, 4),
        (64, 64, 4),
        (64, 128, 8),
        (128, 128, 8),
    ):
        if block_m > max(16, next_power_of_2(m)) or block_m < min(64, max(16, m)):
            continue
        depths = (64, 128) if key["weight"] == 8 else (128,)
        for block_k in depths:
            config = QuantizedConfig("tile", block_m, block_n, block_k, 1, num_warps, 3)
            yield config
            programs = cdiv(m, block_m) * cdiv(n, block_n)
            for split in (2, 4, 8):
                if programs * split <= 1024:
                    yield config._replace(path="split", split_k=split)


QUANTIZED_TUNABLE: Tunable[QuantizedConfig] = Tunable(
    name="quantized_linear",
    exact=("bits", "weight", "grouped"),
    sizes=("m", "n", "k", "group"),
    config=QuantizedConfig,
    default=_default,
    candidates=_candidates,
    fits=_fits,
    extends=_extends,
)
"""`bits` of an element of x, `weight` of one of the weight; `grouped`: several scales a row."""
