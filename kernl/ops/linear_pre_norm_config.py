"""Which path a linear layer, its residual and the next layer's norm take, and in which blocks."""

from collections.abc import Iterator

from kernl.launch import cdiv
from kernl.ops.linear_config import LinearConfig
from kernl.ops.linear_norm_config import LATE, MOST_COLS, SPLITS, TWO, split_configs, split_fits
from kernl.tables import Key, Tunable

_VECTOR_ROWS = 4
"""So few rows are multiplied without tensor cores, in one launch that adds the residual too."""
_SPLIT_MOST_ROWS = 256
_SPLIT_FEWEST_INNER = 512
_PROGRAMS = 256
"""Two for each multiprocessor of a large GPU."""
_MOST_SPLITS = 8


def _default(capability: int, key: Key) -> LinearConfig:
    """Split where rows are few; else what leaves the product to its fastest path."""
    m, n, k = (int(key[name]) for name in ("m", "n", "k"))
    if m <= _VECTOR_ROWS:
        return TWO
    if m > _SPLIT_MOST_ROWS or n > MOST_COLS or k < _SPLIT_FEWEST_INNER or capability < 80:
        return LATE
    block_m, block_n, block_k = (16 if m <= 32 else 64), 32, 128
    wanted = _PROGRAMS // (cdiv(m, block_m) * cdiv(n, block_n))
    split = max(1, min(wanted, k // (2 * block_k), _MOST_SPLITS))
    config = LinearConfig("split", block_m, block_n, block_k, split, 4, 4)
    return config if split_fits(capability, key, config) else LATE


def _candidates(capability: int, key: Key) -> Iterator[LinearConfig]:
    yield LATE
    yield TWO
    yield from split_configs(key)


def _fits(capability: int, key: Key, config: LinearConfig) -> bool:
    return config.path not in SPLITS or split_fits(capability, key, config)


def pre_norm_tunable(name: str) -> Tunable[LinearConfig]:
    """What the tuner may choose for the operator of this name."""
    return Tunable(
        name=name,
        exact=("bits",),
        sizes=("m", "n", "k"),
        config=LinearConfig,
        default=_default,
        candidates=_candidates,
        fits=_fits,
    )
