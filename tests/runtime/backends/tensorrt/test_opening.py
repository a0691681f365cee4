"""Which engine a backend on a GPU is opened with."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from weakref import WeakSet

import numpy as np
import pytest

from ssdiff_trt import Pansharpener
from ssdiff_trt.runtime.backends.registry import open_backend
from ssdiff_trt.runtime.backends.tensorrt import engine
from ssdiff_trt.runtime.backends.tensorrt.cuda import OutOfMemoryError, why_no_package
from ssdiff_trt.runtime.backends.tensorrt.engine import FLAVOURS, Plan, default_batch
from ssdiff_trt.runtime.backends.tensorrt.engine_cache import EngineCache
from ssdiff_trt.runtime.bundle.manifest import graph_io
from ssdiff_trt.runtime.parity.verification import verify
from ssdiff_trt.runtime.schedule import make_schedule
from tests.support.engines import engine_tiles, step
from tests.support.fake_gpu import FakeEngine, fake_tensorrt
from tests.support.progress import RecordingProgress
from tests.support.rasters import read_raster


class Built(list):
    """The plans that engines were built for, each with the GPU that was current and free memory."""

    def __init__(self, driver, bundle, scratch=0):
        self.driver = driver
        inputs, outputs = graph_io("step", bundle.manifest.model)
        specs = {spec.name: spec for spec in (*inputs, *outputs)}
        self.engines = WeakSet()

        def load(content):
            engine = FakeEngine(driver, specs, step, int(content.decode()), scratch=scratch)
            self.engines.add(engine)
            return engine

        self.trt = fake_tensorrt(None)
        self.trt.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=load)

    def build(self, plan, progress, workspace=None, timing=None):
        self.loaded = len(self.engines)
        self.append((plan, self.driver.current(), workspace))
        return b"%d" % plan.batch, {"CONVOLUTION FLOAT": 1}


@pytest.fixture
def built(bundle4, tmp_path, monkeypatch, driver):
    if reason := why_no_package():
        pytest.skip(reason)
    built = Built(driver, bundle4, scratch=1 << 20)
    monkeypatch.setenv("SSDIFF_CACHE", str(tmp_path))
    monkeypatch.setattr(engine, "import_tensorrt", lambda flavour: built.trt)
    monkeypatch.setattr(engine, "check_target", lambda flavour, target: None)
    monkeypatch.setattr(Plan, "build", lambda *given, **named: built.build(*given, **named))
    return built


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(("batch", "size"), [(None, 8), (1, 1), (2, 2), (5, 8), (32, 32), (33, 64)])
def test_the_engine_is_one_of_the_flavour_and_for_the_batch_asked_for(
    built, bundle4, driver, flavour, batch, size
):
    given = {"precision": "fp32", "batch": batch, "device": 1, "progress": RecordingProgress()}
    with open_backend(flavour, bundle4, **given) as opened:
        assert opened.batch == size
        assert opened.build_seconds is not None
    ((plan, index, free),) = built
    assert (plan.flavour, plan.precision, plan.batch) == (flavour, "fp32", size)
    assert plan.key.flavour == flavour
    assert plan.target.name == "Stand-in GPU 1"
    assert (index, free) == (1, 1 << 40)
    assert driver.counts.held() == {}


@pytest.mark.parametrize(
    ("precision", "memory", "batch"),
    [
        ("fp32", None, 8),
        ("fp32", 8 * 10**9, 8),
        ("fp32", 7 * 10**9, 4),
        ("fp16", None, 32),
        ("bf16", 24 * 10**9, 32),
        ("int8", 7 * 10**9, 16),
    ],
)
def test_the_default_batch_depends_on_precision_and_memory(precision, memory, batch):
    assert default_batch(precision, memory) == batch


def test_a_gpu_with_little_memory_has_a_smaller_default(built, bundle4, driver):
    driver.reset(memory=7 * 10**9)
    given = {"precision": "fp32", "progress": RecordingProgress()}
    with open_backend("tensorrt", bundle4, **given) as opened:
        assert opened.batch == 4


def test_where_memory_is_short_the_largest_engine_that_fits_is_used(built, bundle4, driver):
    """Each attempt finds the engine of the one before it gone, and its memory free again."""
    progress = RecordingProgress()
    driver.reset(memory=3 << 20)  # for 2 tiles and their buffers
    given = {"precision": "fp32", "batch": 8, "progress": progress}
    with open_backend("tensorrt", bundle4, **given) as opened:
        assert opened.batch == 2
    assert [plan.batch for plan, *_ in built] == [8, 4, 2]
    assert {free for *_, free in built} == {3 << 20}
    assert built.loaded == 0
    assert progress.warnings == [
        f"The GPU cannot allocate {batch} MiB (3 of 3 MiB are free); free some, or lower `batch`. "
        f"The batch is reduced from {batch} to {batch // 2} tiles"
        for batch in (8, 4)
    ]
    assert [note.partition(" on ")[0] for note in progress.notes] == [
        f"Building an engine in fp32 for batches of {batch}" for batch in (8, 4, 2)
    ]
    driver.reset(memory=1 << 20)
    with pytest.raises(OutOfMemoryError, match="cannot allocate 1 MiB"):
        open_backend("tensorrt", bundle4, **given)
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


def test_kernels_are_kept_beside_the_engines_of_tensorrt_rtx(built, bundle4):
    for flavour, count in (("tensorrt", 0), ("tensorrt-rtx", 1)):
        given = {"precision": "fp32", "progress": RecordingProgress()}
        with open_backend(flavour, bundle4, **given) as opened:
            list(opened.sample([engine_tiles(1)], make_schedule((999,))))
        assert len([*EngineCache().folder.glob("*.kernels")]) == count
    assert (EngineCache().folder / f"{built[1][0].key.digest}.kernels").is_file()
