"""Opening bundles, and the errors about invalid ones."""

from __future__ import annotations

import json
import shutil

import pytest

from ssdiff_trt.runtime.bundle.store import bundle_for, open_bundle, shipped
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.parity.ladder import faults


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


def test_shipped_bundles_are_small_and_within_the_limits_of_parity():
    for name in shipped():
        bundle = open_bundle(name)
        assert sum(path.stat().st_size for path in bundle.path.iterdir()) < 8_000_000
        (parity,) = bundle.manifest.parity
        assert parity.limits.max == 2e-5
        assert not list(faults(parity))
        assert {t.inputs for t in parity.trajectories} == {"random", "real"}
        for trajectory in parity.trajectories:
            assert len(trajectory.steps) >= 10
            for step in trajectory.steps:
                assert len(step.deviations) == 7


def drop(manifest):
    del manifest["model"]["bands"]


def extra(manifest):
    manifest["model"]["depth"] = 9


def future(manifest):
    manifest["format"] = 2


def retile(manifest):
    manifest["model"]["tile"] = 32


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
        (future, "format: Input should be 1"),
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


def test_a_directory_that_is_not_a_bundle_is_refused(tmp_path):
    with pytest.raises(SSDiffError, match=r"is not a bundle: there is no manifest.json in it"):
        open_bundle(tmp_path)
    with pytest.raises(SSDiffError, match="name of a shipped bundle: generic4"):
        open_bundle("nothing")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(SSDiffError, match="is not valid"):
        open_bundle(tmp_path)


def test_a_bundle_for_other_bands_is_refused(bundle4):
    with pytest.raises(SSDiffError, match="gives 8 bands and the bundle generic4 is for 4"):
        bundle_for(8, bundle4)
