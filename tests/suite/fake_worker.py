"""A worker that does what a case's name says, and a sweep over it: shared by these tests."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import resume
from benchmarks.measure.journal import Journal, Record, read
from benchmarks.measure.sweep import (
    Settings,
    Subject,
    SweepCase,
    sweep,
)

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
DEVICE: dict[str, str | int | float] = {
    "gpu": "NVIDIA H200",
    "driver": "580",
    "torch": "2.11.0",
    "triton": "3.6.0",
}
FAKE_WORKER = r"""
import json, os, pathlib, signal, sys, time
log = pathlib.Path(sys.argv[1])

def note(text):
    with log.open("a") as file:
        file.write(text + "\n")

def send(**message):
    print(json.dumps(message), flush=True)

def point(name, **rest):
    send(kind="point", variant=name, **{"status": "ok", "reason": "", **rest})

note("start")
starts = log.read_text().split().count("start")
if "refuse" in sys.argv:
    send(kind="refused", status="skipped", reason="no CUDA device here")
    sys.exit()
if "never" in sys.argv or ("late" in sys.argv and starts < 3):
    print("cannot import torch", file=sys.stderr)
    sys.exit(3)
send(kind="back")
sys.stdin.readline()
send(kind="ready", fingerprint={"gpu": "what the worker sees"})
for line in sys.stdin:
    task = json.loads(line)
    what = task["case"].split(".")[0]
    note(what + ":" + ",".join(task["implementations"]))
    if what == "shout":
        print("hello from a library", flush=True)
    if what == "nested":
        print("[" * 100_000, flush=True)
    if what == "odd":
        send(kind="point", variant="kernl", status="splendid")
    if what == "unasked":
        point("nobody")
    if what == "short":
        send(kind="done")
        continue
    passed = []
    for name in task["implementations"]:
        send(kind="stage", stage="check", implementation=name)
        if name == "kernl":
            if what == "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            if what == "signal":
                os.kill(os.getpid(), 40)
            if what == "exit":
                print("goodbye", file=sys.stderr, flush=True)
                os._exit(9)
            if what == "hang":
                time.sleep(60)
            if what == "cuda":
                send(kind="fault", reason="the device is lost after: illegal memory access")
                os._exit(70)
            if what == "memory":
                point(name, status="failed", reason="OutOfMemoryError: CUDA out of memory")
                continue
        if what == "slow":
            time.sleep(0.2)
        if what.startswith("crowded") and name == "kernl":  # crowded2_failed: two times
            times, status = what.removeprefix("crowded").split("_")
            if log.read_text().split().count("no-memory-for-" + what) < int(times):
                note("no-memory-for-" + what)
                reason = {
                    "failed": "OutOfMemoryError: CUDA out of memory",
                    "skipped": "left to PyTorch: OutOfMemoryError: CUDA out of memory",
                    "cublas": "RuntimeError: CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when",
                }[status]
                point(name, status="failed" if status == "cublas" else status, reason=reason)
                continue
        passed.append(name)
    if "share" in sys.argv:
        send(kind="alone", what="timing")
        sys.stdin.readline()
        send(kind="rested")
        note(f"in-{os.getpid()}")
        time.sleep(0.03)
        if what == "dies":
            os._exit(9)
        note(f"out-{os.getpid()}")
        send(kind="together")
        sys.stdin.readline()
    send(kind="figures", figures={"copy_bytes_per_s": 4.2e12})
    for name in passed:
        point(name, values={"time": 1e-6}, samples=[1e-6, 1.1e-6], error=1e-4)
    send(kind="done")
"""


class Bench:
    """A fake worker, its log, and a journal."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.journal = Journal(directory / "m" / "01234567-worktree.points.jsonl")
        self.script = directory / "worker.py"
        self.script.write_text(FAKE_WORKER)
        self.log = directory / "log"
        self.log.touch()

    def sweep(
        self, *names: str, mode: str = "", left_out: Sequence[str] = (), **settings: Any
    ) -> dict[str, dict[str, Record]]:
        points = sweep(
            subject(),
            [
                SweepCase(f"{name}.fp16", {"rows": 1}, "fp16", name not in left_out)
                for name in names
            ],
            self.journal,
            settings=Settings(**{"case_timeout_s": 1.0, "start_timeout_s": 20.0, **settings}),
            reuse=self.reusable(),
            command=[sys.executable, "-S", str(self.script), str(self.log), mode],
        )
        found: dict[str, dict[str, Record]] = {name: {} for name in names}
        for point in points:
            found[point["case"].split(".")[0]][point["variant"]] = point
        return found

    def reusable(self, **replaced: Any) -> dict[str, list[Record]]:
        return reusable(read(self.journal.path)[0], **replaced)

    def calls(self) -> Counter[str]:
        return Counter(self.log.read_text().split())


def reusable(records: list[Record], **replaced: Any) -> dict[str, list[Record]]:
    known: dict[str, Any] = {
        "suite": "kernels",
        "op": "softmax",
        "version": 1,
        "variants": ("eager", "compile", "kernl"),
        "commit": COMMIT,
        "fingerprint": DEVICE,
        "after": None,
    }
    return resume.reusable(records, **{**known, **replaced})


def subject() -> Subject:
    return Subject("softmax", 1, COMMIT, "m", ("eager", "compile", "kernl"), DEVICE)


def statuses(points: dict[str, Record]) -> dict[str, str]:
    return {name: point["status"] for name, point in points.items()}
