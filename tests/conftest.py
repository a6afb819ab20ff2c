"""What every test shares: where kernels run, which tests need which hardware, how hypothesis runs.

Without an NVIDIA GPU the kernels run under Triton's interpreter. Triton decides that when a kernel
is declared, so the variable is set here, before anything imports torch or triton. A test that
compiles a kernel for a GPU has to do so in a process of its own, without the variable.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings


def has_nvidia_gpu() -> bool:
    """Whether a driver answers and names a GPU; imports nothing and initialises no CUDA."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return False
    answer = subprocess.run([command, "-L"], capture_output=True, text=True, check=False)
    return answer.returncode == 0 and "GPU" in answer.stdout


if not has_nvidia_gpu():
    os.environ["TRITON_INTERPRET"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    # Each worker has one core: more threads than cores make every test slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"

MOST_KEPT = 1 << 30
"""Bytes of GPU memory that a worker keeps from one test to the next."""

settings.register_profile(
    "kernl",
    deadline=None,
    derandomize=True,
    max_examples=25,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("kernl")


@pytest.fixture(scope="session")
def device() -> str:
    """Where the kernels run: "cuda", or "cpu" under Triton's interpreter."""
    return DEVICE


@pytest.fixture(autouse=True)
def memory_for_others() -> Iterator[None]:
    """Give back GPU memory after a large test: PyTorch keeps it, and other workers wait for it."""
    yield
    if DEVICE == "cuda":
        import torch

        if torch.cuda.memory_reserved() > MOST_KEPT:
            torch.cuda.empty_cache()


def pytest_report_header() -> str:
    """Say at the top which of the two it is."""
    where = "the NVIDIA GPU" if DEVICE == "cuda" else "Triton's interpreter, on the CPU"
    return f"kernels run on: {where}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where the kernels run on the CPU."""
    if DEVICE == "cuda":
        return
    skip = pytest.mark.skip(reason="needs an NVIDIA GPU, and kernels run on the CPU here")
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(skip)
