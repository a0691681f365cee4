"""What a sample of the pixels says about an image, and the warnings that follow."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

from ssdiff_ref.classical.fusion import fuse
from ssdiff_trt import pansharpen
from ssdiff_trt.runtime.arrays import ArrayPair
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.options import ReadOptions
from ssdiff_trt.runtime.raster.checks import Survey, check_values, survey
from ssdiff_trt.runtime.raster.radiometry import STATED, Scale
from ssdiff_trt.runtime.raster.scene import Scene
from tests.support.backends import StandIn
from tests.support.rasters import read_raster, smooth

ASSUMED = Scale(2047, "assumed")


def opened(kind, make_pair, pan, ms):
    """The same pair as a pair of files or of arrays."""
    if kind == "arrays":
        return nullcontext(ArrayPair(pan[0], ms))
    return Scene(*make_pair(pan={"pixels": pan}, ms={"pixels": ms}))


@pytest.fixture
def images():
    """PAN and MS of a few values that are known in advance, in float32."""
    ms = smooth((4, 40, 48), seed=2).astype(np.float32)
    return smooth((1, 160, 192), seed=1).astype(np.float32), ms


@pytest.mark.parametrize("kind", ["files", "arrays"])
@pytest.mark.parametrize("band", range(4))
def test_a_pixel_with_nan_in_one_band_is_left_out_and_no_other(kind, band, make_pair, images):
    """The rest of the band, and the other bands at other pixels, still count."""
    pan, ms = images
    ms[:, :4] *= 1.5  # the largest values are here
    expected = np.delete(ms, np.s_[10:30], axis=1).max(axis=0)
    ms[band, 10:30] = np.nan
    with opened(kind, make_pair, pan, ms) as source:
        of_pan, of_ms = survey(source)
    assert of_pan.largest == pan.max()
    assert of_ms.largest == expected.max()
    assert of_ms.middle == pytest.approx(np.median(expected))
    assert of_ms.upper == pytest.approx(np.quantile(expected, 0.95))
    assert (of_ms.fill, of_ms.filled) == (0, 0)


@pytest.mark.parametrize("kind", ["files", "arrays"])
def test_a_band_of_nan_alone_leaves_nothing_to_survey(kind, make_pair, images):
    pan, ms = images
    ms[2] = np.nan
    with opened(kind, make_pair, pan, ms) as source:
        assert survey(source)[1] == Survey(0, 0, 0, 0, 0, 0)
        assert check_values(source, ASSUMED, ASSUMED) == []


def test_pixels_that_are_0_in_every_band_are_counted(make_pair, images):
    pan, ms = images
    ms[:, :4] = 0
    ms[1, 4:8] = 0
    source = ArrayPair(pan[0], ms)
    assert survey(source)[1].filled == pytest.approx(0.1)
    (warning,) = check_values(source, ASSUMED, ASSUMED)
    assert warning.startswith("10% of the sampled MS pixels are 0 and no nodata is declared")
    assert "pass `ms_nodata=0`" in warning
    declared = ArrayPair(pan[0], ms, ReadOptions(ms_nodata=0))
    assert survey(declared)[1].filled == 0
    assert check_values(declared, ASSUMED, ASSUMED) == []


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [("float32", -9999), ("int16", -32768), ("int16", -1), ("uint16", 65535), ("int16", 32767)],
)
@pytest.mark.parametrize("kind", ["files", "arrays"])
def test_values_that_often_mean_no_data_are_warned_of(make_pair, images, kind, dtype, fill):
    """And hide nothing else: the full scale of the others is judged."""
    pan, ms = (image.astype(dtype) for image in images)
    ms[:, :4] = fill
    with opened(kind, make_pair, pan, ms) as source:
        (warning,) = check_values(source, ASSUMED, ASSUMED)
    assert warning == (
        f"10% of the sampled MS pixels are {fill} and no nodata is declared; if these pixels are "
        f"empty, pass `ms_nodata={fill}`"
    )
    pan[:, :32] = fill
    with opened(kind, make_pair, pan, ms) as source:
        (warning,) = check_values(source, ASSUMED, ASSUMED)
    assert warning.startswith("20% of the sampled PAN pixels and 10% of the sampled MS pixels are")
    assert warning.endswith(f"pass `nodata={fill}`")


def test_bright_pixels_of_8_bits_are_not_taken_for_empty_ones(make_pair, images):
    pan, ms = (np.minimum(image // 8, 255).astype(np.uint8) for image in images)
    ms[:, :4] = 255
    scale = Scale(255, "8-bit file")
    with opened("arrays", make_pair, pan, ms) as source:
        assert check_values(source, scale, scale) == []


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_fractions_do_not_become_whole_numbers_unasked(make_pair, run, tmp_path, dtype):
    """All of them would be 0."""
    pan, ms = ((smooth(shape) / 8000).astype(np.float32) for shape in ((1, 160, 192), (4, 40, 48)))
    pair = make_pair(pan={"pixels": pan}, ms={"pixels": ms})
    refused = rf"MS holds values up to 0\.\d+ in a sample, and {dtype} .* such as `scale=0,1`"
    for command in (
        lambda **options: run(pair, full_scale=1, **options),
        lambda **options: fuse(*pair, tmp_path / "fused.tif", method="EXP", **options),
        lambda **options: pansharpen(
            pan[0], ms, full_scale=1, backend=StandIn(), shift="none", **options
        ),
    ):
        with pytest.raises(InputError, match=refused):
            command(dtype=dtype)
        command(dtype=dtype, scale=(0, 0.3))
    assert len(np.unique(read_raster(tmp_path / "out.tif"))) > 50
    run(pair, full_scale=1, overwrite=True)  # in fractions
    whole = make_pair(ms={"pixels": (ms * 10000).round()})
    run(whole, full_scale=10000, pan_full_scale=2047, dtype=dtype, overwrite=True)


@pytest.mark.parametrize(
    ("share", "scale", "fault"),
    [
        (0.48, Scale(1000, STATED), None),
        (0.52, Scale(1000, STATED), "More than half of the sampled MS pixels lie above"),
        (0.04, ASSUMED, None),
        (0.06, ASSUMED, "More than 5 % of the sampled MS pixels lie above full scale 2047"),
    ],
)
def test_values_above_full_scale_are_refused_by_their_share(images, share, scale, fault):
    pan, ms = images
    ms[:] = 900
    ms[3, :, : round(share * 48)] = 3000
    source = ArrayPair(pan[0], ms)
    if fault is None:
        check_values(source, ASSUMED, scale)
    else:
        with pytest.raises(InputError, match=f"{fault}.*up to 3000, .*`full_scale=4095`"):
            check_values(source, ASSUMED, scale)


@pytest.mark.parametrize(
    ("brightest", "share", "scale", "dark"),
    [
        (2047, 1, Scale(65535, STATED), True),  # 11 bits in a file of 16
        (4095, 1, Scale(65535, STATED), True),
        (4097, 1, Scale(65535, STATED), False),
        (255, 1, Scale(10000, STATED), True),
        (640, 1, Scale(10000, STATED), False),  # water
        (2047, 0.02, Scale(10000, STATED), False),  # ships on dark water
        (255, 1, Scale(2047, STATED), False),
    ],
)
def test_a_stated_full_scale_that_is_far_too_large_is_noticed(
    images, brightest, share, scale, dark
):
    pan, ms = images
    ms[:] = 20
    ms[2, :, : max(1, round(share * 48))] = brightest
    warnings = check_values(ArrayPair(pan[0], ms), ASSUMED, scale)
    assert len(warnings) == dark
    if dark:
        assert f"99.9 % of the sampled MS pixels are at most {brightest}, less" in warnings[0]
        assert f"1/16 of full scale {scale.value:g} (as stated); unless" in warnings[0]
        assert warnings[0].endswith("such as `full_scale=2047` for 11 bits")


def test_a_few_bright_pixels_do_not_hide_that_full_scale_is_too_large(images):
    pan, ms = images
    pan[:] = 200
    pan[0, 0, :20] = 60000
    (warning,) = check_values(ArrayPair(pan[0], ms), Scale(65535, STATED), ASSUMED)
    assert "99.9 % of the sampled PAN pixels are at most 200, less" in warning
    assert "`pan_full_scale=2047`" in warning


def test_a_full_scale_that_both_images_have_is_one_fault_with_one_remedy(images):
    pan, ms = images
    pan[:], ms[:] = 1500, 3000
    source, scale = ArrayPair(pan[0], ms), Scale(1, STATED)
    with pytest.raises(InputError, match=r"sampled PAN .*up to 1500, .*`full_scale=4095`"):
        check_values(source, scale, scale)
    with pytest.raises(InputError, match=r"sampled PAN .*up to 1500, .*`pan_full_scale=2047`"):
        check_values(source, scale, ASSUMED)
    million = Scale(1e6, STATED)
    (warning,) = check_values(source, million, million)
    assert "full scale 1000000 (as stated)" in warning
    assert "such as `full_scale=2047`" in warning
    assert len(check_values(source, million, Scale(2e6, STATED))) == 2


@pytest.mark.parametrize(
    ("largest", "suggested"),
    [(1, 1), (2, 255), (255, 255), (1024, 2047), (4096, 10000), (65535, 65535), (65536, 65536)],
)
def test_the_least_usual_full_scale_that_holds_all_values_is_suggested(images, largest, suggested):
    pan, ms = images
    ms[:] = largest
    with pytest.raises(InputError, match=f"up to {largest}, .*`full_scale={suggested}`"):
        check_values(ArrayPair(pan[0], ms), ASSUMED, Scale(largest / 2, STATED))


@pytest.mark.parametrize("size", [(40, 48), (64, 64), (65, 70), (400, 300)])
def test_the_patches_are_whole_pixels_of_ms_from_edge_to_edge(size, monkeypatch):
    height, width = size
    source = ArrayPair(np.ones((4 * height, 4 * width)), np.ones((4, height, width)))
    patches, read = [], ArrayPair.read

    def record(self, rows, cols):
        patches.append((rows, cols))
        return read(self, rows, cols)

    monkeypatch.setattr(ArrayPair, "read", record)
    survey(source)
    for axis, pixels in zip(zip(*patches, strict=True), size, strict=True):
        assert {len(part) for part in axis} == {4 * min(64, pixels)}
        assert all(part.start % 4 == 0 for part in axis)
        assert min(part.start for part in axis) == 0
        assert max(part.stop for part in axis) == 4 * pixels
    assert len(patches) == len(set(patches)) <= 25


def test_the_pixels_of_all_patches_are_surveyed_together():
    """25 patches of 64 x 64 pixels of MS are exactly this scene; holes make them differ."""
    rng = np.random.default_rng(5)
    pan, ms = (rng.uniform(1, 1000, (n, n)).astype(np.float32) for n in (1280, 320))
    pan[:300, :400] = ms[30:90, :40] = np.nan
    pan[600:900, 100:500] = ms[100:250, 100:250] = 0
    for found, image in zip(survey(ArrayPair(pan, ms[None])), (pan, ms), strict=True):
        values = image[np.isfinite(image)]
        expected = values.max(), *np.quantile(values, [0.5, 0.95, 0.999]), (values == 0).mean()
        measured = found.largest, found.middle, found.upper, found.top, found.filled
        assert measured == pytest.approx(expected)
