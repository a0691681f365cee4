"""TensorRT and TensorRT-RTX: all steps of a batch on the GPU, as one CUDA graph.

Two slots take turns. While the GPU samples the tiles of one, those of the next are copied in and
the images of the one before are copied out, each on a stream of its own; the host meanwhile reads
and writes the scene::

    copies in    | tiles 1 | tiles 2 |         | tiles 3 |
    sampling               | tiles 1           | tiles 2           | tiles 3
    copies out                                 | images 1 |        | images 2 |
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ssdiff_trt.runtime.backends.protocol import CLAMPED_RESIDUAL, Device
from ssdiff_trt.runtime.backends.tensorrt.cuda import Cuda, CudaError, OutOfMemoryError, open_cuda
from ssdiff_trt.runtime.backends.tensorrt.engine import BATCH, Flavour, Plan, audit_engine
from ssdiff_trt.runtime.backends.tensorrt.engine_cache import EngineCache
from ssdiff_trt.runtime.bundle.manifest import Precision, graph_io
from ssdiff_trt.runtime.bundle.store import Bundle
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.files import cache_folder
from ssdiff_trt.runtime.progress import Progress
from ssdiff_trt.runtime.schedule import Schedule
from ssdiff_trt.runtime.tiles.batch import Array, Tiles

_ALIGNMENT = 256
"""Bytes that addresses of an engine's inputs and outputs are whole multiples of."""


class _Table(NamedTuple):
    """What a loop does."""

    times: tuple[float, ...]
    """What the network is told at each step."""
    updates: tuple[tuple[float, ...], ...]
    """Coefficients of each step; see :attr:`ssdiff_trt.runtime.schedule.Schedule.updates`."""


@dataclass
class _Slot:
    """Buffers of one batch, on the host and on the device."""

    host: dict[str, Array]
    """Pinned: the parts of :class:`Tiles`, and ``image``."""
    inputs: dict[str, int]
    """Addresses on the device: pan, lms, ms."""
    states: tuple[int, int]
    """Each step reads one and writes the other."""
    uploaded: int
    sampled: int
    downloaded: int
    """Events."""
    graph: int | None = None
    """The captured loop."""


class TensorRT:
    """An engine of whole steps.

    Args:
        engine: serialised; it must have been checked, for it is native code.
        trt: the package, ``tensorrt`` or ``tensorrt_rtx``.
        cuda: of the GPU.
        bundle: that the engine was built from.
        precision: of the graph.
        batch: most tiles at a time, as the engine was built.
        progress: told when there is less room than wanted.
        graphs: whether to capture CUDA graphs; without, a plain loop does the same.

    Raises:
        SSDiffError: if the engine cannot be loaded, is not what it should be, or does not fit.

    Attributes:
        build_seconds: that the engine took when it was built, if that is known.
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
        batch: int = BATCH,
        progress: Progress | None = None,
        graphs: bool = True,
    ) -> None:
        self.precision: Precision = precision
        self._cuda, self._progress, self._graphs = cuda, progress or Progress(), graphs
        self._name = f"{trt.__name__} {trt.__version__} on {cuda.device.name}"
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise SSDiffError(
                f"{self._name} does not load the engine; delete it from the cache to build it anew."
            )
        self._audit(trt, bundle)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise OutOfMemoryError(
                f"{self._name} has no memory for the engine; free some, or lower --batch."
            )
        self._copy_in, self._compute, self._copy_out = (cuda.stream() for _ in range(3))
        self._model = bundle.manifest.model
        self._table: _Table | None = None
        self._rows: list[tuple[int, int]] = []
        try:
            self._reserve(batch)
        except OutOfMemoryError as error:
            if batch == 1:
                raise
            self._reserve(batch // 2)
            self._progress.warn(f"{error} Taking {self.batch} tiles at a time, not {batch}")

    def _audit(self, trt: Any, bundle: Bundle) -> None:
        """That names, types and shapes are those of the bundle's graphs."""
        specs = {
            spec.name: spec for part in graph_io("step", bundle.manifest.model) for spec in part
        }
        count = self._engine.num_io_tensors
        names = [self._engine.get_tensor_name(index) for index in range(count)]
        if set(names) != set(specs):
            raise SSDiffError(f"The engine has {', '.join(names)}, expected {', '.join(specs)}.")
        for name, spec in specs.items():
            dtype = self._engine.get_tensor_dtype(name)
            if dtype != trt.DataType.FLOAT:
                raise SSDiffError(f"The engine has {name} in {dtype.name}, expected FLOAT.")
            found = tuple(self._engine.get_tensor_shape(name))
            expected = tuple(-1 if size == "batch" else size for size in spec.shape)
            if found != expected:
                raise SSDiffError(f"The engine has {name} of {found}, expected {expected}.")
        inspector = self._engine.create_engine_inspector()
        self.layers = audit_engine(
            inspector.get_engine_information(trt.LayerInformationFormat.JSON), self.precision
        )

    def _reserve(self, batch: int) -> None:
        """Make the buffers of both slots, or none."""
        bands, tile = self._model.bands, self._model.tile
        shapes = {
            "noise": (batch, bands, tile, tile),
            "pan": (batch, 1, tile, tile),
            "lms": (batch, bands, tile, tile),
            "ms": (batch, bands, tile // 4, tile // 4),
            "image": (batch, bands, tile, tile),
        }
        taken: list[int] = []

        def take(name: str) -> int:
            taken.append(self._cuda.allocate(4 * int(np.prod(shapes[name]))))
            return taken[-1]

        try:
            self._slots = [
                _Slot(
                    host={name: self._cuda.pinned(shape) for name, shape in shapes.items()},
                    inputs={name: take(name) for name in ("pan", "lms", "ms")},
                    states=(take("noise"), take("noise")),
                    uploaded=self._cuda.event(),
                    sampled=self._cuda.event(),
                    downloaded=self._cuda.event(),
                )
                for _ in range(2)
            ]
        except OutOfMemoryError:
            for address in taken:
                self._cuda.release(address)
            raise
        self.batch = batch
        for slot in self._slots:
            for array in slot.host.values():
                array[:] = 0  # what is left of a batch that is not full is computed too
        for name in ("x_t", "pan", "lms", "ms", "t"):
            part = shapes["noise"] if name == "x_t" else shapes.get(name, (batch,))
            self._check(self._context.set_input_shape(name, part), f"the shape of {name}")

    def _check(self, done: bool, what: str) -> None:
        if not done:
            raise CudaError(f"{self._name} refused {what}; see --verbose, and ssdiff-trt verify.")

    def _load(self, table: _Table, capture: bool) -> None:
        """Put a table of steps on the device, and capture the loop over it."""
        if table == self._table:
            return
        updates = np.array(table.updates, np.float32)
        times = np.repeat(np.array(table.times, np.float32)[:, None], self.batch, axis=1)
        for address, _ in self._rows:
            self._cuda.release(address)
        self._rows = [self._upload_rows(rows) for rows in (times, updates)]
        self._table = table
        for slot in self._slots:
            slot.graph = self._capture(slot) if capture and self._graphs else None

    def _upload_rows(self, table: Array) -> tuple[int, int]:
        """Address of a table on the device, and bytes from row to row, aligned."""
        columns = -(-table.shape[1] * 4 // _ALIGNMENT) * _ALIGNMENT // 4
        host = self._cuda.pinned((len(table), columns))
        host[:] = 0
        host[:, : table.shape[1]] = table
        address = self._cuda.allocate(host.nbytes)
        self._cuda.upload(address, host, self._compute)
        done = self._cuda.event()
        self._cuda.record(done, self._compute)
        self._cuda.synchronize(done)
        return address, 4 * columns

    def _loop(self, slot: _Slot) -> None:
        """Every step of a batch."""
        assert self._table is not None
        for name, address in slot.inputs.items():
            self._bind(name, address)
        (times, from_time), (updates, from_update) = self._rows
        for step in range(len(self._table.times)):
            self._bind("x_t", slot.states[step % 2])
            self._bind("x_next", slot.states[(step + 1) % 2])
            self._bind("t", times + step * from_time)
            self._bind("coefficients", updates + step * from_update)
            self._check(self._context.execute_async_v3(self._compute), f"step {step + 1}")

    def _go(self, slot: _Slot) -> None:
        """The loop, as a graph if there is one."""
        if slot.graph is None:
            self._loop(slot)
        else:
            self._cuda.launch(slot.graph, self._compute)

    def _bind(self, name: str, address: int) -> None:
        self._check(self._context.set_tensor_address(name, address), f"the address of {name}")

    def _capture(self, slot: _Slot) -> int | None:
        """The loop as one graph; None, and a plain loop from now on, if that does not work."""
        self._loop(slot)  # once as it is: engines prepare themselves at their first call
        self._cuda.record(slot.sampled, self._compute)
        self._cuda.synchronize(slot.sampled)
        try:
            return self._cuda.capture(self._compute, lambda: self._loop(slot))
        except CudaError as error:
            self._progress.warn(f"No CUDA graph ({error}); running step by step")
            self._graphs = False
            return None

    def sample(self, batches: Iterable[Tiles], schedule: Schedule) -> Iterator[Array]:
        times = tuple(step.t for step in schedule.steps)
        return self._run(batches, _Table(times, tuple(map(tuple, schedule.updates.tolist()))), True)

    def denoise(self, tiles: Tiles, x: Array, t: float) -> Array:
        table = _Table((t,), (tuple(CLAMPED_RESIDUAL.tolist()),))
        (residual,) = self._run([tiles._replace(noise=x)], table, False)
        return residual

    def _run(self, batches: Iterable[Tiles], table: _Table, capture: bool) -> Iterator[Array]:
        """The last state of each batch, in order, two of the engine's batches under way."""
        self._load(table, capture)
        under_way = deque[tuple[_Slot, int, bool]]()
        done: list[Array] = []
        for turn, (part, last) in enumerate(self._parts(batches)):
            if len(under_way) == len(self._slots):
                yield from self._collect(*under_way.popleft(), done)
            slot = self._slots[turn % 2]
            self._submit(slot, part)
            under_way.append((slot, len(part.noise), last))
        while under_way:
            yield from self._collect(*under_way.popleft(), done)

    def _parts(self, batches: Iterable[Tiles]) -> Iterator[tuple[Tiles, bool]]:
        """Batches that fit the engine, and whether one of the caller's ends with it."""
        for tiles in batches:
            for first in range(0, len(tiles.noise), self.batch):
                end = first + self.batch
                yield tiles.part(slice(first, end)), end >= len(tiles.noise)

    def _collect(self, slot: _Slot, count: int, last: bool, done: list[Array]) -> Iterator[Array]:
        self._cuda.synchronize(slot.downloaded)
        done.append(slot.host["image"][:count].copy())
        if last:
            yield np.concatenate(done)
            done.clear()

    def _submit(self, slot: _Slot, tiles: Tiles) -> None:
        """Copy in, sample, copy out, without waiting for any of it."""
        assert self._table is not None
        cuda = self._cuda
        for name, array in tiles._asdict().items():
            slot.host[name][: len(array)] = array
        for name, address in {"noise": slot.states[0], **slot.inputs}.items():
            cuda.upload(address, slot.host[name], self._copy_in)
        cuda.record(slot.uploaded, self._copy_in)
        cuda.wait(self._compute, slot.uploaded)
        self._go(slot)
        cuda.record(slot.sampled, self._compute)
        cuda.wait(self._copy_out, slot.sampled)
        result = slot.states[len(self._table.times) % 2]
        cuda.download(slot.host["image"], result, self._copy_out)
        cuda.record(slot.downloaded, self._copy_out)

    def milliseconds(self, tiles: Tiles, schedule: Schedule, repeats: int) -> list[float]:
        """See :class:`ssdiff_trt.runtime.backends.protocol.TimedByDevice`; by CUDA events."""
        list(self.sample([tiles], schedule))  # loads, captures and warms up
        cuda, slot, found = self._cuda, self._slots[0], []
        start, stop = cuda.event(), cuda.event()
        for _ in range(repeats):
            cuda.record(start, self._compute)
            self._go(slot)
            cuda.record(stop, self._compute)
            cuda.synchronize(stop)
            found.append(cuda.elapsed(start, stop))
        return found

    def describe(self) -> str:
        how = "CUDA graphs" if self._graphs else "step by step"
        return f"{self._name}, {self.precision}, {self.batch} tiles at a time, {how}"


def open_tensorrt(
    name: str, bundle: Bundle, *, precision: Precision, batch: int | None, progress: Progress
) -> TensorRT:
    """The backend for this GPU, its engine from the cache or built now."""
    flavour: Flavour = "tensorrt" if name == "tensorrt" else "tensorrt-rtx"
    cuda, batch = open_cuda(), batch or BATCH
    plan = Plan(bundle, flavour, precision, cuda.device, most=max(batch, BATCH))
    cache = EngineCache(cache_folder() / "engines", [bundle.path / "engines"])
    free, _ = cuda.memory()
    engine = cache.get(plan.key, lambda timing: plan.build(progress, free, timing), progress)
    backend = TensorRT(engine, plan.trt, cuda, bundle, precision, batch, progress)
    backend.build_seconds = cache.build_seconds(plan.key)
    return backend
