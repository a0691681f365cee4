"""Calibration samples: real imagery, one bundle, every timestep of its trajectories."""

from __future__ import annotations

import shutil
import zipfile

import numpy as np
import pytest

from ssdiff_ref.quality.metrics import ergas
from ssdiff_trt.calibration.collection import collect
from ssdiff_trt.calibration.diversity import select_diverse
from ssdiff_trt.calibration.samples import ARRAYS, load, read_about, weights_digest
from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.schedule import sample
from tests.support.progress import RecordingProgress
from tests.support.rasters import EXAMPLE, smooth

PAIR = [EXAMPLE / "pan.tif", EXAMPLE / "ms.tif"]


def test_every_tile_is_recorded_at_every_timestep(low4, samples4):
    samples = load(samples4, low4)
    count = len(samples.tiles.pan)
    assert samples.about.timesteps == low4.manifest.sampler.timesteps
    assert samples.states.shape == (2, count, 4, 32, 32)
    assert 8 <= count <= 16
    # From unit noise to a residual with little noise left.
    assert np.std(samples.states, axis=(1, 2, 3, 4)) == pytest.approx([1, 0.1], abs=0.06)


def test_states_are_those_of_the_sampler_of_the_bundle(low4, samples4):
    from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime

    samples, backend, states = load(samples4, low4), OnnxRuntime(low4), []
    tile = samples.tiles.part(slice(3, 4))

    def denoise(x, t):
        states.append(x[0])
        return backend.denoise(tile, x, t)

    sample(denoise, tile.lms, tile.noise, samples.about.schedule)
    assert np.array_equal(states, samples.states[:, 3])


def test_evaluation_tiles_have_a_reference_and_do_not_overlap_calibration_tiles(low4, samples4):
    samples = load(samples4, low4)
    judged = samples.judged
    image, truth = (
        stack.transpose(1, 0, 2, 3).reshape(4, -1, 32) for stack in (judged.tiles.lms, judged.truth)
    )
    assert 1 < ergas(image, truth) < 15  # interpolated MS is similar to the truth, not equal
    # The example scene has 96 x 96 pixels of MS, 3 x 3 blocks, of which 4 are for evaluation.
    assert len(judged.truth) == 4
    for _, row, col in samples.about.places:
        assert (row // 128 + col // 128) % 2 == 0
    assert len(samples.for_selection.truth) == len(samples.held_out.truth) == 2
    assert not np.array_equal(samples.for_selection.truth[0], samples.held_out.truth[0])


def test_the_same_seed_gives_the_same_samples(low4, samples4, tmp_path):
    collect(PAIR, tmp_path / "repeated.npz", bundle=low4, full_scale=10000, tiles=16)
    with np.load(samples4) as first, np.load(tmp_path / "repeated.npz") as repeated:
        assert all(np.array_equal(first[name], repeated[name]) for name in first.files)
    collect(PAIR, tmp_path / "other.npz", bundle=low4, full_scale=10000, tiles=16, seed=1)
    with np.load(samples4) as first, np.load(tmp_path / "other.npz") as other:
        assert not np.array_equal(first["states"], other["states"])


def test_samples_fit_the_size_limit_and_are_drawn(low4, tmp_path):
    progress = RecordingProgress()
    path = tmp_path / "small.npz"
    limit = 1.0
    collect(PAIR, path, bundle=low4, full_scale=10000, megabytes=limit, progress=progress)
    assert path.stat().st_size < limit * 1e6 * 1.01
    assert f"{len(load(path, low4).tiles.pan)} calibration tiles" in progress.notes[-1]
    assert path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"


def test_tiles_are_chosen_to_differ():
    # 100 similar ones and two outliers: both outliers are among the first three.
    rng = np.random.default_rng(0)
    features = rng.normal(0, 0.1, (102, 2))
    features[7], features[40] = (-5, 0), (5, 0)
    assert {7, 40} <= set(select_diverse(features, 3))
    assert len(set(select_diverse(features, 102))) == 102


def test_the_digest_of_weights_does_not_depend_on_the_graphs(low4):
    assert weights_digest(low4) == weights_digest(open_bundle("generic4"))
    assert weights_digest(low4) != weights_digest(open_bundle("generic8"))


def test_random_rasters_are_refused(make_pair, low4, tmp_path):
    rng = np.random.default_rng(5)
    pan = {"pixels": rng.integers(0, 2047, (1, 512, 512)).astype(np.uint16)}
    pair = make_pair(512, 512, pan=pan)
    with pytest.raises(SSDiffError, match=r"correlation of adjacent pixels in pan.tif is -?0.0"):
        collect(pair, tmp_path / "s.npz", bundle=low4, shift="none")
    assert not (tmp_path / "s.npz").exists()
    ms = {"pixels": rng.integers(0, 2047, (4, 128, 128)).astype(np.uint16)}
    with pytest.raises(SSDiffError, match=r"correlation of adjacent pixels in ms.tif is"):
        collect(make_pair(512, 512, ms=ms), tmp_path / "s.npz", bundle=low4, shift="none")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rasters": PAIR[:1]}, "1 raster given, expected pairs of PAN and MS"),
        ({"tiles": 7}, "7 does not work; give 8 or more"),
        ({"judged": 3}, "3 does not work; give 4 or more"),
        ({"megabytes": 0}, "0 megabytes do not work"),
        ({"seed": -1}, "The seed -1 does not work"),
        ({"output": "samples.bin"}, "end the name in .npz"),
        ({"megabytes": 0.1}, "expected 8 or more; collect from larger images"),
    ],
)
def test_invalid_options_of_collect_are_refused(low4, tmp_path, change, message):
    options = {"rasters": PAIR, "output": "s.npz", "full_scale": 10000} | change
    output = tmp_path / options.pop("output")
    with pytest.raises(SSDiffError, match=message):
        collect(options.pop("rasters"), output, bundle=low4, **options)
    assert not list(tmp_path.iterdir())


def test_few_evaluation_tiles_are_called_few(low4, tmp_path):
    progress = RecordingProgress()
    samples = collect(
        PAIR, tmp_path / "s.npz", bundle=low4, full_scale=10000, tiles=8, progress=progress
    )
    assert len(samples.judged.truth) == 4
    (told,) = [note for note in progress.notes if "judge INT8" in note]
    assert told.startswith("Half of 4 evaluation tiles will judge INT8, which is few")


def test_a_scene_that_is_too_small_is_refused(make_pair, low4, tmp_path):
    with pytest.raises(SSDiffError, match="1 evaluation tile, expected 4 or more"):
        collect(make_pair(128, 256), tmp_path / "s.npz", bundle=low4, tiles=9, shift="none")


def test_pairs_with_different_numbers_of_bands_are_refused(make_pair, low4, tmp_path):
    five = make_pair(512, 512, ms={"pixels": smooth((5, 128, 128), seed=2)})
    with pytest.raises(SSDiffError, match="gives 5 bands, expected the 4 of the pair before"):
        collect([*PAIR, *five], tmp_path / "s.npz", bundle=low4, full_scale=10000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"states": np.nan}, "non-finite values in states"),
        ({"pan": np.inf}, "non-finite values in pan"),
    ],
)
def test_non_finite_values_are_refused(low4, samples4, tmp_path, change, message):
    arrays = dict(np.load(samples4))
    for name, value in change.items():
        arrays[name][0, 0, 0, 0] = value
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(SSDiffError, match=message):
        load(tmp_path / "bad.npz", low4)


def test_samples_with_too_few_tiles_are_refused(low4, samples4, tmp_path):
    arrays = dict(np.load(samples4))
    for name in ("pan", "lms", "ms"):
        arrays[name] = arrays[name][:5]
    np.savez(tmp_path / "few.npz", **arrays)
    with pytest.raises(SSDiffError, match=r"has states of shape .* expected \[2, 5, 4, 32, 32\]"):
        load(tmp_path / "few.npz", low4)
    arrays["states"] = arrays["states"][:, :5]
    np.savez(tmp_path / "few.npz", **arrays)
    with pytest.raises(SSDiffError, match="5 calibration tiles, expected 8 or more"):
        load(tmp_path / "few.npz", low4)


def test_samples_of_another_bundle_are_refused(low4, samples4, tmp_path):
    with pytest.raises(SSDiffError, match="has samples of 4 bands, expected the 8 of generic8"):
        load(samples4, open_bundle("generic8"))
    arrays = dict(np.load(samples4))
    for change, sentence in (
        ({"tile": 64}, "has tiles of 64 pixels, expected the 32 of low4"),
        (
            {"weights": "0" * 64, "bundle": "mine"},
            r"with other weights \(mine\), expected those of",
        ),
    ):
        about = read_about(samples4).model_copy(update=change)
        np.savez(tmp_path / "o.npz", **arrays | {"about": np.array(about.model_dump_json())})
        with pytest.raises(SSDiffError, match=sentence):
            load(tmp_path / "o.npz", low4)


def test_files_that_are_not_samples_are_refused(low4, tmp_path):
    with pytest.raises(SSDiffError, match=r"There is no file .*; create it with ssdiff-calibrate"):
        load(tmp_path / "nothing.npz", low4)
    (tmp_path / "text.npz").write_text("not a zip archive")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "empty.npz").touch()
    with zipfile.ZipFile(tmp_path / "header.npz", "w") as archive:
        archive.writestr("about.npy", b"\x93NUMPY\x01\x00\x04\x00{(((")
    for name in ("text.npz", "other.npz", "array.npy", "empty.npz", "header.npz"):
        with pytest.raises(SSDiffError, match="cannot be read as calibration samples"):
            load(tmp_path / name, low4)


def test_a_corrupted_samples_file_is_refused(low4, samples4, tmp_path):
    bad = tmp_path / "bad.npz"
    shutil.copyfile(samples4, bad)
    content = bytearray(bad.read_bytes())
    content[len(content) // 2] ^= 255
    bad.write_bytes(content)
    with pytest.raises(SSDiffError, match="cannot be read as calibration samples"):
        load(bad, low4)
    assert set(ARRAYS) < set(np.load(samples4).files)
