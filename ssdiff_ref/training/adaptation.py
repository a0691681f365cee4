"""Weights for a user's own scene: a few minutes of training on it, kept if they pay."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Generator

from ssdiff_ref.network.checkpoint import load_checkpoint
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
from ssdiff_trt.runtime.bundle.store import Bundle, bundle_for
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.raster.radiometry import Scale, choose_scale
from ssdiff_trt.runtime.raster.registration import ShiftChoice, choose_shift, offset
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.sensors import Sensor
from ssdiff_trt.runtime.tiles.inputs import fill

_PATCH, _BATCH = 32, 8
_RATE = 1e-4
_VALIDATE_EVERY = 40
_PATIENCE = 6


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
    bands: Sequence[int] | None = None,
    pan_band: int | None = None,
    nodata: float | None = None,
    full_scale: float | None = None,
    pan_full_scale: float | None = None,
    shift: ShiftChoice = "auto",
    minutes: float = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> Adaptation:
    """Train weights on for one scene, at a quarter of its resolution (Wald's protocol).

    A quarter of the scene's blocks of 32 x 32 pixels of MS is kept apart: one half tells when to
    stop, the other what it was worth.

    Args:
        pan: panchromatic raster.
        ms: multispectral raster with 4 times the pixel size.
        weights: ``.safetensors`` to write.
        bundle: whose weights to start from; by default the one that comes along for the bands.
        sensor: whose MTF blurs MS, a name of :data:`ssdiff_trt.runtime.sensors.SENSORS`.
        bands: of ``ms``, in the network's order, counted from 1; all but alpha by default.
        pan_band: band of ``pan``, needed when it has several.
        nodata: value that means no data in both, whatever the files say.
        full_scale: digital number that both images are divided by; see
            :func:`ssdiff_trt.runtime.raster.radiometry.choose_scale` for the default.
        pan_full_scale: that of ``pan``, if it differs.
        shift: rows and columns of PAN by which MS lies off PAN; ``auto`` measures it.
        minutes: to train for at most.
        seed: of everything random.
        progress: told how work goes.

    Raises:
        SSDiffError: when the scene is no pair, or too small.
    """
    progress = progress or Progress()
    with Scene(pan, ms, bands=bands, pan_band=pan_band, nodata=nodata) as scene:
        moved, _ = choose_shift(shift, scene)
        if any(moved):
            progress.note(f"MS lies {offset(moved)} off where its georeferencing says; it is moved")
            scene.move(*moved)
        opened = bundle_for(len(scene.bands), bundle)
        optics = fit_sensor(sensor, len(scene.bands))
        stated = full_scale if pan_full_scale is None else pan_full_scale
        pan_scale = choose_scale(scene.pan, scene.pan_band, stated, opened)
        ms_scale = choose_scale(scene.ms, scene.bands[0], full_scale, opened)
        reduced = _reduce(scene, optics, pan_scale, ms_scale)
    net = load_checkpoint(opened.path).net
    generator = Generator()
    split = split_blocks(reduced.valid)
    supply = ScenePairs(reduced, split, optics, generator, _PATCH)
    timesteps = opened.manifest.sampler.timesteps
    watched, judged = (
        Validation(blocks.batch, timesteps, blocks.score)
        for blocks in (Blocks(reduced, part, optics) for part in (split.validation, split.test))
    )
    progress.note(
        f"{reduced.valid.shape[1]} x {reduced.valid.shape[0]} pixels of MS; "
        f"{len(split.validation)} blocks tell when to stop, {len(split.test)} judge"
    )
    before = judged(net)
    config = Config(
        bands=net.bands,
        stages=(Stage(iterations=100_000, patch=_PATCH, batch=_BATCH),),
        seed=seed,
        learning_rate=_RATE,
        final_rate=1,
        warmup=20,
        ema=0.98,
        validate_every=_VALIDATE_EVERY,
        save_every=100_000,
        patience=_PATIENCE,
    )
    with tempfile.TemporaryDirectory() as folder:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        trainer = Trainer(config, net, supply, watched, generator, device, Path(folder))
        progress.note(trainer.validate())
        trainer.run(progress, minutes * 60)
        best = load_checkpoint(Path(folder) / BEST)
        Path(weights).write_bytes((Path(folder) / BEST).read_bytes())
    return Adaptation(Path(weights), opened, optics, ms_scale, before, judged(best.net))


def _reduce(scene: Scene, sensor: Sensor, pan_scale: Scale, ms_scale: Scale) -> ReducedScene:
    whole = read_whole(scene)
    pan = fill(whole.pan[None], whole.pan_valid)[0].astype(np.float64) / pan_scale.value
    ms = fill(whole.ms, whole.ms_valid).astype(np.float64) / ms_scale.value
    return reduce_scene(pan, ms, whole.valid, sensor, scene.position)
