"""How often the gate is wrong, by recorded noise: `python -m benchmarks.gate.rates`.

Draws runs of the gate from sessions of one commit beside itself (`benchmarks/recorded_noise`), by
the gate's own test (`benchmarks.sessions`): of each case three sessions, three more where these do
not suffice, three others to confirm, and from the rest what is known of its noise. Nothing of a run
is known beforehand. Where a slowdown is planted, it is added to the log-ratios of one case of a
run. Each case's sessions are drawn by themselves, so that a run can have any number of cases; runs
of the recorded cases are also drawn by whole sessions, which keep what moves many cases at once.

It prints what part of the cases is flagged before it is confirmed and in what part of the runs
one is confirmed, where nothing changed, and what part is unstable; in what part of the runs one of
15 controls differs, and so that the run is void; and of each slowdown, in what part of the runs it
is found.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray

from benchmarks.compare import FALSE_DISCOVERY_RATE, MAX_DETECTABLE, POWER, least_found
from benchmarks.known_noise import MOST_DEGREES, RECORDED, session
from benchmarks.noise import NoiseError, Record, print_lines, read, same_on_both_sides
from benchmarks.sessions import CONFIRMED, MIN_SESSIONS, SOUGHT, moderated

Array = NDArray[np.float64]
SLOWDOWNS = (0.02, 0.03, 0.05, 0.10)
CONTROLS = 15
"""Of 300 cases, one in twenty."""
_LEAST_KNOWN = 3
_CASES_AT_ONCE = 100_000


@dataclass(frozen=True)
class Recorded:
    """Sessions of all cases.

    Attributes:
        ratio: (cases, sessions), log-ratios of kernl; NaN where there are no more sessions.
        drift: the same of eager; NaN besides where it does not run.
        session: the number of the session that each is of. A control, which is a second measurement
            of some cases in a session, has a negative one.
    """

    ratio: Array
    drift: Array
    session: NDArray[np.intp]

    @classmethod
    def of(cls, records: Iterable[Record]) -> Recorded:
        """Of cases that have enough sessions for a run and to know their noise besides."""
        enough = 3 * MIN_SESSIONS + _LEAST_KNOWN
        by_case = sorted(same_on_both_sides(_numbered(records)).items())
        several = [measured for _, measured in by_case if len(measured) >= enough]
        shape = (len(several), max(map(len, several), default=0))
        ratio, drift = np.full(shape, np.nan), np.full(shape, np.nan)
        number = np.zeros(shape, np.intp)
        for row, of_case in enumerate(several):
            sessions = [session(record) for record in of_case]
            ratio[row, : len(of_case)] = [one.ratio for one in sessions]
            drifts = np.array([one.drift for one in sessions])
            drift[row, : len(of_case)] = drifts if np.isfinite(drifts).all() else np.nan
            number[row, : len(of_case)] = [record["number"] for record in of_case]
        return cls(ratio, drift, number)


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
    *,
    together: bool = False,
) -> Run:
    """Runs over the cases of `rows` (runs, cases); `slowdown` is added to their log-ratios.

    With `together` a run has the same sessions of all its cases.
    """
    observed, known, degrees = _sessions(recorded, rows, chance, together=together)
    observed = observed + np.asarray(slowdown)[..., None]
    few = _Tested.of(observed[..., :MIN_SESSIONS], known, degrees)
    more = _Tested.of(observed[..., : 2 * MIN_SESSIONS], known, degrees)
    unsure = few.detectable > SOUGHT
    test = few.unless(unsure, more)
    again = _Tested.of(observed[..., 2 * MIN_SESSIONS :], known, degrees)
    few_and_again = np.delete(observed, np.s_[MIN_SESSIONS : 2 * MIN_SESSIONS], axis=-1)
    whole = _Tested.of(few_and_again, known, degrees)
    whole = whole.unless(unsure, _Tested.of(observed, known, degrees))
    flagged = test.flagged()
    return Run(
        flagged, flagged & _confirmed(again, whole), unsure, test.detectable > MAX_DETECTABLE
    )


def controls(recorded: Recorded, runs: int, seed: int) -> tuple[float, float]:
    """In what part of the runs a control differs at first, and in what part it is confirmed."""
    chance = np.random.default_rng(seed)
    alarmed, void = [], []
    for size in _batches(runs, CONTROLS):
        rows = _rows(recorded, (size, CONTROLS), chance)
        observed, known, degrees = _sessions(recorded, rows, chance)
        differs, confirmed = np.zeros((2, *rows.shape), bool)
        for sign in (1, -1):  # slower, and faster
            signed = sign * observed[..., : 2 * MIN_SESSIONS]
            flagged = _Tested.of(signed[..., :MIN_SESSIONS], known, degrees).flagged()
            again = _Tested.of(signed[..., MIN_SESSIONS:], known, degrees)
            differs |= flagged
            confirmed |= flagged & _confirmed(again, _Tested.of(signed, known, degrees))
        alarmed.append(differs.any(axis=-1))
        void.append(confirmed.any(axis=-1))
    return float(np.concatenate(alarmed).mean()), float(np.concatenate(void).mean())


def _sessions(
    recorded: Recorded,
    rows: NDArray[np.intp],
    chance: np.random.Generator,
    *,
    together: bool = False,
) -> tuple[Array, Array, Array]:
    """Of each case nine sessions, what is known of its noise by the others, and its degrees."""
    if together:
        numbers = recorded.session[rows]
        of_session = chance.random((len(rows), int(numbers.max()) + 1, 1))
        order = np.take_along_axis(of_session, np.maximum(numbers, 0).reshape(len(rows), -1, 1), 1)
        order = order.reshape(numbers.shape) + (numbers < 0)
    else:
        order = chance.random((*rows.shape, recorded.ratio.shape[1]))
    order[np.isnan(recorded.ratio[rows])] = 3.0  # what was not measured comes last
    places = np.argsort(order, axis=-1)
    ratio = np.take_along_axis(recorded.ratio[rows], places, axis=-1)
    drift = np.take_along_axis(recorded.drift[rows], places, axis=-1)
    # At most three sessions, three more for whom they do not suffice, three to confirm.
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
    return observed, known, degrees


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
        detectable = least + scipy.stats.t.isf(1 - POWER, freedom) * error
        p = np.asarray(scipy.stats.t.sf(effect / error, freedom))
        return cls(effect, threshold, p, np.expm1(detectable))

    def flagged(self) -> NDArray[np.bool_]:
        """Which cases are slower, over all cases of their run."""
        p = scipy.stats.false_discovery_control(self.p, axis=-1)
        return np.asarray((p <= FALSE_DISCOVERY_RATE) & (self.effect > self.threshold))

    def unless(self, where: NDArray[np.bool_], other: _Tested) -> _Tested:
        """Those of `other` where `where`."""
        return _Tested(
            np.where(where, other.effect, self.effect),
            np.where(where, other.threshold, self.threshold),
            np.where(where, other.p, self.p),
            np.where(where, other.detectable, self.detectable),
        )


def _confirmed(again: _Tested, whole: _Tested) -> NDArray[np.bool_]:
    return (again.p <= CONFIRMED) & (whole.effect > whole.threshold)


def unchanged(recorded: Recorded, cases: int, runs: int, seed: int) -> Unchanged:
    """Runs where nothing changed, each case's sessions drawn by themselves."""
    chance = np.random.default_rng(seed)
    return _said(
        draw(recorded, _rows(recorded, (size, cases), chance), 0.0, chance)
        for size in _batches(runs, cases)
    )


def unchanged_together(recorded: Recorded, runs: int, seed: int) -> Unchanged:
    """Runs of all recorded cases where nothing changed, by whole sessions."""
    chance = np.random.default_rng(seed)
    cases = recorded.ratio.shape[0]
    return _said(
        draw(recorded, np.tile(np.arange(cases), (size, 1)), 0.0, chance, together=True)
        for size in _batches(runs, cases)
    )


def _said(drawn: Iterable[Run]) -> Unchanged:
    some = list(drawn)
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
        yield _line(f"{size} cases", unchanged(recorded, size, runs, seed))
    yield _line(f"{cases} cases by whole sessions", unchanged_together(recorded, runs, seed))
    differs, void = controls(recorded, runs, seed)
    yield (
        f"nothing changed, {CONTROLS} controls: one differs at first in {100 * differs:.2f} % of "
        f"the runs, and again, so that these are void, in {100 * void:.2f} %"
    )
    for slowdown in SLOWDOWNS:
        part = found(recorded, 300, slowdown, runs, seed)
        yield f"one of 300 slower by {100 * slowdown:g} %: found in {100 * part:.1f} % of the runs"


def _line(what: str, seen: Unchanged) -> str:
    return (
        f"nothing changed, {what}: {100 * seen.flagged:.4f} % flagged before they are confirmed, "
        f"{seen.red} runs red; {100 * seen.unsure:.1f} % of the cases need three more sessions, "
        f"{100 * seen.unstable:.1f} % are unstable after these"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; exit code 2 and a message where there is none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate.rates", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", nargs="*", type=Path, default=sorted(RECORDED.glob("*.gz")))
    parser.add_argument("--runs", type=int, default=1000)
    options = parser.parse_args(arguments)
    try:
        records = (record for path in options.files for record in read(path))
        recorded = Recorded.of(records)
    except (NoiseError, KeyError, TypeError, ValueError) as error:
        print(f"rates: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if not recorded.ratio.size:
        needed = 3 * MIN_SESSIONS + _LEAST_KNOWN
        print(f"rates: no case has {needed} sessions beside itself", file=sys.stderr)
        return 2
    print_lines(lines(recorded, max(1, options.runs)))
    return 0


def _numbered(records: Iterable[Record]) -> Iterator[Record]:
    """With the number of the session, counted through all runs; below zero for a control."""
    run = 0
    numbers: dict[tuple[int, int, bool], int] = {}
    for record in records:
        run += record.get("kind") == "run"
        control = bool(record.get("control"))
        at = numbers.setdefault((run, record.get("session", 0), control), len(numbers))
        yield {**record, "number": -1 if control else at}


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
