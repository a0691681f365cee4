"""Classical methods match the DLPan-Toolbox in every score at both resolutions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ssdiff_ref.classical import NAMES
from ssdiff_ref.classical.baselines import METHODS, wavelet_quarter
from ssdiff_ref.protocol.pair import Pair
from ssdiff_ref.quality.metrics import full_resolution_scores, reduced_resolution_scores, sam
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.sensors import SENSORS
from tests.support.dlpan import (
    SCENES,
    full_resolution,
    golden_arrays,
    golden_scores,
    reduced_resolution,
)

TOLERANCE = 1e-6  # the toolbox prints scores with 6 decimals


def assert_scores(actual, expected):
    for name, score in expected.items():
        assert actual[name] == pytest.approx(score, rel=0, abs=TOLERANCE), name


def test_options_offer_all_methods():
    assert tuple(METHODS) == NAMES


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("method", golden_scores("wv3")["scores"])
def test_reduced_resolution_scores_match_the_toolbox(scene, method):
    fused = METHODS[method](reduced_resolution(scene))
    truth = full_resolution(scene).ms
    actual = reduced_resolution_scores(fused, truth, full_scale=2047)
    assert_scores(actual, golden_scores(scene)["scores"][method]["rr"])


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("method", golden_scores("wv3")["scores"])
def test_full_resolution_scores_match_the_toolbox(scene, method):
    pair = full_resolution(scene)
    actual = full_resolution_scores(METHODS[method](pair), pair.pan, pair.lms, pair.sensor)
    assert_scores(actual, golden_scores(scene)["scores"][method]["fr"])


def test_every_method_but_plain_brovey_is_compared_with_the_toolbox():
    for scene in SCENES:
        assert set(METHODS) - set(golden_scores(scene)["scores"]) == {"Brovey"}


def test_brovey_keeps_the_spectral_angle_and_takes_the_intensity_from_pan():
    scene = reduced_resolution("wv3")
    fused = METHODS["Brovey"](scene)
    assert sam(fused, scene.lms) < 1e-5
    assert np.corrcoef(fused.mean(axis=0).ravel(), scene.pan.ravel())[0, 1] == pytest.approx(1)


def test_wavelet_lowpass_matches_the_toolbox():
    arrays = golden_arrays()
    expected = arrays["gsa_lowpassed_pan"]
    np.testing.assert_allclose(wavelet_quarter(arrays["pan_lr"]), expected, rtol=1e-9)


@pytest.mark.parametrize("method", ["MTF-GLP", "MTF-GLP-FS", "MTF-GLP-HPM", "MTF-GLP-HPM-R"])
def test_roundings_of_a_flat_pan_are_not_enlarged_to_the_contrast_of_ms(method):
    rng = np.random.default_rng(0)
    pan = np.float32(3000) + rng.integers(-1, 2, (128, 128)) * np.spacing(np.float32(3000))
    ms = 3000 + rng.normal(0, 100, (4, 32, 32))
    pair = dataclasses.replace(Pair.of(pan, ms, SENSORS["qb"]), toolbox=False)
    np.testing.assert_allclose(METHODS[method](pair), pair.lms, atol=1)


def test_integer_images_are_converted_to_float64():
    arrays = golden_arrays()
    assert arrays["I_MS"].dtype == np.uint16
    scene = full_resolution("wv3")
    assert {scene.pan.dtype, scene.ms.dtype, scene.lms.dtype} == {np.dtype(np.float64)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pan": np.ones((1, 128, 128))}, r"The PAN has shape \[1, 128, 128\], expected \[H, W\]"),
        ({"pan": np.ones((96, 128))}, r"The PAN is \[96, 128\] pixels, expected \[128, 128\]"),
        ({"lms": np.ones((4, 64, 64))}, r"band of LMS has shape \[64, 64\], .*PAN, \[128, 128\]"),
        ({"lms": np.ones((3, 128, 128))}, "image has 3 bands, expected the 4 of QuickBird"),
        ({"sensor": SENSORS["wv3"]}, "image has 4 bands, expected the 8 of WorldView-3"),
        ({"ms": np.full((4, 32, 32), np.nan)}, "The MS has 4096 non-finite values"),
    ],
)
def test_inconsistent_pair_is_rejected(change, message):
    scene = Pair.of(np.ones((128, 128)), np.ones((4, 32, 32)), SENSORS["qb"])
    with pytest.raises(SSDiffError, match=message):
        dataclasses.replace(scene, **change)
