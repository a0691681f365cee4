"""Stand-in for a backend, without a network."""

from __future__ import annotations

import numpy as np

from tests.support.engines import engine_tiles


class StandIn:
    """A backend that returns the interpolated bands plus a share of PAN and of the noise.

    Both shares make errors of position, order and seed visible in the result.

    Attributes:
        batches: sizes of the batches so far.
    """

    batch = 5
    precision = "fp32"
    device = "cpu"

    def __init__(self, pan=0.0, noise=0.0):
        self.pan, self.noise, self.batches = pan, noise, []

    def sample(self, batches, schedule):
        for tiles in batches:
            yield self.images(*tiles)

    def images(self, noise, pan, lms, ms):
        self.batches.append(len(lms))
        tile = lms.shape[-1]
        assert lms.shape == noise.shape == (len(lms), lms.shape[1], tile, tile)
        assert pan.shape == (len(lms), 1, tile, tile)
        assert ms.shape == (*lms.shape[:2], tile // 4, tile // 4)
        image = lms + self.pan * pan + self.noise * noise
        return image.clip(0, 1).astype(np.float32)

    def describe(self):
        return "stand-in"


def tiles64(count):
    """Random tiles of 64 pixels with 4 bands."""
    rng = np.random.default_rng(0)
    wide = rng.random((count, 4, 64, 64), np.float32)
    pan = rng.random((count, 1, 64, 64), np.float32)
    return engine_tiles(0)._replace(noise=wide, pan=pan, lms=wide, ms=wide[:, :, ::4, ::4])
