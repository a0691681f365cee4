"""Training pairs from multispectral imagery alone: what a sensor could have made of it.

What makes weights work on sensors that they were not trained on is what varies here: the relation
of PAN to the bands, the sharpness of both, their registration, brightness and noise. A sample is
one draw of all of these; the truth is what the multispectral sensor would see at PAN's resolution.

Every blur and shift is a separable kernel given by its frequency response: a Gaussian with a
stated gain at the Nyquist frequency of the decimated grid (Aiazzi et al., 2006), shifted by any
fraction of a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ssdiff_trt.runtime.interpolator import GROUND_POSITION, HALO, PROTOCOL_POSITION, RATIO
from ssdiff_trt.runtime.interpolator import interpolation_matrix as exact_matrix

_MS_REACH = 12  # pixels of the truth on each side of one of ms
_LMS_REACH = 4  # pixels of ms; further taps of the interpolator are below 0.002
MARGIN = RATIO * _LMS_REACH + _MS_REACH
"""Pixels of the truth around a patch that its ``lms`` is made from."""
_FREQUENCIES = 32


class Batch(NamedTuple):
    """Training samples, 0..1 of full scale."""

    pan: Tensor
    """``[N, 1, H, W]``."""
    lms: Tensor
    """``[N, C, H, W]``."""
    ms: Tensor
    """``[N, C, H/4, W/4]``."""
    residual: Tensor
    """``[N, C, H, W]``: the truth less ``lms``."""


def kernels(gain: Tensor, shift: Tensor, step: int, reach: int) -> Tensor:
    """Sampling kernels ``[..., 2 reach + 1]`` that sum to 1.

    Args:
        gain: of the response at the Nyquist frequency of the decimated grid, above 0; 1 and more
            is no blur.
        shift: of the point sampled, in pixels of what is sampled.
        step: decimation.
        reach: taps on each side.
    """
    device = gain.device
    frequency = (torch.arange(_FREQUENCIES, device=device) + 0.5) / (2 * _FREQUENCIES)
    variance = step**2 * 2 * torch.log(1 / gain.clamp(max=1)) / math.pi**2
    response = torch.exp(-2 * math.pi**2 * variance[..., None] * frequency**2)
    offset = torch.arange(-reach, reach + 1, device=device) - shift[..., None]
    waves = torch.cos(2 * math.pi * offset[..., None] * frequency)
    fading = ((offset.abs() - reach / 2) / (reach / 2 + 1)).clamp(0, 1)
    window = torch.cos(math.pi / 2 * fading) ** 2
    kernel = (waves @ response[..., None])[..., 0] * window
    return kernel / kernel.sum(-1, keepdim=True)


def sample_grid(images: Tensor, rows: Tensor, cols: Tensor, step: int) -> Tensor:
    """Apply a kernel per image and band along each axis, at every ``step``-th pixel.

    Args:
        images: ``[N, C, H, W]``.
        rows: ``[N, C, taps]``.
        cols: ``[N, C, taps]``.
        step: decimation.

    Returns:
        ``[N, C, (H - taps) // step + 1, ...]``.
    """
    flat = images.flatten(0, 1)[None]
    groups = flat.shape[1]
    flat = F.conv2d(flat, rows.flatten(0, 1)[:, None, :, None], stride=(step, 1), groups=groups)
    flat = F.conv2d(flat, cols.flatten(0, 1)[:, None, None, :], stride=(1, step), groups=groups)
    return flat[0].unflatten(0, images.shape[:2])


@cache
def _interpolation(n: int, position: float) -> Tensor:
    matrix = torch.tensor(exact_matrix(n, position), dtype=torch.float32)
    cut = matrix[:, HALO - _LMS_REACH : matrix.shape[1] - (HALO - _LMS_REACH)]
    return cut / cut.sum(1, keepdim=True)


def observe(truth: Tensor, gain: Tensor, position: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """The coarse image of a sensor, and what the interpolator makes of it.

    Args:
        truth: ``[N, C, H + 2 MARGIN, W + 2 MARGIN]``.
        gain: of the MTF at the Nyquist frequency of the coarse grid, ``[N, C]``.
        position: row and column, 1 to 2, where pixel 0 of the coarse image lies on the truth.

    Returns:
        ``ms`` ``[N, C, H/4, W/4]`` and ``lms`` ``[N, C, H, W]``.
    """
    rows, cols = (
        kernels(gain, torch.full_like(gain, at - PROTOCOL_POSITION), RATIO, _MS_REACH)
        for at in position
    )
    # The first pixel of the margin's ms lies at index _MS_REACH + 2 of the truth.
    wide = sample_grid(truth[..., 2:, 2:], rows, cols, RATIO)
    height, width = (size - 2 * MARGIN for size in truth.shape[-2:])
    wide = wide[..., : height // RATIO + 2 * _LMS_REACH, : width // RATIO + 2 * _LMS_REACH]
    down, across = (
        _interpolation(size // RATIO, at).to(truth.device)
        for size, at in zip((height, width), position, strict=True)
    )
    inner = slice(_LMS_REACH, -_LMS_REACH)
    return wide[..., inner, inner].contiguous(), down @ wide @ across.T


@dataclass(frozen=True)
class Ranges:
    """What a sample is drawn from."""

    ms_gain: tuple[float, float] = (0.2, 0.4)
    """MTF of the multispectral sensor at its Nyquist frequency."""
    level: tuple[float, float] = (0.03, 0.4)
    """Mean of a source, of full scale."""
    noise: tuple[float, float] = (0.0003, 0.004)


def reach_of(step: int) -> int:
    """Taps on each side when a source is decimated by ``step``."""
    return 5 + 3 * step


def crop_size(patch: int, step: int) -> int:
    """Pixels of a source on a side, for a patch."""
    return step * (patch + 2 * MARGIN) + 2 * reach_of(step) + step


class Synthesizer:
    """Draws samples.

    Args:
        bands: C of the network.
        generator: on the CPU; all parameters come from it, so that its state tells what is next.
        device: where images are made.
        response: what share of PAN's light each band has, typically; without it, anything goes.
    """

    def __init__(
        self,
        bands: int,
        generator: Generator,
        device: torch.device,
        response: Sequence[float] | None = None,
    ) -> None:
        self.bands, self.ranges = bands, Ranges()
        self._random, self._device = generator, device
        self._known = None if response is None else torch.tensor(response).log()

    def _uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._random) * (high - low) + low

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._random)

    def _log_uniform(self, edges: tuple[float, float], *shape: int) -> Tensor:
        low, high = (math.log(edge) for edge in edges)
        return torch.exp(self._uniform(low, high, *shape))

    def _often(self, probability: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._random) < probability

    def _mixing(self, count: int, available: int, spectral: bool) -> Tensor:
        """``[N, C, B]``: bands of the sample from those of the source."""
        centre = torch.linspace(0, available - 1, self.bands)
        distance = torch.arange(available) - centre[:, None]
        along = torch.exp(-0.5 * (distance / 0.35) ** 2).expand(count, -1, -1)
        # Anything goes: from one band alone to the mean of all.
        anything = torch.softmax(
            self._uniform(0.3, 4, count, 1, 1) * self._normal(count, self.bands, available), -1
        )
        kept = self._often(0.8 if spectral else 0.3, count, 1, 1)
        mixing = torch.where(kept, along, anything)
        mixing = mixing / mixing.sum(-1, keepdim=True)
        # Some of the differences between bands turned around or exaggerated.
        contrast = self._uniform(-0.15, 0.15, count, self.bands, 1)
        neighbour = mixing.roll(1, dims=1)
        return mixing + torch.where(kept, 0.3, 1.0) * contrast * (mixing - neighbour)

    def _pan_weights(self, count: int, available: int) -> Tensor:
        """``[N, 1, C + B]``: PAN from the sample's bands and from light that none of them sees."""
        spread = 0.9 if self._known is None else 0.5
        typical = torch.zeros(self.bands) if self._known is None else self._known
        seen = torch.softmax(typical + spread * self._normal(count, self.bands), -1)
        unseen = torch.softmax(1.5 * self._normal(count, available), -1)
        often = 0.4 if self._known is None else 0.1
        share = self._uniform(0, 0.4, count, 1) * self._often(often, count, 1)
        return torch.cat(((1 - share) * seen, share * unseen), -1)[:, None]

    def draw(
        self, crops: Tensor, mean: Tensor, step: int, pan: Tensor | None = None, *, spectral: bool
    ) -> Batch:
        """Samples from crops of one source.

        Args:
            crops: ``[N, B, L, L]``, any unit, with ``L`` of :func:`crop_size`.
            mean: of the whole source, per band ``[B]``.
            step: decimation.
            pan: real PAN of the crops ``[N, 1, L, L]``, if there is one.
            spectral: whether the source's bands come by wavelength.
        """
        count, available, size = crops.shape[:3]
        device, reach = self._device, reach_of(step)
        patch = (size - step - 2 * reach) // step - 2 * MARGIN
        inner = slice(MARGIN, MARGIN + patch)

        # The light that arrives: contrast, colour, mixture of bands, brightness.
        curve = torch.exp(0.3 * self._normal(count, 1, 1, 1) * self._often(0.5, count, 1, 1, 1))
        unit = mean.mean()
        light = (crops / unit).clamp(min=0) ** curve.to(device)
        # Shade and the colour of roofs and roads: bands that differ less than those of fields.
        paler = self._uniform(0.1, 1.2, count, 1, 1, 1)
        colour = torch.where(self._often(0.6, count, 1, 1, 1), paler, torch.ones(1)).to(device)
        grey = light.mean(1, keepdim=True).clamp(min=1e-3)
        light = grey * (light / grey) ** colour
        level = self._log_uniform(self.ranges.level, count, 1, 1)
        gains = torch.exp(0.25 * self._normal(count, self.bands, 1))
        mixing = self._mixing(count, available, spectral) * gains * level
        bands = torch.einsum("ncb,nbhw->nchw", mixing.to(device), light)
        haze = self._uniform(-0.2, 0.2, count, self.bands, 1, 1) * self._often(0.4, count, 1, 1, 1)
        bands = (bands + (haze * level[..., None]).to(device)).clamp(min=0)

        # The truth: what the multispectral sensor would see at PAN's resolution.
        sharpness = self._uniform(*self.ranges.ms_gain, count, 1)
        gain = (sharpness + 0.02 * self._normal(count, self.bands)).clamp(0.12, 0.6)
        # Products differ: some are as soft as the optics leave them, some sharpened to the full.
        if step == 1:  # the source's own sensor has blurred it already
            softer = self._uniform(0.5, 1, count, 1)
            own = torch.where(self._often(0.7, count, 1), torch.ones(count, 1), softer)
        else:
            own = self._uniform(0.3, 1, count, 1)
        own = (own + 0.02 * self._normal(count, self.bands)).clamp(0.12, 1)
        centre = (step - 1) / 2 - (step - 1) // 2
        between = 0.05 * step * self._normal(2, count, self.bands)
        rows, cols = (kernels(own, shift, step, reach).to(device) for shift in centre + between)
        start = (step - 1) // 2
        truth = sample_grid(bands[..., start:, start:], rows, cols, step)
        extent = patch + 2 * MARGIN
        truth = truth[..., :extent, :extent]

        # PAN: its own mixture, sharpness and place.
        if pan is None:
            light = torch.cat((bands, light * level[..., None].to(device)), 1)
            weights = self._pan_weights(count, available).to(device)
            pan = torch.einsum("ncb,nbhw->nchw", weights, light)
        else:
            pan = (pan / unit).clamp(min=0) ** curve.to(device) * level[..., None].to(device)
        crisp = self._uniform(0.35, 0.7, count, 1)
        soft = self._uniform(0.15, 0.4, count, 1)
        pan_gain = torch.where(self._often(0.85, count, 1), crisp, soft)
        loose = torch.where(self._often(0.15, count, 1), 0.3, 0.06)
        away = (loose * self._normal(2, count, 1)).clamp(-0.8, 0.8) * step
        rows, cols = (kernels(pan_gain, shift, step, reach).to(device) for shift in centre + away)
        pan = sample_grid(pan[..., start:, start:], rows, cols, step)[..., inner, inner]
        pan = pan.clamp(min=0)
        around = level[..., None].to(device)
        bend = 1 + self._uniform(-0.15, 0.15, count, 1, 1, 1) * self._often(0.4, count, 1, 1, 1)
        bend = bend.to(device)
        scale = torch.exp(0.2 * self._normal(count, 1, 1, 1)).to(device)
        lift = (self._uniform(-0.15, 0.15, count, 1, 1, 1)).to(device)
        pan = (scale * (pan / around) ** bend + lift) * around

        # Noise, and the end of the scale.
        noise = self._log_uniform(self.ranges.noise, count, 1, 1, 1)
        noise = (noise * self._often(0.6, count, 1, 1, 1)).to(device)
        relative = (level[..., None] / 0.2).clamp(0.3, 1).to(device)
        truth = truth + noise * relative * self._normal(*truth.shape).to(device)
        pan = pan + noise * relative * self._normal(*pan.shape).to(device)
        truth, pan = truth.clamp(0, 1), pan.clamp(0, 1)

        ms, lms = observe(truth, gain.to(device), self._position())
        return Batch(pan, lms, ms, truth[..., inner, inner] - lms)

    def _position(self) -> tuple[float, float]:
        """Mostly where the field's data have it, else where real imagery has it, or about."""
        kind = float(torch.rand((), generator=self._random))
        if kind < 0.6:
            return PROTOCOL_POSITION, PROTOCOL_POSITION
        if kind < 0.85:
            return GROUND_POSITION, GROUND_POSITION
        down, across = (1 + torch.randint(9, (2,), generator=self._random) / 8).tolist()
        return down, across
