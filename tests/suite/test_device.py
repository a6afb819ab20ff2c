"""The machine's name and fingerprint, without CUDA; telemetry through a fake NVML."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.measure import device
from benchmarks.measure.telemetry import Telemetry, reasons

ROOT = Path(__file__).resolve().parents[2]
TWO_GPUS = (
    "NVIDIA H200, GPU-11111111-aaaa, 580.159.04, 143771\n"
    "NVIDIA GeForce RTX 3090, GPU-22222222-bbbb, 580.159.04, 24576\n"
)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake `nvidia-smi` that prints what the test writes to the returned file."""
    output = tmp_path / "output"
    output.write_text(TWO_GPUS)
    command = tmp_path / "bin" / "nvidia-smi"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\ncat "{output}"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return output


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("NVIDIA H200", "nvidia-h200"),
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"),
        ("  NVIDIA A100-SXM4-40GB ", "nvidia-a100-sxm4-40gb"),
    ],
)
def test_slug(name: str, slug: str) -> None:
    assert device.slug(name) == slug


@pytest.mark.parametrize(
    ("visible", "name"),
    [
        (None, "nvidia-h200"),
        ("0,1", "nvidia-h200"),
        ("1", "nvidia-geforce-rtx-3090"),
        ("GPU-2222", "nvidia-geforce-rtx-3090"),
        ("", "compile-only"),
        ("-1", "compile-only"),
        ("7", "compile-only"),
        ("NoDevFiles", "compile-only"),
    ],
)
def test_machine_name_is_the_gpu_that_cuda_would_take(
    driver: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, name: str
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device.machine_name() == name


@pytest.mark.parametrize(
    "output",
    [
        "",
        "No devices were found\n",
        "NVIDIA-SMI has failed because it couldn't communicate, x, y, z\n",
    ],
)
def test_a_driver_without_a_device_is_no_gpu(driver: Path, output: str) -> None:
    driver.write_text(output)
    assert device.gpu() is None
    assert device.machine_name() == device.COMPILE_ONLY


def test_no_driver_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert device.gpu() is None


def test_fingerprint_knows_gpu_and_versions(driver: Path) -> None:
    found = device.fingerprint("kernels")
    assert found["gpu"] == "NVIDIA H200"
    assert re.fullmatch("[0-9a-f]{12}", str(found["gpu_id"]))
    assert "GPU-11111111-aaaa" not in found.values()
    assert found["driver"] == "580.159.04"
    assert found["memory_bytes"] == 143771 * 2**20
    assert found["suite"] == "kernels"
    torch = pytest.importorskip("torch")
    triton = pytest.importorskip("triton")
    assert found["torch"] == torch.__version__
    assert found["triton"] == triton.__version__
    assert found.get("cuda") == torch.version.cuda
    json.dumps(found, allow_nan=False)


def test_same_device_looks_at_gpu_driver_torch_and_triton(driver: Path) -> None:
    found = device.fingerprint()
    assert device.same_device(found, {**found, "gpu_id": "another", "os": "another"})
    for key in ("gpu", "driver", "torch", "triton"):
        assert not device.same_device(found, {**found, key: "another"})
        assert not device.same_device(found, {k: v for k, v in found.items() if k != key})


def test_the_command_prints_the_name_or_the_fingerprint_without_torch(driver: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "benchmarks.measure.device"]
    plain = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert plain.stdout == "nvidia-h200\n"
    assert " torch\n" not in plain.stderr
    as_json = subprocess.run([*command, "--json"], capture_output=True, cwd=ROOT, check=True)
    assert json.loads(as_json.stdout)["driver"] == "580.159.04"


def fake_nvml(**replaced: Any) -> SimpleNamespace:
    clocks = {"sm": iter([1980, 1500, 1700]), "memory": iter([3201, 3201, 3201])}
    functions = {
        "NVML_CLOCK_SM": "sm",
        "NVML_CLOCK_MEM": "memory",
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetClockInfo": lambda _, kind: next(clocks[kind]),
        "nvmlDeviceGetTemperature": lambda *_: 55,
        "nvmlDeviceGetPowerUsage": lambda _: 612_345,
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda _: 0x1 | 0x4,
    }
    return SimpleNamespace(**{**functions, **replaced})


def test_telemetry_is_a_summary_of_what_was_read() -> None:
    now = itertools.count(0.0, 0.015)
    telemetry = Telemetry("GPU-1", fake_nvml(), clock=lambda: next(now))
    assert telemetry.summary() == {}
    for _ in range(3):
        telemetry.sample()
        telemetry.sample()  # too soon: it reads nothing, and the timing goes on
    summary = telemetry.summary()
    host = {name: summary.pop(name) for name in list(summary) if name.startswith("host_")}
    assert set(host) <= {"host_cores_busy", "host_cores_stolen"}
    assert summary == {
        "sm_clock_mhz": 1700.0,
        "sm_clock_mhz_min": 1500.0,
        "memory_clock_mhz": 3201.0,
        "temperature_c": 55.0,
        "power_w": 612.3,
        "throttle": ["software power cap"],
    }
    telemetry.clear()
    assert telemetry.summary() == {}


def test_a_reading_the_driver_refuses_is_left_out() -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("Not Supported")

    telemetry = Telemetry("GPU-1", fake_nvml(nvmlDeviceGetPowerUsage=refuse))
    telemetry.sample()
    assert "power_w" not in telemetry.summary()
    assert telemetry.summary()["temperature_c"] == 55.0
    for name in ("nvmlInit", "nvmlDeviceGetHandleByUUID"):
        without = Telemetry("GPU-1", fake_nvml(**{name: refuse}))
        without.sample()
        assert without.summary() == {}


def test_reasons_in_words() -> None:
    assert reasons(0x1) == []
    assert reasons(0x20 | 0x80) == ["software thermal", "hardware power brake"]
