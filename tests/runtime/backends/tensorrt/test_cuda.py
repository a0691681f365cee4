"""The two CUDA packages behind the ``Cuda`` protocol, with fakes of their modules."""

from __future__ import annotations

import ctypes
import inspect
import sys
import types
from enum import IntEnum
from types import ModuleType

import numpy as np
import pytest

import ssdiff_trt.runtime.backends.tensorrt.cuda
from ssdiff_trt.runtime.backends.tensorrt.cuda import (
    Cuda,
    CudaError,
    CudaPython,
    OutOfMemoryError,
    PyCuda,
    open_cuda,
)
from ssdiff_trt.runtime.errors import SSDiffError


class CUresult(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_INVALID_VALUE = 1


class Enumeration(IntEnum):
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1


@pytest.fixture
def driver(monkeypatch):
    """Fake of cuda-python's module; it records calls and returns the values in ``results``."""
    module = ModuleType("cuda.bindings.driver")
    module.calls, module.buffers = [], []
    module.results = {
        "cuDeviceGet": [0],
        "cuDevicePrimaryCtxRetain": [77],
        "cuDeviceGetName": [b"Fake GPU\0\0\0"],
        "cuDeviceGetAttribute": lambda which, device: [{75: 8, 76: 7}[int(which)]],
        "cuDriverGetVersion": [13000],
        "cuMemGetInfo": [3 << 30, 8 << 30],
        "cuMemAlloc": [4096],
        "cuStreamCreate": [11],
        "cuEventCreate": [12],
        "cuStreamEndCapture": [13],
        "cuGraphInstantiate": [14],
        "cuEventElapsedTime": [1.5],
    }

    def pinned(size):
        module.buffers.append((ctypes.c_char * size)())
        return [ctypes.addressof(module.buffers[-1])]

    module.results["cuMemAllocHost"] = pinned

    def fake_function(name):
        def call(*arguments):
            module.calls.append((name, *arguments))
            result = module.results.get(name, [])
            result = result(*arguments) if callable(result) else result
            if isinstance(result, CUresult):
                return (result,)
            return (CUresult.CUDA_SUCCESS, *result)

        call.__name__ = name
        return call

    module.__getattr__ = fake_function
    module.CUresult, module.CUdevice_attribute = CUresult, Enumeration
    module.CUstreamCaptureMode = Enumeration
    package = ModuleType("cuda.bindings")
    package.driver = module
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", package)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", module)
    return module


def test_the_primary_context_is_used_and_the_device_is_described(driver):
    cuda = CudaPython()
    assert ("cuCtxSetCurrent", 77) in driver.calls
    assert (cuda.device.name, cuda.device.sm, cuda.device.driver) == ("Fake GPU", "sm87", 13000)
    assert cuda.memory() == (3 << 30, 8 << 30)


def test_every_failed_call_is_an_error(driver):
    cuda = CudaPython()
    driver.results["cuEventRecord"] = CUresult.CUDA_ERROR_INVALID_VALUE
    with pytest.raises(CudaError, match=r"refused cuEventRecord \(CUDA_ERROR_INVALID_VALUE\)"):
        cuda.record(1, 2)
    driver.results["cuMemAlloc"] = CUresult.CUDA_ERROR_OUT_OF_MEMORY
    with pytest.raises(
        OutOfMemoryError, match=r"cannot allocate 64 MiB \(3072 of 8192 MiB are free\)"
    ):
        cuda.allocate(64 << 20)


def test_pinned_memory_is_an_array_that_copies_use(driver):
    cuda = CudaPython()
    array = cuda.pinned((2, 3))
    array[:] = 5
    assert array.dtype == np.float32
    assert bytes(driver.buffers[0]) == np.full(6, 5, np.float32).tobytes()
    cuda.upload(4096, array, 11)
    assert driver.calls[-1] == ("cuMemcpyHtoDAsync", 4096, array.ctypes.data, 24, 11)
    cuda.download(array, 4096, 11)
    assert driver.calls[-1] == ("cuMemcpyDtoHAsync", array.ctypes.data, 4096, 24, 11)


def test_a_capture_that_fails_is_ended(driver):
    cuda = CudaPython()
    assert cuda.capture(11, lambda: None) == 14

    def fail():
        raise CudaError("no")

    driver.calls.clear()
    with pytest.raises(CudaError, match="no"):
        cuda.capture(11, fail)
    assert [call[0] for call in driver.calls] == ["cuStreamBeginCapture", "cuStreamEndCapture"]


class Recorder:
    """A pycuda object that records the calls of its methods."""

    def __init__(self, *arguments):
        self.calls = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *arguments: self.calls.append((name, *arguments))


class Allocation(Recorder):
    def __int__(self):
        return 8192


@pytest.fixture
def pycuda(monkeypatch):
    """Fake of pycuda, whose streams have handles and whose events do not."""
    module = ModuleType("pycuda.driver")
    module.context, module.copies = Recorder(), []
    device = types.SimpleNamespace(
        name=lambda: "Fake GPU",
        compute_capability=lambda: (8, 7),
        retain_primary_context=lambda: module.context,
    )

    class Event(Recorder):
        handle = property(lambda self: (_ for _ in ()).throw(AttributeError("handle")))

    class Stream(Recorder):
        handle = 11

    class FakeMemoryError(Exception):
        pass

    module.init, module.Device = lambda: None, lambda index: device
    module.get_driver_version = lambda: 12060
    module.Event, module.Stream, module.MemoryError = Event, Stream, FakeMemoryError
    module.mem_get_info = lambda: (3 << 30, 8 << 30)
    module.mem_alloc = Allocation
    module.pagelocked_empty = np.empty
    module.memcpy_htod_async = lambda *arguments: module.copies.append(arguments)
    package = ModuleType("pycuda")
    package.driver = module
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", module)
    monkeypatch.setattr(ssdiff_trt.runtime.backends.tensorrt.cuda, "_Driver", Recorder)
    monkeypatch.setattr(
        ssdiff_trt.runtime.backends.tensorrt.cuda.atexit, "register", lambda function: None
    )
    return module


def test_pycuda_objects_are_looked_up_by_handle(pycuda):
    cuda = PyCuda()
    assert ("push",) in pycuda.context.calls
    assert cuda.device.sm == "sm87"
    stream, events = cuda.stream(), [cuda.event(), cuda.event()]
    assert stream == 11  # the handle that TensorRT needs
    assert len({stream, *events}) == 3
    cuda.record(events[0], stream)
    cuda.wait(stream, events[1])
    first, second = (cuda._objects[event] for event in events)
    assert first.calls == [("record", cuda._objects[stream])]
    assert cuda._objects[stream].calls == [("wait_for_event", second)]
    array, address = cuda.pinned((2, 2)), cuda.allocate(64)
    assert address == 8192
    assert array.shape == (2, 2)
    cuda.upload(address, array, stream)
    ((target, source, copy_stream),) = pycuda.copies
    assert (target, copy_stream) == (8192, cuda._objects[stream])
    assert source is array
    allocation = cuda._objects[address]
    cuda.release(address)
    assert allocation.calls == [("free",)]

    def full(size):
        raise pycuda.MemoryError

    pycuda.mem_alloc = full
    with pytest.raises(OutOfMemoryError, match="cannot allocate 1 MiB"):
        cuda.allocate(1 << 20)


@pytest.mark.parametrize("kind", [PyCuda, CudaPython])
def test_both_packages_implement_the_protocol(kind):
    for name, declared in inspect.getmembers(Cuda, inspect.isfunction):
        if not name.startswith("_"):
            implemented = inspect.signature(getattr(kind, name))
            assert implemented == inspect.signature(declared), name


def test_the_real_cuda_python_has_every_function_that_is_called():
    real = pytest.importorskip("cuda.bindings.driver")
    source = inspect.getsource(CudaPython)
    called = {word.split(",")[0].split(")")[0] for word in source.split("driver.")[1:]}
    called = {name.strip() for name in called if name.startswith("cu") and name[2].isupper()}
    assert len(called) >= 20
    assert not {name for name in called if not hasattr(real, name)}
    assert hasattr(real.CUstreamCaptureMode, "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL")


@pytest.fixture
def uncached():
    for function in (ssdiff_trt.runtime.backends.tensorrt.cuda.why_no_cuda, open_cuda):
        function.cache_clear()
    yield
    for function in (ssdiff_trt.runtime.backends.tensorrt.cuda.why_no_cuda, open_cuda):
        function.cache_clear()


def test_without_a_gpu_the_error_names_the_reason(uncached, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SSDiffError, match="CUDA_VISIBLE_DEVICES hides every GPU; choose `backend="):
        open_cuda()


def test_without_a_cuda_package_the_error_names_both(uncached, monkeypatch):
    monkeypatch.setattr(ssdiff_trt.runtime.backends.tensorrt.cuda, "why_no_cuda", lambda: None)
    for name in ("pycuda", "pycuda.driver", "cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SSDiffError, match="Neither pycuda nor cuda-python is installed"):
        open_cuda()
