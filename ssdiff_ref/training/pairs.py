"""Sources of training samples: pairs simulated from imagery, and pairs of PanCollection files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from ssdiff_ref.protocol.array_files import check_shapes
from ssdiff_ref.protocol.hdf5 import numbers_in, open_hdf5
from ssdiff_ref.training.config import SIMULATION, Simulation, Source
from ssdiff_ref.training.imagery import Crops, TrainingImage
from ssdiff_ref.training.synthesis import Batch, Synthesizer, crop_size
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.interpolator import PROTOCOL_POSITION, RATIO

_ROLES = ("gt", "lms", "ms", "pan")
"""Arrays of a training file of PanCollection."""


class PairSource(Protocol):
    """A source of random training samples."""

    def draw(self, patch: int, count: int) -> Batch:
        """Draw ``count`` samples of ``patch`` x ``patch`` pixels of PAN."""


class CheckedSource(PairSource, Protocol):
    """A source that can be checked before samples are drawn."""

    def check(self, patch: int) -> None:
        """Check that samples of ``patch`` x ``patch`` pixels of PAN can be drawn.

        Raises:
            InputError: if the imagery is too small.
        """


class SimulatedPairs:
    """Samples simulated from imagery, each with a random position and random sensor parameters.

    Args:
        images: images to crop.
        bands: number of bands of the network, C.
        generator: random generator on the CPU.
        device: device to simulate on.
        group: samples that share image and decimation; larger groups are faster on a GPU.
        response: typical weight of each band in PAN; random weights if None.
        arrays: bands of each detector array, see :class:`Synthesizer`.
        simulation: how strongly samples vary.
    """

    def __init__(
        self,
        images: Sequence[TrainingImage],
        bands: int,
        generator: Generator,
        device: torch.device,
        group: int = 1,
        response: Sequence[float] | None = None,
        arrays: Sequence[Sequence[int]] = (),
        simulation: Simulation = SIMULATION,
    ) -> None:
        self._random, self._group = generator, group
        scales = [scale for image in images for scale in image.scales()]
        self._crops = Crops(scales, generator, device)
        self._synthesizer = Synthesizer(bands, generator, device, response, arrays, simulation)
        self._choices: dict[int, tuple[list[tuple[int, int]], Tensor]] = {}

    def _choices_for(self, patch: int) -> tuple[list[tuple[int, int]], Tensor]:
        if patch not in self._choices:
            weighted = list(self._crops.choices(lambda step: crop_size(patch, step)))
            if not weighted:
                raise InputError(
                    f"No source has {crop_size(patch, 1)} x {crop_size(patch, 1)} pixels without "
                    f"nodata, which patches of {patch} pixels need; give larger imagery."
                )
            choices = [(index, step) for index, step, _ in weighted]
            self._choices[patch] = choices, torch.tensor([weight for *_, weight in weighted])
        return self._choices[patch]

    def check(self, patch: int) -> None:
        self._choices_for(patch)

    def draw(self, patch: int, count: int) -> Batch:
        choices, weights = self._choices_for(patch)
        groups = []
        for first in range(0, count, self._group):
            size = min(self._group, count - first)
            index, step = choices[int(torch.multinomial(weights, 1, generator=self._random))]
            crops, pan, mean = self._crops.cut(index, crop_size(patch, step), size)
            spectral = self._crops.images[index].source.order == "spectral"
            groups.append(self._synthesizer.draw(crops, mean, step, pan, spectral=spectral))
        return concatenate(groups)


class PanCollectionPairs:
    """Samples of a PanCollection ``.h5`` with ``gt``, ``lms``, ``ms`` and ``pan``.

    Args:
        path: file to read.
        source: source with the bands, full scale and held-out fraction to use.
        bands: number of bands of the network, C.
        held_out: whether to draw from the patches held out for validation.
        generator: random generator on the CPU.
        device: device to put samples on.
    """

    def __init__(
        self,
        path: Path,
        source: Source,
        bands: int,
        held_out: bool,
        generator: Generator,
        device: torch.device,
    ) -> None:
        self._path, self._random, self._device = path, generator, device
        self._scale = source.full_scale or 2047.0
        self._bands = [band - 1 for band in source.bands] if source.bands else None
        with open_hdf5(path) as file:
            if missing := {*_ROLES} - set(file):
                raise InputError(
                    f"{path} lacks {', '.join(sorted(missing))}, expected gt, lms, ms and pan; "
                    "give a training file of PanCollection."
                )
            shapes = {role: numbers_in(file, role).shape for role in _ROLES}
        check_shapes(path, shapes)
        count, available, *sides = shapes["gt"]
        self._size = min(sides)
        if (selected := len(self._bands or range(available))) != bands:
            raise InputError(
                f"{path} gives {selected} bands, expected {bands} as configured; select them "
                "with the source's bands."
            )
        border = round(count * (1 - source.held_out))
        self._range = range(border, count) if held_out else range(border)

    def __len__(self) -> int:
        return len(self._range)

    def check(self, patch: int) -> None:
        if patch > self._size:
            raise InputError(
                f"{self._path} has patches of {self._size} pixels, expected {patch} or more; "
                "lower the stage's patch."
            )

    def draw(self, patch: int, count: int) -> Batch:
        self.check(patch)
        picked = torch.randint(len(self._range), (count,), generator=self._random)
        positions = (self._size - patch) // RATIO + 1  # along each axis
        corners = torch.randint(positions, (count, 2), generator=self._random) * RATIO
        samples = []
        with open_hdf5(self._path) as file:
            for number, (row, col) in zip(picked.tolist(), corners.tolist(), strict=True):
                samples.append(self._read(file, self._range[number], row, col, patch))
        pan, lms, ms, truth = (
            torch.stack(layer).to(self._device) for layer in zip(*samples, strict=True)
        )
        return Batch(pan, lms, ms, truth - lms, of_protocol(count))

    def _read(self, file: Any, index: int, row: int, col: int, patch: int) -> list[Tensor]:
        fine = np.s_[:, row : row + patch, col : col + patch]
        coarse = np.s_[
            :, row // RATIO : (row + patch) // RATIO, col // RATIO : (col + patch) // RATIO
        ]
        layers = []
        for role, window in (("pan", fine), ("lms", fine), ("ms", coarse), ("gt", fine)):
            array = file[role][index][window]
            if self._bands and role != "pan":
                array = array[self._bands]
            layers.append(torch.from_numpy(array.astype(np.float32)) / self._scale)
        # Transposing is the only augmentation: mirroring would displace ms, which lies at 4 n + 2.
        if bool(torch.randint(2, (), generator=self._random)):
            layers = [layer.transpose(-1, -2) for layer in layers]
        return layers


class MixedPairs:
    """Draws samples from several sources at random, by weight.

    Args:
        sources: sources and their weights.
        generator: random generator on the CPU.
    """

    def __init__(
        self, sources: Sequence[tuple[CheckedSource, float]], generator: Generator
    ) -> None:
        self._sources, self._random = [source for source, _ in sources], generator
        self._weights = torch.tensor([weight for _, weight in sources])

    def check(self, patch: int) -> None:
        for source in self._sources:
            source.check(patch)

    def draw(self, patch: int, count: int) -> Batch:
        counts = torch.multinomial(
            self._weights, count, replacement=True, generator=self._random
        ).bincount(minlength=len(self._sources))
        return concatenate(
            [
                source.draw(patch, int(source_count))
                for source, source_count in zip(self._sources, counts, strict=True)
                if source_count
            ]
        )


def of_protocol(count: int) -> Tensor:
    """Positions of MS in simulated data sets, see :class:`Batch`."""
    return torch.full((count, 2), PROTOCOL_POSITION)


def concatenate(batches: Iterable[Batch]) -> Batch:
    """Concatenate batches along the sample axis."""
    return Batch(*(torch.cat(layers) for layers in zip(*batches, strict=True)))


def draw_batches(source: PairSource, patch: int, count: int, batch: int) -> Iterator[Batch]:
    """Draw ``count`` samples in batches of at most ``batch``."""
    for first in range(0, count, batch):
        yield source.draw(patch, min(batch, count - first))
