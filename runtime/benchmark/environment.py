"""The machine that is measured: what it is, and whether it has anything else to do."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from ssdiff_trt.runtime.benchmark.gauges import open_nvml
from ssdiff_trt.runtime.benchmark.results import Environment
from ssdiff_trt.runtime.errors import counted

PACKAGES = (
    "ssdiff-trt",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "cuda-bindings",
    "pycuda",
    "nvidia-ml-py",
    "torch",
)
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_IDLE = 0.05
"""Share of the cores that others may keep busy before a warning."""


def environment(power_label: str | None = None) -> Environment:
    """This machine.

    Args:
        power_label: name of its power mode; a Jetson's own by default.
    """
    gpu = driver = limit = None
    if nvml := open_nvml():
        gpu, driver = nvml.ask("nvmlDeviceGetName"), nvml.driver()
        limit = nvml.ask("nvmlDeviceGetEnforcedPowerLimit")
        nvml.close()
    return Environment(
        machine=platform.machine(),
        system=platform.platform(),
        processor=_processor(),
        cores=_cores(),
        memory_bytes=_memory(),
        governor=_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        gpu=gpu,
        driver=driver,
        power_limit_watts=None if limit is None else limit / 1000,
        power_mode=power_label or _nvpmodel(),
        python=platform.python_version(),
        packages={name: found for name in PACKAGES if (found := _version(name))},
        variables={name: os.environ[name] for name in _VARIABLES if name in os.environ},
    )


def _line(path: str) -> str | None:
    try:
        return Path(path).read_text().strip("\0\n ")
    except OSError:
        return None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    """A Jetson's board, else the name of the CPU."""
    if board := _line("/proc/device-tree/model"):
        return board
    name = re.search(r"^model name\s*: (.+)", _line("/proc/cpuinfo") or "", re.MULTILINE)
    return name[1] if name else platform.processor() or platform.machine()


def _memory() -> int | None:
    total = re.search(r"^MemTotal:\s+(\d+) kB", _line("/proc/meminfo") or "", re.MULTILINE)
    return int(total[1]) << 10 if total else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _nvpmodel() -> str | None:
    """The power mode of a Jetson."""
    if not shutil.which("nvpmodel"):
        return None
    told = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True)
    return parse_nvpmodel(told.stdout)


def parse_nvpmodel(text: str) -> str | None:
    """Of what nvpmodel -q prints, such as 30W."""
    found = re.search(r"Power Mode: *(\S+)", text)
    return found[1] if found else None


def differences(one: Environment, other: Environment) -> list[str]:
    """In what two machines differ, a clause each; the second is the older."""
    now, before = one.model_dump(), other.model_dump()
    for nested in ("packages", "variables"):
        now |= now.pop(nested)
        before |= before.pop(nested)
    return [
        f"{name.replace('_', ' ')} is {now.get(name)}, was {before.get(name)}"
        for name in {**now, **before}
        if now.get(name) != before.get(name)
    ]


class CpuTime(NamedTuple):
    """Seconds of CPU, all cores together, up to now."""

    when: float
    busy: float
    """Of the machine."""
    own: float
    """Of this process and those of its children that have ended."""


def cpu_time() -> CpuTime | None:
    """Where the kernel tells; None elsewhere."""
    stat = _line("/proc/stat")
    if stat is None:
        return None
    user, nice, system, _, _, irq, soft, steal = map(int, stat.split()[1:9])
    own = os.times()
    busy = (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
    return CpuTime(own.elapsed, busy, sum(own[:4]))


def others_cores(before: CpuTime | None, after: CpuTime | None) -> float | None:
    """How many cores other programs kept busy between two times, on average."""
    if before is None or after is None:
        return None
    busy = (after.busy - before.busy) - (after.own - before.own)
    return max(0.0, busy / (after.when - before.when))


def not_idle(others: float | None, cores: int, when: str) -> str | None:
    """A clause that the machine has other work; None if it has not."""
    if others is None or others <= _IDLE * cores:
        return None
    return (
        f"{when}, other programs kept {others:.1f} of {cores} cores busy; times are longer and "
        "scatter more than they would on an idle machine"
    )


def gpu_in_use() -> str | None:
    """A clause that others use the GPU; None if nobody does, or it is not told."""
    nvml = open_nvml()
    if nvml is None:
        return None
    running = nvml.ask("nvmlDeviceGetComputeRunningProcesses") or []
    running = [process for process in running if process.pid != os.getpid()]
    load = nvml.ask("nvmlDeviceGetUtilizationRates")
    nvml.close()
    if not running and (load is None or load.gpu <= 100 * _IDLE):
        return None
    share = "" if load is None else f", and it is {load.gpu} % busy"
    programs = counted(len(running), "other program")
    return f"The GPU is not idle: {programs} on it{share}; times may be longer for that"
