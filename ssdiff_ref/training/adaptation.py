"""Weights for a user's own scene: a few minutes of training on it, kept if they pay."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator

from ssdiff_ref.network.checkpoint import load_checkpoint
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_ref.protocol.datasets import read_whole
from ssdiff_ref.quality.checks import fit_sensor
from ssdiff_ref.training.config import Config, Stage
from ssdiff_ref.training.scene_pairs import (
    Blocks,
    ReducedScene,
    ScenePairs,
    reduce_scene,
    split_blocks,
)
from ssdiff_ref.training.trainer import BEST, Trainer
from ssdiff_ref.training.validation import Scores, Validation
from ssdiff_trt.runtime.arguments import above_zero, check_seed
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import InputError, counted
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.options import PairOptions
from ssdiff_trt.runtime.plan.assumptions import assume
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.raster.radiometry import Scale
from ssdiff_trt.runtime.raster.registration import moved_by
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.sensors import Sensor
from ssdiff_trt.runtime.tiles.inputs import fill

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ssdiff_trt.runtime.options import PairArguments

_PATCH, _BATCH = 32, 8
_RATE = 1e-4
_VALIDATE_EVERY = 40
_PATIENCE = 6
_LEAST_TRAINING = 2.0
"""Seconds below which training is not worth it."""


_TIMED_TILE = 64
"""Pixels of the tile that a reserve of time is counted in."""


@dataclass(frozen=True)
class Adaptation:
    """What training on a scene came to."""

    weights: Path
    """The adapted ones."""
    bundle: Bundle
    """That they come from."""
    sensor: Sensor
    full_scale: Scale
    before: Scores
    """On blocks that nothing else has seen."""
    after: Scores
    iterations: int
    """Of training."""

    @property
    def validated(self) -> bool:
        """Whether training lasted until weights were compared with those before."""
        return self.iterations >= _VALIDATE_EVERY

    @property
    def pays(self) -> bool:
        """Whether the scene is better off with the adapted weights, by every metric."""
        return self.after.better_in_all(self.before)


def adapt_weights(
    pan: str | Path,
    ms: str | Path,
    weights: str | Path,
    *,
    bundle: str | Path | None = None,
    sensor: str = "generic",
    minutes: float = 8,
    reserve: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
    **pair: Unpack[PairArguments],
) -> Adaptation:
    """Train weights on for one scene, at a quarter of its resolution (Wald's protocol).

    A quarter of the scene's blocks of 32 x 32 pixels of MS is held out: one half for early
    stopping, the other for the scores.

    Args:
        pan: panchromatic raster.
        ms: multispectral raster with 4 times the pixel size.
        weights: ``.safetensors`` to write.
        bundle: bundle to start from; default: the shipped one for the number of bands.
        sensor: sensor whose MTF blurs MS, a name of :data:`ssdiff_trt.runtime.sensors.SENSORS`.
        minutes: longest time for all of it.
        reserve: of that time, what is kept for the caller: so many evaluations of the network on
            one tile of 64 pixels.
        seed: seed of everything random.
        progress: receives progress updates.
        pair: fields of :class:`ssdiff_trt.runtime.options.PairOptions`.

    Raises:
        SSDiffError: when the scene is no pair or too small, or the time too short.
    """
    began, progress = time.monotonic(), progress or Progress()
    minutes, seed = above_zero("minutes", minutes), check_seed(seed)
    options = PairOptions(**pair)
    with Scene(pan, ms, options) as scene:
        optics = fit_sensor(sensor, len(scene.bands))
        taken = assume(scene, bundle, options)
        if any(taken.shift):
            progress.note(moved_by(taken.shift, taken.measured_shift))
        for warning in taken.warnings:
            progress.warn(warning)
        opened, ms_scale = taken.bundle, taken.ms_scale
        reduced = _reduce(taken.source, optics, taken.pan_scale, ms_scale)
    net = load_checkpoint(opened.path).net
    generator = Generator()
    split = split_blocks(reduced.valid)
    supply = ScenePairs(reduced, split, optics, generator, _PATCH)
    sampler = opened.manifest.sampler
    validation, test = (
        Validation(blocks.batch, sampler.timesteps, blocks.score, sampler.back_projection)
        for blocks in (Blocks(reduced, part, optics) for part in (split.validation, split.test))
    )
    progress.note(
        f"{reduced.valid.shape[1]} x {reduced.valid.shape[0]} pixels of MS; "
        f"{counted(len(split.validation), 'block')} for early stopping, "
        f"{len(split.test)} for the scores"
    )
    before = test(net)
    evaluation = time.monotonic() - began  # once more at the end
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
        stages=(Stage(iterations=100_000, patch=_PATCH, batch=_BATCH),),
        seed=seed,
        learning_rate=_RATE,
        final_rate=1,
        warmup=20,
        ema=0.98,
        back_projection=sampler.back_projection,
        validate_every=_VALIDATE_EVERY,
        save_every=100_000,
        patience=_PATIENCE,
    )
    with tempfile.TemporaryDirectory() as folder:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        trainer = Trainer(config, net, supply, validation, generator, device, Path(folder))
        progress.note(trainer.validate())
        trainer.run(progress, left)
        best = load_checkpoint(Path(folder) / BEST)
        Path(weights).write_bytes((Path(folder) / BEST).read_bytes())
    after = test(best.net)
    return Adaptation(
        Path(weights), opened, optics, ms_scale, before, after, iterations=trainer.iteration
    )


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


def _reduce(scene: Scene, sensor: Sensor, pan_scale: Scale, ms_scale: Scale) -> ReducedScene:
    whole = read_whole(scene)
    pan = fill(whole.pan[None], whole.pan_valid)[0].astype(np.float64) / pan_scale.value
    ms = fill(whole.ms, whole.ms_valid).astype(np.float64) / ms_scale.value
    return reduce_scene(pan, ms, whole.valid, sensor, whole.position)
