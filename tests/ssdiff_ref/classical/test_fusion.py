"""``ssdiff-ref fuse``: classical methods on rasters."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from scipy import ndimage

from ssdiff_ref.classical.baselines import METHODS
from ssdiff_ref.classical.fusion import fuse
from ssdiff_ref.protocol.pair import Pair
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.interpolator import interpolate
from ssdiff_trt.runtime.raster.affine import product
from ssdiff_trt.runtime.sensors import SENSORS
from tests.support.dlpan import golden_arrays
from tests.support.imagery import GRID, pair, write_pair, write_raster
from tests.support.progress import RecordingProgress
from tests.support.rasters import smooth


def read(path):
    with rasterio.open(path) as file:
        return file.read(), file.dataset_mask() > 0


def protocol_pair(folder, pan, ms):
    """Rasters in the protocol's geometry: MS is offset by half a PAN pixel."""
    shifted = product(GRID, Affine.translation(0.5, 0.5), Affine.scale(4))
    return write_raster(folder / "pan.tif", pan), write_raster(folder / "ms.tif", ms, shifted)


@pytest.mark.parametrize("method", METHODS)
def test_raster_is_fused_like_its_arrays(tmp_path, method):
    golden = golden_arrays()
    pan, ms = golden["I_PAN"], golden["I_MS"]
    inputs = protocol_pair(tmp_path, pan.astype("float32"), ms.astype("float32"))
    output = fuse(*inputs, tmp_path / "f.tif", method=method.lower(), sensor="wv3")
    fused, valid = read(output)
    assert valid.all()
    # The toolbox wraps around at the edges; rasters are mirrored.
    lms = interpolate(ms.astype(float), "symmetric")
    expected = METHODS[method](Pair(pan, ms, lms, SENSORS["wv3"]))
    np.testing.assert_allclose(fused, expected, rtol=1e-4, atol=1e-2)


def test_exp_is_aligned_with_ms(tmp_path):
    rows, columns = np.mgrid[:48, :40]
    ms = np.stack([100 + 20 * rows + 8 * columns] * 4).astype("float32")
    inputs = write_pair(tmp_path, np.ones((192, 160), "float32"), ms)
    fused, _ = read(fuse(*inputs, tmp_path / "f.tif", method="exp"))
    rows, columns = np.mgrid[:192, :160]
    expected = 100 + 20 * (rows - 1.5) / 4 + 8 * (columns - 1.5) / 4
    inner = np.s_[40:-40, 40:-40]
    np.testing.assert_allclose(fused[0][inner], expected[inner], rtol=1e-3)


def test_output_has_the_grid_and_metadata_of_a_run(tmp_path, monkeypatch):
    pan, ms = pair(0, 4, 48, 40)
    ms[:, :5] = 0
    inside = product(GRID, Affine.translation(5, 3))
    inputs = (
        write_raster(tmp_path / "pan.tif", pan[3:, 5:-2], inside, nodata=0),
        write_raster(tmp_path / "ms.tif", ms, product(GRID, Affine.scale(4)), nodata=0),
    )
    monkeypatch.chdir(tmp_path)
    output = fuse(*inputs, method="Gsa", sensor="qb")
    assert output.name == "ms_gsa.tif"
    with rasterio.open(inputs[0]) as source, rasterio.open(output) as file:
        assert (file.shape, file.transform, file.crs) == (
            source.shape,
            source.transform,
            source.crs,
        )
        assert (file.nodata, set(file.dtypes), file.count) == (0, {"uint16"}, 4)
        assert file.tags()["SSDIFF_METHOD"] == "GSA"
        assert file.tags()["SSDIFF_SENSOR"] == "qb"
        valid = file.dataset_mask() > 0
    assert not valid[:17].any()
    assert valid[17:].all()


def test_nodata_values_do_not_affect_statistics(tmp_path):
    pan, ms = pair(0, 4, 48, 48)
    images = []
    for folder, value in (("a", 0), ("b", 65535)):
        (tmp_path / folder).mkdir()
        ms_with_nodata, pan_with_nodata = ms.copy(), pan.copy()
        ms_with_nodata[:, 30:38, 10:20] = value
        pan_with_nodata[:10, 60:80] = value
        inputs = write_pair(tmp_path / folder, pan_with_nodata, ms_with_nodata, nodata=value)
        images.append(read(fuse(*inputs, tmp_path / folder / "f.tif", method="MTF-GLP-HPM-R")))
    (first, first_valid), (second, second_valid) = images
    np.testing.assert_array_equal(first_valid, second_valid)
    assert 0 < first_valid.mean() < 1
    np.testing.assert_array_equal(first[:, first_valid], second[:, second_valid])


FLAT = [method for method in METHODS if method not in ("GS", "GSA")]
"""Methods that need no contrast."""


@pytest.mark.parametrize("method", FLAT)
@pytest.mark.parametrize("bands", [4, 3])
def test_flat_imagery_stays_flat(tmp_path, method, bands):
    pan, ms = np.full((128, 128), 700, "uint16"), np.full((bands, 32, 32), 1000, "uint16")
    fused, _ = read(fuse(*write_pair(tmp_path, pan, ms), tmp_path / "f.tif", method=method))
    np.testing.assert_array_equal(fused, 1000)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("unit", ["dark counts", "negative reflectance"])
def test_dark_and_negative_imagery_stays_in_the_range_of_imagery(tmp_path, method, unit):
    rng = np.random.default_rng(0)
    if unit == "dark counts":
        pan, ms = (rng.poisson(2, shape).astype("uint8") for shape in ((128, 128), (3, 32, 32)))
    else:
        pan, ms = (image.astype("int16") - 900 for image in pair(0, 4, 32, 32))
    spread = float(max(ms.max() - ms.min(), pan.max()) - min(pan.min(), 0))
    inputs = write_pair(tmp_path, pan, ms)
    progress = RecordingProgress()
    fused, _ = read(fuse(*inputs, tmp_path / "f.tif", method=method, progress=progress))
    assert fused.max() < ms.max() + 5 * spread
    assert fused.min() > float(ms.min()) - 5 * spread
    if unit == "dark counts" and method not in ("EXP", "GS"):
        assert any("did not fit" in note for note in progress.notes)
    within = (fused >= ms.min() - spread) & (fused <= ms.max() + spread)
    assert within.mean() > 0.97


def test_clipped_values_are_counted(tmp_path):
    pan, ms = pair(0, 4, 32, 32)
    inputs = write_pair(tmp_path, pan, ms)
    progress = RecordingProgress()
    fuse(*inputs, tmp_path / "f.tif", method="GS", dtype="float32", progress=progress)
    fused, _ = read(tmp_path / "f.tif")
    assert not any("did not fit" in note for note in progress.notes)
    too_large = int((np.round(fused) > 255).sum() + (np.round(fused) < 0).sum())
    assert too_large > 1000
    fuse(*inputs, tmp_path / "g.tif", method="GS", dtype="uint8", progress=progress)
    (told,) = [note for note in progress.notes if "did not fit" in note]
    assert told.startswith(f"{too_large} values ".replace(",", "")) or f"{too_large:,}" in told


def ground_pair(folder, seed=0, offset=(0.0, 0.0)):
    """Truth, and rasters of PAN, its weighted sum, and MS, blurred and sampled where it is said."""
    rng = np.random.default_rng(seed)
    shape = np.hypot(np.fft.fftfreq(320)[:, None], np.fft.fftfreq(320)) + 0.004
    fields = [np.fft.ifft2(np.fft.fft2(rng.normal(size=(320, 320))) / shape).real for _ in range(5)]
    fields = [field / field.std() for field in fields]
    truth = np.stack([600 + 100 * (fields[4] + 0.3 * field) for field in fields[:4]])
    pan = np.tensordot([0.1, 0.4, 0.3, 0.2], truth, axes=1)
    blurred = ndimage.gaussian_filter(truth, (0, 1.976, 1.976))
    places = [np.arange(64, 256, 4) + 1.5 + moved for moved in offset]
    grid = np.meshgrid(*places, indexing="ij")
    ms = np.stack([ndimage.map_coordinates(band, grid, order=5) for band in blurred])
    inside = np.s_[..., 64:256, 64:256]
    placed = product(GRID, Affine.translation(offset[1], offset[0]), Affine.scale(4))
    inputs = (
        write_raster(folder / "pan.tif", pan[inside].astype("float32")),
        write_raster(folder / "ms.tif", ms.astype("float32"), placed),
    )
    return truth[inside], inputs


def rms(error):
    return float(np.sqrt((error**2).mean()))


@pytest.mark.parametrize("method", ["GSA", "MTF-GLP-FS", "MTF-GLP-HPM-R", "BDSD-PC"])
@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.5, 0.5), (-0.7, 1.2)])
def test_detail_is_where_ms_lies_and_edges_are_as_good_as_the_inside(tmp_path, method, offset):
    truth, inputs = ground_pair(tmp_path, offset=offset)
    fused, _ = read(fuse(*inputs, tmp_path / "f.tif", method=method))
    lms, _ = read(fuse(*inputs, tmp_path / "e.tif", method="EXP"))
    with rasterio.open(tmp_path / "f.tif") as file:
        left, top = (round(place) for place in product(~GRID, file.transform, (0, 0)))
    truth = truth[:, top : top + fused.shape[1], left : left + fused.shape[2]]
    inner = np.s_[:, 24:-24, 24:-24]
    assert rms((fused - truth)[inner]) < 0.45 * rms((lms - truth)[inner])
    for border in (np.s_[:, 2:10, 24:-24], np.s_[:, 24:-24, -10:-2]):
        assert rms((fused - truth)[border]) < 1.5 * rms((fused - truth)[inner])


def test_gsa_finds_the_weights_of_pan_where_ms_lies(tmp_path):
    truth, inputs = ground_pair(tmp_path)
    (pan,), ms = read(inputs[0])[0], read(inputs[1])[0]
    lms = interpolate(ms.astype(float), position=(1.5, 1.5))
    errors = {}
    for place in (1.5, 2.0):
        of_place = Pair(pan, ms, lms, SENSORS["generic"], position=(place, place))
        fused = METHODS["GSA"](of_place)
        errors[place] = rms((fused - truth)[:, 24:-24, 24:-24])
    assert errors[1.5] < 0.999 * errors[2.0], errors
    fused, _ = read(fuse(*inputs, tmp_path / "f.tif", method="GSA"))
    assert rms((fused - truth)[:, 24:-24, 24:-24]) == pytest.approx(errors[1.5], rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "pca"}, "The method 'pca' is unknown, expected one of EXP, Brovey, BT-H, GS,"),
        (
            {"method": "gs", "sensor": "wv2", "bands": (1, 2, 3)},
            "has 3 bands, expected the 8 of WorldView-2",
        ),
        ({"method": "gs", "bands": [1, 5]}, "ms.tif has no band 5; it has 4"),
        ({"method": "gs", "nodata": 5}, "have no pixel that is valid in both"),
        ({"method": "gsa"}, "GSA divides by zero on .*ms.tif"),
    ],
)
def test_unusable_input_is_rejected_without_output(tmp_path, options, message):
    inputs = write_pair(tmp_path, np.full((64, 64), 5, "uint16"), np.full((4, 16, 16), 5, "uint16"))
    with pytest.raises(SSDiffError, match=message):
        fuse(*inputs, tmp_path / "f.tif", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ms.tif", "pan.tif"]


def test_generic_sensor_takes_any_number_of_bands(tmp_path):
    inputs = write_pair(tmp_path, *pair(0, 3, 16, 16))
    fused, _ = read(fuse(*inputs, tmp_path / "f.tif", method="mtf-glp"))
    assert fused.shape == (3, 64, 64)


def test_pixels_that_seem_empty_are_warned_of(make_pair, tmp_path):
    pixels = smooth((4, 40, 48)).astype(np.int16)
    pixels[:, :8] = -9999
    progress = RecordingProgress()
    fuse(*make_pair(ms={"pixels": pixels}), tmp_path / "o.tif", method="EXP", progress=progress)
    assert any("pass `ms_nodata=-9999`" in warning for warning in progress.warnings)
