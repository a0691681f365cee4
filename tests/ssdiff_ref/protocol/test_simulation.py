"""MTF filters and Wald's protocol match the DLPan-Toolbox."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ssdiff_ref.protocol.simulation import align_pan_to_ms, decimation_phase, degrade
from ssdiff_ref.quality.filters import (
    bicubic_quarter,
    decimate,
    gaussian_kernel,
    lowpass,
    mtf_filter,
    mtf_filter_pan,
)
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.interpolator import interpolate
from ssdiff_trt.runtime.sensors import SENSORS
from tests.support.dlpan import golden_arrays
from tests.support.imagery import texture

RELATIVE = 1e-9
WV3, QB, GE1, WV2 = (SENSORS[name] for name in ("wv3", "qb", "ge1", "wv2"))


@pytest.mark.parametrize("name", ["ms_lr", "pan_lr", "lms", "mtf"])
def test_degraded_arrays_match_the_toolbox(name):
    arrays = golden_arrays()
    ms_lr, pan_lr = degrade(arrays["I_MS"], arrays["I_PAN"], WV3)
    actual = {
        "ms_lr": ms_lr,
        "pan_lr": pan_lr,
        "lms": interpolate(ms_lr, border="wrap"),
        "mtf": mtf_filter(arrays["I_MS"], WV3),
    }
    np.testing.assert_allclose(actual[name], arrays[name], rtol=RELATIVE)


@pytest.mark.parametrize("sensor", SENSORS.values(), ids=SENSORS)
def test_every_sensor_has_a_gain_for_each_band(sensor):
    assert len(sensor.mtf_ms) == len(sensor.bands)
    assert all(0 < gain < 1 for gain in (*sensor.mtf_ms, sensor.mtf_pan))
    assert sensor.mtf_source


@pytest.mark.parametrize(
    ("gain", "total", "peak"),
    [
        *zip(
            WV3.mtf_ms,
            (0.998823, 0.998914, 0.998928, 0.998899, 0.998943, 0.998928, 0.998854, 0.998790),
            (0.041570, 0.045114, 0.045732, 0.044505, 0.046358, 0.045732, 0.042722, 0.040446),
            strict=True,
        ),
        *zip(QB.mtf_ms, (0.998869, 0.998807, 0.998740, 0.998420), (None,) * 4, strict=True),
        (GE1.mtf_ms[0], 0.998466, 0.031791),
        (WV3.mtf_pan, 0.997953, None),
        (QB.mtf_pan, 0.998024, None),
        (WV2.mtf_pan, 0.997705, None),
    ],
)
def test_kernels_match_the_toolbox_in_sum_and_peak(gain, total, peak):
    kernel = gaussian_kernel(gain)
    assert kernel.sum() == pytest.approx(total, abs=6e-7)
    if peak:
        assert kernel.max() == pytest.approx(peak, abs=6e-7)


def test_filters_are_correlations_with_replicated_edges():
    image = np.random.default_rng(0).uniform(0, 2047, (4, 52, 36))

    def direct(band, gain):
        return ndimage.correlate(band, gaussian_kernel(gain), mode="nearest")

    expected = [direct(band, gain) for band, gain in zip(image, QB.mtf_ms, strict=True)]
    np.testing.assert_allclose(mtf_filter(image, QB), expected, rtol=RELATIVE)
    np.testing.assert_allclose(
        mtf_filter_pan(image[0], QB), direct(image[0], QB.mtf_pan), rtol=RELATIVE
    )
    # Blurs slightly less than an MTF filter of the same gain: 41 samples of response, not 40.
    assert lowpass(image[0]).std() > direct(image[0], 0.3).std()


def test_bicubic_quarter_is_centred_where_matlab_centres_it():
    rows, columns = np.mgrid[:48, :64].astype(float)
    shrunk = bicubic_quarter(3 * rows + columns)
    expected = 3 * (4 * np.arange(12) + 1.5)[:, None] + 4 * np.arange(16) + 1.5
    inner = np.s_[2:-2, 2:-2]  # mirroring distorts the ramp near the edges
    np.testing.assert_allclose(shrunk[inner], expected[inner], rtol=RELATIVE)


@pytest.mark.parametrize("position", [(1.25, 2.0), (0.6, 3.1), (-2.4, 5.5), (6.0, -5.0)])
def test_bicubic_quarter_can_be_centred_anywhere(position):
    rows, columns = np.mgrid[:48, :64].astype(float)
    shrunk = bicubic_quarter(3 * rows + columns, position)
    expected = 3 * (4 * np.arange(12) + position[0])[:, None] + 4 * np.arange(16) + position[1]
    inner = np.s_[4:-4, 4:-4]
    np.testing.assert_allclose(shrunk[inner], expected[inner], rtol=0.02)


def test_bicubic_quarter_moved_by_whole_pixels_shrinks_the_moved_image():
    image = np.random.default_rng(0).uniform(0, 2047, (80, 96))
    moved = bicubic_quarter(np.roll(image, (-3, 5), (0, 1)), (1.75, 1.5))
    inner = np.s_[4:-4, 4:-4]
    expected = bicubic_quarter(image, (4.75, -3.5))
    np.testing.assert_allclose(moved[inner], expected[inner], rtol=RELATIVE)


def test_pan_aligned_to_ms_shows_what_ms_shows():
    scene = texture(0, 120, 120)
    smooth = ndimage.gaussian_filter(scene, 2)
    moved = align_pan_to_ms(smooth, (1.3, -0.6))
    rows, cols = np.mgrid[20:100, 20:100].astype(float)
    expected = ndimage.map_coordinates(smooth, [rows + 1.3, cols - 0.6], order=3)
    np.testing.assert_allclose(moved[20:100, 20:100], expected, atol=0.5)


def test_decimation_inverts_interpolation():
    ms = np.random.default_rng(0).uniform(0, 2047, (4, 24, 36))
    np.testing.assert_array_equal(decimate(interpolate(ms, border="wrap")), ms)


@pytest.mark.parametrize("size", [(2, 2), (8, 8), (10, 10), (10, 16), (16, 10), (11, 11), (16, 16)])
def test_every_decimation_phase_is_found_in_small_patches_and_large_ones(size):
    """Patches of at most 10 pixels of MS are compared whole, larger ones without their edges."""
    truth = texture(5, 4, 4 * size[0], 4 * size[1])
    blurred = mtf_filter(truth, QB)
    for phase in np.ndindex(4, 4):
        ms = blurred[:, phase[0] :: 4, phase[1] :: 4]
        assert decimation_phase(ms, truth, QB) == phase


def test_the_edges_of_patches_above_10_pixels_have_no_say_in_the_phase():
    """They differ where a patch was cut from a blurred image; 5 pixels on each side do."""
    truth = texture(6, 4, 44, 48)
    ms = mtf_filter(truth, QB)[:, 3::4, 1::4].copy()
    edge = np.ones(ms.shape, bool)
    edge[:, 5:-5, 5:-5] = False
    ms[edge] = 0
    assert decimation_phase(ms, truth, QB) == (3, 1)
    ms[:, 5, 5] = mtf_filter(truth, QB)[:, 22, 22]  # the only row that counts
    ms[:, 5, 6] = mtf_filter(truth, QB)[:, 22, 26]
    assert decimation_phase(ms, truth, QB) == (2, 2)


@pytest.mark.parametrize(
    ("ms", "pan", "sensor", "message"),
    [
        ((8, 16, 16), (64, 64), QB, "image has 8 bands, expected the 4 of QuickBird"),
        ((4, 16, 16), (64, 60), QB, r"PAN is \[64, 60\] pixels, expected \[64, 64\], 4 times"),
        ((4, 18, 16), (72, 64), QB, "image is 18 x 16 pixels, expected multiples of 4; .* 16 x 16"),
        ((16, 16), (64, 64), QB, r"MS has shape \[16, 16\], expected \[C, H, W\]"),
    ],
)
def test_mismatched_pair_is_rejected(ms, pan, sensor, message):
    with pytest.raises(SSDiffError, match=message):
        degrade(np.ones(ms), np.ones(pan), sensor)


@pytest.mark.parametrize("image", ["MS", "PAN"])
def test_non_finite_values_are_rejected(image):
    ms, pan = np.ones((4, 16, 16)), np.ones((64, 64))
    (ms if image == "MS" else pan)[..., 3, 3] = np.inf
    with pytest.raises(SSDiffError, match="non-finite values"):
        degrade(ms, pan, QB)
