"""The benchmark: cases in fresh processes, round by round, so that ratios are of one time.

A *contender* is a backend in a precision, or the PyTorch reference; a *case* is a contender and a
batch. Every round visits all cases in an order of its own: what drifts in the machine, clocks and
heat and other work, meets all of them alike.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from pydantic import BaseModel

from ssdiff_trt.runtime.backends.protocol import PrecisionChoice
from ssdiff_trt.runtime.backends.registry import best_backend
from ssdiff_trt.runtime.benchmark.environment import (
    cpu_time,
    environment,
    gpu_in_use,
    not_idle,
    others_cores,
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
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.files import atomic_write
from ssdiff_trt.runtime.progress import Lines, Progress
from ssdiff_trt.runtime.quicklook import check_picture
from ssdiff_trt.runtime.raster.output import check_target
from ssdiff_trt.runtime.schedule import spaced_timesteps

OPENER = "ssdiff_trt.runtime.backends.registry:open_backend"
REFERENCE = "ssdiff_ref.network.ssnet.backend:open_torch"
"""A name, and no import: only the process that measures it resolves it."""
_SETTLE = 1.0
"""Seconds for which the idle machine is looked at."""
Answer = TypeVar("Answer", bound=BaseModel)
Key = TypeVar("Key", bound=Hashable)


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
    scene: tuple[str, str] | None = None,
    reference: bool = False,
    others: Mapping[str, str] | None = None,
    budget: float | None = None,
    power_label: str | None = None,
    json: str | Path | None = None,
    plot: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Benchmark:
    """Measure a bundle on this machine.

    Args:
        bundle: directory, or name of one that comes along.
        backends: names of :data:`ssdiff_trt.runtime.backends.protocol.BACKENDS`; with each
            precision, a contender.
        precisions: of the network. What a backend or bundle does not have is left out, and told.
        batches: tiles at a time.
        steps: numbers of sampling steps; one and the bundle's by default.
        rounds: fresh processes for each case.
        repeats: least number of runs in each of them.
        seconds: least time in each of them for latency, and as much again for throughput.
        threads: of the CPU; all cores by default.
        scene: PAN and MS to pansharpen from end to end, too, by the bundle's own steps.
        reference: also measure the PyTorch reference; torch has to be installed.
        others: more contenders, by name: ``module:function`` of what opens them, called as
            :func:`ssdiff_trt.runtime.backends.registry.open_backend` is.
        budget: mean power in watts that must not be exceeded; told where it is.
        power_label: of the machine's power mode; a Jetson's own by default.
        json: file for all of it.
        plot: file for a picture of latency and throughput against the batch.
        overwrite: replace these files where they exist.
        progress: told how work goes.

    Raises:
        SSDiffError: if no contender works here, or a file, a number or the scene cannot be used.
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
        threads=threads,
        budget_watts=budget,
    )
    _check(settings)
    for option, path in (("--json", json), ("--plot", plot)):
        if path is not None:
            check_target(Path(path), scene or (), overwrite, option)
    if plot is not None and plot == json:
        raise SSDiffError(f"--json and --plot are both {json}; give them different names.")
    if plot is not None:
        check_picture(Path(plot))
    if reference and find_spec("torch") is None:
        raise SSDiffError(
            "--reference needs PyTorch, which is not installed; pip install 'ssdiff-trt[export]'."
        )
    found = environment(power_label)
    _look_around(found.cores, progress)
    others = {**({"reference": REFERENCE} if reference else {}), **(others or {})}
    contenders = _open(
        _contenders(bundle, backends, precisions, others, settings, progress), progress
    )
    began = cpu_time()
    with progress:
        cases, scenes = _visit(contenders, rounds, scene, progress)
    others_busy = others_cores(began, cpu_time())
    if clause := not_idle(others_busy, found.cores, "While it was measured"):
        progress.warn(clause)
    result = Benchmark(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        bundle=opened.manifest.name,
        bundle_sha256=opened.sha256,
        tile=opened.manifest.model.tile,
        settings=settings,
        environment=found,
        others_cores=others_busy,
        contenders={name: about for name, (_, about) in contenders.items()},
        cases=tuple(
            Case(contender=name, batch=batch, processes=tuple(processes))
            for (name, batch), processes in cases.items()
        ),
        scenes=tuple(SceneCase(contender=n, runs=tuple(runs)) for n, runs in scenes.items()),
    )
    _write(result, json, plot, progress)
    return result


def _check(settings: Settings) -> None:
    for name, values in (
        ("--batch", settings.batches),
        ("--rounds", (settings.rounds,)),
        ("--repeats", (settings.repeats,)),
        ("--threads", (1 if settings.threads is None else settings.threads,)),
    ):
        if not values or min(values) < 1:
            raise SSDiffError(f"{name} {','.join(map(str, values))} does not work; give 1 or more.")
    if not 0 <= settings.seconds < 3600:
        raise SSDiffError(f"--seconds {settings.seconds:g} does not work; give 0 to 3600.")
    for number in settings.steps:
        spaced_timesteps(number)


def _look_around(cores: int, progress: Progress) -> None:
    """Warn if the machine is not idle."""
    began = cpu_time()
    time.sleep(_SETTLE)
    busy = not_idle(others_cores(began, cpu_time()), cores, "Before the start")
    for clause in (busy, gpu_in_use()):
        if clause:
            progress.warn(clause)


def _contenders(
    bundle: str,
    backends: Sequence[str],
    precisions: Sequence[PrecisionChoice],
    others: Mapping[str, str],
    settings: Settings,
    progress: Progress,
) -> Iterator[tuple[str, Job]]:
    """Names, and jobs that open them."""
    shared = settings.model_dump(include={"batches", "steps", "repeats", "seconds", "threads"})
    shared |= {"task": "open", "bundle": bundle, "talk": isinstance(progress, Lines)}
    for given in backends:
        name = best_backend(progress) if given == "auto" else given
        for precision in precisions:
            yield name, Job(opener=OPENER, backend=name, precision=precision, **shared)
    for name, opener in others.items():
        yield name, Job(opener=opener, backend=name, precision="auto", **shared)


def _open(jobs: Iterable[tuple[str, Job]], progress: Progress) -> dict[str, tuple[Job, Opened]]:
    """What works here, by the name that tables give it; engines are built."""
    contenders: dict[str, tuple[Job, Opened]] = {}
    refused = []
    for name, job in jobs:
        try:
            about = _run(job, Opened)
        except SSDiffError as error:
            refused.append(f"{name} in {job.precision}: {error}")
            continue
        progress.detail(f"{name}: {about.backend}")
        if crowded := sorted(set(job.batches) - set(about.batches)):
            progress.warn(f"{name} has no room for batches of {', '.join(map(str, crowded))}")
        update = {"device": about.device, "precision": about.precision, "talk": False}
        contenders[f"{name} {about.precision}"] = job.model_copy(update=update), about
    if not contenders:
        raise SSDiffError(" ".join(refused))
    for sentence in refused:
        progress.warn(f"left out is {sentence}")
    return contenders


def _visit(
    contenders: Mapping[str, tuple[Job, Opened]],
    rounds: int,
    scene: tuple[str, str] | None,
    progress: Progress,
) -> tuple[dict[tuple[str, int], list[Process]], dict[str, list[SceneRun]]]:
    """Measure all cases and scenes, round by round."""
    cases = {
        (name, batch): list[Process]()
        for name, (_, about) in contenders.items()
        for batch in about.batches
    }
    scenes = {name: list[SceneRun]() for name in contenders} if scene else {}
    progress.start("Processes", rounds * (len(cases) + len(scenes)))
    with TemporaryDirectory() as folder:
        for turn in range(rounds):
            for name in _shuffled(scenes, turn):  # first: it may be that they cannot be read
                files = (*(scene or ()), str(Path(folder) / "fused.tif"))
                job = contenders[name][0].model_copy(update={"task": "scene", "scene": files})
                scenes[name].append(_run(job, SceneRun))
                progress.advance(1)
            for name, batch in _shuffled(cases, turn):
                job = contenders[name][0].model_copy(update={"task": "tiles", "batches": (batch,)})
                cases[name, batch].append(_run(job, Process))
                progress.advance(1)
    return cases, scenes


def _shuffled(keys: Iterable[Key], turn: int) -> list[Key]:
    """In an order of this turn's own, the same every time."""
    order = list(keys)
    random.Random(turn).shuffle(order)
    return order


def _run(job: Job, kind: type[Answer]) -> Answer:
    """Do a job in a fresh process.

    Raises:
        SSDiffError: if it cannot be done, or the system killed it.
    """
    job = job.model_copy(update={"started": time.monotonic()})
    done = subprocess.run(
        [sys.executable, "-c", "from ssdiff_trt.runtime.benchmark.worker import main; main()"],
        input=job.model_dump_json(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # an interruption is this process's to tell
    )
    if done.returncode == REFUSED:
        raise SSDiffError(done.stdout)
    if done.returncode < 0:
        raise SSDiffError(
            f"The process that measured {job.backend} with batches of {max(job.batches)} was "
            f"killed (signal {-done.returncode}), most often for want of memory; lower --batch."
        )
    done.check_returncode()
    return kind.model_validate_json(done.stdout)


def _write(
    result: Benchmark, json: str | Path | None, plot: str | Path | None, progress: Progress
) -> None:
    if json is not None:
        with atomic_write(Path(json)) as unfinished:
            unfinished.write_text(result.model_dump_json(indent=1) + "\n")
        progress.note(f"{json}: all runs")
    if plot is not None:
        from ssdiff_trt.runtime.benchmark.plot import draw

        draw(result, Path(plot))
        progress.note(f"{plot}: latency and throughput")
