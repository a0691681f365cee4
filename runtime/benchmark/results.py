"""What a benchmark found: every run of every case, and where it ran. JSON keeps all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ssdiff_trt.runtime.backends.protocol import Device
from ssdiff_trt.runtime.bundle.manifest import Precision
from ssdiff_trt.runtime.errors import SSDiffError


class Strict(BaseModel):
    """Nothing unknown, nothing changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Observed(Strict):
    """What a gauge said while tiles streamed through a backend."""

    gauge: str
    joules: float | None = None
    """Of all that the gauge covers, idle power included."""
    mhz: float | None = None
    """Median of the clock."""
    celsius: float | None = None
    """Highest temperature."""
    throttled: tuple[str, ...] = ()
    """Why the clock was held back, if it was."""


class Sample(Strict):
    """A backend, a batch and a number of steps, in one process."""

    latency_ms: tuple[float, ...]
    """Each run's, from tiles on the host to images on the host, one batch at a time."""
    device_ms: tuple[float, ...] = ()
    """Each run's on the GPU alone, by CUDA events, where the backend can tell."""
    tiles: int
    """That streamed through, one batch after another without a pause."""
    seconds: float
    """That they took."""
    observed: Observed | None = None
    """During these seconds."""


class Process(Strict):
    """What a fresh process measured."""

    load_seconds: float
    """To open the backend, its engine built before."""
    first_tile_seconds: float
    """From the start of the process to the images of the first batch, by the bundle's steps."""
    host_bytes: int
    """Peak of resident memory."""
    device_bytes: int | None = None
    """Peak of the GPU's memory above what was in use before, where it is told."""
    samples: dict[int, Sample]
    """By number of steps."""


class Opened(Strict):
    """A backend that works here."""

    backend: str
    """As it describes itself."""
    precision: Precision
    device: Device
    batches: tuple[int, ...]
    """That it has room for."""
    build_seconds: float | None = None
    """That its engine took when it was built, perhaps long ago."""


class Case(Strict):
    """A contender and a batch; a process for every round."""

    contender: str
    batch: int
    processes: tuple[Process, ...]

    def latencies(self, steps: int) -> list[tuple[float, ...]]:
        """Milliseconds of a batch, round by round."""
        return [process.samples[steps].latency_ms for process in self.processes]

    def device_latencies(self, steps: int) -> list[tuple[float, ...]]:
        """The same on the GPU alone; empty where that is not told."""
        return [found for p in self.processes if (found := p.samples[steps].device_ms)]

    def rates(self, steps: int) -> list[float]:
        """Tiles per second of a stream of batches, round by round."""
        samples = [process.samples[steps] for process in self.processes]
        return [sample.tiles / sample.seconds for sample in samples]

    def tiles_per_second(self, steps: int) -> float:
        """The same over all rounds."""
        samples = [process.samples[steps] for process in self.processes]
        return sum(s.tiles for s in samples) / sum(s.seconds for s in samples)

    def joules_per_tile(self, steps: int) -> float | None:
        """Energy of the stream, if it was told in every round."""
        samples = [process.samples[steps] for process in self.processes]
        found = [s.observed.joules for s in samples if s.observed and s.observed.joules is not None]
        return sum(found) / sum(s.tiles for s in samples) if len(found) == len(samples) else None

    def watts(self, steps: int) -> float | None:
        """Mean power of the stream."""
        joules = self.joules_per_tile(steps)
        return None if joules is None else joules * self.tiles_per_second(steps)


class SceneRun(Strict):
    """A scene from file to file, in a fresh process."""

    seconds: float
    """Of the run, the backend open already."""
    network_seconds: float
    """Of these, waiting for the backend; the rest is reading, blending and writing."""
    load_seconds: float
    host_bytes: int
    device_bytes: int | None = None
    pixels: int
    """Of the result."""
    tiles: int
    steps: int


class SceneCase(Strict):
    """A contender on a scene."""

    contender: str
    runs: tuple[SceneRun, ...]


class Environment(Strict):
    """All about the machine that a time may depend on."""

    machine: str
    system: str
    processor: str
    cores: int
    """That this process may use."""
    memory_bytes: int | None
    governor: str | None
    """Of the CPU's clock."""
    gpu: str | None
    driver: str | None
    power_limit_watts: float | None
    """Of the GPU."""
    power_mode: str | None
    """As it was labelled, or a Jetson's own."""
    python: str
    packages: dict[str, str]
    variables: dict[str, str]
    """Of the shell, that set threads and GPUs."""


class Settings(Strict):
    """How it was measured."""

    batches: tuple[int, ...]
    steps: tuple[int, ...]
    rounds: int
    repeats: int
    seconds: float
    threads: int | None
    budget_watts: float | None


class Benchmark(Strict):
    """A whole benchmark."""

    format: Literal[1] = 1
    created: str
    bundle: str
    bundle_sha256: str
    tile: int
    settings: Settings
    environment: Environment
    others_cores: float | None
    """How many cores other programs kept busy meanwhile, on average."""
    contenders: dict[str, Opened]
    cases: tuple[Case, ...]
    scenes: tuple[SceneCase, ...] = ()


def read_benchmark(path: str | Path) -> Benchmark:
    """One that was written before.

    Raises:
        SSDiffError: if it cannot be read, or is none of this format.
    """
    try:
        return Benchmark.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise SSDiffError(
            f"{path} cannot be read ({error.strerror}); give a file of ssdiff-trt bench --json."
        ) from error
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "its content"
        raise SSDiffError(
            f"{path} is not a benchmark of format 1 ({place}: {fault['msg']}); give a file that "
            "ssdiff-trt bench --json of this version wrote."
        ) from error
