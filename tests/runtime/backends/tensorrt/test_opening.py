"""Which engine a backend on a GPU is opened with."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ssdiff_trt import Pansharpener
from ssdiff_trt.runtime.backends.registry import open_backend
from ssdiff_trt.runtime.backends.tensorrt import engine
from ssdiff_trt.runtime.backends.tensorrt.cuda import why_no_package
from ssdiff_trt.runtime.backends.tensorrt.engine import BATCH, FLAVOURS, Plan
from ssdiff_trt.runtime.bundle.manifest import graph_io
from ssdiff_trt.runtime.parity.verification import verify
from tests.support.engines import step
from tests.support.fake_gpu import FakeEngine, fake_tensorrt
from tests.support.progress import RecordingProgress
from tests.support.rasters import read_raster


@pytest.fixture
def built(bundle4, tmp_path, monkeypatch, driver):
    """The plans that engines were built for, each with the GPU that was current and free memory."""
    plans = []
    if reason := why_no_package():
        pytest.skip(reason)
    inputs, outputs = graph_io("step", bundle4.manifest.model)
    fake = fake_tensorrt(FakeEngine(driver, {s.name: s for s in (*inputs, *outputs)}, step))

    def build(plan, progress, workspace=None, timing=None):
        plans.append((plan, driver.current(), workspace))
        return b"engine", {"CONVOLUTION FLOAT": 1}

    monkeypatch.setenv("SSDIFF_CACHE", str(tmp_path))
    monkeypatch.setattr(engine, "import_tensorrt", lambda flavour: fake)
    monkeypatch.setattr(engine, "check_target", lambda flavour, target: None)
    monkeypatch.setattr(Plan, "build", build)
    return plans


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(("batch", "largest"), [(None, BATCH), (4, BATCH), (BATCH + 8, BATCH + 8)])
def test_the_engine_is_one_of_the_flavour_and_for_the_batch_asked_for(
    built, bundle4, driver, flavour, batch, largest
):
    given = {"precision": "fp32", "batch": batch, "device": 1, "progress": RecordingProgress()}
    if largest > BATCH:  # the fake engine refuses it, after the plan was made
        with pytest.raises(Exception, match="refused the shape"):
            open_backend(flavour, bundle4, **given)
    else:
        with open_backend(flavour, bundle4, **given) as opened:
            assert opened.batch == (batch or BATCH)
            assert opened.build_seconds is not None
    ((plan, index, free),) = built
    assert (plan.flavour, plan.precision, plan.max_batch) == (flavour, "fp32", largest)
    assert plan.key.flavour == flavour
    assert plan.target.name == "Stand-in GPU 1"
    assert (index, free) == (1, 1 << 40)
    assert driver.counts.held() == {}


def test_an_engine_of_one_flavour_does_not_serve_the_other(built, bundle4):
    for flavour in (*FLAVOURS, *FLAVOURS):
        open_backend(flavour, bundle4, precision="fp32", progress=RecordingProgress()).close()
    assert [(plan.flavour, index) for plan, index, _ in built] == [
        (flavour, 0) for flavour in FLAVOURS
    ]


def test_a_pansharpener_of_several_threads_frees_its_engine(built, driver, make_pair, tmp_path):
    pair = make_pair(96, 96)
    given = {"precision": "fp32", "batch": 4, "progress": RecordingProgress()}
    with (
        Pansharpener("generic4", backend="tensorrt", **given) as sharpen,
        ThreadPoolExecutor(2) as pool,
    ):
        names = [tmp_path / f"{number}.tif" for number in range(3)]
        list(pool.map(lambda name: sharpen(*pair, name), names))
        assert driver.counts.executables == 2  # one backend
    images = [read_raster(name) for name in names]
    assert images[0].std() > 0
    for image in images[1:]:
        np.testing.assert_array_equal(image, images[0])
    assert driver.counts.held() == {}
    assert len(built) == 1


def test_a_verification_frees_its_engine(built, driver):
    verification = verify("generic4", "tensorrt", "fp32", progress=RecordingProgress())
    assert not verification.passed  # the fake engine computes something else
    assert driver.counts.enqueued > 0
    assert driver.counts.held() == {}
