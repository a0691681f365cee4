"""The Cuda protocol by pycuda and by cuda-python.

Both retain the primary context of the device until the process ends, so that PyTorch or ONNX
Runtime can use the GPU in the same process. It is current only within :meth:`Cuda.current`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.backends.tensorrt.cuda import (
    OUT_OF_MEMORY,
    CudaError,
    Device,
    Driver,
    OutOfMemoryError,
    refusal,
)
from ssdiff_trt.runtime.errors import BackendError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: no synchronisation with the legacy default stream
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may call CUDA meanwhile


class _Handles:
    """What both packages have in common: handles with their destructors, and graphs."""

    def __init__(self) -> None:
        self._graphs = Driver()
        self._destructors: dict[int, Callable[[], object]] = {}

    def _own(self, handle: int, destroy: Callable[[], object]) -> int:
        self._destructors[handle] = destroy
        return handle

    def release(self, handle: int) -> None:
        self._destructors.pop(handle)()

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        call, graph, executable = self._graphs, ctypes.c_void_p(), ctypes.c_void_p()

        def abandon() -> None:
            """End the capture, which may be invalid."""
            with suppress(CudaError):
                call("cuStreamEndCapture", stream, ctypes.byref(graph))
                call("cuGraphDestroy", graph)

        call("cuStreamBeginCapture_v2", stream, _THREAD_LOCAL)
        with ExitStack() as unfinished:
            unfinished.callback(abandon)
            work()
            unfinished.pop_all()
        call("cuStreamEndCapture", stream, ctypes.byref(graph))
        try:
            call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        finally:
            call("cuGraphDestroy", graph)
        handle = executable.value
        assert handle is not None
        return self._own(handle, lambda: call("cuGraphExecDestroy", handle))

    def launch(self, graph: int, stream: int) -> None:
        self._graphs("cuGraphLaunch", graph, stream)


def _detach(context: Any, call: Driver) -> None:
    """Release a primary context, which pycuda would otherwise destroy as if it were its own."""
    context.push()  # detaching the current context works on any thread
    context.detach()
    call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))


class PyCuda(_Handles):
    """CUDA through pycuda, with graphs through the driver API, as pycuda does not wrap them."""

    package = "pycuda"

    def __init__(self, index: int = 0) -> None:
        import pycuda.driver as cuda

        super().__init__()
        self._cuda = cuda
        self._call(cuda.init)
        _check_index(index, lambda: int(cuda.Device.count()))
        device = self._call(cuda.Device, index)
        self._context = self._call(device.retain_primary_context)
        finalize(self, _detach, self._context, self._graphs)
        self.device = Device(
            device.name(), tuple(device.compute_capability()), cuda.get_driver_version()
        )
        self._objects: dict[int, Any] = {}  # streams and events by handle

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._cuda.Error as error:
            raise refusal(str(error), isinstance(error, self._cuda.MemoryError)) from error

    @contextmanager
    def current(self) -> Iterator[None]:
        self._call(self._context.push)
        try:
            yield
        finally:
            self._call(self._context.pop)

    def _register(self, wrapper: Any, handle: int) -> int:
        """Keep a pycuda object, which destroys what it wraps when it is dropped."""
        self._objects[handle] = wrapper
        return self._own(handle, lambda: self._objects.pop(handle))

    def memory(self) -> tuple[int, int]:
        free, total = self._call(self._cuda.mem_get_info)
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        with _sized(size, self.memory):
            allocation = self._call(self._cuda.mem_alloc, size)
        return self._own(int(allocation), lambda: self._call(allocation.free))

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        array: NDArray[np.float32] = self._call(self._cuda.pagelocked_empty, shape, np.float32)
        allocation: Any = array.base
        self._own(array.ctypes.data, lambda: self._call(allocation.free))
        return array

    def upload(self, address: int, array: NDArray[np.float32], stream: int) -> None:
        self._call(self._cuda.memcpy_htod_async, address, array, self._objects[stream])

    def download(self, array: NDArray[np.float32], address: int, stream: int) -> None:
        self._call(self._cuda.memcpy_dtoh_async, array, address, self._objects[stream])

    def stream(self) -> int:
        stream = self._call(self._cuda.Stream, _NON_BLOCKING)
        return self._register(stream, stream.handle)

    def event(self) -> int:
        event = self._call(self._cuda.Event)
        return self._register(event, id(event))  # pycuda does not expose the handle of an event

    def record(self, event: int, stream: int) -> None:
        self._call(self._objects[event].record, self._objects[stream])

    def wait(self, stream: int, event: int) -> None:
        self._call(self._objects[stream].wait_for_event, self._objects[event])

    def synchronize(self, event: int) -> None:
        self._call(self._objects[event].synchronize)

    def elapsed(self, start: int, stop: int) -> float:
        return float(self._call(self._objects[start].time_till, self._objects[stop]))


class CudaPython(_Handles):
    """CUDA through NVIDIA's cuda-python, with graphs as :class:`PyCuda` has them."""

    package = "cuda-python"

    def __init__(self, index: int = 0) -> None:
        from cuda.bindings import driver

        super().__init__()
        self._driver = driver
        self._call(driver.cuInit, 0)
        _check_index(index, lambda: int(self._call(driver.cuDeviceGetCount)))
        device = self._call(driver.cuDeviceGet, index)
        self._context = self._call(driver.cuDevicePrimaryCtxRetain, device)
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
            raise refusal(f"{function.__name__} ({status.name})", int(status) == OUT_OF_MEMORY)
        return results[0] if len(results) == 1 else tuple(results)

    @contextmanager
    def current(self) -> Iterator[None]:
        self._call(self._driver.cuCtxPushCurrent, self._context)
        try:
            yield
        finally:
            self._call(self._driver.cuCtxPopCurrent)

    def _register(self, handle: Any, destroy: Callable[..., Any]) -> int:
        return self._own(int(handle), lambda: self._call(destroy, handle))

    def memory(self) -> tuple[int, int]:
        free, total = self._call(self._driver.cuMemGetInfo)
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        with _sized(size, self.memory):
            address = self._call(self._driver.cuMemAlloc, size)
        return self._register(address, self._driver.cuMemFree)

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        count = int(np.prod(shape))
        address = int(self._call(self._driver.cuMemAllocHost, 4 * count))
        self._register(address, self._driver.cuMemFreeHost)
        buffer = (ctypes.c_float * count).from_address(address)
        return np.ctypeslib.as_array(buffer).reshape(shape)

    def upload(self, address: int, array: NDArray[np.float32], stream: int) -> None:
        source = array.ctypes.data
        self._call(self._driver.cuMemcpyHtoDAsync, address, source, array.nbytes, stream)

    def download(self, array: NDArray[np.float32], address: int, stream: int) -> None:
        target = array.ctypes.data
        self._call(self._driver.cuMemcpyDtoHAsync, target, address, array.nbytes, stream)

    def stream(self) -> int:
        stream = self._call(self._driver.cuStreamCreate, _NON_BLOCKING)
        return self._register(stream, self._driver.cuStreamDestroy)

    def event(self) -> int:
        event = self._call(self._driver.cuEventCreate, 0)
        return self._register(event, self._driver.cuEventDestroy)

    def record(self, event: int, stream: int) -> None:
        self._call(self._driver.cuEventRecord, event, stream)

    def wait(self, stream: int, event: int) -> None:
        self._call(self._driver.cuStreamWaitEvent, stream, event, 0)

    def synchronize(self, event: int) -> None:
        self._call(self._driver.cuEventSynchronize, event)

    def elapsed(self, start: int, stop: int) -> float:
        return float(self._call(self._driver.cuEventElapsedTime, start, stop))


def _check_index(index: int, count: Callable[[], int]) -> None:
    if index and index >= (number := count()):
        raise BackendError(
            f"There is no GPU {index}; this machine has {number}, counted from 0. Choose another "
            "`device`."
        )


@contextmanager
def _sized(size: int, memory: Callable[[], tuple[int, int]]) -> Iterator[None]:
    """State the size of an allocation for which there is too little memory."""
    try:
        yield
    except OutOfMemoryError as error:
        free, total = (amount / 2**20 for amount in memory())
        raise OutOfMemoryError(
            f"The GPU cannot allocate {size / 2**20:.0f} MiB ({free:.0f} of {total:.0f} MiB are "
            "free); free some, or lower `batch`."
        ) from error
