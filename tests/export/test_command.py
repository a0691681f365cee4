"""Options of ssdiff-export: what they export and build, and which of them are refused."""

from __future__ import annotations

import hashlib
import shutil

import pytest

import ssdiff_trt.export.command as command
from ssdiff_trt.export.command import export
from ssdiff_trt.runtime.backends.tensorrt.engine_cache import EngineCache, engine_file
from ssdiff_trt.runtime.bundle.store import open_bundle, shipped, user_bundle
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.progress import Progress
from tests.support.fake_gpu import FakeCuda
from tests.support.progress import RecordingProgress


@pytest.fixture
def exported(monkeypatch, tmp_path):
    """The arguments of all calls of export_bundle, which are recorded and not executed."""
    calls = []

    def record(weights, sensor, output, **options):
        calls.append({"weights": weights, "sensor": sensor, "output": str(output), **options})
        return open_bundle("generic4")

    monkeypatch.setenv("SSDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(command, "export_bundle", record)
    return calls


def test_without_weights_the_shipped_bundles_are_exported(exported):
    progress = RecordingProgress()
    assert len(list(export(fp16=True, progress=progress))) == len(shipped())
    assert [call["weights"] for call in exported] == shipped()
    old = open_bundle("generic8").manifest
    last = exported[-1]
    assert last["output"] == str(user_bundle("generic8"))
    assert (last["sensor"], last["timesteps"]) == (old.sensor.name, old.sampler.timesteps)
    assert (last["precisions"], last["overwrite"]) == (("fp16",), True)
    assert last["licence"] == "Apache-2.0"
    assert last["extends"] == open_bundle("generic8").sha256
    assert str(user_bundle("generic4")) in progress.notes[0]
    assert progress.notes[1].startswith("No engine in fp16 is built here (")


def test_a_gpu_without_a_cuda_package_gets_no_engine_and_a_note(exported, monkeypatch):
    monkeypatch.setattr(command, "why_no_cuda", lambda: None)
    monkeypatch.setattr(command, "why_no_package", lambda: "there is no CUDA package")
    monkeypatch.setattr(command, "installed", lambda flavour: True)
    progress = RecordingProgress()
    list(export(fp16=True, progress=progress))
    assert progress.notes[1].startswith(
        "No engine in fp16 is built here (there is no CUDA package); ssdiff-trt run builds"
    )


def test_options_take_precedence_over_the_manifest_of_the_bundle(exported):
    list(
        export(
            weights="generic4",
            output="o.ssdiff",
            timesteps=(999, 5),
            licence=None,
            sensor="ge1",
            progress=Progress(),
        )
    )
    assert exported[0]["timesteps"] == (999, 5)
    assert exported[0]["sensor"] == "ge1"
    assert exported[0]["licence"] == "Apache-2.0"
    assert exported[0]["precisions"] == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "The shipped bundles have graphs in fp32; give `fp16`, `bf16` or `int8`"),
        ({"output": "b.ssdiff", "fp16": True}, "`weights` and `output` go together"),
        ({"weights": "w.pt"}, "`weights` and `output` go together"),
        ({"weights": "w.pt", "output": "b.ssdiff"}, "There is no weights file w.pt, and no bundle"),
        ({"weights": __file__, "output": "b.ssdiff"}, "`sensor` is missing; name the"),
        ({"int8": True}, "`int8` needs calibration samples; create them"),
        (
            {"fp16": True, "calibration": "s.npz"},
            "`calibration=s.npz` is used for INT8 only; add `int8`",
        ),
        ({"int8": True, "calibration": "s.npz"}, "There is no file s.npz; create it with"),
        ({"fp16": True, "gpus": "sm86"}, "`gpu` is for engines of TensorRT-RTX"),
        ({"fp16": True, "engine": "tensorrt-rtx", "gpus": "sm1"}, "`gpu` is 'sm1', expected a GPU"),
        ({"fp16": True, "engine": "tensorrt-rtx"}, "no GPU and `gpu` is not given"),
        ({"fp16": True, "engine": "tensorrt"}, "tensorrt is not installed here"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_any_work(exported, options, message):
    with pytest.raises(SSDiffError, match=message):
        list(export(**options, progress=Progress()))
    assert not exported


@pytest.fixture
def copied(monkeypatch, tmp_path):
    """A copy of generic4 in place of an export, and engines whose content is a number."""
    folder = shutil.copytree(open_bundle("generic4").path, tmp_path / "copy.ssdiff")
    built = iter(range(9))
    monkeypatch.setenv("SSDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(command, "export_bundle", lambda *a, **o: open_bundle(folder))
    monkeypatch.setattr(command.Plan, "build", lambda *_: (b"engine %d" % next(built), {}))
    return folder


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_engines_for_other_gpus_are_written_into_the_bundle_and_listed(copied):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel for this platform")
    progress = RecordingProgress()
    before = open_bundle(copied).manifest
    options = {"engine": "tensorrt-rtx", "gpus": "sm86,sm89"}
    (bundle,) = export(weights="generic4", output=str(copied), progress=progress, **options)
    plans = [command.Plan(bundle, "tensorrt-rtx", "fp32", gpu, 8) for gpu in ("sm86", "sm89")]
    names = [engine_file(plan.key) for plan in plans]
    assert bundle.manifest.engines == {names[0]: sha256(b"engine 0"), names[1]: sha256(b"engine 1")}
    assert bundle.manifest == before.model_copy(update={"engines": bundle.manifest.engines})
    assert open_bundle(copied) == bundle
    assert [bundle.engine(name) for name in names] == [b"engine 0", b"engine 1"]
    assert sorted(path.name for path in (copied / "engines").iterdir()) == sorted(names)
    assert progress.notes[0].startswith("Engine for sm86 in fp32: ")
    assert not EngineCache().folder.exists()


def test_an_engine_for_this_machine_is_in_the_users_cache_too(copied, monkeypatch):
    """So that runs find it without trusting bundles."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel for this platform")
    monkeypatch.setattr(command, "why_no_cuda", lambda: None)
    monkeypatch.setattr(command, "open_cuda", lambda device=0: FakeCuda())
    progress = RecordingProgress()
    options = {"engine": "tensorrt-rtx", "progress": progress}
    (bundle,) = export(weights="generic4", output=str(copied), **options)
    key = command.Plan(bundle, "tensorrt-rtx", "fp32", FakeCuda().device, 8).key
    assert bundle.engine(engine_file(key)) == b"engine 0"
    cached = EngineCache().get(key, lambda timing: pytest.fail("built again"), progress)
    assert cached == b"engine 0"
