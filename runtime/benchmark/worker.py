"""What is measured, in a process of its own.

A fresh process for every case and round makes peaks of memory and times of loading its own, and
what differs from process to process shows in the spread. It reads a :class:`Job` on standard input
and answers with the model that its task gives; or with a sentence and the status :data:`REFUSED`.
"""

from __future__ import annotations

import os
import pkgutil
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import count, islice
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from ssdiff_trt.runtime.backends.protocol import Backend, Device, PrecisionChoice, TimedByDevice
from ssdiff_trt.runtime.benchmark.gauges import Watch
from ssdiff_trt.runtime.benchmark.results import Opened, Process, Sample, SceneRun, Strict
from ssdiff_trt.runtime.bundle.manifest import Precision
from ssdiff_trt.runtime.bundle.store import Bundle, open_bundle
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.parity.ladder import real_tiles
from ssdiff_trt.runtime.progress import Lines, Progress
from ssdiff_trt.runtime.schedule import Schedule, make_schedule, spaced_timesteps
from ssdiff_trt.runtime.tiles.batch import Array, Tiles

REFUSED = 3
_MOST = 1000
"""Runs whose latency is kept, unless more were asked for."""


class Job(Strict):
    """What to do."""

    task: Literal["open", "tiles", "scene"]
    bundle: str
    opener: str
    """``module:function`` with the signature of ``open_backend``."""
    backend: str
    precision: PrecisionChoice
    batches: tuple[int, ...]
    """Most tiles at a time: all are opened by the task ``open``, the first is measured."""
    device: Device = "cpu"
    """Where the backend runs; the task ``open`` finds out."""
    threads: int | None
    steps: tuple[int, ...] = ()
    repeats: int = 1
    seconds: float = 0
    scene: tuple[str, str, str] | None = None
    """PAN, MS, and where to write."""
    talk: bool = False
    """Whether to tell how engines are built."""
    started: float = 0
    """When the process was started, by the system's monotonic clock."""

    def open(self, bundle: Bundle, batch: int | None) -> Backend:
        """The backend, ready."""
        progress = Lines() if self.talk else Progress()
        options = {"precision": self.precision, "threads": self.threads, "batch": batch}
        backend: Backend = pkgutil.resolve_name(self.opener)(
            self.backend, bundle, progress=progress, **options
        )
        return backend


def open_only(job: Job) -> Opened:
    """That the backend works, for every batch: engines are built now, and not measured later."""
    bundle = open_bundle(job.bundle)
    room = []
    for batch in job.batches:
        backend = job.open(bundle, batch)
        if backend.device == "cpu" or backend.batch >= batch:  # else it took what there is room for
            room.append(batch)
    if not room:
        raise SSDiffError(f"{backend.describe()} is what there is room for; lower --batch.")
    return Opened(
        backend=backend.describe(),
        precision=backend.precision,
        device=backend.device,
        batches=tuple(room),
        build_seconds=getattr(backend, "build_seconds", None),
    )


def measure_tiles(job: Job) -> Process:
    """One case: loading, the first tile, and every number of steps."""
    bundle, batch = open_bundle(job.bundle), job.batches[0]
    model, sampler = bundle.manifest.model, bundle.manifest.sampler
    with closing(Watch(job.device)) as watch:
        began = time.monotonic()
        backend = job.open(bundle, batch)
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
    """Latency batch by batch, then throughput of a stream of batches.

    Args:
        backend: that is ready.
        tiles: a batch.
        schedule: for all steps.
        repeats: least number of runs of each.
        seconds: least time for each; whichever takes longer.
        watch: looks on while batches stream.
    """

    def one() -> None:
        list(backend.sample([tiles], schedule))

    _runs(one, 1, seconds / 4)  # caches, clocks and, on a GPU, the capture of the loop
    latency = _runs(one, repeats, seconds)
    device: list[float] = []
    if isinstance(backend, TimedByDevice):
        device = backend.milliseconds(tiles, schedule, len(latency))
    with watch:
        began = time.perf_counter()
        batches = sum(1 for _ in backend.sample(_stream(tiles, repeats, seconds), schedule))
        streamed = time.perf_counter() - began
    return Sample(
        latency_ms=tuple(round(1000 * one, 4) for one in latency),
        device_ms=tuple(round(one, 4) for one in device),
        tiles=batches * len(tiles.noise),
        seconds=streamed,
        observed=watch.observed(),
    )


def _runs(call: Callable[[], None], repeats: int, seconds: float) -> list[float]:
    """Seconds of each run."""
    found: list[float] = []
    for _ in islice(_while(repeats, seconds), max(_MOST, repeats)):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return found


def _stream(tiles: Tiles, repeats: int, seconds: float) -> Iterator[Tiles]:
    """Batches, as fast as they are taken."""
    for _ in _while(repeats, seconds):
        yield tiles


def _while(repeats: int, seconds: float) -> Iterator[int]:
    """Counts until there were enough runs and enough time."""
    began = time.perf_counter()
    for number in count():
        if number >= repeats and time.perf_counter() - began >= seconds:
            return
        yield number


def measure_scene(job: Job) -> SceneRun:
    """A scene, from its files to a file."""
    from ssdiff_trt.runtime.pansharpener import pansharpen

    assert job.scene is not None
    bundle = open_bundle(job.bundle)
    with closing(Watch(job.device)) as watch:
        began = time.monotonic()
        waited = TimedBackend(job.open(bundle, None))
        load_seconds = time.monotonic() - began
        with watch:
            result = pansharpen(*job.scene, bundle=bundle, backend=waited, overwrite=True)
    return SceneRun(
        seconds=result.seconds,
        network_seconds=waited.seconds,
        load_seconds=load_seconds,
        host_bytes=peak_host_bytes(),
        device_bytes=watch.device_bytes,
        pixels=result.size[0] * result.size[1],
        tiles=result.counts.tiles,
        steps=len(result.plan.schedule.steps),
    )


class TimedBackend:
    """A backend, and how long it was waited for.

    Attributes:
        seconds: spent in it, without what it waited for its batches.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend, self.seconds = backend, 0.0
        self.batch, self.device = backend.batch, backend.device
        self.precision: Precision = backend.precision

    def sample(self, batches: Iterable[Tiles], schedule: Schedule) -> Iterator[Array]:
        images = self._backend.sample(self._passing(batches), schedule)
        while True:
            began = time.perf_counter()
            found = next(images, None)
            self.seconds += time.perf_counter() - began
            if found is None:
                return
            yield found

    def _passing(self, batches: Iterable[Tiles]) -> Iterator[Tiles]:
        following = iter(batches)
        while True:
            began = time.perf_counter()
            found = next(following, None)
            self.seconds -= time.perf_counter() - began
            if found is None:
                return
            yield found

    def denoise(self, tiles: Tiles, x: Array, t: float) -> Array:
        return self._backend.denoise(tiles, x, t)

    def describe(self) -> str:
        return self._backend.describe()


def peak_host_bytes() -> int:
    """Most memory that this process has had resident."""
    status = Path("/proc/self/status")
    if status.exists() and (peak := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(peak[1]) << 10  # getrusage's starts with what the parent process had
    import resource

    peak_of_all = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_of_all if sys.platform == "darwin" else peak_of_all << 10


TASKS: dict[str, Callable[[Job], BaseModel]] = {
    "open": open_only,
    "tiles": measure_tiles,
    "scene": measure_scene,
}


def main() -> None:
    """Do the job that standard input has."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print must not get into the answer
    given = sys.stdin.read()
    if not given:  # whoever started this was interrupted at that moment
        return
    job = Job.model_validate_json(given)
    with answer:
        try:
            answer.write(TASKS[job.task](job).model_dump_json())
        except SSDiffError as error:
            answer.write(str(error))
            sys.exit(REFUSED)


if __name__ == "__main__":
    main()
