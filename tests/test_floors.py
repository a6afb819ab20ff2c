"""Imports point down only, importing is light, and the check itself catches what it is for."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.floors import modules, violations

ROOT = Path(__file__).resolve().parent.parent

# asv reads the suite in every one of its processes, and the commands should answer at once: none
# of these may bring torch in, by whatever road.
WITHOUT_TORCH = (
    "benchmarks.gate.acknowledged",
    "benchmarks.asv_file",
    "benchmarks.cases",
    "benchmarks.compare",
    "benchmarks.gate.command",
    "benchmarks.gate.floors",
    "benchmarks.measure.device",
    "benchmarks.measure.fleet",
    "benchmarks.measure.fleet_worker",
    "benchmarks.measure.journal",
    "benchmarks.roofline",
    "benchmarks.store",
    "benchmarks.suite.codegen",
    "benchmarks.suite.kernels",
    "benchmarks.suite.models",
    "benchmarks.worktree",
    "dashboards.build",
    "dashboards.plots.figures",
    "dashboards.table",
)

IMPORT_AND_LIST = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps(sorted(sys.modules)))
"""

# On a machine with no GPU nothing can be initialised, so torch is asked who tried.
IMPORT_AND_WATCH = """
import importlib, json, sys
import torch
tried = []
torch.cuda._lazy_init = lambda *_: tried.append(current)
current = ""
for current in json.loads(sys.argv[1]):
    importlib.import_module(current)
print(json.dumps({"tried": tried, "initialized": torch.cuda.is_initialized()}))
"""


def run(program: str, names: list[str], *paths: Path) -> str:
    """Run a program on module names in a process of its own; its last line."""
    path = os.pathsep.join(map(str, (*paths, ROOT)))
    outcome = subprocess.run(
        [sys.executable, "-c", program, json.dumps(names)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout.splitlines()[-1]


def loaded_by(*names: str) -> set[str]:
    """The top-level names of everything that importing `names` brings in."""
    return {name.split(".")[0] for name in json.loads(run(IMPORT_AND_LIST, list(names)))}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_imports_point_down_only() -> None:
    assert len(modules(ROOT)) > 20
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("kernl/op.py", "from kernl.ops import linear"),
        ("kernl/op.py", "from .ops import linear"),
        ("kernl/ops/linear.py", "from .. import optimize"),
        ("kernl/ops/linear.py", "def f():\n    import benchmarks.store"),
        ("kernl/rewrite/match.py", "from kernl.runtime import graph"),
        ("kernl/runtime/graph.py", "import kernl.rewrite.match as m"),
        ("kernl/runtime/graph.py", "from kernl import __version__"),
        ("kernl/optimize.py", "import importlib\nimportlib.import_module('benchmarks.store')"),
        ("benchmarks/store.py", "if True:\n    from dashboards import build"),
        ("dashboards/build.py", "from tests import conftest"),
    ],
    ids=itertools.count(),
)
def test_a_planted_import_is_found(tmp_path: Path, path: str, text: str) -> None:
    tree = {
        "kernl/__init__.py": "",
        "kernl/op.py": "import math",
        "kernl/optimize.py": "from kernl.rewrite import match\nfrom kernl.runtime import graph",
        "kernl/ops/__init__.py": "from kernl.ops.linear import x",
        "kernl/ops/linear.py": "from kernl import op\nfrom ..op import y",
        "kernl/rewrite/match.py": "from kernl import ops",
        "kernl/runtime/graph.py": "import kernl.op",
        "benchmarks/store.py": "from kernl import __version__",
        "dashboards/build.py": "import benchmarks.store",
        "tests/conftest.py": "from dashboards import build",
    }
    assert violations(write(tmp_path, tree)) == []
    found = violations(write(tmp_path, {path: text}))
    assert len(found) == 1
    assert found[0].startswith(f"{path}:{len(text.splitlines())}: ")


@pytest.mark.parametrize("name", WITHOUT_TORCH, ids=lambda name: name.partition(".")[2] or name)
def test_import_brings_no_torch(name: str) -> None:
    assert "torch" not in loaded_by(name)


def test_the_suite_brings_no_plotting_and_no_tables() -> None:
    loaded = loaded_by(*(f"benchmarks.suite.{name}" for name in ("kernels", "codegen", "models")))
    assert loaded.isdisjoint({"pandas", "plotly", "scipy", "torch", "transformers", "triton"})


def test_import_initialises_no_cuda() -> None:
    names = [name for name in modules(ROOT) if not name.startswith("tests")]
    outcome = json.loads(run(IMPORT_AND_WATCH, names))
    assert outcome == {"tried": [], "initialized": False}


def test_a_planted_initialisation_is_found(tmp_path: Path) -> None:
    write(tmp_path, {"hasty.py": "import torch\ntorch.cuda.init()\n"})
    outcome = json.loads(run(IMPORT_AND_WATCH, ["hasty"], tmp_path))
    assert outcome["tried"] == ["hasty"]
