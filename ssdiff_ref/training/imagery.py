"""Training imagery: read once, held in memory, and spatially split into training and validation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from torch import Generator, Tensor

from ssdiff_ref.training.config import Source
from ssdiff_ref.training.procedural import dead_leaves
from ssdiff_ref.training.spectra import SpectralLibrary
from ssdiff_trt.runtime.errors import InputError, counted
from ssdiff_trt.runtime.files import atomic_write, json_of, reading
from ssdiff_trt.runtime.memory import check_memory
from ssdiff_trt.runtime.raster.gdal import READ_ERRORS
from ssdiff_trt.runtime.raster.image import (
    Holes,
    alpha_band,
    choose_bands,
    open_raster,
    read_rectangle,
)

_STORED = tuple(map(np.dtype, (np.uint8, np.uint16, np.float32)))
"""Types of pixels that are kept as they are; others become the last."""
_VALUE = 2 * 4
"""Bytes of a value in its band, and in the bands together, while both are there."""


@dataclass(frozen=True)
class TrainingImage:
    """A scene, or a part of one, from which training patches are cropped."""

    pixels: NDArray[Any]
    """``[B, H, W]`` of uint8, uint16 or float32; a pixel that is 0 in all bands is nodata."""
    source: Source
    with_pan: bool = False
    """Whether the last band is PAN."""

    def part(self, held_out: bool) -> TrainingImage:
        """The columns held out for validation, or the remaining columns."""
        width = self.pixels.shape[-1]
        border = round(width * (1 - self.source.held_out))
        cols = slice(border, width) if held_out else slice(0, border)
        return TrainingImage(self.pixels[..., cols], self.source, self.with_pan)

    def scales(self) -> Iterator[TrainingImage]:
        """The image itself for decimations below 4, and at half size for larger decimations.

        At half size, decimations are halved too.
        """
        small = tuple(step for step in self.source.decimations if step < 4)
        large = tuple(step // 2 for step in self.source.decimations if step >= 4)
        share = self.source.weight / len(self.source.decimations)
        for steps in (small, large):
            if steps:
                pixels = self.pixels if steps is small else _halved(self.pixels)
                changes = {"decimations": steps, "weight": share * len(steps)}
                yield TrainingImage(pixels, self.source.model_copy(update=changes), self.with_pan)


def _halved(pixels: NDArray[Any]) -> NDArray[Any]:
    """Means of 2 x 2 pixels; 0 where any of the four is nodata."""
    bands, height, width = pixels.shape
    blocks = pixels[:, : height // 2 * 2, : width // 2 * 2].reshape(
        bands, height // 2, 2, width // 2, 2
    )
    nodata = (blocks == 0).all(axis=0).any(axis=(1, 3))
    means = blocks.mean(axis=(2, 4), dtype=np.float32)
    if pixels.dtype.kind == "u":
        means = means.round()
    means = means.astype(pixels.dtype)
    means[:, nodata] = 0
    return means


def make_scenes(sources: Sequence[Source], bands: int, seed: int) -> list[TrainingImage]:
    """Generate the procedural scenes of all sources.

    Args:
        sources: sources of a configuration; those with files are skipped.
        bands: number of bands of the network; scenes have two more, which are mixed in.
        seed: random seed of the scenes.
    """
    return [
        TrainingImage((scene * 2000).clip(1, 65535).astype(np.uint16), source)
        for source in sources
        for number in range(source.scenes)
        for scene in [dead_leaves(seed * 1000 + number, bands + 2, source.size)]
    ]


def read_sources(sources: Sequence[Source], folder: Path) -> list[TrainingImage]:
    """Read the rasters of all sources, without PanCollection files and procedural scenes.

    Args:
        sources: sources of a configuration.
        folder: base of relative paths.

    Raises:
        SSDiffError: if a file is missing or cannot be read as imagery.
    """
    images = []
    for source in sources:
        paths = [path for pattern in source.files for path in expand(folder, pattern)]
        rasters = [path for path in paths if not holds_pairs(path)]
        if source.stack and rasters:
            images.append(_read_scene(rasters, source, folder))
        else:
            images += [_read_scene([path], source, folder) for path in rasters]
        if source.spectra is not None:
            library = SpectralLibrary(folder / source.spectra)
            new = images[-len(rasters) :]
            images[-len(rasters) :] = [
                replace(image, pixels=library.expand(image.pixels)) for image in new
            ]
    return images


def holds_pairs(name: str | Path) -> bool:
    """Whether a file is PanCollection's, by its suffix."""
    return Path(name).suffix.lower() in (".h5", ".hdf5")


def expand(folder: Path, pattern: str) -> list[Path]:
    """Files that match a glob pattern, at least one.

    Raises:
        SSDiffError: if there is none.
    """
    full = folder / pattern
    paths = sorted(Path(full.anchor or ".").glob(str(full.relative_to(full.anchor or "."))))
    if not paths:
        raise InputError(f"No file {full} was found; check the source's files and `data`.")
    return paths


def _read_scene(paths: Sequence[Path], source: Source, folder: Path) -> TrainingImage:
    """Read files as a run reads its images: nodata values, masks, alpha and NaN are holes."""
    if paths[0].suffix.lower() == ".npy":
        array = _read_array(paths[0])
        pixels = array.transpose(2, 0, 1) if array.shape[0] > array.shape[-1] else array
        if source.bands:
            pixels = pixels[[band - 1 for band in source.bands]]
        return TrainingImage(_stored(pixels, np.isfinite(pixels).all(axis=0), pixels.dtype), source)
    pan = [folder / source.pan] if source.pan else []
    layers, dtypes, valid = [], [], np.array(True)
    with ExitStack() as stack:
        first = stack.enter_context(open_raster(paths[0], source.name))
        grid = {name: getattr(first, name) for name in ("crs", "transform", "height", "width")}
        for path in [*paths, *pan]:
            image = stack.enter_context(open_raster(path, source.name))
            bands = choose_bands(image, None if path in pan or source.stack else source.bands)
            dtypes += [image.dtypes[band - 1] for band in bands]
            placed: DatasetReader | WarpedVRT = image
            if (image.transform, image.shape) != (first.transform, first.shape):
                placed = stack.enter_context(_warped(image, source, grid))
            check_memory(
                _VALUE * first.height * first.width * len(dtypes),
                f"Reading {counted(len(dtypes), 'band')} of the source {source.name}, "
                f"{first.width} x {first.height} pixels each,",
                "cut out a smaller area with gdal_translate -projwin",
            )
            every = range(first.height), range(first.width)
            values, whole = read_rectangle(placed, bands, *every, Holes(source.nodata))
            layers.append(values)
            valid = valid & whole
    pixels = np.concatenate(layers)
    if source.bands and source.stack:
        pixels = pixels[[band - 1 for band in source.bands]]
    dtype = np.result_type(*dtypes)
    return TrainingImage(_stored(pixels, valid, dtype), source, with_pan=bool(pan))


def _read_array(path: Path) -> NDArray[Any]:
    remedy = "save it with numpy.save"
    with (
        reading(f"{path} cannot be read as an array of numpy", remedy),
        path.open("rb") as file,  # numpy leaves some damaged files open
    ):
        array = np.load(file)
        shape, kind = array.shape, array.dtype
    if len(shape) != 3 or not all(shape):
        raise InputError(
            f"{path} has shape {list(shape)}, expected three axes that are not empty, [C, H, W] or "
            "[H, W, C]; rearrange it."
        )
    if kind.kind not in "iuf":
        raise InputError(f"{path} has values of type {kind}, expected numbers; {remedy}.")
    return np.asarray(array)


def _warped(image: DatasetReader, source: Source, grid: dict[str, Any]) -> WarpedVRT:
    """An image resampled to a grid; what lies beyond it is no data there."""
    options = dict(grid, resampling=Resampling.cubic)
    stated = source.nodata if source.nodata is not None else image.nodata
    if stated is not None:
        options.update(src_nodata=stated, nodata=stated)
    elif alpha_band(image) is None:
        options.update(add_alpha=True)
    try:
        return WarpedVRT(image, **options)
    except READ_ERRORS as error:
        raise InputError(
            f"{image.name} of the source {source.name} cannot be resampled to the grid of its "
            f"first file ({error}); check the source's files."
        ) from error


def _stored(pixels: NDArray[Any], valid: NDArray[np.bool_], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Pixels in 8 or 16 bit where their own type is that, else in float32; holes are 0."""
    kept = dtype if dtype in _STORED else _STORED[-1]
    filled = np.where(valid, pixels, 0)
    if kept.kind == "u":
        filled = np.rint(filled)
    return np.ascontiguousarray(filled.astype(kept))


def pack(images: Sequence[TrainingImage], path: Path) -> None:
    """Write images and the settings of their sources as one compressed file.

    Args:
        images: images to write.
        path: ``.npz`` file to write.
    """
    metadata = [
        {"source": image.source.model_dump(), "with_pan": image.with_pan} for image in images
    ]
    arrays = {f"picture{index}": _differences(image.pixels) for index, image in enumerate(images)}
    # Given a path, numpy would add a suffix to some.
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, told=np.array(json.dumps(metadata)), **arrays)  # type: ignore[arg-type]


def _differences(pixels: NDArray[Any]) -> NDArray[Any]:
    """Differences of integers along rows, which compress better; overflow cancels in their sum."""
    if pixels.dtype.kind == "f":
        return pixels
    return np.diff(pixels, axis=-1, prepend=pixels.dtype.type(0))


def _sums(differences: NDArray[Any]) -> NDArray[Any]:
    """The inverse of :func:`_differences`."""
    if differences.dtype.kind == "f":
        return differences
    return np.cumsum(differences, axis=-1, dtype=differences.dtype)


def unpack(path: Path) -> list[TrainingImage]:
    """Read a file written by :func:`pack`.

    Raises:
        InputError: if it is none.
    """
    with (
        reading(f"{path} cannot be read as packed imagery", "write it with ssdiff-ref pack"),
        path.open("rb") as file,
        np.load(file) as content,
    ):
        told = json_of(str(content["told"]))
        images = [
            TrainingImage(
                _sums(content[f"picture{index}"]),
                Source.model_validate(entry["source"]),
                entry["with_pan"] is True,
            )
            for index, entry in enumerate(told)
        ]
        for index, image in enumerate(images):
            stored, shape = image.pixels.dtype, image.pixels.shape
            if stored not in _STORED or len(shape) != 3 or not all(shape):
                raise ValueError(f"picture{index} has values of {stored} and shape {list(shape)}")
    return images


class Crops:
    """Cuts random crops from images.

    Args:
        images: images to crop.
        generator: random generator on the CPU.
        device: device that holds the images.
    """

    def __init__(
        self, images: Sequence[TrainingImage], generator: Generator, device: torch.device
    ) -> None:
        self._random = generator
        self.images = list(images)
        self._pixels = [
            torch.from_numpy(image.pixels.astype(np.float32)).to(device) for image in images
        ]
        self._means = [_valid_mean(image.pixels).to(device) for image in images]
        self._positions_by_key: dict[tuple[int, int], _Positions] = {}

    def choices(self, size_for: Callable[[int], int]) -> Iterator[tuple[int, int, float]]:
        """Image index, decimation and weight of every combination with a large enough crop."""
        for index, image in enumerate(self.images):
            source = image.source
            sharing = sum(  # images that share the weight of their source
                (other.source.name, other.source.decimations) == (source.name, source.decimations)
                for other in self.images
            )
            for step in source.decimations:
                if len(self._positions(index, size_for(step)).corners):
                    yield index, step, source.weight / sharing / len(source.decimations)

    def _positions(self, index: int, size: int) -> _Positions:
        key = index, size
        if key not in self._positions_by_key:
            self._positions_by_key[key] = _find_positions(self.images[index].pixels, size)
        return self._positions_by_key[key]

    def cut(self, index: int, size: int, count: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Random crops of one image, randomly rotated by 90 degrees and mirrored.

        Returns:
            Bands ``[count, B, size, size]``, PAN ``[count, 1, size, size]`` if the image has it,
            and the mean of each band over the image.
        """
        positions, pixels = self._positions(index, size), self._pixels[index]
        picked = torch.multinomial(positions.weights, count, True, generator=self._random)
        turns = torch.randint(8, (count,), generator=self._random)
        crops = []
        for (row, col), turn in zip(
            positions.corners[picked].tolist(), turns.tolist(), strict=True
        ):
            crop = torch.rot90(pixels[:, row : row + size, col : col + size], turn % 4, (1, 2))
            crops.append(crop.flip(2) if turn >= 4 else crop)
        stacked, mean = torch.stack(crops), self._means[index]
        if self.images[index].with_pan:
            pan = stacked[:, -1:] * (mean[:-1].mean() / mean[-1])
            return stacked[:, :-1], pan, mean[:-1]
        return stacked, None, mean


class _Positions(NamedTuple):
    """Positions of crops of one size."""

    corners: Tensor
    """Row and column of the top left pixel, ``[n, 2]``."""
    weights: Tensor
    """Sampling weights, ``[n]``."""


def _find_positions(pixels: NDArray[Any], size: int) -> _Positions:
    """Crops without nodata, at every fourth pixel; crops with more contrast get larger weights."""
    height, width = pixels.shape[1:]
    if min(height, width) < size or not pixels.any():
        return _Positions(torch.empty(0, 2, dtype=torch.long), torch.empty(0))
    rows, cols = np.arange(0, height - size + 1, 4), np.arange(0, width - size + 1, 4)

    def total(values: NDArray[Any]) -> NDArray[np.float64]:
        """Sums over all crops."""
        table = np.zeros((height + 1, width + 1))
        table[1:, 1:] = values.cumsum(0, dtype=np.float64).cumsum(1)
        low, high = (np.ix_(rows + side, cols) for side in (0, size))
        low_right, high_right = (np.ix_(rows + side, cols + size) for side in (0, size))
        return table[high_right] - table[high] - table[low_right] + table[low]

    brightness = pixels.mean(axis=0, dtype=np.float32)
    mean = total(brightness) / size**2
    deviation = np.sqrt(
        np.maximum(total(brightness.astype(np.float64) ** 2) / size**2 - mean**2, 0)
    )
    whole = total((pixels == 0).all(axis=0)) == 0
    # The square root and the offset keep flat areas in the training data.
    weights = np.sqrt(0.02 + deviation / brightness.mean())[whole]
    corners = np.argwhere(whole) * 4
    return _Positions(torch.from_numpy(corners), torch.from_numpy(weights.astype(np.float32)))


def _valid_mean(pixels: NDArray[Any]) -> Tensor:
    valid = (pixels != 0).any(axis=0)
    if not valid.any():  # no crop is ever cut from it
        return torch.ones(len(pixels))
    return torch.from_numpy(pixels[:, valid].mean(axis=1, dtype=np.float64).astype(np.float32))
