"""OpenVINO on the CPU, compared with ONNX Runtime."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from ssdiff_trt import pansharpen
from ssdiff_trt.runtime.backends import openvino as module
from ssdiff_trt.runtime.backends.onnxruntime import OnnxRuntime
from ssdiff_trt.runtime.backends.openvino import OpenVino
from ssdiff_trt.runtime.backends.registry import open_backend
from ssdiff_trt.runtime.bundle.measured import Limits
from ssdiff_trt.runtime.cpus import computes_in_bf16
from ssdiff_trt.runtime.errors import BackendError
from ssdiff_trt.runtime.parity import ladder
from ssdiff_trt.runtime.parity.ladder import real_tiles
from ssdiff_trt.runtime.schedule import make_schedule

pytest.importorskip("openvino")
BF16 = pytest.mark.skipif(not computes_in_bf16(), reason="this processor has no BF16")
PRECISIONS = ["fp32", pytest.param("bf16", marks=BF16)]


def images(backend, tiles, timesteps=(999, 20)):
    return np.concatenate(list(backend.sample([tiles], make_schedule(timesteps))))


def test_in_fp32_the_images_are_those_of_onnx_runtime(bundle4):
    tiles = real_tiles(4, bundle4.manifest.model.tile, 5)
    difference = images(OpenVino(bundle4), tiles) - images(OnnxRuntime(bundle4), tiles)
    assert 0 < np.abs(difference).max() < 2e-6  # other kernels


@BF16
def test_in_bf16_they_differ_as_little_as_bf16_may(bundle4):
    tiles = real_tiles(4, bundle4.manifest.model.tile, 5)
    backend = OpenVino(bundle4, precision="bf16")
    assert (backend.precision, backend.device) == ("bf16", "cpu")
    difference = images(backend, tiles) - images(OnnxRuntime(bundle4), tiles)
    assert 1e-5 < np.sqrt(np.mean(difference**2)) < ladder.LIMITS["bf16"].rmse


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_tile_depends_neither_on_its_batch_nor_on_threads(bundle4, precision, monkeypatch):
    monkeypatch.setattr(module, "choose_threads", lambda threads: threads)
    tiles = real_tiles(4, bundle4.manifest.model.tile, 7)
    backends = [OpenVino(bundle4, threads=count, precision=precision) for count in (1, 2, 5)]
    together, *others = (images(backend, tiles) for backend in backends)
    for other in others:
        np.testing.assert_array_equal(other, together)
    alone = [images(backends[1], tiles.part(slice(k, k + 1))) for k in range(7)]
    np.testing.assert_array_equal(np.concatenate(alone), together)


def test_threads_that_share_it_get_the_images_of_their_own_tiles(bundle4):
    backend, tile = OpenVino(bundle4), bundle4.manifest.model.tile
    every = real_tiles(4, tile, 12)
    parts = [every.part(slice(k, k + 3)) for k in range(0, 12, 3)]
    expected = [images(backend, part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for found in (list(pool.map(partial(images, backend), parts)) for _ in range(5)):
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)


@BF16
def test_what_overflows_is_not_clamped(bundle4):
    tiles = real_tiles(4, bundle4.manifest.model.tile, 2)
    tiles.pan[1] = 1e38
    first, second = images(OpenVino(bundle4, precision="bf16"), tiles, (999,))
    assert np.isfinite(first).all()
    assert np.isnan(second).any()


def test_a_processor_without_bf16_is_refused(bundle4, monkeypatch, tmp_path):
    monkeypatch.setattr("ssdiff_trt.runtime.cpus._CPUINFO", tmp_path / "missing")
    with pytest.raises(BackendError, match=r"no instructions for bf16 .*; choose `precision=fp32`"):
        OpenVino(bundle4, precision="bf16")


def test_other_precisions_are_refused(bundle4):
    with pytest.raises(BackendError, match="in fp32 and bf16 here, not in fp16; choose one"):
        open_backend("openvino", bundle4, precision="fp16")


def test_without_the_package_a_sentence_says_what_to_do(bundle4, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        BackendError, match=r"cannot be imported .*pip install 'ssdiff-trt\[openvino\]', or"
    ):
        OpenVino(bundle4)


@BF16
def test_auto_computes_bf16_with_it_and_everything_else_with_onnx_runtime(bundle4):
    assert isinstance(open_backend("auto", bundle4, precision="bf16"), OpenVino)
    assert isinstance(open_backend("auto", bundle4), OnnxRuntime)


def test_auto_takes_it_where_onnx_runtime_is_missing(bundle4, monkeypatch):
    registry = "ssdiff_trt.runtime.backends.registry.find_spec"
    monkeypatch.setattr(registry, lambda name: name == "openvino" or None)
    assert open_backend("auto", bundle4).describe().startswith("OpenVINO")


@BF16
def test_a_run_in_bf16_needs_it_to_be_close_to_fp32(make_pair, monkeypatch, tmp_path):
    pan, ms = make_pair(64, 64)
    output = tmp_path / "out.tif"
    done = pansharpen(pan, ms, output, backend="openvino", precision="bf16")
    assert "bf16" in done.backend
    monkeypatch.setitem(ladder.LIMITS, "bf16", Limits(rmse=1e-6))
    with pytest.raises(BackendError, match=r"OpenVINO .* RMSE of .*; choose `precision=fp32`"):
        pansharpen(pan, ms, tmp_path / "other.tif", backend="openvino", precision="bf16")
    assert not (tmp_path / "other.tif").exists()
