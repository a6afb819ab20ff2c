"""`python -m benchmarks.limits [COMMIT]`: does every kernel fit its GPU without spilling?

Reads the stored compile-only metrics of a commit (HEAD unless named). A case that spills must be
excused in `benchmarks/excused_spills.toml`, with a reason and a limit; shared memory must be within
what one block may use on that architecture; a case that did not compile is never excused.

Exit codes: 0 all within the limits; 1 something is not; 2 nothing to judge.
"""

import argparse
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from benchmarks import store
from benchmarks.cases import was_left_out
from benchmarks.gate.command import RESULTS
from benchmarks.gate.revisions import GateError, resolve
from kernl.ops.tile import shared_memory_limit

EXCUSED = Path(__file__).parent / "excused_spills.toml"
_KEYS = {"op": str, "case": str, "variant": str, "limit": int, "reason": str}
_MACHINE = "compile-only"


class ExcuseError(Exception):
    """The file of excuses cannot be used; the message says what was seen and what is allowed."""


@dataclass(frozen=True)
class Excuse:
    """Spills that a review accepted.

    Attributes:
        op: the operator, exact.
        case: pattern of case names, as the shell writes them.
        variant: pattern of architectures.
        limit: the most instructions that touch local memory.
        reason: why they are accepted.
    """

    op: str
    case: str
    variant: str
    limit: int
    reason: str

    def covers(self, row: dict[str, Any]) -> bool:
        """Whether this excuse is about that case."""
        return (
            self.op == row["op"]
            and fnmatchcase(row["case"], self.case)
            and fnmatchcase(row["variant"], self.variant)
        )


def load_excuses(path: Path = EXCUSED) -> list[Excuse]:
    """Read the reviewed list.

    Raises:
        ExcuseError: the file is absent, no TOML, or an entry has other keys or types.
    """
    allowed = f"allowed: [[excused]] tables with the keys {', '.join(_KEYS)}"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExcuseError(f"{path} cannot be read: {error}; {allowed}.") from error
    entries = document.get("excused", [])
    for entry in entries:
        good = set(entry) == set(_KEYS) and all(type(entry[k]) is t for k, t in _KEYS.items())
        if not good:
            raise ExcuseError(f"{path}: {entry!r}; {allowed}.")
    return [Excuse(**entry) for entry in entries]


def judge(rows: Iterable[dict[str, Any]], excuses: Sequence[Excuse]) -> tuple[list[str], int]:
    """What is beyond its limit, a sentence each, and how many cases were judged.

    `rows` are those of `benchmarks.store.Store.rows` for one commit. An excuse for cases none of
    which spills is reported too, unless a quick run left some of its cases out.
    """
    found: list[str] = []
    used: set[Excuse] = set()
    looked_at: set[Excuse] = set()
    not_all: set[Excuse] = set()
    judged = 0
    for row in rows:
        where = f"{row['op']} {row['case']} on {row['variant']}"
        if row["status"] == "failed" and row["metric"] == "spills":
            found.append(f"{where} did not compile: {row['reason']}")
        if was_left_out(row["reason"]):
            not_all.update(excuse for excuse in excuses if excuse.covers(row))
        if row["status"] != "ok":
            continue
        if row["metric"] == "spills":
            judged += 1
            looked_at.update(excuse for excuse in excuses if excuse.covers(row))
            found += _spilled(where, row, excuses, used)
        elif row["metric"] == "shared_memory":
            limit = shared_memory_limit(int(row["variant"].removeprefix("sm_")))
            if row["value"] > limit:
                found.append(
                    f"{where} asks for {row['value']:.0f} bytes of shared memory, a block may use "
                    f"{limit}: choose smaller blocks or fewer stages there"
                )
    found += [
        f"the excuse for {excuse.op} {excuse.case} on {excuse.variant} excuses nothing: take it out"
        for excuse in excuses
        if excuse in looked_at - used - not_all
    ]
    return found, judged


def _spilled(
    where: str, row: dict[str, Any], excuses: Sequence[Excuse], used: set[Excuse]
) -> list[str]:
    if row["value"] == 0:
        return []
    covering = [excuse for excuse in excuses if excuse.covers(row)]
    used.update(covering)
    limit = max((excuse.limit for excuse in covering), default=0)
    if row["value"] <= limit:
        return []
    return [
        f"{where} spills: {row['value']:.0f} instructions touch local memory, {limit} are excused "
        f"in {EXCUSED.name}: choose smaller blocks or more warps there"
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Judge one commit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("commit", nargs="?", default="HEAD")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    rows = store.load(options.results).rows
    rows = rows[(rows["suite"] == "codegen") & (rows["machine"] == _MACHINE)]
    try:
        commit = resolve(options.commit, sorted(set(rows["commit"])))
        excuses = load_excuses()
    except (GateError, ExcuseError) as error:
        print(f"limits: {error}", file=sys.stderr)
        return 2
    found, judged = judge(rows[rows["commit"] == commit].to_dict("records"), excuses)
    for sentence in found:
        print(sentence)
    if found:
        print(f"limits: {len(found)} beyond them, {judged} cases judged")
        return 1
    if not judged:
        print(f"limits: no compile-only results for {commit[:12]}: run `make bench`")
        return 2
    print(f"limits: {judged} cases of {commit[:12]} compile within them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
