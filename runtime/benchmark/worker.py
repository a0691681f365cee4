"""Measurement process of the benchmark.

Each case of each round has a fresh process, so that peak memory and load time belong to that case
alone and variation between processes is part of the measured spread. The process reads a
:class:`Job` as JSON on standard input and answers on standard output with the result model of its
task, or with an error message and the exit status :data:`REFUSED`.
"""

from __future__ import annotations

import os
import pkgutil
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from ssdiff_trt.runtime.backends.protocol import Backend, Device, TimedByDevice, close
from ssdiff_trt.runtime.benchmark.gauges import Watch
from ssdiff_trt.runtime.benchmark.results import Opened, Process, Sample, SceneRun
from ssdiff_trt.runtime.bundle.measured import Strict
from ssdiff_trt.runtime.bundle.store import Bundle, open_bundle
from ssdiff_trt.runtime.errors import InputError, SSDiffError
from ssdiff_trt.runtime.options import Precision, PrecisionChoice
from ssdiff_trt.runtime.parity.ladder import real_tiles
from ssdiff_trt.runtime.progress import Lines, Progress, keep_streams
from ssdiff_trt.runtime.schedule import Schedule, make_schedule, spaced_timesteps
from ssdiff_trt.runtime.tiles.batch import Array, Tiles

REFUSED = 3
_MAX_RUNS = 1000
"""Maximum number of latencies to record, unless more repeats were asked for."""


class Job(Strict):
    """One task of a measurement process."""

    task: Literal["open", "tiles", "scene"]
    bundle: str
    opener: str
    """``module:function`` path of a function with the signature of ``open_backend``."""
    backend: str
    precision: PrecisionChoice
    batches: tuple[int, ...]
    """Batch sizes. The task ``open`` tries all of them, ``tiles`` measures the first."""
    device: Device = "cpu"
    """Device of the backend, to select the gauge; determined by the task ``open``."""
    threads: int | None
    gpu: int | None = None
    """Index of the GPU, counted from 0; the first by default."""
    trust_engines: bool = False
    """Whether to load engines that the bundle lists."""
    steps: tuple[int, ...] = ()
    repeats: int = 1
    seconds: float = 0
    scene: tuple[str, str, str] | None = None
    """Paths of PAN, MS and the output."""
    show_progress: bool = False
    """Whether to print the progress of engine builds."""
    started: float = 0
    """Start time of the process by the system's monotonic clock, in s."""

    @contextmanager
    def opened(self, bundle: Bundle, batch: int | None) -> Iterator[Backend]:
        """The backend for batches of up to ``batch`` tiles, closed after the block."""
        progress = Lines() if self.show_progress else Progress()
        options = {
            "precision": self.precision,
            "threads": self.threads,
            "batch": batch,
            "device": self.gpu,
            "trust_engines": self.trust_engines,
        }
        backend: Backend = pkgutil.resolve_name(self.opener)(
            self.backend, bundle, progress=progress, **options
        )
        try:
            yield backend
        finally:
            close(backend)


def open_candidate(job: Job) -> Opened:
    """Open the backend with every batch size, and build its engines before anything is measured.

    Raises:
        SSDiffError: if it cannot be opened, or no batch size fits into memory.
    """
    bundle = open_bundle(job.bundle)
    opened = [(batch, _open_and_close(job, bundle, batch)) for batch in job.batches]
    # A GPU backend reduces its batch where memory is short.
    fitting = [batch for batch, one in opened if one.device == "cpu" or max(one.batches) >= batch]
    last = opened[-1][1]
    if not fitting:
        raise InputError(
            f"No batch size of {', '.join(map(str, job.batches))} fits into memory, which has room "
            f"for {last.backend}; lower `batch`."
        )
    return last.model_copy(update={"batches": tuple(fitting)})


def _open_and_close(job: Job, bundle: Bundle, batch: int) -> Opened:
    """What the backend says for one batch size; it has left the memory when this returns."""
    with job.opened(bundle, batch) as backend:
        return Opened(
            backend=backend.describe(),
            precision=backend.precision,
            device=backend.device,
            batches=(backend.batch,),
            build_seconds=getattr(backend, "build_seconds", None),
        )


def measure_tiles(job: Job) -> Process:
    """Measure one case: loading, the first tile, and every number of steps."""
    bundle, batch = open_bundle(job.bundle), job.batches[0]
    model, sampler = bundle.manifest.model, bundle.manifest.sampler
    with closing(Watch(job.device)) as watch:
        began = time.monotonic()
        with job.opened(bundle, batch) as backend:
            load_seconds = time.monotonic() - began
            tiles = real_tiles(model.bands, model.tile, batch)
            list(backend.sample([tiles], sampler.schedule()))
            first_tile_seconds = time.monotonic() - job.started
            samples = {}
            for steps in job.steps:
                schedule = make_schedule(spaced_timesteps(steps), sampler.name)
                samples[steps] = measure(backend, tiles, schedule, job.repeats, job.seconds, watch)
    return Process(
        load_seconds=load_seconds,
        first_tile_seconds=first_tile_seconds,
        host_bytes=peak_host_bytes(),
        device_bytes=watch.device_bytes,
        samples=samples,
    )


def measure(
    backend: Backend,
    tiles: Tiles,
    schedule: Schedule,
    repeats: int,
    seconds: float,
    watch: Watch,
) -> Sample:
    """Measure the latency of single batches, then the throughput of a stream of batches.

    Args:
        backend: opened backend.
        tiles: the batch to sample.
        schedule: the sampling schedule.
        repeats: minimum number of runs of each measurement.
        seconds: minimum duration of each measurement; it ends when both minima are reached.
        watch: reads the gauge during the throughput measurement.
    """

    def sample_batch() -> None:
        list(backend.sample([tiles], schedule))

    # Warm up caches and clocks and, on a GPU, capture the loop.
    _durations(sample_batch, 1, seconds / 4)
    latency = _durations(sample_batch, repeats, seconds)
    device: list[float] = []
    if isinstance(backend, TimedByDevice):
        device = backend.milliseconds(tiles, schedule, len(latency))
    with watch:
        began = time.perf_counter()
        batches = sum(1 for _ in backend.sample(_stream(tiles, repeats, seconds), schedule))
        duration = time.perf_counter() - began
    return Sample(
        latency_ms=tuple(round(1000 * latency_s, 4) for latency_s in latency),
        device_ms=tuple(round(milliseconds, 4) for milliseconds in device),
        tiles=batches * len(tiles.noise),
        seconds=duration,
        observed=watch.observed(),
    )


def _durations(call: Callable[[], None], repeats: int, seconds: float) -> list[float]:
    """Duration of each run of a function, in s."""
    durations: list[float] = []
    for _ in islice(_count_until(repeats, seconds), max(_MAX_RUNS, repeats)):
        began = time.perf_counter()
        call()
        durations.append(time.perf_counter() - began)
    return durations


def _stream(tiles: Tiles, repeats: int, seconds: float) -> Iterator[Tiles]:
    """The same batch again and again, without a pause."""
    for _ in _count_until(repeats, seconds):
        yield tiles


def _count_until(repeats: int, seconds: float) -> Iterator[int]:
    """Count from 0 until both ``repeats`` and ``seconds`` are reached."""
    began = time.perf_counter()
    for number in count():
        if number >= repeats and time.perf_counter() - began >= seconds:
            return
        yield number


def measure_scene(job: Job) -> SceneRun:
    """Measure the pansharpening of a scene, from its files to a file."""
    from ssdiff_trt.runtime.pansharpener import pansharpen

    assert job.scene is not None
    bundle = open_bundle(job.bundle)
    with closing(Watch(job.device)) as watch:
        began = time.monotonic()
        with job.opened(bundle, None) as backend:
            timed = TimedBackend(backend)
            load_seconds = time.monotonic() - began
            with watch:
                result = pansharpen(*job.scene, bundle=bundle, backend=timed, overwrite=True)
    return SceneRun(
        seconds=result.seconds,
        network_seconds=timed.seconds,
        load_seconds=load_seconds,
        host_bytes=peak_host_bytes(),
        device_bytes=watch.device_bytes,
        pixels=result.size[0] * result.size[1],
        tiles=result.counts.tiles,
        steps=len(result.plan.schedule.steps),
    )


class TimedBackend:
    """A backend that measures the time spent in it.

    Attributes:
        seconds: time spent in ``sample``, without the time it waited for its input batches.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend, self.seconds = backend, 0.0
        self.batch, self.device = backend.batch, backend.device
        self.precision: Precision = backend.precision

    def sample(self, batches: Iterable[Tiles], schedule: Schedule) -> Iterator[Array]:
        results = self._backend.sample(self._without_input_time(batches), schedule)
        while True:
            began = time.perf_counter()
            images = next(results, None)
            self.seconds += time.perf_counter() - began
            if images is None:
                return
            yield images

    def _without_input_time(self, batches: Iterable[Tiles]) -> Iterator[Tiles]:
        """The batches, with the time to get each of them subtracted."""
        inputs = iter(batches)
        while True:
            began = time.perf_counter()
            tiles = next(inputs, None)
            self.seconds -= time.perf_counter() - began
            if tiles is None:
                return
            yield tiles

    def denoise(self, tiles: Tiles, x: Array, t: float) -> Array:
        return self._backend.denoise(tiles, x, t)

    def describe(self) -> str:
        return self._backend.describe()


def peak_host_bytes() -> int:
    """Peak resident memory of this process, in bytes."""
    status = Path("/proc/self/status")
    # Preferred, since on Linux ru_maxrss includes the peak of the parent before exec.
    if status.exists() and (peak := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(peak[1]) << 10
    import resource

    max_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return max_rss if sys.platform == "darwin" else max_rss << 10  # macOS counts in bytes


TASKS: dict[str, Callable[[Job], BaseModel]] = {
    "open": open_candidate,
    "tiles": measure_tiles,
    "scene": measure_scene,
}


def main() -> None:
    """Run the job that standard input holds and write its answer to standard output."""
    keep_streams()
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # so that what libraries print does not mix with the answer
    request = sys.stdin.read()
    if not request:  # the parent process was interrupted before it sent the job
        return
    job = Job.model_validate_json(request)
    with answer:
        try:
            answer.write(TASKS[job.task](job).model_dump_json())
        except SSDiffError as error:
            answer.write(str(error))
            sys.exit(REFUSED)


if __name__ == "__main__":
    main()
