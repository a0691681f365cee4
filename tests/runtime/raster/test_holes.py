"""Every hole of PAN and MS is one of the result, at its place, and no other pixel is."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject
from scipy import ndimage

from ssdiff_ref.classical.fusion import fuse
from ssdiff_ref.protocol.wald import simulate
from ssdiff_trt.runtime.arrays import ArrayPair
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.interpolator import HALO
from ssdiff_trt.runtime.options import OutputOptions, ReadOptions
from ssdiff_trt.runtime.raster.affine import product
from ssdiff_trt.runtime.raster.encoding import count_clipped, encode, holds
from ssdiff_trt.runtime.raster.output import RasterOutput
from ssdiff_trt.runtime.raster.scene import Scene
from tests.support.progress import RecordingProgress
from tests.support.rasters import PAN_GRID, read_raster, smooth, write_raster
from tests.support.scenes import MS_GRID

TURNED = product(PAN_GRID, Affine.rotation(3), Affine.translation(-4, -4), Affine.scale(4))
SIZE = (60, 70)
VALID = np.ones(SIZE, bool)
VALID[10:20, 20:30] = False
OTHER = np.roll(VALID, 25, axis=0)
"""Two holes, for images that declare holes in two ways."""


def image(how):
    """MS with holes that are declared in some way, and where it is valid."""
    pixels, known = smooth((4, *SIZE), seed=2), VALID
    profile: dict[str, object] = {"pixels": pixels}
    if how == "0 in all bands":
        pixels[:, ~VALID] = 0
        profile["nodata"] = 0
    elif how == "nodata in one band":
        pixels[2, ~VALID] = 65535
        profile["nodata"] = 65535
    elif how == "mask":
        profile["mask"] = VALID
    elif how == "mask beside nodata":
        pixels[:, ~OTHER] = 0
        profile |= {"nodata": 0, "mask": VALID}
        known = VALID & OTHER
    elif how == "alpha beside nodata":
        pixels[:, ~OTHER] = 0
        alpha = (VALID * 65535).astype(np.uint16)
        profile["pixels"] = np.concatenate([pixels, alpha[None]])
        profile |= {"nodata": 0, "colorinterp": [ColorInterp.gray] * 4 + [ColorInterp.alpha]}
        known = VALID & OTHER
    elif how == "NaN in one band":
        profile["pixels"] = pixels.astype(np.float32)
        profile["pixels"][2, ~VALID] = np.nan
    elif how == "NaN beside nodata":
        profile["pixels"] = pixels.astype(np.float32)
        profile["pixels"][2, ~VALID] = np.nan
        profile["pixels"][1, ~OTHER] = -9999
        profile["nodata"] = -9999
        known = VALID & OTHER
    return profile, known


HOWS = [
    "0 in all bands",
    "nodata in one band",
    "mask",
    "mask beside nodata",
    "alpha beside nodata",
    "NaN in one band",
    "NaN beside nodata",
]


def read(pair, **options):
    """MS and its validity on the grid of a pair, without the halo."""
    with Scene(*pair, ReadOptions(**options)) as scene:
        pixels = scene.read(scene.rows, scene.cols)
        row, col = (
            begin + place - 1.5
            for begin, place in zip(
                (scene.rows.start, scene.cols.start), scene.position, strict=True
            )
        )
        grid = product(scene.pan.transform, Affine.translation(col, row))
    inner = np.s_[..., HALO:-HALO, HALO:-HALO]
    return pixels.ms[inner], pixels.ms_valid[inner], product(grid, Affine.scale(4))


def warped(known, grid, shape):
    """Where the nearest pixel of turned MS is valid."""
    there = np.zeros(shape, np.uint8)
    places = {"src_transform": TURNED, "dst_transform": grid, "src_crs": 32631, "dst_crs": 32631}
    reproject(known.astype(np.uint8), there, resampling=Resampling.nearest, **places)
    return there > 0


@pytest.mark.parametrize("how", HOWS)
def test_a_hole_is_one_on_ms_s_own_grid_and_on_another(make_pair, how):
    size = {"height": 240, "width": 280}
    profile, known = image(how)
    values, valid, _ = read(make_pair(**size, ms={**profile, "transform": MS_GRID}))
    np.testing.assert_array_equal(valid, known)
    np.testing.assert_array_equal(values[:, valid], profile["pixels"][:4, known])
    values, valid, grid = read(make_pair(**size, ms={**profile, "transform": TURNED}))
    expected = warped(known, grid, valid.shape)
    there = warped(np.ones(SIZE, bool), grid, valid.shape)
    assert (~expected & there).any()
    np.testing.assert_array_equal(valid, expected)
    # Nothing of what lies in a hole got into the pixels beside it.
    whole, _, _ = read(make_pair(**size, ms={"pixels": smooth((4, *SIZE), 2), "transform": TURNED}))
    difference = np.abs(values - whole).max(axis=0)
    reached = np.ones((3, 3), bool)
    near = ndimage.binary_dilation(~expected & there, reached, iterations=5)  # by the kernel
    assert difference[valid & near].max() < 120  # of 1600, where they are extrapolated
    assert difference[valid & ~near].max() <= 0.5


@pytest.mark.parametrize("transform", [MS_GRID, TURNED])
def test_bands_with_nodata_values_of_their_own(make_pair, tmp_path, transform):
    values, files = smooth((4, *SIZE), seed=2), []
    for band, nodata in enumerate((7, 65535, 0, None)):
        if nodata is not None:
            values[band, 10 * band : 10 * band + 5, 40:50] = nodata
        profile = {} if nodata is None else {"nodata": nodata}
        path = tmp_path / f"band{band}.tif"
        files.append(write_raster(path, values[band : band + 1], transform, **profile))
    pan, _ = make_pair(240, 280)
    _, valid, grid = read((pan, files))
    known = np.ones(SIZE, bool)
    known[:5, 40:50] = known[10:15, 40:50] = False  # the 0 of one band is dark
    expected = known if transform == MS_GRID else warped(known, grid, valid.shape)
    np.testing.assert_array_equal(valid, expected)


def test_a_warped_band_that_is_marked_as_alpha_can_be_one_of_the_colours(make_pair):
    pixels = (smooth((4, *SIZE)) // 8).astype(np.uint8)
    given = {"pixels": pixels, "transform": TURNED}
    plain = {**given, "colorinterp": [ColorInterp.gray] + [ColorInterp.undefined] * 3}
    marked, valid, _ = read(make_pair(240, 280, ms=given), bands=(1, 2, 3, 4))
    unmarked, as_valid, _ = read(make_pair(240, 280, ms=plain))
    np.testing.assert_array_equal(valid, as_valid)
    np.testing.assert_array_equal(marked[:, valid], unmarked[:, valid])


@pytest.mark.parametrize("options", [{"nodata": 0}, {"ms_nodata": 0}])
def test_a_stated_nodata_value_leaves_masks_as_they_are(make_pair, run, options):
    pan, ms = smooth((1, 160, 192), seed=1), smooth((4, 40, 48), seed=2)
    there = np.ones((160, 192), bool)
    there[40:80, 100:140] = False
    pan[:, 100:, :8] = ms[:, 25:30, 20:24] = 0
    pair = make_pair(pan={"pixels": pan, "mask": there}, ms={"pixels": ms})
    result = run(pair, **options)
    expected = there.copy()
    expected[100:120, 80:96] = False
    if "nodata" in options:
        expected[100:, :8] = False
    with rasterio.open(result.output) as file:
        np.testing.assert_array_equal(file.dataset_mask() > 0, expected)


def test_nodata_of_one_image_means_nothing_in_the_other(make_pair):
    pan, ms = smooth((1, 160, 192), seed=1), smooth((4, 40, 48), seed=2)
    pan[0, 0, 0] = pan[0, 4, 4] = 5
    ms[:, 0, 0], ms[:, 1, 1] = 7, 5
    options = ReadOptions(nodata=5, ms_nodata=7)
    pair = make_pair(pan={"pixels": pan}, ms={"pixels": ms})
    with Scene(*pair, options) as scene:
        for source in (scene, ArrayPair(pan[0], ms, options)):
            pixels = source.read(source.rows, source.cols)
            inner = pixels.ms_valid[HALO:-HALO, HALO:-HALO]
            assert np.argwhere(~pixels.pan_valid).tolist() == [[0, 0], [4, 4]]
            assert np.argwhere(~inner).tolist() == [[0, 0]]
    with pytest.raises(SSDiffError, match="nodata value -1 cannot occur in uint16") as error:
        Scene(*pair, ReadOptions(pan_nodata=-1))
    assert error.value.parameter == "pan_nodata"


def test_advice_names_the_nodata_value_of_the_image_that_needs_it(make_pair, run):
    ms = smooth((4, 40, 48), seed=2)
    ms[:, :10] = 0
    progress = RecordingProgress()
    run(make_pair(ms={"pixels": ms}), progress=progress)
    assert "sampled MS pixels are 0" in progress.warnings[0]
    assert progress.warnings[0].endswith("pass `ms_nodata=0`")


def test_a_band_that_is_missing_is_counted_and_can_be_a_hole(make_pair, run, tmp_path):
    ms = smooth((4, 40, 48), seed=2)
    ms[2, 12:16, 20:30] = 0
    pair = make_pair(ms={"pixels": ms, "nodata": 0})
    result = run(pair)
    assert (result.counts.partly_zero, result.counts.invalid_pixels) == (40, 0)
    (warning,) = result.run_warnings()
    assert warning.startswith("40 pixels of MS are 0 in some bands")
    progress = RecordingProgress()
    fuse(*pair, tmp_path / "fused.tif", method="EXP", progress=progress)
    assert progress.warnings == [warning]
    result = run(pair, name="any.tif", zero_bands="any")
    assert (result.counts.partly_zero, result.counts.invalid_pixels) == (0, 40 * 16)
    assert not list(result.run_warnings())
    with rasterio.open(result.output) as file:
        holes = file.dataset_mask() == 0
    assert holes[48:64, 80:120].all()
    assert holes.sum() == 40 * 16
    arrays = ArrayPair(smooth((160, 192, 1))[..., 0], ms, ReadOptions(nodata=0, zero_bands="any"))
    assert (~arrays.read(arrays.rows, arrays.cols).ms_valid).sum() == 40
    result = run(make_pair(ms={"pixels": ms, "nodata": 65535}), name="light.tif")
    assert result.counts.partly_zero == 0


# What is written


def masked_pair(make_pair, bands=4, **profile):
    """A pair with a hole in MS, and where the result is valid."""
    ms = smooth((bands, 40, 48), seed=2)
    valid = np.ones((40, 48), bool)
    valid[10:14, 20:24] = False
    if "nodata" in profile:
        ms[ms == profile["nodata"]] += 1
        ms[:, ~valid] = profile["nodata"]
    else:
        profile["mask"] = valid
    fine = valid.repeat(4, axis=0).repeat(4, axis=1)
    return make_pair(ms={"pixels": ms, **profile}), fine


def check_seen(path, valid):
    """That rasterio, GDAL's masked reads and its warper see the holes, and no others."""
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.dataset_mask() > 0, valid)
        np.testing.assert_array_equal(~file.read(masked=True).mask.any(axis=0), valid)
        with rasterio.vrt.WarpedVRT(file, add_alpha=True) as other:
            np.testing.assert_array_equal(other.read(file.count + 1) > 0, valid)


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
@pytest.mark.parametrize("how", ["alpha", "nodata", "mask"])
def test_holes_of_the_result_are_seen_by_everyone(make_pair, run, driver, how):
    pair, valid = masked_pair(make_pair, **({"nodata": 9} if how == "nodata" else {}))
    if how == "alpha":
        ms, alpha = read_raster(pair[1]), valid[::4, ::4] * np.uint16(65535)
        colours = [ColorInterp.gray] * 4 + [ColorInterp.alpha]
        pixels = np.concatenate([ms, alpha[None]])
        pair = make_pair(ms={"pixels": pixels, "colorinterp": colours})
    result = run(pair, driver=driver)
    check_seen(result.output, valid)
    assert not result.plan.warnings


def test_holes_do_not_darken_overviews(make_pair, tmp_path):
    pan, ms = np.full((1, 1200, 1200), 1000, np.uint16), np.full((4, 300, 300), 1000, np.uint16)
    valid = np.ones((1200, 1200), bool)
    valid[301:777, 333:888] = False
    alpha = np.full((1, 300, 300), 65535, np.uint16)
    colours = [ColorInterp.gray] * 4 + [ColorInterp.alpha]
    given = {"pixels": np.concatenate([ms, alpha]), "colorinterp": colours}
    path = tmp_path / "out.tif"
    with Scene(*make_pair(pan={"pixels": pan}, ms=given)) as scene:
        target = RasterOutput(path, scene, OutputOptions(driver="COG"))
        with target.open(scene.output, {}) as file:
            file.write(*scene.output, np.full((4, 1200, 1200), 1000, np.float32), valid)
    with rasterio.open(path, overview_level=0) as file:
        seen = file.dataset_mask() > 0
        assert abs(seen.mean() - valid.mean()) < 0.01
        assert file.read()[:, seen].min() == 1000


@pytest.mark.parametrize("nodata", [0, 9])
@pytest.mark.parametrize(
    ("driver", "compression"),
    [
        ("GTiff", {"COMPRESS": "JPEG"}),
        ("GTiff", {"COMPRESS": "WEBP"}),
        ("COG", {"COMPRESS": "JPEG"}),
        ("COG", {"COMPRESS": "WEBP"}),
        ("COG", {"OVERVIEW_COMPRESS": "JPEG"}),
    ],
)
def test_nodata_that_compression_would_change_becomes_a_mask(
    make_pair, run, driver, compression, nodata
):
    _, valid = masked_pair(make_pair)
    pixels = (smooth((4, 40, 48), seed=2) // 9).astype(np.uint8)
    pixels[:, ~valid[::4, ::4]] = nodata
    colours = [ColorInterp.gray] + [ColorInterp.undefined] * 3
    pair = make_pair(ms={"pixels": pixels, "nodata": nodata, "colorinterp": colours})
    scales = {"full_scale": 255, "pan_full_scale": 2047}
    result = run(pair, name="lossy.tif", driver=driver, creation_options=compression, **scales)
    check_seen(result.output, valid)
    (warning,) = result.plan.warnings
    assert f"this compression changes values, and with them nodata {nodata}" in warning
    with rasterio.open(result.output) as file:
        assert file.nodata is None
    plain = run(pair, name="plain.tif", driver=driver, **scales)
    with rasterio.open(plain.output) as file:
        assert file.nodata == nodata
    assert not plain.plan.warnings


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_nodata_that_the_stored_bits_do_not_hold_becomes_a_mask(make_pair, run, driver):
    pair, valid = masked_pair(make_pair, nodata=65535)
    result = run(pair, driver=driver, creation_options={"NBITS": "12"})
    check_seen(result.output, valid)
    with rasterio.open(result.output) as file:
        assert file.nodata is None
        assert file.tags(1, ns="IMAGE_STRUCTURE")["NBITS"] == "12"
    whole = run(pair, name="whole.tif")
    np.testing.assert_array_equal(
        read_raster(result.output)[:, valid], read_raster(whole.output)[:, valid]
    )


def test_values_that_the_stored_bits_do_not_hold_are_clipped_and_counted(make_pair, run):
    pair, valid = masked_pair(make_pair, nodata=1023)
    whole = read_raster(run(pair, name="whole.tif", dtype="float32").output)
    result = run(pair, creation_options={"NBITS": "10"})
    values = read_raster(result.output)
    beyond = whole[:, valid] >= 1023.5
    assert result.counts.clipped == beyond.sum() > 1000
    with rasterio.open(result.output) as file:
        assert file.nodata == 1023
        np.testing.assert_array_equal(file.dataset_mask() > 0, valid)
    assert (values[:, valid][beyond] == 1022).all()  # the largest beside nodata
    half = run(
        pair, name="half.tif", dtype="float32", creation_options={"NBITS": "16"}, full_scale=2**20
    )
    assert half.counts.clipped == 0


def test_16_bit_floats_are_clipped_and_counted():
    values, valid = np.array([[[70000, -70000, 65504, 3.5]]], np.float32), np.ones((1, 4), bool)
    dtype = np.dtype("float32")
    assert encode(values, valid, dtype, None, 16).ravel().tolist() == [65504, -65504, 65504, 3.5]
    assert count_clipped(values, valid, dtype, 16) == 2
    assert (holds(dtype, 65504, 16), holds(dtype, -9999, 16)) == (True, False)


@pytest.mark.parametrize(("dtype", "bits"), [("int16", 12), ("uint16", 40), ("uint16", "x")])
def test_numbers_of_bits_that_gdal_would_ignore_are_refused(make_pair, run, dtype, bits):
    with pytest.raises(SSDiffError, match=f"NBITS={bits} does not work with {dtype}"):
        run(make_pair(), dtype=dtype, creation_options={"NBITS": str(bits)})


def test_nodata_of_64_bits_in_band_files(make_pair, tmp_path):
    pixels = smooth((2, 40, 48), seed=2).astype(np.int64)
    pixels[1, 3, 5] = -(2**63)
    whole = "<NoDataValue>-9223372036854775808</NoDataValue>"
    files = []
    for number, band in enumerate(pixels):
        plain, declared = tmp_path / f"{number}.tif", tmp_path / f"{number}.vrt"
        write_raster(plain, band[None], MS_GRID)
        with rasterio.open(plain) as file:
            rasterio.shutil.copy(file, declared, driver="VRT")
        head, tail = declared.read_text().split("<SimpleSource>")
        declared.write_text(f"{head}{whole}<SimpleSource>{tail}")
        files.append(declared)
    pan, _ = make_pair()
    _, valid, _ = read((pan, files))
    assert np.argwhere(~valid).tolist() == [[3, 5]]


@pytest.mark.parametrize("nodata", [-(2**63), -9999])
def test_nodata_of_64_bits(make_pair, tmp_path, nodata):
    values = smooth((4, 40, 48), seed=2).astype(np.int64)
    values[:, 10:14, 20:24] = nodata
    pair = make_pair(ms={"pixels": values})
    valid = (values[0] != nodata).repeat(4, axis=0).repeat(4, axis=1)
    path = tmp_path / "out.tif"
    with Scene(*pair, ReadOptions(ms_nodata=nodata)) as scene:
        pixels = scene.read(scene.rows, scene.cols)
        inner = pixels.ms_valid[HALO:-HALO, HALO:-HALO]
        np.testing.assert_array_equal(inner, valid[::4, ::4])
        with RasterOutput(path, scene, OutputOptions()).open(scene.output, {}) as file:
            file.write(*scene.output, np.full((4, 160, 192), 800, np.float32), valid)
    check_seen(path, valid)


def test_a_valid_pixel_beside_nodata_in_16_bit_floats():
    values = np.zeros((1, 1, 2), np.float32)
    stored = encode(values, np.array([[True, False]]), np.dtype("float32"), 0.0, 16)
    assert stored[0, 0].astype(np.float16).tolist() == [
        np.nextafter(np.float16(0), np.float16(1)),
        0,
    ]


# Four bands of 8 bits


def test_every_command_asks_whether_a_fourth_8_bit_band_is_alpha(make_pair, run, tmp_path):
    pixels = (smooth((4, 40, 48)) // 8).astype(np.uint8)
    pair = make_pair(ms={"pixels": pixels})
    fused, folder = tmp_path / "fused.tif", tmp_path / "reduced"
    for command in (
        lambda **options: run(pair, full_scale=255, pan_full_scale=2047, **options),
        lambda **options: fuse(*pair, fused, method="EXP", **options),
        lambda **options: simulate(*pair, folder, **options),
    ):
        with pytest.raises(SSDiffError, match=r"`bands=1,2,3,4` if the file has this order"):
            command()
        command(bands=(1, 2, 3, 4))
    for path in (tmp_path / "out.tif", fused, folder / "ms.tif", folder / "reference.tif"):
        with rasterio.open(path) as file:
            assert file.count == 4
            assert ColorInterp.alpha not in file.colorinterp
            assert file.mask_flag_enums[0] == [MaskFlags.all_valid]
    np.testing.assert_array_equal(read_raster(folder / "reference.tif"), pixels)
    fuse(*pair, fused, method="EXP", bands=(1, 2, 3), overwrite=True)
    with rasterio.open(fused) as file:
        assert file.count == 3
