"""Execution contexts, and kernels of TensorRT-RTX that are kept."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from ssdiff_trt.runtime.backends.tensorrt.context import Kernels, capturable, create_context
from ssdiff_trt.runtime.backends.tensorrt.engine_cache import EngineCache
from ssdiff_trt.runtime.schedule import make_schedule
from tests.support.engines import engine_tiles
from tests.support.fake_rtx import RuntimeConfig
from tests.support.progress import RecordingProgress

KEY = SimpleNamespace(digest="0123")
TRT = SimpleNamespace(
    ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user managed")
)


class Engine:
    """Stands for an engine; its contexts are what they are created with."""

    create_runtime_config = RuntimeConfig

    def create_execution_context(self, given):
        return given


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "engines")


def run(cache, compiled=b"driver 580, kernels"):
    """Create a context, run it and keep its kernels; gives the kernels that it began with."""
    kernels = Kernels(cache, KEY)
    given = create_context(TRT, Engine(), kernels)
    assert given.strategy == "user managed"
    began = given.kernels.content
    given.kernels.content = began or compiled
    kernels.keep()
    return began


def test_tensorrt_creates_a_context_without_kernels():
    assert create_context(TRT, Engine(), None) == "user managed"


def test_what_one_run_compiled_the_next_begins_with(cache):
    assert run(cache) == b""
    path = cache.folder / "0123.kernels"
    written = path.stat().st_mtime_ns
    assert path.stat().st_mode & 0o777 == 0o600
    assert run(cache) == b"driver 580, kernels"
    assert path.stat().st_mtime_ns == written


def test_kernels_of_another_driver_are_replaced(cache):
    run(cache, b"driver 590, kernels")
    assert run(cache) == b""
    assert run(cache) == b"driver 580, kernels"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_kernels_that_others_could_have_written_are_not_loaded(cache):
    run(cache)
    (cache.folder / "0123.kernels").chmod(0o620)
    assert run(cache) == b""
    assert run(cache) == b"driver 580, kernels"
    cache.folder.chmod(0o770)
    assert run(cache, b"driver 580, others") == b""
    cache.folder.chmod(0o700)
    assert run(cache) == b"driver 580, kernels"
    os.replace(cache.folder / "0123.kernels", cache.folder / "elsewhere")
    (cache.folder / "0123.kernels").symlink_to("elsewhere")
    assert run(cache) == b""


def test_tensorrt_rtx_says_whether_a_graph_can_be_captured():
    for answer in (True, False):
        context = SimpleNamespace(is_stream_capturable=lambda stream, answer=answer: answer)
        assert capturable(context, 1) == answer
    assert capturable(SimpleNamespace(), 1)


def test_an_engine_that_no_graph_can_capture_runs_step_by_step(make_backend, driver):
    progress = RecordingProgress()
    backend = make_backend(progress=progress)
    backend._context.is_stream_capturable = lambda stream: False
    (images,) = backend.sample([engine_tiles(4)], make_schedule((999, 20)))
    assert len(images) == 4
    assert driver.counts.launches == 0
    assert progress.warnings == [
        "No CUDA graph could be captured (TensorRT-RTX cannot run this engine in one); running "
        "step by step"
    ]


def test_kernels_are_kept_once_the_engine_has_run(make_backend, driver):
    kept = []
    backend = make_backend()
    backend._kernels = SimpleNamespace(keep=lambda: kept.append(driver.counts.enqueued))
    list(backend.sample([engine_tiles(4)], make_schedule((999, 20))))
    assert kept[0] == 2  # both steps, before the capture


def test_tensorrt_rtx_has_what_is_asked_of_it():
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel for this platform")
    for kind, names in (
        (trt.ICudaEngine, ("create_runtime_config", "device_memory_size_v2")),
        (trt.IExecutionContext, ("is_stream_capturable", "set_device_memory")),
        (trt.IRuntimeCache, ("deserialize", "serialize")),
        (
            trt.IRuntimeConfig,
            (
                "create_runtime_cache",
                "set_execution_context_allocation_strategy",
                "set_runtime_cache",
            ),
        ),
        (trt.BuilderFlag, ("REQUIRE_USER_ALLOCATION", "STRICT_NANS")),
        (trt.ExecutionContextAllocationStrategy, ("USER_MANAGED",)),
    ):
        for name in names:
            assert hasattr(kind, name), f"{kind.__name__} has no {name}"
