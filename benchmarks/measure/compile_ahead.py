"""Compile on all cores before anything is timed, so that the sweep finds its kernels in the caches.

The sweep measures one case at a time, because only one thing may run on the GPU while it is timed.
Nearly all of its time would be torch.compile's. So a number of processes first call each
implementation of each case once: the compiled code lands in Inductor's and Triton's caches on disk.
Nothing is measured here, and nothing is recorded (`compile_once`). Where workers share the device
(`pool`) they do this themselves, before they measure.

`python -m benchmarks.measure.compile_ahead --device cuda|cpu` reads one case a line as JSON, with
its operator.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measure.choosing import choose_anew
from benchmarks.measure.lifetime import die_with_parent
from benchmarks.measure.progress import say
from benchmarks.measure.worker import load_ops, prepare_environment

MOST_PROCESSES = 14
"""Each holds a CUDA context and the inputs of one case."""
FEWEST_CASES = 4
"""For fewer, starting processes takes longer than compiling."""


def processes_for(cases: int) -> int:
    """How many processes to start: one core is left to the rest; none for a few cases."""
    if cases < FEWEST_CASES:
        return 0
    return min(MOST_PROCESSES, cases, (os.cpu_count() or 2) - 1)


def compile_ahead(
    cases: Sequence[Mapping[str, Any]],
    environment: Mapping[str, str],
    *,
    device: str = "cuda",
    timeout_s: float = 900.0,
    command: Sequence[str] | None = None,
) -> int:
    """Compile `cases` (op, dims and dtype); returns how many processes ended well.

    Whatever is not done after `timeout_s` seconds is left to the sweep. `command` replaces the
    command line of a process.
    """
    count = processes_for(len(cases))
    if count == 0:
        return 0
    named = ", ".join(dict.fromkeys(str(case["op"]) for case in cases))
    say(f"compiling {len(cases)} cases of {named} on {count} processes")
    program = ["-P", "-m", "benchmarks.measure.compile_ahead", "--device", device]
    argv = list(command or [sys.executable, *program])
    running = [_start(argv, cases[first::count], environment) for first in range(count)]
    begun = time.monotonic()
    done = sum(_ended_well(process, begun + timeout_s) for process in running)
    say(f"compiled in {time.monotonic() - begun:.0f} s; {done} of {count} processes ended well")
    return done


def _start(
    argv: Sequence[str], cases: Sequence[Mapping[str, Any]], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    with tempfile.TemporaryFile() as lines:
        lines.write("".join(json.dumps(case) + "\n" for case in cases).encode())
        lines.seek(0)
        return subprocess.Popen(
            list(argv),
            stdin=lines,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            cwd=tempfile.gettempdir(),
            start_new_session=True,
        )


def _ended_well(process: subprocess.Popen[bytes], deadline: float) -> bool:
    try:
        return process.wait(max(0.0, deadline - time.monotonic())) == 0
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False


def main(arguments: Sequence[str] | None = None) -> None:
    """Call every implementation of every case that comes on standard input, once."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measure.compile_ahead")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args(arguments)
    die_with_parent()

    prepare_environment(options.device)

    import torch

    from benchmarks.measure.compile_once import compile_once

    choose_anew()
    ops = load_ops(os.environ.get("KERNL_CODE"))
    # As in the sweep: a compiled graph with gradients is another one.
    with torch.no_grad():
        for line in sys.stdin:
            task = json.loads(line)
            if task["op"] in ops:
                op = ops[task["op"]]
                with contextlib.suppress(Exception):
                    case = type(op.cases()[0]).of(task["dtype"], **task["dims"])
                    compile_once(op, case, options.device)


def tasks(op: str, cases: Sequence[Any]) -> list[dict[str, Any]]:
    """Cases of a sweep (`SweepCase`) as this module's lines."""
    return [{"op": op, "dims": dict(case.dims), "dtype": case.dtype} for case in cases]


if __name__ == "__main__":
    main()
