"""The imagery that training draws from: read once, held in memory, split by place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from ssdiff_ref.training.config import Source
from ssdiff_ref.training.procedural import dead_leaves
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.files import atomic_write

ARRAYS = (".h5", ".hdf5")
"""Suffixes of PanCollection files."""


@dataclass(frozen=True)
class Picture:
    """One scene, or one part of it."""

    pixels: NDArray[Any]
    """``[B, H, W]``, as stored; the last band is PAN if ``with_pan``. 0 in all is no data."""
    source: Source
    with_pan: bool = False

    def part(self, held_out: bool) -> Picture:
        """The columns that are kept for validation, or the others."""
        width = self.pixels.shape[-1]
        border = round(width * (1 - self.source.held_out))
        cols = slice(border, width) if held_out else slice(0, border)
        return Picture(self.pixels[..., cols], self.source, self.with_pan)

    def scales(self) -> Iterator[Picture]:
        """Itself, for decimations below 4, and at half its size, for what is left of the others."""
        few = tuple(step for step in self.source.decimations if step < 4)
        many = tuple(step // 2 for step in self.source.decimations if step >= 4)
        share = self.source.weight / len(self.source.decimations)
        for steps in (few, many):
            if steps:
                pixels = self.pixels if steps is few else _halved(self.pixels)
                told = {"decimations": steps, "weight": share * len(steps)}
                yield Picture(pixels, self.source.model_copy(update=told), self.with_pan)


def _halved(pixels: NDArray[Any]) -> NDArray[Any]:
    """Means of 2 x 2; 0 where any of them is missing."""
    bands, height, width = pixels.shape
    blocks = pixels[:, : height // 2 * 2, : width // 2 * 2].reshape(
        bands, height // 2, 2, width // 2, 2
    )
    missing = (blocks == 0).all(axis=0).any(axis=(1, 3))
    means = blocks.mean(axis=(2, 4), dtype=np.float32).round().astype(pixels.dtype)
    means[:, missing] = 0
    return means


def make_scenes(sources: Sequence[Source], bands: int, seed: int) -> list[Picture]:
    """Make every procedural scene.

    Args:
        sources: of a configuration; those with files are left alone.
        bands: of the network; scenes have a few more, to be mixed.
        seed: of the scenes.
    """
    return [
        Picture((scene * 2000).clip(1, 65535).astype(np.uint16), source)
        for source in sources
        for number in range(source.scenes)
        for scene in [dead_leaves(seed * 1000 + number, bands + 2, source.size)]
    ]


def read_sources(sources: Sequence[Source], folder: Path) -> list[Picture]:
    """Read every raster; PanCollection files and procedural scenes are left alone.

    Args:
        sources: of a configuration.
        folder: that relative paths start from.

    Raises:
        SSDiffError: if a file is missing or is not imagery.
    """
    pictures = []
    for source in sources:
        paths = [path for pattern in source.files for path in expand(folder, pattern)]
        rasters = [path for path in paths if path.suffix not in ARRAYS]
        if source.stack and rasters:
            pictures.append(_read_scene(rasters, source, folder))
        else:
            pictures += [_read_scene([path], source, folder) for path in rasters]
    return pictures


def expand(folder: Path, pattern: str) -> list[Path]:
    """The files that a pattern means, at least one."""
    whole = folder / pattern
    found = sorted(Path(whole.anchor or ".").glob(str(whole.relative_to(whole.anchor or "."))))
    if not found:
        raise SSDiffError(f"No file {whole} was found; check the source's files and --data.")
    return found


def _read_scene(paths: Sequence[Path], source: Source, folder: Path) -> Picture:
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.errors import RasterioError
    from rasterio.vrt import WarpedVRT

    if paths[0].suffix == ".npy":
        array = np.load(paths[0])
        pixels = array.transpose(2, 0, 1) if array.shape[0] > array.shape[-1] else array
        if source.bands:
            pixels = pixels[[band - 1 for band in source.bands]]
        return Picture(np.ascontiguousarray(pixels), source)
    layers = []
    try:
        with rasterio.open(paths[0]) as first:
            grid = {
                "crs": first.crs,
                "transform": first.transform,
                "height": first.height,
                "width": first.width,
            }
            for path in [*paths, *([folder / source.pan] if source.pan else [])]:
                is_pan = source.pan is not None and path == folder / source.pan
                with rasterio.open(path) as raster:
                    chosen = None if is_pan or source.stack else source.bands
                    if raster.transform == first.transform and raster.shape == first.shape:
                        layers.append(raster.read(chosen))
                    else:
                        with WarpedVRT(raster, resampling=Resampling.cubic, **grid) as onto:
                            layers.append(onto.read(chosen))
    except RasterioError as error:
        raise SSDiffError(f"A source of {source.name} cannot be read: {error}.") from error
    pixels = np.concatenate([layer.astype(np.uint16) for layer in layers])
    if max(layer.dtype.itemsize for layer in layers) == 1:
        pixels = pixels.astype(np.uint8)
    if source.bands and source.stack:
        pixels = pixels[[band - 1 for band in source.bands]]
    return Picture(pixels, source, with_pan=source.pan is not None)


def pack(pictures: Sequence[Picture], path: Path) -> None:
    """Write imagery and what its sources say as one compressed file.

    Args:
        pictures: to write.
        path: ``.npz``.
    """
    told = [
        {"source": picture.source.model_dump(), "with_pan": picture.with_pan}
        for picture in pictures
    ]
    # Differences along rows, which wrap around and add up again, take fewer bits.
    arrays = {
        f"picture{index}": np.diff(picture.pixels, axis=-1, prepend=picture.pixels.dtype.type(0))
        for index, picture in enumerate(pictures)
    }
    with atomic_write(path) as unfinished:
        np.savez_compressed(unfinished, told=np.array(json.dumps(told)), **arrays)  # type: ignore[arg-type]


def unpack(path: Path) -> list[Picture]:
    """Read what :func:`pack` wrote."""
    try:
        with np.load(path) as content:
            told = json.loads(str(content["told"]))
            return [
                Picture(
                    np.cumsum(difference, axis=-1, dtype=difference.dtype),
                    Source.model_validate(one["source"]),
                    one["with_pan"],
                )
                for index, one in enumerate(told)
                for difference in [content[f"picture{index}"]]
            ]
    except (OSError, ValueError, KeyError) as error:
        raise SSDiffError(
            f"{path} cannot be read as packed imagery ({error}); make it with ssdiff-ref pack."
        ) from error


class Crops:
    """Cuts crops from pictures.

    Args:
        pictures: parts to cut from.
        generator: on the CPU.
        device: where pictures are held.
    """

    def __init__(
        self, pictures: Sequence[Picture], generator: Generator, device: torch.device
    ) -> None:
        self._random = generator
        self.pictures = list(pictures)
        self._pixels = [
            torch.from_numpy(picture.pixels.astype(np.float32)).to(device) for picture in pictures
        ]
        self._means = [_valid_mean(picture.pixels).to(device) for picture in pictures]
        self._found: dict[tuple[int, int], _Places] = {}

    def choices(self, size_for: Callable[[int], int]) -> Iterator[tuple[int, int, float]]:
        """Picture, decimation and weight of all that are large enough."""
        for index, picture in enumerate(self.pictures):
            source = picture.source
            alike = sum(
                (other.source.name, other.source.decimations) == (source.name, source.decimations)
                for other in self.pictures
            )
            for step in source.decimations:
                if len(self._places(index, size_for(step)).corners):
                    yield index, step, source.weight / alike / len(source.decimations)

    def _places(self, index: int, size: int) -> _Places:
        key = index, size
        if key not in self._found:
            self._found[key] = _find_places(self.pictures[index].pixels, size)
        return self._found[key]

    def cut(self, index: int, size: int, count: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Crops of one picture, turned and mirrored at random.

        Returns:
            Bands ``[count, B, size, size]``, PAN ``[count, 1, size, size]`` if the picture has it,
            and the picture's mean by band.
        """
        places, pixels = self._places(index, size), self._pixels[index]
        chosen = torch.multinomial(places.weights, count, True, generator=self._random)
        turns = torch.randint(8, (count,), generator=self._random)
        crops = []
        for (row, col), turn in zip(places.corners[chosen].tolist(), turns.tolist(), strict=True):
            crop = torch.rot90(pixels[:, row : row + size, col : col + size], turn % 4, (1, 2))
            crops.append(crop.flip(2) if turn >= 4 else crop)
        stacked, mean = torch.stack(crops), self._means[index]
        if self.pictures[index].with_pan:
            pan = stacked[:, -1:] * (mean[:-1].mean() / mean[-1])
            return stacked[:, :-1], pan, mean[:-1]
        return stacked, None, mean


class _Places(NamedTuple):
    """Where to cut crops of one size."""

    corners: Tensor
    """Row and column of their top left pixels, ``[n, 2]``."""
    weights: Tensor
    """How often to choose each, ``[n]``."""


def _find_places(pixels: NDArray[Any], size: int) -> _Places:
    """Crops without missing data, on every fourth pixel; those with more contrast more often."""
    height, width = pixels.shape[1:]
    if min(height, width) < size or not pixels.any():
        return _Places(torch.empty(0, 2, dtype=torch.long), torch.empty(0))
    rows, cols = np.arange(0, height - size + 1, 4), np.arange(0, width - size + 1, 4)

    def total(values: NDArray[Any]) -> NDArray[np.float64]:
        """Sums over all crops."""
        table = np.zeros((height + 1, width + 1))
        table[1:, 1:] = values.cumsum(0, dtype=np.float64).cumsum(1)
        low, high = (np.ix_(rows + side, cols) for side in (0, size))
        low_right, high_right = (np.ix_(rows + side, cols + size) for side in (0, size))
        return table[high_right] - table[high] - table[low_right] + table[low]

    light = pixels.mean(axis=0, dtype=np.float32)
    mean = total(light) / size**2
    deviation = np.sqrt(np.maximum(total(light.astype(np.float64) ** 2) / size**2 - mean**2, 0))
    whole = total((pixels == 0).all(axis=0)) == 0
    # A square root: flat places are imagery too.
    weights = np.sqrt(0.02 + deviation / light.mean())[whole]
    corners = np.argwhere(whole) * 4
    return _Places(torch.from_numpy(corners), torch.from_numpy(weights.astype(np.float32)))


def _valid_mean(pixels: NDArray[Any]) -> Tensor:
    valid = (pixels != 0).any(axis=0)
    if not valid.any():  # no crop is ever cut from it
        return torch.ones(len(pixels))
    return torch.from_numpy(pixels[:, valid].mean(axis=1, dtype=np.float64).astype(np.float32))
