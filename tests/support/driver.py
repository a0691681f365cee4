"""The stand-in for NVIDIA's driver, ``driver.c``: compiled, loaded into this process, and observed.

It has the driver's name, ``libcuda.so.1``, so whatever loads the driver afterwards gets it.

    python -m tests.support.driver FOLDER    # compile it into a folder
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock

SOURCE = Path(__file__).with_name("driver.c")
NAME = "libcuda.so.1"
ROOT = Path(__file__).parents[2]
COMPILED = ROOT / "build" / "driver"
Function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Counts(ctypes.Structure):
    """What exists on the GPUs, and what has happened there; as ``standin`` in ``driver.c``."""

    HELD = ("device_blocks", "pinned_blocks", "streams", "events", "graphs", "executables")
    _fields_ = [
        (name, ctypes.c_long) for name in (*HELD, "launches", "enqueued", "pageable_copies")
    ]

    def held(self):
        """What has not been freed, by kind."""
        return {name: getattr(self, name) for name in self.HELD if getattr(self, name)}


class Driver:
    """The loaded driver.

    Attributes:
        counts: what exists and what has happened.
    """

    def __init__(self, path):
        library = self.library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        library.standin_reset.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
        library.standin_size.argtypes = [ctypes.c_uint64]
        library.standin_size.restype = ctypes.c_size_t
        library.standin_pending.restype = ctypes.c_long
        library.cuLaunchHostFunc.argtypes = [ctypes.c_void_p, Function, ctypes.c_void_p]
        library.cuMemFree_v2.argtypes = [ctypes.c_uint64]
        self.counts = Counts.in_dll(library, "standin")
        self._enqueued = []

    def reset(self, memory=1 << 40, pinned=1 << 40, captures=True):
        """Forget everything.

        Args:
            memory: bytes of each GPU.
            pinned: bytes of host memory that may be pinned.
            captures: whether graphs can be captured.
        """
        self.library.standin_reset(memory, pinned, not captures)
        self._enqueued.clear()

    def current(self):
        """Index of the GPU that is current on this thread, or None."""
        index = ctypes.c_int()
        return None if self.library.cuCtxGetDevice(ctypes.byref(index)) else index.value

    def pending(self):
        """Number of operations that are enqueued and not executed."""
        return self.library.standin_pending()

    def enqueue(self, stream, work):
        """Enqueue a function, in place of a kernel; whether the driver accepted it."""
        self._enqueued.append(Function(lambda _: work()))
        return self.library.cuLaunchHostFunc(stream, self._enqueued[-1], None) == 0

    def allocate(self, size):
        """Address of device memory, or None, as a library that allocates by itself has it."""
        address = ctypes.c_uint64()
        refused = self.library.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size))
        return None if refused else address.value

    def size(self, address):
        """Bytes of the device memory that was allocated at an address."""
        return self.library.standin_size(address)

    def free(self, address):
        """Free device memory."""
        assert self.library.cuMemFree_v2(address) == 0, "no GPU is current"


def view(address, count):
    """Float32 values in device memory."""
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))


def compile_driver(folder):
    """Compile the driver into a folder; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    command = ["cc", "-O1", "-shared", "-fPIC", f"-Wl,-soname,{NAME}", "-o", path, SOURCE, "-ldl"]
    subprocess.run(command, check=True)
    return path


@contextmanager
def functions_found_when_called():
    """Libraries that are loaded may lack functions of the driver that nothing calls."""
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_LAZY)
    try:
        yield
    finally:
        sys.setdlopenflags(flags)


def load_driver():
    """The driver, and None; or None and why it cannot be loaded."""
    if sys.platform != "linux" or not shutil.which("cc"):
        return None, "a C compiler (cc) and Linux are needed for the stand-in driver"
    folder = COMPILED / hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        path = folder / NAME if (folder / NAME).exists() else compile_driver(folder)
    driver = Driver(path)
    with suppress(ImportError), functions_found_when_called():
        import pycuda.driver  # noqa: F401
    if not hasattr(ctypes.CDLL(NAME), "standin_reset"):
        return None, "NVIDIA's own driver is loaded in this process"
    return driver, None


if __name__ == "__main__":
    compile_driver(Path(sys.argv[1]))
