"""Accuracy of the measured shift on simulated pairs: ``registration.json`` and a table.

    python -m benchmarks.registration [-o docs] [--cases 100]

A sharp image is the ground truth. PAN is a weighted sum of its bands plus a part that no band
contains; MS is the image blurred by a Gaussian MTF and sampled at a stated shift. Size, band
weights, MTF gains, noise and shift are drawn at random in each case. Clouds lie elsewhere in PAN
than in MS, relative to the ground, by the same parallax in all of a scene.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from benchmarks.output import output_option
from ssdiff_trt.runtime.interpolator import GROUND_POSITION, RATIO
from ssdiff_trt.runtime.raster.registration import measure_arrays

KINDS = {
    "aligned": (0.0, 0.0),
    "shifted": (4.0, 0.0),
    "far": (15.5, 0.0),
    "aligned, clouds": (0.0, 0.05),
    "shifted, clouds": (4.0, 0.05),
}
"""Largest shift along an axis in PAN pixels, and largest share of clouds, of each kind of pair."""
EDGE = 48  # around the scene, for blur, shift and parallax, PAN pixels

Image = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A simulated pair and what was measured."""

    kind: str
    size: int
    """Side of MS, pixels."""
    gain: float
    noise: float
    """Standard deviation, in shares of the standard deviation of PAN."""
    clouds: float
    """Share of the scene."""
    parallax: float
    """PAN pixels."""
    deviation: float
    """Distance of the measured shift from the true one along the worse axis, PAN pixels."""
    error: float
    """Stated standard error, PAN pixels."""
    spread: float
    """Stated range of local shifts, PAN pixels; the true one is 0."""
    reliable: bool
    seconds: float


def fractal(rng: np.random.Generator, size: int, slope: float) -> Image:
    """Noise with amplitudes that fall with frequency to the power of ``slope``; mean 0, std 1."""
    rows, cols = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)
    amplitude = np.maximum(np.hypot(rows, cols), 1 / size) ** -slope
    image = np.fft.irfft2(amplitude * np.fft.rfft2(rng.standard_normal((size, size))), (size, size))
    centred = image - image.mean()
    return np.asarray(centred / centred.std(), np.float64)


def ground(rng: np.random.Generator, size: int) -> Image:
    """Sharp bands ``[4, size, size]``: common and own texture, and bright or dark rectangles."""
    common = fractal(rng, size, 1.1)
    bands = np.stack([0.8 * common + 0.4 * fractal(rng, size, 1.1) for _ in range(4)])
    for _ in range(size**2 // rng.integers(2000, 20000)):
        top, left = rng.integers(0, size, 2)
        down, across = rng.integers(4, 60, 2)
        spectrum = rng.normal(0, 1.5) + rng.normal(0, 0.5, (4, 1, 1))
        bands[:, top : top + down, left : left + across] = spectrum
    if rng.uniform() < 0.3:
        water = gaussian_filter(rng.standard_normal((size, size)), 100)
        bands[:, water > np.quantile(water, rng.uniform(0.3, 0.7))] = -3
    return 400 + 60 * bands


def cloud_cover(rng: np.random.Generator, size: int, share: float) -> Image:
    """Opacity 0..1 of scattered clouds with soft rims that cover a share of the scene."""
    field = gaussian_filter(rng.standard_normal((size, size)), rng.uniform(8, 24))
    threshold = np.quantile(field, 1 - share)
    return np.asarray(np.clip((field - threshold) / (0.3 * field.std()), 0, 1), np.float64)


def simulate(rng: np.random.Generator, kind: str) -> Case:
    """Simulate a pair and measure its shift."""
    farthest, cloudiest = KINDS[kind]
    height = int(rng.choice([48, 96, 160, 256]))
    size = RATIO * height + 2 * EDGE
    sharp = ground(rng, size)
    shift = rng.uniform(-farthest, farthest, 2)
    gain, noise = rng.uniform(0.15, 0.5), rng.uniform(0, 0.06)
    weights = rng.dirichlet(np.ones(4))
    seen_by_pan = np.tensordot(weights, sharp, 1) + 10 * rng.uniform() * fractal(rng, size, 1.1)
    share = rng.uniform(0.02, cloudiest) if cloudiest else 0.0
    parallax, angle = rng.uniform(5, 20), rng.uniform(0, 2 * np.pi)
    if share:
        opacity, bright = cloud_cover(rng, size, share), rng.uniform(700, 2000)
        offset = np.rint(parallax * np.array([np.sin(angle), np.cos(angle)])).astype(int)
        elsewhere = np.roll(opacity, tuple(offset), (0, 1))
        sharp = sharp + opacity * (bright - sharp)
        seen_by_pan += elsewhere * (bright - seen_by_pan)
    sigma = RATIO * np.sqrt(2 * np.log(1 / gain)) / np.pi
    places = np.meshgrid(
        *(RATIO * np.arange(height) + GROUND_POSITION + EDGE + along for along in shift),
        indexing="ij",
    )
    blurred = (gaussian_filter(band, sigma) for band in sharp)
    ms = np.stack([map_coordinates(band, places, order=3) for band in blurred])
    pan = seen_by_pan[EDGE:-EDGE, EDGE:-EDGE]
    deviation = noise * 60
    pan = pan + deviation * rng.standard_normal(pan.shape)
    ms += deviation * rng.standard_normal(ms.shape)
    start = time.perf_counter()
    found = measure_arrays(pan, ms, (GROUND_POSITION, GROUND_POSITION))
    seconds = time.perf_counter() - start
    off = max(abs(found.rows - shift[0]), abs(found.cols - shift[1]))
    return Case(
        kind,
        height,
        round(gain, 3),
        round(noise, 3),
        round(share, 3),
        round(parallax if share else 0.0, 1),
        round(float(off), 4),
        round(found.error, 4),
        round(found.spread, 4),
        found.reliable,
        round(seconds, 3),
    )


def table(cases: list[Case]) -> str:
    """The cases by kind as a Markdown table; deviations and errors in PAN pixels."""
    lines = [
        "| pairs | deviation: median, 95 %, 99 % | stated error: median | beyond 3 errors "
        "| spread: 95 % | reliable | slowest |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        rows = [case for case in cases if case.kind == kind]
        middle, high, highest = np.quantile([case.deviation for case in rows], [0.5, 0.95, 0.99])
        beyond = np.mean([case.deviation > 3 * case.error for case in rows])
        lines.append(
            f"| {kind} | {middle:.3f}, {high:.3f}, {highest:.3f} "
            f"| {np.median([case.error for case in rows]):.3f} | {beyond:.1%} "
            f"| {np.quantile([case.spread for case in rows], 0.95):.2f} "
            f"| {np.mean([case.reliable for case in rows]):.0%} "
            f"| {max(case.seconds for case in rows):.2f} s |"
        )
    return "\n".join(lines)


@click.command()
@output_option
@click.option("--cases", default=100, help="Pairs of each kind.")
def main(output: Path, cases: int) -> None:
    """Measure simulated pairs and write what was found."""
    found = [
        simulate(np.random.default_rng([index, number]), kind)
        for number, kind in enumerate(KINDS)
        for index in range(cases)
    ]
    text = json.dumps([asdict(case) for case in found], indent=1)
    (output / "registration.json").write_text(text + "\n")
    click.echo(table(found))


if __name__ == "__main__":
    main()
