"""Recomputation of tiles with non-finite values."""

from __future__ import annotations

import numpy as np
import pytest

from ssdiff_trt.runtime.backends.guard import Guarded
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.schedule import make_schedule
from tests.support.backends import StandIn, tiles64
from tests.support.rasters import read_raster

SCHEDULE = make_schedule((999,))


class Half(StandIn):
    """A backend in fp16 that returns a non-finite value for tiles with a mean above a limit."""

    precision = "fp16"

    def __init__(self, limit, value=np.nan):
        super().__init__(pan=0.2)
        self.limit, self.value = limit, value

    def images(self, *tiles):
        images = super().images(*tiles)
        images[images.mean(axis=(1, 2, 3)) > self.limit, 0, 3, 3] = self.value
        return images


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_tiles_are_recomputed_in_fp32_and_counted(make_pair, run, value, monkeypatch):
    pair = make_pair()
    expected = read_raster(run(pair, StandIn(pan=0.2), "expected.tif").output)
    fallback, closed = StandIn(pan=0.2), []
    fallback.close = lambda: closed.append(fallback.batches[:])
    monkeypatch.setattr(
        "ssdiff_trt.runtime.networks.open_backend", lambda *names, **options: fallback
    )
    result = run(pair, Half(0.6, value), "half.tif")
    assert 0 < result.counts.redone < result.counts.tiles
    assert sum(fallback.batches) == result.counts.redone
    assert closed == [fallback.batches]
    np.testing.assert_array_equal(read_raster(result.output), expected)


def test_finite_tiles_never_open_the_fallback():
    def refuse():
        raise AssertionError

    guarded = Guarded(Half(limit=9), refuse)
    (images,) = guarded.sample([tiles64(3)], SCHEDULE)
    assert guarded.redone == 0
    assert np.isfinite(images).all()


@pytest.mark.parametrize("name", ["noise", "pan", "lms", "ms"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_that_are_not_finite_never_reach_the_network(name, value):
    """An engine may clamp them away, and the image would look sound."""
    tiles, backend = tiles64(2), StandIn()
    getattr(tiles, name)[1, 0, 2, 3] = value
    with pytest.raises(SSDiffError, match="was to be given values that are not finite"):
        list(Guarded(backend, StandIn).sample([tiles], SCHEDULE))
    assert not backend.batches


class OnlyFirst(StandIn):
    """A backend in FP32 whose images are finite for the first tile of a batch alone."""

    def images(self, *tiles):
        images = super().images(*tiles)
        images[1:, 0, 3, 3] = np.nan
        return images


@pytest.mark.parametrize("fallback", [lambda: Half(limit=-1), OnlyFirst], ids=["none", "one"])
def test_values_that_are_non_finite_in_fp32_too_stop_the_run(fallback):
    guarded = Guarded(Half(limit=-1), fallback)
    with pytest.raises(SSDiffError, match="stand-in produced non-finite values"):
        list(guarded.sample([tiles64(2)], SCHEDULE))
    assert guarded.redone == 0
