"""One scene as training data for adaptation: Wald's protocol, with held-out blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from ssdiff_ref.protocol.simulation import degrade
from ssdiff_ref.quality.checks import Image, Mask
from ssdiff_ref.quality.filters import decimate, mtf_filter
from ssdiff_ref.training.pairs import of_protocol
from ssdiff_ref.training.synthesis import Batch
from ssdiff_ref.training.validation import Scores, score
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.interpolator import RATIO, interpolate
from ssdiff_trt.runtime.sensors import Sensor

BLOCK = 32
"""Side of a held-out block in MS pixels."""
_CONTEXT = 64
"""Side, in MS pixels, of the tile around a held-out block that the network processes."""
_LARGEST = 1024
"""Largest side, in MS pixels, of the part of a scene that is used."""


@dataclass(frozen=True)
class ReducedScene:
    """A scene degraded by 4, 0..1 of full scale, with the original MS as ground truth."""

    pan: NDArray[np.float32]
    """``[H, W]``, on the grid of the ground truth."""
    truth: NDArray[np.float32]
    """``[C, H, W]``."""
    valid: Mask
    """``[H, W]``, true where PAN and MS are valid."""

    def __post_init__(self) -> None:
        height, width = self.valid.shape
        if height % RATIO or width % RATIO:
            raise ValueError(f"{height} x {width} pixels, expected multiples of {RATIO}")


@dataclass(frozen=True)
class Split:
    """Held-out blocks of 32 x 32 pixels: rows and columns of their top left pixels, ``[n, 2]``."""

    validation: NDArray[np.int64]
    """Blocks for early stopping."""
    test: NDArray[np.int64]
    """Blocks for the final score only."""


def reduce_scene(
    pan: Image, ms: Image, valid: Mask, sensor: Sensor, position: tuple[float, float]
) -> ReducedScene:
    """Degrade a scene, or the centre of a large one.

    Args:
        pan: ``[4 H, 4 W]``, 0..1 of full scale, with nodata filled.
        ms: ``[C, H, W]``, likewise.
        valid: ``[H, W]``, true where PAN and MS are valid.
        sensor: sensor whose MTF blurs MS.
        position: row and column of PAN at the centre of the first pixel of MS.
    """
    rows, cols = (_middle(size) for size in valid.shape)
    fine = np.s_[RATIO * rows.start : RATIO * rows.stop, RATIO * cols.start : RATIO * cols.stop]
    truth = ms[:, rows, cols]
    _, pan_lr = degrade(truth, pan[fine], sensor, position)
    return ReducedScene(
        pan_lr.astype(np.float32), truth.astype(np.float32), valid[rows, cols].copy()
    )


def _middle(size: int) -> slice:
    used = min(size - size % RATIO, _LARGEST)
    start = (size - used) // 2
    return slice(start, start + used)


def split_blocks(valid: Mask, share: float = 0.25) -> Split:
    """Hold out about a fraction ``share`` of the valid blocks, spread over the scene.

    Raises:
        SSDiffError: if the scene has too few valid blocks.
    """
    height, width = valid.shape
    whole = [
        (row, col)
        for row in range(0, height - BLOCK + 1, BLOCK)
        for col in range(0, width - BLOCK + 1, BLOCK)
        if valid[row : row + BLOCK, col : col + BLOCK].all()
    ]
    step = round(2 / share)
    validation, test = whole[step // 4 :: step], whole[3 * step // 4 :: step]
    if not validation or not test:
        raise InputError(
            f"The scene has {len(whole)} blocks of {BLOCK} x {BLOCK} pixels of MS without nodata, "
            f"expected {3 * step // 4 + 1} or more for training, validation and test; give a "
            "larger scene."
        )
    return Split(np.array(validation), np.array(test))


class ScenePairs:
    """Training samples of one scene in eight orientations, excluding the held-out blocks.

    Args:
        scene: scene at reduced resolution.
        split: held-out blocks.
        sensor: sensor whose MTF blurs MS.
        generator: random generator on the CPU.
        patch: side of the samples in pixels of the ground truth.

    Raises:
        SSDiffError: if no patch is available for training.
    """

    def __init__(
        self, scene: ReducedScene, split: Split, sensor: Sensor, generator: Generator, patch: int
    ) -> None:
        self._random, self._patch = generator, patch
        available = scene.valid.copy()
        for row, col in (*split.validation, *split.test):
            available[row : row + BLOCK, col : col + BLOCK] = False
        self._layers: list[list[Tensor]] = []
        self._corners: list[Tensor] = []
        for pan, truth, usable in _orientations(scene.pan, scene.truth, available):
            ms = decimate(mtf_filter(truth, sensor)).astype(np.float32)
            layers = pan[None], interpolate(ms), ms, truth
            self._layers.append([torch.from_numpy(np.ascontiguousarray(a)) for a in layers])
            self._corners.append(torch.from_numpy(_corners(usable, patch)))
        if not len(self._corners[0]):
            raise InputError(
                f"The scene has no {patch} x {patch} pixels of MS outside nodata and the held-out "
                "blocks, expected some to train on; give a larger scene."
            )

    def draw(self, patch: int, count: int) -> Batch:
        if patch != self._patch:
            raise ValueError(f"patches of {patch} pixels, expected {self._patch}")
        samples = []
        for turn in torch.randint(8, (count,), generator=self._random).tolist():
            corners = self._corners[turn]
            row, col = corners[int(torch.randint(len(corners), (), generator=self._random))]
            samples.append(cut(self._layers[turn], int(row), int(col), patch))
        pan, lms, ms, truth = (torch.stack(layer) for layer in zip(*samples, strict=True))
        return Batch(pan, lms, ms, truth - lms, of_protocol(count))


def cut(layers: Sequence[Tensor], row: int, col: int, size: int) -> list[Tensor]:
    """The same window of pan, lms, ms and truth; row, column and size in pixels of truth."""
    coarse = np.s_[:, row // RATIO : (row + size) // RATIO, col // RATIO : (col + size) // RATIO]
    fine = np.s_[:, row : row + size, col : col + size]
    return [layer[coarse if index == 2 else fine] for index, layer in enumerate(layers)]


def _orientations(*layers: NDArray[Any]) -> Iterator[list[NDArray[Any]]]:
    """The layers rotated by multiples of 90 degrees, each also mirrored."""
    for turn in range(4):
        turned: list[NDArray[Any]] = [np.rot90(layer, turn, (-2, -1)) for layer in layers]
        yield turned
        yield [layer[..., ::-1] for layer in turned]


def _corners(usable: Mask, patch: int) -> NDArray[np.int64]:
    """Top left pixels of all usable patches, at multiples of 4 pixels."""
    table = np.zeros((usable.shape[0] + 1, usable.shape[1] + 1), np.int64)
    table[1:, 1:] = usable.cumsum(0).cumsum(1)
    count = table[patch:, patch:] - table[:-patch, patch:] - table[patch:, :-patch]
    count += table[:-patch, :-patch]
    return RATIO * np.argwhere(count[::RATIO, ::RATIO] == patch**2)


class Blocks:
    """Held-out blocks to score weights on, each inside a larger tile.

    Args:
        scene: scene at reduced resolution.
        corners: rows and columns of the blocks' top left pixels, ``[n, 2]``.
        sensor: sensor whose MTF blurs MS.

    Attributes:
        batch: the tiles.
    """

    def __init__(self, scene: ReducedScene, corners: NDArray[np.int64], sensor: Sensor) -> None:
        ms = decimate(mtf_filter(scene.truth, sensor)).astype(np.float32)
        layers = [torch.from_numpy(a) for a in (scene.pan[None], interpolate(ms), ms, scene.truth)]
        height, width = scene.valid.shape
        if min(height, width) < _CONTEXT:
            raise InputError(
                f"The scene is {height} x {width} pixels of MS, expected {_CONTEXT} x {_CONTEXT} "
                "or more; give a larger one."
            )
        tiles, self._inner = [], []
        for row, col in corners.tolist():
            top, left = (
                min(max(at - (_CONTEXT - BLOCK) // 2, 0), size - _CONTEXT)
                for at, size in ((row, height), (col, width))
            )
            tiles.append(cut(layers, top, left, _CONTEXT))
            inside = slice(row - top, row - top + BLOCK), slice(col - left, col - left + BLOCK)
            self._inner.append((..., *inside))
        pan, lms, ms_tiles, truth = (torch.stack(layer) for layer in zip(*tiles, strict=True))
        self.batch = Batch(pan, lms, ms_tiles, truth - lms, of_protocol(len(pan)))

    def score(self, images: Tensor, truth: Tensor) -> Scores:
        """Score the blocks only; ``images`` and ``truth`` are whole tiles ``[N, C, H, W]``."""
        return score(
            *(
                torch.stack([tile[inner] for tile, inner in zip(layer, self._inner, strict=True)])
                for layer in (images, truth)
            )
        )
