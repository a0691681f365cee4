"""Procedural scenes by the dead leaves model, which supplement real imagery in training.

In the dead leaves model (Matheron, 1968), shapes whose sizes follow a power law occlude one
another; the result has the edges and the power spectrum of natural images. Here the shapes have
smooth spectra, texture and occasionally, like roofs and shadows, an extreme brightness.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SMALLEST, _LARGEST = 2.0, 120.0
"""Radii of shapes in pixels."""


def smooth_spectrum(random: np.random.Generator, bands: int) -> NDArray[np.float64]:
    """Random reflectance ``[bands]``, positive with mean 1: low frequencies, sometimes an edge."""
    position = np.linspace(0, 1, bands)
    log_spectrum = np.zeros(bands)
    for frequency in range(1, 4):
        phase = random.uniform(0, 2 * np.pi)
        log_spectrum += random.normal(0, 0.35 / frequency) * np.cos(
            np.pi * frequency * position + phase
        )
    if random.random() < 0.35:  # like the red edge of vegetation
        edge = 1 / (1 + np.exp(-(position - random.uniform(0.3, 0.9)) * random.uniform(8, 40)))
        log_spectrum += random.uniform(-0.5, 1.6) * edge
    spectrum: NDArray[np.float64] = np.exp(log_spectrum)
    return spectrum / spectrum.mean()


def texture(random: np.random.Generator, size: int, slope: float) -> NDArray[np.float32]:
    """Noise ``[size, size]`` of unit variance with amplitude ~ frequency ** -slope."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = np.inf
    noise = np.fft.rfft2(random.normal(size=(size, size))) * frequency**-slope
    field = np.fft.irfft2(noise, s=(size, size))
    return (field / field.std()).astype(np.float32)


def dead_leaves(seed: int, bands: int, size: int) -> NDArray[np.float32]:
    """Generate a scene ``[bands, size, size]`` of positive values with mean 1.

    Args:
        seed: random seed that determines the scene.
        bands: number of bands, along which spectra are smooth.
        size: side in pixels.
    """
    random = np.random.default_rng(seed)
    rough, fine = (texture(random, size, slope) for slope in (1.2, 0.6))
    image = np.empty((bands, size, size), np.float32)
    image[:] = (random.lognormal(0, 0.3) * smooth_spectrum(random, bands))[:, None, None]
    image *= np.exp(0.25 * rough)
    palette = [smooth_spectrum(random, bands) for _ in range(random.integers(4, 12))]
    urban = random.uniform(0.2, 0.9)  # fraction of rectangles
    heading = random.uniform(0, np.pi)
    spread = random.choice([0.35, 0.6, 0.9])
    for _ in range(int(size**2 / 120)):
        radius = _SMALLEST * (1 - random.random() * (1 - (_SMALLEST / _LARGEST) ** 1.6)) ** (
            -1 / 1.6
        )
        angle = heading if random.random() < 0.8 else random.uniform(0, np.pi)
        stretch = random.uniform(0.25, 1) if random.random() < 0.85 else random.uniform(0.03, 0.1)
        reach = int(radius) + 2
        row, col = random.integers(-reach, size + reach, 2)
        top, left = max(row - reach, 0), max(col - reach, 0)
        bottom, right = min(row + reach, size), min(col + reach, size)
        if top >= bottom or left >= right:
            continue
        y, x = np.mgrid[top:bottom, left:right] - np.array([row, col])[:, None, None]
        along = x * np.cos(angle) + y * np.sin(angle)
        across = (y * np.cos(angle) - x * np.sin(angle)) / stretch
        if random.random() < urban:
            inside = np.maximum(abs(along), abs(across)) < radius * 0.8
        else:
            inside = along**2 + across**2 < radius**2
        level = random.lognormal(0, spread)
        if radius < 25 and random.random() < 0.06:
            level *= random.uniform(2, 6)
        elif random.random() < 0.1:
            level *= random.uniform(0.1, 0.4)
        spectrum = palette[random.integers(len(palette))] * random.lognormal(0, 0.1, bands)
        grain = np.exp(
            random.uniform(0, 0.15) * fine[top:bottom, left:right]
            + random.uniform(0, 0.2) * rough[top:bottom, left:right]
        )
        leaf = (level * spectrum)[:, None, None] * grain
        region = image[:, top:bottom, left:right]
        region[:, inside] = leaf[:, inside]
    return image / image.mean()
