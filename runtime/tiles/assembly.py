"""Between blocks of a scene and batches of tiles."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.tiles.batch import Tiles
from ssdiff_trt.runtime.tiles.canvas import LIMIT, Canvas
from ssdiff_trt.runtime.tiles.inputs import WindowInputs


class Assembly:
    """Sends batches of tiles to a backend that may be ahead, and blends the images it returns.

    Args:
        bands: number of bands, C.
        finish: receives the windows of each complete block, and the block's pixels.
    """

    def __init__(self, bands: int, finish: Callable[[list[WindowInputs], Canvas], None]) -> None:
        self._bands, self._finish = bands, finish
        self._sent: deque[tuple[WindowInputs, list[tuple[int, int]] | None]] = deque()
        self._windows: list[WindowInputs] = []
        self._canvas: Canvas | None = None

    def batches(self, windows: Iterable[WindowInputs], size: int) -> Iterator[Tiles]:
        """The tiles to sample, window after window, so many at a time."""
        for inputs in windows:
            light = inputs.without_tiles()
            for places, tiles in inputs.batches(size):
                self._sent.append((light, places))
                yield tiles
            self._sent.append((light, None))  # the window ends
            self._close()

    def add(self, images: NDArray[np.float32]) -> None:
        """Blend the images ``[N, C, tile, tile]`` of the earliest batch without any."""
        inputs, places = self._sent.popleft()
        assert places is not None
        canvas = self._of(inputs)
        for (i, j), image in zip(places, images, strict=True):
            if (excess := inputs.excess.get((i, j))) is not None:
                image = (image + excess).clip(-LIMIT, LIMIT)
            canvas.add(i, j, image)
        self._close()

    def _of(self, inputs: WindowInputs) -> Canvas:
        """The canvas of the block that a window belongs to."""
        if self._canvas is None:
            self._canvas = Canvas(self._bands, inputs.window.block)
        return self._canvas

    def _close(self) -> None:
        """Finish blocks all of whose images are there."""
        while self._sent and self._sent[0][1] is None:
            inputs, _ = self._sent.popleft()
            self._windows.append(inputs)
            if inputs.window.last:
                self._finish(self._windows, self._of(inputs))
                self._windows, self._canvas = [], None
