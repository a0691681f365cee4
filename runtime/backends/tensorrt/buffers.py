"""Memory, streams and events of a backend on a GPU, and their release."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssdiff_trt.runtime.backends.tensorrt.cuda import Cuda
from ssdiff_trt.runtime.interpolator import RATIO
from ssdiff_trt.runtime.tiles.batch import Array

if TYPE_CHECKING:
    from typing_extensions import Self

_ALIGNMENT = 256
"""Alignment that TensorRT requires of input and output addresses, bytes."""


class Held:
    """What was made on a GPU and is released together, the last first.

    Args:
        cuda: CUDA on the GPU, which has to be current for all calls.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda, self._stack = cuda, ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Release everything; more can be made afterwards."""
        self._stack.close()

    def own(self, handle: int) -> int:
        """Release a handle of :class:`Cuda` with the others; returns it."""
        self._stack.callback(self._cuda.release, handle)
        return handle

    def stream(self) -> int:
        """See :meth:`Cuda.stream`."""
        return self.own(self._cuda.stream())

    def event(self) -> int:
        """See :meth:`Cuda.event`."""
        return self.own(self._cuda.event())

    def allocate(self, size: int) -> int:
        """See :meth:`Cuda.allocate`."""
        return self.own(self._cuda.allocate(size))

    def pinned(self, shape: tuple[int, ...]) -> Array:
        """Zeros in page-locked host memory, float32."""
        array = self._cuda.pinned(shape)
        self.own(array.ctypes.data)
        array[:] = 0
        return array


@dataclass
class Slot:
    """Buffers of one batch, on the host and on the device."""

    host: dict[str, Array]
    """Pinned host memory: the fields of :class:`Tiles`, and ``image``. It is all finite, as a batch
    that is not full is computed whole."""
    inputs: dict[str, int]
    """Device addresses of pan, lms and ms."""
    states: tuple[int, int]
    """Device addresses of two states: each step reads one and writes the other."""
    uploaded: int
    """Event at the end of the upload."""
    sampled: int
    """Event at the end of the sampling loop."""
    downloaded: int
    """Event at the end of the download."""
    graph: int | None = None
    """CUDA graph of the sampling loop, if it was captured."""


def make_slot(held: Held, bands: int, tile: int, batch: int) -> Slot:
    """Allocate a slot.

    Args:
        held: what the slot is released with.
        bands: number of MS bands.
        tile: edge of a tile, pixels.
        batch: batch size, tiles.

    Raises:
        OutOfMemoryError: if there is too little memory; a part of the slot may be held.
    """
    shapes = {
        "noise": (batch, bands, tile, tile),
        "pan": (batch, 1, tile, tile),
        "lms": (batch, bands, tile, tile),
        "ms": (batch, bands, tile // RATIO, tile // RATIO),
        "image": (batch, bands, tile, tile),
    }
    host = {name: held.pinned(shape) for name, shape in shapes.items()}

    def like(name: str) -> int:
        return held.allocate(host[name].nbytes)

    return Slot(
        host=host,
        inputs={name: like(name) for name in ("pan", "lms", "ms")},
        states=(like("noise"), like("noise")),
        uploaded=held.event(),
        sampled=held.event(),
        downloaded=held.event(),
    )


def upload_table(held: Held, cuda: Cuda, table: Array, stream: int) -> tuple[int, int]:
    """Copy a table ``[rows, columns]`` to the device, so that an engine can read each row.

    Args:
        held: what the table is released with.
        cuda: CUDA on the GPU.
        table: values, float32.
        stream: stream that copies; it is waited for.

    Returns:
        The address of the table, and the distance of its rows in bytes.
    """
    columns = -(-table.shape[1] * 4 // _ALIGNMENT) * _ALIGNMENT // 4
    with Held(cuda) as temporary:
        host, done = temporary.pinned((len(table), columns)), temporary.event()
        host[:, : table.shape[1]] = table
        address = held.allocate(host.nbytes)
        cuda.upload(address, host, stream)
        cuda.record(done, stream)
        cuda.synchronize(done)
    return address, 4 * columns
