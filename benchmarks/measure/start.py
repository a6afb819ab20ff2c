"""How long a process waits for its first graph call: `python -m benchmarks.measure.start`.

Starts processes one after another that share one `cache_dir`, empty at first. Each makes BERT-base
with random weights in fp16, calls it once by PyTorch, and prints the seconds from `optimize_model`
with `warmup_shapes=[(1, 128)]` to the end of a call by graph. What the first process finds out and
compiles, the others read. Takes about two minutes on a GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.measure import device
from benchmarks.model import ModelCase
from benchmarks.models import BERT_BASE

CASE = ModelCase(1, 128)
MODULE = "benchmarks.measure.start"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; exits with 2 and a message where there is no GPU."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--processes", type=int, default=3, help="one after another (3)")
    parser.add_argument("--folder", help="the cache_dir; a new one, which goes, unless named")
    parser.add_argument("--one", action="store_true", help="be one of the processes")
    options = parser.parse_args(arguments)
    if device.gpu() is None:
        parser.error("no NVIDIA GPU on this machine, and only graphs on one are worth a wait")
    if options.one:
        print(f"{waited(options.folder):.2f}")
        return
    with tempfile.TemporaryDirectory() as fresh:
        folder = options.folder or fresh
        for number in range(1, options.processes + 1):
            command = [sys.executable, "-m", MODULE, "--one", "--folder", folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                sys.exit(f"process {number} failed: its message stands above")
            seconds = float(done.stdout.split()[-1])
            print(f"process {number}: {seconds:.2f} s to the first call by graph", flush=True)


def waited(folder: str) -> float:
    """Seconds from `optimize_model` to the end of a call by graph. Needs a GPU."""
    import torch

    from benchmarks.measure.model_calls import in_half
    from kernl import optimize_model

    (sample,) = BERT_BASE.samples(CASE, [0], "cuda")
    model: Any = in_half(BERT_BASE.build().cuda())
    with torch.inference_mode():
        model(**sample.half)
        torch.cuda.synchronize()
        start = time.perf_counter()
        optimize_model(model, cache_dir=folder, warmup_shapes=[(CASE.batch, CASE.seq)])
        model(**sample.half)
        torch.cuda.synchronize()
    taken = time.perf_counter() - start
    if not model.forward.calls["by graph"]:
        sys.exit(f"no call went by graph: {dict(model.forward.calls)}")
    return taken


if __name__ == "__main__":
    main()
