"""Fixtures of the tests of the runtime."""

from __future__ import annotations

import pytest

from ssdiff_trt.runtime.backends.tensorrt.backend import TensorRT
from ssdiff_trt.runtime.bundle.manifest import graph_io
from ssdiff_trt.runtime.bundle.store import open_bundle
from tests.support.engines import BANDS, TILE, step
from tests.support.fake_gpu import FakeCuda, FakeEngine, fake_tensorrt
from tests.support.imagery import make_bundle


@pytest.fixture
def make_backend(tmp_path):
    """Makes a TensorRT backend on a fake GPU; gives both."""
    bundle = open_bundle(make_bundle(tmp_path, "fake", BANDS, TILE))
    inputs, outputs = graph_io("step", bundle.manifest.model)
    specs = {spec.name: spec for spec in (*inputs, *outputs)}

    def make(batch=4, memory_size=1 << 40, captures=True, progress=None, graphs=True, **engine):
        cuda = engine.pop("cuda", None) or FakeCuda(memory_size, captures)
        network, built = engine.pop("network", step), engine.pop("built", batch)
        fake = FakeEngine(cuda, specs, network, built, **engine)
        trt = fake_tensorrt(fake)
        backend = TensorRT(b"", trt, cuda, bundle, "fp32", batch, progress, graphs)
        return backend, cuda

    return make
