"""CUDA: memory, streams, events and graphs behind a small protocol. Nothing else calls CUDA.

Two packages give it, pycuda and cuda-python; the first one that is there is taken. Both retain the
primary context of the device, so that PyTorch or ONNX Runtime can live in the same process.
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

from ssdiff_trt.runtime.errors import SSDiffError

_NON_BLOCKING = 1  # streams that do not wait for the legacy default stream
_THREAD_LOCAL = 1  # capture that does not mind what other threads do


class CudaError(SSDiffError):
    """A call that CUDA refused."""


class OutOfMemoryError(CudaError):
    """The device has no room."""


@dataclass(frozen=True)
class Device:
    """A GPU."""

    name: str
    compute_capability: tuple[int, int]
    driver: int
    """Version of CUDA that the driver speaks, such as 13000."""

    @property
    def sm(self) -> str:
        """Such as sm86."""
        return "sm{}{}".format(*self.compute_capability)


class Cuda(Protocol):
    """What the backends need of CUDA. Addresses, streams, events and graphs are whole numbers."""

    package: str
    device: Device

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of the device."""
        ...

    def allocate(self, size: int) -> int:
        """Bytes on the device.

        Raises:
            OutOfMemoryError: if there is no room.
        """
        ...

    def release(self, address: int) -> None:
        """Give them back."""
        ...

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """An array on the host that copies need not be staged for."""
        ...

    def upload(self, address: int, array: NDArray[np.float32], stream: int) -> None:
        """Copy to the device, without waiting."""
        ...

    def download(self, array: NDArray[np.float32], address: int, stream: int) -> None:
        """Copy to the host, without waiting."""
        ...

    def stream(self) -> int:
        """A new stream of its own."""
        ...

    def event(self) -> int:
        """A new event."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Let the event happen when the stream gets here."""
        ...

    def wait(self, stream: int, event: int) -> None:
        """Let the stream wait for the event."""
        ...

    def synchronize(self, event: int) -> None:
        """Wait for the event."""
        ...

    def elapsed(self, start: int, stop: int) -> float:
        """Milliseconds between two events that have happened."""
        ...

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        """What ``work`` gives the stream, as a graph; nothing of it runs.

        Raises:
            CudaError: if it cannot be captured; the stream is as before.
        """
        ...

    def launch(self, graph: int, stream: int) -> None:
        """Run a graph."""
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
    """The few functions of the driver that pycuda does not have."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")

    def __call__(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, name)
        function.argtypes = _FUNCTIONS[name]
        if status := function(*arguments):
            raise CudaError(f"CUDA refused {name} (error {status}); see nvidia-smi for the driver.")

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        """See :meth:`Cuda.capture`."""
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self("cuStreamBeginCapture_v2", stream, _THREAD_LOCAL)
        try:
            work()
        finally:  # also ends a capture that failed half-way
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
    """CUDA by pycuda. It has no graphs, so these are the driver's own."""

    package = "pycuda"

    def __init__(self, index: int = 0) -> None:
        import pycuda.driver as cuda

        cuda.init()
        self._cuda, self._driver = cuda, _Driver()
        device = cuda.Device(index)
        self._context = device.retain_primary_context()
        self._context.push()
        atexit.register(self._context.pop)  # pycuda aborts at exit if it is still there
        self.device = Device(
            device.name(), tuple(device.compute_capability()), cuda.get_driver_version()
        )
        self._kept: dict[int, Any] = {}

    def _keep(self, thing: Any, handle: int) -> int:
        self._kept[handle] = thing
        return handle

    def memory(self) -> tuple[int, int]:
        free, total = self._cuda.mem_get_info()
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        try:
            allocation = self._cuda.mem_alloc(size)
        except self._cuda.MemoryError as error:
            raise OutOfMemoryError(_no_room(size, self.memory())) from error
        return self._keep(allocation, int(allocation))

    def release(self, address: int) -> None:
        self._kept.pop(address).free()

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        array: NDArray[np.float32] = self._cuda.pagelocked_empty(shape, np.float32)
        return array

    def upload(self, address: int, array: NDArray[np.float32], stream: int) -> None:
        self._cuda.memcpy_htod_async(address, array, self._kept[stream])

    def download(self, array: NDArray[np.float32], address: int, stream: int) -> None:
        self._cuda.memcpy_dtoh_async(array, address, self._kept[stream])

    def stream(self) -> int:
        stream = self._cuda.Stream(_NON_BLOCKING)
        return self._keep(stream, stream.handle)

    def event(self) -> int:
        event = self._cuda.Event()
        return self._keep(event, id(event))  # pycuda does not tell its handle

    def record(self, event: int, stream: int) -> None:
        self._kept[event].record(self._kept[stream])

    def wait(self, stream: int, event: int) -> None:
        self._kept[stream].wait_for_event(self._kept[event])

    def synchronize(self, event: int) -> None:
        self._kept[event].synchronize()

    def elapsed(self, start: int, stop: int) -> float:
        return float(self._kept[start].time_till(self._kept[stop]))

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        return self._driver.capture(stream, work)

    def launch(self, graph: int, stream: int) -> None:
        self._driver.launch(graph, stream)


class CudaPython:
    """CUDA by NVIDIA's cuda-python."""

    package = "cuda-python"

    def __init__(self, index: int = 0) -> None:
        from cuda.bindings import driver

        self._driver = driver
        self._call(driver.cuInit, 0)
        device = self._call(driver.cuDeviceGet, index)
        context = self._call(driver.cuDevicePrimaryCtxRetain, device)
        self._call(driver.cuCtxSetCurrent, context)
        name = self._call(driver.cuDeviceGetName, 256, device).split(b"\0")[0].decode()
        attribute = driver.CUdevice_attribute
        major, minor = (
            self._call(driver.cuDeviceGetAttribute, which, device)
            for which in (
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
            raise CudaError(f"{problem}; see nvidia-smi for the driver.")
        return results[0] if len(results) == 1 else tuple(results)

    def memory(self) -> tuple[int, int]:
        free, total = self._call(self._driver.cuMemGetInfo)
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        try:
            return int(self._call(self._driver.cuMemAlloc, size))
        except OutOfMemoryError as error:
            raise OutOfMemoryError(_no_room(size, self.memory())) from error

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
        finally:  # also ends a capture that failed half-way
            graph = self._call(self._driver.cuStreamEndCapture, stream)
        try:
            return int(self._call(self._driver.cuGraphInstantiate, graph, 0))
        finally:
            self._call(self._driver.cuGraphDestroy, graph)

    def launch(self, graph: int, stream: int) -> None:
        self._call(self._driver.cuGraphLaunch, graph, stream)


def _no_room(size: int, memory: tuple[int, int]) -> str:
    free, total = (amount / 2**20 for amount in memory)
    return (
        f"The GPU has no room for {size / 2**20:.0f} MiB ({free:.0f} of {total:.0f} MiB are free)."
    )


@cache
def why_no_cuda() -> str | None:
    """Why there is no GPU to use, without importing anything heavy; None if there is one."""
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
def open_cuda() -> Cuda:
    """CUDA on the first GPU.

    Raises:
        SSDiffError: if there is no GPU, or neither package is installed.
    """
    if lack := why_no_cuda():
        raise SSDiffError(f"No GPU can be used: {lack}; choose --backend onnxruntime.")
    for kind in (PyCuda, CudaPython):
        try:
            opened: Cuda = kind()
        except ImportError:
            continue
        return opened
    raise SSDiffError(
        "Neither pycuda nor cuda-python is installed, expected one to drive the GPU; "
        "pip install pycuda, or cuda-python where pycuda cannot be built."
    )
