"""Fixtures of the tests of the runtime."""

from __future__ import annotations

import gc
from contextlib import ExitStack

import pytest

from ssdiff_trt.runtime.backends.tensorrt import cuda as cuda_module
from ssdiff_trt.runtime.backends.tensorrt.backend import TensorRT
from ssdiff_trt.runtime.backends.tensorrt.cuda_packages import CudaPython, PyCuda
from ssdiff_trt.runtime.bundle.manifest import graph_io
from ssdiff_trt.runtime.bundle.store import open_bundle
from tests.support.driver import load_driver
from tests.support.engines import BANDS, TILE, step
from tests.support.fake_gpu import FakeEngine, fake_tensorrt
from tests.support.imagery import make_bundle

PACKAGES = {
    "pycuda": ("pycuda.driver", PyCuda),
    "cuda-python": ("cuda.bindings.driver", CudaPython),
}


@pytest.fixture(scope="session")
def loaded_driver():
    driver, reason = load_driver()
    if driver is None:
        pytest.skip(reason)
    return driver


@pytest.fixture
def driver(loaded_driver, monkeypatch):
    """The stand-in driver with two GPUs on which nothing was made yet."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    cached = cuda_module.why_no_cuda, cuda_module.why_no_package, cuda_module.open_cuda
    for function in cached:
        function.cache_clear()
    gc.collect()  # what pycuda destroys with its last reference would be of another test's driver
    loaded_driver.reset()
    yield loaded_driver
    for function in cached:
        function.cache_clear()


def opener(package):
    """Opens one of the two GPUs with a CUDA package."""
    module, opened = PACKAGES[package]
    pytest.importorskip(module, reason=f"{package} is not installed; see make test-bindings")
    return opened


@pytest.fixture(params=PACKAGES)
def package(request):
    return request.param


@pytest.fixture
def make_cuda(driver, package):
    return opener(package)


@pytest.fixture
def make_with(tmp_path, driver):
    """Makes TensorRT backends with a CUDA package; they are closed, and have to free everything."""
    bundle = open_bundle(make_bundle(tmp_path, "fake", BANDS, TILE))
    inputs, outputs = graph_io("step", bundle.manifest.model)
    specs = {spec.name: spec for spec in (*inputs, *outputs)}
    with ExitStack() as opened:

        def make_with(package):
            make_cuda = opener(package)

            def make(batch=4, progress=None, graphs=True, network=step, built=None, **engine):
                trt = fake_tensorrt(FakeEngine(driver, specs, network, built or batch, **engine))
                given = bundle, "fp32", batch, progress, graphs
                return opened.enter_context(TensorRT(b"", trt, make_cuda(), *given))

            return make

        yield make_with
    assert driver.counts.held() == {}


@pytest.fixture
def make_backend(make_with, package):
    return make_with(package)
