"""A VRT of the blocks that are finished, while a run goes on."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from ssdiff_trt.runtime.errors import OutputError
from tests.support.backends import StandIn
from tests.support.rasters import leftovers, read_raster, smooth


class Watching(StandIn):
    """Reads the live view at some tiles."""

    def __init__(self, path, tiles=(0, 30)):
        super().__init__(pan=0.2, noise=0.01)
        self.path, self.tiles, self.seen = path, tiles, []

    def images(self, *tiles):
        if len(self.batches) in self.tiles:
            with rasterio.open(self.path) as file:
                seen = file.read(), file.dataset_mask() > 0, file.tags()["SSDIFF_STATUS"]
                self.seen.append(seen)
                self.profile, self.colours = (file.profile, file.descriptions), file.colorinterp
        return super().images(*tiles)


@pytest.mark.parametrize("marked", ["nothing", "nodata", "mask"])
@pytest.mark.parametrize("resume", [True, False])
def test_finished_blocks_are_shown_where_they_lie(make_pair, run, tmp_path, marked, resume):
    valid = np.ones((40, 48), bool)
    valid[2:9, 10:30] = False
    given = {"nothing": {}, "nodata": {"nodata": 0}, "mask": {"mask": valid}}[marked]
    pixels = smooth((4, 40, 48), seed=2)
    pixels = pixels * valid if marked == "nodata" else pixels
    pair = make_pair(ms={"pixels": pixels, "descriptions": ("blue", "green", "red", "n"), **given})
    live = tmp_path / "a live & < view.vrt"
    backend = Watching(live)
    result = run(pair, backend, live=str(live), block=48, batch=1, shift="none", resume=resume)
    (_, nothing, first), (image, mask, status) = backend.seen
    assert not nothing.any()
    assert first == "partial: 0 of 16 blocks are finished"
    assert status.endswith(" of 16 blocks are finished")
    assert status.split()[1] != "0"
    with rasterio.open(result.output) as file:
        expected = file.dataset_mask() > 0
        assert backend.profile[0]["crs"] == file.crs
        assert backend.profile[0]["transform"] == file.transform
        assert backend.profile[1] == file.descriptions == ("blue", "green", "red", "n")
        assert backend.colours == file.colorinterp
    assert 0.2 < mask.mean() < 0.8
    assert not (mask & ~expected).any()
    np.testing.assert_array_equal(image[:, mask], read_raster(result.output)[:, mask])
    assert not live.exists()
    assert sorted(leftovers(tmp_path)) == ["out.tif"]


def test_a_view_that_a_killed_run_left_is_replaced_and_other_files_are_not(
    make_pair, run, tmp_path
):
    pair = make_pair()
    live = tmp_path / "live.vrt"
    live.write_text("<VRTDataset>mine</VRTDataset>")
    with pytest.raises(OutputError, match=r"live.vrt exists; give another `live` or pass"):
        run(pair, live=str(live))
    assert live.read_text() == "<VRTDataset>mine</VRTDataset>"
    live.write_text('<MDI key="SSDIFF_STATUS">partial</MDI>')
    run(pair, live=str(live))
    assert not live.exists()


@pytest.mark.parametrize(
    ("name", "sentence"), [("live.tif", "end in .vrt"), ("no/such", "end in .vrt"), ("d.vrt", "is")]
)
def test_a_view_that_cannot_be_written_is_refused(make_pair, run, tmp_path, name, sentence):
    (tmp_path / "d.vrt").mkdir()
    with pytest.raises(OutputError, match=sentence):
        run(make_pair(), live=str(tmp_path / name))
    assert not (tmp_path / "out.tif").exists()


def test_a_failed_run_removes_its_view(make_pair, run, tmp_path):
    class Failing(StandIn):
        def images(self, *tiles):
            if len(self.batches) == 20:
                raise RuntimeError("boom")
            return super().images(*tiles)

    with pytest.raises(RuntimeError):
        run(make_pair(), Failing(), live=str(tmp_path / "live.vrt"), block=48, batch=1)
    assert not (tmp_path / "live.vrt").exists()
