"""A worker says when it uses no device, and what torch.compile finds out by timing is not kept."""

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measure.asking import Asking
from benchmarks.measure.measuring import worker_command
from benchmarks.measure.process import WorkerProcess, launched

ROOT = Path(__file__).parents[2]
HEARING = """
import contextlib
heard = []
@contextlib.contextmanager
def told(what="aside"):
    heard.append(what)
    yield
    heard.append("not " + what)
"""


def in_a_process(program: str) -> list[str]:
    """What `heard` holds in the end; PyTorch and Triton are changed for the whole process."""
    program = f"{HEARING}\n{program}\nimport json; print(json.dumps(heard))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def asking() -> tuple[Asking, io.StringIO]:
    out = io.StringIO()
    return Asking(out, io.StringIO("\n" * 99), "cpu"), out


def said(out: io.StringIO) -> list[str]:
    found = [json.loads(line)["kind"] for line in out.getvalue().splitlines()]
    out.truncate(0)
    out.seek(0)
    return found


def test_torch_compiles_aside_once_and_runs_beside_others() -> None:
    program = """
import torch
from benchmarks.measure.choosing import aside_while_compiling
aside_while_compiling(told)
def called(x):
    heard.append("run")
    return x + 1
def backend(module, inputs):
    heard.append("compile")
    return lambda *given: (called(given[0]),)
torch._dynamo.reset()  # as each case begins
compiled = torch.compile(lambda x: x + 1, backend=backend)
compiled(torch.ones(2))
compiled(torch.ones(2))
"""
    assert in_a_process(program) == ["aside", "compile", "not aside", "run", "run"]


def test_what_is_recorded_while_torch_runs_is_not_aside() -> None:
    program = """
import torch
from torch._dynamo.callback import CallbackTrigger, callback_handler
from benchmarks.measure.choosing import aside_while_compiling
aside_while_compiling(told)
for trigger in CallbackTrigger:
    with callback_handler.install_callbacks(trigger, "0"):
        heard.append(trigger.name)
"""
    names = [name for name in in_a_process(program) if name not in ("aside", "not aside")]
    found = in_a_process(program)
    assert found.count("aside") == found.count("not aside") == 1
    assert found[found.index("aside") + 1] == "DYNAMO"
    assert "CUDAGRAPH_RECORDING" in names


def test_triton_compiles_aside() -> None:
    program = """
import triton, triton.compiler
triton.compiler.compile = triton.compile = lambda: heard.append("compile")
from benchmarks.measure.choosing import aside_while_compiling
aside_while_compiling(told)
from triton.compiler import compile
compile(); triton.compile()
"""
    assert in_a_process(program) == ["aside", "compile", "not aside"] * 2


def test_what_inductor_times_is_timed_alone() -> None:
    program = """
from torch._inductor.runtime import benchmarking
from benchmarks.measure.choosing import choose_alone
class Fails:
    def __getattr__(self, name): raise RuntimeError(name)
choose_alone(told)
for name in ("TritonBenchmarker", "InductorBenchmarker"):
    try: getattr(benchmarking, name)().benchmark_gpu(None)
    except Exception: heard.append(name)
"""
    found = in_a_process(program)
    assert found.count("what torch.compile times") >= 2
    assert [name for name in found if "Benchmarker" in name] == [
        "TritonBenchmarker",
        "InductorBenchmarker",
    ]


def test_a_worker_begins_aside_and_tells_each_change_once() -> None:
    worker, out = asking()
    with worker.compiling():
        pass  # it is aside already
    worker.back()
    worker.back()
    assert said(out) == ["back"]
    with worker.compiling(), worker.compiling():
        assert said(out) == ["aside"]
    assert said(out) == ["back"]


def test_who_has_the_device_alone_compiles_with_it() -> None:
    worker, out = asking()
    worker.back()
    with worker.alone("timing"), worker.compiling():
        pass
    assert said(out) == ["back", "alone", "rested", "together"]


def test_what_is_timed_while_compiling_is_alone() -> None:
    worker, out = asking()
    worker.back()
    with worker.compiling():
        with worker.alone("what torch.compile times"), worker.alone("the same"):
            pass
        assert said(out) == ["back", "aside", "alone", "rested", "together"]
    assert said(out) == ["back"]


def test_another_thread_says_nothing() -> None:
    worker, out = asking()
    worker.back()

    def compiling() -> None:
        with worker.compiling():
            pass

    thread = threading.Thread(target=compiling)
    thread.start()
    thread.join()
    assert said(out) == ["back"]


def test_on_a_device_that_does_not_come_to_rest_nothing_is_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker, out = asking()
    worker.back()
    worker._device = "cuda"
    monkeypatch.setattr("benchmarks.measure.graphs.wait_for_calm", lambda: False)
    with (
        pytest.raises(RuntimeError, match="another process uses it"),
        worker.alone("timing"),
    ):
        raise AssertionError("it was timed")
    assert said(out) == ["back", "alone", "together"], "it keeps nobody waiting"


def test_nobody_answers_any_more() -> None:
    worker = Asking(io.StringIO(), io.StringIO(""), "cpu")
    with pytest.raises(SystemExit):
        worker.back()


def test_what_was_fastest_before_is_not_kept() -> None:
    """Who measures neither reads nor keeps Inductor's choices."""
    program = "from benchmarks.measure.worker import _prepared_ops; _prepared_ops('cpu')"
    asked = "import torch._inductor.config as c; print(c.autotune_local_cache)"
    options: dict[str, Any] = {"cwd": ROOT, "text": True, "check": True}
    for code, expected in ((asked, "True"), (f"{program}; {asked}", "False")):
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, **options)
        assert done.stdout.strip() == expected


@pytest.mark.gpu
def test_no_choice_of_inductor_lies_on_disk_afterwards(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    worker = WorkerProcess(launched(worker_command("cuda"), environment, tmp_path), 120.0)
    dims = {"rows": 512, "cols": 8192, "mask": "none", "causal": False}
    task = {"op": "softmax", "case": "one", "dims": dims, "dtype": "fp16", "version": 1}
    task |= {"implementations": ["compile"], "samples": 3, "budget_s": 0.0, "seed": 0}
    (point,) = worker.measure(task, 120.0)
    worker.stop()
    assert point["status"] == "ok", point["reason"]
    assert "copy_bytes_per_s" in worker.fingerprint
    assert list(tmp_path.rglob("*.py"))
    assert not list(tmp_path.rglob("*.best_config"))
