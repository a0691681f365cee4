"""Parity: does a computation give what another one gives, step by step?

Computations walk the same trajectory from the same noise, each on its own. The image of each step
is compared, on tiles of a real scene and on tiles of random values, where nothing is smooth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.bundle.manifest import (
    Deviation,
    Limits,
    Model,
    Parity,
    Precision,
    SamplerDefaults,
    StepParity,
    Trajectory,
)
from ssdiff_trt.runtime.interpolator import RATIO, interpolate
from ssdiff_trt.runtime.schedule import Schedule, make_schedule, sample, spaced_timesteps
from ssdiff_trt.runtime.tiles.batch import Tiles

_LOW = Limits(rmse=1e-3, psnr=60)
LIMITS: dict[Precision, Limits] = {
    "fp32": Limits(max=2e-5),
    "fp16": _LOW,
    "bf16": _LOW,
    "int8": Limits(psnr=40),
}
"""What a computation in a precision may deviate from the reference in FP32."""

Array = NDArray[np.float32]
Denoiser = Callable[[Tiles, Array, float], Array]


def _tiles(pan: list[Array], ms: list[Array]) -> Tiles:
    stacked = np.stack(ms)
    lms = interpolate(stacked)
    noise = np.random.default_rng(7).standard_normal(lms.shape, np.float32)
    return Tiles(noise, np.stack(pan)[:, None], lms, stacked)


def random_tiles(bands: int, tile: int, count: int = 1) -> Tiles:
    """Tiles of uniform random values."""
    rng = np.random.default_rng(11)
    low = tile // RATIO
    return _tiles(
        [rng.random((tile, tile), np.float32) for _ in range(count)],
        [rng.random((bands, low, low), np.float32) for _ in range(count)],
    )


def real_tiles(bands: int, tile: int, count: int = 1) -> Tiles:
    """Tiles of a real scene (Sentinel-2, simulated PAN), repeated where it is too small."""
    with (
        (files("ssdiff_trt.runtime.parity") / "sample.npz").open("rb") as file,
        np.load(file) as arrays,
    ):
        pan, ms = (arrays[name] / np.float32(arrays["full_scale"]) for name in ("pan", "ms"))
    repeat, low = -(-count * tile // pan.shape[1]), tile // RATIO
    pan, ms = np.tile(pan, (repeat, repeat)), np.tile(ms, (1, repeat, repeat))
    ms = ms[np.arange(bands) % len(ms)]
    return _tiles(
        [pan[:tile, k * tile : (k + 1) * tile] for k in range(count)],
        [ms[:, :low, k * low : (k + 1) * low] for k in range(count)],
    )


def trajectories(
    model: Model, sampler: SamplerDefaults, precision: Precision = "fp32"
) -> Iterator[tuple[Literal["random", "real"], Tiles, Schedule]]:
    """What is walked: ten evenly spaced timesteps and the bundle's own, with its sampler.

    INT8 is calibrated for imagery at the bundle's own timesteps, and walks these alone.
    """
    if precision == "int8":
        yield "real", real_tiles(model.bands, model.tile), sampler.schedule()
        return
    schedule = make_schedule(sorted({*spaced_timesteps(10), *sampler.timesteps}), sampler.name)
    yield "random", random_tiles(model.bands, model.tile), schedule
    yield "real", real_tiles(model.bands, model.tile), schedule


def deviation(actual: Array, expected: Array) -> Deviation:
    """Largest and root mean square difference, and PSNR in dB for a peak of 1."""
    difference = actual.astype(np.float64) - expected
    mse = float(np.mean(difference**2))
    return Deviation(
        max=float(np.abs(difference).max()),
        rmse=mse**0.5,
        psnr=float(10 * np.log10(1 / max(mse, 1e-20))),
    )


def walk(denoise: Denoiser, tiles: Tiles, schedule: Schedule) -> list[Array]:
    """The image of each step of a trajectory."""
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
    others: Mapping[str, Denoiser],
    on_walk: Callable[[], object] = lambda: None,
) -> Trajectory:
    """Walk one trajectory by every computation and compare with the reference's images."""
    steps: list[dict[str, Deviation]] = [{} for _ in expected]
    for name, denoise in others.items():
        for step, image, wanted in zip(
            steps, walk(denoise, tiles, schedule), expected, strict=True
        ):
            step[name] = deviation(image, wanted)
        on_walk()
    return Trajectory(
        inputs=inputs,
        steps=tuple(
            StepParity(t=t, deviations=step)
            for t, step in zip(schedule.timesteps, steps, strict=True)
        ),
    )


def faults(parity: Parity) -> Iterator[str]:
    """What is beyond the limits, or is no number, a clause each."""
    limits = parity.limits
    for trajectory in parity.trajectories:
        for index, step in enumerate(trajectory.steps):
            last = index == len(trajectory.steps) - 1
            for name, found in step.deviations.items():
                place = f"{name} on {trajectory.inputs} tiles at t = {step.t}"
                if limits.max is not None and not found.max <= limits.max:
                    yield f"{place} is off by {found.max:.2e}, {limits.max:.0e} is allowed"
                if limits.rmse is not None and not found.rmse <= limits.rmse:
                    yield f"{place} has an RMSE of {found.rmse:.2e}, {limits.rmse:.0e} is allowed"
                if limits.psnr is not None and last and not found.psnr >= limits.psnr:
                    yield f"{place} has {found.psnr:.1f} dB, {limits.psnr:g} dB are needed"
