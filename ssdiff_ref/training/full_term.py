"""The loss of adaptation at full resolution, where there is no truth.

The image of the weights that adaptation began with stands for the truth. The new image stays near
it, and is no worse in what can be measured: what the sensor of MS would see of it is MS, and it
correlates with PAN, locally and in its detail. Better than before gains nothing, so that reduced
resolution alone decides how the weights change otherwise.

How much each of these has to weigh differs between scenes: the weight of a term grows while it is
too high, and shrinks again when it is not (dual ascent).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from ssdiff_ref.network.ssnet import SSNet
from ssdiff_ref.quality.checks import Mask
from ssdiff_ref.training.losses import (
    back_project,
    brightness_weight,
    detail_decorrelation,
    local_decorrelation,
    rms,
    seen,
)
from ssdiff_ref.training.scene_pairs import AdaptationScene, usable_corners
from ssdiff_ref.training.synthesis import Batch
from ssdiff_ref.training.validation import sample_batch
from ssdiff_trt.runtime.interpolator import HALO, RATIO, interpolate_with_halo
from ssdiff_trt.runtime.schedule import Schedule
from ssdiff_trt.runtime.sensors import Sensor

_POOL, _POOL_BATCH = 384, 16
"""Samples, all drawn before training, so that the former weights process each only once."""
_EDGE = 2
"""MS pixels at the edge of a sample whose blur would reach beyond it."""
_TERMS = {"consistency": "R-ERGAS", "decorrelation": "D_rho", "detail": "detail"}
"""Terms that count where they are higher than those of the former image, and the measures of
held-out blocks (:data:`ssdiff_ref.training.held_out.FULL`) that they stand for."""
_MARGIN, _STEP = 0.01, 0.03
"""Share by which they should be lower than those at first, since held-out blocks differ from
samples; and by how much more or less when the measure of these blocks is not good enough, or is."""
NOISE = 0.006
"""Standard deviation of noise in the local correlation with PAN, as a share of the mean of MS."""
_FASTEST, _MOST = 0.02, 10.0
"""Most that the logarithm of the weight of a term changes at once, and most that it grows and
shrinks by."""


@dataclass(frozen=True)
class Weights:
    """Weights of the terms, at first."""

    consistency: float = 0.4
    """Of the excess of the difference between MS and what its sensor sees of the image."""
    decorrelation: float = 0.01
    """Of the excess of one minus the local correlation with PAN, D_rho."""
    detail: float = 0.1
    """Of the excess of one minus the correlation of the detail with PAN's."""
    anchor: float = 0.3
    """Of the difference from the image of the former weights."""


class FullTerm:
    """Adds to the loss what samples at full resolution lack.

    Args:
        scenes: scenes to cut samples from.
        trained: ``[H, W]`` of each scene, true where it may be used.
        sensor: sensor that acquired MS.
        net: network with the former weights, on the CPU.
        schedule: of the sampler.
        share: of back-projection.
        generator: random generator on the CPU.
        patch: side of the samples in pixels of PAN.
        count: samples in each iteration.
        weights: weights of the terms.
        device: device that is trained on.
    """

    def __init__(
        self,
        scenes: Sequence[AdaptationScene],
        trained: Sequence[Mask],
        sensor: Sensor,
        net: SSNet,
        schedule: Schedule,
        share: float,
        generator: Generator,
        patch: int,
        count: int,
        weights: Weights,
        device: torch.device,
    ) -> None:
        self._gains, self._share, self._weights = sensor.mtf_ms, share, weights
        self._random, self._count = generator, count
        self._growth = dict.fromkeys(_TERMS, 1.0)
        self._margin = dict.fromkeys(_TERMS, _MARGIN)
        corners = [usable_corners(mask, patch // RATIO) for mask in trained]
        numbers = np.repeat(np.arange(len(scenes)), [len(each) for each in corners])
        places = np.column_stack((numbers, np.concatenate(corners)))
        chosen = torch.randint(len(places), (_POOL,), generator=generator).numpy()
        samples = [self._cut(scenes[k], row, col, patch) for k, row, col in places[chosen].tolist()]
        pan, lms, ms, position = (torch.stack(layer) for layer in zip(*samples, strict=True))
        images = []
        for first in range(0, len(pan), _POOL_BATCH):
            inputs = [layer[first : first + _POOL_BATCH] for layer in (pan, lms, ms)]
            images.append(sample_batch(net, inputs, schedule, first))
        former = torch.cat(images)
        pool = pan, lms, ms, former - lms, position
        self.pool = Batch(*(layer.to(device) for layer in pool))
        self._former = back_project(former, ms, position, share).to(device)

    @staticmethod
    def _cut(scene: AdaptationScene, row: int, col: int, patch: int) -> list[Tensor]:
        """PAN, LMS, MS and the position of a sample; row and column in pixels of MS."""
        low = patch // RATIO
        pan = scene.pan[None, RATIO * row : RATIO * row + patch, RATIO * col : RATIO * col + patch]
        # np.take repeats the edge of the scene beyond it.
        rows, cols = (np.arange(at - HALO, at + low + HALO) for at in (row, col))
        around = scene.ms.take(rows, 1, mode="clip").take(cols, 2, mode="clip")
        lms = interpolate_with_halo(around, scene.position)
        ms = around[:, HALO:-HALO, HALO:-HALO]
        layers = (np.ascontiguousarray(layer, np.float32) for layer in (pan, lms, ms))
        return [*map(torch.from_numpy, layers), torch.tensor(scene.position)]

    def __call__(self, predict: Callable[[Batch], Tensor]) -> Tensor:
        """The loss of a random part of the samples.

        Args:
            predict: the images ``[N, C, H, W]`` that the network makes of a batch.
        """
        chosen = torch.randint(len(self.pool.pan), (self._count,), generator=self._random)
        batch = Batch(*(layer[chosen] for layer in self.pool))
        image = back_project(predict(batch), batch.ms, batch.position, self._share)
        former = self._former[chosen]
        scale = brightness_weight(batch.ms)
        loss = self._weights.anchor * (rms(image - former) * scale).mean()
        values, limits = (self._terms(each, batch, scale) for each in (image, former))
        for name, value, limit in zip(_TERMS, values, limits, strict=True):
            excess = value - (1 - self._margin[name]) * limit
            weight = self._growth[name] * getattr(self._weights, name)
            loss = loss + weight * excess.relu()
            change = min(max(float(excess.detach() / limit), -_FASTEST), _FASTEST)
            grown = self._growth[name] * math.exp(change)
            self._growth[name] = min(max(grown, 1 / _MOST), _MOST)
        return loss

    def adjust(self, lacking: Collection[str]) -> None:
        """Ask more of terms whose measures on held-out blocks lack something, and less of others.

        Args:
            lacking: names of :data:`ssdiff_ref.training.held_out.FULL`.
        """
        for name, measure in _TERMS.items():
            self._margin[name] += _STEP if measure in lacking else -_STEP

    def _terms(self, image: Tensor, batch: Batch, scale: Tensor) -> tuple[Tensor, ...]:
        """What the image lacks, in the order of ``_TERMS``."""
        inner = slice(_EDGE, -_EDGE)
        difference = (seen(image, batch.position, self._gains) - batch.ms)[..., inner, inner]
        return (
            (rms(difference) * scale).mean(),
            local_decorrelation(image, batch.pan, NOISE * batch.ms.mean((1, 2, 3), keepdim=True)),
            detail_decorrelation(image, batch.pan, batch.position),
        )
