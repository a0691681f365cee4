"""Studies of a bundle with a small graph: their files, and damaged graphs in one sentence."""

from __future__ import annotations

import json

import pytest

from ssdiff_trt.calibration.report import study_bundle
from ssdiff_trt.runtime.errors import BackendError, InputError, OutputError
from tests.support.progress import RecordingProgress

onnx = pytest.importorskip("onnx")
fuzzed = pytest.importorskip("tests.fuzz.studies")


def study(folder, change=lambda model: None, **options):
    model = onnx.ModelProto.FromString(fuzzed.graph())
    content = change(model)
    fuzzed.bundle(folder / "b.ssdiff", content or model.SerializeToString())
    fuzzed.samples(folder / "s.npz")
    bundle = str(folder / "b.ssdiff")
    return study_bundle(folder / "s.npz", bundle=bundle, max_ergas_loss=0.9, **options)


def test_a_study_is_written_as_json_and_drawn(tmp_path):
    progress = RecordingProgress()
    files = {"json": str(tmp_path / "s.json"), "picture": str(tmp_path / "s.png")}
    result = study(tmp_path, progress=progress, **files)
    assert {cost.group for cost in result.costs} == {"spatial.0", "fusions.0.mlp"}
    written = json.loads((tmp_path / "s.json").read_text())
    assert written["plan"] == list(result.plan)
    assert len(written["ranges"]["by_timestep"]["spatial.0.conv1/Conv"]) == 1
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"
    assert progress.total == progress.done > 2
    with pytest.raises(OutputError, match=r"s.json exists; give another `json`"):
        study_bundle(tmp_path / "s.npz", json=files["json"])
    with pytest.raises(OutputError, match=r"cannot be drawn as s.foo, expected a name that ends"):
        study_bundle(tmp_path / "s.npz", picture=str(tmp_path / "s.foo"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda model: b"\x08\x0a\x3a\x05\x0a\x03\x12\x01\xff", "cannot (open|be read)"),
        (lambda model: model.graph.node.pop(0), "cannot open the graph .*fused.onnx"),
        (lambda model: model.opset_import.pop(), "cannot (open|be read)"),
        (
            lambda model: model.opset_import.add().CopyFrom(model.opset_import[0]),
            "does not state one version of the operators",
        ),
        (lambda model: setattr(model.opset_import[0], "domain", "x"), "cannot (open|be read)"),
        (
            lambda model: fuzzed.graph().replace(
                b"spatial.0.conv1/Conv", b"spatial.0.conv1/Con\xff"
            ),
            "fused.onnx cannot be read .*export it again",
        ),
    ],
)
def test_a_graph_that_cannot_be_studied_is_refused(tmp_path, change, sentence):
    with pytest.raises((BackendError, InputError), match=sentence):
        study(
            tmp_path, lambda model: content if isinstance(content := change(model), bytes) else None
        )
