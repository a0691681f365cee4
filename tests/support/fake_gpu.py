"""Fake CUDA and TensorRT in numpy: device memory, streams, events, graphs and engines.

Work is queued on streams and executed only when an event is waited for, so that a missing wait or a
buffer that is used too early gives wrong numbers. Each call of an engine takes one millisecond on
the clock of the fake GPU.
"""

from __future__ import annotations

import types

import numpy as np

from ssdiff_trt.runtime.backends.tensorrt.cuda import CudaError, Device, OutOfMemoryError
from tests.support.fake_rtx import RuntimeConfig


class FakeCuda:
    """Fake of the ``Cuda`` protocol. Addresses are integers; memory is bytes.

    Args:
        memory_size: bytes of device memory.
        captures: whether graphs can be captured.

    Attributes:
        blocks: allocated memory, by address.
        calls: names of the calls so far, in order.
        clock: time of the device, ms.
    """

    package = "fake"

    def __init__(self, memory_size=1 << 40, captures=True):
        self.device = Device("Fake GPU", (8, 6), 13000)
        self.memory_size, self.captures = memory_size, captures
        self.blocks, self.calls = {}, []
        self.queues, self.events, self.graphs = {}, {}, {}
        self.capturing = None
        self.clock, self.event_times = 0.0, {}
        self._next_handle = 1 << 20

    def _handle(self):
        self._next_handle += 1
        return self._next_handle

    # Memory

    def memory(self):
        used = sum(map(len, self.blocks.values()))
        return self.memory_size - used, self.memory_size

    def allocate(self, size):
        if size > self.memory()[0]:
            raise OutOfMemoryError("The GPU is out of memory.")
        address = (self._next_handle // 4096 + 1) * 4096
        self._next_handle = address + size
        self.blocks[address] = bytearray(size)
        return address

    def release(self, address):
        del self.blocks[address]

    def view(self, address, count):
        """Float32 values in device memory, as a view."""
        for start, block in self.blocks.items():
            if start <= address < start + len(block):
                return np.frombuffer(block, np.float32, count, address - start)
        raise AssertionError(f"{address} is not on the device")

    def pinned(self, shape):
        return np.full(shape, np.nan, np.float32)

    # Streams

    def stream(self):
        handle = self._handle()
        self.queues[handle] = []
        return handle

    def push(self, stream, name, work):
        self.calls.append(name)
        if self.capturing is not None and stream == self.capturing[0]:
            self.capturing[1].append(work)
        else:
            self.queues[stream].append(work)

    def upload(self, address, array, stream):
        def work():
            self.view(address, array.size)[:] = array.ravel()

        self.push(stream, "upload", work)

    def download(self, array, address, stream):
        def work():
            array.ravel()[:] = self.view(address, array.size)

        self.push(stream, "download", work)

    def event(self):
        handle = self._handle()
        self.events[handle] = None
        return handle

    def record(self, event, stream):
        marker = object()
        self.events[event] = (stream, marker)
        self.queues[stream].append(marker)
        self.calls.append("record")

    def wait(self, stream, event):
        recorded = self.events[event]
        self.queues[stream].append(lambda: self.run_to(*recorded))
        self.calls.append("wait")

    def run_to(self, stream, marker):
        """Execute the work of a stream up to a marker."""
        queue = self.queues[stream]
        while marker in queue:
            work = queue.pop(0)
            if callable(work):
                work()
            else:
                self.event_times[work] = self.clock

    def synchronize(self, event):
        self.calls.append("synchronize")
        self.run_to(*self.events[event])

    def elapsed(self, start, stop):
        return self.event_times[self.events[stop][1]] - self.event_times[self.events[start][1]]

    # Graphs

    def capture(self, stream, work):
        self.capturing = (stream, [])
        try:
            work()
            if not self.captures:
                raise CudaError("capture is not permitted")
        finally:
            _, captured = self.capturing
            self.capturing = None
        handle = self._handle()
        self.graphs[handle] = captured
        return handle

    def launch(self, graph, stream):
        self.push(stream, "launch", lambda: [work() for work in self.graphs[graph]])


class FakeEngine:
    """An engine that computes a function of the inputs of the step graph.

    Args:
        cuda: the fake GPU.
        specs: inputs and outputs by name.
        network: function of the inputs.
        batch: batch size, tiles.
        dtypes: types of inputs and outputs that are not float32, by name.
        refuse_at: number of the call, from 1, that fails.
        scratch: device memory that a context needs, bytes for each tile.
    """

    def __init__(self, cuda, specs, network, batch, dtypes=None, refuse_at=None, scratch=0):
        self.cuda, self.specs, self.network, self.batch = cuda, specs, network, batch
        self.dtypes, self.refuse_at = dtypes or {}, refuse_at
        self.device_memory_size_v2 = scratch * batch
        self.num_io_tensors = len(specs)

    def get_tensor_name(self, index):
        return list(self.specs)[index]

    def get_tensor_dtype(self, name):
        return self.dtypes.get(name, DataType.FLOAT)

    def get_tensor_shape(self, name):
        return [self.batch if size == "batch" else size for size in self.specs[name].shape]

    def create_engine_inspector(self):
        return types.SimpleNamespace(get_engine_information=lambda kind: '{"Layers": []}')

    create_runtime_config = RuntimeConfig

    def create_execution_context(self, given):
        assert getattr(given, "strategy", given) == "user managed"
        return FakeContext(self)


class FakeContext:
    """An execution context; it refuses addresses that are not aligned to 256 bytes."""

    def __init__(self, engine):
        self.engine, self.addresses, self.enqueued = engine, {}, 0
        self.memory = 0

    def set_device_memory(self, address, size):
        assert len(self.engine.cuda.blocks[address]) == size
        self.memory = size

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return address % 256 == 0

    def execute_async_v3(self, stream):
        assert self.memory == self.engine.device_memory_size_v2
        self.enqueued += 1
        if self.enqueued == self.engine.refuse_at:
            return False
        cuda, addresses = self.engine.cuda, dict(self.addresses)
        shapes = {name: self.engine.get_tensor_shape(name) for name in self.engine.specs}

        def work():
            inputs = {
                name: cuda.view(addresses[name], int(np.prod(shape))).reshape(shape)
                for name, shape in shapes.items()
                if name != "x_next"
            }
            result = self.engine.network(**inputs)
            cuda.view(addresses["x_next"], result.size)[:] = result.ravel()
            cuda.clock += 1

        cuda.push(stream, "enqueue", work)
        return True


class DataType:
    FLOAT = types.SimpleNamespace(name="FLOAT")
    HALF = types.SimpleNamespace(name="HALF")


def fake_tensorrt(engine):
    """A fake TensorRT package that deserialises everything to ``engine``."""

    class Logger:
        ERROR = 0

        def __init__(self, severity):
            pass

    return types.SimpleNamespace(
        __name__="fake_tensorrt",
        __version__="10.14.1",
        BuilderFlag=types.SimpleNamespace(),
        DataType=DataType,
        ExecutionContextAllocationStrategy=types.SimpleNamespace(USER_MANAGED="user managed"),
        LayerInformationFormat=types.SimpleNamespace(JSON=0),
        Logger=Logger,
        Runtime=lambda logger: types.SimpleNamespace(deserialize_cuda_engine=lambda plan: engine),
    )
