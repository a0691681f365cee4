"""What a run refuses, what it warns of, and what it never leaves behind."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from ssdiff_trt.runtime.errors import SSDiffError
from tests.support.backends import StandIn
from tests.support.progress import RecordingProgress
from tests.support.rasters import interpolated, leftovers, read_raster, smooth
from tests.support.scenes import REFUSALS


def test_an_existing_output_is_kept_unless_told_otherwise(make_pair, run, tmp_path):
    pair = make_pair()
    (tmp_path / "out.tif").write_text("precious")
    with pytest.raises(SSDiffError, match="exists; give another `output` or pass `overwrite`"):
        run(pair)
    assert (tmp_path / "out.tif").read_text() == "precious"
    run(pair, overwrite=True)
    assert read_raster(tmp_path / "out.tif").shape == (4, 160, 192)
    with pytest.raises(SSDiffError, match="is one of the inputs"):
        run(pair, name="pan.tif", overwrite=True)


@pytest.mark.parametrize(("changes", "sentence"), REFUSALS)
def test_what_is_no_pair_leaves_no_output(make_pair, run, tmp_path, changes, sentence):
    with pytest.raises(SSDiffError, match=sentence):
        run(make_pair(**changes))
    assert not leftovers(tmp_path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"bands": (1, 2, 3)},
            r"gives 3 bands and the bundle generic4 is for 4 \(blue, green, red, nir\)",
        ),
        ({"steps": 3, "timesteps": [5]}, "Both `steps` and `timesteps`"),
        ({"timesteps": [1000]}, "not a schedule"),
        ({"seed": -1}, "The seed -1 does not work"),
        ({"batch": 0}, "^0 does not work; give a number of 1 or more"),
        ({"tile_overlap": 7}, "tile overlap of 7 pixels does not work"),
        ({"full_scale": 0}, "full scale of 0 does not work"),
        ({"full_scale": 10, "pan_full_scale": 0}, "full scale of 0 does not work"),
        ({"full_scale": float("inf")}, "full scale of inf does not work"),
        ({"bands": (1, 1, 2, 3)}, "name one twice"),
        ({"nodata": 70000}, "The nodata value 70000 cannot occur in uint16"),
        ({"nodata": float("nan")}, "The nodata value nan cannot occur in uint16"),
        ({"dtype": "complex64"}, "The dtype 'complex64' is unknown"),
        ({"driver": "PNG"}, "The driver 'PNG' is unknown; choose one of GTiff, COG"),
        ({"creation_options": {"dtype": "float32"}}, "DTYPE is no creation option of GTiff"),
        ({"creation_options": {"COMPRESS": "JPEG"}}, "GTiff cannot be written like that"),
        (
            {"driver": "COG", "creation_options": {"COMPRESS": "JPEG"}},
            "COG cannot be written like that",
        ),
        ({"threads": 2**40}, "1099511627776 does not work"),
        ({"backend": "cuda"}, "The backend 'cuda' is unknown"),
        (
            {"creation_options": {"COMPRESS": "NONSENSE"}},
            "A creation option does not work: 'NONSENSE' is an unexpected value",
        ),
        (
            {"driver": "COG", "creation_options": {"FOO": "1"}},
            "COG does not support creation option FOO",
        ),
        ({"name": "pan.tif/out.tif"}, "pan.tif is not a directory that can be written to"),
        ({"name": "out.png"}, "is no name for one; end in .tif"),
    ],
)
def test_options_that_do_not_work_are_refused(make_pair, run, tmp_path, options, sentence):
    with pytest.raises(SSDiffError, match=sentence):
        run(make_pair(), **options)
    assert not leftovers(tmp_path)


def test_the_shipped_bundle_is_found_by_the_number_of_bands(make_pair, run):
    result = run(make_pair(), "onnxruntime", bundle=None)
    assert result.plan.bundle.manifest.name == "generic4"
    with pytest.raises(SSDiffError, match="gives 3 bands and the bundle generic4 is for 4"):
        run(make_pair(bands=3), bundle=None, name="other.tif")


class Broken(StandIn):
    """A backend that fails at the second batch."""

    def __init__(self, failure):
        super().__init__()
        self.failure = failure

    def images(self, *tiles):
        image = super().images(*tiles)
        if len(self.batches) == 2:
            if isinstance(self.failure, BaseException):
                raise self.failure
            image[0, 0, 5, 5] = self.failure
        return image


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (float("nan"), SSDiffError),
        (float("inf"), SSDiffError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (RuntimeError("boom"), RuntimeError),
    ],
)
def test_a_run_that_fails_leaves_no_output(make_pair, run, tmp_path, failure, raised):
    """And finished blocks, which the same command continues with, only if it may."""
    pair = make_pair()
    for options in ({}, {"block": 64, "resume": False}):
        with pytest.raises(raised):
            run(pair, Broken(failure), **options)
        assert not leftovers(tmp_path)
    progress = RecordingProgress()
    with pytest.raises(raised):
        run(pair, Broken(failure), block=48, batch=1, progress=progress)
    assert leftovers(tmp_path) == [".out.tif.unfinished"]
    assert progress.notes[-1] == (
        f"Finished so far: 1 of 16 blocks, kept in {tmp_path / '.out.tif.unfinished'}; the same "
        "command continues from there"
    )


def test_a_fourth_byte_band_that_gdal_calls_alpha_can_be_chosen(make_pair, run):
    pixels = (smooth((4, 40, 48)) // 8).astype(np.uint8)
    pair = make_pair(ms={"pixels": pixels})
    with rasterio.open(pair[1]) as file:
        assert file.colorinterp[3] == ColorInterp.alpha
    with pytest.raises(SSDiffError, match="four 8-bit bands and the last is marked as alpha"):
        run(pair)
    result = run(pair, bands=(1, 2, 3, 4), full_scale=255, pan_full_scale=2047)
    with rasterio.open(result.output) as file:
        assert ColorInterp.alpha not in file.colorinterp
        assert file.count == 4
        np.testing.assert_allclose(file.read(), interpolated(pixels), atol=1)
    assert result.counts.invalid_pixels == 0


def test_a_damaged_input_is_told_and_leaves_nothing(make_pair, run, tmp_path):
    pan, ms = make_pair(pan={"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "lzw"})
    content = bytearray(pan.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3000] = bytes(3000)
    pan.write_bytes(content)
    with pytest.raises(SSDiffError, match=r"pan.tif is damaged at rows \d+ to \d+"):
        run((pan, ms))
    assert not leftovers(tmp_path)


def test_a_quicklook_overwrites_nothing_without_being_told(make_pair, run, tmp_path):
    pair = make_pair()
    (tmp_path / "out.png").write_text("precious")
    with pytest.raises(SSDiffError, match=r"out.png exists"):
        run(pair, quicklook=True)
    assert (tmp_path / "out.png").read_text() == "precious"
    assert leftovers(tmp_path) == ["out.png"]


def test_what_belonged_to_an_overwritten_file_goes_with_it(make_pair, run, tmp_path):
    pair = make_pair(640, 640)
    run(pair)
    for suffix in (".ovr", ".aux.xml"):
        (tmp_path / f"out.tif{suffix}").write_text("of the old file")
    run(pair, overwrite=True)
    assert leftovers(tmp_path) == ["out.tif"]


def test_a_link_stays_a_link(make_pair, run, tmp_path):
    (tmp_path / "real.tif").write_text("old")
    (tmp_path / "out.tif").symlink_to(tmp_path / "real.tif")
    run(make_pair(), overwrite=True)
    assert (tmp_path / "out.tif").is_symlink()
    assert read_raster(tmp_path / "real.tif").shape == (4, 160, 192)


@pytest.mark.parametrize("name", [".", "..", "/", "sub"])
def test_a_directory_is_no_name_for_a_result(make_pair, run, tmp_path, monkeypatch, name):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SSDiffError, match="is a directory; name a file for the result"):
        run(make_pair(), name=name)


def test_a_result_that_appears_meanwhile_is_kept(make_pair, run, tmp_path):
    class Rival(StandIn):
        def images(self, *tiles):
            (tmp_path / "out.tif").write_text("the other run's")
            return super().images(*tiles)

    with pytest.raises(SSDiffError, match="was created by another program; it is kept"):
        run(make_pair(), Rival(), resume=False)
    assert (tmp_path / "out.tif").read_text() == "the other run's"
    assert leftovers(tmp_path) == ["out.tif"]


def test_what_looks_wrong_is_told_before_or_after(make_pair, run):
    names = ("red", "green", "blue", "nir")
    progress = RecordingProgress()
    pair = make_pair(ms={"descriptions": names})
    run(pair, progress=progress, dtype="uint8", bands=(1, 2, 3, 4))
    told = "bands 1, 3 of MS are red, blue (as they are named) and taken as blue, red;"
    assert progress.warnings[0].startswith(told)
    assert "did not fit into the data type of the result" in progress.warnings[1]
    progress = RecordingProgress()
    pixels = smooth((1, 160, 192))
    pixels[:, 50:60, 50:60] = 5400
    pixels[:, :40] = 0
    pair = make_pair(pan={"pixels": pixels}, ms={"nodata": 65535})
    run(pair, name="b.tif", progress=progress, shift="none")  # these show different places
    assert "of the sampled PAN pixels are 0 and no nodata is declared" in progress.warnings[0]
    assert "the largest PAN value in a sample is" in progress.warnings[1]
    assert "valid pixels of PAN below 0 or above full scale 2047" in progress.warnings[2]


def test_reflectance_is_refused_until_full_scale_is_stated(make_pair, run):
    pixels = (smooth((4, 40, 48)) / 2047).astype(np.float32)
    pan = {"pixels": (smooth((1, 160, 192)) / 2047).astype(np.float32)}
    with pytest.raises(SSDiffError, match=r"PAN holds fractions, up to .* `full_scale=1`"):
        run(make_pair(ms={"pixels": pixels}, pan=pan))
    result = run(make_pair(ms={"pixels": pixels}, pan=pan), full_scale=1)
    np.testing.assert_allclose(read_raster(result.output).mean(), pixels.mean(), rtol=0.02)
