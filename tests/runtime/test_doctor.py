"""What the doctor finds on this machine, and on others that are simulated."""

from __future__ import annotations

import json
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from ssdiff_trt.cli.trt import cli
from ssdiff_trt.runtime import doctor
from ssdiff_trt.runtime.bundle.measured import Limits
from ssdiff_trt.runtime.cpus import computes_in_bf16
from ssdiff_trt.runtime.doctor import Diagnosis, diagnose
from ssdiff_trt.runtime.errors import BackendError
from ssdiff_trt.runtime.parity import ladder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSDIFF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def without(monkeypatch):
    """Simulates a machine on which no packages but some are installed."""

    def without(*but):
        monkeypatch.setattr(doctor, "find_spec", lambda name: name in but or None)

    return without


def by_name(diagnosis):
    return {finding.what: finding for finding in diagnosis.findings}


def invoke(*words):
    return CliRunner().invoke(cli, ["doctor", *map(str, words)], standalone_mode=False)


def test_what_is_installed_is_tried_and_its_images_are_verified(without):
    without("onnxruntime")
    diagnosis = diagnose()
    findings = by_name(diagnosis)
    assert diagnosis.usable
    assert findings["backend onnxruntime"].state == "ok"
    assert findings["backend onnxruntime"].found.endswith("images verified")
    assert findings["GDAL"].found.endswith("with the usual formats")
    assert findings["backend openvino"].state == "missing"
    assert findings["backend openvino"].remedy == "pip install 'ssdiff-trt[openvino]'"


def test_without_onnx_runtime_openvino_is_no_fault_but_what_others_are_compared_with(
    without, monkeypatch
):
    pytest.importorskip("openvino")

    def missing(*arguments, **options):
        raise BackendError("ONNX Runtime is not installed.")

    monkeypatch.setattr(doctor, "OnnxRuntime", missing)
    without("openvino")
    findings = by_name(diagnosis := diagnose())
    assert diagnosis.usable
    assert findings["backend openvino"].state == "ok"
    assert findings["backend openvino"].found.endswith("opened; nothing to compare it with")
    if computes_in_bf16():
        assert findings["backend openvino in bf16"].found.endswith("images verified")


def test_what_a_run_does_without_is_listed_with_its_purpose_and_its_extra(without):
    without("onnxruntime", "matplotlib")
    diagnosis = diagnose()
    findings = by_name(diagnosis)
    assert diagnosis.usable
    for package, extra in (("distributed", "dask"), ("fsspec", "cloud"), ("torch", "export")):
        finding = findings[f"package {package}"]
        assert finding.state == "missing"
        assert finding.found.startswith("not installed, for ")
        assert finding.remedy == f"pip install 'ssdiff-trt[{extra}]'"
    found = findings["package matplotlib"]
    assert (found.state, found.remedy) == ("ok", None)
    assert found.found == f"{version('matplotlib')}, for pictures (--quicklook)"


def test_without_any_engine_no_run_works(without):
    without()
    done = invoke()
    assert done.return_value == 1
    assert "pip install 'ssdiff-trt[cpu]'" in done.output
    assert done.output.endswith("No run will work here yet.\n")


def test_a_backend_whose_images_are_wrong_is_broken(without, monkeypatch):
    without("onnxruntime")
    monkeypatch.setitem(ladder.LIMITS, "fp32", Limits(rounding=1e-9))
    monkeypatch.setattr(
        "ssdiff_trt.runtime.parity.verification._limits", lambda *_: Limits(max=1e-12)
    )
    finding = by_name(diagnose())["backend onnxruntime"]
    assert finding.state == "broken"
    assert "is off by" in finding.found
    assert finding.remedy == "ssdiff-trt verify generic4 --backend onnxruntime"


def test_a_cache_that_others_can_write_to_is_found(tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    finding = doctor._of_the_cache()
    assert finding.state == "missing"
    assert finding.remedy == f"chmod 700 {tmp_path / 'cache'}"


@pytest.mark.parametrize(
    ("text", "jetpack"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081", "6"),
        ("# R38 (release), REVISION: 2.0", "7"),
        ("# R35 (release)", "of Jetson Linux 35"),
        (None, None),
    ],
)
def test_jetpack_is_known_by_the_release_of_jetson_linux(tmp_path, monkeypatch, text, jetpack):
    file = tmp_path / "nv_tegra_release"
    if text:
        file.write_text(text)
    monkeypatch.setattr(doctor, "_TEGRA", file)
    assert doctor._jetpack() == jetpack


@pytest.mark.parametrize(
    ("name", "reason", "jetpack", "remedy"),
    [
        ("tensorrt", "there is no NVIDIA driver", None, "--gpus all"),
        ("tensorrt", "there is no NVIDIA driver", "6", "sudo apt install nvidia-jetpack"),
        ("tensorrt", "neither pycuda nor cuda-python can", "6", "'cuda-bindings>=12.6.1,<13'"),
        ("tensorrt", "neither pycuda nor cuda-python can", None, "'cuda-bindings>=12.6.1,<14'"),
        ("tensorrt", "tensorrt is not installed", "7", "--system-site-packages"),
        ("tensorrt", "tensorrt is not installed", None, "'ssdiff-trt[tensorrt]'"),
        ("tensorrt-rtx", "tensorrt_rtx is not installed", "6", "none on a Jetson; use tensorrt"),
        ("onnxruntime-cuda", "this ONNX Runtime has no CUDA", None, "pip uninstall"),
        ("tensorrt", "CUDA_VISIBLE_DEVICES hides every GPU", None, "unset CUDA_VISIBLE_DEVICES"),
    ],
)
def test_each_reason_has_its_remedy(name, reason, jetpack, remedy):
    extra = doctor._CANDIDATES[name][1]
    assert remedy in doctor._remedy(name, extra, reason, jetpack)


def test_the_archive_has_no_names_of_the_user(without, monkeypatch, tmp_path):
    without("onnxruntime")
    home = tmp_path / "home" / "marianne"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SSDIFF_CACHE", str(home / "cache"))
    archive, report = tmp_path / "support.zip", tmp_path / "doctor.json"
    done = invoke("--archive", archive, "--json", report)
    assert done.exit_code == 0, done.output
    assert str(home) in done.output
    assert f"Wrote {archive}" in done.stderr
    assert Diagnosis.model_validate_json(json.dumps(drop(report))).usable
    with zipfile.ZipFile(archive) as content:
        texts = {name: content.read(name).decode() for name in content.namelist()}
    assert set(texts) == {"doctor.json", "packages.txt"}
    assert "numpy==" in texts["packages.txt"]
    assert '"~/cache"' in texts["doctor.json"]
    assert not any("marianne" in text for text in texts.values())
    assert invoke("--archive", archive).exit_code != 0
    assert archive.exists()


def drop(path: Path):
    """A diagnosis as it is read: without what is computed."""
    content = json.loads(path.read_text())
    del content["usable"]
    return content
