"""Engines built ahead of a run: into the cache, or as a file with its contract."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

import pytest

from ssdiff_trt.runtime.backends.tensorrt import building
from ssdiff_trt.runtime.backends.tensorrt.building import build_engine
from ssdiff_trt.runtime.backends.tensorrt.cuda import why_no_package
from ssdiff_trt.runtime.bundle.contract import Contract
from ssdiff_trt.runtime.errors import BackendError, InputError, OutputError
from tests.support.progress import RecordingProgress


@pytest.fixture
def plans(monkeypatch, tmp_path, driver):
    """Plans that were built, by a stand-in for TensorRT on the stand-in driver, and on what GPU."""
    if reason := why_no_package():
        pytest.skip(reason)
    monkeypatch.setenv("SSDIFF_CACHE", str(tmp_path / "cache"))
    built = []

    class Recorded(building.Plan):
        def __post_init__(self):
            object.__setattr__(self, "trt", SimpleNamespace(__version__="10.14", BuilderFlag=None))

        def build(self, progress, workspace=None, timing=None):
            built.append((self, driver.current(), workspace))
            return b"engine %d" % self.batch, {"MATRIX_MULTIPLY HALF": 3}

    monkeypatch.setattr(building, "Plan", Recorded)
    monkeypatch.setattr(building, "installed", lambda flavour: flavour == "tensorrt")
    return built


def test_an_engine_is_built_once_and_found_in_the_cache(plans, bundle4):
    first = build_engine(bundle4, batch=5, device=1)
    again = build_engine(bundle4, batch=8, device=1)
    ((plan, gpu, free),) = plans
    assert (plan.flavour, plan.precision, plan.batch) == ("tensorrt", "fp16", 8)
    assert (gpu, free, plan.target.name) == (1, 1 << 40, "Stand-in GPU 1")
    assert first.path == again.path
    assert first.path.read_bytes() == b"engine 8"


def test_a_file_has_its_contract_beside_it(plans, bundle4, tmp_path):
    built = build_engine(bundle4, precision="fp32", output=tmp_path / "step.plan")
    contract = Contract.model_validate_json((tmp_path / "step.json").read_bytes())
    assert built.path.read_bytes() == b"engine 8"
    assert contract == built.contract
    assert contract.precision == "fp32"
    assert contract.inputs[0].shape[0] == 8
    assert contract.engine.sha256 == hashlib.sha256(b"engine 8").hexdigest()
    assert contract.engine.gpu.startswith("Stand-in GPU 0, sm")
    assert (contract.engine.file, contract.engine.version) == ("step.plan", "10.14")


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({"gpu": "sm86"}, InputError, "no use in the cache; name a file for it"),
        ({"output": "step.json"}, InputError, "is what its contract is called"),
        ({"output": "there.plan"}, OutputError, "there.json exists"),
    ],
)
def test_what_cannot_be_built_is_refused_before_the_build(
    plans, bundle4, tmp_path, monkeypatch, given, error, sentence
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.json").touch()
    with pytest.raises(error, match=sentence):
        build_engine(bundle4, **given)
    assert not plans


def test_without_tensorrt_or_gpu_a_sentence_says_what_to_do(bundle4, monkeypatch):
    monkeypatch.setattr(building, "installed", lambda flavour: False)
    with pytest.raises(BackendError, match="No TensorRT is installed; pip install"):
        build_engine(bundle4)
    monkeypatch.setattr(building, "installed", lambda flavour: True)
    monkeypatch.setattr(building, "why_no_cuda", lambda: "there is no GPU")
    with pytest.raises(BackendError, match="for a GPU, and there is no GPU; with TensorRT-RTX"):
        build_engine(bundle4)


def test_tensorrt_rtx_builds_for_a_gpu_that_is_not_here(bundle4, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    progress = RecordingProgress()
    built = build_engine(
        bundle4,
        flavour="tensorrt-rtx",
        gpu="sm86",
        batch=3,
        output=tmp_path / "step.plan",
        progress=progress,
    )
    contract = json.loads((tmp_path / "step.json").read_bytes())
    assert contract["inputs"][0]["shape"] == [4, 4, 32, 32]
    assert contract["engine"]["gpu"] == "sm86"
    assert 5e6 < built.path.stat().st_size < 50e6
    assert progress.done
