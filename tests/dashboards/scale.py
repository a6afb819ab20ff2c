"""Made-up result files of any size: `python -m tests.dashboards.scale DIR --commits 500`.

Nothing here was ever measured. Each commit's numbers come from the seed and the commit's number
alone: the same arguments give the same bytes, and `--first 500 --commits 1` adds to a folder of 500
commits what a run of 501 would have written. A time is the case's own, over what its implementation
gains, times what the run, the process and each sample add. Some cases get slower on the way
(`planted`); some of kernl's are skipped, others fail for a while.
"""

import argparse
import datetime
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.dashboards import scale_files

MACHINE = "nvidia-h100-scale"
START = datetime.datetime(2025, 1, 6, 9, tzinfo=datetime.UTC)
"""When the first commit was made; one follows every day."""
OPS = (
    "ScaleSoftmax", "ScaleLayerNorm", "ScaleRmsNorm", "ScaleGeglu", "ScaleSwiglu", "ScaleLinear",
    "ScaleAttention", "ScaleRotary", "ScaleCrossEntropy", "ScaleEmbedding",
)  # fmt: skip
"""As asv names them; any more go by number."""
OTHERS = (
    "eager", "compile", "library", "liger", "triton_tutorial", "xformers", "sdpa_flash",
    "sdpa_efficient", "sdpa_cudnn",
)  # fmt: skip
"""Implementations beside kernl; a smaller scale has the first of them."""
ERRORS = {"fp16": (2.6e-4, 2e-3), "bf16": (2.1e-3, 2e-2), "fp32": (4e-7, 3e-5)}
"""dtype → error against the reference, as it is about and as it may be."""

SHORTEST, LONGEST = 3e-6, 3e-3
TICK = 5e-10
"""Times of eager, and the step of the clock that takes them, in seconds."""
RUN_NOISE, POINT_NOISE, SAMPLE_NOISE = 0.003, 0.004, 0.004
"""What all of a run share, what all samples of one point share (0.5 % together), and each one's."""
SKIPPED, FAILED, FAILED_FOR = 0.03, 0.005, 25
"""Shares of kernl's points, and after how many commits others fail."""
STEPS, STEP = 20, 1.08
CREEP, CREEPS_FOR = 1.01, 10
"""How much slower one case gets at each of so many commits."""


@dataclass(frozen=True)
class Scale:
    """How much is made up.

    Attributes:
        cases: of all operators together.
        commits: how many are written.
        step_at, creep_at: numbers of the commits, counted from 0, that make kernl slower.
    """

    cases: int = 5000
    implementations: int = 6
    commits: int = 500
    ops: int = 10
    samples: int = 30
    seed: int = 1
    step_at: int = 250
    creep_at: int = 300

    def __post_init__(self) -> None:
        if not 1 <= self.ops <= self.cases:
            raise ValueError(f"{self.cases} cases of {self.ops} operators: each needs a case")
        if not 1 <= self.implementations <= len(OTHERS) + 1:
            raise ValueError(f"there are 1 to {len(OTHERS) + 1} implementations")
        if self.samples < 8 or self.commits < 1:
            raise ValueError(
                "a point has at least 8 samples, or no interval; and 1 commit at least"
            )

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the implementations, kernl last."""
        return (*OTHERS[: self.implementations - 1], "kernl")

    def commit(self, number: int) -> str:
        """A commit's hash."""
        return hashlib.sha1(f"scale {self.seed} commit {number}".encode()).hexdigest()


@dataclass(frozen=True)
class Move:
    """A case of kernl that got `ratio` times as slow in the commits from `first` to `last`."""

    op: str
    case: str
    first: int
    last: int
    ratio: float


@dataclass(frozen=True)
class _Plan:
    """What stays the same in all commits. Arrays are by case, in the order of the operators."""

    ops: dict[str, slice]
    op_of: tuple[str, ...]  # as the store names it
    cases: tuple[str, ...]
    names: tuple[str, ...]
    times: NDArray[np.float64]  # by case and implementation, of the first commit, without noise
    errors: NDArray[np.float64]
    allowed: NDArray[np.float64]
    skipped: NDArray[np.bool_]
    steps: NDArray[np.intp]
    creep: int


def planted(scale: Scale) -> list[Move]:
    """The cases that get slower, the slow creep last; also where the scale ends before."""
    plan = _plan(scale)

    def move(at: int, first: int, last: int, ratio: float) -> Move:
        return Move(plan.op_of[at], plan.cases[at], first, last, ratio)

    steps = [move(int(at), scale.step_at, scale.step_at, STEP) for at in plan.steps]
    last = scale.creep_at + CREEPS_FOR - 1
    return [*steps, move(plan.creep, scale.creep_at, last, CREEP**CREEPS_FOR)]


@lru_cache(maxsize=4)
def _plan(scale: Scale) -> _Plan:
    ops: dict[str, slice] = {}
    op_of: list[str] = []
    cases: list[str] = []
    for number in range(scale.ops):
        name = OPS[number] if number < len(OPS) else f"ScaleOp{number}"
        begin, end = (scale.cases * edge // scale.ops for edge in (number, number + 1))
        ops[name] = slice(begin, end)
        snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in name)[1:]
        op_of += [snake] * (end - begin)
        cases += [_case(at) for at in range(end - begin)]
    rng = np.random.default_rng([scale.seed, 0])
    eager = np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST), scale.cases))
    gains = rng.uniform(0.9, 2.4, (scale.cases, scale.implementations))
    gains[:, 0] = 1.0
    gains[:, -1] = rng.uniform(0.95, 3.2, scale.cases)
    errors = np.array([ERRORS[case.rpartition(".")[2]] for case in cases])
    skipped = rng.random(scale.cases) < SKIPPED
    skipped[int(rng.integers(scale.cases))] = False
    moving = rng.permutation(np.flatnonzero(~skipped))[: 1 + min(STEPS, scale.cases // 4)]
    return _Plan(
        ops=ops,
        op_of=tuple(op_of),
        cases=tuple(cases),
        names=tuple(
            f'"suite":"kernels","op":"{op}","case":"{case}","variant":"{variant}"'
            for op, case in zip(op_of, cases, strict=True)
            for variant in scale.variants
        ),
        times=eager[:, None] / gains,
        errors=errors[:, 0] * rng.uniform(0.7, 1.3, scale.cases),
        allowed=errors[:, 1],
        skipped=skipped,
        steps=np.sort(moving[1:]),
        creep=int(moving[0]),
    )


def _case(number: int) -> str:
    size, dtype = divmod(number, len(ERRORS))
    rows, cols = 2 ** (2 + size % 12), 64 * (1 + size // 12)
    return f"rows{rows}_cols{cols}.{list(ERRORS)[dtype]}"


def true_times(scale: Scale, number: int) -> NDArray[np.float64]:
    """Seconds by case and implementation at a commit, without any noise."""
    plan = _plan(scale)
    times = plan.times.copy()
    if number >= scale.step_at:
        times[plan.steps, -1] *= STEP
    times[plan.creep, -1] *= CREEP ** int(np.clip(number - scale.creep_at + 1, 0, CREEPS_FOR))
    return times


def write(directory: Path, scale: Scale, first: int = 0, jobs: int = 1) -> None:
    """Write the commits from number `first` on, and the machine's own file."""
    for _ in _written(directory, scale, first, jobs):
        pass


def _written(directory: Path, scale: Scale, first: int, jobs: int) -> Iterator[int]:
    """Writes, and yields how many commits are there."""
    folder = directory / MACHINE
    folder.mkdir(parents=True, exist_ok=True)
    machine = json.dumps({"machine": MACHINE, "version": 1}, indent=4)
    (folder / "machine.json").write_text(machine, encoding="utf-8")
    numbers = range(first, first + scale.commits)
    one = partial(_write_commit, directory, scale)
    if jobs == 1:
        for done, number in enumerate(numbers, start=1):
            one(number)
            yield done
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(one, numbers), start=1):
            yield done


def _write_commit(directory: Path, scale: Scale, number: int) -> None:
    plan = _plan(scale)
    rng = np.random.default_rng([scale.seed, 1, number])
    runs = _runs(scale, number, rng)
    # Operators that follow each other are measured by one run.
    place = {op: at * len(runs) // scale.ops for at, op in enumerate(dict.fromkeys(plan.op_of))}
    run = [place[op] for op in plan.op_of]
    shared = 1 + RUN_NOISE * rng.standard_normal(len(runs))[run, None]
    shared = shared * (1 + POINT_NOISE * rng.standard_normal(plan.times.shape))
    exact = (true_times(scale, number) * shared).reshape(-1, 1)
    own = SAMPLE_NOISE * rng.standard_normal((exact.size, scale.samples), dtype=np.float32)
    status, reasons, errors = _outcomes(scale, number, rng)
    scale_files.write(
        directory,
        scale_files.Measured(
            machine=MACHINE,
            commit=scale.commit(number),
            committed_at=_day(number),
            ops=plan.ops,
            cases=plan.cases,
            variants=scale.variants,
            names=plan.names,
            runs=runs,
            run=run,
            samples=scale_files.whole(exact * (1 + own), TICK),
            status=status,
            reasons=reasons,
            errors=errors,
            telemetry=_telemetry(scale.cases, rng),
        ),
    )


def _outcomes(
    scale: Scale, number: int, rng: np.random.Generator
) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Status, reason and error of each point."""
    plan = _plan(scale)
    period = number // FAILED_FOR
    failed = np.random.default_rng([scale.seed, 2, period]).random(scale.cases) < FAILED
    failed &= ~plan.skipped
    failed[[plan.creep, *plan.steps]] = False
    errors = plan.errors[:, None] * (1 + 0.01 * rng.standard_normal(plan.times.shape))
    errors[failed, -1] = 40 * plan.errors[failed]
    errors[plan.skipped, -1] = np.nan
    status = np.full(plan.times.shape, "ok", dtype="U7")
    status[failed, -1] = "failed"
    status[plan.skipped, -1] = "skipped"
    reasons = [""] * plan.times.size
    kernl = scale.implementations - 1
    for at in map(int, np.flatnonzero(plan.skipped)):
        reasons[at * scale.implementations + kernl] = f"kernl's {plan.op_of[at]} has no such rows"
    for at in map(int, np.flatnonzero(failed)):
        reasons[at * scale.implementations + kernl] = (
            f"relative L2 error {errors[at, -1]:.3g} against float64, allowed is "
            f"{plan.allowed[at]:g} (inputs of seed {(period + 1) * 1_000_003 + at})"
        )
    return status.reshape(-1).tolist(), reasons, errors.reshape(-1)


def _runs(scale: Scale, number: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Two or three records of runs; no more than operators."""
    rates = {
        "copy_bytes_per_s": 3.01e12, "fp16_flops_per_s": 7.73e14, "bf16_flops_per_s": 7.9e14,
        "fp32_flops_per_s": 5.2e13, "tf32_flops_per_s": 3.96e14,
    }  # fmt: skip
    found: list[dict[str, Any]] = []
    for at in range(min(2 + number % 2, scale.ops)):
        name = f"scale {scale.seed} commit {number} run {at}"
        started = _day(number) + datetime.timedelta(minutes=20 + 5 * at, microseconds=934404)
        known = {key: rate * (1 + 0.002 * rng.standard_normal()) for key, rate in rates.items()}
        fingerprint = {
            "gpu": "NVIDIA H100 80GB HBM3", "gpu_id": "5ca1e0000001",
            "driver": "570.86.15" if number < 150 else "580.159.04", "memory_bytes": 85520809984,
            "torch": "2.11.0+cu130", "cuda": "13.0", "triton": "3.6.0", "transformers": "5.17.0",
            "ptxas": "12.8.93", "python": "3.12.3", "os": "Linux x86_64", "suite": "kernels",
            "capability": "9.0", "sm_count": 132, "l2_bytes": 52428800, **known,
        }  # fmt: skip
        found.append(
            {
                "kind": "run", "id": hashlib.md5(name.encode()).hexdigest(),
                "commit": scale.commit(number), "machine": MACHINE,
                "started_at": started.isoformat(), "fingerprint": fingerprint,
            }
        )  # fmt: skip
    return found


def _day(number: int) -> datetime.datetime:
    return START + datetime.timedelta(days=number)


def _telemetry(cases: int, rng: np.random.Generator) -> list[str]:
    """Of each case, whose implementations are timed in turns."""
    heat = rng.integers(45, 70, cases).tolist()
    power = rng.uniform(150, 640, cases).round(1).tolist()
    busy = rng.uniform(1, 15, cases).round(2).tolist()
    capped = '"software power cap"'
    return [
        f'{{"sm_clock_mhz":1980.0,"memory_clock_mhz":2619.0,"temperature_c":{degrees}.0,'
        f'"power_w":{watts!r},"sm_clock_mhz_min":1980.0,'
        f'"throttle":[{capped if watts > 560 else ""}],'
        f'"host_cores_busy":{cores!r},"host_cores_stolen":0.0}}'
        for degrees, watts, cores in zip(heat, power, busy, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes what is asked for, and says on standard error how far it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, metavar="DIR")
    for field in fields(Scale):
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, type=int, default=field.default, help="default: %(default)s")
    parser.add_argument("--first", type=int, default=0, help="number of the first one: 0")
    parser.add_argument("--jobs", type=int, default=2, help="processes: 2")
    asked = vars(parser.parse_args(arguments))
    directory, first, jobs = (asked.pop(name) for name in ("directory", "first", "jobs"))
    try:
        scale = Scale(**asked)
    except ValueError as error:
        parser.error(str(error))
    started = time.monotonic()
    end = "\r" if sys.stderr.isatty() else "\n"
    for done in _written(directory, scale, first, jobs):
        left = (time.monotonic() - started) / done * (scale.commits - done)
        said = f"scale: commit {done} of {scale.commits}, about {left:.0f} s left"
        print(f"{said:50}", end=end, file=sys.stderr, flush=True)
    print(f"scale: {directory / MACHINE}", file=sys.stderr)


if __name__ == "__main__":
    main()
