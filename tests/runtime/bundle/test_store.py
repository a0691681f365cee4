"""Opening bundles, and the errors about invalid ones."""

from __future__ import annotations

import json
import shutil
import tarfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime, supported_forms
from ssdiff_trt.runtime.bundle.manifest import FORMS
from ssdiff_trt.runtime.bundle.store import (
    SHIPPED,
    bundle_for,
    open_bundle,
    shipped,
    strange_files,
    user_bundle,
)
from ssdiff_trt.runtime.errors import BundleError, SSDiffError, SSDiffWarning
from ssdiff_trt.runtime.parity.ladder import faults, random_tiles


@pytest.fixture
def copy(bundle4, tmp_path):
    return shutil.copytree(bundle4.path, tmp_path / "copy.ssdiff")


def edit(directory, change):
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_a_copy_opens_and_is_the_same_bundle(copy, bundle4):
    assert open_bundle(copy).sha256 == bundle4.sha256
    assert open_bundle("generic4").sha256 == bundle4.sha256


def test_files_of_no_part_of_a_bundle_are_strange(copy):
    (copy / "engines").mkdir()
    assert strange_files(copy) == []
    for name in ("notes.txt", "a.tif"):
        (copy / name).touch()
    assert strange_files(copy) == ["a.tif", "notes.txt"]


def test_shipped_bundles_are_small_and_within_the_limits_of_parity():
    for name in shipped():
        bundle = open_bundle(name)
        assert sum(path.stat().st_size for path in bundle.path.iterdir()) < 16_000_000
        assert bundle.precisions == ("fp32", "fp16", "bf16")
        of = {parity.precision: parity for parity in bundle.manifest.parity}
        assert tuple(of) == bundle.precisions
        assert of["fp32"].limits.rounding == 8
        for low in ("fp16", "bf16"):
            assert (of[low].limits.rmse, of[low].limits.psnr) == (1e-3, 60)
        for parity in of.values():
            assert not list(faults(parity))
            assert {t.inputs for t in parity.trajectories} == {"random", "real"}
            for trajectory in parity.trajectories:
                assert len(trajectory.steps) >= 10
                for step in trajectory.steps:
                    count = {"fp32": 7, "fp16": 5, "bf16": 2}[parity.precision]
                    assert len(step.deviations) == count
                    assert step.rounding.max < 1e-6
        assert bundle.manifest.judged.ergas < 0.7 * bundle.manifest.judged.interpolation


def drop(manifest):
    del manifest["model"]["bands"]


def extra(manifest):
    manifest["model"]["depth"] = 9


def future(manifest):
    manifest["format"] = 4


def retile(manifest):
    manifest["model"]["tile"] = 64


def rename_bands(manifest):
    manifest["sensor"]["bands"] = ["blue"]


def escape(manifest):
    manifest["files"]["../secret"] = "0" * 64


def bad_schedule(manifest):
    manifest["sampler"]["timesteps"] = [1000]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, "model.bands: Field required"),
        (extra, "model.depth: Extra inputs"),
        (future, "format is 4, this version reads 1 to 3"),
        (retile, "inputs or outputs of the graph denoiser.fp32.portable.onnx"),
        (rename_bands, "the sensor names 1 bands, the model has 4"),
        (escape, "the file '../secret' is outside the bundle directory"),
        (bad_schedule, "sampler: .*1000.* not a schedule"),
    ],
)
def test_an_invalid_manifest_is_refused(copy, change, message):
    edit(copy, change)
    with pytest.raises(SSDiffError, match=message):
        open_bundle(copy)


def test_damaged_and_missing_files_are_named(copy):
    weights = copy / "weights.fp32.safetensors"
    content = bytearray(weights.read_bytes())
    content[1000] ^= 1
    weights.write_bytes(content)
    with pytest.raises(
        SSDiffError, match=r"weights.fp32.safetensors is not the one that was exported"
    ):
        open_bundle(copy)
    weights.unlink()
    with pytest.raises(SSDiffError, match=r"lacks its file weights.fp32.safetensors"):
        open_bundle(copy)


@pytest.mark.parametrize("name", ["manifest.json", "weights.fp32.safetensors"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer, .* lfs pull"),
        (b"<!doctype html>", "is a web page, not the file itself; fetch the file again"),
        (b'{"name": "gen', r"; fetch the bundle again, or export it again"),
    ],
)
def test_a_file_that_was_not_fetched_is_named(copy, name, content, message):
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} .*{message}"):
        open_bundle(copy)


def test_a_directory_that_is_not_a_bundle_is_refused(tmp_path):
    with pytest.raises(SSDiffError, match=r"is not a bundle: there is no manifest.json in it"):
        open_bundle(tmp_path)
    with pytest.raises(SSDiffError, match="name of a shipped bundle: generic4"):
        open_bundle("nothing")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(SSDiffError, match="is not valid"):
        open_bundle(tmp_path)


def test_a_bundle_for_other_bands_is_refused(bundle4):
    with pytest.raises(
        SSDiffError,
        match=r"gives 1 band and .* generic8 is for 8 \(coastal, .*, nir2\); give a file",
    ):
        bundle_for(1)
    with pytest.raises(SSDiffError, match="gives 8 bands and the bundle generic4 is for 4"):
        bundle_for(8, bundle4)


# Bundles of earlier versions, and of users


@pytest.fixture
def format1(tmp_path):
    """A bundle that version 0.1.0 exported; every tensor of its weights is a constant."""
    with tarfile.open(Path(__file__).parent / "format1.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "format1.ssdiff"


def test_a_bundle_of_format_1_still_opens_and_runs(format1):
    assert json.loads((format1 / "manifest.json").read_text())["format"] == 1
    bundle = open_bundle(format1)
    manifest = bundle.manifest
    assert (manifest.format, manifest.provenance.extends) == (3, None)
    assert bundle.precisions == ("fp32", "fp16")
    assert manifest.sampler.timesteps == (999,)
    assert len(manifest.graphs) == 9
    assert [parity.precision for parity in manifest.parity] == ["fp32", "fp16"]
    tiles = random_tiles(4, manifest.model.tile)
    images = {
        form: next(OnnxRuntime(bundle, form=form).sample([tiles], manifest.sampler.schedule()))
        for form in FORMS
        if form == "contrib" or form in supported_forms(onnxruntime.__version__)
    }
    # A network of constants adds next to nothing to the interpolated MS.
    np.testing.assert_allclose(images["portable"], tiles.lms.clip(0, 1), atol=0.05)
    for image in images.values():
        np.testing.assert_allclose(image, images["portable"], atol=2e-5)


def test_a_manifest_that_is_no_object_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text("[1]")
    with pytest.raises(BundleError, match="it is not a JSON object"):
        open_bundle(tmp_path)


def test_a_bare_name_is_a_shipped_bundle_whatever_lies_in_the_working_directory(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "generic4").mkdir()
    assert open_bundle("generic4").path.parent == SHIPPED
    assert bundle_for(4).path.parent == SHIPPED
    shutil.copytree(open_bundle("generic8").path, tmp_path / "generic8")
    assert open_bundle("generic8").path.parent == SHIPPED
    assert open_bundle("./generic8").path == Path("generic8")
    with pytest.raises(BundleError, match="generic4 is not a bundle"):
        open_bundle("./generic4")


@pytest.fixture
def extended(monkeypatch, tmp_path, bundle4):
    """A copy of generic4 where ssdiff-export puts one with more graphs."""
    monkeypatch.setenv("SSDIFF_CACHE", str(tmp_path / "cache"))
    folder = user_bundle("generic4")
    shutil.copytree(bundle4.path, folder)

    ours = f"ssdiff-trt {version('ssdiff-trt')}, torch 2"

    def origin(extends=bundle4.sha256, exporter=ours):
        def change(manifest):
            manifest["format"] = 2
            manifest["provenance"] |= {"extends": extends, "exporter": exporter}

        edit(folder, change)
        return folder

    return origin


def test_a_bundle_with_more_graphs_is_used_where_it_extends_the_shipped_one(extended):
    folder = extended()
    assert open_bundle("generic4").path == folder


@pytest.mark.parametrize(
    "origin", [{"extends": None}, {"extends": "0" * 64}, {"exporter": "ssdiff-trt 0.0.1, torch 2"}]
)
def test_a_bundle_from_another_version_is_left_with_a_warning(extended, origin):
    folder = extended(**origin)
    with pytest.warns(SSDiffWarning, match=f"{folder} is not used .*from another"):
        assert open_bundle("generic4").path.parent == SHIPPED


def test_a_damaged_bundle_of_the_user_is_left_with_a_warning(extended):
    (extended() / "step.fp32.fused.onnx").unlink()
    with pytest.warns(SSDiffWarning, match="is not used .* lacks its file step.fp32.fused.onnx"):
        assert open_bundle("generic4").path.parent == SHIPPED
