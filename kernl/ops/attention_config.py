"""Which blocks of queries and keys one program of `attention` works on."""

from collections.abc import Iterator
from typing import NamedTuple

from kernl.launch import cdiv, next_power_of_2
from kernl.ops.tile import FULL_GRID, shared_memory_limit
from kernl.tables import Key, Tunable

CHANGED, KEYS = 1, 2
"""`extra` of a class: scores are changed or a window hides some; a mask hides keys alone."""


class AttentionConfig(NamedTuple):
    """A block of block_m queries, walked over keys block_n at a time."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int


_LEAST = AttentionConfig(16, 16, 8, 1)
"""What fits where nothing larger does: wide heads that are not aligned."""


def _head_block(key: Key) -> int:
    return max(16, next_power_of_2(int(key["dim"])))


def _shared_memory(key: Key, config: AttentionConfig) -> int:
    """Bytes of one program: its queries, and a key and a value block for each stage."""
    rows = config.block_m + 2 * config.num_stages * config.block_n
    return rows * _head_block(key) * int(key["bits"]) // 8


def _fits(capability: int, key: Key, config: AttentionConfig) -> bool:
    threads = 32 * config.num_warps
    sums = config.block_m * (_head_block(key) + config.block_n) // threads
    # What changes or hides scores, rows with a tail, and GPUs before Hopper need registers that are
    # left otherwise. A mask of keys does on Blackwell alone.
    unmasked = key["extra"] == 0 or (key["extra"] == KEYS and capability < 100)
    plain = unmasked and _head_block(key) == int(key["dim"])
    most = 48 if capability < 90 else 128 if plain else 64
    if config.num_warps == 16 and capability < 90:  # a thread has half as many registers then
        most = 32
    # Rows that are not aligned are read element by element, each by an address of its own.
    addresses = config.block_n * _head_block(key) // threads if int(key["dim"]) % 8 else 0
    return (
        _shared_memory(key, config) <= shared_memory_limit(capability)
        and sums <= most
        and addresses <= 16
    )


def _default(capability: int, key: Key) -> AttentionConfig:
    """The largest of a few that fits and fills the GPU."""
    fitting = [c for c in _ladder(key) if _fits(capability, key, c)] or [_LEAST]
    programs = int(key["programs"])
    filling = [c for c in fitting if programs * cdiv(int(key["queries"]), c.block_m) >= FULL_GRID]
    return (filling or fitting[-1:])[0]


def _ladder(key: Key) -> list[AttentionConfig]:
    if key["bits"] == 32:
        narrow = _head_block(key) <= 64
        first = AttentionConfig(32, 32, 4, 1) if narrow else AttentionConfig(16, 32, 4, 1)
        return [first, AttentionConfig(16, 16, 4, 1)]
    blocks = {
        64: ((128, 64, 4, 3), (64, 64, 4, 3), (64, 32, 4, 3)),
        128: ((128, 64, 8, 2), (64, 64, 8, 2), (64, 32, 8, 2)),
        256: ((64, 64, 8, 2), (64, 32, 16, 2), (32, 32, 8, 2)),
    }
    width = max(64, _head_block(key))
    wide = (AttentionConfig(*sizes) for sizes in blocks[width])
    return [*wide, AttentionConfig(16, 32, 4, 2)]


def _candidates(capability: int, key: Key) -> Iterator[AttentionConfig]:
    yield from _ladder(key)
    if key["bits"] == 32:
        return
    tallest = max(16, next_power_of_2(int(key["queries"])))
    for block_m, num_warps in ((16, 4), (32, 4), (64, 4), (128, 4), (128, 8)):
        if block_m <= tallest and (block_m >= 64 or tallest <= 64):
            for block_n, num_stages in ((32, 3), (64, 2), (64, 3), (128, 2)):
                yield AttentionConfig(block_m, block_n, num_warps, num_stages)


def attention_tunable(name: str) -> Tunable[AttentionConfig]:
    """What `attention` and `attention_varlen` let be tuned, each in its own table."""
    return Tunable(
        name=name,
        exact=("bits", "causal", "extra"),
        sizes=("programs", "queries", "keys", "dim"),
        config=AttentionConfig,
        default=_default,
        candidates=_candidates,
        fits=_fits,
    )


ATTENTION_TUNABLE = attention_tunable("attention")
"""`extra` is `CHANGED`, `KEYS` or 0; `programs` is batch · heads."""
VARLEN_TUNABLE = attention_tunable("attention_varlen")
