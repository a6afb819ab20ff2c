"""How often the gate is wrong, by recorded noise: `python -m benchmarks.gate.rates`.

Draws runs of the gate from sessions of one commit beside itself (`benchmarks/recorded_noise`), by
the gate's own test (`benchmarks.sessions`): of each case three sessions, three more where these do
not suffice, three others to confirm, and from the rest what is known of its noise. Nothing of a run
is known beforehand. Where a slowdown is planted, it is added to the log-ratios of one case of a
run. Each case's sessions are drawn by themselves: what moves many cases of one session at once is
not in these figures; the controls of a real run are there for that.

It prints what part of the cases is flagged before it is confirmed and in what part of the runs
one is confirmed, where nothing changed, and what part is unstable; and of each slowdown, in what
part of the runs it is found.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.compare import FALSE_DISCOVERY_RATE, MAX_DETECTABLE, POWER, least_found
from benchmarks.known_noise import MOST_DEGREES, RECORDED, Session, sessions_of
from benchmarks.noise import NoiseError, print_lines, read
from benchmarks.sessions import CONFIRMED, MIN_SESSIONS, SOUGHT, moderated

Array = NDArray[np.float64]
SLOWDOWNS = (0.02, 0.03, 0.05, 0.10)
_LEAST_KNOWN = 3
_CASES_AT_ONCE = 100_000


@dataclass(frozen=True)
class Recorded:
    """Sessions of all cases.

    Attributes:
        ratio: (cases, sessions), log-ratios of kernl; NaN where there are no more sessions.
        drift: the same of eager; NaN besides where it does not run.
    """

    ratio: Array
    drift: Array

    @classmethod
    def of(cls, sessions: Mapping[tuple[str, str], Sequence[Session]]) -> Recorded:
        """Of cases that have enough of them for a run and to know their noise besides."""
        enough = 3 * MIN_SESSIONS + _LEAST_KNOWN
        several = [one for _, one in sorted(sessions.items()) if len(one) >= enough]
        shape = (len(several), max(map(len, several), default=0))
        ratio, drift = np.full(shape, np.nan), np.full(shape, np.nan)
        for row, of_case in enumerate(several):
            ratio[row, : len(of_case)] = [one.ratio for one in of_case]
            drifts = np.array([one.drift for one in of_case])
            drift[row, : len(of_case)] = drifts if np.isfinite(drifts).all() else np.nan
        return cls(ratio, drift)


@dataclass(frozen=True)
class Run:
    """Runs of the gate over some cases each, (runs, cases).

    Attributes:
        flagged: slower, before it was measured again.
        red: and confirmed.
        unsure: a change of 3 % could be missed after three sessions, so three more are taken.
        unstable: one of 5 % could be missed all the same.
    """

    flagged: NDArray[np.bool_]
    red: NDArray[np.bool_]
    unsure: NDArray[np.bool_]
    unstable: NDArray[np.bool_]


@dataclass(frozen=True)
class Unchanged:
    """What is said where nothing changed.

    Attributes:
        flagged: the part of the cases, before they are confirmed.
        red: runs with a confirmed case.
        unsure: the part of the cases of which three more sessions are taken.
        unstable: the part in which a change of 5 % could be missed after these.
    """

    flagged: float
    red: int
    unsure: float
    unstable: float


def draw(
    recorded: Recorded,
    rows: NDArray[np.intp],
    slowdown: Array | float,
    chance: np.random.Generator,
) -> Run:
    """Runs over the cases of `rows` (runs, cases); `slowdown` is added to their log-ratios."""
    order = chance.random((*rows.shape, recorded.ratio.shape[1]))
    order[np.isnan(recorded.ratio[rows])] = 2.0  # what was not measured comes last
    places = np.argsort(order, axis=-1)
    ratio = np.take_along_axis(recorded.ratio[rows], places, axis=-1)
    drift = np.take_along_axis(recorded.drift[rows], places, axis=-1)
    # Three sessions, three more for whom they do not suffice, three to confirm.
    taken = 3 * MIN_SESSIONS
    known_ratio, known_drift = ratio[..., taken:], drift[..., taken:]
    raw = np.nanmean(known_ratio**2, axis=-1)
    left = np.sum(~np.isnan(known_ratio), axis=-1)
    # Where eager does not run, nothing is subtracted.
    without = np.where(
        np.isnan(drift[..., 0]), np.inf, _mean_square(known_ratio - known_drift, left)
    )
    removed = without < raw
    known, degrees = np.minimum(raw, without), np.minimum(left, MOST_DEGREES).astype(float)
    observed = np.where(removed[..., None], ratio - drift, ratio)[..., :taken]
    observed = observed + np.asarray(slowdown)[..., None]
    few = _Tested.of(observed[..., :MIN_SESSIONS], known, degrees)
    more = _Tested.of(observed[..., : 2 * MIN_SESSIONS], known, degrees)
    unsure = few.detectable > SOUGHT
    test = few.unless(unsure, more)
    flagged = stats.false_discovery_control(test.p, axis=-1) <= FALSE_DISCOVERY_RATE
    flagged &= test.effect > test.threshold
    again = _Tested.of(observed[..., 2 * MIN_SESSIONS :], known, degrees)
    few_and_again = np.delete(observed, np.s_[MIN_SESSIONS : 2 * MIN_SESSIONS], axis=-1)
    whole = _Tested.of(few_and_again, known, degrees)
    whole = whole.unless(unsure, _Tested.of(observed, known, degrees))
    confirmed = (again.p <= CONFIRMED) & (whole.effect > whole.threshold)
    return Run(flagged, flagged & confirmed, unsure, test.detectable > MAX_DETECTABLE)


@dataclass(frozen=True)
class _Tested:
    """The test of each case, (runs, cases)."""

    effect: Array
    threshold: Array
    p: Array
    detectable: Array

    @classmethod
    def of(cls, observed: Array, known: Array, degrees: Array) -> _Tested:
        effect, error, freedom, threshold = moderated(observed, known, degrees)
        least = least_found(error, freedom, threshold, observed.shape[-2])
        detectable = least + stats.t.isf(1 - POWER, freedom) * error
        p = np.asarray(stats.t.sf(effect / error, freedom))
        return cls(effect, threshold, p, np.expm1(detectable))

    def unless(self, where: NDArray[np.bool_], other: _Tested) -> _Tested:
        """Those of `other` where `where`."""
        return _Tested(
            np.where(where, other.effect, self.effect),
            np.where(where, other.threshold, self.threshold),
            np.where(where, other.p, self.p),
            np.where(where, other.detectable, self.detectable),
        )


def unchanged(recorded: Recorded, cases: int, runs: int, seed: int) -> Unchanged:
    """Runs where nothing changed, each case's sessions drawn by themselves."""
    chance = np.random.default_rng(seed)
    some = [
        draw(recorded, _rows(recorded, (size, cases), chance), 0.0, chance)
        for size in _batches(runs, cases)
    ]
    return Unchanged(
        float(np.concatenate([one.flagged for one in some]).mean()),
        int(np.concatenate([one.red for one in some]).any(axis=-1).sum()),
        float(np.concatenate([one.unsure for one in some]).mean()),
        float(np.concatenate([one.unstable for one in some]).mean()),
    )


def found(recorded: Recorded, cases: int, slowdown: float, runs: int, seed: int) -> float:
    """In what part of the runs a slowdown of one of their cases is found and confirmed."""
    chance = np.random.default_rng(seed)
    hits = 0
    for size in _batches(runs, cases):
        planted = np.zeros((size, cases))
        planted[:, 0] = np.log1p(slowdown)
        rows = _rows(recorded, planted.shape, chance)
        hits += int(draw(recorded, rows, planted, chance).red[:, 0].sum())
    return hits / runs


def lines(recorded: Recorded, runs: int, seed: int = 0) -> Iterator[str]:
    """The table, line by line."""
    cases, sessions = recorded.ratio.shape
    yield f"{cases} cases, up to {sessions} sessions each; {runs} runs of each kind"
    for size in (300, 5000):
        seen = unchanged(recorded, size, runs, seed)
        yield (
            f"nothing changed, {size} cases: {100 * seen.flagged:.4f} % flagged before they are "
            f"confirmed, {seen.red} runs red; {100 * seen.unsure:.1f} % of the cases need "
            f"three more sessions, {100 * seen.unstable:.1f} % are unstable after these"
        )
    for slowdown in SLOWDOWNS:
        part = found(recorded, 300, slowdown, runs, seed)
        yield f"one of 300 slower by {100 * slowdown:g} %: found in {100 * part:.1f} % of the runs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; exit code 2 and a message where there is none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate.rates", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", nargs="*", type=Path, default=sorted(RECORDED.glob("*.gz")))
    parser.add_argument("--runs", type=int, default=1000)
    options = parser.parse_args(arguments)
    try:
        records = (record for path in options.files for record in read(path))
        recorded = Recorded.of(sessions_of(records))
    except (NoiseError, KeyError, TypeError, ValueError) as error:
        print(f"rates: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if not recorded.ratio.size:
        needed = 3 * MIN_SESSIONS + _LEAST_KNOWN
        print(f"rates: no case has {needed} sessions beside itself", file=sys.stderr)
        return 2
    print_lines(lines(recorded, max(1, options.runs)))
    return 0


def _rows(
    recorded: Recorded, shape: tuple[int, ...], chance: np.random.Generator
) -> NDArray[np.intp]:
    return chance.integers(0, recorded.ratio.shape[0], shape)


def _batches(runs: int, cases: int) -> Iterator[int]:
    """Runs at a time, so that memory stays small."""
    at_once = max(1, _CASES_AT_ONCE // cases)
    yield from (min(at_once, runs - begun) for begun in range(0, runs, at_once))


def _mean_square(values: Array, count: NDArray[np.intp]) -> Array:
    return np.asarray(np.nansum(values**2, axis=-1) / count)


if __name__ == "__main__":
    sys.exit(main())
