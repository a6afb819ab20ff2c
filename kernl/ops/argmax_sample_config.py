"""How `argmax_sample` cuts its work: programs of a row, and the digits that thresholds have.

The result is the same in every configuration, to the last bit.
"""

from collections.abc import Iterable
from typing import NamedTuple

from kernl.launch import next_power_of_2
from kernl.ops.chunks import programs_a_row
from kernl.tables import Key, Tunable

MOST_PROGRAMS_A_ROW = 128


class SampleConfig(NamedTuple):
    """About `programs` programs share a row; each walks it `block_cols` at a time.

    One launch finds `digit_bits` bits of a threshold, by sums for each of 2^digit_bits digits.
    """

    programs: int
    block_cols: int
    digit_bits: int
    num_warps: int


class Stage(NamedTuple):
    """One launch of a search: what is added up, and the digit that it finds.

    Attributes:
        kind: "count" adds up ones, "mass" the weights.
        opens: it finds the first digit of its threshold.
        shift: bits below this digit.
        digits: how many values the digit has; one where nothing is sought and all is weighed.
    """

    kind: str
    opens: bool
    shift: int
    digits: int


def stages(key_bits: int, digit_bits: int, top_k: bool, top_p: bool) -> tuple[Stage, ...]:
    """The launches between the largest logit and the token."""
    counted = _search("count", key_bits, digit_bits) if top_k else ()
    weighed = _search("mass", key_bits, digit_bits) if top_p else (Stage("mass", True, 0, 1),)
    return counted + weighed


def _search(kind: str, key_bits: int, digit_bits: int) -> tuple[Stage, ...]:
    found = []
    above = key_bits
    while above > 0:
        shift = max(0, above - digit_bits)
        found.append(Stage(kind, above == key_bits, shift, 2 ** (above - shift)))
        above = shift
    return tuple(found)


def _default(capability: int, key: Key) -> SampleConfig:
    """Blocks of 1024, as many programs as fill the GPU, 16 digits."""
    rows, cols = int(key["rows"]), int(key["cols"])
    block_cols = min(1024, max(32, next_power_of_2(cols)))
    programs = programs_a_row(rows, cols, block_cols, MOST_PROGRAMS_A_ROW)
    return SampleConfig(programs, block_cols, 4, max(1, block_cols // 128))


_GREEDY_BLOCKS = ((1024, 4, 4), (1024, 4, 8), (2048, 4, 4), (4096, 4, 8))
_SAMPLED_BLOCKS = ((256, 4, 2), (512, 4, 4), (1024, 4, 8), (2048, 4, 16), (512, 5, 8))


def _candidates(capability: int, key: Key) -> Iterable[SampleConfig]:
    for blocks in _SAMPLED_BLOCKS if key["sampled"] else _GREEDY_BLOCKS:
        for programs in (4, 16, 32, 128):
            yield SampleConfig(programs, *blocks)


def _fits(capability: int, key: Key, config: SampleConfig) -> bool:
    # Each thread holds a weight for each of its columns and digits, 64 bits wide.
    held = config.block_cols << config.digit_bits if key["sampled"] else config.block_cols
    return config.programs <= MOST_PROGRAMS_A_ROW and held <= 64 * 32 * config.num_warps


ARGMAX_SAMPLE_TUNABLE: Tunable[SampleConfig] = Tunable(
    name="argmax_sample",
    exact=("bits", "sampled"),
    sizes=("rows", "cols"),
    config=SampleConfig,
    default=_default,
    candidates=_candidates,
    fits=_fits,
)
