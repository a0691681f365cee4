"""How good weights are on places that they have not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from ssdiff_ref.network.ssnet import SSNet
from ssdiff_ref.quality.metrics import ergas, q2n, sam
from ssdiff_ref.training.synthesis import Batch
from ssdiff_trt.runtime.schedule import make_schedule, sample

PATCH = 64
_AT_ONCE = 8


@dataclass(frozen=True)
class Scores:
    """Means over patches; Q2n is the better the higher, the others the lower."""

    ergas: float
    sam: float
    """Degrees."""
    q2n: float

    def better_than(self, other: Scores | None) -> bool:
        """Whether to prefer these, by ERGAS."""
        return other is None or self.ergas < other.ergas

    def better_in_all(self, other: Scores) -> bool:
        """Whether these are better by every metric."""
        return self.ergas < other.ergas and self.sam < other.sam and self.q2n > other.q2n

    def __str__(self) -> str:
        return f"ERGAS {self.ergas:.4f}, SAM {self.sam:.4f}, Q2n {self.q2n:.4f}"


def score(images: Tensor, truth: Tensor) -> Scores:
    """By the metrics of the field, patch by patch; both ``[N, C, H, W]``, 0..1."""
    pairs = [
        (image.double().cpu().numpy(), known.double().cpu().numpy())
        for image, known in zip(images, truth, strict=True)
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        rows = [
            (ergas(image, known), sam(image, known), q2n(image * 2047, known * 2047))
            for image, known in pairs
        ]
    return Scores(*np.nanmean(np.array(rows), axis=0).tolist())


class Validation:
    """A fixed set of held-out patches.

    Args:
        batch: the patches, 64 x 64.
        timesteps: of the sampler.
        measure: scores images by the truth.
    """

    def __init__(
        self,
        batch: Batch,
        timesteps: Sequence[int] = (999,),
        measure: Callable[[Tensor, Tensor], Scores] = score,
    ) -> None:
        self._measure = measure
        self._parts = list(zip(*(layer.split(_AT_ONCE) for layer in batch), strict=True))
        self._truth = batch.lms + batch.residual
        self._schedule = make_schedule(timesteps)
        self.interpolation = measure(batch.lms.clamp(0, 1), self._truth)
        """What doing nothing but to interpolate scores."""

    @torch.inference_mode()
    def __call__(self, net: SSNet) -> Scores:
        """Score weights; the network's mode stays what it was."""
        training = net.training
        net.eval()
        images = []
        for number, (pan, lms, ms, _) in enumerate(self._parts):
            noise = torch.randn(lms.shape, generator=Generator().manual_seed(number)).to(lms.device)

            def denoise(x: Tensor, t: float, inputs: Sequence[Tensor] = (pan, lms, ms)) -> Tensor:
                return net(x, *inputs, torch.full((len(x),), t, device=x.device))

            images.append(sample(denoise, lms, noise, self._schedule))
        net.train(training)
        return self._measure(torch.cat(images), self._truth)
