"""TensorRT and TensorRT-RTX: all sampling steps of a batch on the GPU, as one CUDA graph.

Buffers are doubled. While the GPU samples one batch, the next one is copied to the device and the
images of the previous one are copied to the host, each on its own stream; meanwhile the host reads
and writes the scene::

    upload       | tiles 1 | tiles 2 |         | tiles 3 |
    sampling               | tiles 1           | tiles 2           | tiles 3
    download                                   | images 1 |        | images 2 |
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ssdiff_trt.runtime.backends.protocol import CLAMPED_RESIDUAL, Device
from ssdiff_trt.runtime.backends.tensorrt.audit import audit_engine
from ssdiff_trt.runtime.backends.tensorrt.buffers import Held, Slot, make_slot, upload_table
from ssdiff_trt.runtime.backends.tensorrt.context import Kernels, capturable, create_context
from ssdiff_trt.runtime.backends.tensorrt.cuda import Cuda, CudaError, OutOfMemoryError
from ssdiff_trt.runtime.bundle.manifest import graph_io
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import BackendError
from ssdiff_trt.runtime.options import Precision
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.schedule import Schedule
from ssdiff_trt.runtime.tiles.batch import Array, Tiles

if TYPE_CHECKING:
    from typing_extensions import Self


class _StepTable(NamedTuple):
    """Inputs of the step graph for all steps of the sampling loop."""

    times: tuple[float, ...]
    """Time input of the network at each step."""
    updates: tuple[tuple[float, ...], ...]
    """Coefficients of each step; see :attr:`ssdiff_trt.runtime.schedule.Schedule.updates`."""


class TensorRT:
    """Backend that runs an engine of the step graph.

    Any thread may call it, one at a time. A new sampling ends one that was not finished.

    Args:
        engine: serialised engine. It is native code, so its origin must have been verified.
        trt: the package, ``tensorrt`` or ``tensorrt_rtx``.
        cuda: CUDA on the GPU to use.
        bundle: bundle that the engine was built from.
        precision: precision of the graph.
        batch: batch size that the engine was built for, tiles.
        progress: receives a warning if no CUDA graph can be captured.
        graphs: whether to capture CUDA graphs; without them, every step is enqueued on its own.
        kernels: kept kernels of the engine, for TensorRT-RTX.

    Raises:
        OutOfMemoryError: if the engine and its buffers do not fit into device memory.
        SSDiffError: if the engine cannot be loaded, or does not match the bundle.

    Attributes:
        build_seconds: time it took to build the engine, if known.
    """

    device: Device = "gpu"
    build_seconds: float | None = None

    def __init__(
        self,
        engine: bytes,
        trt: Any,
        cuda: Cuda,
        bundle: Bundle,
        precision: Precision,
        batch: int,
        progress: Progress | None = None,
        graphs: bool = True,
        kernels: Kernels | None = None,
    ) -> None:
        self._kernels = kernels
        self.precision: Precision = precision
        self._cuda, self._progress, self._graphs = cuda, progress or Progress(), graphs
        self._name = f"{trt.__name__} {trt.__version__} on {cuda.device.name}"
        self._model = bundle.manifest.model
        self._streams, self._buffers, self._loaded = (Held(cuda) for _ in range(3))
        self._slots: list[Slot] = []
        self._table: _StepTable | None = None
        self._sampling: object = None
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        with ExitStack() as unfinished:
            unfinished.callback(self.close)
            with cuda.current():
                self._upload, self._compute, self._download = (
                    self._streams.stream() for _ in range(3)
                )
                self._open(engine, trt, bundle, batch)
            unfinished.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the GPU, and free all that the backend holds there and in pinned memory."""
        with self._cuda.current():
            self._drain()
            self._slots.clear()
            self._loaded.close()
            # In the order that TensorRT needs.
            self._context = self._kernels = self._engine = self._runtime = None
            self._buffers.close()
            self._streams.close()
            self._table = self._sampling = None

    def _open(self, engine: bytes, trt: Any, bundle: Bundle, batch: int) -> None:
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise BackendError(
                f"{self._name} cannot load the engine; delete it from the cache to rebuild it."
            )
        self._audit(trt, bundle, batch)
        self._context = create_context(trt, self._engine, self._kernels)
        if self._context is None:
            raise OutOfMemoryError(
                f"{self._name} has too little memory for the engine; free some, or lower `batch`."
            )
        self._allocate(batch)

    def _drain(self) -> None:
        """Wait until nothing is in flight, whatever was enqueued."""
        for slot in self._slots[:1]:
            for event, stream in (
                (slot.uploaded, self._upload),
                (slot.sampled, self._compute),
                (slot.downloaded, self._download),
            ):
                self._cuda.record(event, stream)
                self._cuda.synchronize(event)

    def _audit(self, trt: Any, bundle: Bundle, batch: int) -> None:
        """Check names, types and shapes against those of the bundle's graph, and the precision."""
        inputs, outputs = graph_io("step", bundle.manifest.model)
        specs = {spec.name: spec for spec in (*inputs, *outputs)}
        count = self._engine.num_io_tensors
        names = [self._engine.get_tensor_name(index) for index in range(count)]
        if set(names) != set(specs):
            raise BackendError(f"The engine has {', '.join(names)}, expected {', '.join(specs)}.")
        for name, spec in specs.items():
            dtype = self._engine.get_tensor_dtype(name)
            if dtype != trt.DataType.FLOAT:
                raise BackendError(f"The engine has {name} in {dtype.name}, expected FLOAT.")
            shape = tuple(self._engine.get_tensor_shape(name))
            expected = tuple(batch if size == "batch" else size for size in spec.shape)
            if shape != expected:
                raise BackendError(f"The engine has {name} of shape {shape}, expected {expected}.")
        inspector = self._engine.create_engine_inspector()
        self.layers = audit_engine(
            inspector.get_engine_information(trt.LayerInformationFormat.JSON), self.precision
        )

    def _allocate(self, batch: int) -> None:
        """Allocate the memory of the engine and of both slots."""
        if scratch := self._engine.device_memory_size_v2:
            self._context.set_device_memory(self._buffers.allocate(scratch), scratch)
        model = self._model
        self._slots.extend(
            make_slot(self._buffers, model.bands, model.tile, batch) for _ in range(2)
        )
        self.batch = batch

    def _check(self, succeeded: bool, operation: str) -> None:
        """Raise if a TensorRT call that returns a status failed."""
        if not succeeded:
            raise CudaError(
                f"{self._name} refused {operation}; check the bundle with ssdiff-trt verify."
            )

    def _load(self, table: _StepTable, capture: bool) -> None:
        """Copy a table of steps to the device, and capture the loop over it."""
        if table == self._table:
            return
        updates = np.array(table.updates, np.float32)
        times = np.repeat(np.array(table.times, np.float32)[:, None], self.batch, axis=1)
        self._table = None
        for slot in self._slots:
            slot.graph = None
        self._loaded.close()
        self._device_tables = [
            upload_table(self._loaded, self._cuda, array, self._compute)
            for array in (times, updates)
        ]
        self._table = table
        for slot in self._slots:
            slot.graph = self._capture(slot) if capture and self._graphs else None

    def _loop(self, slot: Slot) -> None:
        """Enqueue every step of a batch."""
        assert self._table is not None
        for name, address in slot.inputs.items():
            self._bind(name, address)
        (times, times_pitch), (updates, updates_pitch) = self._device_tables
        for step in range(len(self._table.times)):
            self._bind("x_t", slot.states[step % 2])
            self._bind("x_next", slot.states[(step + 1) % 2])
            self._bind("t", times + step * times_pitch)
            self._bind("coefficients", updates + step * updates_pitch)
            self._check(self._context.execute_async_v3(self._compute), f"step {step + 1}")

    def _enqueue(self, slot: Slot) -> None:
        """Enqueue the sampling loop, as a CUDA graph if it was captured."""
        if slot.graph is None:
            self._loop(slot)
        else:
            self._cuda.launch(slot.graph, self._compute)

    def _bind(self, name: str, address: int) -> None:
        self._check(self._context.set_tensor_address(name, address), f"the address of {name}")

    def _capture(self, slot: Slot) -> int | None:
        """Capture the loop as a CUDA graph; None, and no graphs from now on, if that fails."""
        self._loop(slot)  # first without capture: engines initialise at their first call
        self._cuda.record(slot.sampled, self._compute)
        self._cuda.synchronize(slot.sampled)
        if self._kernels is not None:
            self._kernels.keep()
        try:
            if not capturable(self._context, self._compute):
                raise CudaError("TensorRT-RTX cannot run this engine in one")
            return self._loaded.own(self._cuda.capture(self._compute, lambda: self._loop(slot)))
        except CudaError as error:
            self._progress.warn(f"No CUDA graph could be captured ({error}); running step by step")
            self._graphs = False
            return None

    def sample(self, batches: Iterable[Tiles], schedule: Schedule) -> Iterator[Array]:
        times = tuple(step.t for step in schedule.steps)
        return self._run(
            batches, _StepTable(times, tuple(map(tuple, schedule.updates.tolist()))), True
        )

    def denoise(self, tiles: Tiles, x: Array, t: float) -> Array:
        table = _StepTable((t,), (tuple(CLAMPED_RESIDUAL.tolist()),))
        (residual,) = self._run([tiles._replace(noise=x)], table, False)
        return residual

    def _run(self, batches: Iterable[Tiles], table: _StepTable, capture: bool) -> Iterator[Array]:
        """Final state of each batch, in order, with up to two engine batches in flight."""
        if self._context is None:
            raise BackendError(f"{self._name} is closed; open it again.")
        self._sampling = sampling = object()
        in_flight = deque[tuple[Slot, int, bool]]()
        images: list[Array] = []

        def collect() -> Iterator[Array]:
            """Wait for a part and append its images; yield all images after the last part."""
            slot, count, last = in_flight.popleft()
            with self._cuda.current():
                self._cuda.synchronize(slot.downloaded)
            images.append(slot.host["image"][:count].copy())
            if last:
                yield np.concatenate(images)
                images.clear()
                if self._sampling is not sampling:
                    raise BackendError(
                        f"{self._name} was closed or began another sampling before this one ended; "
                        "take all images first, or open a second backend."
                    )

        try:
            with self._cuda.current():
                self._drain()
                self._load(table, capture)
            for index, (part, last) in enumerate(self._split(batches)):
                if len(in_flight) == len(self._slots):
                    yield from collect()
                slot = self._slots[index % 2]
                with self._cuda.current():
                    self._submit(slot, part)
                in_flight.append((slot, len(part.noise), last))
            while in_flight:
                yield from collect()
        finally:
            with self._cuda.current():
                self._drain()

    def _split(self, batches: Iterable[Tiles]) -> Iterator[tuple[Tiles, bool]]:
        """Parts of the batches that fit the engine, and whether a part is the last of its batch."""
        for tiles in batches:
            for first in range(0, len(tiles.noise), self.batch):
                end = first + self.batch
                yield tiles.part(slice(first, end)), end >= len(tiles.noise)

    def _submit(self, slot: Slot, tiles: Tiles) -> None:
        """Enqueue upload, sampling and download of a part, without waiting."""
        assert self._table is not None
        cuda = self._cuda
        for name, array in tiles._asdict().items():
            slot.host[name][: len(array)] = array
        for name, address in {"noise": slot.states[0], **slot.inputs}.items():
            cuda.upload(address, slot.host[name], self._upload)
        cuda.record(slot.uploaded, self._upload)
        cuda.wait(self._compute, slot.uploaded)
        self._enqueue(slot)
        cuda.record(slot.sampled, self._compute)
        cuda.wait(self._download, slot.sampled)
        result = slot.states[len(self._table.times) % 2]
        cuda.download(slot.host["image"], result, self._download)
        cuda.record(slot.downloaded, self._download)

    def milliseconds(self, tiles: Tiles, schedule: Schedule, repeats: int) -> list[float]:
        """See :class:`ssdiff_trt.runtime.backends.protocol.TimedByDevice`; uses CUDA events."""
        list(self.sample([tiles], schedule))  # loads the steps, captures the loop and warms up
        cuda, slot, times = self._cuda, self._slots[0], []
        with cuda.current(), Held(cuda) as held:
            start, stop = held.event(), held.event()
            for _ in range(repeats):
                cuda.record(start, self._compute)
                self._enqueue(slot)
                cuda.record(stop, self._compute)
                cuda.synchronize(stop)
                times.append(cuda.elapsed(start, stop))
        return times

    def describe(self) -> str:
        execution = "CUDA graphs" if self._graphs else "step by step"
        return f"{self._name}, {self.precision}, batches of {self.batch} tiles, {execution}"
