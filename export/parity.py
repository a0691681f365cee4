"""Parity: does the exported computation give what the reference gives, step by step?

Three computations walk the same trajectory from the same noise, each on its own: the reference
with the FFT and materialised attention, PyTorch as exported, and ONNX Runtime on the exported
graph. What the network says at each step is compared, and the image at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Literal, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from export.graph import OPSET, in_form
from runtime.backends.onnxruntime import OnnxRuntime
from runtime.bundle import Bundle, Deviation, Form, Parity, StepParity, Trajectory
from runtime.errors import SSDiffError
from runtime.interpolator import RATIO, interpolate
from runtime.progress import Progress
from runtime.schedule import Schedule, make_schedule, sample, spaced_timesteps
from ssdiff_ref.network import SSNet

TOLERANCE = 2e-5
"""Largest difference allowed in FP32 after any step, as a fraction of full scale."""
REFERENCE = "torch, FFT, materialised attention"

Array = NDArray[np.float32]
Denoiser = Callable[[Array, float], Array]


class Tiles(TypedDict):
    """A few tiles and the noise to start from, as the denoiser takes them."""

    x_t: Array
    pan: Array
    lms: Array
    ms: Array


def _tiles(pan: list[Array], ms: list[Array]) -> Tiles:
    stacked = np.stack(ms)
    lms = interpolate(stacked)
    noise = np.random.default_rng(7).standard_normal(lms.shape, np.float32)
    return Tiles(x_t=noise, pan=np.stack(pan)[:, None], lms=lms, ms=stacked)


def random_tiles(bands: int, tile: int, count: int = 2) -> Tiles:
    """Tiles of uniform random values, where nothing is smooth."""
    rng = np.random.default_rng(11)
    low = tile // RATIO
    return _tiles(
        [rng.random((tile, tile), np.float32) for _ in range(count)],
        [rng.random((bands, low, low), np.float32) for _ in range(count)],
    )


def real_tiles(bands: int, tile: int, count: int = 2) -> Tiles:
    """Tiles of a real scene (Sentinel-2, simulated PAN), repeated where it is too small."""
    with (files("export") / "sample.npz").open("rb") as file, np.load(file) as arrays:
        pan, ms = (arrays[name] / np.float32(arrays["full_scale"]) for name in ("pan", "ms"))
    repeat, low = -(-count * tile // pan.shape[1]), tile // RATIO
    pan, ms = np.tile(pan, (repeat, repeat)), np.tile(ms, (1, repeat, repeat))
    ms = ms[np.arange(bands) % len(ms)]
    return _tiles(
        [pan[:tile, k * tile : (k + 1) * tile] for k in range(count)],
        [ms[:, :low, k * low : (k + 1) * low] for k in range(count)],
    )


def deviation(actual: Array, expected: Array) -> Deviation:
    """Largest and root mean square difference, and PSNR in dB for a peak of 1."""
    difference = actual.astype(np.float64) - expected
    mse = float(np.mean(difference**2))
    return Deviation(
        max=float(np.abs(difference).max()),
        rmse=mse**0.5,
        psnr=float(10 * np.log10(1 / max(mse, 1e-20))),
    )


def torch_denoiser(net: SSNet, tiles: Tiles) -> Denoiser:
    """A network bound to its tiles, as the sampling loop wants it."""
    pan, lms, ms = (torch.from_numpy(tiles[name]) for name in ("pan", "lms", "ms"))

    @torch.inference_mode()
    def denoise(x: Array, t: float) -> Array:
        told = torch.full((len(x),), t)
        return net(torch.from_numpy(x), pan, lms, ms, told).numpy()

    return denoise


def onnxruntime_denoiser(bundle: Bundle, form: Form, tiles: Tiles) -> Denoiser:
    """A graph of a bundle bound to its tiles."""
    backend = OnnxRuntime(bundle, form=form)

    def denoise(x: Array, t: float) -> Array:
        told = np.full(len(x), t, np.float32)
        return backend.denoise(x, tiles["pan"], tiles["lms"], tiles["ms"], told)

    return denoise


def walk(denoise: Denoiser, tiles: Tiles, schedule: Schedule) -> tuple[list[Array], Array]:
    """The network's output at each step of a trajectory, and the image it ends in."""
    outputs: list[Array] = []

    def recorded(x: Array, t: float) -> Array:
        outputs.append(denoise(x, t))
        return outputs[-1]

    image = sample(recorded, tiles["lms"], tiles["x_t"], schedule)
    return outputs, image


def compare(
    inputs: Literal["random", "real"],
    tiles: Tiles,
    schedule: Schedule,
    reference: Denoiser,
    others: Mapping[str, Denoiser],
    on_walk: Callable[[], object],
) -> Trajectory:
    """Walk one trajectory by every computation and compare each with the reference."""
    expected, expected_image = walk(reference, tiles, schedule)
    on_walk()
    steps: list[dict[str, Deviation]] = [{} for _ in expected]
    images: dict[str, Deviation] = {}
    for name, denoise in others.items():
        outputs, image = walk(denoise, tiles, schedule)
        on_walk()
        images[name] = deviation(image, expected_image)
        for step, output, wanted in zip(steps, outputs, expected, strict=True):
            step[name] = deviation(output, wanted)
    return Trajectory(
        inputs=inputs,
        steps=tuple(
            StepParity(t=t, deviations=step)
            for t, step in zip(schedule.timesteps, steps, strict=True)
        ),
        image=images,
    )


def measure_parity(net: SSNet, bundle: Bundle, progress: Progress) -> Parity:
    """Compare what a bundle computes with the reference network that it was exported from.

    The trajectory visits ten evenly spaced timesteps and the bundle's own, with the bundle's
    sampler, on random and on real tiles.

    Args:
        net: the reference, in evaluation mode.
        bundle: with the graphs to judge.
        progress: told how work goes.

    Raises:
        SSDiffError: when an output or an image is further off than :data:`TOLERANCE`; it says
            where.
    """
    model, sampler = bundle.manifest.model, bundle.manifest.sampler
    schedule = make_schedule(sorted({*spaced_timesteps(10), *sampler.timesteps}), sampler.name)
    reference = SSNet(net.bands, fmim="fft", attention="materialised").eval()
    reference.load_state_dict(net.state_dict())
    trajectories = []
    sets: dict[Literal["random", "real"], Tiles] = {
        "random": random_tiles(model.bands, model.tile),
        "real": real_tiles(model.bands, model.tile),
    }
    progress.start("Parity", len(sets) * (1 + 2 * len(OPSET)))
    for inputs, tiles in sets.items():
        others: dict[str, Denoiser] = {}
        for form in OPSET:
            others[f"torch {form}"] = torch_denoiser(in_form(net, form), tiles)
            others[f"onnxruntime {form}"] = onnxruntime_denoiser(bundle, form, tiles)
        trajectories.append(
            compare(
                inputs,
                tiles,
                schedule,
                torch_denoiser(reference, tiles),
                others,
                lambda: progress.advance(1),
            )
        )
    result = Parity(tolerance=TOLERANCE, reference=REFERENCE, trajectories=tuple(trajectories))
    refuse_beyond_tolerance(result)
    return result


def refuse_beyond_tolerance(result: Parity) -> None:
    """Raise on the first deviation above the tolerance, or on one that is no number."""
    for trajectory in result.trajectories:
        places = [(f"at t = {s.t}", s.deviations) for s in trajectory.steps]
        for place, deviations in (*places, ("in the image", trajectory.image)):
            for name, found in deviations.items():
                if not found.max <= result.tolerance:
                    raise SSDiffError(
                        f"Parity fails on {trajectory.inputs} tiles {place}: {name} is off by "
                        f"{found.max:.2e} from the reference, {result.tolerance:.0e} is allowed."
                    )
