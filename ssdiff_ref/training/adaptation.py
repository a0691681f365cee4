"""Weights for a user's own scenes: a few minutes of training on them, kept if they pay."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Generator, nn

from ssdiff_ref.network.checkpoint import load_checkpoint
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_ref.protocol.datasets import read_whole
from ssdiff_ref.quality.checks import fit_sensor
from ssdiff_ref.training.config import Config, Stage
from ssdiff_ref.training.full_term import FullTerm, Weights
from ssdiff_ref.training.held_out import HeldOut, Stopping, Verdict
from ssdiff_ref.training.scene_pairs import (
    AdaptationScene,
    ScenePairs,
    largest_side,
    prepare_scene,
    split_blocks,
)
from ssdiff_ref.training.trainer import BEST, Trainer
from ssdiff_trt.runtime.arguments import above_zero, check_choice, check_seed
from ssdiff_trt.runtime.bundle.store import Bundle, bundle_for
from ssdiff_trt.runtime.errors import InputError, counted
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.options import PairOptions
from ssdiff_trt.runtime.plan.assumptions import assume
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.raster.products import read_product
from ssdiff_trt.runtime.raster.radiometry import Scale
from ssdiff_trt.runtime.raster.registration import moved_by
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.scenes import SceneEntry
from ssdiff_trt.runtime.schedule import T
from ssdiff_trt.runtime.sensors import Sensor
from ssdiff_trt.runtime.tiles.inputs import fill

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ssdiff_trt.runtime.options import PairArguments

Part = Literal["all", "head"]
"""What is trained: all weights, or only those of the last layers."""
_HEAD = ("head.", "ms_skip.")
_PATCH = 32
_BATCH, _FULL_BATCH = 6, 3
"""Samples of an iteration at reduced and at full resolution."""
_RATE = 4e-4
_MOST_ITERATIONS = 100_000
_VALIDATE_EVERY = 50
_PATIENCE = 16
_LEAST_TRAINING = 2.0
"""Seconds below which training is not worth it."""
_TIMED_TILE = 64
"""Pixels of the tile that a reserve of time is counted in."""


@dataclass(frozen=True)
class Adaptation:
    """What training on scenes came to."""

    weights: Path
    """The adapted ones."""
    bundle: Bundle
    """That they come from."""
    sensor: Sensor
    verdict: Verdict
    """Of blocks that nothing else has seen."""
    iterations: int
    """Of training."""

    @property
    def validated(self) -> bool:
        """Whether training lasted until weights were compared with those before."""
        return self.iterations >= _VALIDATE_EVERY

    @property
    def pays(self) -> bool:
        """Whether the scenes are better off with the adapted weights."""
        return not self.verdict.worse


def adapt_weights(
    scenes: Sequence[SceneEntry],
    weights: str | Path,
    *,
    bundle: str | Path | None = None,
    sensor: str = "generic",
    part: Part = "all",
    minutes: float = 8,
    reserve: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
    **pair: Unpack[PairArguments],
) -> Adaptation:
    """Train weights on for scenes of one sensor, at reduced and at full resolution.

    At a quarter of the resolution (Wald's protocol) MS is the truth. At full resolution the image
    has to agree with MS and with PAN, and to stay near that of the weights before
    (:mod:`ssdiff_ref.training.full_term`). A quarter of the blocks of the scenes is held out: one
    half decides when to stop, the other is for the verdict.

    Args:
        scenes: one or more; their options are fields of
            :class:`ssdiff_trt.runtime.options.PairOptions`.
        weights: ``.safetensors`` to write.
        bundle: bundle to start from; default: the shipped one for the number of bands.
        sensor: sensor whose MTF blurs MS, a name of :data:`ssdiff_trt.runtime.sensors.SENSORS`.
        part: ``head`` trains the last layers only, which changes less, and whose iterations take
            less time.
        minutes: longest time for all of it.
        reserve: of that time, what is kept for the caller: so many evaluations of the network on
            one tile of 64 pixels.
        seed: seed of everything random.
        progress: receives progress updates.
        pair: fields of :class:`ssdiff_trt.runtime.options.PairOptions`, for all scenes unless
            their own differ.

    Raises:
        SSDiffError: when a scene is no pair, the scenes do not fit each other or are too small, or
            the time is too short.
    """
    began, progress = time.monotonic(), progress or Progress()
    minutes, seed = above_zero("minutes", minutes), check_seed(seed)
    check_choice("part", part, ("all", "head"))
    opened, optics, prepared = open_scenes(scenes, bundle, sensor, dict(pair), progress)
    net, sampler = load_checkpoint(opened.path).net.eval(), opened.manifest.sampler
    split = split_blocks([scene.valid for scene in prepared])
    trained = split.trained(prepared)
    generator = Generator().manual_seed(seed)
    supply = ScenePairs(prepared, trained, optics, generator, _PATCH)
    share, schedule = sampler.back_projection, sampler.schedule()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    term = FullTerm(
        *(prepared, trained, optics, net, schedule, share),
        *(generator, _PATCH, _FULL_BATCH, Weights(), device),
    )
    validation, test = (
        HeldOut(prepared, blocks, optics, opened) for blocks in (split.validation, split.test)
    )
    size = split.test[0].size
    progress.note(
        f"{counted(len(split.validation), 'block')} of {size} x {size} pixels of MS for early "
        f"stopping, {len(split.test)} for the verdict"
    )
    measuring = time.monotonic()
    before = test.measure(net, progress=progress)
    now = time.monotonic()
    # Once more at the end, and the first and the last validation, which have half as many tiles.
    evaluation = (now - measuring) * (1 + len(split.validation) / len(split.test))
    kept = evaluation + reserve * _seconds_of_a_tile(net, _TIMED_TILE)
    left = 60 * minutes - (time.monotonic() - began) - kept
    if left < _LEAST_TRAINING:
        needed = (60 * minutes - left + _LEAST_TRAINING) / 60
        raise InputError(
            f"Of {minutes:g} minutes, evaluation and export take {kept / 60:.1f} on this machine, "
            f"expected some time to train; give {math.ceil(needed)} or more.",
            parameter="minutes",
        )
    progress.note(f"Training for {left / 60:.1f} minutes at most; about {kept / 60:.1f} follow")
    config = Config(
        bands=net.bands,
        stages=(Stage(iterations=_MOST_ITERATIONS, patch=_PATCH, batch=_BATCH),),
        seed=seed,
        learning_rate=_RATE,
        final_rate=1,
        warmup=20,
        ema=0.98,
        error="rms",
        # Weights that sample in one step need no other timestep.
        first_timestep=float(sampler.timesteps == (T - 1,)),
        back_projection=share,
        validate_every=_VALIDATE_EVERY,
        save_every=_MOST_ITERATIONS,  # nothing is resumed
        patience=_PATIENCE,
    )
    if part == "head":
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name.startswith(_HEAD))
    with tempfile.TemporaryDirectory() as folder:
        stopping = Stopping(validation, term.adjust)
        trainer = Trainer(*(config, net, supply, stopping, generator, device, Path(folder)), term)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()  # statistics of so few samples are worse than those before
        progress.note(trainer.validate())
        trainer.run(progress, left)
        best = load_checkpoint(Path(folder) / BEST)
        Path(weights).write_bytes((Path(folder) / BEST).read_bytes())
    verdict = Verdict(before, test.measure(best.net, progress=progress))
    return Adaptation(Path(weights), opened, optics, verdict, iterations=trainer.iteration)


def open_scenes(
    scenes: Sequence[SceneEntry],
    bundle: str | Path | None,
    sensor: str,
    pair: dict[str, Any],
    progress: Progress,
) -> tuple[Bundle, Sensor, list[AdaptationScene]]:
    """Read scenes of one sensor.

    Args:
        scenes, bundle, sensor, progress: as for :func:`adapt_weights`.
        pair: fields of :class:`ssdiff_trt.runtime.options.PairOptions`.

    Returns:
        The bundle to start from, the sensor as fitted to the bands, and the scenes.

    Raises:
        SSDiffError: if there is none, one is no pair, occurs twice, or has other bands or another
            full scale than the first.
    """
    if not scenes:
        raise InputError("No scene was given, expected one or more; give PAN and MS.")
    _check_distinct(scenes)
    opened: Bundle | None = None
    first: tuple[SceneEntry, int, Scale] | None = None
    prepared = []
    for entry in scenes:
        pan, ms = entry.pan, list(entry.ms) if len(entry.ms) > 1 else "".join(entry.ms)
        options = {**pair, **entry.options}
        if not ms:
            product = read_product(pan)
            pan, ms, options = product.pan.path, product.ms.path, product.options(options)
            progress.note(product.describe())
        chosen = PairOptions(**options)
        with Scene(pan, ms, chosen) as scene:
            if first is not None and len(scene.bands) != first[1]:
                raise InputError(
                    f"{entry.pan} has {counted(len(scene.bands), 'band')} of MS and "
                    f"{first[0].pan} has {first[1]}, expected scenes of one sensor; adapt to each "
                    "sensor on its own, or select bands with `bands`."
                )
            optics = fit_sensor(sensor, len(scene.bands))
            opened = opened or bundle_for(len(scene.bands), bundle)
            taken = assume(scene, opened, chosen)
            for warning in taken.warnings:
                progress.warn(warning)
            if first is not None and taken.ms_scale.value != first[2].value:
                raise InputError(
                    f"{entry.pan} has the full scale {taken.ms_scale} and {first[0].pan} "
                    f"{first[2]}, expected scenes of one sensor; adapt to each on its own, or "
                    "state `full_scale`."
                )
            first = first or (entry, len(scene.bands), taken.ms_scale)
            scales = taken.pan_scale, taken.ms_scale
            prepared.append(_prepare(taken.source, optics, *scales, largest_side(len(scenes))))
        height, width = prepared[-1].valid.shape
        moved = f"; {moved_by(taken.shift, taken.measured_shift)}" if any(taken.shift) else ""
        progress.note(f"{Path(entry.pan).name}: {width} x {height} pixels of MS{moved}")
    assert opened is not None
    return opened, optics, prepared


def _check_distinct(scenes: Sequence[SceneEntry]) -> None:
    """A scene that occurs twice would be trained on where it is held out."""
    seen: set[str] = set()
    for entry in scenes:
        for name in (entry.pan, *entry.ms):
            if (place := os.path.realpath(name)) in seen:
                raise InputError(
                    f"{name} is in two scenes, expected each once: what is held out of one would "
                    "be trained on in the other; leave one out."
                )
            seen.add(place)


def _prepare(
    scene: Scene, sensor: Sensor, pan_scale: Scale, ms_scale: Scale, largest: int
) -> AdaptationScene:
    whole = read_whole(scene)
    pan = fill(whole.pan[None], whole.pan_valid)[0].astype(np.float64) / pan_scale.value
    ms = fill(whole.ms, whole.ms_valid).astype(np.float64) / ms_scale.value
    return prepare_scene(pan, ms, whole.valid, sensor, whole.position, largest)


@torch.inference_mode()
def _seconds_of_a_tile(net: SSNet, tile: int) -> float:
    """Time of one evaluation of the network on a tile, the shortest of three."""
    wide, low = torch.zeros(1, net.bands, tile, tile), tile // RATIO
    inputs = wide, wide[:, :1], wide, torch.zeros(1, net.bands, low, low), torch.zeros(1)
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        net(*inputs)
        seconds.append(time.monotonic() - began)
    return min(seconds)
