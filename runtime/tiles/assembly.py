"""Between windows of a scene and batches of tiles."""

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
        canvas: blends images of tiles.
        finish: receives each complete window, and its pixels ``[C, rows, cols]`` in units of full
            scale.
    """

    def __init__(
        self, canvas: Canvas, finish: Callable[[WindowInputs, NDArray[np.float32]], None]
    ) -> None:
        self._canvas, self._finish = canvas, finish
        self._sent: deque[tuple[WindowInputs, list[tuple[int, int]] | None]] = deque()
        self._open: WindowInputs | None = None

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
        self._begin(inputs)
        for (i, j), image in zip(places, images, strict=True):
            if (excess := inputs.excess.get((i, j))) is not None:
                image = (image + excess).clip(-LIMIT, LIMIT)
            self._canvas.add(inputs.window, i, j, image)
        self._close()

    def _begin(self, inputs: WindowInputs) -> None:
        if self._open is not inputs:
            self._open = inputs
            self._canvas.open(inputs.window)

    def _close(self) -> None:
        """Finish windows all of whose images are there."""
        while self._sent and self._sent[0][1] is None:
            inputs, _ = self._sent.popleft()
            self._begin(inputs)
            self._finish(inputs, self._canvas.close(inputs.window))
