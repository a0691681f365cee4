"""Arrays as source and sink: the same pixels as rasters give, and nothing on the disk."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from ssdiff_trt.runtime.arrays import ArrayPair
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.options import ReadOptions
from ssdiff_trt.runtime.pansharpener import Pansharpener
from ssdiff_trt.runtime.raster.scene import Scene
from tests.support.backends import StandIn
from tests.support.progress import RecordingProgress
from tests.support.rasters import read_raster, smooth


@pytest.fixture
def arrays():
    return smooth((1, 160, 192), seed=1)[0], smooth((4, 40, 48), seed=2)


@pytest.fixture
def sharpen(standin4):
    return Pansharpener(
        standin4, backend=StandIn(pan=0.2, noise=0.01), progress=RecordingProgress()
    )


@pytest.mark.parametrize("dtype", ["uint16", "float32", "uint8"])
@pytest.mark.parametrize("shift", ["none", (1.3, -2.6)])
def test_arrays_give_the_pixels_that_rasters_give(make_pair, run, sharpen, arrays, dtype, shift):
    options = {"full_scale": 2047, "dtype": dtype, "shift": shift}
    raster = run(make_pair(), StandIn(pan=0.2, noise=0.01), **options)
    image = sharpen(*arrays, **options)
    assert image.dtype == dtype
    assert not np.ma.isMaskedArray(image)
    np.testing.assert_array_equal(image, read_raster(raster.output))


@pytest.mark.parametrize("how", ["nan", "mask", "nodata"])
def test_holes_of_arrays_are_holes_of_the_result(sharpen, arrays, how):
    pan, ms = (array.astype(np.float32) for array in arrays)
    options = {"full_scale": 2047, "shift": "none"}
    whole = sharpen(pan, ms, **options)
    hole = np.s_[:, 30:34, 20:24]
    if how == "mask":
        ms = np.ma.MaskedArray(ms, np.zeros(ms.shape, bool))
        ms[hole] = np.ma.masked
    else:
        ms[hole] = np.nan if how == "nan" else -7
    if how == "nodata":
        options["nodata"] = -7
    image = sharpen(pan, ms, **options)
    expected = np.zeros(pan.shape, bool)
    expected[120:136, 80:96] = True
    assert isinstance(image, np.ma.MaskedArray)
    np.testing.assert_array_equal(image.mask, np.broadcast_to(expected, image.shape))
    filled = image.data[:, expected]
    assert (filled == -7).all() if how == "nodata" else np.isnan(filled).all()
    far = np.s_[:, :64]  # beyond the reach of the interpolator
    np.testing.assert_array_equal(image.data[far], whole[far])


def test_the_source_reads_what_a_scene_reads(make_pair, arrays):
    pair = ArrayPair(*arrays, ReadOptions(bands=(3, 1)))
    with Scene(*make_pair(), ReadOptions(bands=(3, 1))) as scene:
        assert (pair.rows, pair.cols, pair.output) == (scene.rows, scene.cols, scene.output)
        assert (pair.whole, pair.position) == (scene.whole, scene.position)
        for moved in ((0, 0), (2.5, -3.25), (9, 0)):
            other, expected = pair.moved(*moved), scene.moved(*moved)
            assert other.placement == expected.placement
            rows, cols = other.rows[-64:], other.cols[-32:]
            got, wanted = other.read(rows, cols), expected.read(rows, cols)
            for name in ("pan", "pan_valid", "ms", "ms_valid"):
                np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))


def test_a_fingerprint_is_that_of_the_values(arrays):
    pan, ms = arrays
    first = ArrayPair(pan, ms).fingerprint()
    assert ArrayPair(pan.copy(), ms.copy()).fingerprint() == first
    for change in ({"pan": pan + 1}, {"ms": ms[::-1]}, {"ms": np.ma.masked_equal(ms, ms[0, 0, 0])}):
        assert ArrayPair(**{"pan": pan, "ms": ms, **change}).fingerprint() != first


@pytest.mark.parametrize(
    ("pan", "ms", "options", "sentence"),
    [
        ((1, 64, 64), (4, 16, 16), {}, r"shapes \[1, 64, 64\] and \[4, 16, 16\], expected PAN"),
        ((64, 64), (0, 16, 16), {}, r"shapes \[64, 64\] and \[0, 16, 16\], expected PAN"),
        ((64, 64), (16, 16), {}, "rearrange their axes"),
        ((64, 64), (4, 32, 32), {}, "A pixel of MS array is 2 x 2 pixels of PAN array"),
        ((64, 64), (5, 16, 16), {"bands": (1, 6)}, "has no band 6; it has 5"),
        (
            (64, 64),
            (5, 16, 16),
            {"bands": (1, "red")},
            "No band of MS array is named 'red'; the names are: none",
        ),
        ((64, 64), (5, 16, 16), {"bands": (2, 2)}, "name one twice"),
        ((64, 64), (4, 16, 16), {"pan_band": 1}, "A PAN array has one band"),
        ((64, 64), (3, 16, 16), {}, "gives 3 bands and the bundle generic4 is for 4"),
    ],
)
def test_arrays_that_are_no_pair_are_refused(sharpen, pan, ms, options, sentence):
    with pytest.raises(InputError if "bundle" not in sentence else Exception, match=sentence):
        sharpen(np.ones(pan, np.uint16), np.ones(ms, np.uint16), full_scale=2047, **options)


def test_arrays_of_other_kinds_and_files_of_arrays_are_refused(sharpen, arrays, tmp_path):
    pan, ms = arrays
    with pytest.raises(InputError, match="is of complex128, expected real numbers"):
        sharpen(pan + 1j, ms, full_scale=2047)
    with pytest.raises(InputError, match="leave `output` and `quicklook` out"):
        sharpen(pan, ms, tmp_path / "out.tif", full_scale=2047)
    with pytest.raises(InputError, match="are an array and a raster; give two of one kind"):
        sharpen(pan, tmp_path / "ms.tif")


def test_reading_is_mirrored_beyond_an_array(arrays):
    pan, ms = arrays
    pixels = ArrayPair(pan, ms).read(range(-4, 12), range(180, 196))
    expected = np.pad(pan, 4, mode="symmetric")[:16, 184:200]
    np.testing.assert_array_equal(pixels.pan, expected)
    assert pixels.pan_valid.all()


def test_nothing_is_written(sharpen, arrays, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rasterio, "open", lambda *words, **options: pytest.fail("a file"))
    sharpen(*arrays, full_scale=2047)
    assert not list(tmp_path.iterdir())


def test_flat_ground_stays_flat():
    """Within half a percent, with the shipped weights."""
    pan, ms = np.full((96, 96), 1000, np.float32), np.full((4, 24, 24), 1000, np.float32)
    with Pansharpener() as sharpen:
        image = sharpen(pan, ms, full_scale=2047, shift="none")
    np.testing.assert_allclose(image, 1000, atol=5)
