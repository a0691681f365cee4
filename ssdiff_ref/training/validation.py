"""Validation of weights on held-out patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from ssdiff_ref.network.ssnet import SSNet
from ssdiff_ref.quality.metrics import ergas, q2n, sam
from ssdiff_ref.training.losses import back_project
from ssdiff_ref.training.synthesis import Batch
from ssdiff_trt.runtime.schedule import Schedule, make_schedule, sample

PATCH = 64
"""Side of a validation patch in pixels."""
_BATCH = 8


@dataclass(frozen=True)
class Scores:
    """Mean scores over patches."""

    ergas: float
    """Lower is better."""
    sam: float
    """In degrees; lower is better."""
    q2n: float
    """0..1; higher is better."""

    def better_than(self, other: Scores | None) -> bool:
        """Whether ERGAS is lower than that of ``other``, or there is none."""
        return other is None or self.ergas < other.ergas

    def __str__(self) -> str:
        return f"ERGAS {self.ergas:.4f}, SAM {self.sam:.4f}, Q2n {self.q2n:.4f}"


def score(images: Tensor, truth: Tensor) -> Scores:
    """Mean ERGAS, SAM and Q2n over patches; both ``[N, C, H, W]``, 0..1 of full scale."""
    pairs = [
        (image.double().cpu().numpy(), reference.double().cpu().numpy())
        for image, reference in zip(images, truth, strict=True)
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        rows = [
            (ergas(image, reference), sam(image, reference), q2n(image * 2047, reference * 2047))
            for image, reference in pairs
        ]
    return Scores(*np.nanmean(np.array(rows), axis=0).tolist())


@torch.inference_mode()
def sample_batch(net: SSNet, inputs: Sequence[Tensor], schedule: Schedule, seed: int) -> Tensor:
    """Images ``[N, C, H, W]`` that the network samples, without back-projection.

    Args:
        net: in evaluation mode.
        inputs: PAN, LMS and MS, as for :meth:`ssdiff_ref.network.ssnet.SSNet.forward`.
        schedule: of the sampler.
        seed: of the noise.
    """
    lms = inputs[1]
    noise = torch.randn(lms.shape, generator=Generator().manual_seed(seed)).to(lms.device)

    def denoise(x: Tensor, t: float) -> Tensor:
        return net(x, *inputs, torch.full((len(x),), t, device=x.device))

    return sample(denoise, lms, noise, schedule)


class Validation:
    """Scores weights on a fixed set of held-out patches.

    Args:
        batch: validation patches.
        timesteps: timesteps of the sampler.
        measure: function that scores images against the ground truth.
        share: of back-projection.

    Attributes:
        interpolation: scores of interpolated MS, the baseline.
    """

    def __init__(
        self,
        batch: Batch,
        timesteps: Sequence[int] = (999,),
        measure: Callable[[Tensor, Tensor], Scores] = score,
        share: float = 0,
    ) -> None:
        self._measure, self._share = measure, share
        self._batches = list(zip(*(layer.split(_BATCH) for layer in batch), strict=True))
        self._truth = batch.lms + batch.residual
        self._schedule = make_schedule(timesteps)
        self.interpolation = measure(batch.lms.clamp(0, 1), self._truth)

    @torch.inference_mode()
    def __call__(self, net: SSNet) -> Scores:
        """Score weights; restores the network's training mode afterwards."""
        training = net.training
        net.eval()
        images = []
        for number, (pan, lms, ms, _, position) in enumerate(self._batches):
            image = sample_batch(net, (pan, lms, ms), self._schedule, number)
            images.append(back_project(image, ms, position, self._share))
        net.train(training)
        return self._measure(torch.cat(images), self._truth)
