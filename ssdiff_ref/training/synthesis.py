"""Simulates training pairs of random virtual sensors from multispectral imagery.

To make weights generalise to other sensors, each sample draws at random the relation of PAN to the
bands, the sharpness of both, their registration, brightness and noise. The ground truth is the
image that the multispectral sensor would acquire at PAN's resolution.

Every blur and shift is a separable kernel given by its frequency response: a Gaussian with a
stated gain at the Nyquist frequency of the decimated grid (Aiazzi et al., 2006), shifted by any
fraction of a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ssdiff_ref.training.config import SIMULATION, Simulation
from ssdiff_trt.runtime.interpolator import GROUND_POSITION, HALO, PROTOCOL_POSITION, RATIO
from ssdiff_trt.runtime.interpolator import interpolation_matrix as exact_matrix

_MS_REACH = 12  # radius of the MTF kernels, in pixels of the truth
_LMS_REACH = 4  # radius of the interpolator, in pixels of ms; taps beyond it are below 0.002
MARGIN = RATIO * _LMS_REACH + _MS_REACH
"""Pixels of the truth around a patch that its ``lms`` depends on."""
_FREQUENCIES = 32
"""Samples of the frequency response of a kernel."""


class Batch(NamedTuple):
    """Training samples in 0..1 of full scale."""

    pan: Tensor
    """``[N, 1, H, W]``."""
    lms: Tensor
    """``[N, C, H, W]``."""
    ms: Tensor
    """``[N, C, H/4, W/4]``."""
    residual: Tensor
    """``[N, C, H, W]``, ground truth minus ``lms``."""
    position: Tensor
    """Row and column of ``pan`` at the centre of the first pixel of ``ms``, ``[N, 2]``."""


def kernels(gain: Tensor, shift: Tensor, step: int, reach: int) -> Tensor:
    """1-D kernels ``[..., 2 reach + 1]`` that blur and shift; each sums to 1.

    Args:
        gain: response at the Nyquist frequency of the decimated grid, above 0; 1 or more means no
            blur.
        shift: shift of the sampling point, in pixels of the image to sample.
        step: decimation factor.
        reach: radius in taps.
    """
    device = gain.device
    frequency = (torch.arange(_FREQUENCIES, device=device) + 0.5) / (2 * _FREQUENCIES)
    variance = step**2 * 2 * torch.log(1 / gain.clamp(max=1)) / math.pi**2
    response = torch.exp(-2 * math.pi**2 * variance[..., None] * frequency**2)
    offset = torch.arange(-reach, reach + 1, device=device) - shift[..., None]
    waves = torch.cos(2 * math.pi * offset[..., None] * frequency)
    taper = ((offset.abs() - reach / 2) / (reach / 2 + 1)).clamp(0, 1)
    window = torch.cos(math.pi / 2 * taper) ** 2
    kernel = (waves @ response[..., None])[..., 0] * window
    return kernel / kernel.sum(-1, keepdim=True)


def sample_grid(images: Tensor, rows: Tensor, cols: Tensor, step: int) -> Tensor:
    """Convolve along both axes with one kernel per image and band, at every ``step``-th pixel.

    Args:
        images: ``[N, C, H, W]``.
        rows: kernels along columns of pixels (vertical), ``[N, C, taps]``.
        cols: kernels along rows of pixels (horizontal), ``[N, C, taps]``.
        step: decimation factor.

    Returns:
        ``[N, C, (H - taps) // step + 1, (W - taps) // step + 1]``.
    """
    flat = images.flatten(0, 1)[None]
    groups = flat.shape[1]
    flat = F.conv2d(flat, rows.flatten(0, 1)[:, None, :, None], stride=(step, 1), groups=groups)
    flat = F.conv2d(flat, cols.flatten(0, 1)[:, None, None, :], stride=(1, step), groups=groups)
    return flat[0].unflatten(0, images.shape[:2])


@cache
def _interpolation(n: int, position: float) -> Tensor:
    """The interpolator as a matrix, truncated to ``_LMS_REACH`` and normalised."""
    matrix = torch.tensor(exact_matrix(n, position), dtype=torch.float32)
    trimmed = matrix[:, HALO - _LMS_REACH : matrix.shape[1] - (HALO - _LMS_REACH)]
    return trimmed / trimmed.sum(1, keepdim=True)


def observe(
    truth: Tensor, gain: Tensor, position: tuple[float, float], noise: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Simulate MS by the sensor's MTF and decimation, and interpolate it.

    Args:
        truth: ``[N, C, H + 2 MARGIN, W + 2 MARGIN]``.
        gain: MTF at the Nyquist frequency of the MS grid, ``[N, C]``.
        position: row and column of the truth, 1 to 2, at the centre of pixel 0 of MS.
        noise: added to MS, at least ``[N, C, H/4 + 8, W/4 + 8]``; none by default.

    Returns:
        ``ms`` ``[N, C, H/4, W/4]`` and ``lms`` ``[N, C, H, W]``.
    """
    rows, cols = (
        kernels(gain, torch.full_like(gain, at - PROTOCOL_POSITION), RATIO, _MS_REACH)
        for at in position
    )
    # The first pixel of ms in the margin lies at index _MS_REACH + 2 of the truth.
    padded_ms = sample_grid(truth[..., 2:, 2:], rows, cols, RATIO)
    height, width = (size - 2 * MARGIN for size in truth.shape[-2:])
    padded_ms = padded_ms[
        ..., : height // RATIO + 2 * _LMS_REACH, : width // RATIO + 2 * _LMS_REACH
    ]
    if noise is not None:
        padded_ms = padded_ms + noise[..., : padded_ms.shape[-2], : padded_ms.shape[-1]]
    along_rows, along_cols = (
        _interpolation(size // RATIO, at).to(truth.device)
        for size, at in zip((height, width), position, strict=True)
    )
    inner = slice(_LMS_REACH, -_LMS_REACH)
    return padded_ms[..., inner, inner].contiguous(), along_rows @ padded_ms @ along_cols.T


def reach_of(step: int) -> int:
    """Radius in taps of the kernels that decimate a source by ``step``."""
    return 5 + 3 * step


def crop_size(patch: int, step: int) -> int:
    """Side, in pixels of the source, of the crop that gives a patch of ``patch`` pixels."""
    return step * (patch + 2 * MARGIN) + 2 * reach_of(step) + step


class Synthesizer:
    """Simulates random training samples.

    Args:
        bands: number of bands of the network, C.
        generator: random generator on the CPU; the only source of randomness, so its state
            determines the samples.
        device: device to compute images on.
        response: typical weight of each band in PAN; arbitrary random weights if None.
        arrays: bands, counted from 1, of each detector array, if arrays are displaced.
        simulation: how strongly samples vary.
    """

    def __init__(
        self,
        bands: int,
        generator: Generator,
        device: torch.device,
        response: Sequence[float] | None = None,
        arrays: Sequence[Sequence[int]] = (),
        simulation: Simulation = SIMULATION,
    ) -> None:
        self.bands, self._simulation = bands, simulation
        self._arrays = [[band - 1 for band in array] for array in arrays]
        self._random, self._device = generator, device
        self._log_response = None if response is None else torch.tensor(response).log()

    def _uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._random) * (high - low) + low

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._random)

    def _log_uniform(self, edges: tuple[float, float], *shape: int) -> Tensor:
        low, high = (math.log(edge) for edge in edges)
        return torch.exp(self._uniform(low, high, *shape))

    def _bernoulli(self, probability: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._random) < probability

    def _mixing(self, count: int, available: int, spectral: bool) -> Tensor:
        """Random matrices ``[N, C, B]`` that mix the source's bands into the sample's bands."""
        centre = torch.linspace(0, available - 1, self.bands)
        distance = torch.arange(available) - centre[:, None]
        in_order = torch.exp(-0.5 * (distance / 0.35) ** 2).expand(count, -1, -1)
        # Arbitrary mixtures, from a single band to the mean of all.
        arbitrary = torch.softmax(
            self._uniform(0.3, 4, count, 1, 1) * self._normal(count, self.bands, available), -1
        )
        use_order = self._bernoulli(0.8 if spectral else 0.3, count, 1, 1)
        mixing = torch.where(use_order, in_order, arbitrary)
        mixing = mixing / mixing.sum(-1, keepdim=True)
        # Reverse or exaggerate some of the differences between bands.
        contrast = self._uniform(-0.15, 0.15, count, self.bands, 1)
        neighbour = mixing.roll(1, dims=1)
        return mixing + torch.where(use_order, 0.3, 1.0) * contrast * (mixing - neighbour)

    def _veil(self, count: int) -> Tensor:
        """Random share of each band's contrast that haze takes, ``[N, C, 1, 1]``.

        Haze is strongest at short wavelengths. A few samples are flat.
        """
        strength = self._uniform(0, self._simulation.haze, count, 1) * self._bernoulli(
            0.6, count, 1
        )
        fall = self._uniform(0, 3, count, 1) * torch.linspace(0, 1, self.bands)
        veil = strength * torch.exp(-fall) * self._uniform(0.8, 1.1, count, self.bands)
        flat = self._bernoulli(0.03, count, 1)
        return torch.where(flat, 1.0, veil.clamp(max=0.95))[..., None, None]

    def _array_shifts(self, count: int) -> Tensor:
        """Random displacement of each band with its detector array, ``[2, N, C]``, in pixels."""
        shifts = torch.zeros(2, count, self.bands)
        for array in self._arrays:
            displaced = self._bernoulli(0.6, 1, count, 1)
            shifts[:, :, array] = 0.6 * self._normal(2, count, 1).clamp(-2.5, 2.5) * displaced
        return shifts

    def _pan_weights(self, count: int, available: int) -> Tensor:
        """Random weights ``[N, 1, C + B]`` of the sample's and the source's bands in PAN.

        The source's bands stand for wavelengths that PAN covers but the sample's bands do not.
        """
        spread = 0.9 if self._log_response is None else 0.5
        typical = torch.zeros(self.bands) if self._log_response is None else self._log_response
        in_bands = torch.softmax(typical + spread * self._normal(count, self.bands), -1)
        outside_bands = torch.softmax(1.5 * self._normal(count, available), -1)
        probability = 0.4 if self._log_response is None else 0.1
        share = self._uniform(0, 0.4, count, 1) * self._bernoulli(probability, count, 1)
        return torch.cat(((1 - share) * in_bands, share * outside_bands), -1)[:, None]

    def draw(
        self, crops: Tensor, mean: Tensor, step: int, pan: Tensor | None = None, *, spectral: bool
    ) -> Batch:
        """Simulate one sample from each crop of a source image.

        Args:
            crops: ``[N, B, L, L]``, any unit, with ``L`` from :func:`crop_size`.
            mean: mean of each band over the whole image, ``[B]``.
            step: decimation factor from the source to the ground truth.
            pan: real PAN of the crops ``[N, 1, L, L]``, if available.
            spectral: whether the source's bands are ordered by wavelength.
        """
        count, available, size = crops.shape[:3]
        device, reach = self._device, reach_of(step)
        patch = (size - step - 2 * reach) // step - 2 * MARGIN
        inner = slice(MARGIN, MARGIN + patch)

        # At-sensor radiance: contrast, saturation, band mixing, brightness.
        gamma = torch.exp(0.3 * self._normal(count, 1, 1, 1) * self._bernoulli(0.5, count, 1, 1, 1))
        unit = mean.mean()
        radiance = (crops / unit).clamp(min=0) ** gamma.to(device)
        # Shadows, roofs and roads are less saturated than vegetation.
        random_saturation = self._uniform(0.1, 1.2, count, 1, 1, 1)
        saturation = torch.where(
            self._bernoulli(0.6, count, 1, 1, 1), random_saturation, torch.ones(1)
        ).to(device)
        grey = radiance.mean(1, keepdim=True).clamp(min=1e-3)
        radiance = grey * (radiance / grey) ** saturation
        level = self._log_uniform(self._simulation.level, count, 1, 1)
        gains = torch.exp(0.25 * self._normal(count, self.bands, 1))
        mixing = self._mixing(count, available, spectral) * gains * level
        bands = torch.einsum("ncb,nbhw->nchw", mixing.to(device), radiance)
        haze = self._uniform(-0.2, 0.2, count, self.bands, 1, 1) * self._bernoulli(
            0.4, count, 1, 1, 1
        )
        bands = (bands + (haze * level[..., None]).to(device)).clamp(min=0)
        light = bands.mean((2, 3), keepdim=True)
        bands = bands + self._veil(count).to(device) * (light - bands)

        # Ground truth: the image of the multispectral sensor at PAN's resolution.
        mean_gain = self._uniform(*self._simulation.ms_gain, count, 1)
        gain = mean_gain + 0.02 * self._normal(count, self.bands)
        # Diffraction grows with the wavelength, and the air blurs short wavelengths most.
        shortness = torch.linspace(1, 0, self.bands)
        diffraction = self._uniform(*self._simulation.diffraction, count, 1)
        air = self._uniform(0, self._simulation.air, count, 1)
        gain = (gain * torch.exp(diffraction * (shortness - 0.5))).clamp(0.12, 0.6)
        # Products differ in sharpness: some keep the blur of the optics, some are restored.
        softest = 0.35 if step == 1 else 0.2  # at 1, already blurred by the source's own sensor
        truth_gain = self._uniform(softest, 1, count, 1)
        truth_gain = truth_gain + 0.02 * self._normal(count, self.bands)
        truth_gain = (truth_gain * torch.exp(-air * shortness)).clamp(0.12, 1)
        centre = (step - 1) / 2 - (step - 1) // 2
        band_shifts = step * (0.05 * self._normal(2, count, self.bands) + self._array_shifts(count))
        rows, cols = (
            kernels(truth_gain, shift, step, reach).to(device) for shift in centre + band_shifts
        )
        start = (step - 1) // 2
        truth = sample_grid(bands[..., start:, start:], rows, cols, step)
        extent = patch + 2 * MARGIN
        truth = truth[..., :extent, :extent]

        # PAN has its own band weights, sharpness and registration.
        if pan is None:
            radiance = torch.cat((bands, radiance * level[..., None].to(device)), 1)
            weights = self._pan_weights(count, available).to(device)
            pan = torch.einsum("ncb,nbhw->nchw", weights, radiance)
        else:
            pan = (pan / unit).clamp(min=0) ** gamma.to(device) * level[..., None].to(device)
        sharp = self._uniform(0.35, 0.7, count, 1)
        soft = self._uniform(0.15, 0.4, count, 1)
        pan_gain = torch.where(self._bernoulli(0.85, count, 1), sharp, soft)
        shift_scale = torch.where(self._bernoulli(0.15, count, 1), 0.3, 0.06)
        pan_shift = (shift_scale * self._normal(2, count, 1)).clamp(-0.8, 0.8) * step
        rows, cols = (
            kernels(pan_gain, shift, step, reach).to(device) for shift in centre + pan_shift
        )
        pan = sample_grid(pan[..., start:, start:], rows, cols, step)[..., inner, inner]
        pan = pan.clamp(min=0)
        brightness = level[..., None].to(device)
        exponent = 1 + self._uniform(-0.15, 0.15, count, 1, 1, 1) * self._bernoulli(
            0.4, count, 1, 1, 1
        )
        exponent = exponent.to(device)
        scale = torch.exp(0.2 * self._normal(count, 1, 1, 1)).to(device)
        offset = (self._uniform(-0.15, 0.15, count, 1, 1, 1)).to(device)
        pan = (scale * (pan / brightness) ** exponent + offset) * brightness

        # Noise and saturation.
        noise = self._log_uniform(self._simulation.noise, count, 1, 1, 1)
        noise = (noise * self._bernoulli(0.6, count, 1, 1, 1)).to(device)
        relative = (level[..., None] / 0.2).clamp(0.3, 1).to(device)
        truth = truth + noise * relative * self._normal(*truth.shape).to(device)
        pan = pan + noise * relative * self._normal(*pan.shape).to(device)
        truth, pan = truth.clamp(0, 1), pan.clamp(0, 1)

        levels = torch.where(self._bernoulli(0.25, count, 1, 1, 1), 255.0, 2047.0).to(device)
        truth, pan = ((image * levels).round() / levels for image in (truth, pan))

        # A sensor's MS has noise of its own, which Wald's protocol nearly averages out.
        noise = self._log_uniform(self._simulation.ms_noise, count, 1, 1, 1)
        noise = (noise * self._bernoulli(0.5, count, 1, 1, 1)).to(device) * relative
        sides = (size // RATIO for size in truth.shape[-2:])
        noise = noise * self._normal(count, self.bands, *sides).to(device)
        position = self._position()
        ms, lms = observe(truth, gain.to(device), position, noise)
        positions = torch.tensor(position).expand(count, 2)
        return Batch(pan, lms, ms, truth[..., inner, inner] - lms, positions)

    def _position(self) -> tuple[float, float]:
        """Random position of MS: the protocol's (60 %), of aligned grids (25 %), or any in 1..2."""
        choice = float(torch.rand((), generator=self._random))
        if choice < 0.6:
            return PROTOCOL_POSITION, PROTOCOL_POSITION
        if choice < 0.85:
            return GROUND_POSITION, GROUND_POSITION
        row, col = (1 + torch.randint(9, (2,), generator=self._random) / 8).tolist()
        return row, col
