"""The benchmark: every case is measured in fresh processes, in several interleaved rounds.

A *candidate* is a backend in one precision, or the PyTorch reference; a *case* is a candidate with
one batch size. Every round measures all cases in a shuffled order, so that drift of the machine
(clock rate, temperature, other programs) affects all cases alike.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from subprocess import CalledProcessError
from tempfile import TemporaryDirectory
from typing import TypeVar

from pydantic import BaseModel

from ssdiff_trt.runtime.backends.registry import best_backend
from ssdiff_trt.runtime.benchmark.environment import (
    cores_used_by_others,
    cpu_load_warning,
    cpu_time,
    environment,
    gpu_load_warning,
)
from ssdiff_trt.runtime.benchmark.results import (
    Benchmark,
    Case,
    Opened,
    Process,
    SceneCase,
    SceneRun,
    Settings,
)
from ssdiff_trt.runtime.benchmark.worker import REFUSED, Job
from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.cpus import choose_threads
from ssdiff_trt.runtime.errors import InputError, SSDiffError
from ssdiff_trt.runtime.files import atomic_write, check_target
from ssdiff_trt.runtime.options import PrecisionChoice
from ssdiff_trt.runtime.progress import Lines, Progress
from ssdiff_trt.runtime.schedule import spaced_timesteps

OPENER = "ssdiff_trt.runtime.backends.registry:open_backend"
_IDLE_CHECK = 1.0
"""Seconds over which the load of other programs is measured before the benchmark starts."""
Answer = TypeVar("Answer", bound=BaseModel)
Key = TypeVar("Key", bound=Hashable)
_WORKER = Job.__module__
_LOST = SSDiffError, CalledProcessError
"""What :func:`_run_job` raises; one process that fails does not lose the others' measurements."""


def bench(
    bundle: str = "generic4",
    *,
    backends: Sequence[str] = ("auto",),
    precisions: Sequence[PrecisionChoice] = ("auto",),
    batches: Sequence[int] = (1, 2, 4, 8),
    steps: Sequence[int] | None = None,
    rounds: int = 3,
    repeats: int = 5,
    seconds: float = 1.0,
    threads: int | None = None,
    device: int | None = None,
    trust_engines: bool = False,
    scene: tuple[str, str] | None = None,
    reference: str | None = None,
    openers: Mapping[str, str] | None = None,
    budget: float | None = None,
    power_label: str | None = None,
    json: str | Path | None = None,
    plot: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Benchmark:
    """Measure latency, throughput, memory, load time and energy of a bundle on this machine.

    Args:
        bundle: directory of a bundle, or name of a shipped one.
        backends: names of :data:`ssdiff_trt.runtime.backends.protocol.BACKENDS`; each backend with
            each precision is a candidate.
        precisions: precisions of the network. Combinations that the backend or the bundle does not
            have are left out with a warning, as are cases whose process fails.
        batches: batch sizes, in tiles.
        steps: numbers of sampling steps; default: one, and the bundle's own number.
        rounds: number of rounds, each a fresh process for every case.
        repeats: minimum number of runs per process.
        seconds: minimum duration per process of the latency measurement, and again of the
            throughput measurement.
        threads: CPU threads; default: all usable ones.
        device: GPU to use, counted from 0; default: the first.
        trust_engines: whether to load TensorRT engines, native code, that the bundle lists.
        scene: PAN and MS files to pansharpen as well, from files to file, with the bundle's steps.
        reference: opener of the PyTorch reference, to measure it as the candidate ``reference``.
        openers: openers of further candidates, by name. An opener is the ``module:function`` path
            of a function with the signature of
            :func:`ssdiff_trt.runtime.backends.registry.open_backend`.
        budget: power budget in W; the tables mark cases whose mean power exceeds it.
        power_label: name of the power mode; by default the one nvpmodel reports on a Jetson.
        json: JSON file to write all results to.
        plot: image file to write a plot of latency and throughput against batch size to.
        overwrite: replace these files if they exist.
        progress: receives progress updates.

    Raises:
        SSDiffError: if no candidate works on this machine, or a file, a number or the scene cannot
            be used.
    """
    progress = progress or Progress()
    opened = open_bundle(bundle)
    defaults = dict.fromkeys((1, len(opened.manifest.sampler.timesteps)))
    settings = Settings(
        batches=tuple(dict.fromkeys(batches)),
        steps=tuple(dict.fromkeys(defaults if steps is None else steps)),
        rounds=rounds,
        repeats=repeats,
        seconds=seconds,
        threads=threads and choose_threads(threads),
        budget_watts=budget,
    )
    _check(settings)
    sources: list[str] = []
    if scene:
        from ssdiff_trt.runtime.raster.fingerprint import every_file

        sources = every_file(*scene)
    for option, path in (("json", json), ("plot", plot)):
        if path is not None:
            check_target(Path(path), sources, overwrite, option)
    if plot is not None and plot == json:
        raise InputError(f"`json` and `plot` are both {json}; give them different names.")
    if plot is not None:
        from ssdiff_trt.runtime.quicklook import check_picture

        check_picture(Path(plot))
    machine = environment(power_label)
    _warn_if_busy(machine.cores, progress)
    openers = {**({"reference": reference} if reference else {}), **(openers or {})}
    candidates = _open_candidates(
        _candidate_jobs(
            bundle, backends, precisions, openers, settings, device, trust_engines, progress
        ),
        progress,
    )
    began = cpu_time()
    with progress:
        cases, scenes = _measure_all(candidates, rounds, scene, progress)
    other_cores = cores_used_by_others(began, cpu_time())
    if warning := cpu_load_warning(other_cores, machine.cores, "During the benchmark"):
        progress.warn(warning)
    result = Benchmark(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        bundle=opened.manifest.name,
        bundle_sha256=opened.sha256,
        tile=opened.manifest.model.tile,
        settings=settings,
        environment=machine,
        others_cores=other_cores,
        candidates={name: opened_backend for name, (_, opened_backend) in candidates.items()},
        cases=tuple(
            Case(candidate=name, batch=batch, processes=tuple(processes))
            for (name, batch), processes in cases.items()
        ),
        scenes=tuple(SceneCase(candidate=n, runs=tuple(runs)) for n, runs in scenes.items()),
    )
    _write(result, json, plot, progress)
    return result


def _check(settings: Settings) -> None:
    for name, values in (
        ("`batch`", settings.batches),
        ("`rounds`", (settings.rounds,)),
        ("`repeats`", (settings.repeats,)),
        ("`threads`", (1 if settings.threads is None else settings.threads,)),
    ):
        if not values or min(values) < 1:
            raise InputError(
                f"{name} is {','.join(map(str, values))}, expected 1 or more; correct it."
            )
    if not 0 <= settings.seconds < 3600:
        raise InputError(
            f"`seconds` is {settings.seconds:g}, expected 0 to less than 3600; correct it."
        )
    for number in settings.steps:
        spaced_timesteps(number)


def _warn_if_busy(cores: int, progress: Progress) -> None:
    """Warn if other programs use the CPU or the GPU."""
    began = cpu_time()
    time.sleep(_IDLE_CHECK)
    other_cores = cores_used_by_others(began, cpu_time())
    for warning in (
        cpu_load_warning(other_cores, cores, "Before the benchmark"),
        gpu_load_warning(),
    ):
        if warning:
            progress.warn(warning)


def _candidate_jobs(
    bundle: str,
    backends: Sequence[str],
    precisions: Sequence[PrecisionChoice],
    openers: Mapping[str, str],
    settings: Settings,
    device: int | None,
    trust_engines: bool,
    progress: Progress,
) -> Iterator[tuple[str, Job]]:
    """Name and opening job of each candidate that was asked for."""
    shared = settings.model_dump(include={"batches", "steps", "repeats", "seconds", "threads"})
    shared |= {"task": "open", "bundle": bundle, "show_progress": isinstance(progress, Lines)}
    shared |= {"gpu": device, "trust_engines": trust_engines}
    for choice in backends:
        name = best_backend(progress, device or 0) if choice == "auto" else choice
        for precision in precisions:
            yield name, Job(opener=OPENER, backend=name, precision=precision, **shared)
    for name, opener in openers.items():
        yield name, Job(opener=opener, backend=name, precision="auto", **shared)


def _open_candidates(
    jobs: Iterable[tuple[str, Job]], progress: Progress
) -> dict[str, tuple[Job, Opened]]:
    """Candidates that work on this machine, by the name used in tables; their engines are built.

    Raises:
        SSDiffError: if none works.
    """
    candidates: dict[str, tuple[Job, Opened]] = {}
    refusals = []
    for name, job in jobs:
        try:
            opened = _run_job(job, Opened)
        except _LOST as error:
            refusals.append(f"{name} in {job.precision}: {_reason(error)}")
            continue
        progress.detail(f"{name}: {opened.backend}")
        if too_large := sorted(set(job.batches) - set(opened.batches)):
            batches = ", ".join(map(str, too_large))
            progress.warn(f"{name} has no memory for batches of {batches}; they are left out")
        update = {
            "device": opened.device,
            "precision": opened.precision,
            "show_progress": False,
        }
        candidates[f"{name} {opened.precision}"] = job.model_copy(update=update), opened
    if not candidates:
        raise InputError(" ".join(refusals))
    for refusal in refusals:
        progress.warn(f"left out: {refusal}")
    return candidates


def _measure_all(
    candidates: Mapping[str, tuple[Job, Opened]],
    rounds: int,
    scene: tuple[str, str] | None,
    progress: Progress,
) -> tuple[dict[tuple[str, int], list[Process]], dict[str, list[SceneRun]]]:
    """Measure all cases, and the scene with each candidate, round by round."""
    cases = {
        (name, batch): list[Process]()
        for name, (_, opened) in candidates.items()
        for batch in opened.batches
    }
    scenes = {name: list[SceneRun]() for name in candidates} if scene else {}
    progress.start("Processes", rounds * (len(cases) + len(scenes)))
    with TemporaryDirectory() as folder:
        for index in range(rounds):
            for name in _shuffled(scenes, index):  # first, so that unreadable files fail early
                files = (*(scene or ()), str(Path(folder) / "fused.tif"))
                job = candidates[name][0].model_copy(update={"task": "scene", "scene": files})
                scenes[name].append(_run_job(job, SceneRun))
                progress.advance(1)
            for name, batch in _shuffled(cases, index):
                job = candidates[name][0].model_copy(update={"task": "tiles", "batches": (batch,)})
                try:
                    cases[name, batch].append(_run_job(job, Process))
                    progress.advance(1)
                except _LOST as error:
                    del cases[name, batch]
                    if not cases:
                        raise
                    progress.warn(f"left out: {name} in batches of {batch}: {_reason(error)}")
                    progress.advance(rounds - index)
    return cases, scenes


def _reason(error: SSDiffError | CalledProcessError) -> str:
    """Why a process gave no answer."""
    return (
        str(error) if isinstance(error, SSDiffError) else "its process ended with the error above"
    )


def _shuffled(keys: Iterable[Key], seed: int) -> list[Key]:
    """Keys in a random order that depends on the seed alone."""
    order = list(keys)
    random.Random(seed).shuffle(order)
    return order


def _run_job(job: Job, answer_type: type[Answer]) -> Answer:
    """Run a job in a fresh process and parse its answer.

    Raises:
        SSDiffError: if the job was refused or its process was killed.
        CalledProcessError: if the process ended with another error, which it has printed.
    """
    job = job.model_copy(update={"started": time.monotonic()})
    # Of itself -c imports from the working directory first, where anything may lie.
    code = f"import sys; sys.path = {sys.path}; from {_WORKER} import main; main()"
    completed = subprocess.run(
        [sys.executable, "-c", code],
        input=job.model_dump_json(),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C reaches this process alone, which reports it once
    )
    if completed.returncode == REFUSED:
        raise InputError(completed.stdout)
    if completed.returncode < 0:
        raise InputError(
            f"The process that measured {job.backend} with batches of {max(job.batches)} was "
            f"killed (signal {-completed.returncode}), usually for lack of memory; lower `batch`."
        )
    completed.check_returncode()
    return answer_type.model_validate_json(completed.stdout)


def _write(
    result: Benchmark, json: str | Path | None, plot: str | Path | None, progress: Progress
) -> None:
    if json is not None:
        with atomic_write(Path(json)) as unfinished:
            unfinished.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
        progress.note(f"{json}: all results")
    if plot is not None:
        from ssdiff_trt.runtime.benchmark.plot import draw

        draw(result, Path(plot))
        progress.note(f"{plot}: plot of latency and throughput")
