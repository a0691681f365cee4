"""Gauges of energy, clock rate and memory, and the load by other programs."""

from __future__ import annotations

import os
import shutil
import sys
import time
import types

import pytest

from ssdiff_trt.runtime.benchmark.environment import (
    CpuTime,
    cores_used_by_others,
    cpu_load_warning,
    cpu_time,
    differences,
    environment,
    gpu_load_warning,
    parse_nvpmodel,
)
from ssdiff_trt.runtime.benchmark.gauges import (
    Cpu,
    Jetson,
    Nvml,
    Reading,
    Watch,
    open_gauge,
    open_nvml,
    parse_tegrastats,
)

ORIN_NX = (
    "11-24-2026 13:44:02 RAM 3620/15656MB (lfb 3x4MB) SWAP 0/7828MB (cached 0MB) CPU [12%@1510,"
    "8%@1510,0%@729,off,off] EMC_FREQ 31%@2133 GR3D_FREQ 97%@[611] NVDEC off VIC off APE 174 "
    "cpu@48.1C soc2@46.1C tj@49.5C soc0@46C gpu@47.25C VDD_IN 7812mW/5012mW "
    "VDD_CPU_GPU_CV 2543mW/1801mW VDD_SOC 1622mW/1410mW"
)
AGX_ORIN = (
    "RAM 8240/30592MB (lfb 5x4MB) SWAP 0/15296MB (cached 0MB) CPU [3%@2201,1%@2201] EMC_FREQ 0% "
    "GR3D_FREQ 99%@[1300,1300] cpu@51C tboard@40C gpu@49.5C VDD_GPU_SOC 18432mW/9000mW "
    "VDD_CPU_CV 2048mW/2048mW VIN_SYS_5V0 5500mW/5000mW"
)
NANO = (
    "RAM 1903/3964MB (lfb 4x2MB) CPU [25%@1479,10%@1479] EMC_FREQ 0% GR3D_FREQ 76%@921 PLL@35C "
    "GPU@36.5C POM_5V_IN 5260/2960 POM_5V_GPU 1900/480 POM_5V_CPU 1200/500"
)


@pytest.mark.parametrize(
    ("line", "watts", "mhz", "celsius", "memory"),
    [
        (ORIN_NX, 7.812, 611, 47.25, 3620),  # the rail of the module, not the sum of all rails
        (AGX_ORIN, 18.432 + 2.048 + 5.5, 1300, 49.5, 8240),  # no such rail: the sum of all
        (NANO, 5.26, 921, 36.5, 1903),
        ("RAM 1/2MB CPU [1%@2]", None, None, None, 1),
        ("nonsense", None, None, None, None),
    ],
)
def test_tegrastats_is_parsed(line, watts, mhz, celsius, memory):
    power, reading = parse_tegrastats(line)
    assert power == pytest.approx(watts)
    assert (reading.mhz, reading.celsius) == (mhz, celsius)
    assert reading.memory == (memory and memory * 2**20)


def test_the_power_of_a_jetson_is_integrated_over_time(tmp_path):
    code = f"import time\nwhile True: print({ORIN_NX!r}, flush=True); time.sleep(0.02)"
    began = time.monotonic()
    jetson = Jetson((sys.executable, "-c", code))
    first = jetson.read()
    time.sleep(0.2)
    last, upper_bound = jetson.read(), 7.812 * (time.monotonic() - began)
    jetson.close()
    assert jetson._process.returncode is not None
    assert 0 <= first.joules < last.joules <= upper_bound
    assert last._replace(joules=None) == parse_tegrastats(ORIN_NX)[1]


def test_the_power_mode_of_a_jetson_is_parsed():
    assert parse_nvpmodel("NV Fan Mode:quiet\nNV Power Mode: MODE_30W\n2\n") == "MODE_30W"
    assert parse_nvpmodel("") is None


class Sysfs:
    """A folder with files as in /sys."""

    def __init__(self, root):
        self.root = root

    def write(self, name, value):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")


@pytest.fixture
def sysfs(tmp_path):
    sysfs = Sysfs(tmp_path)
    for package, energy in ((0, 900_000), (1, 100_000)):
        sysfs.write(f"class/powercap/intel-rapl:{package}/energy_uj", energy)
        sysfs.write(f"class/powercap/intel-rapl:{package}/max_energy_range_uj", 1_000_000)
    sysfs.write("class/powercap/intel-rapl:0:0/energy_uj", 5)  # a subdomain of a package
    for core, kilohertz in enumerate((2_000_000, 3_000_000)):
        sysfs.write(f"devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", kilohertz)
        sysfs.write(f"devices/system/cpu/cpu{core}/thermal_throttle/core_throttle_count", 7)
    return sysfs


def test_the_energy_of_a_cpu_is_right_when_its_counter_wraps_around(sysfs):
    cpu = Cpu(sysfs.root)
    assert cpu.read() == Reading(0.0, 2500.0)
    sysfs.write("class/powercap/intel-rapl:0/energy_uj", 200_000)  # wrapped around: 0.3 J
    sysfs.write("class/powercap/intel-rapl:1/energy_uj", 600_000)  # 0.5 J
    sysfs.write("devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", 9)
    assert cpu.read() == Reading(pytest.approx(0.8), 2500.0, throttled=("heat",))
    assert cpu.read() == Reading(pytest.approx(0.8), 2500.0)  # no longer throttled


def test_what_a_cpu_does_not_report_is_none(sysfs, tmp_path):
    assert Cpu(tmp_path / "nothing").read() == Reading()
    (sysfs.root / "class/powercap/intel-rapl:1/energy_uj").unlink()
    assert Cpu(sysfs.root).read().joules is None  # half of the packages would give a wrong number


class FakeNvml(types.ModuleType):
    """Fake NVML of one GPU that does not support reading the temperature."""

    NVMLError = type("NVMLError", (Exception,), {})
    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    def __init__(self, reasons=0, running=(), load=0):
        super().__init__("pynvml")
        self.NVMLError_NotSupported = type("NotSupported", (self.NVMLError,), {})
        self.reasons, self.running, self.load = reasons, list(running), load
        self.opened = []
        self.millijoules = 1000

    def nvmlInit(self):  # noqa: N802
        pass

    nvmlShutdown = nvmlInit  # noqa: N815

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        self.opened.append(index)
        return "gpu"

    nvmlDeviceGetHandleByUUID = nvmlDeviceGetHandleByIndex  # noqa: N815

    def __getattr__(self, name):
        def refuse(*_):
            raise self.NVMLError_NotSupported

        return {
            "nvmlDeviceGetTotalEnergyConsumption": lambda gpu: self.millijoules,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda gpu: self.reasons,
            "nvmlDeviceGetMemoryInfo": lambda gpu: types.SimpleNamespace(used=3 << 30),
            "nvmlDeviceGetClockInfo": lambda gpu, which: {1: 1410}[which],
            "nvmlDeviceGetComputeRunningProcesses": lambda gpu: self.running,
            "nvmlDeviceGetUtilizationRates": lambda gpu: types.SimpleNamespace(gpu=self.load),
            "nvmlDeviceGetTemperature": refuse,
        }[name]


def test_nvml_gives_the_reasons_for_throttling():
    nvml = FakeNvml(reasons=0x04 | 0x40 | 0x01)  # 0x01, idleness, does not count
    assert Nvml(nvml).read() == Reading(1.0, 1410, None, ("power cap", "heat (hardware)"), 3 << 30)


@pytest.mark.parametrize(
    ("visible", "opened"), [(None, 0), ("2,0", 2), ("GPU-1f", "GPU-1f"), ("", 0)]
)
def test_nvml_reads_the_gpu_that_cuda_uses(monkeypatch, visible, opened):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvml = FakeNvml()
    Nvml(nvml)
    assert nvml.opened == [opened]


def test_the_real_nvml_has_every_function_that_is_called():
    import inspect

    import pynvml

    import ssdiff_trt.runtime.benchmark.environment as environment_module
    import ssdiff_trt.runtime.benchmark.gauges as gauges

    source = inspect.getsource(gauges) + inspect.getsource(environment_module)
    words = source.replace('"', " ").split()
    names = {word.split("(")[0].split(".")[-1] for word in words if "nvml" in word}
    names = {name.strip(",)]:") for name in names if name.startswith("nvml")} - {"nvml", "nvml_"}
    called = {name for name in names if name[4:5].isupper()}
    assert len(called) >= 10
    assert not {name for name in called if not hasattr(pynvml, name)}
    assert issubclass(pynvml.NVMLError_NotSupported, pynvml.NVMLError)


def test_without_nvml_or_a_gpu_there_is_no_gauge(monkeypatch):
    assert open_nvml() is None
    assert gpu_load_warning() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_nvml() is None
    assert open_gauge("gpu") is None


def test_other_programs_on_the_gpu_give_a_warning(monkeypatch):
    other, own = (types.SimpleNamespace(pid=pid) for pid in (1, os.getpid()))
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(running=[other, own], load=40))
    warning = "The GPU is not idle (1 other program, 40 % utilisation); times may be longer"
    assert gpu_load_warning() == warning
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(running=[own]))
    assert gpu_load_warning() is None


class Ramp:
    """A gauge whose values grow with each reading."""

    label = "fake"

    def __init__(self):
        self.count = 0

    def read(self):
        self.count += 1
        reasons = ("heat",) if self.count == 3 else ()
        return Reading(
            2.0 * self.count, 1000.0 + self.count, 40.0 + self.count, reasons, self.count
        )

    def close(self):
        self.count = -1


def test_a_watch_covers_its_block_alone():
    gauge = Ramp()
    watch = Watch("gpu", gauge)
    with watch:
        time.sleep(0.25)
    readings = gauge.count  # one of them before the block
    observed = watch.observed()
    assert observed.gauge == "fake"
    assert observed.joules == 2.0 * (readings - 2)
    assert observed.celsius == 40 + readings
    assert observed.mhz == pytest.approx(1000 + (2 + readings) / 2)
    assert observed.throttled == ("heat",)
    assert watch.device_bytes == readings - 1
    with watch:
        pass
    assert watch.observed().throttled == ()
    watch.close()
    assert gauge.count == -1


def test_the_load_by_other_programs_excludes_our_own():
    before, after = CpuTime(100.0, 1000.0, 50.0), CpuTime(110.0, 1016.0, 61.0)
    assert cores_used_by_others(before, after) == pytest.approx(0.5)
    assert cores_used_by_others(None, after) is None
    assert cpu_load_warning(0.5, 2, "Before").startswith("Before, other programs used 0.5 of 2")
    assert cpu_load_warning(0.5, 16, "Before") is None
    assert cpu_load_warning(None, 2, "Before") is None


def test_cpu_time_counts_our_own_work():
    before = cpu_time()
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    after = cpu_time()
    assert after.own - before.own > 0.05
    assert after.busy - before.busy > 0.05


def test_differences_between_machines_are_listed():
    now = environment("30W")
    assert now.power_mode == "30W"
    assert now.packages["numpy"]
    assert now.memory_bytes > 1 << 28
    assert differences(now, now) == []
    other = now.model_copy(update={"cores": 99, "packages": now.packages | {"numpy": "0.1"}})
    assert differences(now, other) == [
        f"cores is {now.cores}, was 99",
        f"numpy is {now.packages['numpy']}, was 0.1",
    ]


def test_tegrastats_is_preferred_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/tegrastats")
    monkeypatch.setattr("ssdiff_trt.runtime.benchmark.gauges.Jetson", lambda: "jetson")
    assert open_gauge("cpu") == open_gauge("gpu") == "jetson"
