"""Tiles that low precision cannot compute."""

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
    """A backend in fp16 whose tiles brighter than a limit come out not finite."""

    precision = "fp16"

    def __init__(self, limit, value=np.nan):
        super().__init__(pan=0.2)
        self.limit, self.value = limit, value

    def images(self, *tiles):
        images = super().images(*tiles)
        images[images.mean(axis=(1, 2, 3)) > self.limit, 0, 3, 3] = self.value
        return images


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_computed_again_in_fp32_and_counted(
    make_pair, run, value, monkeypatch
):
    pair = make_pair()
    sound = read_raster(run(pair, StandIn(pan=0.2), "sound.tif").output)
    again = StandIn(pan=0.2)
    monkeypatch.setattr(
        "ssdiff_trt.runtime.pansharpener.open_backend", lambda *names, **options: again
    )
    result = run(pair, Half(0.6, value), "half.tif")
    assert 0 < result.counts.redone < result.tiles
    assert sum(again.batches) == result.counts.redone
    np.testing.assert_array_equal(read_raster(result.output), sound)


def test_finite_tiles_never_open_the_fallback():
    def refuse():
        raise AssertionError

    guarded = Guarded(Half(limit=9), refuse)
    some = tiles64(3)
    (images,) = guarded.sample([some], SCHEDULE)
    assert guarded.redone == 0
    assert np.isfinite(images).all()


def test_what_fp32_cannot_compute_either_stops_the_run():
    broken = Half(limit=-1)
    with pytest.raises(SSDiffError, match="stand-in gave values that are not finite"):
        list(Guarded(broken, lambda: Half(limit=-1)).sample([tiles64(2)], SCHEDULE))
