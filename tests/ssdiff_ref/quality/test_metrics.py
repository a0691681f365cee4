"""Quality metrics agree with the DLPan-Toolbox and torchmetrics, and handle nodata."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import (
    error_relative_global_dimensionless_synthesis,
    peak_signal_noise_ratio,
    spectral_angle_mapper,
    structural_similarity_index_measure,
)

from ssdiff_ref.classical.baselines import METHODS
from ssdiff_ref.protocol.pair import Pair
from ssdiff_ref.quality.metrics import (
    d_lambda,
    d_lambda_alparone,
    d_s,
    ergas,
    full_resolution_scores,
    hqnr,
    psnr,
    q2n,
    q_average,
    qnr,
    reduced_resolution_scores,
    sam,
    scc,
    ssim,
)
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.sensors import SENSORS
from tests.support.dlpan import full_resolution, golden_scores, reduced_resolution

FULL_SCALE = 2047
EXTRA = golden_scores("wv3")["extra"]
REFERENCE_METRICS = (sam, ergas, q2n, q_average, scc)


def to_printed_precision(score):
    return pytest.approx(score, rel=0, abs=1e-6)


@pytest.fixture(scope="module")
def truth():
    return full_resolution("wv3").ms


@pytest.fixture(scope="module")
def fused():
    return METHODS["MTF-GLP"](reduced_resolution("wv3"))


@pytest.fixture(scope="module")
def full():
    scene = full_resolution("wv3")
    return METHODS["GSA"](scene), scene.pan, scene.lms


@pytest.mark.parametrize("brightest", [0.9, 1.0, 1.37])
def test_q2n_of_reflectance_is_that_of_its_digital_numbers(truth, fused, brightest):
    reflectance, of_fused = truth / 10000, fused / 10000
    reflectance[0, 5, 5] = brightest
    counts = np.round(reflectance * 10000)
    expected = q2n(fused, counts)
    assert expected > 0.5
    assert q2n(of_fused, counts / 10000) == pytest.approx(expected, abs=1e-3)
    # Digital numbers keep the toolbox's cast, dark ones too.
    assert q2n(np.round(fused / 50) + 0.3, np.round(truth / 50)) == q2n(
        np.round(fused / 50), np.round(truth / 50)
    )


@pytest.mark.parametrize(("share", "rounded"), [(1.0, True), (0.999, False)])
def test_q2n_takes_values_for_digital_numbers_from_a_99th_percentile_of_16_on(share, rounded):
    counts = np.random.default_rng(0).uniform(1, 15.5, (4, 32, 32))
    counts[:, :4] = 16 * share
    fused = counts + 0.3
    as_whole = q2n(np.floor(fused + 0.5), np.floor(counts + 0.5))
    assert (q2n(fused, counts) == as_whole) == rounded


def test_q2n_of_reflectance_is_not_rounded_because_a_few_pixels_are_far_above():
    reflectance = np.random.default_rng(0).uniform(0.1, 0.9, (4, 32, 32))
    fused = reflectance + 0.1
    reflectance[0, 0, :5] = fused[0, 0, :5] = 300.0  # glint
    assert q2n(fused, reflectance) != q2n(np.round(fused), np.round(reflectance))


def test_psnr_of_fractions_up_to_1_is_that_of_their_digital_numbers():
    reference = np.full((2, 8, 8), 0.5)
    reference[0, 0, 0] = 1
    fused = reference - 0.01
    assert psnr(fused, reference, 1) == pytest.approx(40)
    assert psnr(2047 * fused, 2047 * reference, 2047) == pytest.approx(40)


def test_q2n_pads_bands_to_a_power_of_two_like_the_toolbox(truth):
    lms = reduced_resolution("wv3").lms
    cut = np.s_[..., 20:-21, 20:-21]
    for bands in (3, 5):
        expected = EXTRA[f"Q2n_first_{bands}_bands_EXP_rr"]
        assert q2n(lms[:bands][cut], truth[:bands][cut]) == to_printed_precision(expected)
    assert q_average(lms[cut], truth[cut]) == to_printed_precision(EXTRA["Q_avg_sliding_EXP_rr"])


def test_qnr_matches_the_toolbox(full):
    gsa, pan, lms = full
    for method, image in (("EXP", lms), ("GSA", gsa)):
        expected = EXTRA[f"QNR_{method}_fr"]
        assert d_lambda_alparone(image, lms) == to_printed_precision(expected["D_lambda_alparone"])
        assert d_s(image, pan, lms) == to_printed_precision(expected["D_s"])
        assert qnr(image, pan, lms) == to_printed_precision(expected["QNR"])


def test_full_resolution_scores_equal_the_single_metrics(full):
    sensor = full_resolution("wv3").sensor
    gsa, pan, lms = full
    assert full_resolution_scores(gsa, pan, lms, sensor) == {
        "D_lambda": d_lambda(gsa, lms, sensor),
        "D_s": d_s(gsa, pan, lms),
        "HQNR": hqnr(gsa, pan, lms, sensor),
        "QNR": qnr(gsa, pan, lms),
    }


def test_metrics_match_torchmetrics(fused, truth):
    x, y = (torch.from_numpy(image)[None] for image in (fused, truth))
    close = {"rel": 1e-6}
    expected = float(error_relative_global_dimensionless_synthesis(x, y))
    assert ergas(fused, truth) == pytest.approx(expected, **close)
    expected = np.degrees(float(spectral_angle_mapper(x, y)))
    assert sam(fused, truth) == pytest.approx(expected, **close)
    expected = float(peak_signal_noise_ratio(x, y, data_range=float(FULL_SCALE)))
    assert psnr(fused, truth, FULL_SCALE) == pytest.approx(expected, **close)
    _, index = structural_similarity_index_measure(
        x, y, data_range=float(FULL_SCALE), return_full_image=True
    )
    inside = index[0, :, 5:-5, 5:-5]  # the other windows extend beyond the edges
    assert ssim(fused, truth, FULL_SCALE) == pytest.approx(float(inside.mean()), **close)
    valid = np.ones(truth.shape[-2:], dtype=bool)
    valid[:, 40:] = False
    expected = float(inside[..., :30].mean())  # of columns 0 to 39 only
    assert ssim(fused, truth, FULL_SCALE, valid) == pytest.approx(expected, **close)


def test_angles_between_spectra_do_not_depend_on_the_unit(fused, truth):
    assert sam(fused / 1e5, truth / 1e5) == pytest.approx(sam(fused, truth), rel=1e-6)


def test_equal_images_get_perfect_scores(truth):
    best = {"SAM": 0, "ERGAS": 0, "Q2n": 1, "SCC": 1, "PSNR": np.inf, "SSIM": 1}
    scores = reduced_resolution_scores(truth, truth, FULL_SCALE)
    assert scores == pytest.approx(best, rel=0, abs=2e-6)
    assert q_average(truth, truth) == pytest.approx(1)


@pytest.mark.parametrize("cut", [0, 1, 4])
@pytest.mark.parametrize("edge", ["top", "left", "bottom", "right"])
def test_pixels_that_the_protocol_cuts_off_do_not_count_and_the_next_ones_do(edge, cut):
    """``cut - 1`` rows and columns at the top and left, ``cut`` at the bottom and right."""
    reference = np.random.default_rng(0).uniform(100, 1000, (2, 48, 48))
    first_that_counts = {"top": max(cut - 1, 0), "left": max(cut - 1, 0)}.get(edge, cut)
    turns = {"top": 0, "right": 1, "bottom": 2, "left": 3}[edge]
    for line, counts in ((first_that_counts - 1, False), (first_that_counts, True)):
        if line >= 0:
            turned = np.rot90(reference, turns, (1, 2)).copy()
            turned[:, line, 24] += 50
            fused = np.rot90(turned, -turns, (1, 2))
            scores = reduced_resolution_scores(fused, reference, FULL_SCALE, cut=cut)
            assert np.isfinite(scores["PSNR"]) == counts


def test_the_gradient_of_a_pixel_whose_neighbours_are_valid_counts(truth):
    valid = np.zeros(truth.shape[-2:], dtype=bool)
    valid[2:-2, 2:40] = True
    fused = truth.copy()
    fused[:, 20, 39] += 300  # seen in column 38, the last one with valid neighbours
    assert scc(fused, truth, valid) < 1 - 1e-6
    assert scc(fused, truth, valid & (np.arange(truth.shape[-1]) < 39)) == pytest.approx(1)


def test_black_windows_are_equal_to_black_ones_alone():
    black = np.zeros((2, 32, 32))
    assert q_average(black, black) == 1
    assert q_average(black + 5, black) == pytest.approx(0)


def test_band_order_does_not_change_metrics_that_treat_bands_separately(fused, truth):
    order = [3, 1, 7, 0, 2, 6, 4, 5]
    for metric in (sam, ergas, scc, q_average):
        assert metric(fused[order], truth[order]) == pytest.approx(metric(fused, truth))


def test_flat_blocks_are_scored_by_their_mean():
    cloud = Pair.of(np.full((64, 64), 2047), np.full((4, 16, 16), 2047), SENSORS["qb"])
    assert np.ptp(cloud.lms) > 0  # the interpolator leaves a ripple
    assert q2n(cloud.lms, cloud.lms) == 1
    assert q_average(cloud.lms, cloud.lms) == pytest.approx(1)
    assert d_s(cloud.lms, cloud.pan, cloud.lms) == pytest.approx(0, abs=1e-6)
    assert d_s(cloud.lms / 3, cloud.pan, cloud.lms) == pytest.approx(0.4)
    assert d_lambda_alparone(cloud.lms, cloud.lms) == pytest.approx(0, abs=1e-6)


def nodata(shape, value):
    """A mask that excludes a corner, and a function that overwrites the corner with ``value``."""
    valid = np.ones(shape[-2:], dtype=bool)
    valid[: shape[-2] // 3, : shape[-1] // 3] = False

    def overwrite(image):
        return np.where(valid, image, value)

    return valid, overwrite


@pytest.mark.parametrize("value", [np.nan, 60000.0])
def test_values_under_the_mask_do_not_change_scores(fused, truth, full, value):
    valid, overwrite = nodata(truth.shape, value)
    for metric in REFERENCE_METRICS:
        assert metric(overwrite(fused), overwrite(truth), valid) == metric(fused, truth, valid)
    clean = reduced_resolution_scores(fused, truth, FULL_SCALE, valid=valid)
    assert (
        reduced_resolution_scores(overwrite(fused), overwrite(truth), FULL_SCALE, valid=valid)
        == clean
    )

    valid, overwrite = nodata(full[1].shape, value)
    sensor = full_resolution("wv3").sensor
    clean = full_resolution_scores(*full, sensor, valid)
    assert full_resolution_scores(*map(overwrite, full), sensor, valid) == clean


def test_valid_area_of_a_masked_scene_scores_like_an_unmasked_crop(fused, truth, full):
    corner = np.s_[..., :64, :64]
    valid = np.zeros(truth.shape[-2:], dtype=bool)
    valid[corner] = True
    for metric in (sam, ergas, q2n, q_average):
        expected = metric(fused[corner], truth[corner])
        assert metric(fused, truth, valid) == pytest.approx(expected)

    everything = np.ones(full[1].shape, dtype=bool)
    sensor = full_resolution("wv3").sensor
    unmasked = full_resolution_scores(*full, sensor)
    assert full_resolution_scores(*full, sensor, everything) == unmasked


def test_gradients_at_the_edge_of_nodata_do_not_count(truth):
    brighter = truth + 300  # the same gradients, except where the images end
    valid = np.zeros(truth.shape[-2:], dtype=bool)
    valid[2:-2, 2:40] = True
    assert scc(brighter, truth, valid) == pytest.approx(1, rel=1e-12)
    assert scc(brighter, truth) < 0.999


def test_blocks_that_nodata_was_filtered_into_do_not_count():
    """In a scene of equal blocks, masking some changes the score only if others are affected."""
    rng = np.random.default_rng(0)
    ms = np.tile(rng.uniform(100, 1000, (4, 8, 8)), (14, 14))
    pan = np.tile(rng.uniform(100, 1000, (32, 32)), (14, 14))
    scene = Pair.of(pan, ms, SENSORS["qb"])
    fused = METHODS["GSA"](scene)
    interior = np.zeros(pan.shape, dtype=bool)
    interior[32:-32, 32:-32] = True  # blocks at the edges differ
    hole = interior.copy()
    hole[164:188, 164:188] = False
    for metric in (
        lambda valid: d_lambda(fused, scene.lms, scene.sensor, valid),
        lambda valid: d_s(fused, pan, scene.lms, valid),
    ):
        assert metric(hole) == pytest.approx(metric(interior), rel=1e-9)


def test_d_s_excludes_the_far_edge_that_wrapped_nodata_affects(full):
    gsa, pan, lms = full
    valid = np.ones(pan.shape, dtype=bool)
    valid[:32] = False
    with_far_edge = d_s(gsa, pan, lms, valid)
    valid[-16:] = False
    assert d_s(gsa, pan, lms, valid) == with_far_edge


def test_d_s_ignores_incomplete_blocks(full):
    gsa, pan, lms = (image[..., :100, :132] for image in full)
    scores = full_resolution_scores(gsa, pan, lms, full_resolution("wv3").sensor)
    assert all(0 < score < 1 for score in scores.values())


IMAGE = np.random.default_rng(0).uniform(1, 1000, (4, 64, 64))
WITH_NAN = np.where(np.arange(64) == 7, np.nan, IMAGE)
ALL_INVALID = np.zeros((64, 64), dtype=bool)
STRIPES = np.broadcast_to(np.arange(64) % 8 > 0, (64, 64))


@pytest.mark.parametrize("metric", REFERENCE_METRICS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGE[0], IMAGE), r"fused image has shape \[64, 64\], expected \[C, H, W\]"),
        (
            (IMAGE[:3], IMAGE),
            r"fused image has shape \[3, 64, 64\], expected that of the reference",
        ),
        ((IMAGE, WITH_NAN), "reference has 256 non-finite values"),
        ((IMAGE, IMAGE, ALL_INVALID), "mask has no valid pixels"),
        (
            (IMAGE, IMAGE, ALL_INVALID[:32]),
            r"mask .* bool of shape \[32, 64\], expected bool of shape",
        ),
        ((IMAGE, IMAGE, ALL_INVALID.astype(int)), "mask .* int64 of shape"),
    ],
)
def test_incomparable_images_are_rejected(metric, arguments, message):
    with pytest.raises(SSDiffError, match=message):
        metric(*arguments)


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda: sam(IMAGE[:1], IMAGE[:1]), "image has 1 band, expected at least 2"),
        (lambda: d_lambda_alparone(IMAGE[:1], IMAGE[:1]), "image has 1 band"),
        (lambda: sam(0 * IMAGE, IMAGE), "spectra are zero"),
        (
            lambda: ergas(IMAGE, IMAGE * [[[1]], [[0]], [[1]], [[1]]]),
            "Band 2 of the reference has mean 0",
        ),
        (lambda: scc(0 * IMAGE, IMAGE), "is flat, expected edges"),
        (lambda: scc(IMAGE[..., :2], IMAGE[..., :2]), "64 x 2 pixels, expected 3 x 3"),
        (lambda: ssim(IMAGE[..., :9], IMAGE[..., :9], 1), "64 x 9 pixels, expected 11 x 11"),
        (lambda: q2n(IMAGE[..., :31], IMAGE[..., :31]), "64 x 31 pixels, expected 32 x 32"),
        (lambda: q_average(IMAGE[..., :31], IMAGE[..., :31]), "64 x 31 pixels, expected 32 x 32"),
        (lambda: q2n(IMAGE, IMAGE, STRIPES), "No block of 32 x 32 pixels is entirely valid"),
        (lambda: q_average(IMAGE, IMAGE, STRIPES), "No block of 32 x 32 pixels"),
        (lambda: ssim(IMAGE, IMAGE, 1, STRIPES), "No valid pixel has 5 valid neighbours"),
        (lambda: d_s(IMAGE, IMAGE[0, :32], IMAGE), r"expected that of the PAN, \[32, 64\]"),
        (lambda: d_s(*(i[..., :62] for i in (IMAGE, IMAGE[0], IMAGE))), "expected multiples of 4"),
        (lambda: d_s(IMAGE, WITH_NAN[0], IMAGE), "The PAN has 64 non-finite values"),
        (lambda: reduced_resolution_scores(IMAGE, IMAGE, 1, cut=40), "cuts off 79"),
    ],
)
def test_images_that_cannot_be_scored_are_rejected(compute, message):
    with pytest.raises(SSDiffError, match=message):
        compute()
