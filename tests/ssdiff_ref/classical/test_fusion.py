"""``ssdiff-ref fuse``: classical methods on rasters."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from ssdiff_ref.classical.baselines import METHODS
from ssdiff_ref.classical.fusion import fuse
from ssdiff_ref.protocol.pair import Pair
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.interpolator import interpolate
from ssdiff_trt.runtime.sensors import SENSORS
from tests.support.dlpan import golden_arrays
from tests.support.imagery import GRID, pair, write_pair, write_raster


def read(path):
    with rasterio.open(path) as file:
        return file.read(), file.dataset_mask() > 0


def protocol_pair(folder, pan, ms):
    """Rasters in the protocol's geometry: MS is offset by half a PAN pixel."""
    shifted = GRID * Affine.translation(0.5, 0.5) * Affine.scale(4)
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
    inside = GRID * Affine.translation(5, 3)
    inputs = (
        write_raster(tmp_path / "pan.tif", pan[3:, 5:-2], inside, nodata=0),
        write_raster(tmp_path / "ms.tif", ms, GRID * Affine.scale(4), nodata=0),
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
