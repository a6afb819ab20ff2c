"""What machine this is: its name for asv, and the fingerprint kept with every run.

`python -m benchmarks.measure.device` prints the machine's name, `--json` the fingerprint. Nothing
here initialises CUDA or imports torch: the GPU is asked through `nvidia-smi`, which the driver
brings along, and versions are read from the installed packages.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

COMPILE_ONLY = "compile-only"
IDENTITY = ("gpu", "driver", "torch", "triton")
"""Fingerprint keys that must be equal for two measurements to belong to one run."""

Fingerprint = dict[str, str | int | float]

_QUERY = ("name", "uuid", "driver_version", "memory.total")
_MIB = 1 << 20


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU as the driver names it."""

    name: str
    uuid: str
    driver: str
    memory_bytes: int


def slug(name: str) -> str:
    """`name` in lower case with one hyphen for each run of other characters: a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def parse_gpus(output: str) -> list[Gpu]:
    """GPUs from `nvidia-smi --query-gpu=name,uuid,driver_version,memory.total`, CSV, MiB.

    Lines of another form (warnings, a driver that does not answer) are passed over.
    """
    gpus = []
    for line in output.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == len(_QUERY) and fields[1].startswith(("GPU-", "MIG-")):
            name, uuid, driver, memory = fields
            gpus.append(Gpu(name, uuid, driver, int(memory) * _MIB if memory.isdigit() else 0))
    return gpus


def visible(gpus: Sequence[Gpu], cuda_visible_devices: str | None) -> Gpu | None:
    """The GPU that a CUDA program takes first, or None; `CUDA_VISIBLE_DEVICES` is honoured.

    CUDA hides every device behind the first entry that names none.
    """
    if cuda_visible_devices is None:
        return gpus[0] if gpus else None
    first = cuda_visible_devices.split(",")[0].strip()
    if first.isdigit():
        return gpus[int(first)] if int(first) < len(gpus) else None
    named = [gpu for gpu in gpus if first and gpu.uuid.startswith(first)]
    return named[0] if named else None


def gpu() -> Gpu | None:
    """The GPU that measurements would run on, or None where there is none."""
    query = _command_output(
        ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    )
    return visible(parse_gpus(query), os.environ.get("CUDA_VISIBLE_DEVICES"))


def machine_name() -> str:
    """asv's name for this machine: the GPU's, or `compile-only` where there is no NVIDIA GPU."""
    found = gpu()
    return machine_named({"gpu": found.name} if found else {})


def machine_named(fingerprint: Fingerprint) -> str:
    """The same for the machine that a fingerprint is of."""
    return slug(str(fingerprint["gpu"])) if "gpu" in fingerprint else COMPILE_ONLY


def fingerprint(suite: str = "") -> Fingerprint:
    """What can be known without CUDA: GPU, driver, versions. Keys without a value are left out."""
    found = gpu()
    known: dict[str, str | int | float | None] = {
        "gpu": found.name if found else None,
        "gpu_id": _digest(found.uuid) if found else None,
        "driver": found.driver if found else None,
        "memory_bytes": found.memory_bytes if found else None,
        "torch": _package_version("torch"),
        "cuda": _version_file_value("torch", "cuda"),
        "triton": _package_version("triton"),
        "transformers": _package_version("transformers"),
        "ptxas": _ptxas_version(),
        "python": platform.python_version(),
        "os": f"{platform.system()} {platform.machine()}",
        "suite": suite,
    }
    return {key: value for key, value in known.items() if value}


def same_device(one: Fingerprint, other: Fingerprint) -> bool:
    """Whether both are the same kind of GPU with the same driver, torch and triton."""
    return all(one.get(key) == other.get(key) for key in IDENTITY)


def _digest(uuid: str) -> str:
    """Tells one card from another of its kind in a public file, without giving its identity."""
    return hashlib.sha256(uuid.encode()).hexdigest()[:12]


def _package_version(package: str) -> str | None:
    """Version of an installed package without importing it.

    A package's own version file goes first: it names torch's build (`+cu130`), metadata may not.
    """
    try:
        return _version_file_value(package, "__version__") or importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _version_file_value(package: str, name: str) -> str | None:
    """A string assigned to `name` in `<package>/version.py`, or None."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.origin:
        return None
    path = Path(spec.origin).with_name("version.py")
    if not path.exists():
        return None
    found = re.search(rf"^{name}\s*(?::[^=]*)?=\s*['\"]([^'\"]+)['\"]", path.read_text(), re.M)
    return found[1] if found else None


def _ptxas_version() -> str | None:
    """Version of the assembler that comes with triton, such as `12.9.86`."""
    spec = importlib.util.find_spec("triton")
    if spec is None or not spec.origin:
        return None
    ptxas = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "ptxas"
    found = re.search(r"\bV(\d+\.\d+\.\d+)", _command_output([str(ptxas), "--version"]))
    return found[1] if found else None


def _command_output(command: list[str]) -> str:
    """Standard output, or an empty string where the command is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the machine's name, or with `--json` its fingerprint."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measure.device")
    parser.add_argument("--json", action="store_true", help="print the fingerprint as JSON")
    options = parser.parse_args(arguments)
    print(json.dumps(fingerprint(), indent=2) if options.json else machine_name())


if __name__ == "__main__":
    main()
