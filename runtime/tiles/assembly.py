"""Between blocks of a scene and batches of tiles."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.tiles.backprojection import back_project
from ssdiff_trt.runtime.tiles.batch import Tiles
from ssdiff_trt.runtime.tiles.canvas import LIMIT, Canvas
from ssdiff_trt.runtime.tiles.inputs import WindowInputs


class Assembly:
    """Sends batches of tiles to a backend that may be ahead, and blends the images it returns.

    Args:
        gains: MTF of each band, see :func:`ssdiff_trt.runtime.tiles.backprojection.blur`.
        back_projection: share of the difference from MS that is corrected, 0 to 1.
        finish: receives the windows of each complete block, and the block's pixels.
    """

    def __init__(
        self,
        gains: tuple[float, ...],
        back_projection: float,
        finish: Callable[[list[WindowInputs], Canvas], None],
    ) -> None:
        self._gains, self._share, self._finish = gains, back_projection, finish
        self._sent: deque[tuple[WindowInputs, range | None]] = deque()
        self._windows: list[WindowInputs] = []
        self._canvas: Canvas | None = None

    def batches(self, windows: Iterable[WindowInputs], size: int) -> Iterator[Tiles]:
        """The tiles to sample, window after window, so many at a time."""
        for inputs in windows:
            light = inputs.without_tiles()
            for indices, tiles in inputs.batches(size):
                self._sent.append((light, indices))
                yield tiles
            self._sent.append((light, None))  # the window ends
            self._close()

    def add(self, images: NDArray[np.float32]) -> None:
        """Blend the images ``[N, C, tile, tile]`` of the earliest batch without any."""
        inputs, indices = self._sent.popleft()
        assert indices is not None
        canvas = self._of(inputs)
        for index, image in zip(indices, images, strict=True):
            place, position = inputs.places[index], inputs.positions[index]
            if (excess := inputs.excess.get(place)) is not None:
                image = (image + excess).clip(-LIMIT, LIMIT)
            image = back_project(image, inputs.tiles.ms[index], position, self._gains, self._share)
            canvas.add(*place, image)
        self._close()

    def _of(self, inputs: WindowInputs) -> Canvas:
        """The canvas of the block that a window belongs to."""
        if self._canvas is None:
            self._canvas = Canvas(len(self._gains), inputs.window.block)
        return self._canvas

    def _close(self) -> None:
        """Finish blocks all of whose images are there."""
        while self._sent and self._sent[0][1] is None:
            inputs, _ = self._sent.popleft()
            self._windows.append(inputs)
            if inputs.window.last:
                self._finish(self._windows, self._of(inputs))
                self._windows, self._canvas = [], None
