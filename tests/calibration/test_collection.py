"""Calibration samples: from real imagery, of one bundle, at every timestep."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from ssdiff_ref.quality.metrics import ergas
from ssdiff_trt.calibration.collection import collect
from ssdiff_trt.calibration.diversity import spread
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
    # From unit noise to a residual that hardly has any left.
    assert np.std(samples.states, axis=(1, 2, 3, 4)) == pytest.approx([1, 0.1], abs=0.06)


def test_states_are_those_of_the_bundles_own_sampler(low4, samples4):
    from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime

    samples, backend, seen = load(samples4, low4), OnnxRuntime(low4), []
    tile = samples.tiles.part(slice(3, 4))

    def denoise(x, t):
        seen.append(x[0])
        return backend.denoise(tile, x, t)

    sample(denoise, tile.lms, tile.noise, samples.about.schedule)
    assert np.array_equal(seen, samples.states[:, 3])


def test_judged_tiles_have_their_truth_and_lie_elsewhere(low4, samples4):
    samples = load(samples4, low4)
    judged = samples.judged
    image, truth = (
        stack.transpose(1, 0, 2, 3).reshape(4, -1, 32) for stack in (judged.tiles.lms, judged.truth)
    )
    assert 1 < ergas(image, truth) < 15  # the interpolated MS, near the truth and not it
    # The example scene is 96 x 96 pixels of MS, 3 x 3 blocks; 4 of them are white.
    assert len(judged.truth) == 4
    for _, row, col in samples.about.places:
        assert (row // 128 + col // 128) % 2 == 0
    assert len(samples.for_choice.truth) == len(samples.held_out.truth) == 2
    assert not np.array_equal(samples.for_choice.truth[0], samples.held_out.truth[0])


def test_the_same_seed_gives_the_same_samples(low4, samples4, tmp_path):
    collect(PAIR, tmp_path / "again.npz", bundle=low4, full_scale=10000, tiles=16)
    with np.load(samples4) as first, np.load(tmp_path / "again.npz") as again:
        assert all(np.array_equal(first[name], again[name]) for name in first.files)
    collect(PAIR, tmp_path / "other.npz", bundle=low4, full_scale=10000, tiles=16, seed=1)
    with np.load(samples4) as first, np.load(tmp_path / "other.npz") as other:
        assert not np.array_equal(first["states"], other["states"])


def test_samples_keep_to_their_size_and_are_drawn(low4, tmp_path):
    progress = RecordingProgress()
    path = tmp_path / "small.npz"
    limit = 1.0
    collect(PAIR, path, bundle=low4, full_scale=10000, megabytes=limit, progress=progress)
    assert path.stat().st_size < limit * 1e6 * 1.01
    assert f"{len(load(path, low4).tiles.pan)} tiles to calibrate by" in progress.notes[-1]
    assert path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"


def test_tiles_are_chosen_to_differ():
    # 100 alike, one dark, one bright: both are among the first three.
    rng = np.random.default_rng(0)
    features = rng.normal(0, 0.1, (102, 2))
    features[7], features[40] = (-5, 0), (5, 0)
    assert {7, 40} <= set(spread(features, 3))
    assert len(set(spread(features, 102))) == 102


def test_other_graphs_of_the_same_weights_have_the_same_digest(low4):
    assert weights_digest(low4) == weights_digest(open_bundle("generic4"))
    assert weights_digest(low4) != weights_digest(open_bundle("generic8"))


def test_random_rasters_are_refused(make_pair, low4, tmp_path):
    rng = np.random.default_rng(5)
    pan = {"pixels": rng.integers(0, 2047, (1, 512, 512)).astype(np.uint16)}
    pair = make_pair(512, 512, pan=pan)
    with pytest.raises(SSDiffError, match=r"Neighbouring pixels of pan.tif correlate by -?0.0"):
        collect(pair, tmp_path / "s.npz", bundle=low4)
    assert not (tmp_path / "s.npz").exists()
    ms = {"pixels": rng.integers(0, 2047, (4, 128, 128)).astype(np.uint16)}
    with pytest.raises(SSDiffError, match=r"Neighbouring pixels of ms.tif correlate"):
        collect(make_pair(512, 512, ms=ms), tmp_path / "s.npz", bundle=low4)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rasters": PAIR[:1]}, "1 raster given, expected pairs of PAN and MS"),
        ({"tiles": 7}, "--tiles 7 does not work; give 8 or more"),
        ({"judged": 1}, "--judged 1 does not work; give 2 or more"),
        ({"megabytes": 0}, "--megabytes 0 does not work"),
        ({"seed": -1}, "The seed -1 does not work"),
        ({"output": "samples.bin"}, "end the name in .npz"),
        ({"megabytes": 0.1}, "expected 8 or more; collect from larger images"),
    ],
)
def test_mistakes_of_a_collection_are_one_sentence(low4, tmp_path, change, sentence):
    given = {"rasters": PAIR, "output": "s.npz", "full_scale": 10000} | change
    output = tmp_path / given.pop("output")
    with pytest.raises(SSDiffError, match=sentence):
        collect(given.pop("rasters"), output, bundle=low4, **given)
    assert not list(tmp_path.iterdir())


def test_a_scene_that_is_too_small_gives_no_samples(make_pair, low4, tmp_path):
    with pytest.raises(SSDiffError, match="gives 1 tile to judge by, expected 2 or more"):
        collect(make_pair(128, 256), tmp_path / "s.npz", bundle=low4, tiles=9)


def test_pairs_with_other_bands_do_not_mix(make_pair, low4, tmp_path):
    five = make_pair(512, 512, ms={"pixels": smooth((5, 128, 128), seed=2)})
    with pytest.raises(SSDiffError, match="gives 5 bands, expected the 4 of the pair before"):
        collect([*PAIR, *five], tmp_path / "s.npz", bundle=low4, full_scale=10000)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"states": np.nan}, "values in states that are not finite"),
        ({"pan": np.inf}, "values in pan that are not finite"),
    ],
)
def test_values_that_are_not_finite_are_refused(low4, samples4, tmp_path, change, sentence):
    arrays = dict(np.load(samples4))
    for name, value in change.items():
        arrays[name][0, 0, 0, 0] = value
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(SSDiffError, match=sentence):
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
    with pytest.raises(SSDiffError, match="gives 5 tiles to calibrate by, expected 8 or more"):
        load(tmp_path / "few.npz", low4)


def test_samples_of_another_bundle_are_refused(low4, samples4, tmp_path):
    with pytest.raises(SSDiffError, match="has samples of 4 bands, expected the 8 of generic8"):
        load(samples4, open_bundle("generic8"))
    with pytest.raises(SSDiffError, match="tiles of 32 pixels, expected the 64 of generic4"):
        load(samples4, open_bundle("generic4"))
    arrays = dict(np.load(samples4))
    about = read_about(samples4).model_copy(update={"weights": "0" * 64, "bundle": "mine"})
    np.savez(tmp_path / "o.npz", **arrays | {"about": np.array(about.model_dump_json())})
    with pytest.raises(SSDiffError, match=r"trajectories of other weights \(mine\) than those of"):
        load(tmp_path / "o.npz", low4)


def test_what_is_no_file_of_samples_is_refused(low4, tmp_path):
    with pytest.raises(SSDiffError, match=r"There is no file .*; make one with ssdiff-calibrate"):
        load(tmp_path / "nothing.npz", low4)
    (tmp_path / "text.npz").write_text("no zip")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name in ("text.npz", "other.npz", "array.npy"):
        with pytest.raises(SSDiffError, match="cannot be read as calibration samples"):
            load(tmp_path / name, low4)


def test_a_damaged_file_of_samples_is_refused(low4, samples4, tmp_path):
    bad = tmp_path / "bad.npz"
    shutil.copyfile(samples4, bad)
    content = bytearray(bad.read_bytes())
    content[len(content) // 2] ^= 255
    bad.write_bytes(content)
    with pytest.raises(SSDiffError, match="cannot be read as calibration samples"):
        load(bad, low4)
    assert set(ARRAYS) < set(np.load(samples4).files)
