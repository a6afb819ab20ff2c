"""What lies between two commits, and whether it can have changed what was measured.

Two stored runs come from different processes, often from different hosts. Of two on H100s between
which no operator's files had changed, 54 of 1,096 cases were slower by more than their own samples'
noise (`tests/suite/test_gate_reached.py`). So a case whose files say the same passes, however its
time moved. And mostly all implementations of a case move together from one process to the next:
kernl's time counts as slower where it moved further than theirs, and further than what cannot have
changed did.

The idea that the many cases in which nothing happened tell what chance does: B. Efron,
"Large-scale simultaneous hypothesis testing: the choice of a null hypothesis", J. Am. Stat. Assoc.
99 (2004).
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks import cases as frozen_cases
from benchmarks.compare import MIN_EFFECT, SPREAD_FACTOR
from benchmarks.gate.findings import CONTROL, TIMED, Finding, Key, Outcome, worst_first
from benchmarks.touched import Code, Tree, code_of

Codes = Callable[[str], Code]
Reached = Callable[[str, str], bool]
"""Of a suite and an operator or model in it: whether it can have changed."""

SAME_FILES = "every file that it depends on says the same in both commits"
MANY = 100
"""Fewer cases that cannot have changed do not tell how far two runs differ."""
UNTOLD = 0.07
"""What counts as chance then: 99 % of the cases of the two runs above moved by at most 6.6 % more
than other implementations did."""
MOST = 0.99
_MOVED: frozenset[Outcome] = frozenset({"regressed", "improved", "unstable"})


def codes_of(repository: Path) -> Codes:
    """What the suites depend on in a commit, each read once. It raises as `Tree.of` does."""
    frozen = frozen_cases.load()
    models = {name: frozen.operators(name) for name in frozen.models}

    @cache
    def code(commit: str) -> Code:
        return code_of(Tree.of(repository, commit), models, frozen.ops)

    return code


def reached_by(codes: Codes, old: str, new: str) -> Reached:
    """What the commits after `old`, up to `new`, can have changed; all where files do not tell."""
    try:
        before, behind = codes(old), codes(new)
    except (ValueError, OSError):
        return _everything

    def reached(suite: str, name: str) -> bool:
        one, other = (
            (code.models if suite == "models" else code.ops).get(name) for code in (before, behind)
        )
        return one is None or one != other

    return reached


def _everything(_suite: str, _name: str) -> bool:
    return True


def by_what_was_reached(
    findings: Iterable[Finding],
    reached: Reached,
    others: Mapping[Key, Mapping[str, float]],
    noise: Callable[[Key], float],
) -> tuple[list[Finding], list[str]]:
    """The findings of two stored runs, judged by what lies between their commits, worst first.

    A time that moved passes where the case cannot have changed. One that can have is slower or
    faster only if it moved further than every other implementation of the case did: by more than
    99 % of those that cannot have changed, by 7 % where fewer than 100 of the machine's and suite's
    cases tell that, and by more than three times what is known of its own noise. What failed stays
    as it was.

    Args:
        findings: of both runs.
        reached: what can have changed.
        others: `benchmarks.gate.findings.others_moved`.
        noise: by operator and case, the variance of kernl's log-ratio in two processes.

    Returns:
        The findings, and in words how far moved what cannot have changed.
    """
    timed: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    judged: list[Finding] = []
    for finding in findings:
        if finding.key.suite in TIMED and 0 < finding.ratio < math.inf:
            timed[finding.key.machine, finding.key.suite].append(finding)
        else:
            judged.append(finding)
    notes = []
    for (machine, suite), some in sorted(timed.items()):
        further = {one.key: _further(one, others.get(one.key, {})) for one in some}
        still = {one.key for one in some if not reached(suite, one.key.op)}
        limit = _most([further[key] for key in still])
        for one in some:
            if one.key in still:
                judged.append(_unreached(one))
            else:
                own = SPREAD_FACTOR * math.sqrt(noise(one.key))
                judged.append(_beyond(one, further[one.key], max(limit, own)))
        if still:
            notes.append(_in_words(suite, machine, len(still), limit))
    return sorted(judged, key=worst_first), notes


def _further(finding: Finding, others: Mapping[str, float]) -> float:
    """How much further than the others, and than not at all, a time moved: a log-ratio above 0."""
    own = math.log(finding.ratio)
    divided_out = others.get(CONTROL, 0.0) if finding.drift_removed else 0.0
    moves = [0.0, *(move - divided_out for move in others.values())]
    return max(own - max(moves), min(moves) - own, 0.0)


def _most(further: Sequence[float]) -> float:
    """What 99 % of those that cannot have changed stayed within, where they are many."""
    if len(further) < MANY:
        return math.log1p(UNTOLD)
    return max(math.log1p(MIN_EFFECT), float(np.quantile(further, MOST)))


def _unreached(finding: Finding) -> Finding:
    if finding.outcome not in _MOVED:
        return finding
    return replace(finding, outcome="pass", reason=f"{SAME_FILES}: the measurement moved")


def _beyond(finding: Finding, further: float, limit: float) -> Finding:
    if finding.outcome not in ("regressed", "improved") or further > limit:
        return finding
    slower = finding.outcome == "regressed"
    reason = (
        f"{'slower' if slower else 'faster'} by more than the noise of its samples, but only by "
        f"{_percent(further)} more than other implementations of the case, where "
        f"{_percent(limit)} may be chance: time both commits beside each other, with --measure"
    )
    return replace(finding, outcome="undecided" if slower else "pass", reason=reason)


def _in_words(suite: str, machine: str, count: int, limit: float) -> str:
    cases = f"{count} cases of {suite}" if count > 1 else f"1 case of {suite}"
    said = f"{cases} on {machine} cannot have changed, by the files that they depend on"
    if count >= MANY:
        said += (
            f"; 99 % of them moved by at most {_percent(limit)} more than other implementations "
            "did, and what did change has to move further"
        )
    return said


def _percent(log: float) -> str:
    return f"{100 * math.expm1(log):.1f} %"
