"""Data model of benchmark results: every run of every case, and the machine. Stored as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ssdiff_trt.runtime.backends.protocol import Device
from ssdiff_trt.runtime.bundle.measured import Strict
from ssdiff_trt.runtime.files import json_of, reading
from ssdiff_trt.runtime.options import Precision


class Observed(Strict):
    """Readings of a gauge while batches streamed through a backend."""

    gauge: str
    """Device and method of the gauge."""
    joules: float | None = None
    """Energy of the whole device or module that the gauge covers, idle power included."""
    mhz: float | None = None
    """Median clock rate."""
    celsius: float | None = None
    """Highest temperature."""
    throttled: tuple[str, ...] = ()
    """Reasons for which the clock was throttled."""


Milliseconds = Annotated[float, Field(gt=1e-9, lt=1e15)]
"""A duration that ratios can be taken of."""


class Sample(Strict):
    """Measurements of one backend, batch size and number of steps in one process."""

    latency_ms: tuple[Milliseconds, ...] = Field(min_length=1)
    """Latency of each run: one batch, from tiles in host memory to images in host memory."""
    device_ms: tuple[float, ...] = ()
    """GPU time of each run by CUDA events, without copies; empty if the backend has no timer."""
    tiles: int
    """Tiles processed in the throughput measurement, batch after batch without a pause."""
    seconds: float
    """Duration of the throughput measurement."""
    observed: Observed | None = None
    """Gauge readings during the throughput measurement."""


class Process(Strict):
    """Measurements of one case in one fresh process."""

    load_seconds: float
    """Time to open the backend when its engine is already built."""
    first_tile_seconds: float
    """Time from process start to the images of the first batch, with the bundle's timesteps."""
    host_bytes: int
    """Peak resident memory."""
    device_bytes: int | None = None
    """Peak GPU memory above the use before the backend was opened; None where it is unknown."""
    samples: dict[int, Sample]
    """Measurements by number of sampling steps."""


class Opened(Strict):
    """A backend that could be opened on this machine."""

    backend: str
    """The backend's description of itself."""
    precision: Precision
    device: Device
    batches: tuple[int, ...]
    """Batch sizes that fit into memory."""
    build_seconds: float | None = None
    """Time it took to build its engine, possibly in an earlier run."""


class Case(Strict):
    """Measurements of one candidate and batch size, from one process per round."""

    candidate: str
    batch: int
    processes: tuple[Process, ...] = Field(min_length=1)

    def latencies(self, steps: int) -> list[tuple[float, ...]]:
        """Latencies of a batch in ms, round by round."""
        return [process.samples[steps].latency_ms for process in self.processes]

    def device_latencies(self, steps: int) -> list[tuple[float, ...]]:
        """GPU times of a batch in ms, round by round; empty if the backend has no timer."""
        return [times for p in self.processes if (times := p.samples[steps].device_ms)]

    def rates(self, steps: int) -> list[float]:
        """Throughput in tiles per second, round by round."""
        samples = [process.samples[steps] for process in self.processes]
        return [sample.tiles / sample.seconds for sample in samples]

    def tiles_per_second(self, steps: int) -> float:
        """Throughput in tiles per second over all rounds."""
        samples = [process.samples[steps] for process in self.processes]
        return sum(s.tiles for s in samples) / sum(s.seconds for s in samples)

    def joules_per_tile(self, steps: int) -> float | None:
        """Energy per tile at full throughput; None unless every round measured energy."""
        samples = [process.samples[steps] for process in self.processes]
        joules = [o.joules for s in samples if (o := s.observed) and o.joules is not None]
        return sum(joules) / sum(s.tiles for s in samples) if len(joules) == len(samples) else None

    def watts(self, steps: int) -> float | None:
        """Mean power at full throughput; None unless every round measured energy."""
        joules = self.joules_per_tile(steps)
        return None if joules is None else joules * self.tiles_per_second(steps)


class SceneRun(Strict):
    """Pansharpening of a scene from input files to output file, in a fresh process."""

    seconds: float
    """Duration of the run, without opening the backend."""
    network_seconds: float
    """Part of ``seconds`` spent in the backend; the rest is reading, blending and writing."""
    load_seconds: float
    """Time to open the backend."""
    host_bytes: int
    """Peak resident memory."""
    device_bytes: int | None = None
    """Peak GPU memory above the use before the backend was opened; None where it is unknown."""
    pixels: int
    """Pixels of the output image."""
    tiles: int
    steps: int


class SceneCase(Strict):
    """Scene runs of one candidate, one per round."""

    candidate: str
    runs: tuple[SceneRun, ...]


class Environment(Strict):
    """Hardware, software and settings of the machine that timings depend on."""

    machine: str
    system: str
    processor: str
    cores: int = Field(ge=1, le=1 << 20)
    """CPU cores that this process may use."""
    memory_bytes: int | None
    governor: str | None
    """CPU frequency governor."""
    gpu: str | None
    driver: str | None
    power_limit_watts: float | None
    """Enforced power limit of the GPU."""
    power_mode: str | None
    """Power mode: the label given by the user, else that of a Jetson."""
    python: str
    packages: dict[str, str]
    """Versions of the packages that matter, by name."""
    variables: dict[str, str]
    """Environment variables that select threads and GPUs."""


class Settings(Strict):
    """Settings of a benchmark; see :func:`ssdiff_trt.runtime.benchmark.rounds.bench`."""

    batches: tuple[int, ...]
    steps: tuple[int, ...]
    rounds: int
    repeats: int
    seconds: float
    threads: int | None
    budget_watts: float | None


class Benchmark(Strict):
    """All results of a benchmark."""

    format: Literal[2] = 2
    created: str
    bundle: str
    bundle_sha256: str
    tile: int
    settings: Settings
    environment: Environment
    others_cores: float | None
    """Mean number of cores that other programs used during the benchmark."""
    candidates: dict[str, Opened]
    """Backends that were measured, by the name under which tables list them."""
    cases: tuple[Case, ...]
    scenes: tuple[SceneCase, ...] = ()

    @model_validator(mode="after")
    def _check_steps(self) -> Benchmark:
        for case in self.cases:
            for process in case.processes:
                if missing := set(self.settings.steps) - set(process.samples):
                    raise ValueError(
                        f"{case.candidate} in batches of {case.batch} has no measurements of "
                        f"{min(missing)} steps"
                    )
        return self


def read_benchmark(path: str | Path) -> Benchmark:
    """Read a benchmark that ``ssdiff-trt bench --json`` wrote, of this or an older format.

    Raises:
        SSDiffError: if the file cannot be read or is not a benchmark.
    """
    remedy = "give a file that ssdiff-trt bench --json wrote"
    with reading(f"{path} cannot be read", remedy):
        text = Path(path).read_bytes()
    with reading(f"{path} is not a benchmark of format 1 or 2", remedy):
        return Benchmark.model_validate(_migrate(json_of(text)))


def _migrate(content: Any) -> Any:
    """Content of a benchmark file, converted from format 1 to format 2 if needed.

    Format 1 called the candidates contenders. Anything that is not a benchmark of format 1 is
    returned unchanged, for validation to judge.
    """
    if not isinstance(content, dict) or content.get("format") != 1:
        return content

    def renamed(case: Any) -> Any:
        if not isinstance(case, dict):
            return case
        return {"candidate" if key == "contender" else key: case[key] for key in case}

    migrated = {"candidates" if key == "contenders" else key: content[key] for key in content}
    for name in ("cases", "scenes"):
        if isinstance(cases := migrated.get(name), list):
            migrated[name] = [renamed(case) for case in cases]
    return migrated | {"format": 2}
