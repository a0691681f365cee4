"""Which engine a backend on a GPU is opened with."""

from __future__ import annotations

from types import SimpleNamespace
from weakref import WeakSet

import pytest

from ssdiff_trt.runtime.backends.registry import open_backend
from ssdiff_trt.runtime.backends.tensorrt import engine, opening
from ssdiff_trt.runtime.backends.tensorrt.cuda import OutOfMemoryError
from ssdiff_trt.runtime.backends.tensorrt.engine import FLAVOURS, Plan, default_batch
from ssdiff_trt.runtime.backends.tensorrt.engine_cache import EngineCache
from ssdiff_trt.runtime.bundle.manifest import graph_io
from ssdiff_trt.runtime.schedule import make_schedule
from tests.support.engines import engine_tiles, step
from tests.support.fake_gpu import FakeCuda, FakeEngine, fake_tensorrt
from tests.support.progress import RecordingProgress


class Built(list):
    """The plans that engines were built for on a fake GPU, each with the GPU and free memory."""

    def __init__(self, bundle, scratch=0):
        self.cuda = FakeCuda(captures=False)
        self.cuda.allocate(1 << 20)
        inputs, outputs = graph_io("step", bundle.manifest.model)
        specs = {spec.name: spec for spec in (*inputs, *outputs)}
        self.engines = WeakSet()

        def load(content):
            engine = FakeEngine(self.cuda, specs, step, int(content.decode()), scratch=scratch)
            self.engines.add(engine)
            return engine

        self.trt = fake_tensorrt(None)
        self.trt.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=load)

    def build(self, plan, progress, workspace=None, timing=None):
        self.loaded = len(self.engines)
        self.append((plan, self.cuda.index, workspace))
        return b"%d" % plan.batch, {"CONVOLUTION FLOAT": 1}

    def open_cuda(self, index):
        self.cuda.index = index
        return self.cuda


@pytest.fixture
def built(bundle4, tmp_path, monkeypatch):
    built = Built(bundle4, scratch=1 << 20)
    monkeypatch.setenv("SSDIFF_CACHE", str(tmp_path))
    monkeypatch.setattr(opening, "open_cuda", built.open_cuda)
    monkeypatch.setattr(engine, "import_tensorrt", lambda flavour: built.trt)
    monkeypatch.setattr(engine, "check_target", lambda flavour, target: None)
    monkeypatch.setattr(Plan, "build", lambda *given, **named: built.build(*given, **named))
    return built


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(("batch", "size"), [(None, 8), (1, 1), (2, 2), (5, 8), (32, 32), (33, 64)])
def test_the_engine_is_one_of_the_flavour_and_for_the_batch_asked_for(
    built, bundle4, flavour, batch, size
):
    given = {"precision": "fp32", "batch": batch, "device": 1, "progress": RecordingProgress()}
    opened = open_backend(flavour, bundle4, **given)
    assert opened.batch == size
    assert opened.build_seconds is not None
    ((plan, index, free),) = built
    assert (plan.flavour, plan.precision, plan.batch) == (flavour, "fp32", size)
    assert plan.key.flavour == flavour
    assert plan.target.name == "Fake GPU"
    assert (index, free) == (1, (1 << 40) - (1 << 20))


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


def test_a_gpu_with_little_memory_has_a_smaller_default(built, bundle4):
    built.cuda.memory_size = 7 * 10**9
    progress = RecordingProgress()
    assert open_backend("tensorrt", bundle4, precision="fp32", progress=progress).batch == 4


def test_where_memory_is_short_the_largest_engine_that_fits_is_used(built, bundle4):
    """Each attempt finds the engine of the one before it gone, and its memory free again."""
    progress = RecordingProgress()
    built.cuda.memory_size = (1 << 20) + 3 * (1 << 20)  # what is allocated, and 2 tiles and buffers
    given = {"precision": "fp32", "batch": 8, "progress": progress}
    assert open_backend("tensorrt", bundle4, **given).batch == 2
    assert [plan.batch for plan, *_ in built] == [8, 4, 2]
    assert {free for *_, free in built} == {3 << 20}
    assert built.loaded == 0
    assert progress.warnings == [
        "The GPU is out of memory. The batch is reduced from 8 to 4 tiles",
        "The GPU is out of memory. The batch is reduced from 4 to 2 tiles",
    ]
    assert [note.partition(" on ")[0] for note in progress.notes] == [
        f"Building an engine in fp32 for batches of {batch}" for batch in (8, 4, 2)
    ]
    built.cuda.memory_size = (1 << 20) + (1 << 20)
    with pytest.raises(OutOfMemoryError, match="out of memory"):
        open_backend("tensorrt", bundle4, **given)


def test_an_engine_of_one_flavour_does_not_serve_the_other(built, bundle4):
    for flavour in (*FLAVOURS, *FLAVOURS):
        open_backend(flavour, bundle4, precision="fp32", progress=RecordingProgress())
    assert [(plan.flavour, index) for plan, index, _ in built] == [
        (flavour, 0) for flavour in FLAVOURS
    ]


def test_kernels_are_kept_beside_the_engines_of_tensorrt_rtx(built, bundle4):
    for flavour, count in (("tensorrt", 0), ("tensorrt-rtx", 1)):
        opened = open_backend(flavour, bundle4, precision="fp32", progress=RecordingProgress())
        list(opened.sample([engine_tiles(1)], make_schedule((999,))))
        assert len([*EngineCache().folder.glob("*.kernels")]) == count
    assert (EngineCache().folder / f"{built[1][0].key.digest}.kernels").is_file()
