"""Adaptation of weights to scenes: held-out blocks, measures, and export of better weights only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Generator

import ssdiff_ref.training.full_term
import ssdiff_trt.export.adaptation
from ssdiff_ref.network.checkpoint import load_checkpoint, save_checkpoint
from ssdiff_ref.network.ssnet import SSNet
from ssdiff_ref.quality.filters import bicubic_quarter
from ssdiff_ref.training import adaptation
from ssdiff_ref.training.adaptation import Adaptation, adapt_weights
from ssdiff_ref.training.held_out import MEASURES, HeldOut, SceneScores, Stopping, Verdict
from ssdiff_ref.training.procedural import dead_leaves
from ssdiff_ref.training.scene_pairs import (
    AdaptationScene,
    Block,
    ScenePairs,
    largest_side,
    prepare_scene,
    split_blocks,
)
from ssdiff_trt.cli.ref import cli
from ssdiff_trt.export.adaptation import adapt
from ssdiff_trt.runtime.bundle.store import Bundle, bundle_for
from ssdiff_trt.runtime.errors import InputError, SSDiffError
from ssdiff_trt.runtime.raster.affine import product
from ssdiff_trt.runtime.scenes import SceneEntry
from tests.support.adaptation import SENSOR, scene_of, split_of
from tests.support.progress import RecordingProgress
from tests.support.rasters import PAN_GRID, write_raster

GOOD = np.array([[1.0, 2.0, 0.9, 0.5, 0.1, 0.9]])
"""Measures of one block."""
BAD = np.array([[2.0, 3.0, 0.8, 0.6, 0.2, 0.8]])


def write_pair(folder: Path, seed: int, size: int, bands: int = 4) -> SceneEntry:
    """A pair of ``size`` x ``size`` pixels of MS."""
    folder.mkdir(exist_ok=True)
    scene = dead_leaves(seed, bands, 4 * size) * 300
    ms = bicubic_quarter(scene).clip(1, 2047)
    pan = scene.mean(axis=0, keepdims=True).clip(1, 2047)
    write_raster(folder / "pan.tif", pan.astype(np.uint16), PAN_GRID)
    write_raster(folder / "ms.tif", ms.astype(np.uint16), product(PAN_GRID, PAN_GRID.scale(4)))
    return SceneEntry(str(folder / "pan.tif"), (str(folder / "ms.tif"),))


@pytest.fixture(scope="module", autouse=True)
def small_pool():
    """Few samples at full resolution, as the network processes each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssdiff_ref.training.full_term, "_POOL", 24)
        yield


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> SceneEntry:
    """A pair of 128 x 128 pixels of MS."""
    return write_pair(tmp_path_factory.mktemp("pair"), 5, 128)


@pytest.fixture
def weights(tmp_path) -> Path:
    save_checkpoint(SSNet(4), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def pairs_of(scene: AdaptationScene) -> ScenePairs:
    trained = split_of(scene).trained([scene])
    return ScenePairs([scene], trained, SENSOR, Generator().manual_seed(0), 32)


def corners(blocks: tuple[Block, ...]) -> set[tuple[int, int, int]]:
    return {(block.scene, block.row, block.col) for block in blocks}


def test_held_out_blocks_are_valid_distinct_and_spread_over_the_scenes():
    holed = np.ones((256, 256), bool)
    holed[:40, :40] = False
    masks = [holed, np.ones((128, 128), bool)]
    split = split_blocks(masks)
    both = corners(split.validation) | corners(split.test)
    assert len(both) == len(split.validation) + len(split.test)
    assert 0.15 < len(both) / 76 < 0.35
    for block in (*split.validation, *split.test):
        assert block.size == 32
        assert masks[block.scene][block.place].all()
    assert {scene for scene, _, _ in both} == {0, 1}
    assert {row // 128 for scene, row, _ in both if scene == 0} == {0, 1}


def test_of_a_large_scene_only_some_blocks_are_held_out():
    split = split_blocks([np.ones((1024, 1024), bool)])
    assert (len(split.validation), len(split.test)) == (8, 16)
    assert {block.row // 512 for block in split.test} == {0, 1}


def test_a_small_scene_has_smaller_blocks():
    split = split_blocks([np.ones((64, 64), bool)])
    assert {block.size for block in (*split.validation, *split.test)} == {16}
    assert (len(split.validation), len(split.test)) == (2, 2)
    trained = split.trained([scene_of(64)])
    assert trained[0].sum() == 64**2 - 4 * 16**2


def test_training_pairs_exclude_the_truth_of_held_out_blocks():
    scene = scene_of()
    for block in (*split_of(scene).validation, *split_of(scene).test):
        scene.ms[(slice(None), *block.place)] += 100
    batch = pairs_of(scene).draw(32, 256)
    assert batch.pan.shape == (256, 1, 32, 32)
    assert float((batch.lms + batch.residual).max()) < 50


def test_training_pairs_exclude_missing_data():
    scene = scene_of(hole=np.s_[50:60, 50:60])
    scene.ms[:, 50:60, 50:60] = 100
    batch = pairs_of(scene).draw(32, 128)
    assert float((batch.lms + batch.residual).max()) < 50


def test_training_pairs_are_of_every_scene():
    scenes = [scene_of(64), scene_of(64, seed=2)]
    scenes[1].ms[:] += 10
    trained = [scene.valid for scene in scenes]
    pairs = ScenePairs(scenes, trained, SENSOR, Generator().manual_seed(0), 32)
    batch = pairs.draw(32, 200)
    bright = ((batch.lms + batch.residual).mean((1, 2, 3)) > 5).float().mean()
    assert 0.35 < float(bright) < 0.65


def test_every_orientation_is_degraded_by_the_protocol():
    """Rotating or flipping an interpolated lms would misplace it, and increase the residual."""
    errors = [
        float((layers[1][:, 8:-8, 8:-8] - layers[3][:, 8:-8, 8:-8]).abs().mean())
        for layers in pairs_of(scene_of())._layers
    ]
    assert len(errors) == 8
    assert max(errors) < 1.1 * min(errors)


def test_held_out_blocks_are_measured_as_the_run_fuses_them():
    """A copy of PAN at both resolutions has PAN's detail; the margin must not count."""
    scene = scene_of()
    bundle = bundle_for(4)
    net = load_checkpoint(bundle.path).net
    blocks = split_of(scene).test[:1]
    values = HeldOut([scene], blocks, SENSOR, bundle).measure(net)
    assert values.shape == (1, 6)
    assert np.isfinite(values).all()
    named = dict(zip([measure.name for measure in MEASURES], values[0], strict=True))
    assert 0 < named["ERGAS"] < 20
    assert named["detail"] > 0.5
    (block,) = blocks
    untouched = np.ones((128, 128), bool)
    untouched[block.row - 12 : block.row + 44, block.col - 12 : block.col + 44] = False
    scene.ms[:, untouched] = 0
    scene.pan[np.kron(untouched, np.ones((4, 4), bool))] = 0
    np.testing.assert_allclose(
        HeldOut([scene], blocks, SENSOR, bundle).measure(net)[:, 3:], values[:, 3:], rtol=1e-6
    )


def test_the_best_weights_have_the_highest_grade_and_then_the_lowest_error():
    before = SceneScores(1, 1, 0.9, 0.5, 0.1, 0.9, grade=1)
    soft = SceneScores(0.5, 0.5, 0.95, 0.5, 0.3, 0.6, grade=0)
    better = SceneScores(0.8, 0.9, 0.92, 0.5, 0.1, 0.9, grade=1)
    safer = SceneScores(0.9, 0.9, 0.92, 0.4, 0.05, 0.95, grade=2)
    order = [before, better, safer]
    assert before.better_than(None)
    assert not any(soft.better_than(other) for other in (None, *order))
    for index, one in enumerate(order):
        for other in order[:index]:
            assert one.better_than(other)
            assert not other.better_than(one)
    ends = [str(scores).rpartition(" ")[2] for scores in (soft, better, safer)]
    assert ends == ["enough", "reserve", "0.9500"]


def test_early_stopping_compares_with_the_first_weights_at_full_resolution():
    rows = iter(
        (
            GOOD,
            GOOD * [0.5, 1, 1, 0.97, 0.94, 1.003],  # better by the reserve of each
            GOOD * [0.4, 1, 1, 0.97, 0.97, 1.003],
            GOOD * [0.4, 1, 1, 0.995, 0.94, 1.003],
            GOOD * [0.4, 1, 1, 0.97, 0.94, 1.0005],
            GOOD * [0.4, 1, 1, 1.001, 0.94, 1.003],
        )
    )

    class Fake:
        def measure(self, net, sampling):
            return next(rows)

    lacking: list[tuple[str, ...]] = []
    stopping = Stopping(Fake(), lacking.append)
    assert [stopping(SSNet(4)).grade for _ in range(6)] == [1, 2, 1, 1, 1, 0]
    assert lacking == [(), ("D_rho",), ("R-ERGAS",), ("detail",), ("R-ERGAS",)]


def test_a_verdict_states_gains_their_errors_and_what_is_worse():
    before = np.repeat(GOOD, 4, axis=0)
    after = before.copy()
    after[:, 0] -= [0.1, 0.3, 0.2, 0.2]
    after[:, 1] -= 0.5
    after[:, 2] += 0.01
    after[:, 5] -= 0.1
    verdict = Verdict(before, after)
    np.testing.assert_allclose(verdict.gains, [0.2, 0.5, 0.01, 0, 0, -0.1], atol=1e-12)
    expected = np.std([0.1, 0.3, 0.2, 0.2], ddof=1) / 2
    assert verdict.errors[0] == pytest.approx(expected)
    assert verdict.worse == ("detail",)
    assert "lower in 4 of them, on average by 0.200 ± 0.041" in verdict.certainty
    lines = verdict.table(("generic4", "mine"))
    assert lines[1].split() == [measure.name for measure in MEASURES]
    assert lines[3].split() == ["mine", "0.8000", "1.5000", "0.9100", "0.5000", "0.1000", "0.8000"]


def test_a_verdict_says_where_it_is_not_sure():
    assert "too few to say" in Verdict(BAD, GOOD).certainty
    spread = Verdict(np.repeat(GOOD, 2, axis=0), GOOD * np.array([[0.5], [1.4]]))
    assert spread.certainty.endswith("less than two standard errors, so not certain")


def test_a_large_scene_is_cropped_to_its_centre_and_many_scenes_to_less():
    one = type(SENSOR)("one", "one band", ("red",), 11, (0.3,), 0.15, "none")
    pan, ms, valid = np.zeros((4400, 280)), np.zeros((1, 1100, 70)), np.ones((1100, 70), bool)
    scene = prepare_scene(pan, ms, valid, one, (1.5, 1.5))
    assert scene.ms.shape == (1, 1024, 68)
    assert scene.reduced_pan.shape == (1024, 68)
    assert scene.pan.shape == (4096, 272)
    assert [largest_side(n) for n in (1, 4, 9, 10_000)] == [1024, 512, 340, 128]


def test_a_scene_that_is_too_small_is_refused(tmp_path):
    with pytest.raises(SSDiffError, match=r"has 4 blocks of 16 x 16 pixels .* expected 7 or more"):
        adapt_weights([write_pair(tmp_path / "a", 1, 32)], tmp_path / "w.safetensors")


def test_scenes_with_other_bands_or_full_scale_and_a_scene_twice_are_refused(pair, tmp_path):
    three = write_pair(tmp_path / "three", 1, 64, bands=3)
    with pytest.raises(InputError, match=r"has 3 bands of MS and .* has 4, expected scenes of one"):
        adapt_weights([pair, three], tmp_path / "w.safetensors")
    bright = replace(write_pair(tmp_path / "b", 1, 64), options={"full_scale": 4095})
    with pytest.raises(InputError, match=r"has the full scale 4095 .* expected scenes of one"):
        adapt_weights([pair, bright], tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="is in two scenes"):
        adapt_weights([pair, pair], tmp_path / "w.safetensors")


ONES = (1, 1, 1, 1, 1, 1)


@pytest.mark.parametrize("part", ["all", "head"])
def test_adaptation_trains_all_weights_or_the_last_layers_and_measures_them(
    tmp_path, monkeypatch, part
):
    monkeypatch.setattr(adaptation, "_MOST_ITERATIONS", 2)
    monkeypatch.setattr(Stopping, "__call__", lambda self, net: SceneScores(next(errors), *ONES))
    errors = iter([1, 0.5])
    entries = [write_pair(tmp_path / name, 3, 48) for name in "ab"]
    progress = RecordingProgress()
    path = tmp_path / "w.safetensors"
    result = adapt_weights(entries, path, minutes=600, part=part, progress=progress)
    assert result.iterations == 2
    assert not result.validated
    assert result.bundle.manifest.name == bundle_for(4).manifest.name
    assert result.verdict.before.shape == result.verdict.after.shape == (2, 6)
    assert any("of 16 x 16 pixels of MS" in note for note in progress.notes)
    old, new = (load_checkpoint(place).net for place in (result.bundle.path, path))
    changed = {
        name.split(".")[0]
        for (name, before), after in zip(old.named_parameters(), new.parameters(), strict=True)
        if not torch.equal(before, after)
    }
    assert (changed == {"head", "ms_skip"}) == (part == "head")
    assert {"head", "ms_skip"} <= changed


def test_minutes_that_evaluation_and_export_would_use_up_are_refused(pair, tmp_path):
    with pytest.raises(
        InputError, match=r"evaluation and export take .* give \d+ or more"
    ) as refused:
        adapt_weights([pair], tmp_path / "w.safetensors", minutes=0.5, reserve=100_000)
    assert refused.value.parameter == "minutes"
    assert not (tmp_path / "w.safetensors").exists()


def fake_adaptation(weights: Path, before, after, iterations: int = 50):
    """A replacement for ``adapt_weights`` that returns the given weights and measures."""

    def adapt_weights(*args: object, **options: object) -> Adaptation:
        return Adaptation(weights, bundle_for(4), SENSOR, Verdict(before, after), iterations)

    return adapt_weights


@pytest.mark.parametrize("worse", range(6))
def test_weights_that_are_worse_in_any_measure_are_not_exported(
    pair, tmp_path, weights, monkeypatch, worse
):
    after = GOOD.copy()
    after[0, worse] = BAD[0, worse]
    fake = fake_adaptation(weights, (GOOD + BAD) / 2, after)
    monkeypatch.setattr(ssdiff_trt.export.adaptation, "adapt_weights", fake)
    progress = RecordingProgress()
    assert adapt([pair], tmp_path / "new.ssdiff", progress=progress) is None
    assert f"did not improve {MEASURES[worse].name}, so nothing" in progress.warnings[0]
    assert not (tmp_path / "new.ssdiff").exists()


def test_the_command_exits_with_1_if_nothing_is_written(pair, tmp_path, weights, monkeypatch):
    fake = fake_adaptation(weights, GOOD, GOOD)
    monkeypatch.setattr(ssdiff_trt.export.adaptation, "adapt_weights", fake)
    line = ["adapt", pair.pan, *pair.ms, "-o", str(tmp_path / "new.ssdiff")]
    result = CliRunner().invoke(cli, line, standalone_mode=False)
    assert result.return_value == 1


def test_the_command_takes_several_scenes_and_tables(pair, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(
        ssdiff_trt.export.adaptation, "adapt", lambda scenes, **options: given.append(scenes)
    )
    also = ["--also", "p2.tif", "m2.tif", "--also", "p3.tif", "m3.tif"]
    CliRunner().invoke(cli, ["adapt", pair.pan, *pair.ms, *also, "-o", "new.ssdiff"])
    assert [(entry.pan, entry.ms) for entry in given[0]] == [
        (pair.pan, pair.ms),
        ("p2.tif", ("m2.tif",)),
        ("p3.tif", ("m3.tif",)),
    ]
    table = tmp_path / "scenes.csv"
    table.write_text("pan,ms,output,nodata,steps\na.tif,b.tif|c.tif,o.tif,0,3\nd.tif,b.tif,,,\n")
    CliRunner().invoke(cli, ["adapt", "--scenes", str(table), "-o", "new.ssdiff"])
    first, second = given[1]
    assert (first.pan, first.ms, first.options) == ("a.tif", ("b.tif", "c.tif"), {"nodata": 0.0})
    assert (second.pan, second.options) == ("d.tif", {})


@pytest.mark.parametrize(("iterations", "said"), [(0, "0 iterations"), (1, "1 iteration of")])
def test_too_little_training_to_compare_weights_is_reported(
    pair, tmp_path, weights, monkeypatch, iterations, said
):
    fake = fake_adaptation(weights, GOOD, GOOD, iterations)
    monkeypatch.setattr(ssdiff_trt.export.adaptation, "adapt_weights", fake)
    progress = RecordingProgress()
    assert adapt([pair], tmp_path / "new.ssdiff", minutes=0.5, progress=progress) is None
    (warning,) = progress.warnings
    assert warning.startswith(f"0.5 minutes were enough for {said}")
    assert warning.endswith("so nothing was written; give more `minutes`")


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_a_time_that_does_not_work_is_refused(pair, tmp_path, minutes):
    with pytest.raises(InputError, match="does not work; give a number above 0") as refused:
        adapt([pair], tmp_path / "new.ssdiff", minutes=minutes)
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
    assert adapt([pair], tmp_path / "new.ssdiff") is not None
    old = bundle_for(4).manifest
    assert exported["sensor"] == old.sensor.name
    assert exported["timesteps"] == old.sampler.timesteps
    assert "adapted to pan.tif and ms.tif" in exported["training_data"]
    # What a scene's licence says of weights is its owner's to state; credits stay.
    assert exported["licence"] == "not stated; adapted from generic4 (Apache-2.0)"
    assert "SpaceNet 2" in exported["attribution"]
    assert exported["attribution"] == old.provenance.attribution
    metrics = exported["metrics"]
    assert metrics["ERGAS of held-out blocks at reduced resolution, before"] == 2.0
    assert metrics["D_rho of held-out blocks at full resolution, after"] == 0.1


def test_an_existing_bundle_is_refused_before_training(pair, tmp_path):
    (tmp_path / "new.ssdiff").mkdir()
    with pytest.raises(SSDiffError, match="exists"):
        adapt([pair], tmp_path / "new.ssdiff")
