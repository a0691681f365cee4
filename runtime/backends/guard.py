"""What low precision could not compute is computed again in FP32, and counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.backends.protocol import Backend
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.schedule import Schedule
from ssdiff_trt.runtime.tiles.batch import Array, Tiles


class Guarded:
    """A backend whose images are finite.

    Args:
        backend: to guard.
        fallback: gives a backend in FP32; called when first needed.

    Attributes:
        redone: tiles that were computed again.
    """

    def __init__(self, backend: Backend, fallback: Callable[[], Backend]) -> None:
        self._backend, self._open = backend, fallback
        self._fallback: Backend | None = None
        self.redone = 0

    def sample(self, batches: Iterable[Tiles], schedule: Schedule) -> Iterator[Array]:
        """As :meth:`ssdiff_trt.runtime.backends.protocol.Backend.sample`, all of it finite.

        Raises:
            SSDiffError: if FP32 gives no number either.
        """
        sent: deque[Tiles] = deque()

        def passing() -> Iterator[Tiles]:
            for tiles in batches:
                sent.append(tiles)
                yield tiles

        for images in self._backend.sample(passing(), schedule):
            tiles = sent.popleft()
            bad = _not_finite(images)
            if bad.any():
                images[bad] = self._again(tiles.part(bad), schedule)
                self.redone += int(bad.sum())
            yield images

    def _again(self, tiles: Tiles, schedule: Schedule) -> Array:
        described = self._backend.describe()
        if self._backend.precision != "fp32":
            self._fallback = self._fallback or self._open()
            described = self._fallback.describe()
            (images,) = self._fallback.sample([tiles], schedule)
            if not _not_finite(images).any():
                return images
        raise SSDiffError(
            f"{described} gave values that are not finite, and nothing was written; check the "
            "bundle with ssdiff-trt verify."
        )


def _not_finite(images: Array) -> NDArray[np.bool_]:
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(images).all(axis=(1, 2, 3)))
    return ~finite
