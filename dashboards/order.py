"""The order in which pages name cases and implementations."""

from collections.abc import Collection, Iterable
from functools import lru_cache

from dashboards.data.summary import BASELINE, OURS, PARTS


@lru_cache(maxsize=2**16)
def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that puts `rows8` before `rows16`."""
    found: list[tuple[int, int, str]] = []
    digits = ""
    for character in f"{name}\0":
        if "0" <= character <= "9":
            digits += character
            continue
        if digits:
            found.append((0, int(digits[:30]), ""))
            digits = ""
        found.append((1, 0, character))
    return tuple(found)


def timed_first(cases: Iterable[str], timed: Collection[str]) -> list[str]:
    """Cases in natural order, those that have times before the others."""
    return sorted(cases, key=lambda case: (case not in timed, natural(case)))


def ordered_variants(names: Iterable[str]) -> list[str]:
    """kernl first, then its parts, eager last, the others between; architectures by number."""
    rank = {OURS: 0, **dict.fromkeys(PARTS, 1), BASELINE: 3}
    return sorted((str(name) for name in names), key=lambda n: (rank.get(n, 2), natural(n)))
