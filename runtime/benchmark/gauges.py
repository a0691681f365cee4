"""Gauges: energy, clocks, temperature and memory, as far as a machine tells of itself.

NVML tells of an NVIDIA GPU, tegrastats of a whole Jetson, RAPL and cpufreq of a CPU. What a gauge
cannot tell is None, never a guess.
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

_PERIOD = 0.1
"""Seconds from reading to reading."""
_THROTTLING = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "heat",
    0x40: "heat (hardware)",
    0x80: "power brake",
}
"""Bits of NVML's reasons for a lower clock; the others are a user's own choice, or idleness."""
_RAIL = re.compile(r"\b((?:VDD|VIN|POM)\w*) (\d+)(?:mW)?/\d+")
_WHOLE = ("VDD_IN", "POM_5V_IN")
"""Rails of a Jetson's whole module; where there is none, the sum of all rails is taken."""


class Reading(NamedTuple):
    """What a gauge says at one time."""

    joules: float | None = None
    """Since some time in the past."""
    mhz: float | None = None
    celsius: float | None = None
    throttled: tuple[str, ...] = ()
    """Why the clock is held back now."""
    memory: int | None = None
    """Bytes of the device in use, by whomever."""


class Gauge(Protocol):
    """Something that can be read again and again."""

    of: str
    """What it covers, and by what."""

    def read(self) -> Reading:
        """Its state now."""
        ...

    def close(self) -> None:
        """It is not needed any more."""
        ...


class Nvml:
    """An NVIDIA GPU, by NVML. Its energy is a counter of the board's own."""

    of = "GPU (NVML)"

    def __init__(self, nvml: ModuleType) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        self._gpu = _first_visible(nvml)

    def ask(self, name: str, *more: Any) -> Any:
        """The answer of a function of NVML on this GPU, None if the GPU has none."""
        try:
            return getattr(self._nvml, name)(self._gpu, *more)
        except self._nvml.NVMLError_NotSupported:
            return None

    def driver(self) -> str:
        """Version of NVIDIA's driver."""
        return str(self._nvml.nvmlSystemGetDriverVersion())

    def read(self) -> Reading:
        millijoules = self.ask("nvmlDeviceGetTotalEnergyConsumption")
        reasons = self.ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
        memory = self.ask("nvmlDeviceGetMemoryInfo")
        return Reading(
            None if millijoules is None else millijoules / 1000,
            self.ask("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM),
            self.ask("nvmlDeviceGetTemperature", self._nvml.NVML_TEMPERATURE_GPU),
            tuple(reason for bit, reason in _THROTTLING.items() if reasons & bit),
            None if memory is None else memory.used,
        )

    def close(self) -> None:
        self._nvml.nvmlShutdown()


def open_nvml() -> Nvml | None:
    """NVML, if its package is installed and there is a GPU."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        return Nvml(pynvml)
    except pynvml.NVMLError:
        return None


def _first_visible(nvml: ModuleType) -> Any:
    """The GPU that CUDA takes, which may be hidden others, by number or by name."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    if first.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    return nvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdigit() else 0)


class Jetson:
    """A Jetson's module, by what tegrastats prints; its power is added up over time.

    Args:
        words: of the command.
    """

    of = "module (tegrastats)"

    def __init__(self, words: tuple[str, ...] = ("tegrastats", "--interval", "100")) -> None:
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self._joules, self._reading = 0.0, Reading()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        self._ready.wait(timeout=5)

    def _follow(self) -> None:
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
    """Watts, and the GPU's clock, its temperature and the memory in use, of one line."""
    rails = {name: int(milliwatts) / 1000 for name, milliwatts in _RAIL.findall(line)}
    whole = [rails[name] for name in _WHOLE if name in rails]
    watts = whole[0] if whole else sum(rails.values()) if rails else None

    def number(pattern: str) -> float | None:
        found = re.search(pattern, line)
        return float(found[1]) if found else None

    memory = number(r"\bRAM (\d+)/")
    return watts, Reading(
        mhz=number(r"\bGR3D_FREQ \d+%@\[?(\d+)"),
        celsius=number(r"\bgpu@([\d.]+)C") or number(r"\bGPU@([\d.]+)C"),
        memory=None if memory is None else int(memory) << 20,
    )


class Cpu:
    """A CPU, by RAPL's counters of energy, of which many systems let only root read, and cpufreq.

    Args:
        sys: where the kernel tells of itself.
    """

    of = "CPU (RAPL, cpufreq)"

    def __init__(self, sys: Path = Path("/sys")) -> None:
        self._packages = sorted((sys / "class/powercap").glob("intel-rapl:[0-9]"))
        cores = sys / "devices/system/cpu"
        self._clocks = sorted(cores.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        self._throttles = sorted(cores.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
        self._throttled = self._count()
        self._last = [_number(package / "energy_uj") for package in self._packages]
        self._microjoules = 0.0

    def _count(self) -> float:
        return sum(_number(path) or 0 for path in self._throttles)

    def read(self) -> Reading:
        now = [_number(package / "energy_uj") for package in self._packages]
        for package, before, after in zip(self._packages, self._last, now, strict=True):
            if before is not None and after is not None:
                over = _number(package / "max_energy_range_uj") or 0  # the counter starts over
                self._microjoules += after - before + (over if after < before else 0)
        known = bool(now) and None not in now + self._last
        clocks = [hertz for path in self._clocks if (hertz := _number(path)) is not None]
        count = self._count()
        heat = count > self._throttled
        self._last, self._throttled = now, count
        return Reading(
            self._microjoules / 1e6 if known else None,
            float(np.mean(clocks)) / 1000 if clocks else None,
            throttled=("heat",) if heat else (),
        )

    def close(self) -> None:
        pass


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def open_gauge(device: Device) -> Gauge | None:
    """What tells most of a device here: tegrastats, NVML for a GPU, the kernel for a CPU."""
    if shutil.which("tegrastats"):
        return Jetson()
    return open_nvml() if device == "gpu" else Cpu()


class Watch:
    """Reads what tells of a device while a block runs.

    Args:
        device: to watch.
        gauge: that tells of it; by default the one that there is.

    Attributes:
        device_bytes: most of a GPU's memory that was in use in any block, above what was in use
            when this was made.
    """

    def __init__(self, device: Device, gauge: Gauge | None = None) -> None:
        self._device, self._gauge = device, gauge or open_gauge(device)
        self._readings: list[Reading] = []
        self._before = self._gauge.read().memory if self._gauge else None
        self.device_bytes: int | None = None

    def __enter__(self) -> Watch:
        self._readings.clear()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        return self

    def _follow(self) -> None:
        while self._gauge is not None:
            self._readings.append(self._gauge.read())
            if self._over.is_set():
                return
            self._over.wait(_PERIOD)

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()
        used = [reading.memory for reading in self._readings if reading.memory is not None]
        if self._device == "gpu" and self._before is not None:
            self.device_bytes = max([self.device_bytes or 0, *(m - self._before for m in used)])

    def close(self) -> None:
        """Let go of the gauge."""
        if self._gauge is not None:
            self._gauge.close()

    def observed(self) -> Observed | None:
        """What was read in the last block; None where nothing can be."""
        if self._gauge is None:
            return None
        first, last = self._readings[0].joules, self._readings[-1].joules
        return Observed(
            gauge=self._gauge.of,
            joules=None if first is None or last is None else last - first,
            mhz=self._of("mhz", np.median),
            celsius=self._of("celsius", max),
            throttled=tuple(sorted({why for one in self._readings[1:] for why in one.throttled})),
        )

    def _of(self, name: str, reduce: Callable[[list[float]], Any]) -> float | None:
        known = [value for one in self._readings if (value := getattr(one, name)) is not None]
        return float(reduce(known)) if known else None
