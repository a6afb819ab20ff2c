"""Faults planted in an operator that the real worker measures, and what is due to each.

`planted_op` is the operator. It stands in a copy of kernl, as a commit under test does.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import device as machine
from benchmarks.measure import resume
from benchmarks.measure.journal import Journal, Record, read
from benchmarks.measure.measuring import Lot
from benchmarks.measure.pool import Batch, measure_batches
from benchmarks.measure.sweep import Settings, Subject, SweepCase, sweep, worker_environment

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
VARIANTS = ("eager", "kernl")
CASE_TIMEOUT_S = {"cpu": 5.0, "cuda": 20.0}
Points = dict[str, dict[str, Record]]
"""By case, then by implementation."""


@dataclass(frozen=True)
class Fault:
    """A fault and what is due to it.

    Attributes:
        name: the choice of `planted_op` that does it.
        planted: what the kernel does, in words.
        said: words that the recorded reason has, by device; where a device is missing, the fault
            cannot be planted there.
        ends_worker: whether another worker is needed afterwards.
        costs: the implementations that lose their time.
    """

    name: str
    planted: str
    said: Mapping[str, tuple[str, ...]]
    ends_worker: bool = False
    costs: tuple[str, ...] = ("kernl",)


def _both(*words: str) -> dict[str, tuple[str, ...]]:
    return {"cpu": words, "cuda": words}


_LOST = ("the device is lost after", "illegal memory access")
_BY_SIGSEGV = "the worker was killed by SIGSEGV"

FAULTS = (
    Fault(
        "compile",
        "does not compile",
        _both("the check failed", "arange's range must be a power of 2"),
    ),
    Fault(
        "memory",
        "asks for a pebibyte of memory",
        {
            "cpu": ("the check failed: RuntimeError", "can't allocate memory"),
            "cuda": ("the check failed: OutOfMemoryError: CUDA out of memory",),
        },
    ),
    Fault(
        "hoard",
        "takes the GPU's memory piece by piece until none is left",
        {"cuda": ("the check failed: OutOfMemoryError: CUDA out of memory",)},
    ),
    Fault(
        "illegal",
        "writes where no memory is",
        {
            "cpu": (_BY_SIGSEGV, "during check of kernl"),
            "cuda": (*_LOST, "during check of kernl"),
        },
        ends_worker=True,
    ),
    Fault(
        "late",
        "writes where no memory is, but not before it is timed",
        {"cpu": (_BY_SIGSEGV, "during time"), "cuda": (*_LOST, "during time")},
        ends_worker=True,
        costs=VARIANTS,
    ),
    Fault(
        "hang",
        "never ends",
        {
            name: (f"no answer within {seconds:g} s during check of kernl",)
            for name, seconds in CASE_TIMEOUT_S.items()
        },
        ends_worker=True,
    ),
    Fault(
        "segfault",
        "dies of a segmentation fault",
        _both(f"{_BY_SIGSEGV} during check of kernl"),
        ends_worker=True,
    ),
    Fault(
        "killed",
        "is killed, as by a system out of memory",
        _both("the worker was killed by SIGKILL", "out of memory during check of kernl"),
        ends_worker=True,
    ),
    Fault(
        "exits",
        "ends its process by `sys.exit`",
        _both("the worker ended with status 1 during check of kernl"),
        ends_worker=True,
    ),
    Fault("wrong", "is wrong by one percent", _both("relative L2 error 0.01 against float64")),
    Fault(
        "holes",
        "leaves one element unwritten",
        _both("1 of ", "output elements are NaN or infinite: never written"),
    ),
    Fault("writes", "writes into its input", _both("the call changed its inputs: x")),
    Fault("prints", "prints lines of the worker's own protocol", _both(), costs=()),
)


class Planted:
    """A copy of kernl with the planted operator, and a journal."""

    def __init__(self, directory: Path, device: str) -> None:
        self.device = device
        self.code = directory / "code"
        self.journal = Journal(directory / "m" / "01234567-worktree.points.jsonl")
        self._ops = self.code / "kernl" / "ops"
        if not self.code.exists():
            self._plant()

    def _plant(self) -> None:
        shutil.copytree(ROOT / "kernl", self.code / "kernl")
        shutil.copy(Path(__file__).with_name("planted_op.py"), self._ops / "planted.py")
        with (self._ops / "__init__.py").open("a") as ops:
            ops.write("\nfrom kernl.ops.planted import PLANTED\n\nALL = (*ALL, PLANTED)\n")

    def sweep(self, cases: Sequence[SweepCase], case_timeout_s: float) -> Points:
        """Measure with the real worker what the journal does not have yet."""
        subject = _subject()
        reuse = resume.reusable(
            read(self.journal.path)[0],
            suite=subject.suite,
            op=subject.op,
            version=subject.version,
            variants=subject.implementations,
            commit=subject.commit,
            fingerprint=subject.fingerprint,
            after=None,
        )
        settings = Settings(self.device, budget_s=0.1, case_timeout_s=case_timeout_s)
        with self.journal:
            points = sweep(
                subject,
                cases,
                self.journal,
                settings=settings,
                reuse=reuse,
                environment=worker_environment(self.code),
            )
        found: Points = {case.name: {} for case in cases}
        for point in points:
            found[point["case"]][point["variant"]] = point
        return found

    def measure_together(
        self, cases: Sequence[SweepCase], case_timeout_s: float, workers: int
    ) -> Points:
        """Measure with several workers that share the device, as `make bench` does."""
        settings = Settings(self.device, budget_s=0.1, case_timeout_s=case_timeout_s)
        with self.journal:
            environment = worker_environment(self.code)
            batch = Batch([Lot(_subject(), cases)], settings, self.journal, environment)
            measure_batches([batch], workers=workers)
        found: Points = {case.name: {} for case in cases}
        for point in self.journal.points():
            found[point["case"]][point["variant"]] = point
        return found

    def log(self) -> list[str]:
        """What the operator noted: `worker PID`, `case NAME` and `hanging`."""
        path = self._ops / "planted.log"
        return path.read_text().splitlines() if path.exists() else []

    def workers_between(self, one: SweepCase, other: SweepCase) -> int:
        """How many workers were started after one case was begun, and before another was."""
        log = self.log()
        lines = log[log.index(f"case {one.name}") : log.index(f"case {other.name}")]
        return sum(line.startswith("worker ") for line in lines)

    def workers(self) -> list[int]:
        """The ids of all processes that measured."""
        return [int(line.split()[1]) for line in self.log() if line.startswith("worker ")]


def _subject() -> Subject:
    return Subject("planted", 1, COMMIT, "m", VARIANTS, machine.fingerprint())


def case(fault: str, rows: int) -> SweepCase:
    """A case of the planted operator; the rows tell one from another."""
    return SweepCase(f"{fault}_rows{rows}.fp32", {"fault": fault, "rows": rows}, "fp32")


def times(points: Mapping[str, Record]) -> set[str]:
    """The implementations of a case that have a time."""
    return {name for name, one in points.items() if one["status"] == "ok" and one["values"]["time"]}


def alive(pid: int) -> bool:
    """Whether a process still runs; one that nobody has waited for does not."""
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
