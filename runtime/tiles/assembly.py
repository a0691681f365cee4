"""Between blocks of a scene and batches of tiles."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.tiles.backprojection import back_project
from ssdiff_trt.runtime.tiles.batch import Tiles
from ssdiff_trt.runtime.tiles.canvas import LIMIT, Canvas
from ssdiff_trt.runtime.tiles.inputs import WindowInputs
from ssdiff_trt.runtime.tiles.uncertainty import uncertainty


class Assembly:
    """Sends batches of tiles to a backend that may be ahead, and blends the images it returns.

    Args:
        gains: MTF of each band, see :func:`ssdiff_trt.runtime.tiles.backprojection.blur`.
        back_projection: share of the difference from MS that is corrected, 0 to 1.
        finish: receives the windows of each complete block, and the block's pixels.
        with_uncertainty: whether the uncertainty of each band follows the bands; see
            :func:`ssdiff_trt.runtime.tiles.uncertainty.uncertainty`.
        seeds: further seeds of the noise that tiles are sampled with, for their spread.
    """

    def __init__(
        self,
        gains: tuple[float, ...],
        back_projection: float,
        finish: Callable[[list[WindowInputs], Canvas], None],
        with_uncertainty: bool = False,
        seeds: Sequence[int] = (),
    ) -> None:
        self._gains, self._share, self._finish = gains, back_projection, finish
        self._with_uncertainty, self._seeds = with_uncertainty, seeds
        self._samples: list[NDArray[np.float32]] = []
        self._sent: deque[tuple[WindowInputs, range | None]] = deque()
        self._windows: list[WindowInputs] = []
        self._canvas: Canvas | None = None

    def batches(self, windows: Iterable[WindowInputs], size: int) -> Iterator[Tiles]:
        """The tiles to sample, window after window, so many at a time, each with every seed."""
        for inputs in windows:
            light = inputs.with_tiles("pan", "ms")
            others = [inputs.noise(seed) for seed in self._seeds]
            for indices, tiles in inputs.batches(size):
                self._sent.append((light, indices))
                yield tiles
                for noise in others:
                    yield tiles._replace(noise=noise[indices.start : indices.stop])
            self._sent.append((light, None))  # the window ends
            self._close()

    def add(self, images: NDArray[np.float32]) -> int:
        """Blend the images of the earliest batch without any, once they are there for every seed.

        Args:
            images: ``[N, C, tile, tile]``, of the next seed.

        Returns:
            The number of tiles that were blended.
        """
        self._samples.append(images)
        if len(self._samples) <= len(self._seeds):
            return 0
        inputs, indices = self._sent.popleft()
        assert indices is not None
        canvas = self._of(inputs)
        for index, samples in zip(indices, zip(*self._samples, strict=True), strict=True):
            place, position = inputs.places[index], inputs.positions[index]
            if (excess := inputs.excess.get(place)) is not None:
                samples = tuple((image + excess).clip(-LIMIT, LIMIT) for image in samples)
            ms = inputs.tiles.ms[index]
            image, *others = (
                back_project(image, ms, position, self._gains, self._share) for image in samples
            )
            if self._with_uncertainty:
                pan = inputs.tiles.pan[index]
                error = uncertainty(image, pan, ms, position, self._gains, others)
                image = np.concatenate([image, error])
            canvas.add(*place, image)
        self._samples.clear()
        self._close()
        return len(images)

    def _of(self, inputs: WindowInputs) -> Canvas:
        """The canvas of the block that a window belongs to."""
        if self._canvas is None:
            bands = len(self._gains) * (1 + self._with_uncertainty)
            self._canvas = Canvas(bands, inputs.window.block)
        return self._canvas

    def _close(self) -> None:
        """Finish blocks all of whose images are there."""
        while self._sent and self._sent[0][1] is None:
            inputs, _ = self._sent.popleft()
            self._windows.append(inputs.with_tiles())
            if inputs.window.last:
                self._finish(self._windows, self._of(inputs))
                self._windows, self._canvas = [], None
