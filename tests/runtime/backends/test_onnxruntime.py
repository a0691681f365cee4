"""ONNX Runtime on the CPU, and the GPU backend with its tensors bound to host memory."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from ssdiff_trt.runtime.backends import onnxruntime_cuda
from ssdiff_trt.runtime.backends.onnxruntime import (
    OnnxRuntime,
    import_onnxruntime,
    supported_forms,
)
from ssdiff_trt.runtime.backends.onnxruntime_cuda import OnnxRuntimeCuda
from ssdiff_trt.runtime.backends.protocol import close
from ssdiff_trt.runtime.cpus import usable_cpus
from ssdiff_trt.runtime.errors import BackendError, SSDiffError
from ssdiff_trt.runtime.parity.ladder import random_tiles
from ssdiff_trt.runtime.schedule import make_schedule

RUN = """
import numpy as np
from ssdiff_trt import Pansharpener
ramp = np.arange(64, dtype=np.uint16) + np.zeros((64, 1), np.uint16)
with Pansharpener() as sharpen:
    sharpen(ramp, np.stack([ramp[::4, ::4]] * 4), full_scale=255, shift="none")
"""


COMMAND = """
import sys
from ssdiff_trt.cli.trt import main
sys.argv[1:] = ["run", "pan.tif", "ms.tif", "-o", "out.tif", "--steps", "1"]
main()
"""


@pytest.mark.parametrize(
    "program",
    [RUN, COMMAND, "from ssdiff_trt.calibration import ranges, quantisation; import onnxruntime"],
    ids=["run", "command", "calibration"],
)
def test_nothing_appears_in_an_empty_home(tmp_path, make_pair, program):
    """The telemetry of ONNX Runtime keeps a device id and events there, and looks up a server."""
    make_pair(64, 64)
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "ORT_DISABLE_TELEMETRY" and not name.startswith("XDG_")
    }
    environment |= {"HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("value", ["0", "1"])
def test_the_user_decides_about_telemetry(value):
    program = "import os, ssdiff_trt; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": value}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == value


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime"), "not installed"),
        (ImportError("libcudart.so.12: cannot open"), r"cannot be imported \(libcudart"),
        (ModuleNotFoundError("No module named 'flatbuffers'", name="flatbuffers"), "flatbuffers"),
    ],
)
def test_a_broken_installation_is_not_a_missing_one(monkeypatch, error, sentence):
    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "onnxruntime":
                raise error
            return None

    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with pytest.raises(BackendError, match=sentence) as raised:
        import_onnxruntime()
    assert ("not installed" in str(raised.value)) == (sentence == "not installed")


@pytest.fixture
def on_the_host(monkeypatch):
    """Run the GPU backend on the CPU. There, OrtValues share memory with arrays, so copy them."""
    to_device, copies = OnnxRuntimeCuda._to_device, []

    def copy_to_device(self, array):
        copies.append(array.copy())
        return to_device(self, copies[-1])

    monkeypatch.setattr(OnnxRuntimeCuda, "_to_device", copy_to_device)
    monkeypatch.setattr(onnxruntime_cuda, "_PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(onnxruntime_cuda, "_OPTIONS", {})
    monkeypatch.setattr(onnxruntime_cuda, "_DEVICE", "cpu")


@pytest.mark.parametrize("sampler", ["consistent", "released"])
def test_the_bound_loop_agrees_with_the_plain_loop(bundle4, on_the_host, sampler):
    schedule = make_schedule((900, 300, 10), sampler)
    batches = [random_tiles(4, 32, count=count) for count in (2, 1)]
    bound = list(OnnxRuntimeCuda(bundle4, precision="fp32").sample(batches, schedule))
    plain = list(OnnxRuntime(bundle4).sample(batches, schedule))
    assert [len(images) for images in bound] == [2, 1]
    for one, other in zip(bound, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5)


def test_the_bound_denoiser_gives_the_clamped_residual(bundle4, on_the_host):
    tiles = random_tiles(4, 32)
    bound = OnnxRuntimeCuda(bundle4, precision="fp32").denoise(tiles, tiles.noise, 999.0)
    plain = OnnxRuntime(bundle4).denoise(tiles, tiles.noise, 999.0)
    clamped = (plain + tiles.lms).clip(0, 1) - tiles.lms
    np.testing.assert_allclose(bound, clamped, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("version", "form"), [("1.24.4", "portable"), ("1.25.0", "fused"), ("2.0.0", "fused")]
)
def test_attention_is_an_operator_on_cuda_since_1_25(
    bundle4, on_the_host, monkeypatch, version, form
):
    if form not in supported_forms(import_onnxruntime().__version__):
        pytest.skip("this ONNX Runtime is older than 1.23 and cannot open the fused graph")
    monkeypatch.setattr("onnxruntime.__version__", version)
    assert f", {form} graph" in OnnxRuntimeCuda(bundle4, precision="fp32").describe()


def test_cuda_of_python_packages_is_loaded_and_what_fails_is_not_printed_as_a_result(
    bundle4, on_the_host, monkeypatch, capsys
):
    loads = "onnxruntime.preload_dlls"  # from ONNX Runtime 1.21 on
    monkeypatch.setattr(loads, lambda: print("Failed to load libcudnn.so.9"), raising=False)
    OnnxRuntimeCuda(bundle4, precision="fp32")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "Failed to load libcudnn.so.9\n")


def test_without_cuda_the_gpu_backend_is_an_error(bundle4, without_cuda_provider):
    with pytest.raises(SSDiffError, match=r"this ONNX Runtime has no CUDA \(onnxruntime-gpu has\)"):
        OnnxRuntimeCuda(bundle4, precision="fp32")


def test_overflow_of_half_precision_stays_non_finite(low4):
    """The clamp of the sampling loop would turn infinity into 1."""
    tiles = random_tiles(4, 32)
    tiles.pan[0, 0, 20, 20] = 1e6  # beyond 65504
    (image,) = OnnxRuntime(low4, precision="fp16").sample([tiles], make_schedule((999,)))
    assert not np.isfinite(image).all()
    (image,) = OnnxRuntime(low4).sample([tiles], make_schedule((999,)))
    assert np.isfinite(image).all()


def test_threads_compute_tiles_of_their_own_and_end(bundle4):
    tiles = random_tiles(4, 32, count=7)
    before, cpus = set(threading.enumerate()), min(2, usable_cpus())
    alone, shared = OnnxRuntime(bundle4, threads=1), OnnxRuntime(bundle4, threads=cpus)
    assert shared.batch == cpus * alone.batch
    parts = [slice(index, index + 1) for index in range(7)]
    one_by_one = [alone.denoise(tiles.part(part), tiles.noise[part], 999.0) for part in parts]
    np.testing.assert_array_equal(
        shared.denoise(tiles, tiles.noise, 999.0), np.concatenate(one_by_one)
    )
    assert 0 < len(set(threading.enumerate()) - before) <= 1 + cpus
    for backend in (alone, shared):
        close(backend)
    assert set(threading.enumerate()) - before == set()
