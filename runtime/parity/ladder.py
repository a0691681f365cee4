"""Parity check: step-by-step comparison of computations of the network with a reference.

Each computation runs the sampling loop on its own, from the same noise over the same timesteps.
The image of each step is compared, on tiles of a real scene and on tiles of random values, which
cover the high spatial frequencies that are weak in imagery.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.bundle.manifest import Model, SamplerDefaults
from ssdiff_trt.runtime.bundle.measured import Deviation, Limits, Parity, StepParity, Trajectory
from ssdiff_trt.runtime.interpolator import RATIO, interpolate
from ssdiff_trt.runtime.options import Precision
from ssdiff_trt.runtime.schedule import Schedule, make_schedule, sample, spaced_timesteps
from ssdiff_trt.runtime.tiles.batch import Tiles

_LOW = Limits(rmse=1e-3, psnr=60)
LIMITS: dict[Precision, Limits] = {
    "fp32": Limits(rounding=8),
    "fp16": _LOW,
    "bf16": _LOW,
    "int8": Limits(psnr=40),
}
"""Allowed deviation from the reference in float64, by precision of the computation.

In FP32 it is a multiple of what rounding does to the reference itself: at most twice that was
measured for all forms of both shipped bundles (their manifests), by PyTorch and ONNX Runtime.
Other orders of summation may double it a few times; attention with heads of another width, for
example, is off by far more.
"""
_RESOLUTION = 2.0**-23
"""Spacing of FP32 numbers below 1, the least rounding that is assumed."""

Array = NDArray[np.float32]
Compared = tuple[Literal["random", "real"], Tiles, Schedule]
"""Kind of the inputs of a comparison, the tiles and the schedule."""
Denoiser = Callable[[Tiles, Array, float], Array]
"""Residual of the network for tiles, state and timestep, as ``Backend.denoise``."""


def _tiles(pan: list[Array], ms: list[Array]) -> Tiles:
    stacked = np.stack(ms)
    lms = interpolate(stacked)
    noise = np.random.default_rng(7).standard_normal(lms.shape, np.float32)
    return Tiles(noise, np.stack(pan)[:, None], lms, stacked)


def random_tiles(bands: int, tile: int, count: int = 1) -> Tiles:
    """Tiles of uniform random values in 0..1."""
    rng = np.random.default_rng(11)
    low = tile // RATIO
    return _tiles(
        [rng.random((tile, tile), np.float32) for _ in range(count)],
        [rng.random((bands, low, low), np.float32) for _ in range(count)],
    )


def real_tiles(bands: int, tile: int, count: int = 1) -> Tiles:
    """Tiles of a real scene (Sentinel-2 with simulated PAN), repeated periodically if needed."""
    pan, ms = _sample("pan", tile, count), _sample("ms", tile // RATIO, count)
    return _tiles(pan, [image[np.arange(bands) % len(image)] for image in ms])


def real_truth(bands: int, tile: int, count: int) -> Array:
    """What a perfect network would make of :func:`real_tiles`, ``[N, C, tile, tile]`` in 0..1."""
    return np.stack(
        [image[np.arange(bands) % len(image)] for image in _sample("truth", tile, count)]
    )


def _sample(name: str, size: int, count: int) -> list[Array]:
    """The first squares of an image of the scene, row by row, in 0..1 of full scale."""
    with (
        (files("ssdiff_trt.runtime.parity") / "sample.npz").open("rb") as file,
        np.load(file) as arrays,
    ):
        image = arrays[name] / np.float32(arrays["full_scale"])
    height, width = (range(extent) for extent in image.shape[-2:])
    across = max(1, len(width) // size)

    def square(row: int, col: int) -> Array:
        rows = np.take(height, range(row * size, (row + 1) * size), mode="wrap")
        cols = np.take(width, range(col * size, (col + 1) * size), mode="wrap")
        part: Array = image[..., rows[:, None], cols]
        return part

    return [square(*divmod(k, across)) for k in range(count)]


def trajectories(
    model: Model, sampler: SamplerDefaults, precision: Precision = "fp32"
) -> Iterator[Compared]:
    """Inputs and schedules of the parity check, with the bundle's sampler.

    The schedule has ten evenly spaced timesteps and those of the bundle. INT8 is calibrated for
    imagery at the bundle's timesteps, so it is compared on real tiles at these timesteps alone.

    Yields:
        Kind of the inputs, the tiles and the schedule.
    """
    if precision == "int8":
        yield "real", real_tiles(model.bands, model.tile), sampler.schedule()
        return
    schedule = make_schedule(sorted({*spaced_timesteps(10), *sampler.timesteps}), sampler.name)
    yield "random", random_tiles(model.bands, model.tile), schedule
    yield "real", real_tiles(model.bands, model.tile), schedule


def deviation(actual: Array, expected: Array) -> Deviation:
    """Largest and root mean square difference, and PSNR in dB for a peak value of 1."""
    difference = actual.astype(np.float64) - expected
    mse = float(np.mean(difference**2))
    return Deviation(
        max=float(np.abs(difference).max()),
        rmse=mse**0.5,
        psnr=float(10 * np.log10(1 / max(mse, 1e-20))),
    )


def walk(denoise: Denoiser, tiles: Tiles, schedule: Schedule) -> list[Array]:
    """Run the sampling loop and return the image of each step."""
    images: list[Array] = []
    sample(
        lambda x, t: denoise(tiles, x, t),
        tiles.lms,
        tiles.noise,
        schedule,
        lambda x, image: images.append(image),
    )
    return images


def compare(
    inputs: Literal["random", "real"],
    tiles: Tiles,
    schedule: Schedule,
    expected: Sequence[Array],
    denoisers: Mapping[str, Denoiser],
    on_walk: Callable[[], object] = lambda: None,
    rounding: Sequence[Deviation] | None = None,
) -> Trajectory:
    """Run the sampling loop with each denoiser and compare its images with the reference's.

    Args:
        inputs: kind of the tiles.
        tiles: inputs of the network.
        schedule: sampling schedule.
        expected: the reference's image of each step, from :func:`walk`.
        denoisers: computations to compare, by name.
        on_walk: called after each denoiser.
        rounding: deviation of the reference in FP32, for each step.
    """
    deviations: list[dict[str, Deviation]] = [{} for _ in expected]
    own: Sequence[Deviation | None] = rounding or [None] * len(expected)
    for name, denoise in denoisers.items():
        images = walk(denoise, tiles, schedule)
        for step, image, reference in zip(deviations, images, expected, strict=True):
            step[name] = deviation(image, reference)
        on_walk()
    return Trajectory(
        inputs=inputs,
        steps=tuple(
            StepParity(t=t, deviations=step, rounding=rounded)
            for t, step, rounded in zip(schedule.timesteps, deviations, own, strict=True)
        ),
    )


def faults(parity: Parity) -> Iterator[tuple[str, str]]:
    """Deviations that are beyond the limits or NaN: name of the computation, and a clause."""
    for trajectory in parity.trajectories:
        for index, step in enumerate(trajectory.steps):
            last = index == len(trajectory.steps) - 1
            for name, value in step.deviations.items():
                place = f"{name} on {trajectory.inputs} tiles at t = {step.t}"
                for clause in _faults(value, step, parity.limits, last):
                    yield name, f"{place} {clause}"


def _faults(value: Deviation, step: StepParity, limits: Limits, last: bool) -> Iterator[str]:
    if math.isnan(value.max):
        yield "gives NaN"
        return
    allowed = math.inf if limits.max is None else limits.max
    if limits.rounding is not None:
        own = step.rounding.max if step.rounding else 0.0
        allowed = limits.rounding * max(own, _RESOLUTION)
    if not value.max <= allowed:
        yield f"is off by {value.max:.2e}, {allowed:.1e} is allowed"
    if limits.rmse is not None and not value.rmse <= limits.rmse:
        yield f"has an RMSE of {value.rmse:.2e}, {limits.rmse:.0e} is allowed"
    if limits.psnr is not None and last and not value.psnr >= limits.psnr:
        yield f"has {value.psnr:.1f} dB, {limits.psnr:g} dB are needed"
