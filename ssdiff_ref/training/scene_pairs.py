"""Scenes as training data for adaptation: Wald's protocol, with held-out blocks."""

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
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.interpolator import RATIO, interpolate
from ssdiff_trt.runtime.sensors import Sensor

BLOCKS = 32, 16
"""Sides of held-out blocks in MS pixels; the smaller one where there are few of the larger."""
_ENOUGH = 16
"""Valid blocks below which smaller ones are taken."""
_STEP = 8
"""Of so many blocks, one is for early stopping and one for the verdict."""
_MOST = 8, 16
"""Largest numbers of blocks for early stopping and for the verdict."""
_LARGEST = 1024
"""Largest side, in MS pixels, of the part of a scene that is used."""


@dataclass(frozen=True)
class AdaptationScene:
    """A scene and what Wald's protocol makes of it, 0..1 of full scale, with nodata filled."""

    pan: NDArray[np.float32]
    """``[4 H, 4 W]``."""
    ms: NDArray[np.float32]
    """``[C, H, W]``, the ground truth at reduced resolution."""
    valid: Mask
    """``[H, W]``, true where PAN and MS are valid."""
    position: tuple[float, float]
    """Row and column of PAN at the centre of the first pixel of MS."""
    reduced_pan: NDArray[np.float32]
    """``[H, W]``, on the grid of MS."""
    reduced_ms: NDArray[np.float32]
    """``[C, H / 4, W / 4]``."""


@dataclass(frozen=True)
class Block:
    """A held-out square of a scene."""

    scene: int
    """Index of the scene."""
    row: int
    """Of the top left pixel, in pixels of MS."""
    col: int
    size: int
    """Pixels of MS on a side."""

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns of MS."""
        return slice(self.row, self.row + self.size), slice(self.col, self.col + self.size)


@dataclass(frozen=True)
class Split:
    """Blocks that are not trained on."""

    validation: tuple[Block, ...]
    """Blocks for early stopping."""
    test: tuple[Block, ...]
    """Blocks for the verdict only."""

    def trained(self, scenes: Sequence[AdaptationScene]) -> list[Mask]:
        """``[H, W]`` of each scene, true where it is valid and not held out."""
        masks = [scene.valid.copy() for scene in scenes]
        for block in (*self.validation, *self.test):
            masks[block.scene][block.place] = False
        return masks


def prepare_scene(
    pan: Image,
    ms: Image,
    valid: Mask,
    sensor: Sensor,
    position: tuple[float, float],
    largest: int = _LARGEST,
) -> AdaptationScene:
    """Degrade a scene, or the centre of a large one.

    Args:
        pan: ``[4 H, 4 W]``, 0..1 of full scale, with nodata filled.
        ms: ``[C, H, W]``, likewise.
        valid: ``[H, W]``, true where PAN and MS are valid.
        sensor: sensor whose MTF blurs MS.
        position: row and column of PAN at the centre of the first pixel of MS.
        largest: side, in pixels of MS, of the part that is used.
    """
    rows, cols = (_middle(size, largest) for size in valid.shape)
    fine = np.s_[RATIO * rows.start : RATIO * rows.stop, RATIO * cols.start : RATIO * cols.stop]
    truth, panchromatic = ms[:, rows, cols], pan[fine]
    ms_lr, pan_lr = degrade(truth, panchromatic, sensor, position)
    layers = (layer.astype(np.float32) for layer in (panchromatic, truth, pan_lr, ms_lr))
    fine_pan, coarse_ms, reduced_pan, reduced_ms = layers
    return AdaptationScene(
        fine_pan, coarse_ms, valid[rows, cols].copy(), position, reduced_pan, reduced_ms
    )


def largest_side(scenes: int) -> int:
    """Side, in MS pixels, of the part of each of several scenes, so that their sum is bounded."""
    return max(int(_LARGEST / scenes**0.5) // RATIO * RATIO, 4 * BLOCKS[0])


def _middle(size: int, largest: int) -> slice:
    used = min(size - size % RATIO, largest)
    start = (size - used) // 2
    return slice(start, start + used)


def split_blocks(masks: Sequence[Mask]) -> Split:
    """Hold out a quarter of the valid blocks, spread over the scenes, or a smaller share of many.

    Blocks have 32 x 32 pixels of MS; 16 x 16 if there are fewer than 16 valid ones of these.

    Args:
        masks: ``[H, W]`` of each scene, true where it is valid.

    Raises:
        SSDiffError: if the scenes have too few valid blocks.
    """
    for size in BLOCKS:
        whole = [block for scene, mask in enumerate(masks) for block in _blocks(scene, mask, size)]
        if len(whole) >= _ENOUGH:
            break
    validation, test = whole[_STEP // 4 :: _STEP], whole[3 * _STEP // 4 :: _STEP]
    if not validation or not test:
        raise InputError(
            f"The imagery has {len(whole)} blocks of {size} x {size} pixels of MS without nodata, "
            f"expected {3 * _STEP // 4 + 1} or more for training, validation and test; give a "
            "larger scene, or more scenes."
        )
    return Split(
        *(_spread(part, most) for part, most in zip((validation, test), _MOST, strict=True))
    )


def _blocks(scene: int, valid: Mask, size: int) -> Iterator[Block]:
    height, width = valid.shape
    for row in range(0, height - size + 1, size):
        for col in range(0, width - size + 1, size):
            block = Block(scene, row, col, size)
            if valid[block.place].all():
                yield block


def _spread(blocks: Sequence[Block], most: int) -> tuple[Block, ...]:
    """At most so many of the blocks, at even distances."""
    count = min(len(blocks), most)
    return tuple(blocks[index * len(blocks) // count] for index in range(count))


class ScenePairs:
    """Training samples of scenes at reduced resolution, in eight orientations.

    Args:
        scenes: scenes to cut samples from.
        trained: ``[H, W]`` of each scene, true where the truth may be used.
        sensor: sensor whose MTF blurs MS.
        generator: random generator on the CPU.
        patch: side of the samples in pixels of the ground truth.

    Raises:
        SSDiffError: if no patch is available for training.
    """

    def __init__(
        self,
        scenes: Sequence[AdaptationScene],
        trained: Sequence[Mask],
        sensor: Sensor,
        generator: Generator,
        patch: int,
    ) -> None:
        self._random, self._patch = generator, patch
        self._layers: list[list[Tensor]] = []
        corners = []
        for scene, mask in zip(scenes, trained, strict=True):
            for pan, truth, usable in _orientations(scene.reduced_pan, scene.ms, mask):
                ms = decimate(mtf_filter(truth, sensor)).astype(np.float32)
                layers = pan[None], interpolate(ms), ms, truth
                places = usable_corners(usable, patch, RATIO)
                numbers = np.full((len(places), 1), len(self._layers))
                corners.append(np.hstack((numbers, places)))
                self._layers.append([torch.from_numpy(np.ascontiguousarray(a)) for a in layers])
        self._corners = torch.from_numpy(np.concatenate(corners))
        if not len(self._corners):
            raise InputError(
                f"The imagery has no {patch} x {patch} pixels of MS outside nodata and the "
                "held-out blocks, expected some to train on; give a larger scene."
            )

    def draw(self, patch: int, count: int) -> Batch:
        if patch != self._patch:
            raise ValueError(f"patches of {patch} pixels, expected {self._patch}")
        chosen = torch.randint(len(self._corners), (count,), generator=self._random)
        samples = [
            cut(self._layers[number], row, col, patch)
            for number, row, col in self._corners[chosen].tolist()
        ]
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


def usable_corners(usable: Mask, patch: int, step: int = 1) -> NDArray[np.int64]:
    """Top left pixels ``[n, 2]`` of all usable patches, at multiples of ``step`` pixels."""
    table = np.zeros((usable.shape[0] + 1, usable.shape[1] + 1), np.int64)
    table[1:, 1:] = usable.cumsum(0).cumsum(1)
    count = table[patch:, patch:] - table[:-patch, patch:] - table[patch:, :-patch]
    count += table[:-patch, :-patch]
    return step * np.argwhere(count[::step, ::step] == patch**2)
