"""Compiling ahead: every case goes to one process, and nothing that fails there stops a sweep."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from torch._inductor.codecache import PyCodeCache
from torch._inductor.runtime.triton_heuristics import CachingAutotuner

from benchmarks.measure import compile_ahead as module
from benchmarks.measure.choosing import first_choices
from benchmarks.measure.compile_ahead import compile_ahead, processes_for, tasks
from benchmarks.measure.sweep import SweepCase

ROOT = Path(__file__).parents[2]
CASES = [{"op": "softmax", "dims": {"rows": n, "cols": 1}, "dtype": "fp16"} for n in range(1, 12)]


@pytest.fixture(autouse=True)
def three_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "processes_for", lambda cases: 3 if cases else 0)


def fake(tmp_path: Path, body: str) -> list[str]:
    """A process that writes what it reads to a file of its own, then does `body`."""
    program = (
        "import os, sys, time\n"
        "lines = sys.stdin.read()\n"
        f"open({str(tmp_path)!r} + f'/{{os.getpid()}}', 'w').write(lines)\n"
    )
    return [sys.executable, "-c", program + body]


def test_every_case_goes_to_exactly_one_process(tmp_path: Path) -> None:
    assert compile_ahead(CASES, os.environ, command=fake(tmp_path, "")) == 3
    read = [json.loads(line) for file in tmp_path.iterdir() for line in file.open()]
    assert sorted(case["dims"]["rows"] for case in read) == list(range(1, 12))


def test_a_process_that_crashes_or_hangs_is_left_behind(tmp_path: Path) -> None:
    body = (
        "n = lines.count('rows')\nos._exit(9) if '1,' in lines[:43] else time.sleep(60 * (n < 4))"
    )
    started = time.monotonic()
    done = compile_ahead(CASES, os.environ, timeout_s=3, command=fake(tmp_path, body))
    assert done == 1
    assert time.monotonic() - started < 10
    for file in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.name), 0)


_WORKER = "from benchmarks.measure.worker import _prepared_ops; _prepared_ops('cpu')"
_AHEAD = "from benchmarks.measure.compile_ahead import main; main(['--device', 'cpu'])"


@pytest.mark.parametrize("program", [_WORKER, _AHEAD], ids=["worker", "compile ahead"])
def test_what_was_fastest_beside_others_is_not_kept(program: str) -> None:
    """Neither who compiles ahead nor who measures reads or keeps Inductor's choices."""
    said = "import torch._inductor.config as c; print(c.autotune_local_cache)"
    options: dict[str, Any] = {"cwd": ROOT, "text": True, "check": True, "input": ""}
    for code, expected in ((said, "True"), (f"{program}; {said}", "False")):
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, **options)
        assert done.stdout.strip() == expected


def test_a_choice_is_not_timed_and_is_forgotten() -> None:
    """What a process compiles beside others, it finds out again when it measures alone."""
    autotuner: Any = CachingAutotuner
    timed = autotuner.benchmark_all_configs
    with first_choices():
        kernel = SimpleNamespace(launchers=["one", "other"])
        assert autotuner.benchmark_all_configs(kernel) == {"one": 0.0, "other": 1.0}
        PyCodeCache.modules.append(ModuleType("of_a_compiled_graph"))
    assert autotuner.benchmark_all_configs is timed
    assert not PyCodeCache.modules


@pytest.mark.gpu
def test_no_choice_of_inductor_lies_on_disk_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    dims = {"rows": 512, "cols": 8192, "mask": "none", "causal": False}
    wide = [{"op": "softmax", "dims": dims, "dtype": "fp16"}] * 4
    assert compile_ahead(wide, os.environ) == 3
    assert list(tmp_path.rglob("*.py"))
    assert not list(tmp_path.rglob("*.best_config"))


def test_no_case_starts_no_process() -> None:
    assert compile_ahead([], os.environ, command=["/no/such/program"]) == 0


def test_how_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert [processes_for(n) for n in (0, 3, 4, 300)] == [0, 0, 4, 14]
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert processes_for(300) == 1


def test_cases_of_a_sweep_become_lines() -> None:
    case = SweepCase("rows1_cols2.fp16", {"rows": 1, "cols": 2}, "fp16")
    expected = {"op": "softmax", "dims": {"rows": 1, "cols": 2}, "dtype": "fp16"}
    assert tasks("softmax", [case]) == [expected]


def test_the_real_process_calls_every_implementation(tmp_path: Path) -> None:
    """Under the interpreter: kernl's kernel of a planted commit leaves a mark each time it runs."""
    marks = tmp_path / "marks"
    package = tmp_path / "code" / "kernl"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "ops.py").write_text(
        "import torch\n"
        "class Case:\n"
        "    def __init__(self, dtype, dims): self.dims = dims\n"
        "    @classmethod\n"
        "    def of(cls, dtype, **dims): return cls(dtype, dims)\n"
        "def mark(x, name):\n"
        "    line = f'{name} {int(x)} {torch.is_grad_enabled()}'\n"
        f"    print(line, file=open({str(marks)!r}, 'a'))\n"
        "    if int(x) == 2: raise ValueError('planted')\n"
        "class Op:\n"
        "    name, unsupported = 'softmax', None\n"
        "    cases = staticmethod(lambda: (Case('fp16', {}),))\n"
        "    def inputs(self, case, device, seed):\n"
        "        return {'x': torch.tensor(case.dims['rows'])}\n"
        "    kernel = staticmethod(lambda x: mark(x, 'kernl'))\n"
        "    reference = staticmethod(lambda x: mark(x, 'eager'))\n"
        "ALL = (Op(),)\n"
    )
    subprocess.run(
        [sys.executable, "-P", "-m", "benchmarks.measure.compile_ahead", "--device", "cpu"],
        input="".join(
            json.dumps(case) + "\n" for case in [{**CASES[0], "op": "unknown"}, *CASES[:3]]
        ),
        env={
            **os.environ,
            "KERNL_CODE": str(tmp_path / "code"),
            "PYTHONPATH": f"{tmp_path / 'code'}{os.pathsep}{ROOT}",
        },
        text=True,
        check=True,
    )
    expected = [f"{name} {rows} False" for rows in (1, 2, 3) for name in ("eager", "kernl")]
    assert marks.read_text().splitlines() == expected
