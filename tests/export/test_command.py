"""What ssdiff-export makes of its options."""

from __future__ import annotations

import shutil

import pytest

import ssdiff_trt.export.command as command
from ssdiff_trt.export.command import export
from ssdiff_trt.runtime.backends.tensorrt.engine_cache import EngineCache
from ssdiff_trt.runtime.bundle.store import bundle_for, open_bundle, shipped, user_bundle
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.progress import Progress
from tests.support.progress import RecordingProgress


@pytest.fixture
def exported(monkeypatch, tmp_path):
    """What would be exported; nothing is."""
    calls = []

    def record(weights, sensor, output, **options):
        calls.append({"weights": weights, "sensor": sensor, "output": str(output), **options})
        return open_bundle("generic4")

    monkeypatch.setenv("SSDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(command, "export_bundle", record)
    return calls


def test_without_weights_those_that_come_along_are_made_anew(exported):
    progress = RecordingProgress()
    assert len(list(export(fp16=True, progress=progress))) == len(shipped())
    assert [call["weights"] for call in exported] == shipped()
    old = open_bundle("generic8").manifest
    last = exported[-1]
    assert last["output"] == str(user_bundle("generic8"))
    assert (last["sensor"], last["timesteps"]) == (old.sensor.name, old.sampler.timesteps)
    assert (last["precisions"], last["overwrite"]) == (("fp16",), True)
    assert last["licence"] == "Apache-2.0"
    assert str(user_bundle("generic4")) in progress.notes[0]
    assert progress.notes[1].startswith("No engine in fp16 is built here (")


def test_what_is_said_counts_more_than_the_bundle(exported):
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
    ("options", "sentence"),
    [
        ({}, "The bundles that come along are in fp32; give --fp16, --bf16 or --int8"),
        ({"output": "b.ssdiff", "fp16": True}, "--weights and --output go together"),
        ({"weights": "w.pt"}, "--weights and --output go together"),
        ({"weights": "w.pt", "output": "b.ssdiff"}, "There is no weights file w.pt, and no bundle"),
        ({"weights": __file__, "output": "b.ssdiff"}, "--sensor is missing; say what"),
        ({"int8": True}, "--int8 needs --calibration, samples of what"),
        ({"fp16": True, "calibration": "s.npz"}, "--calibration s.npz is for INT8; add --int8"),
        ({"int8": True, "calibration": "s.npz"}, "There is no file s.npz; make one with"),
        ({"fp16": True, "gpus": "sm86"}, "--gpu is for engines of TensorRT-RTX"),
        ({"fp16": True, "engine": "tensorrt-rtx", "gpus": "sm1"}, "--gpu is 'sm1', expected a GPU"),
        ({"fp16": True, "engine": "tensorrt-rtx"}, "no GPU and --gpu is not given"),
        ({"fp16": True, "engine": "tensorrt"}, "tensorrt is not installed here"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_any_work(exported, options, sentence):
    with pytest.raises(SSDiffError, match=sentence):
        list(export(**options, progress=Progress()))
    assert not exported


def test_engines_for_other_gpus_come_along_in_the_bundle(low4, monkeypatch, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel for this platform")
    copy = tmp_path / "copy.ssdiff"
    shutil.copytree(low4.path, copy)
    monkeypatch.setattr(command, "export_bundle", lambda *a, **o: open_bundle(copy))
    progress = RecordingProgress()
    options = {"engine": "tensorrt-rtx", "gpus": "sm86,sm89", "fp16": True}
    (bundle,) = export(weights=str(low4.path), output=str(copy), progress=progress, **options)
    assert len(list((copy / "engines").glob("*.engine"))) == 2
    assert progress.notes[0].startswith("Engine for sm86 in fp16: ")
    plan = command.Plan(bundle, "tensorrt-rtx", "fp16", "sm89")
    assert EngineCache(tmp_path / "none", [copy / "engines"]).find(plan.key, Progress())
    open_bundle(copy)  # engines are no part of what the manifest holds to be true


def test_a_run_takes_the_richer_bundle_only_while_it_is_the_same(monkeypatch, tmp_path):
    monkeypatch.setenv("SSDIFF_CACHE", str(tmp_path))
    richer = user_bundle("generic4")
    richer.parent.mkdir()
    shutil.copytree(open_bundle("generic4").path, richer)
    assert bundle_for(4).path != richer  # made from other weights, for all that its manifest says
    manifest = richer / "manifest.json"
    weights = open_bundle("generic4").manifest
    same = weights.model_copy(
        update={
            "provenance": weights.provenance.model_copy(
                update={"weights_sha256": weights.files["weights.fp32.safetensors"]}
            )
        }
    )
    manifest.write_text(same.model_dump_json())
    assert bundle_for(4).path == richer
    (richer / "step.fp32.fused.onnx").unlink()
    assert bundle_for(4).path != richer
