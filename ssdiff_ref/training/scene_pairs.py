"""A user's own scene as training data: Wald's protocol, and blocks kept apart to judge by."""

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
from ssdiff_ref.training.synthesis import Batch
from ssdiff_ref.training.validation import Scores, score
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.interpolator import RATIO, interpolate
from ssdiff_trt.runtime.sensors import Sensor

BLOCK = 32
"""Pixels of MS on a side of what is kept apart."""
_CONTEXT = 64
"""Pixels on a side of the tile around such a block that the network sees."""
_LARGEST = 1024
"""Pixels of MS on a side that are used of a scene."""


@dataclass(frozen=True)
class ReducedScene:
    """A scene at a quarter of its resolution, 0..1 of full scale; MS is the truth."""

    pan: NDArray[np.float32]
    """``[H, W]``, on the grid of the truth."""
    truth: NDArray[np.float32]
    """``[C, H, W]``."""
    valid: Mask
    """``[H, W]``."""

    def __post_init__(self) -> None:
        height, width = self.valid.shape
        if height % RATIO or width % RATIO:
            raise ValueError(f"{height} x {width} is not whole pixels of the reduced MS")


@dataclass(frozen=True)
class Split:
    """Which blocks of 32 x 32 pixels are for what: ``[n, 2]``, row and column of their corners."""

    watched: NDArray[np.int64]
    """Decide when to stop."""
    judged: NDArray[np.int64]
    """Seen by nothing but the final judgement."""


def reduce_scene(
    pan: Image, ms: Image, valid: Mask, sensor: Sensor, position: tuple[float, float]
) -> ReducedScene:
    """Degrade a scene, or the middle of a large one.

    Args:
        pan: ``[4 H, 4 W]``, 0..1 of full scale; nodata filled.
        ms: ``[C, H, W]`` likewise.
        valid: ``[H, W]``.
        sensor: with whose MTF.
        position: where the first pixel of MS lies on PAN.
    """
    rows, cols = (_middle(size) for size in valid.shape)
    fine = np.s_[RATIO * rows.start : RATIO * rows.stop, RATIO * cols.start : RATIO * cols.stop]
    truth = ms[:, rows, cols]
    _, pan_lr = degrade(truth, pan[fine], sensor, position)
    return ReducedScene(
        pan_lr.astype(np.float32), truth.astype(np.float32), valid[rows, cols].copy()
    )


def _middle(size: int) -> slice:
    kept = min(size - size % RATIO, _LARGEST)
    start = (size - kept) // 2
    return slice(start, start + kept)


def split_blocks(valid: Mask, share: float = 0.25) -> Split:
    """Keep about that share of the blocks apart, spread over the scene.

    Raises:
        SSDiffError: if too little of the scene is valid.
    """
    height, width = valid.shape
    whole = [
        (row, col)
        for row in range(0, height - BLOCK + 1, BLOCK)
        for col in range(0, width - BLOCK + 1, BLOCK)
        if valid[row : row + BLOCK, col : col + BLOCK].all()
    ]
    every = round(2 / share)
    watched, judged = whole[every // 4 :: every], whole[3 * every // 4 :: every]
    if not watched or not judged:
        raise SSDiffError(
            f"The scene has {len(whole)} blocks of {BLOCK} x {BLOCK} pixels of MS without nodata, "
            f"expected {3 * every // 4 + 1} or more to adapt to it and to check that; give a "
            "larger scene."
        )
    return Split(np.array(watched), np.array(judged))


class ScenePairs:
    """Samples of one scene, in its eight orientations, never from the blocks kept apart.

    Args:
        scene: at reduced resolution.
        split: blocks to leave out.
        sensor: with whose MTF MS is degraded.
        generator: on the CPU.
        patch: pixels on a side of samples to come.

    Raises:
        SSDiffError: if nothing is left to train on.
    """

    def __init__(
        self, scene: ReducedScene, split: Split, sensor: Sensor, generator: Generator, patch: int
    ) -> None:
        self._random, self._patch = generator, patch
        free = scene.valid.copy()
        for row, col in (*split.watched, *split.judged):
            free[row : row + BLOCK, col : col + BLOCK] = False
        self._layers: list[list[Tensor]] = []
        self._corners: list[Tensor] = []
        for pan, truth, usable in _orientations(scene.pan, scene.truth, free):
            ms = decimate(mtf_filter(truth, sensor)).astype(np.float32)
            layers = pan[None], interpolate(ms), ms, truth
            self._layers.append([torch.from_numpy(np.ascontiguousarray(a)) for a in layers])
            self._corners.append(torch.from_numpy(_corners(usable, patch)))
        if not len(self._corners[0]):
            raise SSDiffError(
                f"No {patch} x {patch} pixels of MS are left to train on beside the blocks kept "
                "apart and nodata; give a larger scene."
            )

    def draw(self, patch: int, count: int) -> Batch:
        if patch != self._patch:
            raise ValueError(f"patches are {self._patch} pixels, not {patch}")
        samples = []
        for turn in torch.randint(8, (count,), generator=self._random).tolist():
            corners = self._corners[turn]
            row, col = corners[int(torch.randint(len(corners), (), generator=self._random))]
            samples.append(cut(self._layers[turn], int(row), int(col), patch))
        pan, lms, ms, truth = (torch.stack(layer) for layer in zip(*samples, strict=True))
        return Batch(pan, lms, ms, truth - lms)


def cut(layers: Sequence[Tensor], row: int, col: int, size: int) -> list[Tensor]:
    """The same place of pan, lms, ms and truth."""
    coarse = np.s_[:, row // RATIO : (row + size) // RATIO, col // RATIO : (col + size) // RATIO]
    fine = np.s_[:, row : row + size, col : col + size]
    return [layer[coarse if index == 2 else fine] for index, layer in enumerate(layers)]


def _orientations(*layers: NDArray[Any]) -> Iterator[list[NDArray[Any]]]:
    for turn in range(4):
        turned: list[NDArray[Any]] = [np.rot90(layer, turn, (-2, -1)) for layer in layers]
        yield turned
        yield [layer[..., ::-1] for layer in turned]


def _corners(usable: Mask, patch: int) -> NDArray[np.int64]:
    """Where patches of usable pixels begin, on whole pixels of the reduced MS."""
    table = np.zeros((usable.shape[0] + 1, usable.shape[1] + 1), np.int64)
    table[1:, 1:] = usable.cumsum(0).cumsum(1)
    count = table[patch:, patch:] - table[:-patch, patch:] - table[patch:, :-patch]
    count += table[:-patch, :-patch]
    return RATIO * np.argwhere(count[::RATIO, ::RATIO] == patch**2)


class Blocks:
    """Blocks to judge weights by, each seen in the middle of a tile.

    Args:
        scene: at reduced resolution.
        corners: of the blocks.
        sensor: with whose MTF MS is degraded.
    """

    def __init__(self, scene: ReducedScene, corners: NDArray[np.int64], sensor: Sensor) -> None:
        ms = decimate(mtf_filter(scene.truth, sensor)).astype(np.float32)
        layers = [torch.from_numpy(a) for a in (scene.pan[None], interpolate(ms), ms, scene.truth)]
        height, width = scene.valid.shape
        if min(height, width) < _CONTEXT:
            raise SSDiffError(
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
        self.batch = Batch(pan, lms, ms_tiles, truth - lms)

    def score(self, images: Tensor, truth: Tensor) -> Scores:
        """Of the blocks alone; both are tiles."""
        return score(
            *(
                torch.stack([tile[inner] for tile, inner in zip(layer, self._inner, strict=True)])
                for layer in (images, truth)
            )
        )
