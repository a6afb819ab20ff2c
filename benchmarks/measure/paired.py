"""Two commits beside each other: `python -m benchmarks.measure.paired BASE HEAD --out FILE`.

    python -m benchmarks.measure.paired HEAD~1 HEAD --out pairs.jsonl --bench 'kernels.Linear'
    python -m benchmarks.measure.paired HEAD HEAD --out noise.jsonl --sessions 10
    python -m benchmarks.measure.paired HEAD~1 HEAD --out pairs.jsonl --suite models

Each case is held ready by two processes, one a commit, which time it in blocks that take turns on
the GPU: base, head, head, base, or the other way round, by chance. What drifts meanwhile meets
both. A session is all cases with processes of its own, as two processes of one commit differ too.
Some of the cases are also measured base beside base: whoever finds a difference there may not
believe the others (`control`).

Several such pairs prepare their cases at the same time; one times while the others stand still
(`benchmarks.measure.turns`).

FILE gets a line of JSON for the run (`"kind": "run"`: what was compared, on what, how), and one for
each case of each session (`"kind": "pair"`), with its blocks in the order of their taking: whose
it was, and the seconds of each call of each implementation; and each side's clocks, temperature,
power and throttling meanwhile. A case that fails costs itself alone, and is written with the
reason.
"""

from __future__ import annotations

import argparse
import json
import re
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import cases as frozen_cases
from benchmarks.measure import device
from benchmarks.measure.ahead import UnknownCommit, checkout
from benchmarks.measure.for_asv import MODELS
from benchmarks.measure.fork_server import ForkServer
from benchmarks.measure.measuring import (
    SUITE,
    Settings,
    SweepCase,
    worker_command,
    worker_environment,
)
from benchmarks.measure.pairs import Asked, NoWorker, Plan, Write, measure_pairs
from benchmarks.measure.process import Launch, Message, WorkerRefusal, launched
from benchmarks.measure.selection import matching, regular_expression, whole_number
from benchmarks.measure.telemetry import Telemetry


def asked_for(bench: str, match: str, limit: int | None, suite: str = SUITE) -> list[Asked]:
    """Cases of a suite's operators or models whose benchmark fits `bench`, by name `match`.

    `limit`: so many of them, spread evenly over all.
    """
    frozen = frozen_cases.load()
    found = []
    for op in matching(frozen.ops if suite == SUITE else frozen.models, bench, suite):
        for name in frozen.kernel_cases(op):
            if re.search(match, name):
                cost = frozen.cost(op, name) if suite == SUITE else None
                moved = cost.bytes if cost is not None else 0
                dims, dtype = frozen.dims(op, name), frozen.dtype(op, name)
                case = SweepCase(name, dims, dtype, bytes=moved)
                found.append(Asked(op, frozen.version(op), case, suite))
    return spread(found, limit)


def spread(asked: list[Asked], limit: int | None) -> list[Asked]:
    """At most so many of them, spread evenly."""
    if limit is None or limit >= len(asked):
        return asked
    return [asked[place * len(asked) // limit] for place in range(limit)]


Launches = tuple[Launch, Launch]
"""How a worker of the older commit is started, and one of the newer."""


@dataclass(frozen=True)
class TwoCommits:
    """Two commits whose workers can be started here, as a context: they end when it is left.

    Attributes:
        base: full hash of the older commit.
        head: full hash of the newer one.
    """

    base: str
    head: str
    device: str
    _code: tuple[Path | None, Path | None]
    _launches: dict[str, Launches] = field(default_factory=dict)
    _running: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def of(cls, base: str, head: str, device: str = "cuda") -> TwoCommits:
        """Of two revisions, on `cuda`, or `cpu` for a dry run. Raises UnknownCommit."""
        older, newer = checkout(base), checkout(head)
        return cls(older.commit, newer.commit, device, (older.code, newer.code))

    def __enter__(self) -> TwoCommits:
        return self

    def __exit__(self, *_: object) -> None:
        self._launches.clear()
        self._running.close()

    def measure(self, asked: Sequence[Asked], plan: Plan, write: Write) -> None:
        """Write what is compared, and then what `benchmarks.measure.pairs.measure_pairs` does.

        Raises what that raises.
        """
        card = device.gpu() if self.device == "cuda" else None
        for suite in dict.fromkeys(one.suite for one in asked):
            seed = secrets.randbelow(1 << 31)
            how = {name: value for name, value in asdict(plan).items() if name != "until"}
            about = {"kind": "run", "base": self.base, "head": self.head, "seed": seed, "plan": how}
            write({**about, "fingerprint": {**device.fingerprint(suite)}})
            settings = Settings() if suite == SUITE else MODELS
            measure_pairs(
                [one for one in asked if one.suite == suite],
                *self._launched(suite),
                plan,
                write,
                memory=Telemetry(card.uuid).memory if card else lambda: None,
                seed=seed,
                settings=replace(settings, device=self.device),
            )

    def _launched(self, suite: str) -> Launches:
        """How workers of the two commits are started. Raises OSError."""
        if suite not in self._launches:
            command = [*worker_command(self.device, suite), "--paired"]
            older, newer = (self._launch(suite, command, code) for code in self._code)
            self._launches[suite] = older, newer
        return self._launches[suite]

    def _launch(self, suite: str, command: Sequence[str], code: Path | None) -> Launch:
        """An operator's are forked, where the system can. A model's import what may use CUDA."""
        environment, here = worker_environment(code), Path(tempfile.gettempdir())
        if suite != SUITE or sys.platform != "linux":
            return launched(command, environment, here)
        return self._running.enter_context(ForkServer(command, environment, here)).launch


@contextmanager
def written_to(path: Path) -> Iterator[Write]:
    """What adds a record to a file, at once, as a line of JSON. Raises OSError."""
    with path.open("a", encoding="utf-8") as file:

        def write(record: Message) -> None:
            file.write(json.dumps(_short(record), allow_nan=False) + "\n")
            file.flush()

        yield write


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; exit code 2 and a message where it cannot."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.measure.paired", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("base", metavar="BASE", help="the older commit: any git revision")
    parser.add_argument("head", metavar="HEAD", help="the newer one; the same, to see the noise")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="it is added to")
    parser.add_argument("--suite", choices=(SUITE, "models"), default=SUITE)
    parser.add_argument("--bench", type=regular_expression, default="", metavar="REGEX")
    parser.add_argument("--match", type=regular_expression, default="", metavar="REGEX")
    parser.add_argument("--limit", type=whole_number(1), help="so many cases at most")
    for name in ("sessions", "quads", "rounds", "pairs"):
        parser.add_argument(f"--{name}", type=whole_number(1), default=getattr(Plan(), name))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and device.gpu() is None:
        parser.error("no NVIDIA GPU on this machine; --device cpu tries the machinery without one")
    asked = asked_for(options.bench, options.match, options.limit, options.suite)
    if not asked:
        parser.error(f"no case fits {options.bench!r} and contains {options.match!r}")
    plan = Plan(options.sessions, options.quads, options.rounds, options.pairs)
    try:
        with (
            TwoCommits.of(options.base, options.head, options.device) as bench,
            written_to(options.out) as write,
        ):
            bench.measure(asked, plan, write)
    except (UnknownCommit, WorkerRefusal, NoWorker, OSError) as error:
        print(f"paired: {error}", file=sys.stderr)
        return 2
    return 0


def _short(value: Any) -> Any:
    """The same, with six digits of every number that is not whole."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {name: _short(each) for name, each in value.items()}
    return [_short(each) for each in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
