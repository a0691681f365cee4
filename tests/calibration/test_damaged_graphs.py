"""Studies of bundles whose graph is damaged, in one sentence."""

from __future__ import annotations

import pytest

from ssdiff_trt.calibration.report import study_bundle
from ssdiff_trt.runtime.errors import BackendError, InputError

onnx = pytest.importorskip("onnx")
fuzzed = pytest.importorskip("tests.fuzz.studies")


def study(folder, change):
    model = onnx.ModelProto.FromString(fuzzed.graph())
    content = change(model)
    fuzzed.bundle(folder / "b.ssdiff", content or model.SerializeToString())
    fuzzed.samples(folder / "s.npz")
    return study_bundle(folder / "s.npz", bundle=str(folder / "b.ssdiff"), max_ergas_loss=0.9)


def test_the_small_graph_is_studied(tmp_path):
    result = study(tmp_path, lambda model: None)
    assert [cost.group for cost in result.costs] == ["spatial.0", "fusions.0.mlp"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda model: b"\x08\x0a\x3a\x05\x0a\x03\x12\x01\xff", "cannot (open|be read)"),
        (lambda model: model.graph.node.pop(0), "cannot open the graph .*fused.onnx"),
        (lambda model: model.opset_import.pop(), "cannot (open|be read)"),
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
