"""``ssdiff-ref evaluate``: scores, units, nodata, array files, bundles and reports."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
import rasterio
from scipy.io import savemat

from ssdiff_ref.classical.baselines import COMPARED, METHODS
from ssdiff_ref.evaluation.candidates import choose_candidates
from ssdiff_ref.evaluation.evaluate import evaluate
from ssdiff_ref.evaluation.report import print_tables
from ssdiff_ref.protocol.pair import Pair
from ssdiff_ref.protocol.rectangle import largest_rectangle
from ssdiff_ref.protocol.simulation import align_pan_to_ms, decimation_phase, degrade
from ssdiff_ref.quality.filters import mtf_filter
from ssdiff_ref.quality.full_resolution import fidelity_scores
from ssdiff_ref.quality.metrics import full_resolution_scores, reduced_resolution_scores
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.interpolator import interpolate
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.sensors import SENSORS
from tests.support.displaced import displaced
from tests.support.dlpan import golden_arrays, golden_scores
from tests.support.imagery import (
    Upsampling,
    channels_last,
    make_bundle,
    pair,
    write_pair,
    write_raster,
)
from tests.support.progress import RecordingProgress

REDUCED = ["SAM", "ERGAS", "Q2n", "SCC", "PSNR", "SSIM"]
FULL = [
    *("D_lambda", "D_s", "HQNR", "QNR", "R-Q2n", "R-SAM", "R-ERGAS", "consistency"),
    *("D_rho", "RQNR", "detail", "period 4", "overshoot"),
]


def assert_golden(report):
    for resolution, ours in (("rr", "reduced"), ("fr", "full")):
        for method, scores in golden_scores("wv3")["scores"].items():
            for name, score in scores[resolution].items():
                approximately = pytest.approx(score, rel=1e-4, abs=1e-6)
                assert report[ours][method][name] == approximately, (method, name)


def test_scores_match_the_toolbox(tmp_path, golden_mat):
    evaluate([golden_mat], sensor="wv3", json=tmp_path / "scores.json")
    report = json.loads((tmp_path / "scores.json").read_text())
    assert_golden(report)
    assert list(report["reduced"]) == list(golden_scores("wv3")["scores"]) == list(COMPARED)
    assert all(list(scores) == REDUCED for scores in report["reduced"].values())
    assert all(list(scores) == FULL for scores in report["full"].values())
    assert report["full"]["GSA"]["QNR"] == pytest.approx(0.95393, abs=1e-6)
    metadata = {
        key: report[key] for key in ("sensor", "scenes", "crop", "full_scale", "std", "area")
    }
    assert metadata == {
        "sensor": "wv3",
        "scenes": 1,
        "crop": 21,
        "full_scale": 2047,
        "std": {"reduced": {}, "full": {}},
        "area": {"rows": [0, 640], "columns": [0, 384]},
    }
    assert report["settings"]["inputs"] == [str(golden_mat)]
    assert report["version"]


def test_an_index_below_0_is_explained(tmp_path):
    pan, ms = pair(0, 4, 80, 80)
    inputs = write_pair(tmp_path, pan, (4000.0 - 2 * ms).clip(1).astype("uint16"))
    progress = RecordingProgress()
    evaluation = evaluate(
        inputs, sensor="qb", methods=["EXP", "GS"], progress=progress, full_scale=4095
    )
    below = [m for m, scores in evaluation.mean("full").items() if scores["HQNR"] < 0]
    told = [warning for warning in progress.warnings if "HQNR" in warning and "below 0" in warning]
    assert [warning.split(":")[0] for warning in told] == below
    assert below, evaluation.mean("full")
    assert "is above 1" in told[0]


def test_rasters_are_scored_like_arrays(tmp_path):
    golden = golden_arrays()
    inputs = write_pair(tmp_path, golden["I_PAN"], golden["I_MS"])
    evaluation = evaluate(inputs, sensor="wv3", methods=["gsa", "bt-h"])
    assert list(evaluation.mean("reduced")) == ["GSA", "BT-H"]
    for resolution, ours in (("rr", "reduced"), ("fr", "full")):
        for method, scores in evaluation.mean(ours).items():
            expected = golden_scores("wv3")["scores"][method][resolution]
            for name, score in expected.items():
                assert scores[name] == pytest.approx(score, rel=1e-4, abs=1e-6)


# Scenes with nodata


def test_the_largest_rectangle_is_found():
    rng = np.random.default_rng(0)
    for _ in range(20):
        valid = rng.random((8, 7)) < 0.8
        for multiple, smallest in ((1, 1), (2, 1), (1, 3)):
            rows, cols = largest_rectangle(valid, multiple, smallest)
            sizes = [
                (bottom - top) * (right - left)
                for top in range(8)
                for bottom in range(top + smallest, 9)
                for left in range(7)
                for right in range(left + smallest, 8)
                if (bottom - top) % multiple == (right - left) % multiple == 0
                and valid[top:bottom, left:right].all()
            ]
            assert len(rows) * len(cols) == max(sizes, default=0)
            assert valid[rows.start : rows.stop, cols.start : cols.stop].all()


def test_scene_with_nodata_is_scored_like_its_largest_valid_rectangle(tmp_path):
    pan, ms = pair(0, 4, 100, 104)
    pan_with_nodata, ms_with_nodata = pan.copy(), ms.copy()
    ms_with_nodata[:, :10, 50] = 0
    pan_with_nodata[300:, :30] = 0
    inputs = write_pair(tmp_path, pan_with_nodata, ms_with_nodata, nodata=0)
    progress = RecordingProgress()
    options = {"sensor": "qb", "methods": ["GSA", "EXP"]}
    evaluation = evaluate(inputs, **options, progress=progress)
    assert (evaluation.rows, evaluation.cols) == (range(40, 392), range(32, 416))
    assert any("rows 40 to 391 and columns 32 to 415 of PAN" in note for note in progress.notes)
    (tmp_path / "cut").mkdir()
    cut = write_pair(tmp_path / "cut", pan[40:392, 32:], ms[:, 10:98, 8:])
    assert evaluate(cut, **options).scores == evaluation.scores


def test_rectangles_too_small_to_evaluate_are_skipped(tmp_path):
    pan, ms = pair(0, 4, 96, 200)
    ms[:, 80, 88:] = 0  # 80 x 200 pixels above it, 96 x 88 beside it
    inputs = write_pair(tmp_path, pan, ms, nodata=0)
    wide = evaluate(inputs, sensor="qb", methods=["EXP"])
    assert (wide.rows, wide.cols) == (range(320), range(800))
    tall = evaluate(inputs, sensor="qb", methods=["EXP"], crop=25)
    assert (tall.rows, tall.cols) == (range(384), range(352))


# Units


def test_pan_is_rescaled_to_the_full_scale_of_ms(tmp_path):
    pan, ms = pair(0, 4, 80, 80)
    coarse = np.rint(ms / 8).astype("uint8")
    inputs = write_pair(tmp_path, pan, coarse, photometric="minisblack")
    progress = RecordingProgress()
    with pytest.raises(SSDiffError, match=r"PAN would be 2047 .* of MS 255"):
        evaluate(inputs, sensor="qb", methods=["EXP"])
    scales = {"full_scale": 255, "pan_full_scale": 2047}
    evaluation = evaluate(inputs, sensor="qb", methods=["EXP"], progress=progress, **scales)
    assert evaluation.scale.value == 255
    assert any("PAN, of full scale 2047" in note for note in progress.notes)
    rescaled = Pair.of(pan * (255 / 2047), coarse, SENSORS["qb"])
    expected = full_resolution_scores(rescaled.lms, rescaled.pan, rescaled.lms, rescaled.sensor)
    (scores,) = evaluation.scores["full"]["EXP"]
    assert {name: scores[name] for name in expected} == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("arrays", "options", "scale"),
    [
        ({}, {}, 2047),
        ({"L": 8}, {}, 255),
        ({"L": 8}, {"full_scale": 100}, 100),
    ],
)
def test_full_scale_of_arrays(tmp_path, arrays, options, scale):
    pan, ms = pair(0, 4, 80, 80)
    savemat(tmp_path / "s.mat", {"I_PAN": pan, "I_MS": channels_last(ms), **arrays})
    evaluation = evaluate([tmp_path / "s.mat"], sensor="qb", methods=["EXP"], **options)
    assert evaluation.scale.value == scale
    savemat(tmp_path / "s.mat", {"I_PAN": pan // 8, "I_MS": channels_last(ms // 8).astype("uint8")})
    evaluation = evaluate([tmp_path / "s.mat"], sensor="qb", methods=["EXP"])
    assert evaluation.scale.value == 255


# Files of arrays


def write_h5(path, scenes, truth=True, phase=(2, 2), displaced=()):
    """Write a PanCollection file of simulated scenes; decimate the displaced ones at ``phase``."""
    stacks = {"gt": [], "lms": [], "ms": [], "pan": []}
    for index in range(scenes):
        pan, gt = pair(index, 4, 64, 64)
        ms, pan = degrade(gt, pan, SENSORS["qb"])
        if index in displaced:
            ms = mtf_filter(gt, SENSORS["qb"])[:, phase[0] :: 4, phase[1] :: 4]
        for key, image in (
            ("gt", gt),
            ("lms", interpolate(ms, "wrap")),
            ("ms", ms),
            ("pan", pan[None]),
        ):
            stacks[key].append(image.astype(np.float64))
    with h5py.File(path, "w") as file:
        for key, stack in stacks.items():
            if truth or key != "gt":
                file[key] = np.stack(stack)
    return path


def test_several_scenes_have_a_mean_and_a_standard_deviation(tmp_path, capsys):
    path = write_h5(tmp_path / "s.h5", 3)
    evaluation = evaluate(
        [path], sensor="qb", crop=10, json=tmp_path / "s.json", csv=tmp_path / "s.csv"
    )
    assert evaluation.scenes == 3
    assert evaluation.scores["full"] == {}  # simulated scenes have no full resolution
    with h5py.File(path) as file:
        single = [
            reduced_resolution_scores(
                METHODS["GSA"](Pair(pan[0], ms, lms, SENSORS["qb"])), gt, 2047, cut=10
            )
            for gt, lms, ms, pan in zip(*(file[key][:] for key in sorted(file)), strict=True)
        ]
    report = json.loads((tmp_path / "s.json").read_text())
    assert report["full"] == report["std"]["full"] == {}
    for name in REDUCED:
        values = [scores[name] for scores in single]
        assert report["reduced"]["GSA"][name] == pytest.approx(np.mean(values))
        assert report["std"]["reduced"]["GSA"][name] == pytest.approx(np.std(values, ddof=1))
    with (tmp_path / "s.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * len(COMPARED) * len(REDUCED)
    key = ("2", "GSA", "SAM")
    (second,) = (line for line in lines if (line["scene"], line["method"], line["metric"]) == key)
    assert second["resolution"] == "reduced"
    assert float(second["value"]) == pytest.approx(single[1]["SAM"])
    print_tables(evaluation)
    output = capsys.readouterr().out
    assert "Mean ± standard deviation of 3 scenes" in " ".join(output.split())
    assert f"±{report['std']['reduced']['GSA']['SAM']:.3f}" in output


def test_scenes_without_ground_truth_are_scored_at_both_resolutions(tmp_path):
    scenes = [pair(seed, 4, 40, 40) for seed in range(2)]
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["pan"] = np.stack([pan[None] for pan, _ in scenes]).astype(float)
        file["ms"] = np.stack([ms for _, ms in scenes]).astype(float)
        file["lms"] = np.stack([interpolate(ms.astype(float), "wrap") for _, ms in scenes])
    evaluation = evaluate([tmp_path / "s.h5"], sensor="qb", crop=0, methods=["MTF-GLP"])
    for (pan, ms), reduced, full in zip(
        scenes,
        evaluation.scores["reduced"]["MTF-GLP"],
        evaluation.scores["full"]["MTF-GLP"],
        strict=True,
    ):
        full_pair = Pair.of(pan, ms, SENSORS["qb"])
        fused = METHODS["MTF-GLP"](full_pair)
        expected = full_resolution_scores(fused, full_pair.pan, full_pair.lms, full_pair.sensor)
        fidelity = fidelity_scores(
            fused, full_pair.pan, full_pair.ms, expected["D_lambda"], full_pair.sensor
        )
        assert full == pytest.approx({**expected, **fidelity}, rel=1e-9, nan_ok=True)
        ms_lr, pan_lr = degrade(ms, pan, SENSORS["qb"])
        fused = METHODS["MTF-GLP"](Pair.of(pan_lr, ms_lr, SENSORS["qb"]))
        expected = reduced_resolution_scores(fused, ms, 2047, cut=0)
        assert reduced == pytest.approx(expected, rel=1e-9)


def test_methods_get_the_lms_of_the_file(tmp_path):
    path = write_h5(tmp_path / "s.h5", 1)
    with h5py.File(path, "r+") as file:
        file["lms"][...] = file["gt"][...]
    evaluation = evaluate([path], sensor="qb", crop=10, methods=["EXP"])
    assert evaluation.mean("reduced")["EXP"]["ERGAS"] == 0


@pytest.mark.parametrize(
    "names",
    [
        {"gt": "I_GT", "ms": "I_MS_LR", "lms": "I_MS", "pan": "I_PAN"},
        {"gt": "gt", "ms": "ms", "lms": "lms", "pan": "pan"},
    ],
)
@pytest.mark.parametrize("version_5", [True, False])
def test_mat_files_of_either_naming_and_version_give_the_same_scores(tmp_path, names, version_5):
    path = write_h5(tmp_path / "s.h5", 1)
    with h5py.File(path) as file:
        arrays = {names[key]: channels_last(file[key][0]) for key in file}
    arrays[names["pan"]] = arrays[names["pan"]][..., 0]
    mat = tmp_path / "s.mat"
    if version_5:
        savemat(mat, arrays)
    else:  # version 7.3 as MATLAB writes it: HDF5 after a header, axes reversed
        with h5py.File(mat, "w", userblock_size=512) as file:
            for name, array in arrays.items():
                file[name] = array.T
        with mat.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    options = {"sensor": "qb", "crop": 10, "methods": ["GSA"]}
    assert evaluate([mat], **options).scores == evaluate([path], **options).scores


def test_scenes_with_a_displaced_ms_are_counted(tmp_path):
    progress = RecordingProgress()
    options = {"sensor": "qb", "crop": 10, "methods": ["EXP"], "progress": progress}
    aligned = evaluate([write_h5(tmp_path / "s.h5", 3)], **options)
    assert (aligned.displaced, progress.warnings) == (0, [])
    path = write_h5(tmp_path / "d.h5", 4, phase=(1, 2), displaced=(0, 3))
    evaluation = evaluate([path], **options, json=tmp_path / "s.json")
    assert evaluation.displaced == 2
    assert progress.warnings[0].startswith(
        "2 of 4 scenes have MS that was decimated at a phase other than (2, 2)"
    )
    assert json.loads((tmp_path / "s.json").read_text())["displaced_scenes"] == 2


@pytest.mark.parametrize("phase", [(1, 2), (2, 1), (2, 2), (0, 3)])
def test_decimation_phase_of_a_patch_cut_from_a_larger_image(phase):
    image = golden_arrays()["I_MS"].astype(float)
    blurred = mtf_filter(image, SENSORS["wv3"])
    patch = np.s_[:, 32:96, 16:80]
    ms = blurred[patch][:, phase[0] :: 4, phase[1] :: 4]
    assert decimation_phase(ms, image[patch], SENSORS["wv3"]) == phase
    flat = np.full((8, 64, 64), 300.0)
    assert decimation_phase(flat[:, ::4, ::4], flat, SENSORS["wv3"]) == (2, 2)


# Bundles


@pytest.fixture
def upsampling(monkeypatch):
    """Replaces bundles' networks by ``lms``, so that results differ from EXP only in geometry."""
    monkeypatch.setattr(
        "ssdiff_trt.runtime.networks.open_backend",
        lambda name, bundle, **options: Upsampling(bundle),
    )


def test_bundle_gets_ms_in_the_same_geometry_as_other_methods(tmp_path, upsampling):
    bundle = make_bundle(tmp_path, "plain", 4)
    candidates = choose_candidates(["EXP"], [bundle], 4, 2047, Progress())
    assert list(candidates) == ["EXP", "ssdiff:plain"]
    scene = Pair.of(*pair(0, 4, 40, 32), SENSORS["qb"])
    np.testing.assert_allclose(candidates["ssdiff:plain"](scene), scene.lms, rtol=2e-6)


class PanInEveryBand(Upsampling):
    """Fake backend whose output is PAN in every band."""

    def images(self, noise, pan, lms, ms):
        return pan.repeat(4, axis=1)


def test_bundle_gets_pan_aligned_with_ms_if_the_ground_truth_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "ssdiff_trt.runtime.networks.open_backend",
        lambda name, bundle, **options: PanInEveryBand(bundle),
    )
    progress = RecordingProgress()
    bundle = make_bundle(tmp_path, "plain", 4)
    method = choose_candidates([], [bundle], 4, 2047, progress)["ssdiff:plain"]
    shift = 0.6, -1.4
    pan, ms = displaced((shift[0] + 0.5, shift[1] + 0.5), 48, 48)  # at 4 n + 2, and displaced
    scene = Pair.of(pan, ms, SENSORS["qb"])
    np.testing.assert_allclose(method(scene)[0], pan, rtol=1e-6)
    assert progress.warnings == []  # without ground truth PAN is not moved
    fused = method(replace(scene, has_truth=True))
    np.testing.assert_allclose(fused[0], align_pan_to_ms(pan, shift), atol=6)
    (warning,) = progress.warnings
    assert warning.startswith("ssdiff:plain: MS lies +0.6")
    assert "PAN is moved for it and not for classical methods" in warning
    pan, ms = displaced((0.5, 0.5), 48, 48)
    aligned = replace(Pair.of(pan, ms, SENSORS["qb"]), has_truth=True)
    np.testing.assert_allclose(method(aligned)[0], pan, rtol=1e-6)
    assert len(progress.warnings) == 1


def test_bundles_are_scored_with_classical_methods(tmp_path, upsampling):
    inputs = write_pair(tmp_path, *pair(0, 4, 80, 80))
    evaluation = evaluate(
        inputs,
        sensor="qb",
        methods=["EXP"],
        bundles=[make_bundle(tmp_path, "plain", 4)],
        json=tmp_path / "s.json",
    )
    reduced = evaluation.mean("reduced")
    assert list(reduced) == ["EXP", "ssdiff:plain"]
    # Of 80 pixels, 41 are cropped, so most of the rest is affected by the edges.
    assert reduced["ssdiff:plain"]["ERGAS"] == pytest.approx(reduced["EXP"]["ERGAS"], rel=0.02)
    report = json.loads((tmp_path / "s.json").read_text())
    assert report["settings"]["bundles"]["ssdiff:plain"]["path"].endswith("plain.ssdiff")


def test_bundle_for_another_number_of_bands_is_rejected(tmp_path, upsampling):
    inputs = write_pair(tmp_path, *pair(0, 4, 80, 80))
    with pytest.raises(SSDiffError, match=r"gives 4 bands and the bundle eight is for 8"):
        evaluate(inputs, sensor="qb", bundles=[make_bundle(tmp_path, "eight", 8)])


# Displaced pairs


@pytest.mark.parametrize("shift", [(-0.9, 1.3), (2.7, -3.4)])
def test_all_methods_get_an_aligned_pair(tmp_path, shift):
    options = {"sensor": "qb", "methods": ["GSA", "BT-H"]}
    inputs = write_pair(tmp_path, *as_uint16(displaced((0, 0), 80, 80)))
    aligned = evaluate(inputs, **options, shift=(0.0, 0.0))
    inputs = write_pair(tmp_path, *as_uint16(displaced(shift, 80, 80)))
    progress = RecordingProgress()
    evaluation = evaluate(
        inputs, **options, shift="auto", json=tmp_path / "scores.json", progress=progress
    )
    assert any("PAN is moved" in note for note in progress.notes)
    assert json.loads((tmp_path / "scores.json").read_text())["settings"]["shift"] == "auto"
    uncorrected = evaluate(inputs, **options)
    for method in options["methods"]:
        reduced = [
            each.mean("reduced")[method]["ERGAS"] for each in (aligned, evaluation, uncorrected)
        ]
        assert reduced[1] == pytest.approx(reduced[0], rel=0.1)
        assert reduced[2] > 1.15 * reduced[0]
        full = [each.mean("full")[method]["D_s"] for each in (aligned, evaluation, uncorrected)]
        assert abs(full[1] - full[0]) < min(0.01, abs(full[2] - full[0]) / 2)
    pan, ms = displaced(shift, 80, 80)
    savemat(tmp_path / "s.mat", {"I_PAN": pan, "I_MS": channels_last(ms)})
    scores = evaluate([tmp_path / "s.mat"], **options, shift="auto").mean("reduced")
    assert scores["GSA"]["ERGAS"] == pytest.approx(reduced_ergas(evaluation), rel=0.01)
    stated = evaluate([tmp_path / "s.mat"], **options, shift=shift).mean("reduced")
    assert stated["GSA"]["ERGAS"] == pytest.approx(reduced_ergas(evaluation), rel=0.02)


def reduced_ergas(evaluation):
    return evaluation.mean("reduced")["GSA"]["ERGAS"]


def as_uint16(images):
    return [np.rint(image).astype("uint16") for image in images]


def test_shift_is_rejected_where_the_ground_truth_is_known(tmp_path, fused_rasters):
    with pytest.raises(
        SSDiffError, match=r"`shift` has no effect on s.h5, which contains its ground truth"
    ):
        evaluate([write_h5(tmp_path / "s.h5", 1)], sensor="qb", shift="auto")
    truth, noisy, _ = fused_rasters
    with pytest.raises(SSDiffError, match="`shift` has no effect with `reference`"):
        evaluate([noisy], reference=truth, sensor="qb", shift=(1.0, 0.0))


# Fused rasters and their reference


@pytest.fixture
def fused_rasters(tmp_path):
    reference = pair(0, 4, 96, 88)[1]
    noise = np.random.default_rng(1).integers(-20, 21, reference.shape)
    return (
        write_raster(tmp_path / "truth.tif", reference),
        write_raster(tmp_path / "noisy.tif", (reference + noise).astype("uint16")),
        write_raster(tmp_path / "same.tif", reference),
    )


def test_fused_rasters_are_compared_with_the_reference(tmp_path, fused_rasters):
    truth, noisy, same = fused_rasters
    evaluation = evaluate([noisy, same], reference=truth, sensor="qb", json=tmp_path / "s.json")
    arrays = [rasterio.open(path).read() for path in (noisy, truth)]
    expected = reduced_resolution_scores(*arrays, full_scale=2047)
    assert evaluation.mean("reduced")["noisy"] == pytest.approx(expected)
    report = json.loads((tmp_path / "s.json").read_text())
    assert report["reduced"]["same"]["ERGAS"] == 0
    assert report["reduced"]["same"]["PSNR"] is None  # infinite, which JSON cannot represent
    assert report["full"] == {}


def test_pixels_that_are_nodata_in_any_raster_do_not_count(tmp_path, fused_rasters):
    truth, noisy, same = fused_rasters
    before = evaluate([noisy], reference=truth, sensor="qb").mean("reduced")["noisy"]
    for path in (truth, noisy):
        with rasterio.open(path, "r+") as file:
            image = file.read()
            image[:, 60:] = 9
            file.write(image)
    options = {"reference": truth, "sensor": "qb"}
    unmasked = evaluate([noisy], **options).mean("reduced")["noisy"]
    assert unmasked["Q2n"] > before["Q2n"] + 0.001
    masked = evaluate([noisy], **options, nodata=9).mean("reduced")["noisy"]
    with rasterio.open(same) as a, rasterio.open(noisy) as b:
        valid = np.zeros((96, 88), bool)
        valid[:60] = True
        expected = reduced_resolution_scores(b.read(), a.read(), 2047, valid=valid)
    assert masked == pytest.approx(expected)
