"""CUDA memory, streams, events and graphs behind a small protocol.

Either pycuda or cuda-python is used, whichever is installed, pycuda first; see ``cuda_packages``.
No other module calls CUDA.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ssdiff_trt.runtime.errors import BackendError, SSDiffError

OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY


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
    """The CUDA functions that backends use, on one GPU.

    Addresses, streams, events and graphs are integers, which :meth:`release` takes. Every call but
    :meth:`current` needs the GPU to be current on the calling thread. Any thread may call.

    Raises:
        CudaError: from every method, if CUDA refuses.
    """

    package: str
    """Python package that provides CUDA."""
    device: Device

    def current(self) -> AbstractContextManager[None]:
        """Make the GPU current on the calling thread, for this object and for TensorRT."""
        ...

    def memory(self) -> tuple[int, int]:
        """Free and total device memory, bytes."""
        ...

    def allocate(self, size: int) -> int:
        """Allocate device memory of ``size`` bytes; returns its address.

        Raises:
            OutOfMemoryError: if there is too little memory.
        """
        ...

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Allocate an array in page-locked host memory; its address is released.

        Raises:
            OutOfMemoryError: if there is too little memory.
        """
        ...

    def release(self, handle: int) -> None:
        """Free memory, or destroy a stream, an event or a graph."""
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
        """Block the host until an event has been recorded, if it ever was to be."""
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
    "cuCtxPopCurrent_v2": [ctypes.POINTER(ctypes.c_void_p)],
    "cuStreamBeginCapture_v2": [ctypes.c_void_p, ctypes.c_int],
    "cuStreamEndCapture": [ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)],
    "cuGraphInstantiateWithFlags": [
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.c_void_p,
        ctypes.c_ulonglong,
    ],
    "cuGraphDestroy": [ctypes.c_void_p],
    "cuGraphExecDestroy": [ctypes.c_void_p],
    "cuGraphLaunch": [ctypes.c_void_p, ctypes.c_void_p],
}


def refusal(call: str, out_of_memory: bool) -> CudaError:
    """Error for a call that CUDA refused."""
    if out_of_memory:
        return OutOfMemoryError(f"CUDA refused {call}; free memory, or lower `batch`.")
    return CudaError(f"CUDA refused {call}; check the driver (nvidia-smi).")


class Driver:
    """Driver functions that pycuda does not wrap, called through ctypes."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")

    def __call__(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, name)
        function.argtypes = _FUNCTIONS[name]
        if status := function(*arguments):
            raise refusal(f"{name} (error {status})", status == OUT_OF_MEMORY)


@cache
def why_no_cuda() -> str | None:
    """Why no GPU can be used, as a clause; None if one can. Imports no CUDA package."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every GPU"
    try:
        driver = Driver()
        driver("cuInit", 0)
    except OSError:
        return "there is no NVIDIA driver"
    except CudaError as error:
        return str(error).rstrip(".")
    return None


@cache
def why_no_package() -> str | None:
    """Why neither package that provides CUDA can be used, as a clause; None if one can."""
    reasons = []
    for module in ("pycuda.driver", "cuda.bindings.driver"):
        try:
            import_module(module)
        except ImportError as error:
            reasons.append(str(error))
        else:
            return None
    return f"neither pycuda nor cuda-python can be imported ({'; '.join(reasons)})"


@cache
def open_cuda(index: int = 0) -> Cuda:
    """CUDA on a GPU.

    Args:
        index: of the GPU, counted from 0.

    Raises:
        BackendError: if there is no such GPU, or neither package can be used.
    """
    if reason := why_no_cuda():
        raise BackendError(f"No GPU can be used: {reason}; choose `backend=onnxruntime`.")
    if reason := why_no_package():
        raise BackendError(
            f"No GPU can be used: {reason}; install cuda-bindings in the version that ssdiff-trt "
            "doctor names."
        )
    from ssdiff_trt.runtime.backends.tensorrt.cuda_packages import CudaPython, PyCuda

    try:
        return PyCuda(index)
    except ImportError:
        return CudaPython(index)
