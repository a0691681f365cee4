"""Calibration samples: inputs of the network recorded on real imagery, and their file.

A file has two kinds of tiles, cut from separate areas of the scenes. Calibration tiles are at full
resolution; for each of them the file has the state of the sampler at every timestep of a trajectory
that the bundle itself computed. Evaluation tiles (the arrays ``judged_...``) are at reduced
resolution by Wald's protocol (Wald et al., 1997), so that their reference image is known; every
second one is used to choose what to quantise, and the others are held out for the final score.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.bundle.measured import Strict
from ssdiff_trt.runtime.bundle.store import CHECKPOINT, GRAPH_CONSTANT, TRANSPOSED, Bundle
from ssdiff_trt.runtime.errors import InputError, counted
from ssdiff_trt.runtime.files import atomic_write, reading
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.options import Sampler
from ssdiff_trt.runtime.schedule import Schedule, make_schedule
from ssdiff_trt.runtime.tiles.batch import Array, Tiles

LEAST_TILES = 8
"""Least number of calibration tiles."""
LEAST_JUDGED = 4
"""Least number of evaluation tiles: two to choose the plan with and two held out."""
SURE_JUDGED = 16
"""Number of evaluation tiles from which a verdict is not called uncertain."""
SUFFIX = ".npz"
ARRAYS = (
    *("pan", "lms", "ms", "states"),
    *("judged_pan", "judged_lms", "judged_ms", "judged_truth"),
)
"""Names of the arrays in a file, which also has the metadata ``about`` in JSON."""


class About(Strict):
    """Metadata of a samples file: the bundle, the trajectories and the rasters."""

    format: Literal[1] = 1
    bundle: str
    """Name of the bundle that computed the trajectories."""
    weights: str
    """Digest of its weights; see :func:`weights_digest`."""
    bands: int
    tile: int
    """Height and width of a tile in pixels of PAN."""
    sampler: Sampler
    timesteps: tuple[int, ...]
    seed: int
    sources: tuple[str, ...]
    """File names of the rasters, one string for each pair of PAN and MS."""
    places: tuple[tuple[int, int, int], ...]
    """Position of each calibration tile: the index of its pair, from 0, and its first row and
    column in pixels of PAN from the origin of the area that PAN and MS share."""

    @property
    def schedule(self) -> Schedule:
        """Sampling schedule of the trajectories."""
        return make_schedule(self.timesteps, self.sampler)


@dataclass(frozen=True)
class EvaluationTiles:
    """Tiles at reduced resolution with their reference images, 0..1 of full scale."""

    tiles: Tiles
    truth: Array
    """Reference images ``[M, C, tile, tile]``."""

    def part(self, which: slice) -> EvaluationTiles:
        """The tiles that a slice selects."""
        return EvaluationTiles(self.tiles.part(which), self.truth[which])


@dataclass(frozen=True)
class Samples:
    """Calibration and evaluation tiles of a bundle."""

    about: About
    tiles: Tiles
    """Calibration tiles, N of them."""
    states: Array
    """``[T, N, C, tile, tile]``: input state of the network at each timestep."""
    judged: EvaluationTiles

    @property
    def for_selection(self) -> EvaluationTiles:
        """Evaluation tiles with which the plan is chosen."""
        return self.judged.part(slice(0, None, 2))

    @property
    def held_out(self) -> EvaluationTiles:
        """Evaluation tiles that are used for the final score only."""
        return self.judged.part(slice(1, None, 2))

    def save(self, path: Path) -> None:
        """Write the file; it appears only when it is complete."""
        tiles, judged = self.tiles, self.judged
        # Given a path, numpy would add a suffix to some.
        with atomic_write(path) as unfinished, unfinished.open("wb") as file:
            np.savez(
                file,
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


def evaluation_noise(shape: tuple[int, ...], seed: int) -> Array:
    """Initial noise of the trajectories of evaluation tiles."""
    return np.random.default_rng([seed, 1]).standard_normal(shape, np.float32)


@contextmanager
def _open_arrays(path: str | Path) -> Iterator[Mapping[str, NDArray[Any]]]:
    """The arrays of a file by name, each read on access."""
    if not os.path.exists(path):
        raise InputError(
            f"There is no file {path}; create it with ssdiff-calibrate collect PAN MS -o {path}."
        )
    remedy = f"create it with ssdiff-calibrate collect PAN MS -o {path}"
    with reading(f"{path} cannot be read as calibration samples", remedy):
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no file of numpy, .npz")
        with np.load(path, allow_pickle=False) as file:
            yield file


def read_about(path: str | Path) -> About:
    """The metadata of a samples file.

    Raises:
        SSDiffError: if the file does not exist or is not a samples file.
    """
    with _open_arrays(path) as file:
        return About.model_validate_json(str(file["about"]).encode())


def load(path: str | Path, bundle: Bundle) -> Samples:
    """Read samples and check that they were collected with a bundle.

    Raises:
        SSDiffError: if the file cannot be read, has too few tiles or non-finite values, or was
            collected with other weights, bands or tile sizes.
    """
    about, model = read_about(path), bundle.manifest.model
    check_fits(about, path, bundle.manifest.name, model.bands, model.tile, weights_digest(bundle))
    with _open_arrays(path) as file:
        arrays = {name: np.asarray(file[name], np.float32) for name in ARRAYS}
    _check_arrays(about, arrays, path)
    noise = evaluation_noise(arrays["judged_lms"].shape, about.seed)
    evaluation = Tiles(noise, *(arrays[f"judged_{name}"] for name in ("pan", "lms", "ms")))
    return Samples(
        about,
        # The state at the first timestep is the initial noise.
        Tiles(arrays["states"][0], arrays["pan"], arrays["lms"], arrays["ms"]),
        arrays["states"],
        EvaluationTiles(evaluation, arrays["judged_truth"]),
    )


def check_fits(
    about: About, path: str | Path, name: str, bands: int, tile: int, weights: str
) -> None:
    """Check that samples were collected with a bundle.

    Args:
        about: metadata of the samples.
        path: of the samples file, for messages.
        name: of the bundle, for messages.
        bands: of the bundle's model.
        tile: height and width of the tiles of the bundle's model, in pixels of PAN.
        weights: digest of the bundle's weights.

    Raises:
        SSDiffError: if they were collected with another bundle.
    """
    remedy = "collect samples with that bundle, using ssdiff-calibrate collect"
    if about.bands != bands:
        raise InputError(
            f"{path} has samples of {about.bands} bands, expected the {bands} of {name}; {remedy}."
        )
    if about.tile != tile:
        raise InputError(
            f"{path} has tiles of {about.tile} pixels, expected the {tile} of {name}; {remedy}."
        )
    if about.weights != weights:
        raise InputError(
            f"{path} was collected with other weights ({about.bundle}), expected those of {name}; "
            f"{remedy}."
        )


def _check_arrays(about: About, arrays: dict[str, Array], path: str | Path) -> None:
    # A number without axes counts as none, and does not have the shape expected.
    count, judged = (sum(arrays[name].shape[:1]) for name in ("pan", "judged_truth"))
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
        if arrays[name].shape != shape:
            raise InputError(
                f"{path} has {name} of shape {list(arrays[name].shape)}, expected {list(shape)}; "
                "collect the samples again."
            )
        if not np.isfinite(arrays[name]).all():
            raise InputError(
                f"{path} has non-finite values in {name}, expected finite ones; collect the "
                "samples again."
            )
    check_enough(count, judged, str(path))


def check_enough(tiles: int, judged: int, source: str) -> None:
    """Check that there are enough tiles.

    Args:
        tiles: number of calibration tiles.
        judged: number of evaluation tiles.
        source: where they come from, for the message.

    Raises:
        SSDiffError: if there are fewer than ``LEAST_TILES`` or ``LEAST_JUDGED``.
    """
    for count, least, purpose in (
        (tiles, LEAST_TILES, "calibration"),
        (judged, LEAST_JUDGED, "evaluation"),
    ):
        if count < least:
            raise InputError(
                f"{source}: {counted(count, f'{purpose} tile')}, expected {least} or more; "
                "collect from larger images or from more of them."
            )


def weights_digest(bundle: Bundle) -> str:
    """sha256 of the weights of a bundle, independent of how its graphs store them.

    Raises:
        InputError: if their file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = bundle.path / CHECKPOINT
    remedy = "fetch the bundle again, or export it again"
    with reading(f"{path} cannot be read as weights", remedy, SafetensorError):
        tensors = load_file(path)
    return digest(
        {
            name.removeprefix(TRANSPOSED): array.T if name.startswith(TRANSPOSED) else array
            for name, array in tensors.items()
            if not name.startswith(GRAPH_CONSTANT)
        }
    )


def digest(weights: Mapping[str, NDArray[np.float32]]) -> str:
    """sha256 of weights, by their released names."""
    sha256 = hashlib.sha256()
    for name in sorted(weights):
        sha256.update(name.encode() + np.ascontiguousarray(weights[name]).tobytes())
    return sha256.hexdigest()
