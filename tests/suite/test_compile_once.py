"""Compiling beside others: every implementation is called, and no choice is kept."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from torch._inductor.codecache import PyCodeCache
from torch._inductor.runtime.triton_heuristics import CachingAutotuner

from benchmarks.measure.choosing import first_choices

ROOT = Path(__file__).parents[2]


def compiled(
    tasks: list[dict[str, Any]], device: str, environment: dict[str, str]
) -> list[dict[str, Any]]:
    """What a real worker answers that compiles these and measures nothing."""
    shared = {"case": "", "version": 1, "samples": 1, "budget_s": 0.0}
    shared["implementations"] = ["eager", "compile", "kernl"]
    lines = [{**shared, "dtype": "fp16", "seed": 0, "compile_only": True, **task} for task in tasks]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "benchmarks.measure.worker", "--device", device],
        input="".join(json.dumps(line) + "\n" for line in lines),
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_was_fastest_beside_others_is_not_kept() -> None:
    """Who measures neither reads nor keeps Inductor's choices."""
    program = "from benchmarks.measure.worker import _prepared_ops; _prepared_ops('cpu')"
    said = "import torch._inductor.config as c; print(c.autotune_local_cache)"
    options: dict[str, Any] = {"cwd": ROOT, "text": True, "check": True}
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
def test_no_choice_of_inductor_lies_on_disk_afterwards(tmp_path: Path) -> None:
    dims = {"rows": 512, "cols": 8192, "mask": "none", "causal": False}
    task = {"op": "softmax", "dims": dims}
    answers = compiled([task], "cuda", {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)})
    assert answers[-1] == {"kind": "done"}
    assert list(tmp_path.rglob("*.py"))
    assert not list(tmp_path.rglob("*.best_config"))


def test_the_real_worker_calls_what_is_asked_for(tmp_path: Path) -> None:
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
        "    name, version, unsupported = 'softmax', 1, None\n"
        "    cases = staticmethod(lambda: (FIRST,))\n"
        "    def inputs(self, case, device, seed):\n"
        "        return {'x': torch.tensor(case.dims['rows'])}\n"
        "    kernel = staticmethod(lambda x: mark(x, 'kernl'))\n"
        "    reference = staticmethod(lambda x: mark(x, 'eager'))\n"
        "FIRST = Case('fp16', (('rows', 1),))\n"
        "ALL = (Op(),)\n"
    )
    code = tmp_path / "code"
    environment = {"KERNL_CODE": str(code), "PYTHONPATH": f"{code}{os.pathsep}{ROOT}"}
    tasks = [{"op": "unknown", "dims": {"rows": 1}}]
    tasks += [{"op": "softmax", "dims": {"rows": rows}} for rows in (1, 2, 3)]
    answers = compiled(tasks, "cpu", environment)
    assert not [answer for answer in answers if answer["kind"] in ("point", "fault", "refused")]
    assert [answer["kind"] for answer in answers].count("done") == 4
    expected = [f"{name} {rows} False" for rows in (1, 2, 3) for name in ("eager", "kernl")]
    assert marks.read_text().splitlines() == expected
