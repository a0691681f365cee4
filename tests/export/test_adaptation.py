"""Adaptation of weights to a scene: held-out blocks, and export only of improved weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Generator

import ssdiff_trt.export.adaptation
from ssdiff_ref.network.checkpoint import load_checkpoint, save_checkpoint
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_ref.quality.filters import bicubic_quarter
from ssdiff_ref.training.adaptation import Adaptation, adapt_weights
from ssdiff_ref.training.procedural import dead_leaves
from ssdiff_ref.training.scene_pairs import (
    BLOCK,
    Blocks,
    ReducedScene,
    ScenePairs,
    reduce_scene,
    split_blocks,
)
from ssdiff_ref.training.validation import Scores
from ssdiff_trt.cli.ref import cli
from ssdiff_trt.export.adaptation import adapt
from ssdiff_trt.runtime.bundle.store import Bundle, bundle_for
from ssdiff_trt.runtime.errors import InputError, SSDiffError
from ssdiff_trt.runtime.raster.affine import product
from ssdiff_trt.runtime.raster.radiometry import Scale
from ssdiff_trt.runtime.sensors import SENSORS
from tests.support.progress import RecordingProgress
from tests.support.rasters import PAN_GRID, write_raster

SENSOR = SENSORS["generic"]
GOOD, BAD = Scores(1.0, 2.0, 0.9), Scores(2.0, 3.0, 0.8)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A pair of 128 x 128 pixels of MS."""
    folder = tmp_path_factory.mktemp("pair")
    scene = dead_leaves(5, 4, 512) * 300
    ms = bicubic_quarter(scene).clip(1, 2047)
    pan = scene.mean(axis=0, keepdims=True).clip(1, 2047)
    write_raster(folder / "pan.tif", pan.astype(np.uint16), PAN_GRID)
    grid = product(PAN_GRID, PAN_GRID.scale(4))
    write_raster(folder / "ms.tif", ms.astype(np.uint16), grid)
    return folder / "pan.tif", folder / "ms.tif"


@pytest.fixture
def weights(tmp_path) -> Path:
    save_checkpoint(SSNet(4), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def reduced(size=128, hole=None) -> ReducedScene:
    truth = dead_leaves(1, 4, size).clip(0, 5) / 10
    valid = np.ones((size, size), bool)
    if hole:
        valid[hole] = False
    return ReducedScene(truth.mean(axis=0), truth, valid)


def test_held_out_blocks_are_valid_distinct_and_spread_over_the_scene():
    scene = reduced(256, hole=np.s_[:40, :40])
    split = split_blocks(scene.valid)
    both = {tuple(corner) for corner in np.concatenate((split.validation, split.test)).tolist()}
    assert len(both) == len(split.validation) + len(split.test)
    assert 0.15 < len(both) / 60 < 0.35
    for row, col in both:
        assert scene.valid[row : row + BLOCK, col : col + BLOCK].all()
    assert {row // 128 for row, _ in both} == {col // 128 for _, col in both} == {0, 1}


def test_training_pairs_exclude_the_truth_of_held_out_blocks():
    scene = reduced()
    split = split_blocks(scene.valid)
    for row, col in np.concatenate((split.validation, split.test)):
        scene.truth[:, row : row + BLOCK, col : col + BLOCK] += 100
    pairs = ScenePairs(scene, split, SENSOR, Generator().manual_seed(0), 32)
    batch = pairs.draw(32, 256)
    assert batch.pan.shape == (256, 1, 32, 32)
    assert float((batch.lms + batch.residual).max()) < 50


def test_training_pairs_exclude_missing_data():
    scene = reduced(hole=np.s_[50:60, 50:60])
    scene.truth[:, 50:60, 50:60] = 100
    pairs = ScenePairs(scene, split_blocks(scene.valid), SENSOR, Generator().manual_seed(0), 32)
    batch = pairs.draw(32, 128)
    assert float((batch.lms + batch.residual).max()) < 50


def test_every_orientation_is_degraded_by_the_protocol():
    """Rotating or flipping an interpolated lms would misplace it, and increase the residual."""
    scene = reduced()
    pairs = ScenePairs(scene, split_blocks(scene.valid), SENSOR, Generator().manual_seed(0), 32)
    errors = [
        float((layers[1][:, 8:-8, 8:-8] - layers[3][:, 8:-8, 8:-8]).abs().mean())
        for layers in pairs._layers
    ]
    assert len(errors) == 8
    assert max(errors) < 1.1 * min(errors)


def test_scores_of_blocks_ignore_pixels_outside():
    scene = reduced()
    split = split_blocks(scene.valid)
    blocks = Blocks(scene, split.test, SENSOR)
    truth = blocks.batch.lms + blocks.batch.residual
    assert blocks.score(truth, truth).ergas == pytest.approx(0, abs=1e-3)
    images = torch.rand(truth.shape)
    for image, reference, inner in zip(images, truth, blocks._inner, strict=True):
        image[inner] = reference[inner]
    assert blocks.score(images, truth).ergas == pytest.approx(0, abs=1e-3)


def test_a_large_scene_is_cropped_to_its_centre():
    ms = np.zeros((1, 1100, 70))
    scene = reduce_scene(
        np.zeros((4400, 280)), ms, np.ones((1100, 70), bool), SENSOR_ONE, (1.5, 1.5)
    )
    assert scene.truth.shape == (1, 1024, 68)
    assert scene.pan.shape == (1024, 68)


SENSOR_ONE = type(SENSOR)("one", "one band", ("red",), 11, (0.3,), 0.15, "none")


def test_a_scene_that_is_too_small_is_refused(tmp_path):
    image = np.full((1, 256, 256), 500, np.uint16)
    write_raster(tmp_path / "pan.tif", image, PAN_GRID)
    small = np.full((4, 64, 64), 500, np.uint16)
    write_raster(tmp_path / "ms.tif", small, product(PAN_GRID, PAN_GRID.scale(4)))
    with pytest.raises(SSDiffError, match=r"has 4 blocks of 32 x 32 pixels .* expected 7 or more"):
        adapt_weights(tmp_path / "pan.tif", tmp_path / "ms.tif", tmp_path / "w.safetensors")


def test_adaptation_returns_weights_and_scores_before_and_after(pair, tmp_path):
    result = adapt_weights(*pair, tmp_path / "w.safetensors", minutes=0.4)
    net = load_checkpoint(result.weights).net
    assert net.bands == 4
    assert result.bundle.manifest.name == bundle_for(4).manifest.name
    assert np.isfinite([result.before.ergas, result.after.ergas]).all()


def test_minutes_that_evaluation_and_export_would_use_up_are_refused(pair, tmp_path):
    with pytest.raises(
        InputError, match=r"evaluation and export take .* give \d+ or more"
    ) as refused:
        adapt_weights(*pair, tmp_path / "w.safetensors", minutes=0.5, reserve=100_000)
    assert refused.value.parameter == "minutes"
    assert not (tmp_path / "w.safetensors").exists()


def fake_adaptation(weights: Path, before: Scores, after: Scores, iterations: int = 40):
    """A replacement for ``adapt_weights`` that returns the given weights and scores."""

    def adapt_weights(*args: object, **options: object) -> Adaptation:
        scale = Scale(2047, "test")
        return Adaptation(weights, bundle_for(4), SENSOR, scale, before, after, iterations)

    return adapt_weights


@pytest.mark.parametrize(
    "after", [BAD, GOOD, Scores(0.5, 1.0, 0.89), Scores(0.5, 2.1, 0.95), Scores(1.1, 1.0, 0.95)]
)
def test_weights_that_do_not_improve_every_metric_are_not_exported(
    pair, tmp_path, weights, monkeypatch, after
):
    monkeypatch.setattr(
        ssdiff_trt.export.adaptation, "adapt_weights", fake_adaptation(weights, GOOD, after)
    )
    progress = RecordingProgress()
    assert adapt(*pair, tmp_path / "new.ssdiff", progress=progress) is None
    assert "did not improve" in progress.warnings[0]
    assert not (tmp_path / "new.ssdiff").exists()
    result = CliRunner().invoke(
        cli, ["adapt", *map(str, pair), "-o", str(tmp_path / "new.ssdiff")], standalone_mode=False
    )
    assert result.return_value == 1


@pytest.mark.parametrize(("iterations", "said"), [(0, "0 iterations"), (1, "1 iteration of")])
def test_too_little_training_to_compare_weights_is_told(
    pair, tmp_path, weights, monkeypatch, iterations, said
):
    fake = fake_adaptation(weights, GOOD, GOOD, iterations)
    monkeypatch.setattr(ssdiff_trt.export.adaptation, "adapt_weights", fake)
    progress = RecordingProgress()
    assert adapt(*pair, tmp_path / "new.ssdiff", minutes=0.5, progress=progress) is None
    (warning,) = progress.warnings
    assert warning.startswith(f"0.5 minutes were enough for {said}")
    assert warning.endswith("so nothing was written; give more `minutes`")


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_a_time_that_does_not_work_is_refused(pair, tmp_path, minutes):
    with pytest.raises(InputError, match="does not work; give a number above 0") as refused:
        adapt(*pair, tmp_path / "new.ssdiff", minutes=minutes)
    assert refused.value.parameter == "minutes"


def test_improved_weights_are_exported_with_their_scores(pair, tmp_path, weights, monkeypatch):
    exported = {}

    def record(path: Path, sensor: str, output: Path, **options: object) -> Bundle:
        exported.update(options, sensor=sensor, output=output)
        return bundle_for(4)

    monkeypatch.setattr(
        ssdiff_trt.export.adaptation, "adapt_weights", fake_adaptation(weights, BAD, GOOD)
    )
    monkeypatch.setattr(ssdiff_trt.export.adaptation, "export_bundle", record)
    assert adapt(*pair, tmp_path / "new.ssdiff") is not None
    old = bundle_for(4).manifest
    assert exported["sensor"] == old.sensor.name
    assert exported["timesteps"] == old.sampler.timesteps
    assert "adapted to pan.tif and ms.tif" in exported["training_data"]
    # What a scene's licence says of weights is its owner's to state; credits stay.
    assert exported["licence"] == "not stated; adapted from generic4 (Apache-2.0)"
    assert "SpaceNet 2" in exported["attribution"]
    assert exported["attribution"] == old.provenance.attribution
    assert exported["metrics"]["ergas of the scene's held-out blocks, before"] == 2.0
    assert exported["metrics"]["ergas of the scene's held-out blocks, after"] == 1.0


def test_an_existing_bundle_is_refused_before_training(pair, tmp_path):
    (tmp_path / "new.ssdiff").mkdir()
    with pytest.raises(SSDiffError, match="exists"):
        adapt(*pair, tmp_path / "new.ssdiff")
