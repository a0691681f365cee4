"""Recomputation in FP32 of tiles that a lower precision turned into non-finite values."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.backends.protocol import Backend
from ssdiff_trt.runtime.errors import BackendError
from ssdiff_trt.runtime.schedule import Schedule
from ssdiff_trt.runtime.tiles.batch import Array, Tiles


class Guarded:
    """A backend whose images are always finite.

    Args:
        backend: backend to use first.
        fallback: opens a backend in FP32; called when it is first needed.

    Attributes:
        redone: number of tiles that were recomputed in FP32.
    """

    def __init__(self, backend: Backend, fallback: Callable[[], Backend]) -> None:
        self._backend, self._open_fallback = backend, fallback
        self._fallback: Backend | None = None
        self.redone = 0

    def sample(self, batches: Iterable[Tiles], schedule: Schedule) -> Iterator[Array]:
        """As :meth:`ssdiff_trt.runtime.backends.protocol.Backend.sample`, with finite images.

        Raises:
            SSDiffError: if the inputs have non-finite values, or FP32 gives some too.
        """
        pending: deque[Tiles] = deque()  # taken by the backend, their images not yet returned

        def remember() -> Iterator[Tiles]:
            for tiles in batches:
                # Rectifiers of an engine may turn a NaN into 0, so the images need not show it.
                if any(_non_finite(array).any() for array in tiles):
                    raise BackendError(
                        "The network was to be given values that are not finite, so no output was "
                        "written; please report this with the inputs."
                    )
                pending.append(tiles)
                yield tiles

        for images in self._backend.sample(remember(), schedule):
            tiles = pending.popleft()
            bad = _non_finite(images)
            if bad.any():
                images[bad] = self._recompute(tiles.part(bad), schedule)
                self.redone += int(bad.sum())
            yield images

    def _recompute(self, tiles: Tiles, schedule: Schedule) -> Array:
        description = self._backend.describe()
        if self._backend.precision != "fp32":
            self._fallback = self._fallback or self._open_fallback()
            description = self._fallback.describe()
            (images,) = self._fallback.sample([tiles], schedule)
            if not _non_finite(images).any():
                return images
        raise BackendError(
            f"{description} produced non-finite values, so no output was written; check the "
            "bundle with ssdiff-trt verify."
        )


def _non_finite(images: Array) -> NDArray[np.bool_]:
    """Which images have a non-finite value, ``[N]``."""
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(images).all(axis=(1, 2, 3)))
    return ~finite
