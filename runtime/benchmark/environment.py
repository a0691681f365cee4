"""Description of the machine under test, and whether other programs load it."""

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
from ssdiff_trt.runtime.cpus import usable_cpus
from ssdiff_trt.runtime.errors import counted

PACKAGES = (
    "ssdiff-trt",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "cuda-bindings",
    "pycuda",
    "nvidia-ml-py",
    "torch",
)
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_IDLE_SHARE = 0.05
"""Share of the cores, or of the GPU, that other programs may use before a warning, 0..1."""


def environment(power_label: str | None = None) -> Environment:
    """Describe this machine: the hardware, software and settings that timings depend on.

    Args:
        power_label: name of the power mode; by default the one nvpmodel reports on a Jetson.
    """
    gpu = driver = limit = None
    if nvml := open_nvml():
        gpu, driver = nvml.query("nvmlDeviceGetName"), nvml.driver()
        limit = nvml.query("nvmlDeviceGetEnforcedPowerLimit")
        nvml.close()
    return Environment(
        machine=platform.machine(),
        system=platform.platform(),
        processor=_processor(),
        cores=usable_cpus(),
        memory_bytes=_memory(),
        governor=_read_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        gpu=gpu,
        driver=driver,
        power_limit_watts=None if limit is None else limit / 1000,
        power_mode=power_label or _nvpmodel(),
        python=platform.python_version(),
        packages={name: found for name in PACKAGES if (found := _installed_version(name))},
        variables={name: os.environ[name] for name in _VARIABLES if name in os.environ},
    )


def _read_line(path: str) -> str | None:
    try:
        return Path(path).read_text().strip("\0\n ")
    except OSError:
        return None


def _processor() -> str:
    """Name of the board on a Jetson, else of the CPU."""
    if board := _read_line("/proc/device-tree/model"):
        return board
    name = re.search(r"^model name\s*: (.+)", _read_line("/proc/cpuinfo") or "", re.MULTILINE)
    return name[1] if name else platform.processor() or platform.machine()


def _memory() -> int | None:
    """Total RAM in bytes."""
    total = re.search(r"^MemTotal:\s+(\d+) kB", _read_line("/proc/meminfo") or "", re.MULTILINE)
    return int(total[1]) << 10 if total else None


def _installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _nvpmodel() -> str | None:
    """Name of the active power mode of a Jetson; None on other machines."""
    if not shutil.which("nvpmodel"):
        return None
    completed = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True)
    return parse_nvpmodel(completed.stdout)


def parse_nvpmodel(text: str) -> str | None:
    """Name of the power mode, such as 30W, from the output of ``nvpmodel -q``."""
    match = re.search(r"Power Mode: *(\S+)", text)
    return match[1] if match else None


def differences(current: Environment, older: Environment) -> list[str]:
    """Differences between the machines of two benchmarks, a clause each."""
    now, before = current.model_dump(), older.model_dump()
    for nested in ("packages", "variables"):
        now |= now.pop(nested)
        before |= before.pop(nested)
    return [
        f"{name.replace('_', ' ')} is {now.get(name)}, was {before.get(name)}"
        for name in {**now, **before}
        if now.get(name) != before.get(name)
    ]


class CpuTime(NamedTuple):
    """CPU time used so far, in seconds, summed over all cores."""

    wall: float
    """Wall-clock time of the reading, seconds since an arbitrary start."""
    busy: float
    """CPU time of the whole machine."""
    own: float
    """CPU time of this process and of its children that have exited."""


def cpu_time() -> CpuTime | None:
    """CPU time of the machine and of this process; None where there is no ``/proc/stat``."""
    stat = _read_line("/proc/stat")
    if stat is None:
        return None
    user, nice, system, _, _, irq, soft, steal = map(int, stat.split()[1:9])
    own = os.times()
    busy = (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
    return CpuTime(own.elapsed, busy, sum(own[:4]))


def cores_used_by_others(before: CpuTime | None, after: CpuTime | None) -> float | None:
    """Mean number of cores that other programs used between two readings."""
    if before is None or after is None:
        return None
    busy = (after.busy - before.busy) - (after.own - before.own)
    return max(0.0, busy / (after.wall - before.wall))


def cpu_load_warning(other_cores: float | None, cores: int, when: str) -> str | None:
    """Warning that other programs use the CPU; None if they do not or it is unknown.

    Args:
        other_cores: mean number of cores that other programs used.
        cores: number of cores of the machine.
        when: when this was measured, as the start of the sentence.
    """
    if other_cores is None or other_cores <= _IDLE_SHARE * cores:
        return None
    return (
        f"{when}, other programs used {other_cores:.1f} of {cores} cores; times are longer and "
        "vary more than on an idle machine"
    )


def gpu_load_warning() -> str | None:
    """Warning that other programs use the GPU; None if they do not or it is unknown."""
    nvml = open_nvml()
    if nvml is None:
        return None
    running = nvml.query("nvmlDeviceGetComputeRunningProcesses") or []
    running = [process for process in running if process.pid != os.getpid()]
    load = nvml.query("nvmlDeviceGetUtilizationRates")
    nvml.close()
    if not running and (load is None or load.gpu <= 100 * _IDLE_SHARE):
        return None
    share = "" if load is None else f", {load.gpu} % utilisation"
    programs = counted(len(running), "other program")
    return f"The GPU is not idle ({programs}{share}); times may be longer"
