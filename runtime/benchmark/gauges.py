"""Gauges: energy, clock rate, temperature and memory, as far as the platform reports them.

An NVIDIA GPU is read by NVML, a Jetson module by tegrastats, a CPU by RAPL and cpufreq. A quantity
that the platform does not report is None, never an estimate.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np

from ssdiff_trt.runtime.backends.protocol import Device
from ssdiff_trt.runtime.benchmark.results import Observed

_SAMPLING_PERIOD = 0.1
"""Seconds between two readings."""
_THROTTLE_REASONS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "heat",
    0x40: "heat (hardware)",
    0x80: "power brake",
}
"""Bits of NVML's clock throttle reasons. The other bits are settings of the user, or idleness."""
_RAIL = re.compile(r"\b((?:VDD|VIN|POM)\w*) (\d+)(?:mW)?/\d+")
_MODULE_RAILS = ("VDD_IN", "POM_5V_IN")
"""Power rails that supply a whole Jetson module; without one, all rails are summed."""


class Reading(NamedTuple):
    """One reading of a gauge."""

    joules: float | None = None
    """Energy counter, J, from an arbitrary start."""
    mhz: float | None = None
    """Clock rate."""
    celsius: float | None = None
    """Temperature."""
    throttled: tuple[str, ...] = ()
    """Reasons why the clock is throttled at this moment."""
    memory: int | None = None
    """Device memory used by all programs together, bytes."""


class Gauge(Protocol):
    """A source of readings of one device."""

    label: str
    """Device and method, such as ``GPU (NVML)``."""

    def read(self) -> Reading:
        """Read the present state."""
        ...

    def close(self) -> None:
        """Release the resources of the gauge."""
        ...


class Nvml:
    """Gauge of an NVIDIA GPU through NVML; energy comes from the board's own counter."""

    label = "GPU (NVML)"

    def __init__(self, nvml: ModuleType) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        self._gpu = _first_visible(nvml)

    def query(self, name: str, *arguments: Any) -> Any:
        """Result of an NVML function for this GPU; None if the GPU does not support it."""
        try:
            return getattr(self._nvml, name)(self._gpu, *arguments)
        except self._nvml.NVMLError_NotSupported:
            return None

    def driver(self) -> str:
        """Version of the NVIDIA driver."""
        return str(self._nvml.nvmlSystemGetDriverVersion())

    def read(self) -> Reading:
        millijoules = self.query("nvmlDeviceGetTotalEnergyConsumption")
        reasons = self.query("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
        memory = self.query("nvmlDeviceGetMemoryInfo")
        return Reading(
            None if millijoules is None else millijoules / 1000,
            self.query("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM),
            self.query("nvmlDeviceGetTemperature", self._nvml.NVML_TEMPERATURE_GPU),
            tuple(reason for bit, reason in _THROTTLE_REASONS.items() if reasons & bit),
            None if memory is None else memory.used,
        )

    def close(self) -> None:
        self._nvml.nvmlShutdown()


def open_nvml() -> Nvml | None:
    """Gauge of the GPU through NVML; None without its package or without a GPU."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        return Nvml(pynvml)
    except pynvml.NVMLError:
        return None


def _first_visible(nvml: ModuleType) -> Any:
    """NVML handle of CUDA's device 0, which CUDA_VISIBLE_DEVICES gives by index or by UUID."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    if first.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    return nvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdigit() else 0)


class Jetson:
    """Gauge of a Jetson module through tegrastats; energy is its power integrated over time.

    Args:
        command: program to start, with its arguments.
    """

    label = "module (tegrastats)"

    def __init__(self, command: tuple[str, ...] = ("tegrastats", "--interval", "100")) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._joules, self._reading = 0.0, Reading()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._read_lines, daemon=True)
        self._thread.start()
        self._ready.wait(timeout=5)

    def _read_lines(self) -> None:
        assert self._process.stdout is not None
        before = time.monotonic()
        for line in self._process.stdout:
            watts, reading = parse_tegrastats(line)
            now = time.monotonic()
            self._joules, before = self._joules + (watts or 0) * (now - before), now
            joules = None if watts is None else self._joules
            self._reading = reading._replace(joules=joules)
            self._ready.set()
        self._ready.set()

    def read(self) -> Reading:
        return self._reading

    def close(self) -> None:
        with self._process:
            self._process.terminate()
            self._thread.join()


def parse_tegrastats(line: str) -> tuple[float | None, Reading]:
    """Parse one line of tegrastats.

    Returns:
        Power in W, and a reading with the GPU's clock and temperature and the memory in use.
    """
    rails = {name: int(milliwatts) / 1000 for name, milliwatts in _RAIL.findall(line)}
    module_rails = [rails[name] for name in _MODULE_RAILS if name in rails]
    watts = module_rails[0] if module_rails else sum(rails.values()) if rails else None

    def number(pattern: str) -> float | None:
        match = re.search(pattern, line)
        return float(match[1]) if match else None

    memory = number(r"\bRAM (\d+)/")
    return watts, Reading(
        mhz=number(r"\bGR3D_FREQ \d+%@\[?(\d+)"),
        celsius=number(r"\bgpu@([\d.]+)C") or number(r"\bGPU@([\d.]+)C"),
        memory=None if memory is None else int(memory) << 20,
    )


class Cpu:
    """Gauge of a CPU through RAPL energy counters and cpufreq.

    On many systems only root may read RAPL; energy is None for other users.

    Args:
        sys: mount point of sysfs.
    """

    label = "CPU (RAPL, cpufreq)"

    def __init__(self, sys: Path = Path("/sys")) -> None:
        self._packages = sorted((sys / "class/powercap").glob("intel-rapl:[0-9]"))
        cores = sys / "devices/system/cpu"
        self._clocks = sorted(cores.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        self._throttles = sorted(cores.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
        self._throttle_count = self._count_throttling()
        self._last = [_number(package / "energy_uj") for package in self._packages]
        self._microjoules = 0.0

    def _count_throttling(self) -> float:
        return sum(_number(path) or 0 for path in self._throttles)

    def read(self) -> Reading:
        now = [_number(package / "energy_uj") for package in self._packages]
        for package, before, after in zip(self._packages, self._last, now, strict=True):
            if before is not None and after is not None:
                span = _number(package / "max_energy_range_uj") or 0  # the counter wraps around
                self._microjoules += after - before + (span if after < before else 0)
        complete = bool(now) and None not in now + self._last
        kilohertz = [clock for path in self._clocks if (clock := _number(path)) is not None]
        count = self._count_throttling()
        overheated = count > self._throttle_count
        self._last, self._throttle_count = now, count
        return Reading(
            self._microjoules / 1e6 if complete else None,
            float(np.mean(kilohertz)) / 1000 if kilohertz else None,
            throttled=("heat",) if overheated else (),
        )

    def close(self) -> None:
        pass


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def open_gauge(device: Device) -> Gauge | None:
    """The best gauge of a device on this machine: tegrastats, else NVML (GPU) or sysfs (CPU)."""
    if shutil.which("tegrastats"):
        return Jetson()
    return open_nvml() if device == "gpu" else Cpu()


class Watch:
    """Context manager that reads a gauge periodically while its block runs.

    Args:
        device: device to monitor.
        gauge: gauge to read; by default that of :func:`open_gauge`.

    Attributes:
        device_bytes: peak GPU memory in use during any block, in bytes above the use at
            construction; None where it is unknown.
    """

    def __init__(self, device: Device, gauge: Gauge | None = None) -> None:
        self._device, self._gauge = device, gauge or open_gauge(device)
        self._readings: list[Reading] = []
        self._initial_memory = self._gauge.read().memory if self._gauge else None
        self.device_bytes: int | None = None

    def __enter__(self) -> Watch:
        self._readings.clear()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read_periodically, daemon=True)
        self._thread.start()
        return self

    def _read_periodically(self) -> None:
        while self._gauge is not None:
            self._readings.append(self._gauge.read())
            if self._stop.is_set():
                return
            self._stop.wait(_SAMPLING_PERIOD)

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        initial = self._initial_memory
        used = [reading.memory for reading in self._readings if reading.memory is not None]
        if self._device == "gpu" and initial is not None:
            self.device_bytes = max([self.device_bytes or 0, *(m - initial for m in used)])

    def close(self) -> None:
        """Close the gauge."""
        if self._gauge is not None:
            self._gauge.close()

    def observed(self) -> Observed | None:
        """Summary of the readings of the last block; None without a gauge."""
        if self._gauge is None:
            return None
        first, last = self._readings[0].joules, self._readings[-1].joules
        return Observed(
            gauge=self._gauge.label,
            joules=None if first is None or last is None else last - first,
            mhz=self._reduced("mhz", np.median),
            celsius=self._reduced("celsius", max),
            throttled=tuple(
                sorted({reason for reading in self._readings[1:] for reason in reading.throttled})
            ),
        )

    def _reduced(self, field: str, reduce: Callable[[list[float]], Any]) -> float | None:
        """A field of all readings reduced to one value, without those that are None."""
        values = [value for r in self._readings if (value := getattr(r, field)) is not None]
        return float(reduce(values)) if values else None
