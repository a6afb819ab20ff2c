"""Which path `linear_layer_norm` takes, and in which blocks.

On `fused` a program has block_m rows, and takes block_k of k at a time.
"""

from collections.abc import Iterable

from kernl.launch import next_power_of_2
from kernl.ops.linear_config import LinearConfig
from kernl.ops.linear_norm_config import LATE, SPLITS, TWO, split_configs, split_fits
from kernl.ops.tile import shared_memory_limit
from kernl.tables import Key, Tunable


def _default(capability: int, key: Key) -> LinearConfig:
    """Fused where the whole weight is small; else what leaves the product to its fastest path."""
    n, k, bits = (int(key[name]) for name in ("n", "k", "bits"))
    if n > 512 or n * k * bits > 2**18:
        return LATE
    fused = [config for config in _candidates(capability, key) if config.path == "fused"]
    fitting = [config for config in fused if _fits(capability, key, config)]
    # The most rows a program, so that the weight is read the fewest times.
    return max(fitting, key=lambda config: config.block_m, default=LATE)


def _candidates(capability: int, key: Key) -> Iterable[LinearConfig]:
    yield LATE
    yield TWO
    for block_m, num_warps in ((16, 4), (16, 8), (16, 16), (32, 8), (64, 8), (64, 16)):
        for block_k, num_stages in ((32, 4), (32, 3), (64, 3), (64, 2), (32, 2), (16, 2)):
            yield LinearConfig("fused", block_m, 16, block_k, 1, num_warps, num_stages)
    yield from split_configs(key)


def _fits(capability: int, key: Key, config: LinearConfig) -> bool:
    if config.path in ("two", "late"):
        return True
    if config.path in SPLITS:
        return split_fits(capability, key, config)
    m, block_n = int(key["m"]), max(16, next_power_of_2(int(key["n"])))
    stage = (config.block_m + block_n) * config.block_k * int(key["bits"]) // 8
    shared_memory = stage * config.num_stages + 4 * config.block_m * 2 * config.num_warps
    return (
        config.block_m <= max(16, next_power_of_2(m))
        # Sums of one thread. Without tensor cores the operands lie in registers beside them.
        and config.block_m * block_n <= (64 if key["bits"] == 16 else 32) * 32 * config.num_warps
        and shared_memory <= shared_memory_limit(capability)
    )


LINEAR_LAYER_NORM_TUNABLE: Tunable[LinearConfig] = Tunable(
    name="linear_layer_norm",
    exact=("bits",),
    sizes=("m", "n", "k"),
    config=LinearConfig,
    default=_default,
    candidates=_candidates,
    fits=_fits,
)
