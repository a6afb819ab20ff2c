"""Clocks, temperature, power and throttling of the GPU while a case is timed, through NVML.

Beside them, what else the host computes meanwhile.

NVML's Python binding (`nvidia-ml-py`) is optional: without it, or where the driver refuses a
reading, that figure is left out. Nothing here changes a setting of the device.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import statistics
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from benchmarks.measure.host_load import HostLoad

# Bits of NVML's clock event reasons (NVML API reference, "nvmlClocksEventReasons").
_REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "hardware power brake",
    0x100: "display clocks",
}
_BENIGN = 0x1  # an idle moment between two batches says nothing about the samples

_FAULTS = {"hardware slowdown", "hardware thermal", "software thermal", "hardware power brake"}
"""At its power cap a device is meant to work; at these it is not."""

_READINGS = ("sm_clock_mhz", "memory_clock_mhz", "temperature_c", "power_w")
_PAUSE_S = 0.02
"""Between two readings, which take the driver some milliseconds; the power is a mean over more."""


def reasons(mask: int) -> list[str]:
    """Clock event reasons of an NVML bit mask in words, idleness left out."""
    return [word for bit, word in _REASONS.items() if mask & bit and bit != _BENIGN]


def throttled(summary: Mapping[str, Any]) -> str:
    """Why a time under these readings is not to be trusted, in words; else empty."""
    found = [reason for reason in summary.get("throttle", ()) if reason in _FAULTS]
    return f"noisy: the device slowed down meanwhile: {', '.join(found)}" if found else ""


class Telemetry:
    """Readings of one GPU; `sample()` while it is busy, `summary()` afterwards."""

    def __init__(
        self, uuid: str, nvml: Any = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`uuid` as `nvidia-smi` prints it; `nvml` a module with NVML's functions; `clock` in
        seconds.
        """
        self._clock = clock
        self._nvml: Any = nvml if nvml is not None else _import_nvml()
        self._handle: Any = None
        self._host = HostLoad()
        if self._nvml is not None:
            try:
                self._nvml.nvmlInit()
                self._handle = self._nvml.nvmlDeviceGetHandleByUUID(uuid)
            except Exception:  # NVMLError is a class of the optional module
                self._handle = None
        self.clear()

    def clear(self) -> None:
        """Forget all readings: the start of a case."""
        self._values: dict[str, list[float]] = {name: [] for name in _READINGS}
        self._mask = 0
        self._read_at = -math.inf
        self._host.clear()

    def sample(self) -> None:
        """Read every figure once, but for right after the last reading."""
        if self._handle is None or self._clock() - self._read_at < _PAUSE_S:
            return
        nvml, handle = self._nvml, self._handle
        self._read("sm_clock_mhz", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))
        self._read(
            "memory_clock_mhz", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)
        )
        self._read(
            "temperature_c",
            lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        )
        self._read("power_w", lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000.0)
        with contextlib.suppress(Exception):  # not supported on this device
            self._mask |= int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        self._read_at = self._clock()

    def memory(self) -> tuple[int, int] | None:
        """Bytes of the device that are free, and all of them; None where NVML does not say."""
        try:
            found = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
            return int(found.free), int(found.total)
        except Exception:  # NVMLError is a class of the optional module, which may not be there
            return None

    def summary(self) -> dict[str, Any]:
        """Median of each figure, the lowest SM clock, throttle reasons, and the host's load; {}
        without readings.
        """
        found: dict[str, Any] = {
            name: round(statistics.median(values), 1)
            for name, values in self._values.items()
            if values
        }
        if not found:
            return {}
        if self._values["sm_clock_mhz"]:
            found["sm_clock_mhz_min"] = min(self._values["sm_clock_mhz"])
        found["throttle"] = reasons(self._mask)
        return {**found, **self._host.summary()}

    def _read(self, name: str, reading: Any) -> None:
        try:
            self._values[name].append(float(reading()))
        except Exception:  # not supported on this device
            return


def _import_nvml() -> ModuleType | None:
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        return None
