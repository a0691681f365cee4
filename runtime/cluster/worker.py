"""What a worker does: it opens the pair and the network of a job, and computes blocks."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from typing import Any

import rasterio
from distributed import get_worker

from ssdiff_trt.runtime.backends.protocol import Backend
from ssdiff_trt.runtime.blocks import BlockPixels, Wanted
from ssdiff_trt.runtime.cluster.job import Answer, Job, digest
from ssdiff_trt.runtime.cpus import instruction_sets, usable_cpus
from ssdiff_trt.runtime.errors import BundleError, InputError
from ssdiff_trt.runtime.interpolator import GROUND_POSITION
from ssdiff_trt.runtime.networks import Networks, unsuited
from ssdiff_trt.runtime.options import ExecutionOptions, Precision
from ssdiff_trt.runtime.parity.ladder import real_tiles
from ssdiff_trt.runtime.plan.plan import Plan
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.tiles.backprojection import back_project

CACHE_MB = 64
"""Megabytes of decoded blocks that GDAL keeps, unless the environment of the worker says."""


@dataclass(frozen=True)
class Inspection:
    """What a worker is like."""

    name: str
    """That it has among the workers of its scheduler."""
    fingerprint: dict[str, str]
    """All that the pixels may depend on besides the plan, by name."""
    precision: Precision
    """Precision of the network."""
    seconds: float
    """Time of a tile, with all seeds."""
    resources: dict[str, float]
    """Those of dask's that a block takes there."""
    warnings: tuple[str, ...]
    """Where its backend does not suit what was asked for."""


@dataclass
class _Open:
    """What this process has open: one pair at a time, and its networks for as long as it lives."""

    job: Job | None = None
    plan: Plan | None = None
    pair: ExitStack = field(default_factory=ExitStack)
    execution: ExecutionOptions | None = None
    networks: Networks | None = None


_open = _Open()
_in_turn = threading.Lock()
"""Held while a block is computed: a process computes one at a time, however many threads it has.
Whichever does has an environment of rasterio, as a raster that is opened without one gets its own,
which no other thread can close."""


def inspect(job: Job) -> Inspection:
    """Open what a job needs, and compute one tile."""
    worker = get_worker()
    with _in_turn, rasterio.Env():
        plan, networks = _opened(job, worker)
        backend = networks.network(plan.bundle)
        sample, seconds = _sample(plan, backend)
        has_gpu = worker.state.total_resources.get("GPU", 0) >= 1
        found = {
            **{name: version(name) for name in ("ssdiff-trt", "numpy", "rasterio")},
            "GDAL": rasterio.__gdal_version__,
            "backend": backend.describe(),
            "precision": backend.precision,
            "processor": instruction_sets(),
            "sampled tile": sample,
        }
        resources = {"GPU": 1.0} if has_gpu and backend.device == "gpu" else {}
        warnings = tuple(unsuited(job.execution, backend))
        return Inspection(str(worker.name), found, backend.precision, seconds, resources, warnings)


def compute(job: Job, number: int) -> Answer:
    """Compute a block of a job's plan."""
    worker = get_worker()
    progress = _UntilCancelled(worker, worker.get_current_task())
    with _in_turn, rasterio.Env():
        began = time.monotonic()
        plan, networks = _opened(job, worker)
        answers: list[Answer] = []

        def finish(pixels: BlockPixels) -> None:
            parts = list(pixels.parts)
            record = pixels.tally.record()
            spent = time.monotonic() - began
            answers.append(Answer(parts, record, digest(parts, record), spent))

        with networks.executor(plan.bundle) as executor:
            check = partial(_check_inputs, plan, job)
            executor.compute(Wanted(plan, [plan.blocks[number]], check, finish, progress))
        return answers[0]


class _Silent(Progress):
    """Shows no warning; those of an inspection are shown by the process that asked for it."""

    def warn(self, text: str) -> None:
        """Show nothing."""


class _UntilCancelled(Progress):
    """Ends the computation of a block that nobody waits for any longer."""

    def __init__(self, worker: Any, key: Any) -> None:
        self._worker, self._key = worker, key

    def advance(self, pieces: int) -> None:
        task = self._worker.state.tasks.get(self._key)
        if task is None or task.state == "cancelled":
            raise InterruptedError("the block was cancelled")


def _opened(job: Job, worker: Any) -> tuple[Plan, Networks]:
    """The plan of a job and the networks, opened unless they are."""
    os.environ.setdefault("GDAL_CACHEMAX", str(CACHE_MB))
    if _open.networks is None or _open.execution != job.execution:
        if _open.networks:
            _open.networks.close()
        stated = job.execution
        device = int(worker.name) if stated.device is None and job.numbered else stated.device
        threads = stated.threads or min(worker.state.nthreads, usable_cpus())
        used = replace(stated, device=device, threads=threads)
        _open.networks = Networks(used, None, _Silent())
        _open.execution = stated
    if _open.plan is None or _open.job != job:
        _open.pair.close()
        _open.plan = None
        opened = pickle.loads(job.plan)
        _open.pair.enter_context(opened.source)
        _check_inputs(opened, job)
        if opened.bundle.sha256 != job.bundle:
            raise BundleError(f"The bundle {opened.bundle.path} is not the same there")
        _open.job, _open.plan = job, opened
    assert _open.plan
    return _open.plan, _open.networks


def _check_inputs(plan: Plan, job: Job) -> None:
    if plan.source.fingerprint() != job.inputs:
        raise InputError(f"PAN or MS ({plan.source.name}) is not the same file there")


def _sample(plan: Plan, backend: Backend) -> tuple[str, float]:
    """sha256 of the image of a tile, and the seconds that it takes once the network is warm."""
    tiles = real_tiles(len(plan.source.bands), plan.rows.tile)
    for _ in range(2):
        began = time.monotonic()
        (images,) = backend.sample([tiles], plan.schedule)
        position = GROUND_POSITION, GROUND_POSITION
        image = back_project(
            images[0], tiles.ms[0], position, plan.optics.mtf_ms, plan.back_projection
        )
    seconds = (time.monotonic() - began) * len(plan.seeds)
    return hashlib.sha256(image.tobytes()).hexdigest(), seconds
