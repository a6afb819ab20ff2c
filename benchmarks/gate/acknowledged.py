"""`acknowledged.toml`: regressions that a review accepted, each with a reason."""

import datetime
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from benchmarks.asv_file import METRICS
from benchmarks.gate import reviewed
from benchmarks.gate.findings import Finding, worst_first

PATH = Path(__file__).parents[1] / "acknowledged.toml"
_LIST = "acknowledged"
KEYS = ("suite", "op", "case", "metric", "variant", "commit", "reason", "expires", "limit")
_MAX_LIMIT = 1e9
_COMMIT = re.compile(r"[0-9a-f]{7,40}")


@dataclass(frozen=True)
class Acknowledged:
    """One accepted regression.

    Attributes:
        line: line of the file where the entry begins (1 is the first; 0 unknown).
        suite: "kernels", "models" or "codegen".
        op: name of the operator or model, exact.
        case: pattern of case names, as the shell writes them (`rows*_cols768.fp16`).
        metric: the metric, exact.
        variant: pattern of implementations or architectures.
        commit: at least 7 hexadecimal digits of the commit that brought the regression.
        reason: why it is accepted.
        expires: last day (UTC) on which it is accepted.
        limit: how many times worse is accepted: head / base, or base / head where higher is
            better; inf accepts a count that was 0.
    """

    line: int
    suite: str
    op: str
    case: str
    metric: str
    variant: str
    commit: str
    reason: str
    expires: datetime.date
    limit: float

    def matches(self, suite: str, op: str, metric: str, case: str, variant: str) -> bool:
        """Whether this entry is about that measurement."""
        return (
            (self.suite, self.op, self.metric) == (suite, op, metric)
            and fnmatchcase(case, self.case)
            and fnmatchcase(variant, self.variant)
        )

    def __str__(self) -> str:
        where = f"line {self.line}" if self.line else "an entry"
        return f"{where} ({self.suite} {self.op} {self.metric} {self.case} {self.variant})"


def load(path: Path) -> list[Acknowledged]:
    """Read the file. Raises `benchmarks.gate.reviewed.ReviewedError` where it cannot be used."""
    entries = reviewed.read(path, _LIST, KEYS, lambda entry: _wrong(entry.table))
    return [_entry(entry.line, entry.table) for entry in entries]


def acknowledge(
    findings: Sequence[Finding],
    entries: Sequence[Acknowledged],
    commits: Iterable[str],
    today: datetime.date,
) -> tuple[list[Finding], list[str]]:
    """Turn regressions that a review accepted into "acknowledged".

    Args:
        findings: of `benchmarks.gate.findings.find`.
        entries: of `load`.
        commits: full hashes that are being gated; entries of others do not count.
        today: the date in UTC.

    Returns:
        The findings, and a sentence for each entry that is expired, stale or matches nothing.
    """
    gated = tuple(commits)
    words, valid = [], []
    for entry in entries:
        if entry.expires < today:
            words.append(f"{entry} expired on {entry.expires.isoformat()}: take it out")
        elif not _is_of(entry, gated):
            words.append(f"{entry} is stale: {entry.commit} is not among the gated commits")
        else:
            valid.append(entry)
    used: set[int] = set()
    result = [_acknowledged(finding, valid, used) for finding in findings]
    words += [
        f"{entry} matches no regression: take it out"
        for index, entry in enumerate(valid)
        if index not in used
    ]
    return sorted(result, key=worst_first), words


def _acknowledged(finding: Finding, entries: list[Acknowledged], used: set[int]) -> Finding:
    # A crash has no ratio, so no limit covers it: it is never acknowledged.
    if finding.outcome != "regressed":
        return finding
    key, reasons = finding.key, []
    for index, entry in enumerate(entries):
        if not entry.matches(key.suite, key.op, key.metric, key.case, key.variant):
            continue
        if finding.commits and not _is_of(entry, finding.commits):
            continue
        used.add(index)
        if finding.worse <= entry.limit:
            return replace(finding, outcome="acknowledged", reason=f"accepted: {entry.reason}")
        reasons.append(f"accepted only up to {entry.limit:g} times, is {finding.worse:.4g} times")
    return replace(finding, reason="; ".join([finding.reason, *reasons]))


def _is_of(entry: Acknowledged, commits: Iterable[str]) -> bool:
    return any(commit.startswith(entry.commit) for commit in commits)


def _entry(line: int, entry: dict[str, Any]) -> Acknowledged:
    fields = {**entry, "expires": _date(entry["expires"]), "limit": float(entry["limit"])}
    return Acknowledged(line=line, **fields)


def _date(value: object) -> datetime.date | None:
    if isinstance(value, datetime.datetime):
        return None
    if isinstance(value, datetime.date):
        return value
    try:
        return datetime.date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _wrong(entry: dict[str, Any]) -> list[str]:
    """What is wrong with one table, in words."""
    wrong = [f"{key!r} is missing, it is needed" for key in KEYS if key not in entry]
    wrong += reviewed.unknown(entry, _LIST, KEYS)
    for key in ("op", "case", "variant", "reason"):
        value = entry.get(key, "x")
        if not isinstance(value, str) or not value.strip():
            wrong.append(f"{key!r} is {value!r}, it must be text that is not empty")
    suite = entry.get("suite")
    if "suite" in entry and (not isinstance(suite, str) or suite not in METRICS):
        wrong.append(f"'suite' is {suite!r}, allowed: {', '.join(METRICS)}")
    metrics = METRICS.get(suite, ()) if isinstance(suite, str) else ()
    if metrics and "metric" in entry and entry["metric"] not in metrics:
        wrong.append(f"'metric' is {entry['metric']!r}, allowed for {suite}: {', '.join(metrics)}")
    commit = entry.get("commit", "0" * 7)
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        wrong.append(f"'commit' is {commit!r}, it must be 7 to 40 lower-case hexadecimal digits")
    if "expires" in entry and _date(entry["expires"]) is None:
        wrong.append(f"'expires' is {entry['expires']!s}, it must be a date such as 2031-12-31")
    limit = entry.get("limit", 1.0)
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not _is_limit(limit):
        wrong.append(
            f"'limit' is {limit!r}, it must be a number from 1 to {_MAX_LIMIT:g}: how many times "
            f"worse is accepted ({math.inf} for a count that was 0)"
        )
    return wrong


def _is_limit(limit: float) -> bool:
    return 1 <= limit <= _MAX_LIMIT or limit == math.inf
