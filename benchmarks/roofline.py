"""How near a time comes to what the device can do: rates, and the share of its roofline.

The roofline of a case is its floor: the longer of the time in which the least bytes can be copied
and the time in which its operations can be computed, both at rates that were measured on the same
device. The share is the floor over the time. Pure functions of numbers; a figure that does not
follow from them is NaN.
"""

import math
from dataclasses import dataclass

from benchmarks.cases import Cost, Frozen
from benchmarks.measure.timing import Ceilings

Key = tuple[str, str, str]
"""An operator, a case, and the version of the operator's cases as asv writes it."""


@dataclass(frozen=True)
class Achieved:
    """What the time of one call amounts to.

    Attributes:
        bytes_per_s: the least bytes over the time: no more than what memory did.
        flops_per_s: the floating-point operations over the time.
        share: of the roofline; 1 is the floor itself, more is faster than the ceilings allow.
        bound: what sets the floor: `memory` or `compute`; empty where that is not known.
    """

    bytes_per_s: float = math.nan
    flops_per_s: float = math.nan
    share: float = math.nan
    bound: str = ""


def achieved(seconds: float, cost: Cost, ceilings: Ceilings) -> Achieved:
    """What `seconds` amount to; nothing is known of a time that is no number above 0."""
    if not 0 < seconds < math.inf:
        return Achieved()
    floor, bound = ceilings.floor(cost.bytes, cost.flops, cost.unit)
    return Achieved(cost.bytes / seconds, cost.flops / seconds, floor / seconds, bound)


def costs(frozen: Frozen) -> dict[Key, Cost]:
    """The cost of every frozen case of an operator. Results of another version have none."""
    found = {}
    for op in frozen.ops:
        for case in frozen.kernel_cases(op):
            if cost := frozen.cost(op, case):
                found[op, case, str(frozen.version(op))] = cost
    return found


def above(share: float) -> bool:
    """Whether a time is shorter than its floor, which a reader must be told."""
    return 1 < share < math.inf


def percent(share: float) -> str:
    """A share in words: `83 %`, `4.1 %`, `under 0.1 %`; `–` where there is none."""
    if not 0 < share < math.inf:
        return "–"
    if share < 0.0005:
        return "under 0.1 %"
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"


def in_words(share: float) -> str:
    """`percent`, and where it is above the roofline also that: `104 %, above the roofline`."""
    return f"{percent(share)}, above the roofline" if above(share) else percent(share)


def rate(per_s: float, unit: float) -> str:
    """A rate in units of so many a second: `2,914`, `61.2`, `<0.001`; `–` where there is none."""
    value = per_s / unit
    if not 0 <= value < math.inf:
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 or value == 0 else "<0.001"


def gb_per_s(per_s: float) -> str:
    """Bytes a second in GB/s, without the unit."""
    return rate(per_s, 1e9)


def tflop_per_s(per_s: float) -> str:
    """Operations a second in TFLOP/s, without the unit."""
    return rate(per_s, 1e12)
