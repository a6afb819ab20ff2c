"""Make the project's Python environment, or look at the one that is to be used as it is.

    python .ci/environment.py .venv [--torch any|cpu]
    python .ci/environment.py system

The first form builds a virtual environment from pyproject.toml and constraints.txt. It is done at
once where a finished one of the same two files is there, and starts afresh where one is half
built. The second form installs nothing: it names what the running Python lacks.

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("constraints.txt", ".ci/environment.py")
OLDEST = (3, 11)
STAMP = ".kernl-ready"
NEEDED = (
    *("torch", "triton", "transformers", "numpy"),
    *("asv", "asv_runner", "scipy", "ruptures", "pandas", "plotly", "jinja2", "rich"),
    *("pytest", "xdist", "hypothesis"),
)


def fail(message: str) -> None:
    """End with a message in words and exit code 1."""
    sys.exit(f"environment: {message}")


def has_nvidia_gpu() -> bool:
    """Whether a driver answers and names a GPU."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return False
    answer = subprocess.run([command, "-L"], capture_output=True, text=True, check=False)
    return answer.returncode == 0 and "GPU" in answer.stdout


def key_of(gpu: bool) -> str:
    """What the environment depends on: the project's files, the Python, a GPU or none."""
    import tomllib  # not there before 3.11, and an older Python is to be refused in words

    # Of pyproject.toml only what is installed: the settings of ruff or pytest change nothing here.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    installed = {key: project[key] for key in ("build-system", "project")}
    digest = hashlib.sha256(json.dumps(installed, sort_keys=True).encode())
    for name in SOURCES:
        digest.update((ROOT / name).read_bytes())
    digest.update(f"{sys.version} {platform.machine()} gpu={gpu} {ROOT}".encode())
    return digest.hexdigest()


def check_python() -> None:
    """Refuse a Python that is too old or that cannot make an environment."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < OLDEST:
        fail(f"{sys.executable} is Python {found}; 3.11 or newer is needed. Say which: PYTHON=…")
    if importlib.util.find_spec("ensurepip") is None:
        fail(
            f"Python {found} at {sys.executable} cannot make virtual environments: ensurepip is "
            "missing. On Debian and Ubuntu the package python3-venv brings it."
        )


def prepare_folder(folder: Path) -> None:
    """Make an empty virtual environment, in the place of an old or a half-built one."""
    if folder.exists() and not (folder / "pyvenv.cfg").is_file() and any(folder.iterdir()):
        fail(f"{folder} holds files and is no virtual environment. Name another by VENV=….")
    (folder / STAMP).unlink(missing_ok=True)
    run(sys.executable, "-m", "venv", "--clear", str(folder))


def run(*command: str) -> None:
    """Run a command in the project's root with its output shown; end when it fails."""
    outcome = subprocess.run(command, cwd=ROOT, check=False)
    if outcome.returncode != 0:
        fail(f"this command ended with {outcome.returncode}: {' '.join(command)}")


def refuse_cuda_build(python: str) -> None:
    """End before anything is fetched when pip would take a CUDA build of torch.

    pip says what it would install without doing so; a CUDA build is known by what it requires.
    """
    command = (python, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps")
    command += ("--constraint", "constraints.txt", "--report", "-", "torch")
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if outcome.returncode != 0:
        fail(f"pip finds no torch as constraints.txt pins it:\n{outcome.stderr.strip()}")
    metadata = json.loads(outcome.stdout)["install"][0]["metadata"]
    requires = metadata.get("requires_dist", [])
    if not any(name.startswith(("nvidia-", "cuda-")) for name in requires):
        return
    fail(
        "there is no NVIDIA GPU here, and pip would fetch a CUDA build of torch "
        f"{metadata['version']}, several gigabytes. Set PIP_EXTRA_INDEX_URL to PyTorch's index of "
        "CPU wheels, which its installation page names, and run the same command again; "
        "or take the CUDA build with TORCH=any."
    )


def build(folder: Path, torch_build: str) -> None:
    """Build the environment in `folder` unless a finished one of the same files is there."""
    check_python()
    gpu = has_nvidia_gpu()
    stamp, key = folder / STAMP, key_of(gpu)
    if stamp.is_file() and stamp.read_text().strip() == key:
        return
    started = time.monotonic()
    print(f"environment: building {folder} with Python {platform.python_version()}", flush=True)
    prepare_folder(folder)
    python = str(folder / "bin" / "python")
    if torch_build == "cpu" and not gpu and platform.system() == "Linux":
        refuse_cuda_build(python)
    install = (python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check")
    install += ("--constraint", "constraints.txt")
    # The build tools are pinned too, so the project is built with them and not with newer ones.
    run(*install, "hatchling", "editables")
    run(*install, "--no-build-isolation", "--editable", ".[dev]")
    stamp.write_text(key + "\n")
    print(f"environment: ready in {time.monotonic() - started:.0f} s", flush=True)


def inspect() -> None:
    """Name what the running Python lacks; some targets need less than all."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < OLDEST:
        fail(f"{sys.executable} is Python {found}; 3.11 or newer is needed. Say which: PYTHON=…")
    print(f"environment: using {sys.executable} (Python {found}) as it is", flush=True)
    if missing:
        names = ", ".join(missing)
        print(f"environment: not there, so what needs it will fail: {names}", flush=True)


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="where the environment goes, or the word system")
    parser.add_argument("--torch", choices=("cpu", "any"), default="cpu", dest="torch_build")
    arguments = parser.parse_args()
    if arguments.folder == "system":
        inspect()
    else:
        build((ROOT / arguments.folder).resolve(), arguments.torch_build)


if __name__ == "__main__":
    main()
