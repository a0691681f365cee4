"""CUDA memory, streams, events and graphs behind a small protocol. No other module calls CUDA.

Either pycuda or cuda-python is used, whichever is installed, pycuda first. Both retain the primary
context of the device, so that PyTorch or ONNX Runtime can use the GPU in the same process.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.errors import BackendError, SSDiffError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: no synchronisation with the legacy default stream
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may call CUDA meanwhile


class CudaError(SSDiffError):
    """A CUDA or TensorRT call failed."""


class OutOfMemoryError(CudaError):
    """The device is out of memory."""


@dataclass(frozen=True)
class Device:
    """A GPU."""

    name: str
    compute_capability: tuple[int, int]
    driver: int
    """Highest version of CUDA that the driver supports, such as 13000 for 13.0."""

    @property
    def sm(self) -> str:
        """Compute capability as in sm86."""
        return "sm{}{}".format(*self.compute_capability)


class Cuda(Protocol):
    """The CUDA functions that backends use. Addresses, streams, events and graphs are integers."""

    package: str
    """Python package that provides CUDA."""
    device: Device

    def memory(self) -> tuple[int, int]:
        """Free and total device memory, bytes."""
        ...

    def allocate(self, size: int) -> int:
        """Allocate device memory of ``size`` bytes; returns its address.

        Raises:
            OutOfMemoryError: if there is too little memory.
        """
        ...

    def release(self, address: int) -> None:
        """Free device memory."""
        ...

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Allocate an array in page-locked host memory."""
        ...

    def upload(self, address: int, array: NDArray[np.float32], stream: int) -> None:
        """Enqueue a copy from host to device."""
        ...

    def download(self, array: NDArray[np.float32], address: int, stream: int) -> None:
        """Enqueue a copy from device to host."""
        ...

    def stream(self) -> int:
        """Create a stream that does not synchronise with the default stream."""
        ...

    def event(self) -> int:
        """Create an event."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Enqueue the recording of an event in a stream."""
        ...

    def wait(self, stream: int, event: int) -> None:
        """Make later work of a stream wait for an event."""
        ...

    def synchronize(self, event: int) -> None:
        """Block the host until an event has been recorded."""
        ...

    def elapsed(self, start: int, stop: int) -> float:
        """Milliseconds between two recorded events."""
        ...

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        """Capture what ``work`` enqueues on a stream as a graph, without executing it.

        Raises:
            CudaError: if it cannot be captured; the stream stays usable.
        """
        ...

    def launch(self, graph: int, stream: int) -> None:
        """Enqueue the execution of a graph."""
        ...


_FUNCTIONS: dict[str, list[Any]] = {
    "cuInit": [ctypes.c_uint],
    "cuDriverGetVersion": [ctypes.POINTER(ctypes.c_int)],
    "cuStreamBeginCapture_v2": [ctypes.c_void_p, ctypes.c_int],
    "cuStreamEndCapture": [ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)],
    "cuGraphInstantiateWithFlags": [
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.c_void_p,
        ctypes.c_ulonglong,
    ],
    "cuGraphDestroy": [ctypes.c_void_p],
    "cuGraphLaunch": [ctypes.c_void_p, ctypes.c_void_p],
}


class _Driver:
    """Driver functions that pycuda does not wrap, called through ctypes."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")

    def __call__(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, name)
        function.argtypes = _FUNCTIONS[name]
        if status := function(*arguments):
            raise CudaError(f"CUDA refused {name} (error {status}); check the driver (nvidia-smi).")

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        """See :meth:`Cuda.capture`."""
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self("cuStreamBeginCapture_v2", stream, _THREAD_LOCAL)
        try:
            work()
        finally:  # the capture must be ended even if it failed
            self("cuStreamEndCapture", stream, ctypes.byref(graph))
        try:
            self("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        finally:
            self("cuGraphDestroy", graph)
        assert executable.value is not None
        return executable.value

    def launch(self, graph: int, stream: int) -> None:
        self("cuGraphLaunch", graph, stream)


class PyCuda:
    """CUDA through pycuda, with graphs through the driver API, as pycuda does not wrap them."""

    package = "pycuda"

    def __init__(self, index: int = 0) -> None:
        import pycuda.driver as cuda

        cuda.init()
        self._cuda, self._driver = cuda, _Driver()
        _check_index(index, lambda: int(cuda.Device.count()))
        device = cuda.Device(index)
        self._context = device.retain_primary_context()
        self._context.push()
        atexit.register(self._context.pop)  # pycuda aborts at exit if a context is still current
        self.device = Device(
            device.name(), tuple(device.compute_capability()), cuda.get_driver_version()
        )
        self._objects: dict[int, Any] = {}

    def _register(self, wrapper: Any, handle: int) -> int:
        """Keep a pycuda object alive under its handle."""
        self._objects[handle] = wrapper
        return handle

    def memory(self) -> tuple[int, int]:
        free, total = self._cuda.mem_get_info()
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        try:
            allocation = self._cuda.mem_alloc(size)
        except self._cuda.MemoryError as error:
            raise OutOfMemoryError(_out_of_memory(size, self.memory())) from error
        return self._register(allocation, int(allocation))

    def release(self, address: int) -> None:
        self._objects.pop(address).free()

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        array: NDArray[np.float32] = self._cuda.pagelocked_empty(shape, np.float32)
        return array

    def upload(self, address: int, array: NDArray[np.float32], stream: int) -> None:
        self._cuda.memcpy_htod_async(address, array, self._objects[stream])

    def download(self, array: NDArray[np.float32], address: int, stream: int) -> None:
        self._cuda.memcpy_dtoh_async(array, address, self._objects[stream])

    def stream(self) -> int:
        stream = self._cuda.Stream(_NON_BLOCKING)
        return self._register(stream, stream.handle)

    def event(self) -> int:
        event = self._cuda.Event()
        return self._register(event, id(event))  # pycuda does not expose the handle of an event

    def record(self, event: int, stream: int) -> None:
        self._objects[event].record(self._objects[stream])

    def wait(self, stream: int, event: int) -> None:
        self._objects[stream].wait_for_event(self._objects[event])

    def synchronize(self, event: int) -> None:
        self._objects[event].synchronize()

    def elapsed(self, start: int, stop: int) -> float:
        return float(self._objects[start].time_till(self._objects[stop]))

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        return self._driver.capture(stream, work)

    def launch(self, graph: int, stream: int) -> None:
        self._driver.launch(graph, stream)


class CudaPython:
    """CUDA through NVIDIA's cuda-python."""

    package = "cuda-python"

    def __init__(self, index: int = 0) -> None:
        from cuda.bindings import driver

        self._driver = driver
        self._call(driver.cuInit, 0)
        _check_index(index, lambda: int(self._call(driver.cuDeviceGetCount)))
        device = self._call(driver.cuDeviceGet, index)
        context = self._call(driver.cuDevicePrimaryCtxRetain, device)
        self._call(driver.cuCtxSetCurrent, context)
        name = self._call(driver.cuDeviceGetName, 256, device).split(b"\0")[0].decode()
        attribute = driver.CUdevice_attribute
        major, minor = (
            self._call(driver.cuDeviceGetAttribute, name, device)
            for name in (
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        self.device = Device(name, (major, minor), self._call(driver.cuDriverGetVersion))

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        status, *results = function(*arguments)
        if status:
            problem = f"CUDA refused {function.__name__} ({status.name})"
            if status == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
                raise OutOfMemoryError(f"{problem}.")
            raise CudaError(f"{problem}; check the driver (nvidia-smi).")
        return results[0] if len(results) == 1 else tuple(results)

    def memory(self) -> tuple[int, int]:
        free, total = self._call(self._driver.cuMemGetInfo)
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        try:
            return int(self._call(self._driver.cuMemAlloc, size))
        except OutOfMemoryError as error:
            raise OutOfMemoryError(_out_of_memory(size, self.memory())) from error

    def release(self, address: int) -> None:
        self._call(self._driver.cuMemFree, address)

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        count = int(np.prod(shape))
        address = int(self._call(self._driver.cuMemAllocHost, 4 * count))
        buffer = (ctypes.c_float * count).from_address(address)
        return np.ctypeslib.as_array(buffer).reshape(shape)

    def upload(self, address: int, array: NDArray[np.float32], stream: int) -> None:
        source = array.ctypes.data
        self._call(self._driver.cuMemcpyHtoDAsync, address, source, array.nbytes, stream)

    def download(self, array: NDArray[np.float32], address: int, stream: int) -> None:
        target = array.ctypes.data
        self._call(self._driver.cuMemcpyDtoHAsync, target, address, array.nbytes, stream)

    def stream(self) -> int:
        return int(self._call(self._driver.cuStreamCreate, _NON_BLOCKING))

    def event(self) -> int:
        return int(self._call(self._driver.cuEventCreate, 0))

    def record(self, event: int, stream: int) -> None:
        self._call(self._driver.cuEventRecord, event, stream)

    def wait(self, stream: int, event: int) -> None:
        self._call(self._driver.cuStreamWaitEvent, stream, event, 0)

    def synchronize(self, event: int) -> None:
        self._call(self._driver.cuEventSynchronize, event)

    def elapsed(self, start: int, stop: int) -> float:
        return float(self._call(self._driver.cuEventElapsedTime, start, stop))

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call(self._driver.cuStreamBeginCapture, stream, mode)
        try:
            work()
        finally:  # the capture must be ended even if it failed
            graph = self._call(self._driver.cuStreamEndCapture, stream)
        try:
            return int(self._call(self._driver.cuGraphInstantiate, graph, 0))
        finally:
            self._call(self._driver.cuGraphDestroy, graph)

    def launch(self, graph: int, stream: int) -> None:
        self._call(self._driver.cuGraphLaunch, graph, stream)


def _check_index(index: int, count: Callable[[], int]) -> None:
    if index and index >= (number := count()):
        raise BackendError(
            f"There is no GPU {index}; this machine has {number}, counted from 0. Choose another "
            "`device`."
        )


def _out_of_memory(size: int, memory: tuple[int, int]) -> str:
    free, total = (amount / 2**20 for amount in memory)
    return (
        f"The GPU cannot allocate {size / 2**20:.0f} MiB ({free:.0f} of {total:.0f} MiB are free)."
    )


@cache
def why_no_cuda() -> str | None:
    """Why no GPU can be used, as a clause; None if one can. Imports no CUDA package."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every GPU"
    try:
        driver = _Driver()
        driver("cuInit", 0)
    except OSError:
        return "there is no NVIDIA driver"
    except CudaError as error:
        return str(error)
    return None


@cache
def open_cuda(index: int = 0) -> Cuda:
    """CUDA on a GPU.

    Args:
        index: of the GPU, counted from 0.

    Raises:
        BackendError: if there is no such GPU, or neither package is installed.
    """
    if reason := why_no_cuda():
        raise BackendError(f"No GPU can be used: {reason}; choose `backend=onnxruntime`.")
    for kind in (PyCuda, CudaPython):
        try:
            opened: Cuda = kind(index)
        except ImportError:
            continue
        return opened
    raise BackendError(
        "Neither pycuda nor cuda-python is installed, and one of them is needed to use the GPU; "
        "pip install pycuda, or cuda-python where pycuda cannot be built."
    )
