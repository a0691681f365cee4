"""Measures beyond HQNR see what they are for, and nothing under the mask."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ssdiff_ref.classical.baselines import METHODS
from ssdiff_ref.protocol.pair import Pair
from ssdiff_ref.quality.filters import mtf_filter
from ssdiff_ref.quality.full_resolution import (
    d_rho,
    d_s_regression,
    detail_correlation,
    fidelity_scores,
    local_correlation,
    overshoot,
    power_at_period_4,
    sampling_phases,
)
from ssdiff_ref.quality.metrics import d_lambda
from ssdiff_trt.runtime.consistency import Consistency
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.sensors import SENSORS
from ssdiff_trt.runtime.sources import MSAxis
from tests.support.dlpan import full_resolution

SENSOR = SENSORS["qb"]
AT_TWO = (MSAxis(0.5), MSAxis(0.5))


def texture(seed, *shape):
    """Sharp natural-looking imagery: edges of all strengths."""
    noise = np.random.default_rng(seed).normal(size=shape)
    axes = tuple(range(-2, 0))
    waves = np.fft.fftfreq(shape[-1])[None, :] ** 2 + np.fft.fftfreq(shape[-2])[:, None] ** 2
    smooth = np.fft.ifft2(np.fft.fft2(noise, axes=axes) / (waves + 1e-4) ** 0.5, axes=axes).real
    return 400 + 100 * smooth / smooth.std()


@pytest.fixture(scope="module")
def truth():
    """Bands whose sum of weights is PAN."""
    shared = texture(0, 192, 192)
    return np.stack(
        [shared * (1 + 0.2 * band) + texture(band + 1, 192, 192) / 20 for band in range(4)]
    )


@pytest.fixture(scope="module")
def pan(truth):
    return truth.mean(axis=0)


def sampled(truth, phases):
    blurred = mtf_filter(truth, SENSOR)
    return np.stack([b[r::4, c::4] for b, (r, c) in zip(blurred, phases, strict=True)])


@pytest.mark.parametrize(
    "phases", [((2, 2),) * 4, ((0, 3), (1, 1), (3, 2), (2, 0))], ids=["protocol", "of bands"]
)
def test_phases_are_found_from_the_inputs_and_the_truth_is_consistent(truth, pan, phases):
    ms = sampled(truth, phases)
    assert sampling_phases(ms, pan, SENSOR) == phases
    scores = fidelity_scores(truth, pan, ms, 0, SENSOR)
    assert scores["R-ERGAS"] == 0
    assert scores["R-SAM"] == pytest.approx(0, abs=1e-5)
    assert scores["R-Q2n"] == pytest.approx(1)
    # The toolbox's kernel is a little wider than the sensor's MTF, and its sum is 0.9988.
    assert scores["consistency"] < 0.003 * np.sqrt((ms**2).mean())


def test_local_correlation_is_that_of_windows(truth, pan):
    r = local_correlation(truth, np.broadcast_to(pan, truth.shape))
    for band, row, col in ((0, 50, 60), (3, 100, 8)):
        window = np.s_[row - 2 : row + 2, col - 2 : col + 2]
        expected = np.corrcoef(truth[band][window].ravel(), pan[window].ravel())[0, 1]
        assert r[band, row, col] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("slope", [3, -3])
def test_local_correlation_of_affine_copies_does_not_exceed_1_by_rounding(truth, slope):
    r = local_correlation(truth, slope * truth + 7)
    assert np.abs(r).max() == 1


def test_measures_of_detail_are_perfect_for_affine_copies_of_pan(pan):
    copies = np.stack([pan * (1 + band) - 70 * band for band in range(4)])
    assert d_rho(copies, pan) == pytest.approx(0, abs=1e-6)
    assert d_s_regression(copies, pan) == pytest.approx(0, abs=1e-9)
    assert detail_correlation(copies, pan, SENSORS["generic"]) == pytest.approx(1)
    assert power_at_period_4(copies, pan) == pytest.approx(1)
    # Not exactly, as the sum of the toolbox's kernel is 0.9988.
    assert overshoot(copies, pan, SENSORS["generic"]) == pytest.approx(0, abs=1e-4)


def test_an_image_of_one_band_is_measured(pan):
    assert d_rho(pan[None], pan) == pytest.approx(0, abs=1e-6)


def test_r_q2n_needs_a_block_of_ms(truth, pan):
    for side, measured in ((31, False), (32, True)):
        inner = np.s_[..., : 4 * side, : 4 * side]
        ms = sampled(truth[inner], ((2, 2),) * 4)
        scores = fidelity_scores(truth[inner], pan[inner], ms, 0, SENSOR, ((2, 2),) * 4)
        assert np.isfinite(scores["R-Q2n"]) == measured


def test_soft_images_are_worse_in_every_measure_of_detail(truth, pan):
    soft = ndimage.gaussian_filter(truth, (0, 1.5, 1.5))
    assert d_rho(soft, pan) > d_rho(truth, pan) + 0.1
    assert d_s_regression(soft, pan) > d_s_regression(truth, pan) + 0.01
    assert detail_correlation(soft, pan, SENSOR) < detail_correlation(truth, pan, SENSOR) - 0.1
    assert overshoot(soft, pan, SENSOR) < overshoot(truth, pan, SENSOR) - 0.02


def test_a_grid_of_ms_pixels_is_seen(truth, pan):
    rows, cols = np.indices(pan.shape)
    grid = (rows % 4 == 0) | (cols % 4 == 0)
    clean, gridded = power_at_period_4(truth, pan), power_at_period_4(truth + 30 * grid, pan)
    assert clean == pytest.approx(1, abs=0.3)
    assert gridded > 2 * clean
    other_period = (rows % 5 == 0) | (cols % 5 == 0)
    assert power_at_period_4(truth + 30 * other_period, pan) == pytest.approx(clean, rel=0.2)


def test_halos_along_edges_are_overshoot():
    pan = np.full((192, 192), 300.0)
    pan[60:130, 50:140] = 700
    sharpened = 2 * pan - ndimage.gaussian_filter(pan, 2)
    bands = np.stack([pan, pan, pan, pan])
    halos = np.stack([sharpened] * 4)
    assert overshoot(bands, pan, SENSORS["ge1"]) == pytest.approx(0, abs=1e-9)
    assert overshoot(halos, pan, SENSORS["ge1"]) > 0.1


def test_rqnr_combines_spectral_and_regression_distortion():
    scene = full_resolution("wv3")
    fused = METHODS["GSA"](scene)
    spectral = d_lambda(fused, scene.lms, scene.sensor)
    scores = fidelity_scores(fused, scene.pan, scene.ms, spectral, scene.sensor)
    columns = np.concatenate([fused.reshape(8, -1), np.ones((1, scene.pan.size))]).T
    fit = columns @ np.linalg.lstsq(columns, scene.pan.ravel(), rcond=None)[0]
    unexplained = ((scene.pan.ravel() - fit) ** 2).sum() / scene.pan.var() / scene.pan.size
    assert scores["RQNR"] == pytest.approx((1 - spectral) * (1 - unexplained), rel=1e-6)
    # Interpolated MS is the most faithful to MS, and the least to PAN.
    exp = fidelity_scores(scene.lms, scene.pan, scene.ms, 0, scene.sensor)
    assert exp["D_rho"] > 2 * scores["D_rho"]
    assert exp["detail"] < scores["detail"] / 2


def test_values_under_the_mask_do_not_count(truth, pan):
    ms = sampled(truth, ((2, 2),) * 4)
    valid = np.ones(pan.shape, bool)
    valid[:40, :40] = False
    clean = fidelity_scores(truth, pan, ms, 0, SENSOR, ((2, 2),) * 4, valid)
    garbage = np.where(valid, truth, np.nan), np.where(valid, pan, 1e9)
    bad_ms = np.where(valid[2::4, 2::4], ms, -1e5)
    dirty = fidelity_scores(*garbage, bad_ms, 0, SENSOR, ((2, 2),) * 4, valid)
    assert dirty == clean


def test_shapes_that_do_not_fit_are_refused(truth, pan):
    with pytest.raises(SSDiffError, match="expected that of the PAN"):
        d_rho(truth[..., :-4], pan)
    with pytest.raises(SSDiffError, match="4 times the MS"):
        fidelity_scores(truth, pan, truth[:, ::8, ::8], 0, SENSOR)
    holes = np.ones(pan.shape, bool)
    holes[::30] = holes[:, ::30] = False
    with pytest.raises(SSDiffError, match="has 20 valid neighbours on each side"):
        detail_correlation(truth, pan, SENSOR, holes)


def test_interpolated_ms_is_less_consistent_than_the_truth(truth):
    ms = sampled(truth, ((2, 2),) * 4)
    lms = Pair.of(truth.mean(axis=0), ms, SENSOR).lms
    everything = np.ones(truth.shape[1:], bool), np.ones(ms.shape[1:], bool)
    results = []
    for image in (truth, lms):
        consistency = Consistency()
        consistency.add(image, everything[0], ms, everything[1], AT_TWO, SENSOR.mtf_ms)
        results.append(consistency.rmse)
    assert results[0] < results[1] / 4
