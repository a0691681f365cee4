"""Where training samples come from: simulated pairs, and PanCollection's ready ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import torch
from torch import Generator, Tensor

from ssdiff_ref.training.config import Source
from ssdiff_ref.training.imagery import Crops, Picture
from ssdiff_ref.training.synthesis import Batch, Synthesizer, crop_size
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.interpolator import RATIO


class Supply(Protocol):
    """Something to draw samples from."""

    def draw(self, patch: int, count: int) -> Batch:
        """``count`` samples of ``patch`` x ``patch`` pixels."""


class SimulatedPairs:
    """Samples simulated from imagery, every one from another place and another sensor.

    Args:
        pictures: to cut from.
        bands: C of the network.
        generator: on the CPU.
        device: where to make them.
        group: samples that share picture and decimation; more is faster on a GPU.
        response: PAN's, by band.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        bands: int,
        generator: Generator,
        device: torch.device,
        group: int = 1,
        response: Sequence[float] | None = None,
    ) -> None:
        self._random, self._group = generator, group
        scales = [scale for picture in pictures for scale in picture.scales()]
        self._crops = Crops(scales, generator, device)
        self._synthesizer = Synthesizer(bands, generator, device, response)
        self._choices: dict[int, tuple[list[tuple[int, int]], Tensor]] = {}

    def _choices_for(self, patch: int) -> tuple[list[tuple[int, int]], Tensor]:
        if patch not in self._choices:
            found = list(self._crops.choices(lambda step: crop_size(patch, step)))
            if not found:
                raise SSDiffError(
                    f"No source has {crop_size(patch, 1)} x {crop_size(patch, 1)} pixels without a "
                    f"hole, expected that for patches of {patch}; give larger imagery."
                )
            picked = [(index, step) for index, step, _ in found]
            self._choices[patch] = picked, torch.tensor([weight for *_, weight in found])
        return self._choices[patch]

    def draw(self, patch: int, count: int) -> Batch:
        choices, weights = self._choices_for(patch)
        parts = []
        for first in range(0, count, self._group):
            size = min(self._group, count - first)
            index, step = choices[int(torch.multinomial(weights, 1, generator=self._random))]
            crops, pan, mean = self._crops.cut(index, crop_size(patch, step), size)
            spectral = self._crops.pictures[index].source.order == "spectral"
            parts.append(self._synthesizer.draw(crops, mean, step, pan, spectral=spectral))
        return joined(parts)


class ReadyPairs:
    """Samples of a PanCollection ``.h5``, which brings ``gt``, ``lms``, ``ms`` and ``pan``.

    Args:
        path: file.
        source: for its bands, full scale and share held out.
        bands: C of the network.
        held_out: whether to draw from the part kept for validation.
        generator: on the CPU.
        device: where samples go.
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
        try:
            with h5py.File(path) as file:
                if missing := {"gt", "lms", "ms", "pan"} - set(file):
                    raise SSDiffError(
                        f"{path} lacks {', '.join(sorted(missing))}, expected gt, lms, ms and pan; "
                        "give a training file of PanCollection."
                    )
                count, available, self._size = file["gt"].shape[:3]
        except OSError as error:
            raise SSDiffError(f"{path} cannot be read as HDF5 ({error}).") from error
        if (found := len(self._bands or range(available))) != bands:
            raise SSDiffError(
                f"{path} gives {found} bands, expected {bands} as configured; choose them "
                "with the source's bands."
            )
        border = round(count * (1 - source.held_out))
        self._range = range(border, count) if held_out else range(border)

    def __len__(self) -> int:
        return len(self._range)

    def draw(self, patch: int, count: int) -> Batch:
        if patch > self._size:
            raise SSDiffError(
                f"{self._path} has patches of {self._size} pixels, expected {patch} or more; "
                "lower the stage's patch."
            )
        picked = torch.randint(len(self._range), (count,), generator=self._random)
        room = (self._size - patch) // RATIO + 1
        corners = torch.randint(room, (count, 2), generator=self._random) * RATIO
        samples = []
        with h5py.File(self._path) as file:
            for number, (row, col) in zip(picked.tolist(), corners.tolist(), strict=True):
                samples.append(self._read(file, self._range[number], row, col, patch))
        pan, lms, ms, truth = (
            torch.stack(layer).to(self._device) for layer in zip(*samples, strict=True)
        )
        return Batch(pan, lms, ms, truth - lms)

    def _read(self, file: Any, index: int, row: int, col: int, patch: int) -> list[Tensor]:
        fine = np.s_[:, row : row + patch, col : col + patch]
        coarse = np.s_[
            :, row // RATIO : (row + patch) // RATIO, col // RATIO : (col + patch) // RATIO
        ]
        layers = []
        for role, place in (("pan", fine), ("lms", fine), ("ms", coarse), ("gt", fine)):
            array = file[role][index][place]
            if self._bands and role != "pan":
                array = array[self._bands]
            layers.append(torch.from_numpy(array.astype(np.float32)) / self._scale)
        # Rows and columns may change places; mirroring would displace ms, which lies at 4 n + 2.
        if bool(torch.randint(2, (), generator=self._random)):
            layers = [layer.transpose(-1, -2) for layer in layers]
        return layers


class Mixed:
    """Draws from several supplies by weight.

    Args:
        supplies: each with its weight.
        generator: on the CPU.
    """

    def __init__(self, supplies: Sequence[tuple[Supply, float]], generator: Generator) -> None:
        self._supplies, self._random = [supply for supply, _ in supplies], generator
        self._weights = torch.tensor([weight for _, weight in supplies])

    def draw(self, patch: int, count: int) -> Batch:
        shares = torch.multinomial(
            self._weights, count, replacement=True, generator=self._random
        ).bincount(minlength=len(self._supplies))
        return joined(
            [
                supply.draw(patch, int(share))
                for supply, share in zip(self._supplies, shares, strict=True)
                if share
            ]
        )


def joined(parts: Iterable[Batch]) -> Batch:
    """Several batches as one."""
    return Batch(*(torch.cat(layers) for layers in zip(*parts, strict=True)))


def batches(supply: Supply, patch: int, count: int, batch: int) -> Iterator[Batch]:
    """``count`` samples, so many at a time."""
    for first in range(0, count, batch):
        yield supply.draw(patch, min(batch, count - first))
