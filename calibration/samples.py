"""Calibration samples: a file of what the network is given on real imagery.

It has two kinds of tiles. Those to calibrate by are at full resolution, and come with the state of
the sampler at every timestep of a trajectory, walked by the bundle itself. Those to judge by are at
reduced resolution (Wald's protocol), so that their truth is known, and lie elsewhere on the ground:
one half is for choosing what to quantise, the other is held out for the verdict.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ssdiff_trt.runtime.bundle.store import CHECKPOINT, GRAPH_CONSTANT, TRANSPOSED, Bundle
from ssdiff_trt.runtime.errors import SSDiffError, counted
from ssdiff_trt.runtime.files import atomic_write
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.schedule import Sampler, Schedule, make_schedule
from ssdiff_trt.runtime.tiles.batch import Array, Tiles

LEAST_TILES = 8
"""Tiles to calibrate by, at least."""
LEAST_JUDGED = 2
"""Tiles to judge by, at least: one to choose by and one for the verdict."""
SUFFIX = ".npz"
ARRAYS = (
    *("pan", "lms", "ms", "states"),
    *("judged_pan", "judged_lms", "judged_ms", "judged_truth"),
)
"""What a file has besides ``about``."""


class About(BaseModel):
    """Where samples come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    bundle: str
    weights: str
    """Digest of the weights whose trajectories these are; see :func:`weights_digest`."""
    bands: int
    tile: int
    sampler: Sampler
    timesteps: tuple[int, ...]
    seed: int
    sources: tuple[str, ...]
    """Names of the rasters."""
    places: tuple[tuple[int, int, int], ...]
    """Of each tile to calibrate by: its pair, counted from 0, and its first row and column of the
    pair's common ground."""

    @property
    def schedule(self) -> Schedule:
        """That the trajectories follow."""
        return make_schedule(self.timesteps, self.sampler)


@dataclass(frozen=True)
class Judged:
    """Tiles whose truth is known, 0..1 of full scale."""

    tiles: Tiles
    truth: Array
    """``[M, C, tile, tile]``."""

    def part(self, which: slice) -> Judged:
        """Some of them."""
        return Judged(self.tiles.part(which), self.truth[which])


@dataclass(frozen=True)
class Samples:
    """Calibration samples of a bundle."""

    about: About
    tiles: Tiles
    """To calibrate by, N of them."""
    states: Array
    """``[T, N, C, tile, tile]``: the state that the network is given at each timestep."""
    judged: Judged

    @property
    def for_choice(self) -> Judged:
        """Judged tiles to choose a plan by."""
        return self.judged.part(slice(0, None, 2))

    @property
    def held_out(self) -> Judged:
        """Judged tiles that nothing was chosen by."""
        return self.judged.part(slice(1, None, 2))

    def save(self, path: Path) -> None:
        """Write the file; it appears when it is complete."""
        tiles, judged = self.tiles, self.judged
        with atomic_write(path) as unfinished:
            np.savez(
                unfinished,
                about=np.array(self.about.model_dump_json()),
                pan=tiles.pan,
                lms=tiles.lms,
                ms=tiles.ms,
                states=self.states,
                judged_pan=judged.tiles.pan,
                judged_lms=judged.tiles.lms,
                judged_ms=judged.tiles.ms,
                judged_truth=judged.truth,
            )


def judging_noise(shape: tuple[int, ...], seed: int) -> Array:
    """What the trajectories of judged tiles start from."""
    return np.random.default_rng([seed, 1]).standard_normal(shape, np.float32)


@contextmanager
def _opened(path: str | Path) -> Iterator[Mapping[str, NDArray[Any]]]:
    """The arrays of a file, which are read as they are asked for."""
    if not Path(path).exists():
        raise SSDiffError(
            f"There is no file {path}; make one with ssdiff-calibrate collect PAN MS -o {path}."
        )
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError
        with np.load(path, allow_pickle=False) as file:
            yield file
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise SSDiffError(
            f"{path} cannot be read as calibration samples; make them with ssdiff-calibrate "
            f"collect PAN MS -o {path}."
        ) from error


def read_about(path: str | Path) -> About:
    """Where the samples of a file come from.

    Raises:
        SSDiffError: if it is no such file.
    """
    with _opened(path) as file:
        return About.model_validate_json(str(file["about"]))


def load(path: str | Path, bundle: Bundle) -> Samples:
    """Read samples and check that they are of a bundle.

    Raises:
        SSDiffError: if the file is none, is damaged, has too little or values that are not finite,
            or is of other weights, bands or tiles.
    """
    about, model = read_about(path), bundle.manifest.model
    check_fits(about, path, bundle.manifest.name, model.bands, model.tile, weights_digest(bundle))
    with _opened(path) as file:
        seen = {name: np.asarray(file[name], np.float32) for name in ARRAYS}
    _check_arrays(about, seen, path)
    noise = judging_noise(seen["judged_lms"].shape, about.seed)
    judged = Tiles(noise, *(seen[f"judged_{name}"] for name in ("pan", "lms", "ms")))
    return Samples(
        about,
        Tiles(seen["states"][0], seen["pan"], seen["lms"], seen["ms"]),
        seen["states"],
        Judged(judged, seen["judged_truth"]),
    )


def check_fits(
    about: About, path: str | Path, name: str, bands: int, tile: int, weights: str
) -> None:
    """That samples are of a bundle.

    Args:
        about: the samples.
        path: where they are.
        name: of the bundle.
        bands, tile: of its model.
        weights: their digest.

    Raises:
        SSDiffError: if they are of another.
    """
    again = "collect samples with it, ssdiff-calibrate collect"
    if about.bands != bands:
        raise SSDiffError(
            f"{path} has samples of {about.bands} bands, expected the {bands} of {name}; {again}."
        )
    if about.tile != tile:
        raise SSDiffError(
            f"{path} has tiles of {about.tile} pixels, expected the {tile} of {name}; {again}."
        )
    if about.weights != weights:
        raise SSDiffError(
            f"{path} has trajectories of other weights ({about.bundle}) than those of {name}; "
            f"{again}."
        )


def _check_arrays(about: About, seen: dict[str, Array], path: str | Path) -> None:
    count, judged = len(seen["pan"]), len(seen["judged_truth"])
    wide, low = (about.bands, about.tile, about.tile), about.tile // RATIO
    shapes = {
        "pan": (count, 1, *wide[1:]),
        "lms": (count, *wide),
        "ms": (count, about.bands, low, low),
        "states": (len(about.timesteps), count, *wide),
        "judged_pan": (judged, 1, *wide[1:]),
        "judged_lms": (judged, *wide),
        "judged_ms": (judged, about.bands, low, low),
        "judged_truth": (judged, *wide),
    }
    for name, shape in shapes.items():
        if seen[name].shape != shape:
            raise SSDiffError(
                f"{path} has {name} of shape {list(seen[name].shape)}, expected {list(shape)}; "
                "collect the samples again."
            )
        if not np.isfinite(seen[name]).all():
            raise SSDiffError(
                f"{path} has values in {name} that are not finite, expected numbers; collect the "
                "samples again."
            )
    check_enough(count, judged, str(path))


def check_enough(tiles: int, judged: int, what: str) -> None:
    """That there are enough tiles to calibrate and to judge by."""
    for found, least, purpose in (
        (tiles, LEAST_TILES, "calibrate"),
        (judged, LEAST_JUDGED, "judge"),
    ):
        if found < least:
            raise SSDiffError(
                f"{what} gives {counted(found, 'tile')} to {purpose} by, expected {least} or more; "
                "collect from larger images, or from more of them."
            )


def weights_digest(bundle: Bundle) -> str:
    """sha256 of the weights of a bundle, however its graphs have them laid out."""
    from safetensors.numpy import load_file

    return digest(
        {
            name.removeprefix(TRANSPOSED): array.T if name.startswith(TRANSPOSED) else array
            for name, array in load_file(bundle.path / CHECKPOINT).items()
            if not name.startswith(GRAPH_CONSTANT)
        }
    )


def digest(weights: Mapping[str, NDArray[np.float32]]) -> str:
    """sha256 of weights by their released names."""
    found = hashlib.sha256()
    for name in sorted(weights):
        found.update(name.encode() + np.ascontiguousarray(weights[name]).tobytes())
    return found.hexdigest()
