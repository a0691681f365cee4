"""``ssdiff-ref simulate``: Wald's protocol on rasters."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from ssdiff_ref.protocol.simulation import degrade
from ssdiff_ref.protocol.wald import simulate
from ssdiff_ref.quality.filters import REACH, bicubic_quarter
from ssdiff_trt.runtime.errors import SSDiffError, SSDiffWarning
from ssdiff_trt.runtime.raster.affine import product
from ssdiff_trt.runtime.raster.scene import Scene
from ssdiff_trt.runtime.sensors import SENSORS
from tests.support.dlpan import golden_arrays
from tests.support.imagery import GRID, pair, texture, write_pair, write_raster

FILES = ["ms.tif", "pan.tif", "reference.tif"]


def read(path):
    with rasterio.open(path) as file:
        return file.read(), file.dataset_mask() > 0, file.transform, file.nodata


@pytest.fixture
def rasters(tmp_path):
    return write_pair(tmp_path, *pair(0, 4, 48, 40))


def test_files_match_the_toolbox(tmp_path):
    golden = golden_arrays()
    inputs = write_pair(tmp_path, golden["I_PAN"], golden["I_MS"])
    folder = simulate(*inputs, tmp_path / "out", sensor="wv3")
    assert sorted(path.name for path in folder.iterdir()) == FILES
    for name, expected in (
        ("ms", golden["ms_lr"]),
        ("pan", golden["pan_lr"][None]),
        ("reference", golden["I_MS"]),
    ):
        values, valid, *_ = read(folder / f"{name}.tif")
        assert values.dtype == np.uint16
        np.testing.assert_array_equal(values, np.rint(expected))
        assert valid.all()


@pytest.mark.parametrize("crs", ["EPSG:32631", None])
def test_reduced_ms_is_georeferenced_at_the_protocol_s_position(tmp_path, crs):
    inputs = write_pair(tmp_path, *pair(0, 4, 48, 40), crs=crs)
    folder = simulate(*inputs, tmp_path / "out")
    with Scene(folder / "pan.tif", folder / "ms.tif") as scene:
        assert scene.position == (2.0, 2.0)
        assert not scene.resampled
        assert (scene.rows, scene.cols) == (range(48), range(40))


def test_half_pixel_offset_is_written_without_georeferencing_too(tmp_path):
    inputs = write_pair(tmp_path, *pair(0, 4, 48, 40), grid=Affine.identity(), crs=None)
    with rasterio.open(inputs[1], "r+") as file:
        file.transform = Affine.identity()
    folder = simulate(*inputs, tmp_path / "out")
    with Scene(folder / "pan.tif", folder / "ms.tif") as scene:
        assert scene.position == (2.0, 2.0)
        assert not scene.resampled


def test_reduced_pan_and_reference_are_on_the_grid_of_ms(tmp_path, rasters):
    folder = simulate(*rasters, tmp_path / "out")
    for name in ("pan", "reference"):
        assert read(folder / f"{name}.tif")[2].almost_equals(product(GRID, Affine.scale(4)), 1e-9)
    # Pixel 0 of the reduced MS is centred on pixel 2 of the original MS.
    centre = product(read(folder / "ms.tif")[2], (0.5, 0.5))
    assert centre == pytest.approx(product(GRID, Affine.scale(4), (2.5, 2.5)))


def test_pan_is_resampled_to_the_grid_of_ms_when_that_is_offset(tmp_path):
    rows, columns = np.mgrid[:192, :160].astype("float32")
    pan = write_raster(tmp_path / "pan.tif", 100 + 3 * rows + columns)
    ms = write_raster(
        tmp_path / "ms.tif",
        texture(0, 4, 48, 40).astype("float32"),
        product(GRID, Affine.translation(0.25, 0.5), Affine.scale(4)),
    )
    folder = simulate(pan, ms, tmp_path / "out")
    values, _, transform, _ = read(folder / "pan.tif")
    height, width = values.shape[1:]
    col, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    pan_col, pan_row = product(~GRID, product(transform, (col, row)))
    expected = 100 + 3 * (pan_row - 0.5) + pan_col - 0.5
    inner = np.s_[2:-2, 2:-2]  # mirroring distorts the ramp at the edges
    np.testing.assert_allclose(values[0][inner], expected[inner], rtol=1e-6)


def test_bicubic_is_centred_at_position():
    ramp = np.arange(64.0)[:, None] + np.zeros(64)
    shrunk = bicubic_quarter(ramp, (1.75, 1.5))
    np.testing.assert_allclose(shrunk[2:-2, 4], 4 * np.arange(2, 14) + 1.75)
    still = bicubic_quarter(ramp, (1.5, 1.1))
    np.testing.assert_allclose(still, bicubic_quarter(ramp))


def test_output_covers_whole_ms_pixels_inside_both_rasters(tmp_path):
    pan, ms = pair(0, 4, 48, 40)
    inputs = (
        write_raster(tmp_path / "pan.tif", pan[3:, 5:-2], product(GRID, Affine.translation(5, 3))),
        write_raster(tmp_path / "ms.tif", ms, product(GRID, Affine.scale(4))),
    )
    with Scene(*inputs) as scene:
        assert scene.whole == (range(1, 189), range(3, 151))
    folder = simulate(*inputs, tmp_path / "out")
    reference, _, transform, _ = read(folder / "reference.tif")
    np.testing.assert_array_equal(reference, ms[:, 1:45, 2:38])
    assert transform.almost_equals(product(GRID, Affine.translation(8, 4), Affine.scale(4)), 1e-9)


def test_pixels_that_nodata_was_filtered_into_are_nodata(tmp_path):
    pan, ms = pair(0, 4, 64, 64)
    pan[100:110, 100:110] = 0
    ms[:, 40, 20] = 0
    rasters = write_pair(tmp_path, pan, ms, nodata=0)
    folder = simulate(*rasters, tmp_path / "out")
    reference, valid, _, nodata = read(folder / "reference.tif")
    assert nodata == 0
    np.testing.assert_array_equal(valid, (ms != 0).any(axis=0))
    np.testing.assert_array_equal(reference, ms)
    pan_valid = read(folder / "pan.tif")[1]
    rows = np.arange(64) * 4
    affected = (rows - 6 < 110) & (rows + 9 >= 100)
    np.testing.assert_array_equal(pan_valid, ~np.outer(affected, affected))
    sampled = np.arange(16) * 4 + 2
    near = np.outer(abs(sampled - 40) <= REACH, abs(sampled - 20) <= REACH)
    ms_lr, ms_valid, *_ = read(folder / "ms.tif")
    np.testing.assert_array_equal(ms_valid, ~near)
    # The hole is filled before filtering, so pixels far from it are unaffected.
    whole_ms = pair(0, 4, 64, 64)[1]
    clean = degrade(whole_ms, pair(0, 4, 64, 64)[0], SENSORS["generic"])[0]
    np.testing.assert_array_equal(ms_lr[:, ms_valid], np.rint(clean)[:, ms_valid])


def test_invalid_pixels_become_a_mask_when_there_is_no_nodata_value(tmp_path):
    pan, ms = pair(0, 4, 64, 64)
    pan = pan.astype("float32")
    pan[:20, :20] = np.nan
    folder = simulate(*write_pair(tmp_path, pan, ms), tmp_path / "out")
    values, valid, _, nodata = read(folder / "pan.tif")
    assert nodata is None
    assert np.isfinite(values).all()
    assert not valid[:5, :5].any()
    assert valid[8:, 8:].all()


def test_either_all_files_are_written_or_none(tmp_path, rasters, monkeypatch):
    folder = simulate(*rasters, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SSDiffError, match=r"pan.tif exists; give another `output` or pass `over"):
        simulate(*rasters, folder)

    def fails(*_):
        raise RuntimeError

    monkeypatch.setattr("ssdiff_ref.protocol.wald.encode", fails)
    for output in (folder, tmp_path / "other"):
        with pytest.raises(RuntimeError):
            simulate(*rasters, output, overwrite=True)
    monkeypatch.undo()
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ms.tif", "out", "pan.tif"]
    (folder / "notes.txt").touch()
    simulate(*rasters, folder, sensor="qb", overwrite=True)
    assert read(folder / "ms.tif")[0].shape == (4, 12, 10)
    assert sorted(path.name for path in folder.iterdir()) == ["ms.tif", "notes.txt", *FILES[1:]]


def test_inputs_are_never_overwritten(tmp_path, rasters):
    with pytest.raises(SSDiffError, match="is one of the inputs"):
        simulate(*rasters, tmp_path, overwrite=True)


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        (
            (48, 40),
            {"sensor": "wv3", "bands": (1, 2, 3)},
            "The image has 3 bands, expected the 8 of WorldView-3",
        ),
        ((3, 40), {}, "PAN and MS share 3 x 40 pixels of MS, expected 4 x 4 or more"),
        ((48, 40), {"nodata": 7}, "is nodata or within 20 pixels of it"),
        ((48, 40), {"output": "ms.tif"}, "ms.tif is a file, expected a directory"),
    ],
)
def test_unusable_input_is_rejected_without_output(tmp_path, sizes, options, message):
    pan, ms = pair(0, 4, *sizes)
    if "nodata" in options:
        ms[:, 24:28, 20:24] = 7
        ms = np.where(np.indices(ms.shape[1:]).sum(axis=0) % 9, ms, 7)
    inputs = write_pair(tmp_path, pan, ms)
    output = tmp_path / options.pop("output", "out")
    with pytest.raises(SSDiffError, match=message):
        simulate(*inputs, output, **options)
    assert not (tmp_path / "out").exists()


def test_warped_ms_keeps_its_nodata(tmp_path):
    pan, ms = pair(0, 4, 64, 64)
    ms[:, 20:40, 20:40] = 0
    turned = product(GRID, Affine.rotation(2, (128, 128)), Affine.scale(4))
    inputs = (
        write_raster(tmp_path / "pan.tif", pan),
        write_raster(tmp_path / "ms.tif", ms, turned, nodata=0),
    )
    with pytest.warns(SSDiffWarning, match="MS had to be warped"):
        folder = simulate(*inputs, tmp_path / "out")
    reference, valid, *_ = read(folder / "reference.tif")
    assert not valid[24:36, 24:36].any()
    assert valid[8:16, 8:56].all()
    assert reference[:, valid].min() > 100  # the hole was not interpolated into valid pixels
    with Scene(folder / "pan.tif", folder / "ms.tif") as scene:
        assert (scene.position, scene.resampled) == ((2.0, 2.0), False)
